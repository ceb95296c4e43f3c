"""What an inference stage of a run works on: its images, and the background score and class scales of the maps it reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vwl.inference.build import InferenceSpec
from vwl.inference.seeds import NO_FILE
from vwl.workflow.imported import ImportedMaps
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import refined_maps

OWN_BACKGROUND = "own background of the maps"
"""How a threshold was chosen where maps have a map of the background, and need none."""


@dataclass(frozen=True)
class Background:
    """The background's score beside score maps.

    Attributes:
        threshold: for all classes.
        chosen: how it was chosen.
        class_thresholds: by class name, where each class has its own.
    """

    threshold: float
    chosen: str
    class_thresholds: Mapping[str, float] = field(default_factory=dict)


def inference_spec(run: Run, stage: str, strict: bool = False) -> InferenceSpec:
    """Return what workers need for an inference stage; a stage whose threshold it uses must be done."""
    background = input_background(run, stage)
    threshold = None if background is None else background.threshold
    scales, index = class_scales(run, background), run.index.without_rows()
    return InferenceSpec(stage, run.recipe, run.index_path, run.folder, threshold, strict, scales, index)


def failures_to_report(run: Run, stage: str) -> list[str]:
    """Return the ids of the images that failed in a stage, without those for which no map was to be imported."""
    manifest = run.manifest(stage)
    return [] if manifest is None else [image_id for image_id, reason in manifest.failed.items() if reason != NO_FILE]


def import_note(imported: ImportedMaps, failed: Mapping[str, str]) -> str:
    """Return a line on imported maps for `vwl status`."""
    without = sum(reason == NO_FILE for reason in failed.values())
    parts = [f"imported from {imported.folder} ({imported.format})"]
    parts += [f"{without} images without a file"] if without else []
    parts += [f"{len(failed) - without} images failed"] if len(failed) > without else []
    return ", ".join(parts)


def input_background(run: Run, stage: str) -> Background | None:
    """Return the background score that a stage cuts or refines maps with; none for stages that use none."""
    if stage == "crf" and (cam := run.manifest("cam")) and cam.threshold_chosen == OWN_BACKGROUND:
        return Background(0.0, OWN_BACKGROUND)
    if stage == "crf" and run.recipe.crf.background != "auto":
        return Background(float(run.recipe.crf.background), "recipe")
    if stage in {"crf", "masks"}:
        maps = run.manifest("cam" if stage == "crf" else refined_maps(run.recipe))
        assert maps is not None
        assert maps.threshold is not None
        return Background(maps.threshold, maps.threshold_chosen or "", maps.class_thresholds)
    return None


def class_scales(run: Run, background: Background | None) -> dict[int, float]:
    """Return the factor by class id that brings each class's own threshold to the one for all classes."""
    if background is None:
        return {}
    return {run.index.classes.index(name): background.threshold / own for name, own in background.class_thresholds.items()}
