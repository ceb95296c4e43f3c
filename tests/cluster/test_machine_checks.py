"""What `vwl doctor` says of this machine, and of one on which something is wrong."""

import sys
from importlib import metadata
from pathlib import Path

import pytest

from vwl.cluster import machine_checks as doctor
from vwl.cluster.machine_checks import GIB, Finding, graded, local_findings, storage_here
from vwl.storage.folder import Folder


def test_nothing_is_wrong_with_packages_and_crf_here():
    found = {finding.check: finding for finding in local_findings(None)}
    for check in ("python", "packages", "torchvision", "ray", "crf", "cpus"):
        assert found[check].grade == "ok", found[check]
    assert found["torch"].grade in {"ok", "warning"}
    assert {"memory"} < found.keys()
    assert any(check.startswith("disk ") for check in found)


def test_a_storage_that_works_is_left_as_it_was(tmp_path):
    found = storage_here(Folder(tmp_path))
    assert found.grade == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    found = list(local_findings(str(tmp_path / "file/runs")))[-1]
    assert (found.check, found.grade) == (f"storage {tmp_path}/file/runs", "error")
    assert found.way_out


def test_an_old_python_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    found = doctor.python()
    assert (found.grade, found.way_out) == ("error", "install Python 3.11 or 3.12 and run make setup")
    assert found.found.startswith("3.9.2 ")


def versions(monkeypatch, **changed: str | None) -> None:
    """Let packages have other versions than they have, or be missing."""
    real = metadata.version

    def version(name: str) -> str:
        found = changed.get(name, real(name))
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)


def test_a_torch_that_is_not_torchvisions_is_an_error(monkeypatch):
    versions(monkeypatch, torch="2.5.0")
    found = doctor.torchvision_pair()
    assert found.grade == "error"
    assert "installed is 2.5.0" in found.found


@pytest.mark.parametrize(("version", "message"), [("2.31.0", "2.31.0 is installed, and "), (None, "not installed")])
def test_another_ray_or_none_is_an_error(monkeypatch, version, message):
    versions(monkeypatch, ray=version)
    found = doctor.ray_package()
    assert found.grade == "error"
    assert found.found.startswith(message)
    assert found.way_out


def test_a_missing_package_is_named(monkeypatch):
    versions(monkeypatch, timm=None)
    assert doctor.packages() == Finding("packages", "error", "not installed: timm", "run make setup, or install requirements.lock")


@pytest.mark.parametrize(("free", "grade"), [(1, "error"), (2, "warning"), (3, "warning"), (4, "ok"), (5, "ok")])
def test_free_space_is_graded_by_two_limits(free, grade):
    found = graded("disk", free * GIB, 10 * GIB, (4, 2), "free some")
    assert (found.grade, found.way_out) == (grade, "" if grade == "ok" else "free some")
    assert found.found == f"{free}.0 of 10.0 GiB free"


def test_the_disk_of_a_folder_that_is_not_made_yet_is_that_of_its_parent(tmp_path):
    assert doctor.disk(tmp_path / "a/b/c").check == f"disk {tmp_path}"


def test_memory_is_what_the_system_says():
    free, total = doctor.free_memory()
    assert 0 < free <= total
    assert total <= int(Path("/proc/meminfo").read_text().split()[1]) * 1024
