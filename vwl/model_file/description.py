"""What a model file says of its model: how to build the network and how to predict with it, what it scored, and where it comes from."""

from typing import Any, Literal, Self

from pydantic import ValidationError, model_validator

from vwl.config.recipe import Cam, Classifier, Segment, Segmenter
from vwl.config.strict import StrictModel, describe_errors
from vwl.data.class_names import BACKGROUND, check_object_names
from vwl.errors import Damaged, VwlError, shortened

FORMAT = 1
"""Version of the format; a file of a later one is refused."""
Kind = Literal["segmentation", "classifier"]
ARCHITECTURE: dict[Kind, tuple[str, ...]] = {
    "segmentation": ("backbone", "output_stride", "atrous_rates", "input_scales"),
    "classifier": ("backbone", "frozen_stages", "pooling", "gap_weight", "image_bias", "codebook"),
}
"""Keys of the recipe's section `segmenter` or `classifier` that the network is built from; the others are of its training."""


class Normalisation(StrictModel):
    """How pixels become the network's input: RGB in 0..1, minus `mean`, divided by `std`."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class ModelScore(StrictModel):
    """A score of the model, or of a stage that its training labels come from."""

    stage: str
    split: str
    images: int
    miou: float | None
    """Percent."""
    threshold: float | None
    """Score of the background that the masks were made with; null if the stage has none."""
    threshold_chosen: str
    best_miou_with_ground_truth: float | None
    best_threshold_with_ground_truth: float | None


class ModelThreshold(StrictModel):
    """The score of the background beside a stage's maps, which the masks were made with that the model learned from."""

    stage: str
    threshold: float
    chosen: str
    by_class: dict[str, float]


class Description(StrictModel):
    """What the descriptions of both kinds of models have.

    Each kind adds two sections of the recipe: `architecture`, of which there are only the keys that the network is built from
    (`ARCHITECTURE`), and `prediction`.
    """

    format: Literal[1]
    kind: Kind
    classes: tuple[str, ...]
    """Class names by id, background first."""
    palette: tuple[int, ...]
    """768 values, RGB of each of the 256 class ids."""
    normalisation: Normalisation
    recipe: str
    recipe_hash: str
    seed: int
    scores: tuple[ModelScore, ...]
    scored_classes: tuple[str, ...] | None
    """Object classes that the mean IoU is over, beside the background; null: all in the ground truth."""
    thresholds: tuple[ModelThreshold, ...]
    training_images: int | None
    data_fingerprint: str
    versions: dict[str, str]
    licence: str
    weights: str
    """Digest of the tensors."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.classes[:1] != (BACKGROUND,) or len(self.classes) < 2:
            raise ValueError(f"classes should be '{BACKGROUND}' and one object class or more")
        if len(self.palette) != 768 or not all(0 <= value <= 255 for value in self.palette):
            raise ValueError("palette should be 768 numbers from 0 to 255")
        return self

    def as_json(self) -> dict[str, Any]:
        """Return what is stored; `parse_description` reads it back."""
        return self.model_dump(mode="json", exclude_unset=True)


class SegmentationDescription(Description):
    """The description of a segmentation model: the recipe's sections `segmenter` and `segment`."""

    kind: Literal["segmentation"]
    architecture: Segmenter
    prediction: Segment


class ClassifierDescription(Description):
    """The description of a classifier: the recipe's sections `classifier` and `cam`."""

    kind: Literal["classifier"]
    architecture: Classifier
    prediction: Cam


AnyDescription = SegmentationDescription | ClassifierDescription
KINDS: dict[Any, type[SegmentationDescription] | type[ClassifierDescription]] = {
    "segmentation": SegmentationDescription,
    "classifier": ClassifierDescription,
}
"""The description of each kind of model."""


def parse_description(value: dict[str, Any], source: str) -> AnyDescription:
    """Return the description with these values; `source` names the file in messages.

    Raises:
        VwlError: a later version of vwl has written it.
        Damaged: values are missing or out of range.
    """
    version = value.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise VwlError(f"{source} has format {version}, of a later version of vwl; this version reads format {FORMAT}: update vwl")
    unread = f"{source} is not a model file that this version of vwl reads"
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise Damaged(f"{unread}: its kind {shortened(repr(kind))} is neither {' nor '.join(KINDS)}")
    try:
        description = KINDS[kind].model_validate(value)
    except ValidationError as error:
        raise Damaged(f"{unread}: {describe_errors(error, KINDS[kind])}") from None
    check_object_names(description.classes[1:], source)
    return description
