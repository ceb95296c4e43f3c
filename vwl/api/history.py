"""The metrics that the stages of a run have left in its folder."""

import json
import math
from typing import Any

from vwl.api.events import Metrics
from vwl.training.checkpoint import steps
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import SCORED

_NOT_METRICS = {"step", "num_steps"}


def training_metrics(run: Run, stage: str, first: int = 0) -> list[Metrics]:
    """Return the lines of a training's metrics.jsonl from line `first` on; none of a training with other settings or inputs."""
    folder, manifest = run.stage_folder(stage), run.manifest(stage)
    if manifest is None or manifest.fingerprint != run.fingerprint(stage) or not folder.exists("metrics.jsonl"):
        return []
    lines = folder.read("metrics.jsonl").decode(errors="replace").split("\n")[:-1]  # what follows the last newline is not yet whole
    parsed = ((number, _parsed(line)) for number, line in enumerate(lines[first:], first))
    return [
        Metrics(stage, int(values["step"]), {name: value for name, value in values.items() if name not in _NOT_METRICS}, number)
        for number, values in parsed
        if values is not None
    ]


def num_kept(run: Run, stage: str) -> int:
    """Return how many lines of a training's metrics.jsonl stay when it is started again: those up to its last checkpoint."""
    last = max(steps(run.stage_folder(stage) / "checkpoints"), default=None)
    return 0 if last is None else sum(metrics.step is not None and metrics.step <= last for metrics in training_metrics(run, stage))


def score_metrics(run: Run, stage: str) -> Metrics | None:
    """Return the scores of a stage that is done; none if it has none."""
    manifest = run.manifest(stage) if stage in SCORED else None
    if manifest is None or manifest.state != "done" or not manifest.scores:
        return None
    values: dict[str, float] = {"seconds": manifest.seconds}
    for score in manifest.scores:
        named = {name: value for name, value in vars(score).items() if name not in {"stage", "split"}}
        values |= {f"{score.split}_{name}": float(value) for name, value in named.items() if _is_number(value)}
    return Metrics(stage, None, values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _parsed(line: str) -> dict[str, Any] | None:
    """Return a line's values; none if it is damaged."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) and _is_number(values.get("step")) else None
