"""Visual words on images: their pixels, and the class that they say most about."""

import numpy as np
import pytest

from vwl.data.index import Row, make_index
from vwl.report.words import region_picture, telling_words, word_assignments
from vwl.storage.masks import encode_mask, voc_palette
from vwl.workflow.run_folder import Run

CLASSES = ("background", "cat", "dog")


def index_of(folder, masks):
    """An index of images without files, whose ground truth is `masks` (by image id) or, where it is none, absent."""
    for name, mask in masks.items():
        if mask is not None:
            (folder / f"{name}.png").write_bytes(encode_mask(np.asarray(mask, np.uint8), voc_palette()))
    rows = [Row(name, f"{name}.jpg", (1, 2), None if mask is None else f"{name}.png", "val") for name, mask in masks.items()]
    return make_index(rows, CLASSES, folder, "test")


def test_a_word_that_is_always_one_class_says_most(tmp_path):
    mask = [[0, 0, 1, 1], [0, 0, 2, 2]]
    index = index_of(tmp_path, {"a": mask, "b": mask})
    words = np.array([[3, 3, 0, 0], [3, 0, 1, 1]])
    found = telling_words(index, index.rows, {"a": words, "b": words}, num_words=5)
    assert {word.number: (word.class_id, round(word.class_share, 3)) for word in found} == {1: (2, 1.0), 3: (0, 1.0), 0: (1, 0.667)}
    assert found[0].number == 1
    assert found[0].bits == pytest.approx(2.0)  # dog is a quarter of all pixels
    assert sum(word.share for word in found) == pytest.approx(1)


def test_the_images_of_a_word_are_in_the_order_of_its_pixels(tmp_path):
    index = index_of(tmp_path, {"a": [[1, 1]], "b": [[1, 1]], "c": [[1, 1]]})
    assignments = {"a": np.array([[0, 1]]), "b": np.array([[0, 0]]), "c": np.array([[1, 1]])}
    found = {word.number: word.images for word in telling_words(index, index.rows, assignments, 2)}
    assert found == {0: ("b", "a"), 1: ("c", "a")}


def test_a_word_of_one_image_or_of_ignored_pixels_only_is_not_told_about(tmp_path):
    index = index_of(tmp_path, {"a": [[1, 255]], "b": [[1, 255]]})
    assignments = {"a": np.array([[0, 1]]), "b": np.array([[2, 1]])}
    assert telling_words(index, index.rows, assignments, 3) == []


def test_without_ground_truth_the_labels_stand_for_all_pixels(tmp_path):
    index = index_of(tmp_path, {"a": None, "b": None})
    words = np.array([[0, 1]])
    found = telling_words(index, index.rows, {"a": words, "b": words}, 2)
    assert [(word.number, word.class_share, word.bits) for word in found] == [(0, 0.5, 0.0), (1, 0.5, 0.0)]


def test_the_assignments_of_a_run_are_codewords_at_stride_16(tiny_run):
    rows = tiny_run.index.split("val")
    found = word_assignments(tiny_run, rows)
    assert list(found) == [row.image_id for row in rows]
    for words in found.values():
        assert max(words.shape) == tiny_run.recipe.cam.long_side // 16
        assert words.min() >= 0
        assert words.max() < tiny_run.recipe.classifier.codebook.num_codewords


def test_a_classifier_without_codebook_has_no_assignments(tiny_run):
    classifier = tiny_run.recipe.classifier
    none = classifier.model_copy(update={"codebook": classifier.codebook.model_copy(update={"strategy": "none"})})
    run = Run(tiny_run.folder, tiny_run.recipe.model_copy(update={"classifier": none}), tiny_run.index, tiny_run.index_path)
    with pytest.raises(Exception, match="another network or version"):  # its weights have a codebook
        word_assignments(run, [])


def test_the_region_of_a_word_keeps_its_colours():
    image = np.full((40, 60, 3), (250, 10, 10), np.uint8)
    cells = np.zeros((2, 3), bool)
    cells[0, 0] = True
    found = region_picture(image, cells, 100)
    assert found.shape == image.shape
    assert np.array_equal(found[10, 10], image[0, 0])
    assert (found[30, 50] == found[30, 50, 0]).all()
