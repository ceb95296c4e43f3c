"""Dense CRF: our own form against pydensecrf, one thread each, at 500 x 375 pixels, 10 iterations.

Both build their lattices for each image; ours keeps that of the positions for the next image of the same size, which is
forgotten before each timing here and has a column of its own. Parity in the same run: 50 images with 2 to 6 labels and both
parameter sets of the recipes must agree within 1e-3 in probability and on 99.9 % of the pixels; else it leaves with an error.
"""

import argparse
import itertools

import numpy as np
from _paired import Line, Paired, paired, real_images, show

from vwl.config.recipe import CrfKernels, IrnetLabels
from vwl.crf.dense_crf import crf_probabilities, irnet_labels
from vwl.crf.mean_field_numba import spatial_lattice

SETS = {"cam": CrfKernels(), "irnet_labels": IrnetLabels().kernels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50, help="for the parity check")
    parser.add_argument("--repeats", type=int, default=3, help="pairs for each of 3 images")
    parser.add_argument("--labels", type=int, nargs="*", default=[2, 4, 8, 21, 81])
    options = parser.parse_args()
    images = real_images(options.images)
    parity, right = agree(images)
    lines = []
    for num_labels in options.labels:
        few = num_labels <= 8
        rows = [timed(image, num_labels, options.repeats if few else 1) for image in images[: 3 if few else 1]]
        old, new, ratio, known = np.median(rows, axis=0)
        wanted = "2" if few else ""
        lines.append(Line(f"CRF, {num_labels} labels: pydensecrf, ours", f"{old:.0f} ms", f"{new:.0f} ms", ratio, wanted, parity))
        lines.append(Line(f"CRF, {num_labels} labels: size seen before", f"{old:.0f} ms", f"{known:.0f} ms", old / known, "", parity))
    pair = two_passes(images[0], options.repeats)
    two = f"{pair.first * 1e3:.0f} ms", f"{pair.second * 1e3:.0f} ms"
    lines.append(Line("CRF, IRNet's two passes, 4 labels", *two, pair.ratio, "", parity))
    show("Dense CRF at 500 x 375, 10 iterations, one thread", lines, right)


def timed(image: np.ndarray, num_labels: int, repeats: int) -> tuple[float, float, float, float]:
    """Return milliseconds of both forms, their ratio, and ours with the lattice of the positions at hand."""
    probabilities = blocks(num_labels, image)

    def package() -> None:
        crf_probabilities(image, probabilities, of(SETS["cam"], "pydensecrf"))

    def ours() -> None:
        crf_probabilities(image, probabilities, of(SETS["cam"], "native"))

    def ours_from_nothing() -> None:
        spatial_lattice.cache_clear()
        ours()

    ours()  # compiled
    pair = paired(package, ours_from_nothing, repeats, warm_up=False)
    return pair.first * 1e3, pair.second * 1e3, pair.ratio, paired(ours_from_nothing, ours, repeats, warm_up=False).second * 1e3


def two_passes(image: np.ndarray, repeats: int) -> Paired:
    """Time IRNet's labels: two passes over one image, which share its lattice in either form."""
    maps, settings = blocks(4, image)[1:], IrnetLabels()

    def form(name: str) -> None:
        spatial_lattice.cache_clear()
        irnet_labels(image, maps, [1, 2, 3], settings.model_copy(update={"kernels": of(settings.kernels, name)}))

    return paired(lambda: form("pydensecrf"), lambda: form("native"), repeats)


def agree(images: list[np.ndarray]) -> tuple[str, bool]:
    """Compare both forms on images and say how far they are apart."""
    largest, least = 0.0, 1.0
    # 5 numbers of labels and 2 sets in turn: 10 kinds of cases
    cases = itertools.cycle(itertools.product(range(2, 7), SETS.values()))
    for number, (image, (num_labels, kernels)) in enumerate(zip(images, cases, strict=False)):
        probabilities = blocks(num_labels, image, number)
        own, other = (crf_probabilities(image, probabilities, of(kernels, name)) for name in ("native", "pydensecrf"))
        largest = max(largest, float(np.abs(own - other).max()))
        least = min(least, float((own.argmax(axis=0) == other.argmax(axis=0)).mean()))
    return f"{len(images)} images: dQ {largest:.0e}, labels {least:.3%}", largest <= 1e-3 and least >= 0.999


def blocks(num_labels: int, image: np.ndarray, seed: int = 0) -> np.ndarray:
    """Draw probabilities (L, H, W) in blocks of 16 pixels, as coarse as a network's maps."""
    height, width, _ = image.shape
    coarse = np.random.default_rng(seed).dirichlet(np.full(num_labels, 0.5), (height // 16 + 1, width // 16 + 1))
    return coarse.transpose(2, 0, 1).repeat(16, 1).repeat(16, 2)[:, :height, :width].astype(np.float32)


def of(kernels: CrfKernels, implementation: str) -> CrfKernels:
    return kernels.model_copy(update={"implementation": implementation})


if __name__ == "__main__":
    main()
