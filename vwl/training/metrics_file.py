"""The file of a training's metrics, metrics.jsonl, after a crash: lines later than the checkpoint are dropped."""

import json

from vwl.storage.folder import Folder


def _step_of(line: str) -> int | None:
    """Return the step of a line of metrics.jsonl; none if the line is damaged, e.g. cut off."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


def drop_later_lines(folder: Folder, step: int) -> None:
    """Leave out the lines of steps after `step`, which will be done again, and damaged ones."""
    if not folder.exists("metrics.jsonl"):
        return
    lines = folder.read("metrics.jsonl").decode(errors="replace").splitlines()
    kept = [line for line in lines if (logged := _step_of(line)) is not None and logged <= step]
    folder.write("metrics.jsonl", "".join(f"{line}\n" for line in kept).encode())
