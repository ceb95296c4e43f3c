"""What an inference stage is: an image's row in, a score map or a mask out; knows no Ray and no other images."""

from abc import ABC, abstractmethod

import numpy as np
import torch

from vwl.data.index import Index, Row
from vwl.data.transforms import normalise
from vwl.storage.score_maps import ScoreMap


class Stage(ABC):
    """A callable built once a worker; networks are loaded by its constructor.

    Attributes:
        index: the data set, to read images from.
    """

    index: Index

    @abstractmethod
    def __call__(self, row: Row) -> ScoreMap | np.ndarray:
        """Return the image's score map, or its mask (H, W) uint8.

        Raises:
            VwlError: the image, or what an earlier stage made of it, cannot be read.
        """


def hflip_pair(view: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...], like: torch.Tensor, hflip: bool = True) -> torch.Tensor:
    """Return an image (h, w, 3) uint8, normalised, and its mirror image, as a batch (2 or 1, 3, h, w) on the device of `like`."""
    image = normalise(view, mean, std)
    batch = torch.stack([image, image.flip(2)]) if hflip else image[None]
    return batch.to(like.device, like.dtype).contiguous(memory_format=torch.channels_last)
