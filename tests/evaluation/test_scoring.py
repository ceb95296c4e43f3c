import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from tests.helpers import real_data, tiny_scenes
from vwl.constants import map_size
from vwl.data.index import Row
from vwl.data.voc import prepare_voc
from vwl.errors import VwlError
from vwl.evaluation.scoring import Thresholds, choose_thresholds, percent, score_maps, score_masks
from vwl.maps.cam import argmax_with_background, best_class, normalise, upsample
from vwl.maps.confusion import confusion_matrix, scores
from vwl.maps.thresholds import Otsu, ThresholdHistogram
from vwl.storage.folder import Folder
from vwl.storage.masks import encode_mask
from vwl.storage.score_maps import MapReader, ScoreMap, write_maps


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Six training scenes with two classes."""
    return tiny_scenes(tmp_path_factory.mktemp("scenes"), 6, 0)


@pytest.fixture
def maps(scenes, tmp_path):
    """Random maps of the scenes, in two shards; many scores lie exactly on the grid of thresholds."""
    rng = np.random.default_rng(0)
    found = []
    for row in scenes.rows:
        height, width = scenes.read_mask(row).shape
        values = rng.random((len(row.labels), *map_size(height, width))).round(2).astype(np.float16)
        found.append(ScoreMap(row.image_id, row.labels, height, width, values))
    folder = Folder(tmp_path / "maps")
    write_maps(folder, "part-00000.parquet", found[:4])
    write_maps(folder, "part-00001.parquet", found[4:])
    return MapReader(folder)


def full_size(index, rows, maps):
    """Truth, maps at the images' size and class ids of each image."""
    for row in rows:
        found = maps.read(row.image_id)
        yield index.read_mask(row), upsample(found.values, found.height, found.width), found.classes


def computed_directly(images, threshold, num_classes=3):
    """The confusion matrix of masks cut at one threshold, one image after another."""
    return sum(
        confusion_matrix(truth, argmax_with_background(values, class_ids, threshold), num_classes) for truth, values, class_ids in images
    )


def test_maps_score_at_every_threshold_as_masks_cut_at_it_by_itself(scenes, maps):
    score = score_maps(scenes, scenes.rows, maps, "cam", "train", 0.345, "recipe", None)
    images = list(full_size(scenes, scenes.rows, maps))
    assert len(score.curve) == 102  # the grid of 0.01 and the threshold used
    for threshold, miou in score.curve:
        assert miou == scores(computed_directly(images, threshold)).miou
    np.testing.assert_array_equal(score.confusion, computed_directly(images, 0.345))
    assert score.scores.miou == scores(score.confusion).miou
    assert score.best_miou == score.curve[:, 1].max() > score.scores.miou
    assert scores(computed_directly(images, score.best_threshold)).miou == score.best_miou
    assert score.images == 6


def test_a_threshold_of_the_grid_is_not_scored_twice(scenes, maps):
    score = score_maps(scenes, scenes.rows, maps, "cam", "train", 0.07, "recipe", None)
    assert len(score.curve) == 101
    np.testing.assert_array_equal(score.confusion, computed_directly(full_size(scenes, scenes.rows, maps), 0.07))


def test_masks_score_as_the_maps_they_were_cut_from(scenes, maps, tmp_path):
    masks = Folder(tmp_path / "masks")
    for row in scenes.rows:
        found = maps.read(row.image_id)
        mask = argmax_with_background(upsample(found.values, found.height, found.width), found.classes, 0.5)
        masks.write(f"{row.image_id}.png", encode_mask(mask, scenes.palette))
    soft = score_maps(scenes, scenes.rows, maps, "walk", "train", 0.5, "recipe", None)
    hard = score_masks(scenes, scenes.rows, masks, "crf", "train", None, 0.5, "recipe")
    np.testing.assert_array_equal(hard.confusion, soft.confusion)
    assert hard.scores.miou == soft.scores.miou
    assert (hard.threshold, hard.chosen, hard.best_miou, hard.best_threshold, hard.curve) == (0.5, "recipe", None, None, None)


def test_the_mean_is_restricted_to_classes_and_keeps_the_background(scenes, maps):
    everything = score_maps(scenes, scenes.rows, maps, "cam", "train", 0.5, "recipe", None)
    one = score_maps(scenes, scenes.rows, maps, "cam", "train", 0.5, "recipe", [2])
    iou = everything.scores.iou
    assert one.scores.miou == pytest.approx((iou[0] + iou[2]) / 2)
    assert everything.scores.miou == pytest.approx(iou.mean())
    assert one.scores.miou != pytest.approx(everything.scores.miou)
    np.testing.assert_array_equal(one.confusion, everything.confusion)


def test_a_constant_threshold_is_labelled_as_the_recipes(scenes, maps):
    assert choose_thresholds(0.13, maps, scenes.rows) == Thresholds(0.13, "recipe")


def test_auto_is_otsus_choice_over_the_strongest_scores_and_says_so(scenes, maps):
    otsu = Otsu()
    for row in scenes.rows:
        otsu.add(maps.read(row.image_id).values.astype(np.float32).max(axis=0))
    found = choose_thresholds("auto", maps, scenes.rows)
    threshold, chosen = found.threshold, found.chosen
    assert threshold == pytest.approx(otsu.choose(), abs=1e-4)
    assert 0.2 < threshold < 0.8
    assert chosen == "auto (Otsu, no ground truth)"


def test_each_class_has_the_threshold_of_its_own_maps_if_enough_images_show_it(tmp_path):
    rng = np.random.default_rng(0)
    rows, stored = [], []
    for number in range(12):
        classes = (1, 2) if number < 11 else (1, 3)
        halves = np.repeat([0.0, 1.0], 8)[None, :] + np.zeros((16, 1))
        values = np.stack([0.5 + 0.4 * halves, 0.1 + 0.3 * halves]) + 0.02 * rng.standard_normal((2, 16, 16))
        rows.append(Row(f"p{number}", "", classes, None, "train"))
        stored.append(ScoreMap(f"p{number}", classes, 64, 64, values.astype(np.float16)))
    write_maps(Folder(tmp_path), "part-00000.parquet", stored)
    reader = MapReader(Folder(tmp_path))
    found = choose_thresholds("auto-by-class", reader, rows).by_class
    assert list(found) == [1, 2]
    assert found[1] == pytest.approx(0.7, abs=0.1)
    assert found[2] == pytest.approx(0.25, abs=0.1)
    scaled = MapReader(reader.folder, {class_id: 0.5 / own for class_id, own in found.items()}).read("p11")
    plain = reader.read("p11").values.astype(np.float32)
    np.testing.assert_allclose(scaled.values[0], plain[0] * np.float32(0.5 / found[1]))
    np.testing.assert_array_equal(scaled.values[1], plain[1])
    np.testing.assert_array_equal(scaled.values[0] > 0.5, np.repeat([False, True], 8)[None, :] & np.ones((16, 1), bool))


def with_small_mask(index, folder):
    """The index, its first image's mask cut by one row."""
    row = index.rows[0]
    (folder / "small.png").write_bytes(encode_mask(index.read_mask(row)[1:], index.palette))
    (folder / "images").symlink_to(f"{index.root}/images")
    return dataclasses.replace(index, rows=(dataclasses.replace(row, mask="small.png"),), root=Folder(folder))


def test_a_mask_of_another_size_than_its_image_is_named(scenes, maps, tmp_path):
    wrong = with_small_mask(scenes, tmp_path)
    height, width = scenes.read_mask(scenes.rows[0]).shape
    message = (
        f"the mask of image train_00000 (small.png) is {width} x {height - 1}, its image {width} x {height}; "
        "vwl data check lists all such images"
    )
    with pytest.raises(VwlError) as of_maps:
        score_maps(wrong, wrong.rows, maps, "cam", "train", 0.5, "recipe", None)
    masks = Folder(tmp_path / "masks")
    masks.write("train_00000.png", encode_mask(np.zeros((height, width), np.uint8), scenes.palette))
    with pytest.raises(VwlError) as of_masks:
        score_masks(wrong, wrong.rows, masks, "segment", "train", None)
    assert [str(of_maps.value), str(of_masks.value)] == [message, message]


def test_the_json_gives_every_class_its_over_and_under_activation(scenes, maps):
    score = score_maps(scenes, scenes.rows, maps, "cam", "train", 0.5, "auto (Otsu, no ground truth)", None)
    found = json.loads(json.dumps(score.as_dict(scenes.classes), allow_nan=False))
    table = score.confusion
    for number, name in enumerate(scenes.classes):
        right, true, predicted = table[number, number], table[number].sum(), table[:, number].sum()
        assert found["over_activation"][name] == pytest.approx(100 * (1 - right / predicted), abs=0.005)
        assert found["under_activation"][name] == pytest.approx(100 * (1 - right / true), abs=0.005)
        assert found["precision"][name] == pytest.approx(100 * right / predicted, abs=0.005)
        assert found["recall"][name] == pytest.approx(100 * right / true, abs=0.005)
        assert found["iou"][name] == pytest.approx(100 * right / (true + predicted - right), abs=0.005)
    assert found["miou"] == percent(score.scores.miou)
    assert (found["stage"], found["split"], found["images"]) == ("cam", "train", 6)
    assert (found["threshold"], found["threshold_chosen"]) == (0.5, "auto (Otsu, no ground truth)")
    assert found["best_miou_with_ground_truth"] == max(miou for _, miou in found["curve"])
    assert found["confusion"] == table.tolist()


def test_a_class_that_is_never_predicted_has_no_precision_in_the_json(scenes, tmp_path):
    masks = Folder(tmp_path)
    for row in scenes.rows:
        masks.write(f"{row.image_id}.png", encode_mask(np.zeros_like(scenes.read_mask(row)), scenes.palette))
    found = score_masks(scenes, scenes.rows, masks, "segment", "train", None).as_dict(scenes.classes)
    assert list(found["precision"]) == ["background"]
    assert list(found["over_activation"]) == ["background"]
    assert found["under_activation"] == {name: 0.0 if name == "background" else 100.0 for name in scenes.classes}
    json.dumps(found, allow_nan=False)


def soft_truth(truth, labels, rng):
    """Maps (K, H, W) float32 in 0..1, as smooth as those of a network of stride 16: each object blurred, with blurred noise."""
    noise = [gaussian_filter(rng.normal(size=truth.shape), 16, mode="nearest") for _ in labels]
    blurred = [gaussian_filter((truth == label).astype(float), 16, mode="nearest") for label in labels]
    return normalise(np.stack([b + 0.05 * n / n.std() for b, n in zip(blurred, noise, strict=True)]))


def at_stride_4(maps: np.ndarray) -> np.ndarray:
    size = map_size(*maps.shape[1:])
    return functional.interpolate(torch.from_numpy(maps)[None].float(), size, mode="bilinear")[0].numpy().astype(np.float16)


def test_half_precision_maps_at_stride_4_cost_less_than_a_tenth_of_a_point(tmp_path):
    index, _ = prepare_voc(real_data("voc12mini"))
    rows = [row for row in index.split("val") if row.labels][::14][:15]
    rng = np.random.default_rng(0)
    whole, stored = ThresholdHistogram(len(index.classes)), []
    for row in rows:
        truth = index.read_mask(row)
        maps = soft_truth(truth, row.labels, rng)
        whole.add(truth, *best_class(maps, row.labels))
        stored.append(ScoreMap(row.image_id, row.labels, *truth.shape, at_stride_4(maps)))
    write_maps(Folder(tmp_path), "part-00000.parquet", stored)
    reader = MapReader(Folder(tmp_path))
    found = choose_thresholds("auto", reader, rows)
    threshold, chosen = found.threshold, found.chosen
    score = score_maps(index, rows, reader, "cam", "val", threshold, chosen, None)
    full = whole.curve()
    assert len(rows) == 15
    assert 0.5 < score.scores.miou < 0.95
    assert 100 * abs(score.best_miou - full.max()) < 0.1
    assert 100 * abs(score.scores.miou - full[round(100 * threshold)]) < 0.1
