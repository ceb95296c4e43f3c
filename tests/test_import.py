"""`import vwl` is fast: the public names are imported at first use."""

import subprocess
import sys

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


def test_every_public_name_is_importable():
    models = {"ActivationMaps", "Classifier", "Prediction", "SegmentationModel", "load_model"}
    assert set(vwl.__all__) == {"Recipe", "VwlError", "__version__", "load_recipe", "read_index"} | models
    for name in vwl.__all__:
        assert getattr(vwl, name) is not None
    assert set(vwl.__all__) <= set(dir(vwl))
    assert vwl.load_recipe("demo").name == "demo"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'vwl' has no attribute 'Recepi'"):
        _ = vwl.Recepi
