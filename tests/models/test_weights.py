import pytest
import torch
from torch import nn

from vwl.errors import VwlError
from vwl.models.weights import load_weights


def network(width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1))


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.resnet.", "backbone.net.", "module.backbone.net."])
def test_prefixes_of_wrappers_are_taken_off(prefix: str) -> None:
    source, target = network(), network()
    report = load_weights(target, {prefix + key: value for key, value in source.state_dict().items()}, "x", strict=True)
    assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True))
    assert report.matched == tuple(source.state_dict())
    assert report.missing == report.unexpected == report.mismatched == ()


def test_a_networks_own_names_are_kept_where_they_look_like_prefixes() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = network()
            self.net = network()

    source, target = Whole(), Whole()
    load_weights(target, source.state_dict(), "x", strict=True)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_the_report_names_what_is_missing_unexpected_and_of_another_shape() -> None:
    state = network().state_dict()
    state["2.weight"] = torch.zeros(2, 5, 1, 1)
    state["fc.weight"] = torch.zeros(1)
    del state["1.bias"], state["1.num_batches_tracked"]
    target = network()
    kept = target[2].weight.clone()
    report = load_weights(target, state, "x")
    assert report.missing == ("1.bias",)
    assert report.unexpected == ("fc.weight",)
    assert report.mismatched == ("2.weight",)
    assert report.matched == ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var", "2.bias")
    assert torch.equal(target[2].weight, kept)


def test_weights_of_another_network_are_refused_with_a_name_of_each() -> None:
    with pytest.raises(VwlError, match=r"w\.pth is of another network: none of its 1 tensors matches; it has e\.g\. conv9, .* 0\.weight"):
        load_weights(network(), {"conv9": torch.zeros(3)}, "w.pth")


def test_a_counter_alone_is_no_match() -> None:
    with pytest.raises(VwlError, match="another network"):
        load_weights(network(), {"1.num_batches_tracked": torch.tensor(3)}, "w.pth")


def test_strict_refuses_a_network_that_would_be_filled_in_part() -> None:
    state = network().state_dict()
    del state["1.bias"]
    target = network()
    before = [p.clone() for p in target.parameters()]
    with pytest.raises(VwlError, match=r"1 of 9 tensors do not match, e\.g\. 1\.bias of shape \(4,\), where the file has nothing"):
        load_weights(target, state, "w.pth", strict=True)
    assert all(torch.equal(a, b) for a, b in zip(before, target.parameters(), strict=True))
    with pytest.raises(VwlError, match=r"0\.weight of shape \(4, 3, 3, 3\), where the file has \(5, 3, 3, 3\)"):
        load_weights(target, network(5).state_dict(), "w.pth", strict=True)
