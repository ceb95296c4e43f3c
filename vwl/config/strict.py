"""The base of all settings that users write (recipes, search spaces, cluster descriptions), and their errors in one line."""

from collections.abc import Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from vwl.errors import did_you_mean


class StrictModel(BaseModel):
    """Immutable settings: unknown keys are refused, numbers are finite, and the string below a field is its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where a field takes none: Python counts them as 1 and 0."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        if not _takes_bool(annotation) and any(isinstance(part, bool) for part in (value if isinstance(value, list | tuple) else [value])):
            raise ValueError("should not be true or false")
        return value


def describe_errors(error: ValidationError, model: type[BaseModel], noun: str = "key") -> str:
    """Return the errors of a model's validation as one line that names every wrong key.

    Args:
        error: raised by `model.model_validate`.
        model: finds the known keys, for suggestions.
        noun: what users call a key.
    """
    by_key: dict[str, list[Any]] = {}
    for item in error.errors():
        by_key.setdefault(".".join(_key(model, item)), []).append(item)
    return "; ".join(_describe(key, items, model, noun) for key, items in by_key.items())


def _describe(key: str, errors: Sequence[Any], model: type[BaseModel], noun: str) -> str:
    """Return the errors of one key; a key of several types (a number or 'auto') has one error for each type."""
    first = errors[0]
    if first["type"] == "extra_forbidden":
        section, _ = _resolve(model, first["loc"])
        return f"unknown {noun} '{key}'{did_you_mean(str(first['loc'][-1]), section.model_fields)}"
    if first["type"] == "missing":
        return f"the {noun} '{key}' is missing"
    message = " or ".join(error["msg"].removeprefix("Input ").removeprefix("Value error, ") for error in errors)
    if not key:
        return message
    if isinstance(first["input"], dict):  # keys that do not go together
        return f"{key} {message[0].lower()}{message[1:]}"
    hint = "; write null for none" if first["input"] == "none" and first["type"].endswith(("_parsing", "_type")) else ""
    return f"{key} {message[0].lower()}{message[1:]} (given: {first['input']!r}{hint})"


def _key(model: type[BaseModel], item: Any) -> list[str]:
    _, path = _resolve(model, item["loc"])
    return [*path, str(item["loc"][-1])] if item["type"] == "extra_forbidden" else path


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
