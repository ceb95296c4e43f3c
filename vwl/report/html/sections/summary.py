"""The summary: headline figures, the table of scores, how far each stage is, and what was chosen how."""

from collections.abc import Sequence
from dataclasses import dataclass

from vwl.report.html.page import Section, duration, number
from vwl.workflow.manifest import Manifest
from vwl.workflow.run_folder import Run
from vwl.workflow.scoring import ScoreLine, score_table, why_unscored
from vwl.workflow.stages import STAGES, stages_of
from vwl.workflow.status import StageStatus, stage_status

STAGE_NAMES = {"cam": "CAM", "crf": "CRF", "walk": "Random walk", "segment": "Segmentation"}
"""Names of the scored stages in headings."""


@dataclass(frozen=True)
class Figure:
    """A headline figure: its name, value and unit, and a line below."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Choice:
    """What was chosen, its value, and how."""

    what: str
    value: str
    how: str


@dataclass(frozen=True)
class StageLine:
    """A stage: how far it is, its size, time and what it failed on."""

    status: StageStatus
    done: str
    failed: int
    finished: str


@dataclass(frozen=True)
class Summary:
    """Content of the section.

    Attributes:
        figures: headline figures.
        scores: the table of scored stages.
        unscored: why there are none; empty if there are.
        scored_classes: which classes the mIoU is taken over.
        stages: one line for each stage.
        choices: thresholds, weights, seed.
        names: of the scored stages.
    """

    figures: Sequence[Figure]
    scores: Sequence[ScoreLine]
    unscored: str
    scored_classes: str
    stages: Sequence[StageLine]
    choices: Sequence[Choice]
    names: dict[str, str]


def summary_section(run: Run) -> Section:
    """Return the section of a run."""
    manifests = {stage: manifest for stage in stages_of(run.recipe) if (manifest := run.manifest(stage)) is not None}
    scores = score_table(run)
    content = Summary(
        _figures(run, scores, manifests),
        scores,
        "" if scores else why_unscored(run),
        run.recipe.evaluation.described,
        [_stage_line(run, stage, manifests.get(stage)) for stage in stages_of(run.recipe)],
        _choices(run, manifests),
        STAGE_NAMES,
    )
    return Section("summary", "Summary", content)


def _figures(run: Run, scores: Sequence[ScoreLine], manifests: dict[str, Manifest]) -> list[Figure]:
    figures = []
    held_out = [line for line in scores if line.split == "val"] or list(scores)
    if held_out:
        last = held_out[-1]
        figures.append(Figure(f"mIoU, {STAGE_NAMES[last.stage].lower()}", f"{last.miou:.1f} %", f"{last.split}, {last.images:,} images"))
    masks = [line for line in scores if line.split == "train" and line.stage == "walk"]
    if masks:
        figures.append(Figure("mIoU, pseudo masks", f"{masks[0].miou:.1f} %", f"train, {masks[0].images:,} images, after the walk"))
    splits = run.index.rows.split_counts()
    figures.append(Figure("Images", f"{len(run.index.rows):,}", ", ".join(f"{count:,} {split}" for split, count in splits.items())))
    figures.append(Figure("Classes", f"{run.index.num_objects}", "and the background"))
    figures.append(Figure("Working time", duration(sum(m.seconds for m in manifests.values())), f"{len(manifests)} stages"))
    return figures


def _stage_line(run: Run, stage: str, manifest: Manifest | None) -> StageLine:
    status = stage_status(run, stage)
    unit = "steps" if STAGES[stage].kind == "train" else "images"
    if status.total is None:
        size = "–"
    elif status.done == status.total:
        size = f"{number(status.total)} {unit}"
    else:
        size = f"{number(status.done)} of {number(status.total)} {unit}"
    finished = manifest.finished if manifest is not None and manifest.finished else ""
    return StageLine(status, size, 0 if manifest is None else len(manifest.failed), finished[:16].replace("T", " ") or "–")


def _choices(run: Run, manifests: dict[str, Manifest]) -> list[Choice]:
    found = [
        Choice("recipe", run.recipe.name, "settings that differ from it are listed below"),
        Choice("seed", str(run.recipe.seed), "recipe"),
    ]
    imported = run.imported_maps()
    if imported is not None:
        found.append(Choice("score maps", f"{imported.files:,} files, {imported.format}", f"imported from {imported.folder}"))
    for stage, manifest in manifests.items():
        if manifest.pretrained:
            found.append(Choice(f"{stage}: initial weights", ", ".join(manifest.pretrained), "recipe"))
        if manifest.threshold is not None:
            found.append(Choice(f"{stage}: background threshold", f"{manifest.threshold:g}", manifest.threshold_chosen or ""))
        found += [
            Choice(f"{stage}: threshold of {name}", f"{value:g}", "Otsu, of the class's own maps")
            for name, value in manifest.class_thresholds.items()
        ]
        if manifest.copied_from:
            found.append(Choice(f"{stage}: result", "copied", f"from {manifest.copied_from}"))
    return found
