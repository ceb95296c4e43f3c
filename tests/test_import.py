"""`import vwl` is fast: the public names are imported at first use."""

import ast
import logging
import subprocess
import sys
from pathlib import Path

import pytest

import vwl

HEAVY = ("ray", "torch", "numba", "matplotlib", "pyarrow")


def modules_after(code: str) -> set[str]:
    """Return the names of the modules that a fresh interpreter has loaded after running `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("code", ["import vwl", "import vwl; dir(vwl)", "from vwl import Recipe, VwlError, __version__, load_recipe"])
def test_import_loads_no_heavy_package(code):
    assert not modules_after(code) & set(HEAVY)


PUBLIC = {
    "data": {"Index", "prepare_any", "prepare_coco", "prepare_folder", "prepare_scenes", "prepare_voc", "read_index", "write_index"},
    "settings": {"Layout", "Recipe", "load_recipe"},
    "runs": {"Masks", "Metrics", "RunProgress", "RunResult", "StageEvaluation", "evaluate", "open_run", "run"},
    "searches": {"TrialProgress", "TrialResources", "TuneResult", "open_tune", "resume_tune", "tune"},
    "models": {"ActivationMaps", "Classifier", "Prediction", "SegmentationModel", "load_model"},
    "others": {"Interrupted", "VwlError", "__version__"},
}


def test_every_public_name_is_importable():
    assert set(vwl.__all__) == set().union(*PUBLIC.values())
    for name in vwl.__all__:
        assert getattr(vwl, name) is not None
    assert set(vwl.__all__) <= set(dir(vwl))
    assert vwl.load_recipe("demo").name == "demo"


def test_every_public_name_is_known_to_type_checkers_from_the_module_that_it_is_loaded_from():
    tree = ast.parse(Path(vwl.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == vwl._MODULES


def test_the_library_logs_through_one_logger_and_shows_nothing_itself():
    assert [type(handler) for handler in logging.getLogger("vwl").handlers] == [logging.NullHandler]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'vwl' has no attribute 'Recepi'"):
        _ = vwl.Recepi
