"""What building the network of a model file takes: its device, its settings there, and checks of weights against the description."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from vwl.config.recipe import Segment
from vwl.errors import Damaged, VwlError
from vwl.model_file.description import Description
from vwl.training.distributed import device as default_device


def settings_on(device: torch.device, settings: Segment) -> Segment:
    """Return settings whose dense CRF runs on the model's device; `auto` would take a GPU that the user has not asked for."""
    if device.type != "cpu" or settings.kernels.implementation != "auto":
        return settings
    return settings.model_copy(update={"kernels": settings.kernels.model_copy(update={"implementation": "native"})})


def find_device(name: str | torch.device | None) -> torch.device:
    """Return the device of a name, of None the GPU, or the CPU where there is none.

    Raises:
        VwlError: there is no such device.
    """
    if name is None:
        return default_device()
    with suppress(RuntimeError, AssertionError, NotImplementedError):
        found = torch.device(name)
        torch.empty(1, device=found).cpu()
        return found
    raise VwlError(f"there is no device '{name}' here; use 'cpu', or leave device out")


@contextmanager
def building(source: str) -> Iterator[None]:
    """Turn the errors of a network that cannot be built, or that the weights do not fit, into one line; keep torch's random generator.

    Building a network draws random weights, which are then replaced.
    """
    random_state = torch.get_rng_state()
    try:
        yield
    except (RuntimeError, KeyError, TypeError, AttributeError):
        raise Damaged(f"{source} is damaged or of another version of vwl: its weights do not fit its description") from None
    finally:
        torch.set_rng_state(random_state)


def require_sizes(wanted: int, state: Mapping[str, Tensor]) -> None:
    """Refuse a number of layers or codewords that the tensors cannot fill, before memory is taken for it."""
    if wanted > max((len(state), *(max(value.shape, default=0) for value in state.values()))):
        raise RuntimeError("more than the tensors fill")


def require_normalisation(description: Description, backbone: Any) -> None:
    """Refuse a description whose mean and std of the images are not the network's."""
    stated = description.normalisation
    if (tuple(stated.mean), tuple(stated.std)) != (tuple(backbone.mean), tuple(backbone.std)):
        raise RuntimeError("mean and std are not those of the network")
