"""The recipe's sections of ReCAM and LPCAM, which make other class activation maps of the same classifier; both are off by default."""

from typing import Annotated

from pydantic import AfterValidator, Field

from vwl.config.sections import Fraction, Optimiser, Positive, PositiveFloat, Section, ordered


class Recam(Section):
    """ReCAM (Chen et al., CVPR 2022): a short further training of the classifier with a softmax over classes; off with 0 epochs.

    Crops are those of the classifier's training.
    """

    epochs: int = Field(0, ge=0)
    """Passes over the training images (4 in the published code); 0: no ReCAM, the maps are those of the classifier."""
    weight: PositiveFloat = 1.0
    """Weight of the softmax cross entropy beside the classifier's own losses (published code: 1 on VOC, 0.1 on COCO)."""
    optimiser: Optimiser = Optimiser(learning_rate=5e-5, momentum=1e-4)
    """The classifier learns at learning_rate, the new head at learning_rate * head_lr_mult, as in the published code."""
    batch_size: Positive = 16
    """Images per step, over all workers and micro-batches."""


class Lpcam(Section):
    """LPCAM (Chen and Sun, CVPR 2023): prototypes of each class, clustered from local features; used with `cam.method: lpcam`."""

    clusters: int = Field(12, ge=1, le=1000)
    """Clusters of the features inside a class's maps, and of those outside."""
    foreground_score: Fraction = 0.1
    """Features where the map of a class, divided by its maximum, exceeds this score are inside, all others outside."""
    prototype_probability: Fraction = 0.9
    """A cluster inside is a prototype if the classifier gives its centre a larger probability of the class (softmax over all classes)."""
    context_probability: Annotated[tuple[Fraction, Fraction], AfterValidator(ordered)] = (0.05, 0.9)
    """A cluster outside is context, whose similarity is subtracted, if its probability of the class is between these."""
    images_per_class: Positive = 100
    """Training images that a class's features are taken from, spread evenly over the data set; bounds the memory."""
    cells_per_image: Positive = 64
    """Features that are taken, at random, inside a map of an image, and as many outside; bounds the memory."""
    iterations: Positive = 20
    """Most iterations of k-means, which ends before where no feature changes its cluster."""
