from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vwl.config.recipe import Backbone, Segmenter
from vwl.errors import VwlError
from vwl.models.backbones import BackboneNet, build_backbone
from vwl.models.caffe import CAFFE_MEAN, CAFFE_STD, caffe_to_torchvision, is_caffe_layout
from vwl.models.deeplab import DeepLabV2
from vwl.models.folding import for_inference
from vwl.training.pretrained import load_backbone, load_pretrained

LAYERS = {2: (3, 64, 1, 1), 3: (4, 128, 2, 1), 4: (6, 256, 1, 2), 5: (3, 512, 1, 4)}
"""Of ResNet-50 at output stride 8: bottlenecks, width, stride, dilation."""


@pytest.fixture(scope="module")
def caffe_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    state: dict[str, Tensor] = {}

    def unit(name: str, out: int, into: int, kernel: int, gain: float = 1.0) -> None:
        scale = (2 / (into * kernel * kernel)) ** 0.5
        state[f"{name}.conv.weight"] = torch.randn(out, into, kernel, kernel, generator=generator) * scale
        state[f"{name}.bn.weight"] = gain * (0.5 + torch.rand(out, generator=generator))
        state[f"{name}.bn.bias"] = 0.1 * torch.randn(out, generator=generator)
        state[f"{name}.bn.running_mean"] = 0.1 * torch.randn(out, generator=generator)
        state[f"{name}.bn.running_var"] = 0.5 + torch.rand(out, generator=generator)

    unit("scale.layer1.conv1", 64, 3, 7, gain=0.02)
    into = 64
    for layer, (blocks, width, _, _) in LAYERS.items():
        for block in range(1, blocks + 1):
            name = f"scale.layer{layer}.block{block}"
            unit(f"{name}.reduce", width, into, 1)
            unit(f"{name}.conv3x3", width, width, 3)
            unit(f"{name}.increase", 4 * width, width, 1, gain=0.3)
            if block == 1:
                unit(f"{name}.shortcut", 4 * width, into, 1)
            into = 4 * width
    state["scale.aspp.stages.c0.weight"] = torch.zeros(91, 2048, 3, 3)
    return state


def unit(state: dict[str, Tensor], name: str, x: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
    norm = [state[f"{name}.bn.{part}"].double()[:, None, None] for part in ("running_mean", "running_var", "weight", "bias")]
    x = F.conv2d(x, state[f"{name}.conv.weight"].double(), None, stride, padding, dilation)
    return (x - norm[0]) / (norm[1] + 1e-5).sqrt() * norm[2] + norm[3]


def resnet50(weights: str, output_stride: int = 16) -> BackboneNet:
    settings = Backbone(name="resnet50", weights=weights)
    backbone = build_backbone(settings, output_stride)
    load_backbone(backbone, settings)
    return backbone


def normalised(rgb: Tensor, backbone: BackboneNet) -> Tensor:
    mean, std = (torch.tensor(values, dtype=rgb.dtype)[:, None, None] for values in (backbone.mean, backbone.std))
    return (rgb - mean) / std


def caffe_forward(state: dict[str, Tensor], rgb: Tensor) -> list[Tensor]:
    x = 255 * rgb.flip(1) - 255 * torch.tensor(CAFFE_MEAN[::-1], dtype=rgb.dtype)[:, None, None]
    x = unit(state, "scale.layer1.conv1", x, stride=2, padding=3).relu()
    levels = [F.max_pool2d(x, 3, 2, 1, ceil_mode=True)]
    for layer, (blocks, _, first_stride, dilation) in LAYERS.items():
        x = levels[-1]
        for block in range(1, blocks + 1):
            name, stride = f"scale.layer{layer}.block{block}", first_stride if block == 1 else 1
            h = unit(state, f"{name}.reduce", x, stride).relu()
            h = unit(state, f"{name}.conv3x3", h, 1, dilation, dilation).relu()
            h = unit(state, f"{name}.increase", h)
            x = (h + (unit(state, f"{name}.shortcut", x, stride) if block == 1 else x)).relu()
        levels.append(x)
    return levels


def test_a_caffe_file_gives_caffes_features_at_every_level(caffe_state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(caffe_state, tmp_path / "init.pth")
    backbone = resnet50(str(tmp_path / "init.pth"), output_stride=8).double()
    rgb = torch.rand(1, 3, 60, 45, dtype=torch.float64)  # 30 after the first layer: rounding up matters here
    with torch.no_grad():
        for level, expected in zip(backbone(normalised(rgb, backbone)), caffe_forward(caffe_state, rgb), strict=True):
            assert expected.std() > 1e-2
            torch.testing.assert_close(level, expected, rtol=1e-9, atol=1e-9)


def test_the_first_convolution_has_the_gradient_of_caffes_units(caffe_state: dict[str, Tensor], tmp_path: Path) -> None:
    """Weights rescaled to normalised inputs would have a gradient some 57 times smaller, for weights 57 times larger."""
    torch.save(caffe_state, tmp_path / "init.pth")
    backbone = resnet50(str(tmp_path / "init.pth"), output_stride=8).double()
    rgb = torch.rand(1, 3, 60, 45, dtype=torch.float64)
    backbone(normalised(rgb, backbone))[-1].sum().backward()
    kernel = caffe_state["scale.layer1.conv1.conv.weight"].double().requires_grad_()
    caffe_forward({**caffe_state, "scale.layer1.conv1.conv.weight": kernel}, rgb)[-1].sum().backward()
    torch.testing.assert_close(backbone.net.conv1.weight.grad, kernel.grad.flip(1), rtol=1e-8, atol=1e-8)


def test_a_training_step_moves_the_first_convolution_as_in_caffes_units(caffe_state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(caffe_state, tmp_path / "init.pth")
    backbone, rgb = resnet50(str(tmp_path / "init.pth"), output_stride=8).double(), torch.rand(1, 3, 60, 45, dtype=torch.float64)
    before = caffe_state["scale.layer1.conv1.conv.weight"].double()
    kernel = before.clone().requires_grad_()
    caffe_forward({**caffe_state, "scale.layer1.conv1.conv.weight": kernel}, rgb)[-1].square().mean().backward()
    backbone(normalised(rgb, backbone))[-1].square().mean().backward()
    torch.optim.SGD([kernel, backbone.net.conv1.weight], lr=1e-6, weight_decay=5e-4).step()
    moved = kernel.detach() - before
    assert moved.abs().max() > 0
    torch.testing.assert_close(backbone.net.conv1.weight.detach().flip(1) - before, moved, rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("wrap", ["", "scale.", "base.", "module.scale."])
def test_the_layout_is_recognised_under_any_prefix(caffe_state: dict[str, Tensor], wrap: str) -> None:
    state = {wrap + key.removeprefix("scale."): value for key, value in caffe_state.items()}
    assert is_caffe_layout(state)
    assert "layer4.2.bn3.running_var" in caffe_to_torchvision(state)


def test_torchvisions_names_are_not_a_caffe_layout() -> None:
    assert not is_caffe_layout(build_backbone(Backbone(name="resnet50", weights="none")).net.state_dict())


def test_structure_and_input_units_are_saved_with_the_weights(caffe_state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(caffe_state, tmp_path / "init.pth")
    first = resnet50(str(tmp_path / "init.pth"))
    images = torch.randn(1, 3, 60, 45)
    second = resnet50("none")
    plain = second.mean
    second.load_state_dict(first.state_dict())
    torch.save({"model": {f"backbone.{k}": v for k, v in first.state_dict().items()}}, tmp_path / "ours.pth")
    third = resnet50(str(tmp_path / "ours.pth"))
    with torch.no_grad():
        expected = first(images)
        for other in (second, third):
            assert all(torch.equal(a, b) for a, b in zip(expected, other(images), strict=True))
            assert (other.mean, other.std) == (first.mean, first.std) == (CAFFE_MEAN, CAFFE_STD)
    assert first.mean != plain


def test_a_trained_segmenter_keeps_caffes_inputs_when_it_is_loaded_folded_or_started_from(
    caffe_state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(caffe_state, tmp_path / "init.pth")
    settings = Segmenter(backbone=Backbone(name="resnet50", weights=str(tmp_path / "init.pth")), atrous_rates=(6,), input_scales=())
    trained, loaded, started = (DeepLabV2(settings, 3) for _ in range(3))
    load_pretrained(trained, settings)
    torch.save({"model": trained.state_dict()}, tmp_path / "weights.pt")
    loaded.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True)["model"])
    plain = {"backbone": Backbone(name="resnet50", weights="none"), "start_from": str(tmp_path / "weights.pt")}
    load_pretrained(started, settings.model_copy(update=plain))
    images = torch.rand(1, 3, 33, 33)
    with torch.no_grad():
        expected = trained.fused(normalised(images, trained.backbone))
        for network in (loaded, started, for_inference(loaded)):
            assert (network.backbone.mean, network.backbone.std) == (CAFFE_MEAN, CAFFE_STD)
            torch.testing.assert_close(network.fused(normalised(images, network.backbone)), expected, rtol=1e-3, atol=1e-3)


def test_a_caffe_file_for_a_network_of_another_kind_is_refused_in_one_line(caffe_state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(caffe_state, tmp_path / "init.pth")
    for name in ("lite0", "resnet18"):
        settings = Backbone(name=name, weights=str(tmp_path / "init.pth"))
        with pytest.raises(VwlError, match="another network") as caught:
            load_backbone(build_backbone(settings), settings)
        assert "\n" not in str(caught.value)


def test_caffe_weights_of_an_earlier_version_whose_inputs_had_other_units_are_refused(tmp_path: Path) -> None:
    backbone = build_backbone(Backbone(name="resnet50", weights="none"))
    earlier = {**backbone.state_dict(), "_extra_state": torch.tensor(True)}
    with pytest.raises(VwlError, match="earlier version"):
        backbone.load_state_dict(earlier)
    torch.save(earlier, tmp_path / "weights.pt")
    with pytest.raises(VwlError, match="earlier version"):
        resnet50(str(tmp_path / "weights.pt"))
    backbone.load_state_dict({**earlier, "_extra_state": torch.tensor(False)})
    assert not backbone.caffe
