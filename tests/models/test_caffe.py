from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vwl.config.recipe import Backbone
from vwl.models.backbones import IMAGENET_MEAN, IMAGENET_STD, build_backbone
from vwl.models.caffe import CAFFE_MEAN, caffe_to_torchvision, is_caffe_layout

LAYERS = {2: (3, 64, 1, 1), 3: (4, 128, 2, 1), 4: (6, 256, 1, 2), 5: (3, 512, 1, 4)}
"""Of ResNet-50 at output stride 8: bottlenecks, width, stride, dilation."""
MEAN_AS_CAFFE = tuple(value / 255 for value in CAFFE_MEAN)


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


def caffe_forward(state: dict[str, Tensor], rgb: Tensor) -> list[Tensor]:
    x = 255 * rgb.flip(1) - torch.tensor(CAFFE_MEAN[::-1], dtype=rgb.dtype)[:, None, None]
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
    backbone = build_backbone(Backbone(name="resnet50", weights=str(tmp_path / "init.pth")), output_stride=8).double()
    # with Caffe's mean nothing remains that the border could show
    state = caffe_to_torchvision({k: v.double() for k, v in caffe_state.items()}, MEAN_AS_CAFFE, IMAGENET_STD)
    backbone.net.load_state_dict(state, strict=False)
    rgb = torch.rand(1, 3, 60, 45, dtype=torch.float64)  # 30 after the first layer: here rounding up matters
    ours = (rgb - torch.tensor(MEAN_AS_CAFFE)[:, None, None]) / torch.tensor(IMAGENET_STD, dtype=torch.float64)[:, None, None]
    with torch.no_grad():
        for level, expected in zip(backbone(ours), caffe_forward(caffe_state, rgb), strict=True):
            assert expected.std() > 1e-2
            torch.testing.assert_close(level, expected, rtol=1e-5, atol=1e-5)


def test_imagenets_mean_is_folded_exactly_away_from_the_border(caffe_state: dict[str, Tensor]) -> None:
    double = {k: v.double() for k, v in caffe_state.items()}
    state = caffe_to_torchvision(double, IMAGENET_MEAN, IMAGENET_STD)
    rgb = torch.rand(1, 3, 60, 45, dtype=torch.float64)
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    x = F.conv2d((rgb - mean) / std, state["conv1.weight"], None, 2, 3)
    norm = [state[f"bn1.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")]
    ours = (x - norm[0]) / (norm[1] + 1e-5).sqrt() * norm[2] + norm[3]
    bgr = 255 * rgb.flip(1) - torch.tensor(CAFFE_MEAN[::-1], dtype=torch.float64)[:, None, None]
    theirs = unit(caffe_state, "scale.layer1.conv1", bgr, stride=2, padding=3)
    torch.testing.assert_close(ours[..., 2:-2, 2:-2], theirs[..., 2:-2, 2:-2], rtol=1e-9, atol=1e-9)
    assert 0 < float((ours - theirs).abs().max()) < 0.1 * float(theirs.std())


@pytest.mark.parametrize("wrap", ["", "scale.", "base.", "module.scale."])
def test_the_layout_is_known_under_any_prefix(caffe_state: dict[str, Tensor], wrap: str) -> None:
    state = {wrap + key.removeprefix("scale."): value for key, value in caffe_state.items()}
    assert is_caffe_layout(state)
    assert "layer4.2.bn3.running_var" in caffe_to_torchvision(state, IMAGENET_MEAN, IMAGENET_STD)


def test_torchvisions_names_are_no_caffe_layout() -> None:
    assert not is_caffe_layout(build_backbone(Backbone(name="resnet50", weights="none")).net.state_dict())


def test_the_place_of_the_stride_travels_with_the_weights(caffe_state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(caffe_state, tmp_path / "init.pth")
    first = build_backbone(Backbone(name="resnet50", weights=str(tmp_path / "init.pth")))
    images = torch.randn(1, 3, 60, 45)
    second = build_backbone(Backbone(name="resnet50", weights="none"))
    second.load_state_dict(first.state_dict())
    torch.save({"model": {f"backbone.{k}": v for k, v in first.state_dict().items()}}, tmp_path / "ours.pth")
    third = build_backbone(Backbone(name="resnet50", weights=str(tmp_path / "ours.pth")))
    with torch.no_grad():
        expected = first(images)
        for other in (second, third):
            assert all(torch.equal(a, b) for a, b in zip(expected, other(images), strict=True))
        second.use_stride_on_1x1(False)
        assert not torch.allclose(second(images)[2], expected[2])
