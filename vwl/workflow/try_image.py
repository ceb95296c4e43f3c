"""`vwl try`: what the method starts from, on one image and without any training: plain CAM of an ImageNet classifier, and the dense CRF.

The code is that of the CAM and CRF stages. It is the baseline that `vwl run` improves: no visual words, no hybrid pooling, no walk, no
segmentation model, and no label of the user's images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vwl.config.recipe import Crf
from vwl.crf.dense_crf import cam_crf
from vwl.errors import VwlError
from vwl.maps.cam import best_class, upsample
from vwl.maps.thresholds import Otsu
from vwl.model_file.image_input import read_image_file
from vwl.model_file.imagenet import Guess, ImageNetClassifier
from vwl.model_file.prediction import Prediction
from vwl.report.overlays import display_palette, heat_overlay
from vwl.report.sheets import encode_png
from vwl.storage.folder import Folder

_MAX_LABELS = 20


@dataclass(frozen=True)
class TriedImage:
    """The result of `try_image`.

    Attributes:
        image: the file.
        guesses: the classifier's five most probable classes.
        labels: the classes of the maps.
        threshold: score of the background, chosen by Otsu's method from the maps.
        areas: share of the image that each label's mask covers, 0 to 1.
        cam, mask, overlay: the files written.
    """

    image: str
    guesses: tuple[Guess, ...]
    labels: tuple[str, ...]
    threshold: float
    areas: tuple[float, ...]
    cam: str
    mask: str
    overlay: str


def try_image(image: str | Path, labels: Sequence[str] = (), out: str | Path = "try") -> TriedImage:
    """Write the class activation maps, the mask and the overlay of an image, for some of ImageNet's 1,000 classes.

    Args:
        image: a local image file.
        labels: names of classes in the image; none: the most probable class.
        out: folder for `NAME_cam.png`, `NAME_mask.png` (indexed: 1 is the first label) and `NAME_overlay.png`.

    Raises:
        VwlError: the image cannot be read, a label is no class of ImageNet (names are suggested), or results cannot be written.
    """
    pixels = read_image_file(str(image))
    name, folder = Path(image).stem, Folder(out)
    classifier = ImageNetClassifier()
    numbers = list(dict.fromkeys(classifier.named(label) for label in labels))
    if len(numbers) > _MAX_LABELS:
        raise VwlError(f"{len(numbers)} labels are given; name at most {_MAX_LABELS}")
    guesses = classifier.guesses(pixels)
    names = tuple(classifier.classes[number] for number in numbers) or (guesses[0].name,)
    maps = classifier.cam(pixels, numbers or [classifier.named(names[0])])
    ids, settings = range(1, len(names) + 1), Crf(background="auto")
    otsu = Otsu()
    otsu.add(best_class(maps, ids)[1])
    threshold = otsu.choose()
    large = upsample(maps, pixels.shape[0], pixels.shape[1], settings.kernels.max_pixels)
    mask = cam_crf(pixels, large, ids, threshold, settings.sharpness, settings.kernels)
    folder.write(f"{name}_cam.png", encode_png(heat_overlay(pixels, maps, ids, display_palette())))
    prediction = Prediction(mask, ("background", *names), display_palette(), pixels, name)
    mask_file, overlay_file = prediction.save(out)
    areas = tuple(float(np.mean(mask == class_id)) for class_id in ids)
    return TriedImage(str(image), tuple(guesses), names, threshold, areas, f"{out}/{name}_cam.png", mask_file, overlay_file)
