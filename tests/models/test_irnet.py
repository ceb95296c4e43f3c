import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vwl.config.recipe import Backbone
from vwl.models.irnet import BoundaryNet

_NETS: dict[str, BoundaryNet] = {}


def boundary_net(name: str) -> BoundaryNet:
    if name not in _NETS:
        torch.manual_seed(0)
        _NETS[name] = BoundaryNet(Backbone(name=name, weights="none"))
    return _NETS[name]


def test_the_head_on_resnet50_has_the_parameters_of_the_published_one() -> None:
    assert sum(p.numel() for p in boundary_net("resnet50").new_parameters()) == 125_409


@pytest.mark.parametrize("name", ["resnet18", "lite0"])
def test_only_the_head_trains(name: str) -> None:
    net = boundary_net(name)
    assert {id(p) for p in net.parameters() if p.requires_grad} == {id(p) for p in net.new_parameters()}


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(["resnet18", "lite0", "timm:convnext_atto"]))
def test_any_size_gives_a_map_at_stride_4(height: int, width: int, name: str) -> None:
    height, width = (max(side, 32) for side in (height, width)) if name.startswith("timm") else (height, width)
    with torch.no_grad():
        assert boundary_net(name)(torch.randn(1, 3, height, width)).shape == (1, 1, -(-height // 4), -(-width // 4))


def test_the_logits_are_those_of_the_published_head() -> None:
    net = boundary_net("resnet18").double()
    images = torch.randn(2, 3, 65, 49, dtype=torch.float64)
    with torch.no_grad():
        sides = []
        for features, side, scale in zip(net.backbone(images), net.sides, (1, 1, 2, 4, 4), strict=True):
            x = torch.einsum("oi,bihw->bohw", side[0].weight[:, :, 0, 0], features)
            groups = x.reshape(2, 4, -1)
            mean, variance = groups.mean(2, keepdim=True), groups.var(2, unbiased=False, keepdim=True)
            x = ((groups - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)
            x = x * side[1].weight[:, None, None] + side[1].bias[:, None, None]
            x = F.interpolate(x, scale_factor=scale, mode="bilinear") if scale > 1 else x
            sides.append(x[..., :17, :13].clamp(min=0))
        expected = torch.einsum("i,bihw->bhw", net.join.weight[0, :, 0, 0], torch.cat(sides, 1)) + net.join.bias
        torch.testing.assert_close(net(images)[:, 0], expected)
    net.float()


def test_the_seed_decides_the_head() -> None:
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        heads.append(BoundaryNet(Backbone(name="resnet18", weights="none")).join.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
