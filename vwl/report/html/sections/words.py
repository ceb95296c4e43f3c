"""Visual words: the image regions of the codewords that say most about the classes (Fig. 10)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vwl.data.index import Row
from vwl.errors import VwlError
from vwl.report.html.page import Section
from vwl.report.html.pictures import photo
from vwl.report.words import Word, region_picture, telling_words, word_assignments
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import scored_rows, training_rows

NUM_IMAGES, NUM_WORDS, NUM_REGIONS = 48, 24, 6
"""Images that words are looked for in, words that are shown, and regions of each."""
_SIDE = 132


@dataclass(frozen=True)
class ShownWord:
    """A word with its class and the pictures of its regions: (image id, data URI)."""

    word: Word
    class_name: str
    regions: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Words:
    """Content of the section.

    Attributes:
        reason: why there are no words; empty if there are.
        strategy, num_words: of the codebook.
        used: words with a pixel in the images.
        images: that were looked at.
        has_truth: whether the classes are those of the ground truth; those of the image labels otherwise.
        words: those shown.
    """

    reason: str
    strategy: str = ""
    num_words: int = 0
    used: int = 0
    images: int = 0
    has_truth: bool = False
    words: Sequence[ShownWord] = ()


def words_section(run: Run) -> Section:
    """Return the section of a run; says why where the classifier has no words."""
    return Section("words", "Visual words", _words(run))


def _words(run: Run) -> Words:
    settings = run.recipe.classifier.codebook
    if settings.strategy == "none":
        return Words("This run's classifier has no codebook (classifier.codebook.strategy: none), so there are no visual words to show.")
    if run.imported_maps() is not None:
        return Words("The score maps of this run are imported, so it has no classifier and no visual words.")
    manifest = run.manifest("classifier")
    if manifest is None or manifest.state != "done":
        return Words("The classifier is not trained yet.")
    rows: Sequence[Row] = scored_rows(run.index, "val") or training_rows(run.index)
    rows = [rows[i] for i in np.linspace(0, len(rows) - 1, min(NUM_IMAGES, len(rows))).round().astype(int)]
    rows = [row for row in rows if row.image_id not in run.failed_images("cam")]
    try:
        assignments = word_assignments(run, rows)
        found = telling_words(run.index, rows, assignments, settings.num_codewords)
    except VwlError as error:
        return Words(f"The visual words cannot be shown: {error}.")
    by_id = {row.image_id: row for row in rows}
    shown = []
    for word in found[:NUM_WORDS]:
        regions = []
        for image_id in word.images[:NUM_REGIONS]:
            image = np.asarray(run.index.read_image(by_id[image_id]))
            regions.append((image_id, photo(region_picture(image, assignments[image_id] == word.number, 2 * _SIDE), _SIDE, 62)))
        shown.append(ShownWord(word, run.index.classes[word.class_id], regions))
    used = len({int(number) for words in assignments.values() for number in np.unique(words)})
    return Words("", settings.strategy, settings.num_codewords, used, len(rows), all(row.mask is not None for row in rows), shown)
