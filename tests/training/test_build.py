"""A training starts from a whole network's weights where the recipe says so, and says what fitted."""

import pytest
import torch

from tests.trainings import make_data, tiny_spec, train_to_end, weights
from vwl.errors import VwlError
from vwl.training.build import TrainSpec, build_task


@pytest.fixture(scope="module")
def index_path(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("build"), num_val=0)


def starting_from(spec: TrainSpec, path: object) -> TrainSpec:
    section = getattr(spec.recipe, spec.stage).model_copy(update={"start_from": str(path)})
    return TrainSpec(**{**vars(spec), "recipe": spec.recipe.model_copy(update={spec.stage: section})})


@pytest.mark.parametrize("kind", ["classifier-L", "irnet", "segmenter"])
def test_a_network_starts_from_the_weights_of_another_run(kind, index_path, tmp_path):
    _, result = train_to_end(tiny_spec(kind, index_path, tmp_path / "first", 2))
    assert result.pretrained == []
    spec = starting_from(tiny_spec(kind, index_path, tmp_path / "second", 2), tmp_path / "first" / "weights.pt")
    started = build_task(spec).model.state_dict()
    trained = weights(tmp_path / "first")
    assert all(torch.equal(value, trained[name].to(value.dtype)) for name, value in started.items())
    _, result = train_to_end(spec)
    assert result.pretrained == [f"weights {tmp_path}/first/weights.pt: {len(trained)} tensors matched"]


def test_what_does_not_fit_is_named(index_path, tmp_path):
    train_to_end(tiny_spec("classifier-M", index_path, tmp_path / "M", 2))
    _, result = train_to_end(starting_from(tiny_spec("classifier-L", index_path, tmp_path / "L", 2), tmp_path / "M" / "weights.pt"))
    (line,) = result.pretrained
    assert line.endswith("1 missing in it (e.g. word_to_image_head.weight)")


def test_weights_of_another_network_are_refused(index_path, tmp_path):
    torch.save({"somewhere.else": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(VwlError, match=r"other\.pt is of another network: none of its 1 tensors matches"):
        build_task(starting_from(tiny_spec("irnet", index_path, tmp_path / "run"), tmp_path / "other.pt"))


@pytest.mark.parametrize("kind", ["classifier-L", "irnet", "segmenter"])
def test_a_training_is_built_without_an_object_for_each_image(kind, index_path, tmp_path, monkeypatch):
    monkeypatch.setattr("vwl.data.rows._rows_of", None)
    task = build_task(tiny_spec(kind, index_path, tmp_path / "run"))
    assert task.num_samples == len(task.image_ids) > 0
