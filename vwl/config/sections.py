"""Sections of a recipe that several of its sections contain, and the types of its values."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from vwl.config.strict import StrictModel


def ordered(ends: tuple[Any, Any]) -> tuple[Any, Any]:
    """Refuse a range whose first end is the larger one."""
    if ends[0] > ends[1]:
        raise ValueError("must have its smaller end first")
    return ends


def not_empty(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse an empty list."""
    if not values:
        raise ValueError("needs at least one value")
    return values


Positive = Annotated[int, Field(gt=0)]
Crop = Annotated[int, Field(ge=16)]  # the largest stride of features in a training
Tile = Annotated[int, Field(ge=128, multiple_of=32)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Threshold = Fraction | Literal["auto", "auto-by-class"]
WalkImplementation = Literal["auto", "native", "torch"]
Scale = Annotated[float, Field(gt=0, le=16)]
Scales = Annotated[tuple[Scale, ...], AfterValidator(not_empty)]


class Section(StrictModel):
    """A group of settings of a recipe; each field is described by the string below it."""


class Backbone(Section):
    """The convolutional network that computes the features (E in the paper)."""

    name: str = "resnet101"
    """`resnet18`, `resnet34`, `resnet50` or `resnet101` (torchvision), `lite0` (EfficientNet-Lite0, whose weights come with a package),
    or `timm:<model name>`."""
    weights: str = "imagenet"
    """Initial weights: `imagenet` (IMAGENET1K_V1 of torchvision; for lite0 those of its package), `none` (random), or the path or URI
    of a weights file."""


class Optimiser(Section):
    """SGD whose learning rate decays with each step: learning_rate * (1 - step / num_steps) ** power."""

    learning_rate: float = Field(0.01, gt=0)
    """Initial learning rate of the pre-trained parameters."""
    head_lr_mult: float = Field(10.0, gt=0)
    """Learning rate of the newly added layers, as a multiple of `learning_rate`."""
    momentum: Fraction = 0.9
    """Momentum of SGD. 0.9 in the paper; 1e-4 in the published code, which passes its weight decay in this argument's position (recipes
    `reference-*`)."""
    weight_decay: float = Field(1e-4, ge=0)
    """L2 penalty on the parameters, as torch.optim.SGD defines it."""
    power: float = Field(0.9, ge=0)
    """Exponent of the polynomial decay of the learning rate."""
    clip_norm: PositiveFloat | None = None
    """Gradients are scaled down to this L2 norm where theirs is larger; null: no clipping."""


class Codebook(Section):
    """The visual words and how their codebook is learned (paper, section 3.3)."""

    strategy: Literal["none", "learning", "memory"] = "learning"
    """`learning` (VWL-L): the codewords are trained parameters; `memory` (VWL-M): they are a memory bank, a moving average of the features
    assigned to them; `none`: no visual words (the baseline and +HP of Table 4)."""
    num_codewords: Positive = 256
    """Number of visual words, k in the paper."""
    temperature: float = Field(1.0, gt=0)
    """Temperature of the softmax over codewords, tau of Eq. 3."""
    momentum: Fraction = 1e-3
    """Weight of a step's mean features in the moving average of the codewords, rho of Eq. 7 (`memory` only)."""
    histogram: Literal["mean", "sum"] = "mean"
    """How the soft assignments of an image's pixels make its histogram of visual words (`learning` only): `mean` over pixels (Eq. 5) or
    `sum` (published code)."""
    decov: Literal["none", "squared", "unsquared"] = "squared"
    """DeCov loss (`learning` only): `squared` norms (Eq. 13), `unsquared` norms (published code), or `none` (+VWE of Table 4). The
    covariance of the codewords is not divided by d - 1, which would make the loss 7 orders of magnitude smaller."""
    unused_codewords: Literal["keep", "decay"] = "keep"
    """What a step does with a codeword that no pixel is assigned to (`memory` only): `keep` it, or `decay` it, which multiplies it by
    1 - rho (published code)."""
    init: Literal["features", "gaussian"] = "features"
    """Initial codewords (`memory` only): `features` of pixels of the first global batch, or `gaussian` noise for one step and such
    features from then on (published code)."""
    assign_padding: bool = False
    """Whether the padding around images smaller than the crop is assigned to codewords like pixels of the image (published code: yes)."""


class CrfKernels(Section):
    """The dense CRF: its implementation and its two pairwise terms, gaussian (position) and bilateral (position and colour)."""

    implementation: Literal["auto", "native", "torch", "pydensecrf"] = "auto"
    """`native` (NumPy and numba, CPU), `torch` (GPU or CPU) or the package `pydensecrf`: same energies, probabilities equal within 1e-3.
    `auto` is `torch` where the process has a GPU, else `native`, whether or not pydensecrf is installed."""
    max_pixels: Positive = 2_000_000
    """Images of more pixels are scaled down to this many and the result is enlarged, which bounds the memory. The kernel widths then
    count pixels of the smaller image."""
    iterations: Positive = 10
    """Mean-field iterations."""
    gaussian_sxy: PositiveFloat = 1.0
    """Standard deviation of the gaussian term, pixels."""
    gaussian_compat: float = Field(3.0, ge=0)
    """Weight of the gaussian term (Potts model)."""
    bilateral_sxy: PositiveFloat = 64.0
    """Standard deviation of the bilateral term in position, pixels."""
    bilateral_srgb: PositiveFloat = 3.0
    """Standard deviation of the bilateral term in colour, levels of 0 to 255."""
    bilateral_compat: float = Field(4.0, ge=0)
    """Weight of the bilateral term (Potts model)."""
