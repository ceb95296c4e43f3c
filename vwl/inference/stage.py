"""What an inference stage is: a photograph's row in, a score map or a mask out; knows no Ray and no other photographs."""

from abc import ABC, abstractmethod

import numpy as np
import torch

from vwl.data.index import Index, Row
from vwl.data.transforms import normalise
from vwl.storage.score_maps import ScoreMap


class Stage(ABC):
    """A callable built once a worker; networks are loaded by its constructor.

    Attributes:
        index: the data set, to read photographs from.
    """

    index: Index

    @abstractmethod
    def __call__(self, row: Row) -> ScoreMap | np.ndarray:
        """Return the photograph's score map, or its mask (H, W) uint8.

        Raises:
            VwlError: the photograph, or what an earlier stage made of it, cannot be read.
        """


def hflip_pair(photo: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...], like: torch.Tensor, hflip: bool = True) -> torch.Tensor:
    """Return a photograph (h, w, 3) uint8, normalised, and its mirror image, as a batch (2 or 1, 3, h, w) on the device of `like`."""
    image = normalise(photo, mean, std)
    batch = torch.stack([image, image.flip(2)]) if hflip else image[None]
    return batch.to(like.device, like.dtype).contiguous(memory_format=torch.channels_last)
