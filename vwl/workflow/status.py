"""How far the stages of a run are, for `vwl status`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from vwl.inference.runner import unfinished
from vwl.inference.shard_files import shards_of
from vwl.storage.lock import is_locked
from vwl.workflow.imported import imported_maps
from vwl.workflow.inputs import import_note
from vwl.workflow.manifest import Manifest
from vwl.workflow.run_folder import Run, fault_line
from vwl.workflow.stages import STAGES


@dataclass(frozen=True)
class StageStatus:
    """How far a stage is.

    Attributes:
        stage: its name.
        state: `not started`; `not needed` (imported maps, another refiner); `running` while a process works on it, `interrupted` when
            none does and it has not ended; `done`, or `incomplete` where files of its result are missing or damaged; `outdated` where
            settings or inputs have changed since.
        done, total: steps of a training, images of an inference stage; none if unknown.
        seconds: working time, of a running stage until now; none before the start.
        scoring_seconds: time that choosing its thresholds and scoring it took; none if it was not scored.
        note: newest loss, number of failed images, or a line on the state.
    """

    stage: str
    state: str
    done: int | None = None
    total: int | None = None
    seconds: float | None = None
    scoring_seconds: float | None = None
    note: str = ""


def stage_status(run: Run, stage: str) -> StageStatus:
    """Return how far a stage is, from its manifest, its lock, its metrics and its files."""
    manifest = run.manifest(stage)
    if manifest is None:
        return StageStatus(stage, "not started") if run.needs(stage) else StageStatus(stage, "not needed", note=run.why_not_needed(stage))
    found = run.faults(stage)
    state, note = _state(run, manifest, found)
    seconds = manifest.seconds
    if state == "running" and manifest.resumed is not None:
        since = datetime.now().astimezone() - datetime.strptime(manifest.resumed, "%Y-%m-%dT%H:%M:%S%z")
        seconds = round(seconds + max(0.0, since.total_seconds()), 1)
    done: int | None = None
    total: int | None = None
    if STAGES[stage].kind == "train":
        folder = run.stage_folder(stage)
        lines = folder.read("metrics.jsonl").decode(errors="replace").splitlines() if folder.exists("metrics.jsonl") else []
        steps = [step for step in map(_logged_step, lines) if step is not None]
        if steps:
            done, total, loss = steps[-1]
            note = "; ".join(filter(None, (f"loss {loss:.4f}", note)))
    else:
        all_shards = run.shards(stage)
        total = sum(len(shard.rows) for shard in all_shards)
        left = [*unfinished(all_shards, run.stage_folder(stage)), *shards_of(all_shards, STAGES[stage].kind == "maps", found)]
        done = total - sum({shard.number: len(shard.rows) for shard in left}.values())
        imported = imported_maps(manifest)
        about = import_note(imported, manifest.failed) if imported else f"{len(manifest.failed)} images failed" if manifest.failed else ""
        note = "; ".join(filter(None, (about, note)))
    return StageStatus(stage, state, done, total, seconds, manifest.scoring_seconds, note)


def _state(run: Run, manifest: Manifest, found: Mapping[str, str]) -> tuple[str, str]:
    """Return a stage's state and a line on it; `found` are its faulty files."""
    stage = manifest.stage
    if manifest.fingerprint != run.fingerprint(stage):
        return "outdated", "settings or inputs have changed since"
    if manifest.state == "done":
        damage = fault_line(run.stage_folder(stage), found)
        return ("incomplete", f"{damage}; run the same command again") if damage else ("done", "")
    locked = is_locked(run.folder, stage)
    if locked is None:
        return "running", "or interrupted: this storage has no locks"
    return ("running", "") if locked else ("interrupted", "run the same command again to resume")


def _logged_step(line: str) -> tuple[int, int, float] | None:
    """Return step, number of steps and loss of a line of metrics.jsonl; none if it has none or is damaged, e.g. cut off by a kill."""
    try:
        entry = json.loads(line)
        return int(entry["step"]), int(entry["num_steps"]), float(entry["loss"])
    except (ValueError, KeyError, TypeError):
        return None
