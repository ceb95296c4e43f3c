"""The order of the house: what may import what, and that all of it but the engine lives without Ray."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("vwl", "cli", "vwl.tune_spaces")
LAYERS = (
    ("vwl.errors",),
    (
        "vwl.config.recipe",
        "vwl.config.files",
        "vwl.storage.retry",
        "vwl.storage.folder",
        "vwl.storage.lock",
        "vwl.storage.score_maps",
        "vwl.storage.masks",
        "vwl.storage.cache",
    ),
    ("vwl.data",),
    ("vwl.models", "vwl.maps", "vwl.models.losses", "vwl.report.overlays", "vwl.report.sheets"),
    ("vwl.training", "vwl.inference", "vwl.evaluation.scoring"),
    ("vwl.engine", "vwl.workflow.stages", "vwl.workflow.run_folder"),
    ("vwl.workflow.pipeline", "vwl.workflow.predict", "vwl.report.summary", "vwl.evaluation.voc_submission"),
    ("vwl.tuning",),
    ("cli",),
)
"""From the lowest to the highest; a unit may import units of its own layer and below."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def sources() -> dict[str, Path]:
    return {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imports_of(name: str, path: Path) -> Iterator[str]:
    """Every module a file imports, wherever in it: also inside functions and under TYPE_CHECKING."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            # `from vwl import store` imports vwl.storage.folder
            yield from (f"{module}.{alias.name}" if f"{module}.{alias.name}" in sources() else module for alias in node.names)


def unit(module: str) -> str:
    """The part of the house a module belongs to: a package or file directly in vwl, or one of the other packages."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "vwl" else parts[0]


@cache
def dependencies() -> dict[str, set[str]]:
    """Each unit with the units that its files import."""
    found: dict[str, set[str]] = {}
    for name, path in sources().items():
        own = {unit(module) for module in imports_of(name, path) if module.split(".")[0] in PACKAGES}
        found.setdefault(unit(name), set()).update(own - {unit(name)})
    return found


def reachable(start: str) -> set[str]:
    graph = dependencies()
    seen: set[str] = set()
    todo = [start]
    while todo:
        seen.add(now := todo.pop())
        todo.extend(graph.get(now, set()) - seen)
    return seen


def test_only_the_engine_imports_ray():
    outside = {name: path for name, path in sources().items() if unit(name) != "vwl.engine"}
    assert [name for name, path in outside.items() if any(module.split(".")[0] == "ray" for module in imports_of(name, path))] == []


@pytest.mark.parametrize("place", range(len(LAYERS) - 1))
def test_no_file_imports_one_above_it(place):
    above = {name for layer in LAYERS[place + 1 :] for name in layer}
    assert {name: reachable(name) & above for name in LAYERS[place]} == {name: set() for name in LAYERS[place]}


def test_no_two_parts_of_the_house_import_each_other():
    circles = {name for name, needed in dependencies().items() for other in needed if name in reachable(other)}
    assert circles == set()


def test_the_layers_name_what_exists():
    # a part that is renamed would otherwise fall out of the order unseen
    assert {name for layer in LAYERS for name in layer} <= {unit(name) for name in sources()}


def test_imports_are_found_in_every_form(tmp_path):
    path = tmp_path / "__init__.py"
    path.write_text(
        "import os.path as p\nfrom vwl import store\nfrom . import errors\nfrom .data import index\nfrom .maps.cam import x\n"
        "def f():\n    import ray\n"
    )
    assert list(imports_of("vwl", path)) == ["os.path", "vwl.storage.folder", "vwl.errors", "vwl.data.index", "vwl.maps.cam", "ray"]


def test_all_but_the_engine_and_what_needs_it_imports_without_ray():
    names = [name for name in sources() if name.startswith("vwl") and "vwl.engine" not in reachable(unit(name)) and unit(name) != "vwl"]
    assert {"vwl.errors", "vwl.config.recipe", "vwl.storage.folder", "vwl.data.index"} <= set(names)
    # None in sys.modules makes `import ray` fail
    code = "import importlib, sys; sys.modules['ray'] = None\nfor name in sys.argv[1:]: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
