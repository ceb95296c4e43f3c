"""Words and their similarity as figures."""

import numpy as np
import pytest

from vwl.errors import VwlError
from vwl.report.figures.codebook import NUM_REGIONS, codebook_similarity, draw_similarity, off_diagonal_mean, word_regions
from vwl.workflow.run_folder import Run


def without_codebook(run):
    classifier = run.recipe.classifier
    none = classifier.model_copy(update={"codebook": classifier.codebook.model_copy(update={"strategy": "none"})})
    return Run(run.folder, run.recipe.model_copy(update={"classifier": none}), run.index, run.index_path)


def test_the_similarity_is_the_cosine_of_the_codewords(tiny_run):
    matrix = codebook_similarity(tiny_run)
    assert matrix.shape == (8, 8)
    assert np.allclose(np.diag(matrix), 1)
    assert np.allclose(matrix, matrix.T)
    assert np.abs(matrix).max() < 1 + 1e-9


@pytest.mark.parametrize(("matrix", "mean"), [(np.eye(4), 0.0), (np.array([[1, -0.5], [-0.5, 1]]), 0.5), (np.ones((1, 1)), 0.0)])
def test_the_mean_leaves_the_diagonal_out(matrix, mean):
    assert off_diagonal_mean(matrix) == pytest.approx(mean)


def test_matrices_share_one_scale():
    figure = draw_similarity([np.eye(4), np.eye(3)], ["a $x", "b"])
    panels = figure.axes[:2]
    assert [panel.images[0].get_clim() for panel in panels] == [(-1, 1), (-1, 1)]
    assert panels[0].get_title() == "a $x\nmean |cosine| 0.000"


def test_each_word_has_a_column_of_square_regions(tiny_run):
    grid = word_regions(tiny_run)
    assert 1 <= len(grid.columns) <= 8
    assert len(grid.rows) == NUM_REGIONS
    shown = [image for row in grid.rows for image in row.images if image is not None]
    assert all(image.shape[0] == image.shape[1] for image in shown)


def test_words_may_be_chosen(tiny_run):
    number = int(word_regions(tiny_run).columns[-1].partition(":")[0])
    assert [title.partition(":")[0] for title in word_regions(tiny_run, [number]).columns] == [str(number)]


@pytest.mark.parametrize(("number", "message"), [(8, "has no word 8; its words are 0 to 7"), (-1, "has no word -1")])
def test_a_word_that_is_not_in_the_codebook_is_refused(tiny_run, number, message):
    with pytest.raises(VwlError, match=message):
        word_regions(tiny_run, [number])


@pytest.mark.parametrize("draw", [word_regions, codebook_similarity])
def test_a_run_without_codebook_is_refused(tiny_run, draw):
    with pytest.raises(VwlError, match=r"has no codebook \(classifier.codebook.strategy: none\)"):
        draw(without_codebook(tiny_run))
