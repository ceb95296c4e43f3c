"""The corpus of the command line: recipes, options, starts that cannot succeed."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.conftest import TINY
from tests.helpers import tiny_scenes
from tests.hostile.cases import Case, check
from vwl.cli.main import app
from vwl.data.index import write_index

Make = Callable[[Path], Sequence[str | Path]]


def start(*overrides: str, options: Sequence[str] = (), command: Sequence[str] = ("train", "classifier")) -> Make:
    """A command that starts a run in the folder `run` on tiny scenes; `{folder}` in an override is the case's folder."""

    def make(folder: Path) -> list[str | Path]:
        write_index(tiny_scenes(folder / "scenes"), folder / "index.parquet")
        changes = [word for setting in (*TINY, *overrides) for word in ("-o", setting.format(folder=folder))]
        given = ["--data", folder / "index.parquet", "--recipe", "demo", "--run", folder / "run", "--backend", "local"]
        return [*command, *given, *(option.format(folder=folder) for option in options), *changes]

    return make


def torch_file(name: str, content: dict[str, torch.Tensor], make: Make) -> Make:
    """The command after a weights file was written into its folder."""

    def written(folder: Path) -> Sequence[str | Path]:
        torch.save(content, folder / name)
        return make(folder)

    return written


RUN = ("run",)
OTHER = {"layers.0.weight": torch.zeros(3, 3)}
STARTS = [
    Case("irnet crop too small", start("irnet.crop=24"), 1, ("irnet: crop = 24 is too small for radius = 4", "25 or more")),
    Case("irnet crop too small, run", start("irnet.crop=64", "irnet.radius=10", command=RUN), 1, ("set crop to 73 or more",)),
    Case("irnet radius without pairs", start("irnet.radius=1"), 1, ("irnet.radius should be greater than or equal to 2",)),
    Case("classifier crop of 1", start("classifier.crop=1"), 1, ("classifier.crop should be greater than or equal to 16 (given: 1)",)),
    Case("segmenter crop of 1", start("segmenter.crop=1"), 1, ("segmenter.crop should be greater than or equal to 16 (given: 1)",)),
    Case("walk exponent 0", start("walk.exponent=0"), 1, ("walk.exponent should be greater than 0",)),
    Case("seed of 64 bits", start("seed=18446744073709551616"), 1, ("seed should be less than 9223372036854775808",)),
    Case("negative seed", start("seed=-1"), 1, ("seed should be greater than or equal to 0",)),
    Case("unknown backbone of a later stage", start("segmenter.backbone.name=timm:nonsense", command=RUN), 1, ("segmenter", "nonsense")),
    Case("more frozen stages than stages", start("classifier.backbone.name=timm:convnext_atto", "classifier.frozen_stages=5"), 1, ("frozen",)),
    Case(
        "weights of a later stage are missing",
        start("segmenter.backbone.weights={folder}/no.pth", command=RUN),
        1,
        ("segmenter.backbone.weights: cannot read", "/no.pth"),
    ),
    Case(
        "weights of another network",
        torch_file("other.pth", OTHER, start("irnet.backbone.weights={folder}/other.pth", command=RUN)),
        1,
        ("irnet.backbone.weights", "other.pth", "another network"),
    ),
    Case("weights are a folder", start("classifier.backbone.weights={folder}"), 1, ("classifier.backbone.weights: cannot read",)),
    Case("start_from is missing", start("segmenter.start_from={folder}/no.pt", command=RUN), 1, ("segmenter.start_from: cannot read",)),
    Case(
        "start_from of another network",
        torch_file("other.pt", OTHER, start(options=("--start-from", "{folder}/other.pt"))),
        1,
        ("classifier.start_from", "other.pt", "another network"),
    ),
    Case("more classes of codewords than memory", start("classifier.codebook.num_codewords=1000000000000000"), 1, ("recipe section classifier",)),
    Case("micro-batches that do not divide", start(options=("--micro-batch", "3"), command=RUN), 1, ("micro-batches of 3",)),
    Case("a GPU where there is none", start(options=("--gpus-per-worker", "1")), 1, ("--gpus-per-worker 1: this machine has no GPU",)),
    Case("a GPU where there is none, run", start(options=("--gpus-per-worker", "1"), command=RUN), 1, ("this machine has no GPU",)),
]  # fmt: skip


@pytest.mark.parametrize("case", STARTS, ids=lambda case: case.name)
def test_a_start_that_cannot_succeed_is_refused_before_the_run_folder_is_written(case, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check(case, tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_start_on_a_cluster_that_does_not_answer_leaves_no_bound_folder(tmp_path):
    command = [*start(command=RUN)(tmp_path), "--backend", "ray", "--address", "127.0.0.1:1"]
    check(Case("no cluster", lambda folder: command, 1, ("127.0.0.1:1",)), tmp_path)
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_new_run_without_a_recipe_says_which_default_it_takes(tmp_path):
    command = [word for word in start("irnet.crop=24")(tmp_path) if word not in {"--recipe", "demo"}]
    result = CliRunner().invoke(app, [*map(str, command), "-o", "irnet.crop=25", "--micro-batch", "3"])
    assert result.stderr.splitlines()[0].startswith("recipe: paper-voc, the default (")
