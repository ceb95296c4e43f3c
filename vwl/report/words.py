"""Visual words of a trained classifier on some images: which pixels each codeword takes, and of which class they are (Fig. 10).

The assignments are those of Eq. 4, on the image at the size that the CAM stage gives it (one scale, not flipped).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from vwl.constants import IGNORE
from vwl.data.index import Index, Row
from vwl.data.transforms import long_side_scale, resize, scaled_size
from vwl.inference.build import load_classifier
from vwl.inference.stage import hflip_pair
from vwl.models.folding import for_inference
from vwl.workflow.run_folder import Run

MAX_LONG_SIDE = 512
"""Larger images are scaled down to this long side, pixels."""
_MIN_IMAGES = 2
"""A word in fewer images is not told about: it may be one object's."""


@dataclass(frozen=True)
class Word:
    """A visual word on some images.

    Attributes:
        number: of the codeword, from 0.
        share: of all cells, 0..1.
        images: ids of the images with the word, most cells first.
        class_id: the class whose share in the word exceeds its share in all cells most; 0 is the background.
        class_share: share of the word's cells that are of this class.
        bits: Kullback-Leibler divergence of the word's classes from those of all cells.
    """

    number: int
    share: float
    images: tuple[str, ...]
    class_id: int
    class_share: float
    bits: float


@torch.inference_mode()
def word_assignments(run: Run, rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Return the codeword of each cell, (h, w) int64 by image id, at the classifier's stride of 16.

    Raises:
        VwlError: the classifier's weights or an image cannot be read.
        ValueError: the classifier has no codebook.
    """
    model = for_inference(load_classifier(run.recipe, run.index, run.folder))
    if model.codebook is None:
        raise ValueError("the classifier has no codebook")
    found = {}
    for row in rows:
        image = np.asarray(run.index.read_image(row))
        base = min(long_side_scale(image.shape, run.recipe.cam.long_side), MAX_LONG_SIDE / max(image.shape[:2]))
        view = resize(image, *scaled_size(image.shape, base))
        batch = hflip_pair(view, model.backbone.mean, model.backbone.std, model.image_head.weight, hflip=False)
        found[row.image_id] = model.codebook(model.features(batch)).assignments[0].cpu().numpy()
    return found


def telling_words(index: Index, rows: Sequence[Row], assignments: Mapping[str, np.ndarray], num_words: int) -> list[Word]:
    """Return the words in use, those first that say most about the class of a cell.

    The order is by share times divergence, the word's part of the mutual information of words and classes. A cell's class is that of its
    centre in the ground truth, or each of the image's labels in equal parts where there is none.

    Args:
        index: the data set.
        rows: the images.
        assignments: (h, w) int64 by image id.
        num_words: codewords in the codebook.
    """
    counts = np.zeros((num_words, len(index.classes)))
    cells = np.zeros((len(rows), num_words), np.int64)
    for position, row in enumerate(rows):
        words = assignments[row.image_id]
        weights = _cell_classes(index, row, (words.shape[0], words.shape[1]))
        np.add.at(counts, words.ravel(), weights.reshape(-1, weights.shape[-1]))
        cells[position] = np.bincount(words.ravel(), minlength=num_words)
    of_all = counts.sum(axis=0) / max(counts.sum(), 1e-12)
    found = []
    for number in np.flatnonzero((cells > 0).sum(axis=0) >= min(_MIN_IMAGES, len(rows))):
        total = counts[number].sum()
        if total <= 0:  # only on ignored pixels
            continue
        own = counts[number] / total
        terms = np.where(own > 0, own * np.log2(np.where(own > 0, own, 1) / np.where(of_all > 0, of_all, 1)), 0.0)
        class_id = int(np.where(own > 0, terms, -np.inf).argmax())
        order = [i for i in np.argsort(-cells[:, number], kind="stable") if cells[i, number]]
        images = tuple(rows[i].image_id for i in order)
        share = float(cells[:, number].sum() / cells.sum())
        found.append(Word(int(number), share, images, class_id, float(own[class_id]), float(terms.sum())))
    return sorted(found, key=lambda word: (-word.share * word.bits, word.number))


def _cell_classes(index: Index, row: Row, size: tuple[int, int]) -> np.ndarray:
    """Return the classes of an image's cells, (h, w, n) weights that add up to 1 for each cell, or to 0 where the truth is ignored."""
    weights = np.zeros((*size, len(index.classes)))
    if row.mask is None:
        for label in row.labels:
            weights[..., label] = 1 / len(row.labels)
        return weights
    truth = index.read_mask(row)
    rows = ((np.arange(size[0]) + 0.5) * truth.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * truth.shape[1] / size[1]).astype(int)
    centres = truth[rows][:, columns]
    for class_id in np.unique(centres[centres != IGNORE]):
        weights[..., class_id] = centres == class_id
    return weights


def region_picture(image: np.ndarray, cells: np.ndarray, long_side: int) -> np.ndarray:
    """Return an image (H, W, 3) uint8 at a long side of at most `long_side`, on which only some cells (h, w) bool keep their colours.

    The rest is grey and dark.
    """
    scale = min(1.0, long_side / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), np.float32)
    shown = np.asarray(Image.fromarray(cells.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)) > 0
    grey = small.mean(axis=2, keepdims=True) * 0.35 + 20
    return np.where(shown[..., None], small, grey).round().astype(np.uint8)
