"""AdvCAM: the steps are those of the published description, and what a class that is nowhere active gets."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from vwl.config.advcam import AdvCam
from vwl.maps.advcam import climb, climbed_map, gradcam_factor, steps_at
from vwl.maps.cam import class_activation
from vwl.models.hybrid_pooling import global_average, hybrid_pooling

NUM_CLASSES = 4


def summed(maps):
    return maps[0] + maps[1].flip(-1)


def pool_of(kind):
    return global_average if kind == "gap" else lambda maps: hybrid_pooling(maps, 2.0)


@pytest.fixture(scope="module")
def network():
    """A small network in double precision: features (B, 8, h, w), and the weights of a linear head."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.Tanh(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU()).double()
    return layers.requires_grad_(False), torch.randn(NUM_CLASSES, 8, dtype=torch.double)


@pytest.fixture(scope="module")
def images():
    one = torch.randn(1, 3, 24, 32, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    return torch.cat([one, one.flip(-1)])


def transcribed(network, images, label, settings, pool):
    """The steps as described, with Grad-CAM's weights from a backward pass of their own; maps are summed with their horizontal flips."""
    layers, weight = network
    pixels, start, total = images, None, 0
    for _ in range(settings.steps):
        pixels = pixels.detach().requires_grad_()
        features = layers(pixels)
        scores = functional.conv2d(features, weight[:, :, None, None])
        (slope,) = torch.autograd.grad(functional.relu(scores).sum(dim=(2, 3))[:, label].sum(), features, retain_graph=True)
        channels = slope.flatten(2).sum(dim=2) / ((slope > 0).sum() + 1e-12)
        maps = functional.relu((features * channels[:, :, None, None]).sum(dim=1))
        region = maps[0] + maps[1].flip(-1)
        start = region.detach() if start is None else start
        total = total + region.detach()
        logits = pool(functional.relu(scores))
        others = logits.sum() - logits[:, label].sum()
        mask = torch.zeros_like(region)
        mask[region / region.max() > settings.region_threshold] = 1
        penalty = ((region - start).abs() * mask).sum()
        (logits[:, label].sum() - others - settings.regularisation * penalty).backward()
        changed = pixels.detach() + settings.step_size * pixels.grad / (pixels.grad.abs().max() + 1e-12)
        pixels = torch.clamp(changed, pixels.min().item(), pixels.max().item())
    return total


@pytest.mark.parametrize("pooling", ["gap", "hybrid"])
@pytest.mark.parametrize("label", range(NUM_CLASSES))
def test_five_steps_are_those_of_the_transcription(network, images, pooling, label):
    settings = AdvCam(steps=5, step_size=0.3, regularisation=700)  # the few positions of a small map would else hardly count
    found = mine(network, images, label, settings, pool_of(pooling))
    expected = transcribed(network, images, label, settings, pool_of(pooling))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)


def mine(network, images, label, settings, pool=global_average, fuse=summed):
    layers, weight = network
    positive = int((weight[label] > 0).sum())
    return climbed_map(lambda x: class_activation(layers(x), weight), pool, fuse, images, label, positive, settings, settings.steps)


@pytest.mark.parametrize(
    "changes", [{"steps": 4}, {"step_size": 0.1}, {"regularisation": 0}, {"region_threshold": 0.0}], ids=lambda changes: next(iter(changes))
)
def test_every_setting_counts(network, images, changes):
    settings = AdvCam(steps=5, step_size=0.3, regularisation=700)
    changed = mine(network, images, 1, settings.model_copy(update=changes))
    assert not torch.allclose(changed, mine(network, images, 1, settings), rtol=1e-6)


def test_one_step_is_the_map_of_the_image_itself(network, images):
    layers, weight = network
    maps = class_activation(layers(images), weight)[:, 2]
    expected = summed(maps * gradcam_factor(maps, int((weight[2] > 0).sum())))
    torch.testing.assert_close(mine(network, images, 2, AdvCam(steps=1)), expected)


def test_the_steps_raise_the_class_against_the_others(network, images):
    layers, weight = network
    seen = []

    def activate(x):
        seen.append(x.detach())
        return class_activation(layers(x), weight)

    settings = AdvCam(steps=6, regularisation=0)
    climbed_map(activate, global_average, summed, images, 1, int((weight[1] > 0).sum()), settings, 6)

    def margin(x):
        logits = global_average(class_activation(layers(x), weight)).sum(dim=0)
        return float(2 * logits[1] - logits.sum())

    margins = [margin(x) for x in seen]
    assert margins == sorted(margins)
    assert margins[-1] > margins[0]


def test_a_class_that_is_active_nowhere_gets_an_empty_map(network, images):
    layers, weight = network
    nowhere = torch.cat([weight[:1], -weight[1:2].abs(), weight[2:]])  # features are positive
    assert not mine((layers, nowhere), images, 1, AdvCam(steps=4)).any()


def test_the_images_stay_in_their_range_and_where_nothing_changes_the_class(images):
    low, high = images.min(), images.max()
    climbed = climb(images, torch.randn(images.shape, dtype=torch.double), 5.0)
    assert low <= climbed.min()
    assert climbed.max() <= high
    torch.testing.assert_close(climb(images, torch.zeros_like(images), 5.0), images)


def test_the_penalty_keeps_the_high_region_as_it_was(network, images):
    first = mine(network, images, 1, AdvCam(steps=1, step_size=0.3))
    free, held = (mine(network, images, 1, AdvCam(steps=5, step_size=0.05, regularisation=weight)) / 5 for weight in (0, 700))
    high = first > 0.5 * first.max()
    assert (held - first)[high].abs().sum() < 0.5 * (free - first)[high].abs().sum()


@pytest.mark.parametrize(
    ("steps", "scale", "expected"),
    [(27, 1.0, 27), (27, 0.75, 27), (27, 0.5, 13), (27, 0.25, 13), (11, 0.5, 5), (10, 0.5, 5), (6, 0.5, 5), (4, 0.5, 4), (0, 0.5, 0)],
)
def test_small_scales_have_fewer_steps_as_published(steps, scale, expected):
    assert steps_at(scale, AdvCam(steps=steps)) == expected
