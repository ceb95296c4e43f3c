"""How far the stages of a run are, for `vwl status`."""

import json
from dataclasses import dataclass

from vwl.inference.runner import shards, unfinished
from vwl.workflow.imported import imported_maps
from vwl.workflow.inputs import import_note, stage_rows
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import STAGES


@dataclass(frozen=True)
class StageStatus:
    """How far a stage is.

    Attributes:
        stage: its name.
        state: `not started`, `not needed` (imported maps), `running`, `done`, or `outdated` where settings or inputs have changed since.
        done, total: steps of a training, images of an inference stage; none if unknown.
        seconds: working time; none before the start.
        note: newest loss, number of failed images, or why it is outdated.
    """

    stage: str
    state: str
    done: int | None = None
    total: int | None = None
    seconds: float | None = None
    note: str = ""


def stage_status(run: Run, stage: str) -> StageStatus:
    """Return how far a stage is, from its manifest, its metrics and its finished shards."""
    manifest = run.manifest(stage)
    if manifest is None:
        return StageStatus(stage, "not started") if run.needs(stage) else StageStatus(stage, "not needed", note="the maps are imported")
    outdated = manifest.fingerprint != run.fingerprint(stage)
    state, note = ("outdated", "settings or inputs have changed since") if outdated else (manifest.state, "")
    done: int | None = None
    total: int | None = None
    if STAGES[stage].kind == "train":
        folder = run.stage_folder(stage)
        lines = folder.read("metrics.jsonl").decode().splitlines() if folder.exists("metrics.jsonl") else []
        steps = [entry for entry in map(json.loads, lines) if "loss" in entry]
        if steps:
            done, total, note = steps[-1]["step"], steps[-1]["num_steps"], f"loss {steps[-1]['loss']:.4f}"
    else:
        all_shards = shards(stage_rows(run, stage))
        total = sum(len(shard.rows) for shard in all_shards)
        done = total - sum(len(shard.rows) for shard in unfinished(all_shards, run.stage_folder(stage)))
        note = f"{len(manifest.failed)} images failed" if manifest.failed else note
        if imported := imported_maps(manifest):
            note = import_note(imported, manifest.failed)
    return StageStatus(stage, state, done, total, manifest.seconds, note)
