"""The recipe's sections of PSA, the refiner that can take the place of IRNet (`refiner: psa`)."""

from typing import Self

from pydantic import Field, model_validator

from vwl.config.sections import Backbone, CrfKernels, Crop, Optimiser, Positive, Section, WalkImplementation
from vwl.constants import MAP_STRIDE


class PsaLabels(Section):
    """Labels for training PSA's affinity network: two dense CRFs on the maps, each with its own score of the background.

    The score of the background is (1 - the largest score) ** alpha. What the low alpha gives a class has that label, what the high alpha
    gives none is background, and all other pixels are ignored.
    """

    low_alpha: float = Field(4.0, gt=0)
    """Exponent of the larger score of the background, which leaves confident objects."""
    high_alpha: float = Field(32.0, gt=0)
    """Exponent of the smaller score of the background, which leaves confident background; above `low_alpha`."""
    kernels: CrfKernels = CrfKernels(gaussian_sxy=3, gaussian_compat=3, bilateral_sxy=80, bilateral_srgb=13, bilateral_compat=10)

    @model_validator(mode="after")
    def _low_is_below_high(self) -> Self:
        if self.low_alpha >= self.high_alpha:
            raise ValueError(f"low_alpha = {self.low_alpha} must be below high_alpha = {self.high_alpha}")
        return self


class Psa(Section):
    """PSA's affinity network and its training by the affinity loss; used with `refiner: psa`."""

    backbone: Backbone = Backbone()
    start_from: str | None = None
    """Path or URI of the weights of the whole network to start from, for example weights.pt of another run; null: only the backbone is
    pre-trained."""
    frozen_stages: int = Field(2, ge=0, le=5)
    """Number of first stages of the backbone that are not trained; the published ResNet-38 freezes its first two."""
    optimiser: Optimiser = Optimiser(learning_rate=0.1, weight_decay=5e-4)
    """The backbone learns at learning_rate, the head at learning_rate * head_lr_mult."""
    epochs: Positive = 8
    """Passes over the training images."""
    batch_size: Positive = 8
    """Images per step, over all workers and micro-batches."""
    crop: Crop = 448
    """Side of the random square crop, pixels, above 16 * (radius - 1); smaller images are padded."""
    long_side: Positive | None = None
    """Images are first resized to this long side, pixels; null: their own size."""
    radius: int = Field(5, ge=2)
    """The loss takes pairs of cells nearer to each other than this, in cells of the stride-8 grid."""

    @model_validator(mode="after")
    def _crop_holds_the_radius(self) -> Self:
        """Refuse a crop in which no cell has all its partners inside: it needs 2 * radius - 1 cells a side."""
        smallest = 2 * MAP_STRIDE * (2 * self.radius - 2) + 1
        if self.crop < smallest:
            raise ValueError(f"crop = {self.crop} is too small for radius = {self.radius}; set crop to {smallest} or more, or lower radius")
        return self


class PsaWalk(Section):
    """Random walk of the maps and their background by PSA's affinities; used with `refiner: psa`."""

    radius: int = Field(5, ge=2)
    """A step reaches cells nearer than this, in cells of the stride-8 grid."""
    exponent: float = Field(8.0, gt=0)
    """Power to which affinities are raised, beta of PSA."""
    steps: Positive = 256
    """Steps of the walk; 2^8 in PSA."""
    tolerance: float = Field(1e-5, gt=0)
    """Largest error of the Chebyshev series that computes the walk, relative to the maximum of the map."""
    implementation: WalkImplementation = "auto"
    """`native` (NumPy and numba, CPU) or `torch` (GPU or CPU): maps equal within 1e-4 of their maximum. `auto` is `torch` where the
    process has a GPU, else `native`."""
    alpha: float = Field(16.0, gt=0)
    """Exponent of the background's score, (1 - the largest score) ** alpha, which walks like the classes; no threshold is needed then."""
    long_side: Positive | None = None
    """Images are resized to this long side for the affinity network, pixels; null: their own size."""
