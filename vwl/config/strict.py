"""The base of all settings that users write (recipes, search spaces, cluster descriptions), and their errors in one line."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from vwl.errors import did_you_mean, shortened

_UNKNOWN = {"extra_forbidden", "invalid_key"}
"""Pydantic's errors for a key that the model lacks; the second is for keys that are no text."""
_MOST_SHOWN = 20
"""Wrong keys that an error lists."""


class StrictModel(BaseModel):
    """Immutable settings: unknown keys are refused, numbers are finite, and the string below a field is its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _plain_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where a field takes none, because Python counts them as 1 and 0, and whole numbers of more than 64 bits."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        parts = value if isinstance(value, list | tuple) else [value]
        if not _takes_bool(annotation) and any(isinstance(part, bool) for part in parts):
            raise ValueError("should not be true or false")
        if any(isinstance(part, int) and not -(2**63) <= part < 2**63 for part in parts):
            raise ValueError("should be a number of at most 64 bits")
        return value


def describe_errors(error: ValidationError, model: type[BaseModel], noun: str = "key") -> str:
    """Return the errors of a model's validation as one line that names every wrong key, but not more than 20.

    Args:
        error: raised by `model.model_validate`.
        model: finds the known keys, for suggestions.
        noun: what users call a key.
    """
    by_key: dict[str, list[Any]] = {}
    for item in error.errors():
        by_key.setdefault(".".join(_key(model, item)), []).append(item)
    shown = "; ".join(_describe(key, items, model, noun) for key, items in islice(by_key.items(), _MOST_SHOWN))
    return f"{shown}; and {len(by_key) - _MOST_SHOWN} more" if len(by_key) > _MOST_SHOWN else shown


def _describe(key: str, errors: Sequence[Any], model: type[BaseModel], noun: str) -> str:
    """Return the errors of one key; a key of several types (a number or 'auto') has one error for each type."""
    first = errors[0]
    if first["type"] in _UNKNOWN:
        section, _ = _resolve(model, first["loc"])
        return f"unknown {noun} '{shortened(key)}'{did_you_mean(str(first['loc'][-1]), section.model_fields)}"
    if first["type"] == "missing":
        return f"the {noun} '{key}' is missing"
    message = " or ".join(error["msg"].removeprefix("Input ").removeprefix("Value error, ") for error in errors)
    if not key:
        return message
    if any(error["type"] in {"model_type", "model_attributes_type"} for error in errors):
        if first["input"] is None:
            return f"the section '{key}' is empty; give it {noun}s or delete it"
        return f"{key} is a section of {noun}s and not a value (given: {shortened(repr(first['input']))})"
    if first["type"] == "value_error" and isinstance(first["input"], Mapping | BaseModel):  # about several keys of a section
        return f"{key}: {message}"
    hint = "; write null for none" if first["input"] == "none" and first["type"].endswith(("_parsing", "_type")) else ""
    return f"{key} {message[0].lower()}{message[1:]} (given: {shortened(repr(first['input']))}{hint})"


def _key(model: type[BaseModel], item: Any) -> list[str]:
    _, path = _resolve(model, item["loc"])
    return [*path, str(item["loc"][-1])] if item["type"] in _UNKNOWN else path


def _resolve(model: Any, loc: Sequence[str | int]) -> tuple[Any, list[str]]:
    """Return the type that an error's location leads to, and its key without the names of union members that pydantic adds."""
    current, path = model, []
    for part in loc:
        current = _without_none(current)
        if isinstance(current, type) and issubclass(current, BaseModel):
            if part not in current.model_fields:
                break
            current = current.model_fields[str(part)].annotation
        elif get_origin(current) in {list, tuple, dict}:
            current = get_args(current)[-1 if get_origin(current) is dict else 0]
        elif not isinstance(part, int):
            continue
        path.append(str(part))
    return _without_none(current), path


def _without_none(annotation: Any) -> Any:
    """Return `T` of `Annotated[T, ...]` and `T | None`."""
    if get_origin(annotation) is Annotated:
        return _without_none(get_args(annotation)[0])
    members = [member for member in get_args(annotation) if member is not type(None)]
    is_optional = type(None) in get_args(annotation)
    return _without_none(members[0]) if is_optional and len(members) == 1 else annotation


def _takes_bool(annotation: Any) -> bool:
    return annotation in {bool, Any} or any(_takes_bool(part) for part in get_args(annotation) if not isinstance(part, str))
