"""The recipe: every setting of the method, with its type, its unit and its symbol in the paper.

A recipe says what is computed. Where it is computed (workers, micro-batches, devices) is said by `vwl.config.layout.Layout`, on which the
result does not depend. `vwl.config.files` reads and writes recipes; the strings below the fields are shown by `vwl recipe keys`.
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from vwl.config.advcam import AdvCam
from vwl.config.cam_methods import Lpcam, Recam
from vwl.config.psa import Psa, PsaLabels, PsaWalk
from vwl.config.sections import (
    Backbone,
    Codebook,
    CrfKernels,
    Crop,
    Fraction,
    Optimiser,
    Positive,
    Scale,
    Scales,
    Section,
    Threshold,
    Tile,
    WalkImplementation,
    not_empty,
    ordered,
)
from vwl.constants import MAP_STRIDE

__all__ = [
    "AdvCam",
    "Backbone",
    "Cam",
    "Classifier",
    "Codebook",
    "Crf",
    "CrfKernels",
    "Evaluation",
    "Irnet",
    "IrnetLabels",
    "Lpcam",
    "Optimiser",
    "Psa",
    "PsaLabels",
    "PsaWalk",
    "Recam",
    "Recipe",
    "Section",
    "Segment",
    "Segmenter",
    "Threshold",
    "Walk",
    "fingerprint",
    "hashed_settings",
]


class Classifier(Section):
    """The classification network and its training (paper, sections 3.2 to 3.5)."""

    backbone: Backbone = Backbone()
    start_from: str | None = None
    """Path or URI of the weights of the whole network to start from, for example weights.pt of another run; null: only the backbone is
    pre-trained."""
    frozen_stages: int = Field(1, ge=0, le=5)
    """Number of first stages of the backbone that are not trained: 1 is the stem; 3 is stem, layer1 and layer2 (published code)."""
    pooling: Literal["gap", "hybrid"] = "hybrid"
    """How features are pooled: `gap`, global average pooling (baseline of Table 4), or `hybrid` pooling (Eq. 10)."""
    gap_weight: float = Field(2.0, ge=0)
    """Weight of global average pooling in hybrid pooling, gamma of Eq. 10; 0 leaves it out (Fig. 12)."""
    image_bias: bool = False
    """Whether the image-label head has a bias, initialised to the log odds of each class among the training images. The paper has none;
    the maps of a frequent class are then brighter over the whole image, background included."""
    codebook: Codebook = Codebook()
    linear_probe: Literal["none", "report", "init"] = "report"
    """A logistic regression of the image labels on the features before the training: `report` its scores on held-out images beside those
    of the training, which should exceed them; `init`: also start the image-label head from it; `none`."""
    probe_l2: float = Field(3e-3, gt=0)
    """L2 penalty of the linear probe, relative to the mean loss of an image."""
    word_weight: float = Field(1.0, ge=0)
    """Weight of the losses of the visual words (L_cls(p_word) of Eq. 12 and L_aux of Eq. 15); 1 in the paper."""
    optimiser: Optimiser = Optimiser()
    epochs: int = Field(6, ge=0)
    """Passes over the training images; 0: the network stays as it starts, which needs `linear_probe: init` or `start_from`."""
    batch_size: Positive = 16
    """Images per step, over all workers and micro-batches."""
    crop: Crop = 512
    """Side of the random square crop, pixels; smaller images are padded."""
    resize: Annotated[tuple[Positive, Positive], AfterValidator(ordered)] = (320, 640)
    """Images are resized, before the crop, to a long side drawn uniformly from this range (both ends included), pixels."""

    @model_validator(mode="after")
    def _heads_are_learned(self) -> Self:
        if not self.epochs and self.linear_probe != "init" and self.start_from is None:
            raise ValueError("epochs 0 needs linear_probe: init, or start_from")
        return self


class Cam(Section):
    """Class activation maps (Eq. 1)."""

    method: Literal["weights", "lpcam"] = "weights"
    """What features are compared with: the `weights` of the classifier (Eq. 1), or the prototypes of each class (`lpcam`)."""
    scales: Scales = (1.0, 0.5, 1.5, 2.0)
    """Scales of the image at which maps are computed; the maps of all scales are summed."""
    hflip: bool = True
    """Whether each scale is also computed for the horizontally flipped image."""
    hflip_fusion: Literal["max", "sum"] = "max"
    """How the maps of an image and its flip are fused: `max` (published VWL code) or `sum` (published IRNet code)."""
    long_side: Positive | None = None
    """Long side of the image at scale 1.0, pixels; null: its own size."""
    tile: Tile = 1536
    """Larger images are cut into overlapping square tiles of this side for the network, pixels; bounds the memory."""
    background_threshold: Threshold = 0.13
    """Score of the background, 0 to 1: a pixel whose classes all score less is background. `auto`: one threshold for all classes, chosen
    without ground truth; `auto-by-class`: one for each class, because maps of frequent classes are brighter."""
    advcam: AdvCam = AdvCam()

    @model_validator(mode="after")
    def _advcam_has_weights(self) -> Self:
        if self.advcam.steps and self.method != "weights":
            raise ValueError(f"advcam.steps = {self.advcam.steps} needs method: weights; prototypes have no logits to climb to")
        return self


class Crf(Section):
    """Refinement of the class activation maps by a dense CRF (Table 1, column +CRF)."""

    background: Fraction | Literal["auto"] = 0.15
    """Score of the background, which enters the softmax together with those of the classes; `auto`: the threshold of the maps, see
    `cam.background_threshold`."""
    sharpness: float = Field(1.0, gt=0)
    """Factor of all scores before the softmax that makes the unary term; 1 in the published code."""
    kernels: CrfKernels = CrfKernels()


class IrnetLabels(Section):
    """Labels for training IRNet: the maps are labelled with two background thresholds and each labelling is refined by a dense CRF."""

    foreground_threshold: Fraction = 0.30
    """Background score of the first labelling: what it gives a class has that label in training. High, to be sure of objects."""
    background_threshold: Fraction = 0.05
    """Background score of the second labelling: what it gives no class is background in training, and all other pixels are ignored. Low, to
    be sure of the background."""
    confidence: float = Field(0.7, gt=0, lt=1)
    """Probability of a pixel's own label in the CRF's unary term."""
    kernels: CrfKernels = CrfKernels(gaussian_sxy=3, gaussian_compat=3, bilateral_sxy=50, bilateral_srgb=5, bilateral_compat=10)


class Irnet(Section):
    """The boundary network (IRNet's edge branch) and its training by the affinity loss."""

    backbone: Backbone = Backbone(name="resnet50")
    start_from: str | None = None
    """Path or URI of the weights of the whole network to start from, for example weights.pt of another run; null: only the backbone is
    pre-trained."""
    optimiser: Optimiser = Optimiser(learning_rate=0.1, head_lr_mult=1.0)
    """The backbone is not trained; the edge branch learns at learning_rate * head_lr_mult."""
    epochs: Positive = 3
    """Passes over the training images."""
    batch_size: Positive = 32
    """Images per step, over all workers and micro-batches."""
    crop: Crop = 512
    """Side of the random square crop, pixels, above 8 * (radius - 1); smaller images are padded."""
    long_side: Positive | None = None
    """Images are first resized to this long side, pixels; null: their own size."""
    rescale: Annotated[tuple[Scale, Scale], AfterValidator(ordered)] = (0.5, 1.5)
    """Images are then resized by a factor drawn uniformly from this range."""
    radius: int = Field(10, ge=2)
    """The loss takes pairs of cells nearer to each other than this, in cells of the stride-4 grid."""

    @model_validator(mode="after")
    def _crop_holds_the_radius(self) -> Self:
        """Refuse a crop in which no cell has all its partners inside (`vwl.models.affinity_loss`): it needs 2 * radius - 1 cells a side."""
        smallest = MAP_STRIDE * (2 * self.radius - 2) + 1
        if self.crop < smallest:
            raise ValueError(f"crop = {self.crop} is too small for radius = {self.radius}; set crop to {smallest} or more, or lower radius")
        return self


class Walk(Section):
    """Random walk of the class activation maps by affinities from the boundary map (IRNet)."""

    radius: Positive = 5
    """A step reaches cells nearer than this, in cells of the stride-4 grid."""
    exponent: float = Field(10.0, gt=0)
    """Power to which affinities are raised, beta of IRNet."""
    steps: Positive = 256
    """Steps of the walk; 2^8 in IRNet."""
    tolerance: float = Field(1e-5, gt=0)
    """Largest error of the Chebyshev series that computes the walk, relative to the maximum of the map."""
    long_side: Positive | None = None
    """Images are resized to this long side for the boundary network, pixels; null: their own size."""
    tile: Tile = 1536
    """Larger images are cut into overlapping square tiles of this side for the network, pixels; bounds the memory."""
    pad_to: Positive | None = None
    """Images are padded at the right and bottom to this side for the boundary network, pixels, with the mean colour, as published IRNet
    does (512); larger images are not padded. Null: no padding."""
    normalise_at: Literal["stride4", "full_size"] = "stride4"
    """Maps are divided by their maximum after the walk: the maximum at stride 4, or at `full_size`, after enlargement to the size of the
    image (published IRNet)."""
    implementation: WalkImplementation = "auto"
    """`native` (NumPy and numba, CPU) or `torch` (GPU or CPU): maps equal within 1e-4 of their maximum. `auto` is `torch` where the
    process has a GPU, else `native`."""
    background_threshold: Threshold = 0.25
    """Score of the background in the masks, as `cam.background_threshold`."""


class Segmenter(Section):
    """The segmentation network, DeepLabV2, and its training on the masks of the walk."""

    backbone: Backbone = Backbone()
    start_from: str | None = None
    """Path or URI of the weights of the whole network to start from, for example weights.pt of another run; null: only the backbone is
    pre-trained."""
    output_stride: Literal[8, 16] = 8
    """Stride of the features relative to the input, pixels."""
    atrous_rates: Annotated[tuple[Annotated[int, Field(gt=0, le=512)], ...], AfterValidator(not_empty)] = (6, 12, 18, 24)
    """Dilation rates of the parallel 3x3 convolutions (ASPP)."""
    input_scales: tuple[Scale, ...] = (0.5, 0.75)
    """Further scales of the input, in training and prediction: the logits of all scales are fused by their maximum, and in training each
    scale has its own loss in addition to that of the fused logits; []: none."""
    optimiser: Optimiser = Optimiser(learning_rate=0.001, weight_decay=5e-4)
    """The weights of ASPP learn at learning_rate * head_lr_mult, its biases at twice that and without weight decay."""
    iterations: Positive = 20_000
    """Training steps."""
    batch_size: Positive = 10
    """Images per step, over all workers and micro-batches."""
    crop: Crop = 321
    """Side of the random square crop, pixels; smaller images are padded."""
    long_side: Positive | None = None
    """Images are first resized to this long side, pixels; null: their own size."""
    rescale: Scales = (0.5, 0.75, 1.0, 1.25, 1.5)
    """Images are then resized by a factor drawn from this list."""
    negatives: Literal["include", "exclude"] = "include"
    """Whether images that are known to show no object are trained on, as background everywhere (`include`), or left out (`exclude`)."""


class Segment(Section):
    """Prediction by the segmentation network."""

    scales: Scales = (1.0,)
    """Scales of the image at which probabilities are computed; they are averaged."""
    hflip: bool = True
    """Whether each scale is also computed for the horizontally flipped image (published code: no)."""
    long_side: Positive | None = None
    """Long side of the image at scale 1.0, pixels; null: its own size."""
    tile: Tile = 1536
    """Larger images are cut into overlapping square tiles of this side for the network, pixels; bounds the memory."""
    crf: bool = True
    """Whether predictions are refined by a dense CRF, with `kernels`."""
    kernels: CrfKernels = CrfKernels(gaussian_sxy=1, gaussian_compat=3, bilateral_sxy=67, bilateral_srgb=3, bilateral_compat=4)


class Evaluation(Section):
    """Which classes the mean IoU is over."""

    classes: tuple[str, ...] | None = None
    """Object classes of the mean IoU, to which the background is added; null: all classes that occur in the ground truth."""

    @property
    def described(self) -> str:
        """The classes of the mean, for people."""
        return "all classes in the ground truth" if self.classes is None else ", ".join(("background", *self.classes))


class Recipe(Section):
    """All settings of a run."""

    name: str = "paper-voc"
    """Name of the recipe, for tables and reports."""
    seed: int = Field(0, ge=0)
    """Random numbers are drawn from (seed, epoch, image id), whichever worker draws them."""
    refiner: Literal["irnet", "psa", "none"] = "irnet"
    """What refines the class activation maps to pseudo masks: the walk of `irnet`, that of `psa`, or `none`: the masks are the maps at
    their threshold."""
    classifier: Classifier = Classifier()
    recam: Recam = Recam()
    lpcam: Lpcam = Lpcam()
    cam: Cam = Cam()
    crf: Crf = Crf()
    irnet_labels: IrnetLabels = IrnetLabels()
    irnet: Irnet = Irnet()
    walk: Walk = Walk()
    psa_labels: PsaLabels = PsaLabels()
    psa: Psa = Psa()
    psa_walk: PsaWalk = PsaWalk()
    segmenter: Segmenter = Segmenter()
    segment: Segment = Segment()
    evaluation: Evaluation = Evaluation()


ADDED: dict[str, dict[str, Any]] = {
    "cam": {"method": "weights", "advcam": AdvCam().model_dump(mode="json")},
    "segmenter": {"negatives": "include"},
    "walk": {"implementation": "auto"},
    "psa_walk": {"implementation": "auto"},
}
"""Keys that were added to sections after runs had been made, with the value that gives the results of before."""


def hashed_settings(recipe: Recipe, section: str) -> Any:
    """Return a section, or a key of the recipe itself, as fingerprints have it.

    Keys of `ADDED` at the value of before are left out, so that old runs stay valid.
    """
    values = recipe.model_dump(mode="json", include={section})[section]
    if not isinstance(values, dict):
        return values
    return {key: value for key, value in values.items() if key not in (added := ADDED.get(section, {})) or value != added[key]}


def fingerprint(value: Any) -> str:
    """Return 16 hex digits that identify a JSON-like value or a recipe section."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
