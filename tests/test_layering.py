"""The architecture: every module has a floor and imports nothing above it; Ray and I/O stay where they belong."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = (
    ("vwl.errors", "vwl.constants"),
    ("vwl.config",),
    ("vwl.storage",),
    ("vwl.data",),
    ("vwl.maps",),
    ("vwl.crf", "vwl.models"),
    ("vwl.training", "vwl.inference"),
    ("vwl.evaluation", "vwl.report.overlays", "vwl.report.sheets"),
    ("vwl.engine", "vwl.model_file"),
    ("vwl.prediction",),
    ("vwl.workflow", "vwl.evaluation.voc_submission"),
    ("vwl.report", "vwl.exporters"),
    ("vwl.cluster",),
    ("vwl.tuning",),
    ("vwl.api",),
    ("vwl.tune_spaces", "vwl.cli"),
)
"""From the lowest to the highest. The longest prefix of a module's name counts; `vwl` itself, the public API, is on the top floor."""
LOOSE_FILES = {"__init__.py", "errors.py", "constants.py", "py.typed"}
"""The only files directly in vwl/; everything else is in a package."""
USES_RAY = ("vwl.engine", "vwl.cluster")
PURE = ("vwl.maps", "vwl.models")
IO = ("vwl.storage", "vwl.data", "pyarrow")
"""What the pure packages must not reach."""

Sources = dict[str, Path]


@cache
def sources(root: Path = ROOT) -> Sources:
    """Every module of the wheel by name; vwl/cli and vwl/tune_spaces are links, which are followed."""
    folders = [root / "vwl", *(path for path in (root / "vwl").iterdir() if path.is_symlink())]
    paths = {path for folder in folders for path in folder.rglob("*.py")}
    return {module_name(path.relative_to(root)): path for path in sorted(paths)}


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(name: str, path: Path, known: Sources) -> Iterator[str]:
    """Every module a file imports, wherever in it: also inside functions and under TYPE_CHECKING."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            # `from vwl.storage import folder` imports vwl.storage.folder
            yield from (f"{module}.{alias.name}" if f"{module}.{alias.name}" in known else module for alias in node.names)


@cache
def imports(root: Path = ROOT) -> dict[str, set[str]]:
    """Each module with what it imports."""
    known = sources(root)
    return {name: set(imports_of(name, path, known)) for name, path in known.items()}


def is_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def floor_unit(module: str) -> str | None:
    """The entry of FLOORS that a module belongs to: the longest prefix of its name."""
    entries = [entry for floor in FLOORS for entry in floor if is_in(module, (entry,))]
    return max(entries, key=len, default=None)


def floor_of(module: str) -> int | None:
    if module == "vwl":
        return len(FLOORS) - 1
    entry = floor_unit(module)
    return next((number for number, floor in enumerate(FLOORS) if entry in floor), None)


def without_floor(root: Path = ROOT) -> list[str]:
    return [name for name in sources(root) if floor_of(name) is None]


def loose_files(root: Path = ROOT) -> list[str]:
    """Files directly in vwl/ that should be in a package, and folders that are no package."""
    entries = [path for path in (root / "vwl").iterdir() if path.name != "__pycache__"]
    return sorted(path.name for path in entries if path.name not in LOOSE_FILES and not (path / "__init__.py").is_file())


def imports_above(root: Path = ROOT) -> list[str]:
    """Every import of a module on a higher floor, as `importer -> imported`."""
    pairs = [(name, other) for name, others in imports(root).items() for other in others if other in sources(root)]
    return sorted(f"{name} -> {other}" for name, other in pairs if (floor_of(other) or 0) > (floor_of(name) or 0))


def reachable(start: str, graph: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        seen.add(now := todo.pop())
        todo.extend(graph.get(now, set()) - seen)
    return seen


def loaded_with(module: str) -> set[str]:
    """Everything that a module reaches; `vwl.a.b` also reaches `vwl.a`, whose __init__ Python runs first."""
    graph = {name: others | ({name.rpartition(".")[0]} - {"", "vwl"}) for name, others in imports().items()}
    return reachable(module, graph)


def test_every_module_has_a_floor():
    assert without_floor() == []


def test_every_floor_names_something_that_exists():
    # an entry that is renamed would otherwise no longer be checked
    assert {entry for floor in FLOORS for entry in floor} <= set(sources())


def test_no_module_imports_one_on_a_higher_floor():
    assert imports_above() == []


def test_no_two_packages_of_one_floor_import_each_other():
    units: dict[str, set[str]] = {}
    for name, others in imports().items():
        mine = floor_unit(name)
        if mine:
            units.setdefault(mine, set()).update({unit for other in others if (unit := floor_unit(other))} - {mine})
    assert {unit for unit, others in units.items() if any(unit in reachable(other, units) for other in others)} == set()


def test_only_packages_and_three_modules_are_directly_in_vwl():
    assert loose_files() == []


def test_a_new_loose_module_an_upward_import_and_a_folder_without_init_are_noticed(tmp_path):
    for folder in ("vwl", "cli", "tune_spaces"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    assert (loose_files(tmp_path), without_floor(tmp_path), imports_above(tmp_path)) == ([], [], [])
    sources.cache_clear()
    imports.cache_clear()
    (tmp_path / "vwl/utils.py").write_text("")
    (tmp_path / "vwl/helpers").mkdir()
    (tmp_path / "vwl/maps/extra.py").write_text("def f():\n    from vwl.workflow import pipeline\n")
    assert loose_files(tmp_path) == ["helpers", "utils.py"]
    assert without_floor(tmp_path) == ["vwl.utils"]
    assert imports_above(tmp_path) == ["vwl.maps.extra -> vwl.workflow.pipeline"]


def test_only_engine_and_cluster_import_ray():
    others = {name: needed for name, needed in imports().items() if not is_in(name, USES_RAY)}
    assert [name for name, needed in others.items() if any(is_in(module, ("ray",)) for module in needed)] == []


def test_one_module_uses_what_is_private_in_ray():
    named = re.compile(r"\bray\._(?!_)")
    used = [
        name
        for name, path in sources().items()
        if any(other.startswith(("ray._", "ray.dashboard")) for other in imports()[name]) or named.search(path.read_text(encoding="utf-8"))
    ]
    assert used == ["vwl.engine.ray_private"]


def test_maps_and_models_reach_no_storage_no_readers_and_no_pyarrow():
    pure = [name for name in sources() if is_in(name, PURE)]
    assert {name: found for name in pure if (found := {other for other in loaded_with(name) if is_in(other, IO)})} == {}


def test_every_module_that_reaches_neither_engine_nor_cluster_imports_without_ray():
    names = [name for name in sources() if not any(is_in(other, USES_RAY) for other in loaded_with(name))]
    assert {
        "vwl.errors",
        "vwl.config.recipe",
        "vwl.storage.folder",
        "vwl.data.index",
        "vwl.training.loop",
        "vwl.inference.build",
        "vwl.workflow.model_export",
    } <= set(names)
    # None in sys.modules makes `import ray` fail
    code = "import importlib, sys; sys.modules['ray'] = None\nfor name in sys.argv[1:]: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_imports_are_found_in_every_form(tmp_path):
    path = tmp_path / "__init__.py"
    path.write_text(
        "import os.path as p\nfrom vwl.storage import folder\nfrom . import errors\nfrom .data import index\nfrom .maps.cam import x\n"
        "def f():\n    import ray\n"
    )
    found = list(imports_of("vwl", path, sources()))
    assert found == ["os.path", "vwl.storage.folder", "vwl.errors", "vwl.data.index", "vwl.maps.cam", "ray"]
