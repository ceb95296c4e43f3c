"""Background thresholds: all 101 from one histogram pass against scoring one, and against scoring one after the other.

Maps of two classes at stride 4 for scenes of 500 x 375 pixels with 21 classes. Scoring includes bringing the maps to full size.
Parity: the confusion matrices at every threshold are equal.
"""

import argparse

import numpy as np
from _paired import Line, paired, seconds_of, show

from vwl.constants import map_size
from vwl.maps.cam import argmax_with_background, best_class, upsample
from vwl.maps.confusion import confusion_matrix
from vwl.maps.thresholds import ThresholdHistogram, grid

NUM_CLASSES, SIZE, IDS = 21, (375, 500), (3, 15)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    scenes = drawn(options.images)
    thresholds = grid()
    one = float(thresholds[38])
    pair = paired(lambda: scored(scenes, one), lambda: histogram(scenes), options.repeats)
    found = histogram(scenes).confusions()
    equal = all(np.array_equal(matrix, scored(scenes, float(t))) for matrix, t in zip(found, thresholds, strict=True))
    each = seconds_of(lambda: [scored(scenes, float(t)) for t in thresholds])
    parity = "equal" if equal else "NOT equal"

    def milliseconds(seconds: float) -> str:
        return f"{seconds / options.images * 1e3:.1f} ms"

    one_threshold, all_at_once, one_by_one = (milliseconds(seconds) for seconds in (pair.first, pair.second, each))
    lines = [
        Line("thresholds, image: one threshold, all in one pass (cost)", one_threshold, all_at_once, 1 / pair.ratio, "under 2", parity),
        Line("thresholds, image: one after the other, one pass", one_by_one, all_at_once, each / pair.second, "", parity),
    ]
    show("101 background thresholds, 2 maps of 21 classes at 500 x 375, one thread", lines, equal)


def drawn(num: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ground truth (H, W) with an ignored border, and maps (2, h, w) float16 of smooth blobs."""
    rng, scenes = np.random.default_rng(0), []
    for _ in range(num):
        truth = rng.choice([0, *IDS], (6, 8)).astype(np.uint8).repeat(63, 0).repeat(63, 1)[: SIZE[0], : SIZE[1]].copy()
        truth[::63] = 255
        coarse = rng.random((2, 9, 12)).repeat(11, 1).repeat(11, 2)[:, : map_size(*SIZE)[0], : map_size(*SIZE)[1]]
        noise = 0.2 * rng.random(coarse.shape)
        scenes.append((truth, (0.8 * coarse + noise).astype(np.float16)))
    return scenes


def scored(scenes: list[tuple[np.ndarray, np.ndarray]], threshold: float) -> np.ndarray:
    """The confusion matrix of the masks at one threshold."""
    total = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
    for truth, values in scenes:
        total += confusion_matrix(truth, argmax_with_background(upsample(values, *SIZE), IDS, threshold), NUM_CLASSES)
    return total


def histogram(scenes: list[tuple[np.ndarray, np.ndarray]]) -> ThresholdHistogram:
    """All thresholds at once, as `vwl.evaluation.scoring.score_maps` does it."""
    found = ThresholdHistogram(NUM_CLASSES)
    for truth, values in scenes:
        found.add(truth, *best_class(upsample(values, *SIZE), IDS))
    return found


if __name__ == "__main__":
    main()
