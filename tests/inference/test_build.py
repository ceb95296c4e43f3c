"""From a stage's name to its callable: exactly the trained weights, or one line about the file."""

import io
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vwl.config.files import overridden
from vwl.data.index import write_index
from vwl.errors import VwlError
from vwl.inference.build import InferenceSpec, build_stage, hide_gpus, load_boundary_net, load_classifier, load_segmenter
from vwl.inference.cam import CamStage
from vwl.inference.crf import CrfStage
from vwl.inference.irnet_labels import IrnetLabelsStage
from vwl.inference.masks import MasksStage
from vwl.inference.segment import SegmentStage
from vwl.inference.walk import WalkStage
from vwl.models.classifier import Classifier
from vwl.storage.folder import Folder
from vwl.storage.score_maps import ScoreMap, write_maps
from vwl.training.checkpoint import save


@pytest.fixture
def run(tmp_path, images, classifier, boundary_net, segmenter) -> Folder:
    """A run folder with three networks, and a map of one image after cam and after walk."""
    folder = Folder(tmp_path / "run")
    write_index(images, tmp_path / "index.parquet")
    for stage, network in (("classifier", classifier), ("irnet", boundary_net), ("segmenter", segmenter)):
        save(folder / stage, "weights.pt", {"model": network.state_dict(), "fingerprint": "x"})
    for stage in ("cam", "walk"):
        write_maps(folder / stage, "part-00000.parquet", [ScoreMap("dot", (1,), 1, 1, torch.ones(1, 1, 1).half().numpy())])
    return folder


@pytest.fixture
def spec(run, recipe, tmp_path) -> InferenceSpec:
    return InferenceSpec("cam", recipe, str(tmp_path / "index.parquet"), run, 0.3)


LOADERS = {
    "classifier": lambda recipe, index, run: load_classifier(recipe, index, run),
    "irnet": lambda recipe, index, run: load_boundary_net(recipe, run),
    "segmenter": lambda recipe, index, run: load_segmenter(recipe, index, run),
}


@pytest.mark.parametrize("stage", LOADERS)
def test_a_network_is_loaded_with_exactly_the_trained_weights(stage, recipe, images, run, request):
    trained = request.getfixturevalue({"irnet": "boundary_net"}.get(stage, stage))
    torch.manual_seed(5)
    loaded = LOADERS[stage](recipe, images, run)
    assert type(loaded) is type(trained)
    assert loaded.state_dict().keys() == trained.state_dict().keys()
    for name, tensor in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_with_classes_and_root_in_the_spec_the_index_table_is_not_read(spec, images):
    gone = replace(spec, index_path="gone.parquet", index=images.without_rows())
    stage = build_stage(gone)
    assert (stage.index.classes, stage.index.palette, len(stage.index.rows)) == (images.classes, images.palette, 0)
    row = next(row for row in images.rows if row.image_id == "odd")
    assert stage(row).values.tobytes() == build_stage(spec)(row).values.tobytes()


@pytest.mark.parametrize("stage", LOADERS)
def test_the_weights_that_the_training_started_from_are_not_needed_again(stage, recipe, images, run):
    gone = overridden(recipe, [f"{stage}.backbone.weights=gone.pth"])
    assert LOADERS[stage](gone, images, run).state_dict()


@pytest.mark.parametrize("stage", LOADERS)
def test_what_a_network_computes_is_what_it_computed_before_it_was_saved(stage, recipe, images, run, request):
    trained = request.getfixturevalue({"irnet": "boundary_net"}.get(stage, stage))
    compute = {"classifier": "activation_maps", "irnet": "forward", "segmenter": "fused"}[stage]
    batch = torch.linspace(-2, 2, 3 * 32 * 48).reshape(1, 3, 32, 48)
    with torch.inference_mode():
        before, after = (getattr(network, compute)(batch) for network in (trained, LOADERS[stage](recipe, images, run)))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind"),
    {
        "cam": CamStage,
        "crf": CrfStage,
        "irnet-labels": IrnetLabelsStage,
        "walk": WalkStage,
        "masks": MasksStage,
        "segment": SegmentStage,
    }.items(),
)
def test_every_stage_is_built_by_its_name_and_works(spec, images, rows, name, kind):
    stage = build_stage(replace(spec, stage=name))
    assert type(stage) is kind
    assert stage.index.fingerprint() == images.fingerprint()
    result = stage(rows["dot"])
    assert (result.values.shape if isinstance(result, ScoreMap) else (1, *result.shape)) == (1, 1, 1)


def test_the_masks_are_of_the_walk_and_the_crf_is_of_the_class_activation_maps(spec, run, rows):
    run.delete("walk/part-00000.parquet")
    assert build_stage(replace(spec, stage="crf"))(rows["dot"]).shape == (1, 1)
    with pytest.raises(VwlError, match="walk has no score map of image dot"):
        build_stage(replace(spec, stage="masks"))(rows["dot"])


def test_the_given_threshold_is_used(spec, rows):
    cut = [build_stage(replace(spec, stage="masks", threshold=threshold))(rows["dot"]) for threshold in (0.9, 1.0)]
    assert [int(mask[0, 0]) for mask in cut] == [1, 0]


def saved(state: object) -> bytes:
    sink = io.BytesIO()
    torch.save(state, sink)
    return sink.getvalue()


def flipped(data: bytes) -> bytes:
    """Flip a bit of a tensor, which torch does not notice."""
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (lambda run, recipe: run.read("classifier/weights.pt")[:5000], "weights.pt is damaged"),
        (lambda run, recipe: flipped(run.read("classifier/weights.pt")), "weights.pt is damaged"),
        (lambda run, recipe: b"not a checkpoint", "weights.pt holds"),
        (lambda run, recipe: saved([1, 2]), "is not a checkpoint"),
        (lambda run, recipe: saved({"layer.weight": torch.zeros(2)}), "of another network"),
        (lambda run, recipe: saved({"model": {"layer.weight": torch.zeros(2)}}), "of another network"),
        (lambda run, recipe: saved({"model": 3}), "of another network"),
        (lambda run, recipe: saved({"model": Classifier(recipe.classifier, 7).state_dict()}), "of another network"),
    ],
    ids=["truncated", "flipped", "text", "list", "bare", "foreign", "number", "classes"],
)
def test_weights_that_are_damaged_or_of_another_network_are_one_line_that_names_the_file(spec, run, recipe, content, expected):
    run.write("classifier/weights.pt", content(run, recipe))
    with pytest.raises(VwlError) as caught:
        build_stage(spec)
    message = str(caught.value)
    assert expected in message
    assert f"{run}/classifier/weights.pt" in message
    assert re.search(rf"delete (it|{run}/classifier) and train (its|the) stage again \(vwl train classifier\)$", message)
    assert "\n" not in message


def test_weights_that_are_not_there_are_named(spec, run):
    Path(run.path, "irnet", "weights.pt").unlink()
    with pytest.raises(VwlError, match=r"cannot read .*irnet/weights\.pt"):
        build_stage(replace(spec, stage="walk"))


def test_an_unknown_stage_is_a_programmers_mistake(spec):
    with pytest.raises(ValueError, match="cams"):
        build_stage(replace(spec, stage="cams"))


def test_gpus_are_hidden_from_stages_without_a_network(monkeypatch):
    for stage, visible in (("cam", "0,1"), ("segment", "0,1"), ("crf", ""), ("irnet-labels", ""), ("masks", "")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        hide_gpus(stage)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
