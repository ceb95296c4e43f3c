"""The recipe: every setting of the method, typed, with its unit and the paper's symbol.

A recipe says *what* is computed, never *where*: workers, micro-batches and devices belong to `vwl.config.layout.Layout`, because the
result must not depend on them. `vwl.config.files` reads and writes recipes.
"""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from vwl.config.strict import StrictModel


def _ordered(ends: tuple[Any, Any]) -> tuple[Any, Any]:
    if ends[0] > ends[1]:
        raise ValueError("must have its smaller end first")
    return ends


def _not_empty(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("needs at least one value")
    return values


Positive = Annotated[int, Field(gt=0)]
Tile = Annotated[int, Field(ge=128, multiple_of=32)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Threshold = Fraction | Literal["auto", "auto-by-class"]
Scales = Annotated[tuple[PositiveFloat, ...], AfterValidator(_not_empty)]


class Section(StrictModel):
    """A group of settings of a recipe; each field is described by the string below it."""


class Backbone(Section):
    """The convolutional network below the heads (the paper's E)."""

    name: str = "resnet101"
    """`resnet18|34|50|101` (torchvision), `lite0` (EfficientNet-Lite0, weights embedded), or `timm:<model name>`."""
    weights: str = "imagenet"
    """`imagenet` (torchvision's IMAGENET1K_V1, or the embedded ones of lite0), `none`, or the path of a weights file."""


class Optimiser(Section):
    """SGD with polynomial decay per iteration: lr * (1 - step / max_step) ** power."""

    learning_rate: float = Field(0.01, gt=0)
    """Learning rate of the pre-trained parameters."""
    head_lr_mult: float = Field(10.0, gt=0)
    """Multiple of `learning_rate` for newly added parameters."""
    momentum: Fraction = 0.9
    """0.9 in the paper; 1e-4 in the published code, which passes the weight decay in its place (`reference-*` recipes)."""
    weight_decay: float = Field(1e-4, ge=0)
    power: float = Field(0.9, ge=0)
    """Exponent of the polynomial decay."""
    clip_norm: PositiveFloat | None = None
    """Largest norm of the gradient; none: no clipping."""


class Codebook(Section):
    """The visual words: how their codebook is learned, paper section 3.3."""

    strategy: Literal["none", "learning", "memory"] = "learning"
    """`learning` (VWL-L): the codewords are parameters; `memory` (VWL-M): they are a memory bank that follows the features; `none`: no
    visual words."""
    num_codewords: Positive = 256
    """k, the number of visual words."""
    temperature: float = Field(1.0, gt=0)
    """tau of Eq. 3."""
    momentum: Fraction = 1e-3
    """rho of Eq. 7, the weight of the new codewords (`memory` only)."""
    histogram: Literal["mean", "sum"] = "mean"
    """Eq. 5 is a mean over pixels; the published code sums."""
    decov: Literal["none", "squared", "unsquared"] = "squared"
    """DeCov loss (`learning` only): Eq. 13 with squared norms; `unsquared` as in the published code; `none` is VWE of Table 4. The
    covariance of the codewords is not divided by d - 1, which would make the loss 7 orders of magnitude smaller."""
    unused_codewords: Literal["keep", "decay"] = "keep"
    """A codeword that no pixel is assigned to (`memory` only): `keep` leaves it as it is, `decay` multiplies it by 1 - rho (published
    code)."""
    init: Literal["features", "gaussian"] = "features"
    """First codewords (`memory` only): `features` of the first global batch, or (published code) `gaussian` for one step, then such
    features."""
    assign_padding: bool = False
    """Whether pixels outside the image (where the crop is larger) are assigned to codewords and counted."""


class Classifier(Section):
    """The classification network, paper sections 3.2-3.5 and Table 4."""

    backbone: Backbone = Backbone()
    start_from: str | None = None
    """Path or URI of weights of the whole network to start from, e.g. another run's weights.pt; none: only the backbone is
    pre-trained."""
    frozen_stages: int = Field(1, ge=0, le=5)
    """Number of leading stages without gradient: 1 = stem; 3 = stem, layer1, layer2."""
    pooling: Literal["gap", "hybrid"] = "hybrid"
    """`gap` is the baseline of Table 4; `hybrid` is Eq. 10."""
    gap_weight: float = Field(2.0, ge=0)
    """gamma of Eq. 10; 0 is hybrid pooling without GAP (Fig. 12)."""
    image_bias: bool = False
    """Whether the image-label head has a bias, initialised with the log odds of each class among the training images. The paper's has
    none, so that the maps' level over the background also encodes how frequent a class is."""
    codebook: Codebook = Codebook()
    optimiser: Optimiser = Optimiser()
    epochs: Positive = 6
    batch_size: Positive = 16
    """Global batch: the sum over workers and accumulated micro-batches."""
    crop: Positive = 512
    """Side of the square crop, pixels."""
    resize: Annotated[tuple[Positive, Positive], AfterValidator(_ordered)] = (320, 640)
    """The long side is drawn uniformly from this closed range, pixels."""


class Cam(Section):
    """Class activation maps, Eq. 1."""

    scales: Scales = (1.0, 0.5, 1.5, 2.0)
    hflip: bool = True
    hflip_fusion: Literal["max", "sum"] = "max"
    """`max` in the VWL code, `sum` in IRNet's."""
    long_side: Positive | None = None
    """Long side of the image at scale 1.0, pixels; none: the image's own size."""
    tile: Tile = 1536
    """Images with a longer side pass through the network in overlapping tiles of this side, pixels, which bounds memory."""
    background_threshold: Threshold = 0.13
    """Score of the background when masks are made; `auto`: Otsu's threshold, chosen without ground truth; `auto-by-class`: one for each
    class, since the maps of frequent classes are brighter than those of rare ones."""


class CrfKernels(Section):
    """Pairwise terms of the dense CRF."""

    implementation: Literal["auto", "native", "torch", "pydensecrf"] = "auto"
    """`native` (NumPy and numba, CPU), `torch` (GPU or CPU) or the package `pydensecrf`: the same energies, probabilities within 1e-3.
    `auto` is `torch` where the process has a GPU, else `native`, whether or not pydensecrf is installed."""
    max_pixels: Positive = 2_000_000
    """Larger images are refined at this number of pixels and the result enlarged; kernel widths then count pixels of that size."""
    iterations: Positive = 10
    gaussian_sxy: PositiveFloat = 1.0
    """Pixels."""
    gaussian_compat: float = Field(3.0, ge=0)
    bilateral_sxy: PositiveFloat = 64.0
    """Pixels."""
    bilateral_srgb: PositiveFloat = 3.0
    """Grey levels of 255."""
    bilateral_compat: float = Field(4.0, ge=0)


class Crf(Section):
    """Dense CRF on class activation maps (Table 1, column +CRF)."""

    background: Fraction | Literal["auto"] = 0.15
    """Score of the background before the softmax; `auto`: the threshold of the maps (`cam.background_threshold`)."""
    sharpness: float = Field(1.0, gt=0)
    """Scores are multiplied by this before the softmax; 1 in the published code."""
    kernels: CrfKernels = CrfKernels()


class IrnetLabels(Section):
    """Confident labels for IRNet from two thresholds."""

    foreground_threshold: Fraction = 0.30
    background_threshold: Fraction = 0.05
    confidence: float = Field(0.7, gt=0, lt=1)
    """Probability given to a pixel's own label in the unary term."""
    kernels: CrfKernels = CrfKernels(gaussian_sxy=3, gaussian_compat=3, bilateral_sxy=50, bilateral_srgb=5, bilateral_compat=10)


class Irnet(Section):
    """The boundary network (edge branch) and its affinity loss."""

    backbone: Backbone = Backbone(name="resnet50")
    start_from: str | None = None
    """Path or URI of weights of the whole network to start from, e.g. another run's weights.pt; none: only the backbone is
    pre-trained."""
    optimiser: Optimiser = Optimiser(learning_rate=0.1, head_lr_mult=1.0)
    epochs: Positive = 3
    batch_size: Positive = 32
    crop: Positive = 512
    long_side: Positive | None = None
    """Long side that images are resized to first, pixels; none: their own size."""
    rescale: Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ordered)] = (0.5, 1.5)
    radius: Positive = 10
    """Pairs of pixels closer than this many cells of the stride-4 grid take part in the loss."""


class Walk(Section):
    """Random walk on the affinities of the boundary map."""

    radius: Positive = 5
    exponent: float = Field(10.0, ge=0)
    """beta: affinities are raised to it."""
    steps: Positive = 256
    """Powers of the transition matrix; 2^8 in IRNet."""
    tolerance: float = Field(1e-5, gt=0)
    """Bound of the Chebyshev expansion's error, relative to the map's maximum."""
    long_side: Positive | None = None
    """Images are resized to this long side for the boundary network; none: their own size."""
    tile: Tile = 1536
    """Images with a longer side pass through the network in overlapping tiles of this side, pixels, which bounds memory."""
    pad_to: Positive | None = None
    """Images are padded at the right and bottom to this side for the boundary network, pixels, with the mean colour, as published IRNet
    does (512); larger images are not padded. None: no padding."""
    normalise_at: Literal["stride4", "full_size"] = "stride4"
    """Where the largest score that the walked maps are divided by is taken: at stride 4, or after enlargement to the image's size
    (published IRNet)."""
    background_threshold: Threshold = 0.25
    """Score of the background when masks are made; `auto` and `auto-by-class` as in `cam`."""


class Segmenter(Section):
    """DeepLabV2."""

    backbone: Backbone = Backbone()
    start_from: str | None = None
    """Path or URI of weights of the whole network to start from, e.g. another run's weights.pt; none: only the backbone is
    pre-trained."""
    output_stride: Literal[8, 16] = 8
    atrous_rates: Annotated[tuple[Positive, ...], AfterValidator(_not_empty)] = (6, 12, 18, 24)
    """Dilations of the parallel 3x3 convolutions (ASPP)."""
    input_scales: tuple[PositiveFloat, ...] = (0.5, 0.75)
    """Further sizes of the input whose logits are fused by maximum, each with its own loss."""
    optimiser: Optimiser = Optimiser(learning_rate=0.001, weight_decay=5e-4)
    """ASPP weights learn at `head_lr_mult`, its biases at twice that, without decay."""
    iterations: Positive = 20_000
    batch_size: Positive = 10
    crop: Positive = 321
    long_side: Positive | None = None
    """Long side that images are resized to first, pixels; none: their own size."""
    rescale: Scales = (0.5, 0.75, 1.0, 1.25, 1.5)


class Segment(Section):
    """Prediction by the segmentation model."""

    scales: Scales = (1.0,)
    hflip: bool = True
    long_side: Positive | None = None
    tile: Tile = 1536
    """Images with a longer side pass through the network in overlapping tiles of this side, pixels, which bounds memory."""
    crf: bool = True
    kernels: CrfKernels = CrfKernels(gaussian_sxy=1, gaussian_compat=3, bilateral_sxy=67, bilateral_srgb=3, bilateral_compat=4)


class Evaluation(Section):
    """Which classes are scored."""

    classes: tuple[str, ...] | None = None
    """Object classes of the mean (background is always in); none: all classes present in the ground truth."""

    @property
    def described(self) -> str:
        """The classes of the mean, for people."""
        return "all classes in the ground truth" if self.classes is None else ", ".join(("background", *self.classes))


class Recipe(Section):
    """All settings of a run."""

    name: str = "paper-voc"
    seed: int = Field(0, ge=0)
    """Every random choice is drawn from (seed, epoch, image id)."""
    classifier: Classifier = Classifier()
    cam: Cam = Cam()
    crf: Crf = Crf()
    irnet_labels: IrnetLabels = IrnetLabels()
    irnet: Irnet = Irnet()
    walk: Walk = Walk()
    segmenter: Segmenter = Segmenter()
    segment: Segment = Segment()
    evaluation: Evaluation = Evaluation()


def fingerprint(value: Any) -> str:
    """Return 16 hex digits that identify a JSON-like value or a recipe section."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
