"""Copies finished stages of one run into another one: a stage with the same fingerprint has the same result."""

from dataclasses import replace

from vwl.storage.folder import Folder
from vwl.workflow.manifest import read_manifest, write_manifest
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import stages_of


def copy_stage(source: Folder, target: Folder, wanted: str, origin: str) -> bool:
    """Copy a stage's folder, if it holds a finished result with the fingerprint `wanted`; return whether it does.

    Args:
        source, target: folders of the stage.
        wanted: fingerprint.
        origin: of the result, for the manifest's `copied_from`.
    """
    manifest = read_manifest(source)
    if manifest is None or manifest.fingerprint != wanted or manifest.state != "done":
        return False
    target.clear()
    for subfolder in ("", "done"):
        folder, copy = (source / subfolder, target / subfolder) if subfolder else (source, target)
        for name in folder.names():
            if name != "manifest.json":
                copy.write(name, folder.read(name))
    write_manifest(target, replace(manifest, copied_from=origin))
    return True


def reuse_stages(run: Run, other: Folder) -> list[str]:
    """Copy the stages that another run has finished with the same settings and data, and this one has not; return their names."""
    copied = []
    for stage in stages_of(run.recipe):
        if not run.is_done(stage) and copy_stage(other / stage, run.stage_folder(stage), run.fingerprint(stage), str(other)):
            copied.append(stage)
    return copied


def reuse_note(other: str, copied: list[str]) -> str:
    """Return a line on what was copied from a run."""
    return f"copied from {other}: {', '.join(copied) or 'nothing, no finished stage has the same settings and data'}"
