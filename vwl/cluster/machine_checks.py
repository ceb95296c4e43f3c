"""Check this machine for `vwl doctor`: interpreter, packages, CRF, disk, memory, storage. `cluster_checks` does the same for a cluster.

Each check returns a `Finding`, which is one line of output: what was checked, its grade, what was found, and what to do about it.
"""

import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
from packaging.requirements import Requirement

from vwl.errors import VwlError
from vwl.storage.folder import Folder

Grade = Literal["ok", "warning", "error"]
GIB = 2**30
_PYTHONS = ((3, 11), (3, 12))
_DISK = (20.0, 2.0)
"""Free disk below which is a warning, and an error, GiB."""
_MEMORY = (4.0, 1.5)
_PACKAGES = ("numpy", "pyarrow", "pydantic", "timm", "typer")


@dataclass(frozen=True)
class Finding:
    """One line of `vwl doctor`.

    Attributes:
        check: what was checked.
        grade: `ok`, `warning` (works with limits) or `error` (does not work).
        found: what was found.
        way_out: what to do; empty if the grade is `ok`.
    """

    check: str
    grade: Grade
    found: str
    way_out: str = ""


def local_findings(storage: str | None) -> Iterator[Finding]:
    """Yield the findings about this machine; `storage` is the folder or URI for runs, which is then written to."""
    checks: tuple[Callable[[], Finding], ...] = (python, packages, torch_and_cuda, torchvision_pair, ray_package, crf, cpus, memory)
    for check in checks:
        yield check()
    yield disk(Path.cwd() if storage is None or "://" in storage else Path(storage))
    if storage is not None:
        yield storage_here(Folder(storage))


def python() -> Finding:
    """Check the version of Python."""
    version = sys.version_info
    shown = f"{version[0]}.{version[1]}.{version[2]} ({sys.executable})"
    if version[:2] in _PYTHONS:
        return Finding("python", "ok", shown)
    return Finding("python", "error", shown, "install Python 3.11 or 3.12 and run make setup")


def packages() -> Finding:
    """Check that the packages are installed that no other check covers."""
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding("packages", "error", f"not installed: {', '.join(missing)}", "run make setup, or install requirements.lock")
    return Finding("packages", "ok", ", ".join(found))


def torch_and_cuda() -> Finding:
    """Check that PyTorch loads, and that it sees the GPUs of this machine."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("torch", "error", _line(error), "install the torch of requirements.lock")
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        return Finding("torch", "ok", f"{torch.__version__}, CUDA {torch.version.cuda}: {names}")
    if Path("/dev/nvidiactl").exists():
        why = "no CUDA" if torch.version.cuda is None else f"CUDA {torch.version.cuda}, which the driver does not support"
        return Finding(
            "torch",
            "warning",
            f"this machine has a GPU, and torch {torch.__version__} has {why}",
            "install a torch for the driver's CUDA version",
        )
    return Finding("torch", "ok", f"{torch.__version__}, no GPU here")


def torchvision_pair() -> Finding:
    """Check that torchvision was built for the installed torch, and loads."""
    try:
        ours, theirs = metadata.version("torch"), metadata.version("torchvision")
        wanted = next(r for r in map(Requirement, metadata.requires("torchvision") or ()) if r.name == "torch")
        if not wanted.specifier.contains(ours, prereleases=True):
            found = f"torchvision {theirs} needs torch{wanted.specifier}, installed is {ours}"
            return Finding("torchvision", "error", found, "install torch and torchvision of requirements.lock together")
        import torch
        from torchvision.ops import nms

        nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # a compiled operator: a wrong pair fails here
    except (metadata.PackageNotFoundError, ImportError, OSError, RuntimeError) as error:
        return Finding("torchvision", "error", _line(error), "install torch and torchvision of requirements.lock together")
    return Finding("torchvision", "ok", f"{theirs}, for torch {ours}")


def ray_package() -> Finding:
    """Check the version of Ray against the one that vwl requires."""
    wanted = next(r for r in map(Requirement, metadata.requires("vwl") or ()) if r.name == "ray")
    try:
        found = metadata.version("ray")
    except metadata.PackageNotFoundError:
        return Finding("ray", "error", "not installed", f"install ray[default,data,train,tune]{wanted.specifier}, or use --backend local")
    if not wanted.specifier.contains(found):
        return Finding("ray", "error", f"{found} is installed, and vwl needs {wanted.specifier}", "install the ray of requirements.lock")
    return Finding("ray", "ok", found)


def crf() -> Finding:
    """Run the dense CRF on a tiny image; pydensecrf2 is optional."""
    try:
        from vwl.config.recipe import CrfKernels
        from vwl.crf.dense_crf import crf_probabilities

        crf_probabilities(np.zeros((8, 8, 3), np.uint8), np.full((2, 8, 8), 0.5, np.float32), CrfKernels(iterations=1))
    except (VwlError, ImportError, OSError) as error:
        return Finding("crf", "error", _line(error), "run make setup, or install the numba of requirements.lock")
    try:
        return Finding("crf", "ok", f"works, pydensecrf2 {metadata.version('pydensecrf2')} is installed")
    except metadata.PackageNotFoundError:
        return Finding("crf", "ok", "works; pydensecrf2, which is optional, is not installed")


def cpus() -> Finding:
    """Report the CPUs that this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding("cpus", "ok", f"{count} of {os.cpu_count()}")


def memory() -> Finding:
    """Check the free memory."""
    free, total = free_memory()
    return graded("memory", free, total, _MEMORY, "end other programs, or use a machine with more memory")


def disk(folder: Path) -> Finding:
    """Check the free disk space of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.absolute().parent
    usage = shutil.disk_usage(folder)
    return graded(f"disk {folder}", usage.free, usage.total, _DISK, "free space, or name another folder with --storage")


def storage_here(folder: Folder) -> Finding:
    """Write, read and delete a small file in a folder."""
    name, text = f".vwl-doctor-{uuid.uuid4().hex}", b"vwl"
    try:
        folder.write(name, text)
        there = folder.read(name)
        folder.delete(name)
    except (VwlError, OSError) as error:
        return Finding(
            f"storage {folder}", "error", _line(error), "name a folder that can be written, or set the credentials in the environment"
        )
    if there != text:
        return Finding(f"storage {folder}", "error", "returns other bytes than were written", "use another storage")
    return Finding(f"storage {folder}", "ok", "a test file was written, read and deleted")


def free_memory() -> tuple[int, int]:
    """Return available and total memory of this machine or, if that is less, of its container, bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free, total = (int(lines[key].split()[0]) * 1024 for key in ("MemAvailable", "MemTotal"))
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
        free = min(free, total - int(used.read_text()))
    return free, total


def graded(check: str, free: int, total: int, limits: tuple[float, float], way_out: str) -> Finding:
    """Grade free bytes by limits for a warning and an error, GiB."""
    amount = free / GIB
    grade: Grade = "error" if amount < limits[1] else "warning" if amount < limits[0] else "ok"
    return Finding(check, grade, f"{amount:.1f} of {total / GIB:.1f} GiB free", "" if grade == "ok" else way_out)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
