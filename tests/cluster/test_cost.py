"""Costs against hand counts: a convolution, a network, passes over scales, bytes on disk."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.helpers import tiny_scenes
from vwl.cluster.cost import CPU_CORE, GPU, Cost, ImageStats, counted, image_stats, inference_cost, training_cost
from vwl.config.files import load_recipe

IMAGES = ImageStats(height=96, width=128, labels=2.0)
DEMO = load_recipe("demo", ["classifier.backbone.weights=none", "irnet.backbone.weights=none", "segmenter.backbone.weights=none"])


def test_a_convolution_is_counted_as_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)).to("meta")
    operations, bytes_of_outputs = counted(network, network, 16)
    cells = 8 * 8
    assert operations == 2 * cells * 8 * (3 * 9) + 2 * cells * 8 * 9  # a depth-wise kernel sees one channel
    assert bytes_of_outputs == 4 * cells * 8 * 2


def test_resnet50_costs_what_is_known_of_it():
    # 4.09 billion multiply-adds at 224 pixels, of which the convolutions are nearly all
    from torchvision.models import resnet50

    with torch.device("meta"):
        network = resnet50()
    operations, _ = counted(network, network, 224)
    assert operations / 2 == pytest.approx(4.09e9, rel=0.01)


def test_a_training_goes_through_whole_batches():
    cost = training_cost(DEMO, "classifier", num_images=20, num_classes=5)
    assert cost.images == DEMO.classifier.epochs * 3 * DEMO.classifier.batch_size == 6 * 3 * 8
    assert training_cost(DEMO, "segmenter", 20, 5).images == DEMO.segmenter.iterations * DEMO.segmenter.batch_size


def test_recam_costs_epochs_of_the_classifier_and_lpcam_a_look_at_some_images():
    recipe = load_recipe("demo", ["classifier.backbone.weights=none", "recam.epochs=2", "recam.batch_size=4", "lpcam.images_per_class=3"])
    classifier, recam, lpcam = (training_cost(recipe, stage, num_images=20, num_classes=5) for stage in ("classifier", "recam", "lpcam"))
    assert (recam.images, recam.operations, recam.activations) == (2 * 5 * 4, classifier.operations, classifier.activations)
    side = sum(recipe.classifier.resize) // 2
    assert lpcam.images == 4 * 3
    assert lpcam.operations == pytest.approx(classifier.operations / 3 * (side / recipe.classifier.crop) ** 2)


def test_a_larger_crop_costs_its_area():
    small, large = (training_cost(load_recipe("demo", [f"classifier.crop={crop}"]), "classifier", 8, 5) for crop in (128, 256))
    assert large.operations == pytest.approx(4 * small.operations)
    assert large.activations == pytest.approx(4 * small.activations)


def test_a_training_costs_more_than_looking():
    looking = inference_cost(
        load_recipe("demo", ["cam.scales=[1.0]", "cam.long_side=256", "cam.hflip=false"]), "cam", 1, 5, ImageStats(192, 256, 1)
    )
    training = training_cost(load_recipe("demo", ["classifier.crop=192"]), "classifier", 8, 5)
    assert training.operations / looking.operations == pytest.approx(3 * 192 / 256)


@pytest.mark.parametrize(("change", "factor"), [("cam.hflip=true", 2), ("cam.scales=[1.0,2.0]", 5), ("cam.long_side=512", 4)])
def test_passes_add_up(change, factor):
    base = ["cam.long_side=256", "cam.hflip=false", "cam.scales=[1.0]"]
    one, more = (inference_cost(load_recipe("demo", overrides), "cam", 1, 5, IMAGES) for overrides in (base, [*base, change]))
    assert more.operations == pytest.approx(factor * one.operations)


def test_maps_take_their_values_and_masks_their_pixels():
    maps = inference_cost(DEMO, "cam", 10, 5, IMAGES).bytes
    assert maps == pytest.approx(10 * 2 * (96 / 4) * (128 / 4) * 2, rel=0.2)
    assert inference_cost(DEMO, "masks", 10, 5, IMAGES).bytes == pytest.approx(10 * 96 * 128 * 0.04)


def test_labels_and_iterations_make_a_crf_slower():
    one, two = (inference_cost(DEMO, "crf", 1, 5, ImageStats(375, 500, labels)).cpu_seconds for labels in (1, 3))
    assert 1.2 < two / one < 1.5
    other = load_recipe("demo", ["crf.kernels.implementation=pydensecrf"])
    assert 2 < inference_cost(other, "crf", 1, 5, ImageStats(375, 500, 1)).cpu_seconds / one < 3
    half = inference_cost(load_recipe("demo", ["crf.kernels.iterations=5"]), "crf", 1, 5, ImageStats(375, 500, 1)).cpu_seconds
    assert 0.5 < half / one < 0.6


def test_seconds_fall_with_what_there_is():
    cost = Cost(images=100, operations=CPU_CORE, cpu_seconds=1.0, bytes=0)
    assert cost.seconds(cpus=1, gpus=0) == pytest.approx(200)
    assert cost.seconds(cpus=4, gpus=0) == pytest.approx(50)
    # several processes share a GPU, so that its network and their other work go on at the same time: the longer of the two counts
    assert cost.seconds(cpus=4, gpus=2) == pytest.approx(100 / 4)
    assert cost.seconds(cpus=64, gpus=2) == pytest.approx(100 / 8)
    assert Cost(100, GPU["float32"], 0.1, 0).seconds(cpus=64, gpus=2) == pytest.approx(50)
    assert Cost(100, 0.0, 1.0, 0).seconds(cpus=4, gpus=2) == pytest.approx(25)  # no network: GPUs are no help


def test_typical_images_are_looked_at(tmp_path):
    index = tiny_scenes(tmp_path, 4, 2)
    sizes = [Image.open(f"{index.root.path}/{row.image}").size for row in index.rows]
    found = image_stats(index)
    assert (found.width, found.height) == tuple(round(side) for side in np.mean(sizes, axis=0))
    assert found.labels == np.mean([len(row.labels) for row in index.rows])


def test_images_that_cannot_be_read_from_here_are_taken_for_vocs(tmp_path):
    index = tiny_scenes(tmp_path, 4, 2)
    for row in index.rows:
        (tmp_path / row.image).unlink()
    assert (image_stats(index).height, image_stats(index).width) == (375, 500)


def test_advcam_costs_steps_of_each_label():
    maps, few, many = (
        inference_cost(
            load_recipe("demo", ["cam.scales=[1.0]", f"cam.advcam.steps={steps}"]), "cam", 1, 5, ImageStats(96, 128, 2)
        ).operations
        for steps in (0, 4, 8)
    )
    assert few / maps == pytest.approx(4 * 2 * 2.3)
    assert many == pytest.approx(2 * few)
