"""The manifest of a stage: `manifest.json` in its folder, which says what made the stage's result and how it scored."""

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from vwl.errors import Damaged, VwlError
from vwl.storage.checked import read_checked, write_checked
from vwl.storage.folder import Folder
from vwl.storage.record import read_record
from vwl.training.numerics import Numerics

NAME = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class StageScore:
    """A stage's score on a split, without the details that `scores-<split>.json` holds.

    Attributes:
        stage, split: what was scored.
        images: number of images.
        miou: percent.
        object_precision, object_recall: means over the object classes, percent; low precision is over-activation, low recall
            under-activation.
        threshold: background score that the masks were made with; none if the stage uses none.
        threshold_chosen: how it was chosen.
        best_miou_with_ground_truth, best_threshold_with_ground_truth: of the threshold that ground truth would choose (score maps only).
    """

    stage: str
    split: str
    images: int
    miou: float
    object_precision: float | None = None
    object_recall: float | None = None
    threshold: float | None
    threshold_chosen: str
    best_miou_with_ground_truth: float | None
    best_threshold_with_ground_truth: float | None


@dataclass(frozen=True)
class Manifest:
    """What is known of a stage that has been started.

    Attributes:
        stage: its name.
        state: `running` until the result is complete.
        fingerprint: hash of settings, seed, data set and the fingerprints of the stages it reads.
        settings: the recipe's part that the result depends on.
        seed, recipe: seed and name of the recipe.
        reads: fingerprints of the stages it reads.
        index: fingerprint of the data set.
        versions: of the packages that computed it, and the commit of this code.
        started, finished: local time, ISO 8601.
        seconds: working time, summed over interruptions.
        images: number it was made from.
        steps, training_scores, pretrained: of a training: steps done, scores on held-out images, weights files loaded at the start.
        numerics: of a training: device, precision, TF32 and cuDNN settings of its last start.
        failed: reason by id of each image that could not be processed.
        threshold, threshold_chosen: the background's score, and how it was chosen; none if the stage has none.
        class_thresholds: background score by class name, where each class has its own.
        scoring_settings: the settings that threshold and scores depend on, but not the result.
        scores: one per split with ground truth.
        scoring_seconds: time that choosing thresholds and scoring took the last time; none before.
        copied_from: the search trial whose result this is a copy of.
        splits: of the segment stage, the splits that were asked for beside the images that it always processes, in order.
        notes: lines on the result, e.g. classes without prototypes (LPCAM).
        resumed: local time of the last start, ISO 8601.
        shard_sizes: images per shard of an inference stage, of those that it always processes and of each split that was asked for; none
            if all are 16.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    stage: str
    state: Literal["running", "done"]
    fingerprint: str
    settings: Any
    seed: int
    recipe: str
    reads: dict[str, str]
    index: str
    versions: dict[str, str]
    started: str
    seconds: float = 0.0
    finished: str | None = None
    images: int | None = None
    steps: int | None = None
    training_scores: dict[str, float] | None = None
    pretrained: list[str] | None = None
    numerics: Numerics | None = None
    failed: dict[str, str] = field(default_factory=dict)
    threshold: float | None = None
    threshold_chosen: str | None = None
    class_thresholds: dict[str, float] = field(default_factory=dict)
    scoring_settings: dict[str, Any] | None = None
    scores: list[StageScore] = field(default_factory=list)
    scoring_seconds: float | None = None
    copied_from: str | None = None
    splits: list[str] | None = None
    notes: list[str] | None = None
    resumed: str | None = None
    shard_sizes: list[int] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return all values but those that are none."""
        return {key: value for key, value in asdict(self).items() if value is not None}


_ADAPTER = TypeAdapter(Manifest)


def read_manifest(folder: Folder) -> Manifest | None:
    """Return the manifest in a stage's folder, or none if the stage was never started; a lost or damaged one from the stage's record.

    Raises:
        VwlError: it is damaged and there is no record, or it was written by another version of vwl.
    """
    damaged = False
    try:
        manifest = _parse(folder)
    except Damaged:
        damaged, manifest = True, None
    if manifest is not None:
        return manifest
    record = read_record(folder)
    if record is None and damaged:
        raise _unreadable(folder)
    try:
        return None if record is None else _ADAPTER.validate_python(record.manifest)
    except ValidationError:
        raise _unreadable(folder) from None


def _parse(folder: Folder) -> Manifest | None:
    """Return the manifest in the file; none if there is no file.

    Raises:
        Damaged: the file was changed.
        VwlError: it is of another version of vwl.
    """
    if not folder.exists(NAME):
        return None
    try:
        return _ADAPTER.validate_python(read_checked(folder, NAME))
    except ValidationError:
        read_checked(folder, NAME, required=True)
        raise _unreadable(folder) from None


def _unreadable(folder: Folder) -> VwlError:
    return VwlError(
        f"{folder.uri_of(NAME)} is damaged or of another version of vwl; "
        f"delete {folder} to run the stage again, or use another --run folder"
    )


def write_manifest(folder: Folder, manifest: Manifest) -> None:
    """Write a stage's manifest, atomically."""
    write_checked(folder, NAME, manifest.as_json())


def restore_manifest(folder: Folder) -> None:
    """Write a lost or damaged manifest again, from the record.

    Raises:
        VwlError: as `read_manifest`.
    """
    with suppress(Damaged):
        if _parse(folder) is not None:
            return
    manifest = read_manifest(folder)
    if manifest is not None:
        write_manifest(folder, manifest)
