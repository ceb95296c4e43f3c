"""ReCAM's pooled class features, its loss and its weights, against direct transcriptions in float64."""

import pytest
import torch
from torch.nn import functional

from tests.models.test_classifier import CLASSES, images, network
from vwl.maps.cam import class_activation
from vwl.models.recam import ReactivatedClassifier, class_features, softmax_loss

TARGETS = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0]], dtype=torch.float64)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def features_written_out(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The feature of each class (B, C, d), cell by cell."""
    batch, dim, height, width = features.shape
    found = torch.zeros(batch, len(weight), dim, dtype=torch.float64)
    for image in range(batch):
        for number, own in enumerate(weight):
            scores = torch.stack([(own * features[image, :, y, x]).sum().clamp(min=0) for y in range(height) for x in range(width)])
            cells = features[image].flatten(1)
            found[image, number] = (cells * scores / (scores.max() + 1e-5)).sum(dim=1) / (height * width)
    return found


def loss_written_out(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss of each image, class by class."""
    losses = []
    for image, own in zip(logits, targets, strict=True):
        positive = own.nonzero()[:, 0]
        losses.append(functional.cross_entropy(image[positive], positive) if len(positive) else torch.tensor(0.0, dtype=torch.float64))
    return torch.stack(losses)


def reactivated(strategy: str = "learning", **settings) -> ReactivatedClassifier:
    plain = network(strategy, **settings)
    torch.manual_seed(0)
    net = ReactivatedClassifier(plain.settings, CLASSES)
    net.load_state_dict(plain.state_dict(), strict=False)
    return net


@pytest.mark.parametrize("size", [(5, 7), (1, 1)])
def test_class_features_are_those_written_out(size):
    features, weight = random(3, 6, *size).clamp(min=0), random(4, 6)
    torch.testing.assert_close(class_features(features, weight), features_written_out(features, weight), rtol=1e-12, atol=1e-12)


def test_a_class_that_no_cell_activates_has_a_feature_of_zeros():
    features, weight = random(1, 6, 3, 3).abs(), torch.stack([torch.ones(6), -torch.ones(6)]).double()
    found = class_features(features, weight)[0]
    assert (found[0] > 0).all()
    assert (found[1] == 0).all()


def test_the_loss_is_the_mean_cross_entropy_of_an_images_classes():
    logits = random(3, 3, 3)
    torch.testing.assert_close(softmax_loss(logits, TARGETS), loss_written_out(logits, TARGETS), rtol=1e-12, atol=1e-12)


def test_an_image_without_positive_classes_has_no_loss_and_no_gradient():
    logits = random(3, 3, 3).requires_grad_()
    losses = softmax_loss(logits, TARGETS)
    losses.sum().backward()
    assert losses[1] == 0
    assert (logits.grad[1] == 0).all()
    assert (logits.grad[0] != 0).any()


@pytest.mark.parametrize(("strategy", "pooling"), [("none", "gap"), ("memory", "hybrid"), ("learning", "hybrid")])
def test_the_classifier_within_is_the_classifier(strategy, pooling):
    plain, net = network(strategy, pooling=pooling), reactivated(strategy, pooling=pooling)
    expected, found = plain(images()), net(images())
    assert torch.equal(found.classifier.image_logits, expected.image_logits)
    assert torch.equal(found.classifier.features, expected.features)
    if strategy != "none":
        assert torch.equal(found.classifier.word_logits, expected.word_logits)
    pooled = class_features(expected.features, plain.image_head.weight)
    torch.testing.assert_close(found.class_logits, pooled @ net.recam_head.weight.T, rtol=1e-5, atol=1e-6)


def test_maps_are_those_of_the_product_of_both_heads_weights():
    net = reactivated()
    with torch.no_grad():
        weight = net.image_head.weight * net.recam_head.weight
        assert torch.equal(net.activation_maps(images()), class_activation(net.features(images()), weight))
        assert not torch.equal(net.activation_maps(images()), network().activation_maps(images()))


def test_the_loss_trains_both_heads_and_the_backbone():
    net = reactivated("none", frozen_stages=0)
    softmax_loss(net(images()).class_logits, torch.tensor([[1.0, 0, 1], [0, 1, 0]])).sum().backward()
    trained = {name.partition(".")[0] for name, parameter in net.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert trained == {"backbone", "image_head", "recam_head"}
