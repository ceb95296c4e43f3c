"""The scores of a training's maps are those of the finished stage at the same threshold."""

import numpy as np
import pytest
import torch

from vwl.constants import map_size
from vwl.errors import VwlError
from vwl.maps.cam import argmax_with_background, best_class, normalise, upsample
from vwl.maps.confusion import confusion_matrix, scores
from vwl.maps.thresholds import Otsu
from vwl.training.map_scores import MapScores

CLASS_IDS = (1, 3)


def images(count: int = 3) -> list[tuple[torch.Tensor, np.ndarray]]:
    """Maps of the classes 1 and 3, and masks of 40 x 52 pixels."""
    rng = np.random.default_rng(0)
    grid = map_size(40, 52)
    return [
        (torch.from_numpy(rng.random((2, *grid), np.float32)), rng.choice([0, 1, 3, 255], (40, 52)).astype(np.uint8)) for _ in range(count)
    ]


def test_they_are_those_of_the_masks_at_otsus_threshold():
    found, otsu = MapScores(4), Otsu()
    for maps, truth in images():
        found.add(maps, CLASS_IDS, truth)
        otsu.add(best_class(upsample(normalise(maps.numpy()), *truth.shape), CLASS_IDS)[1])
    confusion = np.zeros((4, 4), np.int64)
    for maps, truth in images():
        mask = argmax_with_background(upsample(normalise(maps.numpy()), *truth.shape), CLASS_IDS, otsu.choose())
        confusion += confusion_matrix(truth, mask, 4)
    expected = scores(confusion, [3])
    result = found.over_workers([3])
    assert result["miou"] == pytest.approx(100 * expected.miou, abs=1e-4)
    assert result["precision"] == pytest.approx(100 * confusion[3, 3] / confusion[:, 3].sum(), abs=1e-4)
    assert result["recall"] == pytest.approx(100 * confusion[3, 3] / confusion[3].sum(), abs=1e-4)
    assert result["best_miou"] >= result["miou"]


def test_without_an_image_there_are_none():
    assert MapScores(4).over_workers(None) == {}


def test_an_image_without_labels_is_all_background():
    found = MapScores(4)
    found.add(torch.zeros(0, 3, 3), (), np.zeros((9, 9), np.uint8))
    assert found.over_workers(None)["miou"] == 100


def test_a_mask_with_another_id_is_refused():
    with pytest.raises(VwlError, match="class id 9"):
        MapScores(4).add(torch.zeros(1, 3, 3), (1,), np.full((9, 9), 9, np.uint8))
