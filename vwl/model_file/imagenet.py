"""The ImageNet classifier that is installed with vwl: EfficientNet-Lite0 with its own 1,000 classes, its names, and its activation maps.

It has no visual words and was trained for nothing but image labels: the plain CAM that the method starts from.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import timm
import torch
from timm.data import ImageNetInfo
from torchvision.models import ResNet18_Weights

from vwl.config.recipe import Cam
from vwl.config.recipe import Classifier as ClassifierSettings
from vwl.config.sections import Backbone, Codebook
from vwl.data.class_names import key
from vwl.data.transforms import long_side_scale, resize, scaled_size
from vwl.errors import VwlError, shortened
from vwl.inference.cam import CamPredictor
from vwl.inference.stage import hflip_pair
from vwl.models.classifier import Classifier
from vwl.training.pretrained import lite0_state

NAME = "EfficientNet-Lite0"
_SETTINGS = ClassifierSettings(
    backbone=Backbone(name="lite0"), frozen_stages=0, pooling="gap", image_bias=True, codebook=Codebook(strategy="none")
)
_CAM = Cam(scales=(1.0, 0.75, 1.5), long_side=352)
"""As the recipes `small` and `quick`, which have the same network."""


@dataclass(frozen=True)
class Guess:
    """A class that the classifier sees in an image.

    Attributes:
        name: of the class.
        probability: 0 to 1; those of all classes add up to 1.
    """

    name: str
    probability: float


class ImageNetClassifier:
    """The classifier, on the CPU.

    Attributes:
        classes: the names of the 1,000 classes, torchvision's.
    """

    def __init__(self) -> None:
        """Load the weights from the package that contains them."""
        self.classes: tuple[str, ...] = tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
        whole = timm.create_model("tf_efficientnet_lite0")
        state = lite0_state(whole)
        network = Classifier(_SETTINGS, len(self.classes))
        network.backbone.net.load_state_dict({name: state[name] for name in network.backbone.net.state_dict()})
        network.image_head.load_state_dict({name: state[f"classifier.{name}"] for name in ("weight", "bias")})
        self._cam = CamPredictor(_CAM, network.eval())

    def named(self, label: str) -> int:
        """Return the number of the class with a name, 0 to 999: torchvision's, or one of WordNet's synonyms; case does not matter.

        Raises:
            VwlError: there is no such class, or there are two; the message suggests names.
        """
        wanted = key(label)
        for number, name in enumerate(self.classes):
            if key(name) == wanted:
                return number
        synonyms = _synonyms()
        found = sorted({number for name, numbers in synonyms.items() if key(name) == wanted for number in numbers})
        if len(found) == 1:
            return found[0]
        if found:
            raise VwlError(
                f"'{shortened(label)}' names {len(found)} classes of ImageNet: {_quoted(self.classes[n] for n in found)}; name one"
            )
        near = _similar(label, [*self.classes, *synonyms])
        raise VwlError(f"ImageNet has no class '{shortened(label)}'{f'; did you mean {_quoted(near)}?' if near else ''}")

    @torch.inference_mode()
    def guesses(self, image: np.ndarray, number: int = 5) -> list[Guess]:
        """Return the most probable classes of an image (H, W, 3) uint8, the most probable first."""
        network = self._cam.model
        view = resize(image, *scaled_size(image.shape, long_side_scale(image.shape, _CAM.long_side)))
        pixels = hflip_pair(view, network.backbone.mean, network.backbone.std, network.image_head.weight, hflip=False)
        probabilities = torch.softmax(network.image_head(network.pool(network.features(pixels)))[0], dim=0)
        values, classes = probabilities.topk(number)
        return [Guess(self.classes[class_id], value) for class_id, value in zip(classes.tolist(), values.tolist(), strict=True)]

    def cam(self, image: np.ndarray, classes: Sequence[int]) -> np.ndarray:
        """Return the class activation maps (K, ceil(H / 4), ceil(W / 4)) float16 of K classes, numbers of 0 to 999."""
        return self._cam.maps(image, [number + 1 for number in classes])


def _synonyms() -> dict[str, list[int]]:
    """Return WordNet's names of the classes, each with the numbers of the classes that have it."""
    info, names = ImageNetInfo(), dict[str, list[int]]()
    for number in range(info.num_classes()):
        for name in info.index_to_description(number).split(", "):
            names.setdefault(name, []).append(number)
    return names


def _similar(label: str, names: Sequence[str]) -> list[str]:
    """Return up to five names: those that contain the words of the label (`cat`: `tiger cat`), or else those of which a part is similar."""
    wanted = shortened(label).casefold()
    by_part: dict[str, list[str]] = {}
    for name in names:
        for part in {name.casefold(), *name.casefold().split()}:
            by_part.setdefault(part, []).append(name)
    containing = [name for name in names if wanted.strip() and set(wanted.split()) <= set(name.casefold().split())]
    similar = [name for part in difflib.get_close_matches(wanted, by_part, n=5, cutoff=0.7) for name in by_part[part]]
    return list(dict.fromkeys(containing or similar))[:5]


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
