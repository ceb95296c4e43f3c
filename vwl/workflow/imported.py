"""What a run knows of score maps that were imported instead of computed: a record in the manifest of the CAM stage.

The record replaces the settings of the stage, and its fingerprint takes the place of the one that recipe and classifier would give.
Deleting the folder `cam` brings the computed stage back.
"""

from dataclasses import asdict, dataclass
from typing import Any

from vwl.config.recipe import fingerprint
from vwl.data.data_fingerprint import DataFingerprint
from vwl.workflow.manifest import Manifest

STAGE = "cam"
"""The stage whose result is imported."""
REPLACED = ("classifier", "recam", "lpcam")
"""Stages that nothing needs once it is."""


@dataclass(frozen=True)
class ImportedMaps:
    """Where imported maps are from.

    Attributes:
        format: of the files.
        background: `own`, `fixed` or `one-minus-max`.
        content: hash of names, sizes and modification times of the files.
        files: number of images that have one.
        folder: that they were read from; not part of the fingerprint.
    """

    format: str
    background: str
    content: str
    files: int
    folder: str

    def settings(self) -> dict[str, Any]:
        """Return the manifest's settings of the stage."""
        return {"imported": asdict(self)}

    def fingerprint(self, index_fingerprint: str) -> str:
        """Return the hash that identifies the imported maps of a data set."""
        return fingerprint([STAGE, "imported", self.format, self.background, self.content, DataFingerprint.parse(index_fingerprint).data])


def imported_maps(manifest: Manifest | None) -> ImportedMaps | None:
    """Return the record in the CAM stage's manifest, or none if its maps are computed."""
    if manifest is None or not isinstance(manifest.settings, dict) or "imported" not in manifest.settings:
        return None
    return ImportedMaps(**manifest.settings["imported"])


def not_needed(stage: str, imported: ImportedMaps | None) -> bool:
    """Return whether a stage's result has been replaced by imported maps."""
    return imported is not None and stage in REPLACED


def import_again(run: str, imported: ImportedMaps) -> str:
    """Return what to do about imported maps that are not complete, or are of another data set."""
    return f"vwl seeds import {imported.folder} --run {run}, or delete {run}/{STAGE} to compute the maps"
