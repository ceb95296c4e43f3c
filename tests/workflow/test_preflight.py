"""The checks before a start: every training's network is built."""

from tests.helpers import tiny_scenes
from tests.workflow.test_refiners import PSA
from vwl.config.files import load_recipe
from vwl.config.layout import Layout
from vwl.data.index import write_index
from vwl.workflow.preflight import check_start
from vwl.workflow.run_folder import Run


def start(tmp_path, *overrides):
    write_index(tiny_scenes(tmp_path / "scenes"), tmp_path / "index.parquet")
    return Run.start(str(tmp_path / "run"), load_recipe("demo", [*PSA, *overrides]), str(tmp_path / "index.parquet"))


def test_the_affinity_network_of_psa_is_checked_like_the_others(tmp_path):
    assert list(check_start(start(tmp_path), ["psa"], Layout(), "local", fit_workers=False)) == ["psa"]
