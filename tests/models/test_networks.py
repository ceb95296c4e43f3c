"""What every network must do, run for each of them: forward, backward, and a checkpoint's round trip."""

import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vwl.config.recipe import Backbone, Segmenter
from vwl.models.backbones import build_backbone
from vwl.models.deeplab import DeepLabV2
from vwl.models.irnet import BoundaryNet

SIZES = [(64, 80), (33, 34)]


def _deeplab(name: str) -> nn.Module:
    return DeepLabV2(Segmenter(backbone=Backbone(name=name, weights="none"), atrous_rates=(6, 12)), num_classes=5)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "backbone-resnet18": lambda: build_backbone(Backbone(name="resnet18", weights="none"), frozen_stages=1),
    "backbone-resnet18-stride8": lambda: build_backbone(Backbone(name="resnet18", weights="none"), output_stride=8),
    "backbone-lite0-tail": lambda: build_backbone(Backbone(name="lite0", weights="none"), tail=True),
    "backbone-timm": lambda: build_backbone(Backbone(name="timm:convnext_atto", weights="none")),
    "boundary-resnet18": lambda: BoundaryNet(Backbone(name="resnet18", weights="none")),
    "boundary-lite0": lambda: BoundaryNet(Backbone(name="lite0", weights="none")),
    "deeplab-resnet18": lambda: _deeplab("resnet18"),
    "deeplab-lite0": lambda: _deeplab("lite0"),
}


def outputs(network: nn.Module, images: Tensor) -> list[Tensor]:
    result = network(images)
    return [result] if isinstance(result, Tensor) else result


@pytest.fixture(params=NETWORKS)
def build(request: pytest.FixtureRequest) -> Callable[[], nn.Module]:
    return NETWORKS[request.param]


class TestEveryNetwork:
    @pytest.mark.parametrize("size", SIZES)
    def test_any_image_size_gives_finite_outputs(self, build: Callable[[], nn.Module], size: tuple[int, int]) -> None:
        with torch.no_grad():
            for output in outputs(build(), torch.randn(2, 3, *size)):
                assert output.shape[0] == 2
                assert output.isfinite().all()

    def test_every_trainable_parameter_and_no_other_gets_a_gradient(self, build: Callable[[], nn.Module]) -> None:
        network = build()
        sum(output.square().mean() for output in outputs(network, torch.randn(2, 3, 49, 33)) if output.requires_grad).backward()
        for name, parameter in network.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name

    def test_a_saved_network_answers_as_before_in_a_new_one(self, build: Callable[[], nn.Module]) -> None:
        network, other, images = build(), build(), torch.randn(1, 3, 49, 33)
        file = io.BytesIO()
        torch.save(network.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        with torch.no_grad():
            for before, after in zip(outputs(network, images), outputs(other, images), strict=True):
                assert torch.equal(before, after)

    def test_batch_norm_never_uses_the_batch(self, build: Callable[[], nn.Module]) -> None:
        network, images = build(), torch.randn(3, 3, 33, 33)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        network.train()
        with torch.no_grad():
            batch = outputs(network, images)
            first = outputs(network, images[:1])
            for some, one in zip(batch, first, strict=True):
                torch.testing.assert_close(some[:1], one, rtol=1e-3, atol=1e-4)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    def test_channels_last_gives_the_values_of_the_usual_layout_in_float64(self, build: Callable[[], nn.Module]) -> None:
        network, images = build().double(), torch.randn(1, 3, 49, 33, dtype=torch.float64)
        with torch.no_grad():
            usual = outputs(network, images)
            last = outputs(network.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last))
        for a, b in zip(usual, last, strict=True):
            assert a.dtype == torch.float64
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
