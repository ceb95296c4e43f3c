import numpy as np
import pytest
import torch
from torch import nn

from vwl.config.recipe import Backbone, Segmenter
from vwl.models.deeplab import DeepLabV2


def deeplab(name: str = "resnet18", num_classes: int = 5, **settings: object) -> DeepLabV2:
    return DeepLabV2(Segmenter(backbone=Backbone(name=name, weights="none"), **settings), num_classes)


def test_on_resnet101_it_has_the_parameters_of_the_published_network_and_groups_hold_its_convolutions() -> None:
    net = deeplab("resnet101", 21)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == 44.05
    groups = net.backbone_parameters(), net.aspp_weights(), net.aspp_biases()
    assert [len(group) for group in groups] == [104, 4, 4]
    assert sum(p.numel() for group in groups for p in group) == sum(p.numel() for p in net.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("name", "caffe", "output_stride", "side", "sizes"),
    [
        ("resnet50", True, 8, 321, [41, 21, 31, 41]),  # as published: Caffe's max-pool rounds up
        ("resnet50", False, 8, 321, [41, 20, 30, 41]),
        ("resnet18", False, 16, 321, [21, 10, 15, 21]),
        ("resnet18", False, 8, 65, [9, 4, 6, 9]),
    ],
)
def test_logits_have_the_published_sizes_with_caffes_structure(
    name: str, caffe: bool, output_stride: int, side: int, sizes: list[int]
) -> None:
    net = deeplab(name, output_stride=output_stride)
    if caffe:
        net.backbone.use_caffe()
    with torch.no_grad():
        assert [tuple(x.shape) for x in net(torch.randn(1, 3, side, side))] == [(1, 5, s, s) for s in sizes]


def test_scaled_copies_are_those_of_the_published_code() -> None:
    """Its wrapper calls interpolate with a scale factor, which rounds sizes down and samples at the exact factor."""
    net, images = deeplab(input_scales=(0.5, 0.75)), torch.randn(1, 3, 53, 41)
    with torch.no_grad():
        _, half, three_quarters, _ = net(images)
        for scale, logits in ((0.5, half), (0.75, three_quarters)):
            copy = nn.functional.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
            assert copy.shape[-2:] == (int(53 * scale), int(41 * scale))
            features = net.backbone(copy)[-1]
            torch.testing.assert_close(logits, sum(branch(features) for branch in net.aspp))


def test_without_further_scales_there_is_one_output_and_it_predicts() -> None:
    net, images = deeplab(input_scales=()), torch.randn(1, 3, 49, 33)
    with torch.no_grad():
        (logits,) = net(images)
        assert torch.equal(net.fused(images), logits)


def test_the_fused_logits_are_the_maximum_over_the_scales() -> None:
    net, images = deeplab(), torch.randn(2, 3, 65, 49)
    for weight in net.aspp_weights():
        nn.init.normal_(weight, std=1.0)
    with torch.no_grad():
        *scaled, fused = net(images)
        wide = [nn.functional.interpolate(x, fused.shape[-2:], mode="bilinear").numpy() for x in scaled]
        np.testing.assert_array_equal(fused.numpy(), np.maximum.reduce(wide))
        assert torch.equal(net.fused(images), fused)
        assert all((np.maximum.reduce(wide) == one).any() for one in wide)


def test_the_aspp_is_the_sum_of_dilated_convolutions() -> None:
    net = deeplab(atrous_rates=(2, 3), input_scales=()).double()
    for bias in net.aspp_biases():
        nn.init.normal_(bias)
    images = torch.randn(1, 3, 33, 41, dtype=torch.float64)
    with torch.no_grad():
        features = net.backbone(images)[-1][0].numpy()
        (logits,) = net(images)
    _, height, width = features.shape
    expected = np.zeros((5, height, width))
    for rate, weight, bias in zip((2, 3), net.aspp_weights(), net.aspp_biases(), strict=True):
        padded = np.pad(features, ((0, 0), (rate, rate), (rate, rate)))
        for i in range(3):
            for j in range(3):
                window = padded[:, i * rate : i * rate + height, j * rate : j * rate + width]
                expected += np.einsum("oc,chw->ohw", weight.detach().numpy()[:, :, i, j], window)
        expected += bias.detach().numpy()[:, None, None]
    np.testing.assert_allclose(logits[0].numpy(), expected, rtol=1e-9, atol=1e-12)


def test_the_aspp_starts_small_and_without_bias() -> None:
    net = deeplab(num_classes=21)
    for weight in net.aspp_weights():
        assert abs(float(weight.detach().std()) - 0.01) < 2e-4
    assert all(not bias.any() for bias in net.aspp_biases())


def test_batch_norms_affine_parameters_do_not_train() -> None:
    for name in ("resnet18", "lite0"):
        net = deeplab(name)
        trained = {id(p) for p in net.backbone_parameters()}
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms
        assert all(id(p) not in trained and not p.requires_grad for m in norms for p in m.parameters())
