"""Classes with mass: the dense CRF on those that the segment stage keeps against all 21, on real images with their ground truth.

The probabilities are those of a finished run's segmentation model (`--run`), or drawn, as coarse and as wrong as one's: ground truth at
stride 16, an eighth of the cells another class of the image, a patch taken for any class, noise in all logits, enlarged bilinearly.
Parity: the mIoU of the refined masks changes by at most 0.05 (percent).
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _paired import DATA, Line, paired, show

from vwl.config.recipe import Segment
from vwl.constants import IGNORE
from vwl.crf.dense_crf import crf_probabilities
from vwl.data.index import decode_image
from vwl.inference.build import load_segmenter
from vwl.inference.segment import SegmentStage, crf_classes
from vwl.maps.confusion import confusion_matrix, scores
from vwl.storage.masks import decode_mask
from vwl.workflow.run_folder import Run

KERNELS = Segment().kernels
NUM_CLASSES, STRIDE = 21, 16
MOST = 0.05
"""Change of the mIoU that is taken as none, percent."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--run", help="folder of a run whose segmenter is trained")
    options = parser.parse_args()
    found = of_run(options.run, options.images) if options.run else drawn(options.images)
    if not found:
        print("Classes with mass: needs the images of voc12mini (VWL_DATA), skipped")
        return
    counts = {"all": np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64), "pruned": np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)}
    pairs, kept = [], []
    for number, (image, truth, probabilities) in enumerate(found):
        classes = crf_classes(probabilities)
        kept.append(len(classes))
        masks: dict[str, np.ndarray] = {}
        pairs.append(
            paired(
                partial(refine, masks, "all", image, probabilities, np.arange(NUM_CLASSES)),
                partial(refine, masks, "pruned", image, probabilities, classes),
                1,
                warm_up=number == 0,
            )
        )
        for name, mask in masks.items():
            counts[name] += confusion_matrix(truth, mask, NUM_CLASSES)
    miou = {name: 100 * scores(total).miou for name, total in counts.items()}
    change = abs(miou["all"] - miou["pruned"])
    slow, quick, ratio = (float(np.median([getattr(pair, name) for pair in pairs])) for name in ("first", "second", "ratio"))
    parity = f"mIoU {miou['all']:.2f}, {miou['pruned']:.2f}"
    what = f"CRF, image: 21 classes, those with mass ({np.mean(kept):.1f})"
    lines = [Line(what, f"{slow * 1e3:.0f} ms", f"{quick * 1e3:.0f} ms", ratio, f"mIoU within {MOST}", parity)]
    show(f"Classes with mass, {len(found)} images of VOC", lines, change <= MOST)


def refine(masks: dict[str, np.ndarray], name: str, image: np.ndarray, probabilities: np.ndarray, classes: np.ndarray) -> None:
    masks[name] = classes[crf_probabilities(image, probabilities[classes], KERNELS).argmax(axis=0)].astype(np.uint8)


Case = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Image (H, W, 3), ground truth (H, W) and probabilities (21, H, W)."""


def of_run(folder: str, num: int) -> list[Case]:
    """Images of a run's validation split, with its segmentation model's probabilities."""
    run = Run.open(folder)
    stage = SegmentStage(run.recipe, run.index, load_segmenter(run.recipe, run.index, run.folder))
    rows = [row for row in run.index.split("val") if row.mask is not None]
    images = [(np.array(run.index.read_image(row)), run.index.read_mask(row)) for row in rows[:: max(1, len(rows) // num)][:num]]
    return [(image, truth, stage.probabilities(image)) for image, truth in images]


def drawn(num: int) -> list[Case]:
    """Images of VOC, evenly spread over those with ground truth."""
    masks = sorted((DATA / "voc12mini" / "SegmentationClassAug").glob("*.png"))
    found = []
    for number, path in enumerate(masks[:: max(1, len(masks) // num)][:num]):
        image = Path(DATA, "voc12mini", "JPEGImages", f"{path.stem}.jpg")
        truth = decode_mask(path.read_bytes(), path.name)
        found.append((np.array(decode_image(image.read_bytes(), image.name)), truth, unsure(truth, number)))
    return found


def unsure(truth: np.ndarray, seed: int) -> np.ndarray:
    """Draw probabilities (21, H, W) float32 for ground truth (H, W)."""
    rng = np.random.default_rng(seed)
    cells = np.where(truth == IGNORE, 0, truth)[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    seen = np.where(rng.random(cells.shape) < 1 / 8, rng.choice(np.unique(cells), cells.shape), cells)
    logits = rng.normal(0, 0.5, (NUM_CLASSES, *cells.shape))
    np.put_along_axis(logits, seen[None].astype(np.int64), rng.uniform(5, 9, (1, *cells.shape)), axis=0)
    top, left = (int(rng.integers(0, max(1, side - 5))) for side in cells.shape)
    logits[rng.integers(0, NUM_CLASSES), top : top + 5, left : left + 5] += rng.uniform(2, 8, (1, 1))
    whole = torch.nn.functional.interpolate(torch.from_numpy(logits)[None].float(), truth.shape, mode="bilinear", align_corners=False)
    return torch.softmax(whole[0], dim=0).numpy()


if __name__ == "__main__":
    main()
