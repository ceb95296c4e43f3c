import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from vwl.errors import VwlError
from vwl.models.weights import load_weights, read_weights


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
    load_weights(target, source.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_the_report_names_what_is_missing_unexpected_and_of_another_shape() -> None:
    state = network().state_dict()
    state["2.weight"] = torch.zeros(2, 5, 1, 1)
    state["fc.weight"] = torch.zeros(1)
    del state["1.bias"], state["1.num_batches_tracked"]
    target = network()
    kept = target[2].weight.clone()
    report = load_weights(target, state)
    assert report.missing == ("1.bias",)
    assert report.unexpected == ("fc.weight",)
    assert report.mismatched == ("2.weight",)
    assert report.matched == ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var", "2.bias")
    assert torch.equal(target[2].weight, kept)


def test_weights_of_another_network_are_refused_with_a_name_of_each() -> None:
    with pytest.raises(VwlError, match=r"w\.pth is of another network: none of its 1 tensors fits; it has e\.g\. conv9, .* 0\.weight"):
        load_weights(network(), {"conv9": torch.zeros(3)}, "w.pth")


def test_a_counter_alone_is_no_match() -> None:
    with pytest.raises(VwlError, match="another network"):
        load_weights(network(), {"1.num_batches_tracked": torch.tensor(3)}, "w.pth")


def test_strict_refuses_a_network_that_would_be_filled_in_part() -> None:
    state = network().state_dict()
    del state["1.bias"]
    target = network()
    before = [p.clone() for p in target.parameters()]
    with pytest.raises(VwlError, match=r"1 of 9 tensors do not fit, e\.g\. 1\.bias of shape \(4,\), where the file has nothing"):
        load_weights(target, state, "w.pth", strict=True)
    assert all(torch.equal(a, b) for a, b in zip(before, target.parameters(), strict=True))
    with pytest.raises(VwlError, match=r"0\.weight of shape \(4, 3, 3, 3\), where the file has \(5, 3, 3, 3\)"):
        load_weights(target, network(5).state_dict(), "w.pth", strict=True)


@pytest.mark.parametrize("nest", [(), ("state_dict",), ("model",), ("model", "state_dict")])
def test_torch_files_may_nest_the_tensors(nest: tuple[str, ...], tmp_path: Path) -> None:
    state = network().state_dict()
    held: dict = dict(state)
    for key in reversed(nest):
        held = {key: held, "epoch": 3}
    torch.save(held, tmp_path / "w.pth")
    read = read_weights(tmp_path / "w.pth")
    assert list(read) == list(state)
    assert all(torch.equal(read[key], state[key]) for key in state)


def test_safetensors_files_are_read(tmp_path: Path) -> None:
    state = network().state_dict()
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    report = load_weights(network(), tmp_path / "w.safetensors", strict=True)
    assert set(report.matched) == set(state)


class Pickled:
    pass


def test_files_that_are_no_tensors_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"model": Pickled()}, tmp_path / "object.pth")
    (tmp_path / "text.pth").write_text("<html>not found</html>")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": 1}))
    torch.save(network().state_dict(), tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-100])
    (tmp_path / "text.safetensors").write_text("no tensors")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "number.pth")
    for path in [*tmp_path.iterdir(), tmp_path / "absent.pth"]:
        with pytest.raises(VwlError, match=path.name) as caught:
            read_weights(path)
        assert "\n" not in str(caught.value)
