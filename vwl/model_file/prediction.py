"""The results of a model: the mask of an image, and its class activation maps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from vwl.maps.cam import upsample
from vwl.report.overlays import display_palette, mask_overlay
from vwl.report.sheets import class_colours, encode_png, legend
from vwl.storage.folder import Folder
from vwl.storage.masks import encode_mask


@dataclass(frozen=True, eq=False)  # arrays have no truth value
class Prediction:
    """The mask of an image.

    Attributes:
        mask: (H, W) uint8 class ids.
        class_names: of all classes by id, background first.
        palette: 768 values, RGB of each of the 256 class ids.
        image: (H, W, 3) uint8 RGB.
        name: of the files that `save` writes.
    """

    mask: np.ndarray
    class_names: tuple[str, ...] = field(repr=False)
    palette: tuple[int, ...] = field(repr=False)
    image: np.ndarray = field(repr=False)
    name: str = "image"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the object classes in the mask; none if there is only background."""
        return tuple(self.class_names[class_id] for class_id in np.unique(self.mask) if class_id)

    def overlay(self) -> Image.Image:
        """Return the image with its mask on it, and a legend of the mask's classes below."""
        return overlay_with_legend(self.image, self.mask, self.class_names)

    def save(self, folder: str | Path, name: str | None = None) -> tuple[str, str]:
        """Write `NAME_mask.png` (indexed) and `NAME_overlay.png` into a folder and return both paths.

        Args:
            folder: path or URI; created if it does not exist.
            name: NAME instead of the image file's name without its ending.

        Raises:
            VwlError: they cannot be written.
        """
        target, stem = Folder(folder), name or self.name
        target.write(f"{stem}_mask.png", encode_mask(self.mask, self.palette))
        target.write(f"{stem}_overlay.png", encode_png(self.overlay()))
        return f"{folder}/{stem}_mask.png", f"{folder}/{stem}_overlay.png"


@dataclass(frozen=True, eq=False)  # arrays have no truth value
class ActivationMaps:
    """Class activation maps of an image.

    Attributes:
        classes: name of each map's class.
        maps: (K, ceil(H / 4), ceil(W / 4)) float16, each divided by its maximum.
        height, width: the image's size, pixels.
    """

    classes: tuple[str, ...]
    maps: np.ndarray = field(repr=False)
    height: int
    width: int

    def full_size(self) -> np.ndarray:
        """Return the maps at the size of the image, (K, H, W) float32."""
        return upsample(self.maps, self.height, self.width)


def overlay_with_legend(image: np.ndarray, mask: np.ndarray, classes: Sequence[str]) -> Image.Image:
    """Return the image (H, W, 3) with its mask on it, and a legend of the mask's classes below."""
    overlay = mask_overlay(image, mask, display_palette())
    colours = class_colours(classes, np.unique(mask).tolist())
    below = [np.asarray(legend(colours, image.shape[1]))] if colours else []
    return Image.fromarray(np.concatenate([overlay, *below]))
