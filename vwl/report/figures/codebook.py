"""Figures 10 and 11 of the paper: image regions of visual words, and the similarity of the codewords."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from vwl.data.index import Row
from vwl.errors import VwlError
from vwl.inference.build import load_classifier
from vwl.report.figures.grid import Grid, GridRow
from vwl.report.words import region_picture, telling_words, word_assignments
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import scored_rows, training_rows

NUM_REGIONS, NUM_IMAGES = 5, 96
"""Regions of each word, and images that they are looked for in."""


def word_regions(run: Run, numbers: Sequence[int] = (), num_words: int = 8) -> Grid:
    """Return a grid with a column for each word and its largest regions below each other (Fig. 10).

    Args:
        run: with a codebook.
        numbers: of the words, from 0; if there are none, the `num_words` that say most about the classes.
        num_words: how many.

    Raises:
        VwlError: the run has no codebook, or a word is not in it or takes no region.
    """
    num_codewords = _num_codewords(run)
    for number in numbers:
        if not 0 <= number < num_codewords:
            raise VwlError(f"{run.folder} has no word {number}; its words are 0 to {num_codewords - 1}")
    rows: Sequence[Row] = scored_rows(run.index, "val") or training_rows(run.index)
    rows = [rows[i] for i in np.linspace(0, len(rows) - 1, min(NUM_IMAGES, len(rows))).round().astype(int)]
    assignments = word_assignments(run, rows)
    found = {word.number: word for word in telling_words(run.index, rows, assignments, num_codewords)}
    for number in numbers:
        if number not in found:
            raise VwlError(f"word {number} of {run.folder} is in fewer than two of {len(rows)} images; choose another --word")
    words = [found[number] for number in numbers] or list(found.values())[:num_words]
    if not words:
        raise VwlError(f"no word of {run.folder} is in two of {len(rows)} images, so there is nothing to show")
    by_id = {row.image_id: row for row in rows}
    columns = []
    for word in words:
        regions: list[np.ndarray | None] = []
        for image_id in word.images[:NUM_REGIONS]:
            image = np.asarray(run.index.read_image(by_id[image_id]))
            regions.append(_square(region_picture(image, assignments[image_id] == word.number, 400)))
        columns.append(regions + [None] * (NUM_REGIONS - len(regions)))
    titles = [f"{word.number}: {run.index.classes[word.class_id]} {word.class_share:.0%}" for word in words]
    return Grid(titles, [GridRow("", [column[i] for column in columns]) for i in range(NUM_REGIONS)])


def codebook_similarity(run: Run) -> np.ndarray:
    """Return the cosine similarity of a run's codewords, (k, k) float64 (Fig. 11).

    Raises:
        VwlError: the run has no codebook, or its weights are missing or damaged.
    """
    _num_codewords(run)
    codebook = load_classifier(run.recipe, run.index, run.folder).codebook
    assert codebook is not None
    unit = torch.nn.functional.normalize(codebook.codewords.detach().double().cpu(), dim=1)
    return (unit @ unit.T).numpy()


def draw_similarity(matrices: Sequence[np.ndarray], labels: Sequence[str]) -> Figure:
    """Return a figure of similarity matrices side by side, in one scale from -1 to 1; titles have the mean absolute similarity."""
    figure = Figure(figsize=(3.1 * len(matrices) + 0.9, 3.8), layout="constrained")
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    for panel, matrix, label in zip(axes, matrices, labels, strict=True):
        drawn = panel.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
        panel.set_title(f"{label}\nmean |cosine| {off_diagonal_mean(matrix):.3f}", fontsize=9, parse_math=False)
        panel.set_xlabel("word", fontsize=8)
        panel.tick_params(labelsize=7)
    axes[0].set_ylabel("word", fontsize=8)
    figure.colorbar(drawn, ax=list(axes), shrink=0.85).ax.tick_params(labelsize=7)
    return figure


def off_diagonal_mean(matrix: np.ndarray) -> float:
    """Return the mean absolute value of a square matrix (k, k) off its diagonal; 0 for one word."""
    k = len(matrix)
    return float((np.abs(matrix).sum() - np.abs(np.diag(matrix)).sum()) / max(k * (k - 1), 1))


def _num_codewords(run: Run) -> int:
    settings = run.recipe.classifier.codebook
    if settings.strategy == "none":
        raise VwlError(f"the classifier of {run.folder} has no codebook (classifier.codebook.strategy: none), and so no visual words")
    manifest = run.manifest("classifier")
    if manifest is None or manifest.state != "done":
        raise VwlError(f"the classifier of {run.folder} is not trained; run: vwl train classifier --run {run.folder}")
    return settings.num_codewords


def _square(image: np.ndarray) -> np.ndarray:
    """Return the square in the middle of an image (H, W, 3)."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return image[top : top + side, left : left + side]
