"""Fixtures of several tests."""

import signal
from typing import TYPE_CHECKING

import hypothesis
import pytest

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("vwl", deadline=None)
hypothesis.settings.load_profile("vwl")

# A shell starts background jobs with SIGINT ignored, and the commands that tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if TYPE_CHECKING:
    from vwl.storage.folder import Folder
    from vwl.tuning.search import Search
    from vwl.workflow.run_folder import Run

TINY = (
    "classifier.backbone.weights=none",
    "classifier.linear_probe=none",  # after two steps every score is below it, with a message
    "classifier.codebook.num_codewords=8",
    "classifier.epochs=1",
    "classifier.batch_size=4",
    "classifier.crop=64",
    "classifier.resize=[64, 96]",
    "cam.scales=[1.0]",
    "cam.long_side=96",
    "irnet.backbone.weights=none",
    "irnet.epochs=1",
    "irnet.batch_size=4",
    "irnet.crop=64",
    "irnet.long_side=96",
    "irnet.radius=4",
    "walk.radius=3",
    "walk.long_side=96",
    "segmenter.backbone.weights=none",
    "segmenter.iterations=2",
    "segmenter.batch_size=4",
    "segmenter.crop=65",
    "segmenter.long_side=96",
    "segment.long_side=96",
)
"""Overrides of the recipe `demo` that leave of every stage just enough to run."""


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """A finished run of all stages, without Ray, on 8 training and 4 held-out scenes; tests only read it."""
    # Imported here: every test loads this file, and few need torch.
    from tests.helpers import tiny_scenes
    from tests.stages import STAGES
    from vwl.config.files import load_recipe
    from vwl.config.layout import Layout
    from vwl.data.index import write_index
    from vwl.engine import local
    from vwl.engine.base import Engine
    from vwl.workflow.pipeline import run_stages
    from vwl.workflow.run_folder import Run

    folder = tmp_path_factory.mktemp("tiny")
    index_path = str(folder / "index.parquet")
    write_index(tiny_scenes(folder / "scenes", 8, 4), index_path)
    run = Run.start(str(folder / "run"), load_recipe("demo", TINY), index_path)
    messages: list[str] = []
    run_stages(run, list(STAGES), Engine(local, local), Layout(cpus_per_worker=1), lambda progress: None, messages.append)
    assert messages == []
    return run


@pytest.fixture(scope="session")
def done_search(tmp_path_factory: pytest.TempPathFactory) -> "tuple[Folder, Search]":
    """A folder with a finished search of two settings with two seeds, without Ray; tests only read it."""
    from tests.tuning.searches import run_here, space, tiny_index, tiny_recipe
    from vwl.data.index import read_index
    from vwl.storage.folder import Folder
    from vwl.tuning.search import Search

    folder = tmp_path_factory.mktemp("search")
    index_path = tiny_index(folder)
    search = Search.plan(space(values=[4, 8]), tiny_recipe(), read_index(index_path), index_path, num_seeds=2)
    run_here(search, Folder(folder / "search"))
    return Folder(folder / "search"), search
