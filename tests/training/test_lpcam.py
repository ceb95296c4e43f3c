"""LPCAM's prototypes: which features they are from, and the same bits at any number of workers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing
from torch.nn import functional

from tests.trainings import FLOAT64, make_data, tiny_spec, train_to_end, weights, with_changes
from vwl.config.layout import Layout
from vwl.data.index import read_index, write_index
from vwl.maps.cam import class_activation
from vwl.storage.folder import Folder
from vwl.training.build import TrainSpec, build_task
from vwl.training.lpcam import LpcamTask, images_by_class

SURE_OF_ALL = {"prototype_probability": 0.0, "context_probability": (0.0, 1.0)}
"""An untrained classifier is not sure of anything."""


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("lpcam"))


def spec_with(index_path: Path, folder: Path, **settings) -> TrainSpec:
    spec = tiny_spec("lpcam", index_path, folder)
    changed = with_changes(spec.recipe.lpcam, **{"clusters": 4, **settings})
    return TrainSpec(**{**vars(spec), "recipe": spec.recipe.model_copy(update={"lpcam": changed})})


def test_it_is_the_trained_classifier_with_prototypes(index_path, tmp_path):
    _, result = train_to_end(spec_with(index_path, tmp_path, **SURE_OF_ALL))
    assert (result.finished, result.step, result.notes) == (True, 0, [])
    saved, trained = weights(tmp_path), weights(index_path.parent / "classifier-learning")
    assert all(torch.equal(saved[name], value.to(saved[name].dtype)) for name, value in trained.items())
    assert torch.equal(saved["weight_of_maps"], trained["image_head.weight"].double())
    assert result.scores["prototypes"] == int((saved["sizes"][0] > 0).sum()) == int(saved["chosen"][0].sum())
    assert result.scores["context_clusters"] == int(saved["chosen"][1].sum())
    assert {"val_map", "val_cam_miou"} <= set(result.scores)


def test_the_clusters_are_those_of_the_features_inside_and_outside_the_maps(index_path, tmp_path):
    """With one cluster its centre is the mean feature, and with all cells and images taken, that of all of them."""
    settings = {**SURE_OF_ALL, "cells_per_image": 1000, "foreground_score": 0.4}
    task, _ = train_to_end(spec_with(index_path, tmp_path, **settings, clusters=1))
    sums, counts = torch.zeros(2, 2, task.model.centres.shape[3], dtype=torch.float64), torch.zeros(2, 2)
    for row in task.rows:
        with torch.no_grad():
            features = task._features(np.asarray(task.index.read_image(row)))
            maps = class_activation(features, task.model.image_head.weight)[0]
        for label in row.labels:
            within = (maps[label - 1] / (maps[label - 1].max() + 1e-5) > 0.4).flatten()
            for side, chosen in enumerate((within, ~within)):
                sums[side, label - 1] += features[0].flatten(1)[:, chosen].sum(dim=1)
                counts[side, label - 1] += chosen.sum()
    torch.testing.assert_close(task.model.centres[:, :, 0], sums / counts[:, :, None], rtol=1e-9, atol=1e-12)
    assert torch.equal(task.model.sizes[:, :, 0], counts.long())
    inner, outer = (functional.normalize(task.model.centres[side, :, 0], dim=1) for side in (0, 1))
    torch.testing.assert_close(task.model.directions, inner - outer, rtol=1e-9, atol=1e-12)


def test_the_number_of_features_is_bounded(index_path, tmp_path):
    task, _ = train_to_end(spec_with(index_path, tmp_path, **SURE_OF_ALL, cells_per_image=3, images_per_class=2))
    assert task.model.sizes.sum(dim=2).max() <= 6


def test_a_class_without_prototypes_is_named_and_has_the_maps_of_the_weights(index_path, tmp_path):
    task, result = train_to_end(spec_with(index_path, tmp_path, prototype_probability=1.0))
    names = ", ".join(task.index.classes[1:])
    assert result.notes == [f"no cluster is a prototype of {names}: the maps of such a class are those of cam.method: weights"]
    assert result.scores["classes_without_prototypes"] == 2
    features = torch.rand(1, task.model.centres.shape[3], 3, 3, dtype=torch.float64)
    assert torch.equal(task.model.maps_of(features), class_activation(features, task.model.image_head.weight))


def test_a_class_that_no_training_image_shows_has_no_prototypes(index_path, tmp_path):
    index = read_index(str(index_path))
    write_index(replace(index, rows=tuple(replace(row, labels=(1,)) for row in index.rows)), tmp_path / "index.parquet")
    spec = spec_with(index_path, tmp_path / "run", **SURE_OF_ALL)
    task, result = train_to_end(TrainSpec(**{**vars(spec), "index_path": str(tmp_path / "index.parquet")}))
    assert task.model.has_prototypes.tolist() == [True, False]
    assert result.notes[0].startswith(f"no cluster is a prototype of {index.classes[2]}:")


def test_after_recam_the_weights_are_its_product(index_path, tmp_path):
    train_to_end(tiny_spec("recam-L", index_path, tmp_path / "recam"))
    spec = spec_with(index_path, tmp_path / "lpcam", **SURE_OF_ALL)
    recipe = spec.recipe.model_copy(update={"recam": with_changes(spec.recipe.recam, epochs=1)})
    train_to_end(TrainSpec(**{**vars(spec), "recipe": recipe, "reads": Folder(tmp_path / "recam")}))
    recam = weights(tmp_path / "recam")
    expected = recam["image_head.weight"] * recam["recam_head.weight"]
    torch.testing.assert_close(weights(tmp_path / "lpcam")["weight_of_maps"], expected, rtol=1e-6, atol=1e-9)


def cluster_as_worker(rank: int, world_size: int, index_path: str, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting-{world_size}", rank=rank, world_size=world_size)
    spec = spec_with(Path(index_path), Path(folder) / f"{world_size}", **SURE_OF_ALL)
    task, _ = train_to_end(spec, Layout(workers=world_size, precision="float64"))
    torch.save(task.model.state_dict(), f"{folder}/{world_size}-{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("world_size", [2, 4])
def test_any_number_of_workers_finds_the_same_prototypes(index_path, tmp_path, world_size):
    multiprocessing.spawn(cluster_as_worker, (world_size, str(index_path), str(tmp_path)), nprocs=world_size)
    task, _ = train_to_end(spec_with(index_path, tmp_path / "alone", **SURE_OF_ALL), FLOAT64)
    for rank in range(world_size):
        found = torch.load(tmp_path / f"{world_size}-{rank}.pt", weights_only=True)
        assert all(torch.equal(value, found[name]) for name, value in task.model.state_dict().items())


def test_an_image_that_cannot_be_read_is_counted(tmp_path):
    path = make_data(tmp_path, num_val=0)
    first = read_index(str(path)).rows[0]
    (tmp_path / "scenes" / first.image).write_bytes(b"no image")
    _, result = train_to_end(spec_with(path, tmp_path / "run", **SURE_OF_ALL))
    assert result.scores["train_unreadable"] == 1


def test_images_of_a_class_are_spread_evenly():
    targets = np.array([[1, 0, 0]] * 10 + [[0, 0, 0]] + [[1, 1, 0]] * 2, bool)
    assert images_by_class(targets, 4) == {0: [0], 3: [0], 6: [0], 9: [0], 11: [1], 12: [1]}
    assert sorted(images_by_class(targets, 99)) == [*range(10), 11, 12]


def test_the_cells_of_an_image_are_drawn_by_seed_and_image(index_path, tmp_path):
    task = build_task(spec_with(index_path, tmp_path, cells_per_image=2))
    assert isinstance(task, LpcamTask)
    features = torch.rand(1, task.model.centres.shape[3], 4, 5)
    first, again, other = (task._cells_of(features, image, 0) for image in (0, 0, 1))
    assert max(len(part) for part in first) == 2
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(first, other, strict=True))
