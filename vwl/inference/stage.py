"""The interface of an inference stage: from the row of an image to its score map or its mask."""

from abc import ABC, abstractmethod

import numpy as np
import torch

from vwl.data.index import Index, Row
from vwl.data.transforms import normalise
from vwl.storage.score_maps import ScoreMap


class Stage(ABC):
    """A callable that is built once per worker; its constructor loads networks.

    Attributes:
        index: the data set that images are read from.
    """

    index: Index

    @abstractmethod
    def __call__(self, row: Row) -> ScoreMap | np.ndarray:
        """Return the image's score map, or its mask (H, W) uint8.

        Raises:
            VwlError: the image, or the result of an earlier stage, cannot be read.
        """


def hflip_pair(view: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...], like: torch.Tensor, hflip: bool = True) -> torch.Tensor:
    """Return a view (h, w, 3) uint8, normalised, and its horizontal flip, as a batch (2 or 1, 3, h, w) on the device of `like`."""
    image = normalise(view, mean, std)
    batch = torch.stack([image, image.flip(2)]) if hflip else image[None]
    return batch.to(like.device, like.dtype).contiguous(memory_format=torch.channels_last)
