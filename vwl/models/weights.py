"""Fills networks with weights by name, and reports which tensors matched. Weights of which no tensor fits are an error."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from vwl.errors import VwlError

State = dict[str, Tensor]

_PREFIXES = ("module.", "backbone.", "resnet.", "net.")
_COUNTER = "num_batches_tracked"
EXTRA_STATE = "_extra_state"
"""Last part of the name of what a module saves besides parameters and buffers; the module itself checks it."""


@dataclass(frozen=True)
class WeightReport:
    """Which tensors of a weights file were loaded.

    Attributes:
        source: the file, or a name of what the tensors came from.
        matched: names in the network that were filled.
        missing: names in the network that the file lacks, without the counters of seen batches.
        unexpected: names in the file, without its prefix, that the network lacks.
        mismatched: names in both whose shapes differ; not loaded.
    """

    source: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    def __str__(self) -> str:
        counts = (("missing in it", self.missing), ("not used", self.unexpected), ("of another shape", self.mismatched))
        others = "".join(f", {len(names)} {what} (e.g. {names[0]})" for what, names in counts if names)
        return f"weights {self.source}: {len(self.matched)} tensors matched{others}"


def weight_reports(model: nn.Module) -> list[WeightReport]:
    """Return the reports of all weights that were loaded into a network or its parts."""
    return [report for module in model.modules() for report in vars(module).get("weight_reports", ())]


def load_weights(module: nn.Module, state: Mapping[str, Tensor], source: str, strict: bool = False) -> WeightReport:
    """Fill a network's parameters and buffers by name.

    Prefixes that wrappers add to the names (`module.`, `backbone.`, `resnet.`, `net.`, in any order) are removed where more tensors
    match without them.

    Args:
        module: the network; changed in place.
        state: tensors by name.
        source: names the weights in errors and in the report.
        strict: whether every tensor of the network must be filled. Further tensors in the file are allowed.

    Raises:
        VwlError: no tensor matches, or with `strict` one of the network is missing or has another shape.
    """
    own = module.state_dict()
    state = _unwrapped(state, own)
    fitting = {key: value for key, value in state.items() if _matches(key, value, own)}
    matched = tuple(key for key in own if key in fitting)
    mismatched = tuple(key for key in own if key in state and key not in fitting)
    missing = tuple(key for key in own if key not in state and not key.endswith(_COUNTER))
    unexpected = tuple(key for key in state if key not in own)
    if not any(not key.endswith((_COUNTER, EXTRA_STATE)) for key in matched):
        raise VwlError(
            f"weights file {source} is of another network: none of its {len(state)} tensors matches; "
            f"it has e.g. {_first(state)}, the network has e.g. {_first(own)}"
        )
    if strict and (missing or mismatched):
        name = next(iter((*mismatched, *missing)))
        given = tuple(state[name].shape) if name in state else "nothing"
        raise VwlError(
            f"weights file {source} is of another network: {len(missing) + len(mismatched)} of {len(own)} tensors do not match, "
            f"e.g. {name} of shape {tuple(own[name].shape)}, where the file has {given}; choose the network it was made for"
        )
    module.load_state_dict(fitting, strict=False)
    report = WeightReport(source, matched, missing, unexpected, mismatched)
    vars(module).setdefault("weight_reports", []).append(report)
    return report


def _matches(key: str, value: Tensor, own: Mapping[str, Tensor]) -> bool:
    return key in own and (own[key].shape == value.shape or key.endswith(EXTRA_STATE))


def _unwrapped(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> State:
    """Return the tensors without the prefixes of wrappers."""

    def num_matches(candidate: Mapping[str, Tensor]) -> int:
        return sum(_matches(key, value, own) for key, value in candidate.items())

    orders = itertools.chain.from_iterable(itertools.permutations(_PREFIXES, length) for length in range(4))
    # of equal matches max() takes the first: the names as they are, then the fewest prefixes
    return max((_without("".join(order), state) for order in orders), key=num_matches)


def _without(prefix: str, state: Mapping[str, Tensor]) -> State:
    stripped = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return stripped | {key: value for key, value in state.items() if not key.startswith(prefix) and key not in stripped}


def _first(names: Iterable[str]) -> str:
    return next(iter(names), "nothing")
