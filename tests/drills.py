"""Interrupt drills: `vwl run` is signalled in the middle of chosen stages and started again until it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

SETTINGS = [
    "classifier.backbone.weights=none",
    "classifier.crop=64",
    "classifier.resize=[64,96]",
    "classifier.epochs=2",
    "classifier.batch_size=4",
    "classifier.codebook.num_codewords=16",
    "cam.long_side=96",
    "irnet.backbone.weights=none",
    "irnet.crop=80",
    "irnet.long_side=96",
    "irnet.batch_size=4",
    "irnet.radius=4",
    "irnet.epochs=1",
    "walk.long_side=96",
    "segmenter.backbone.weights=none",
    "segmenter.crop=65",
    "segmenter.long_side=96",
    "segmenter.iterations=8",
    "segmenter.batch_size=4",
    "segment.long_side=96",
]
"""The recipe `demo` at a size where every stage takes seconds."""


@dataclass
class Drill:
    """What a signalled run did.

    Attributes:
        starts: how often the command was started.
        codes: its exit codes.
        outputs: what it printed on stderr.
    """

    starts: int
    codes: list[int]
    outputs: list[str]


def command(index: Path, run: Path, backend: str) -> list[str]:
    overrides = [part for setting in SETTINGS for part in ("-o", setting)]
    head = [sys.executable, "-m", "vwl.cli.main", "run", "--data", str(index), "--recipe", "demo", "--run", str(run)]
    # One thread: the spinning threads of several processes slow each other down by orders of magnitude.
    return [*head, "--backend", backend, "--cpus-per-worker", "1", "--checkpoint-steps", "2", *overrides]


def run_with_signals(index: Path, run: Path, backend: str, signals: dict[str, signal.Signals], timeout: float = 240) -> Drill:
    """Run to the end; the first time that each stage of `signals` is in the middle, send its signal."""
    drill, left = Drill(0, [], []), dict(signals)
    while True:
        errors = run.parent / f"{run.name}-{drill.starts}.log"
        with errors.open("w") as log:
            process = subprocess.Popen(
                command(index, run, backend), stdout=subprocess.DEVNULL, stderr=log, start_new_session=True, cwd=Path(__file__).parents[1]
            )
            drill.starts += 1
            deadline = time.monotonic() + timeout
            while process.poll() is None and time.monotonic() < deadline:
                stage = next((name for name in left if in_the_middle(run, name)), None)
                if stage is not None:
                    sent = left.pop(stage)
                    # a terminal's Ctrl-C reaches the whole group; whoever terminates means the command, not the Ray that it has started
                    (os.kill if sent == signal.SIGTERM else os.killpg)(process.pid, sent)
                    process.wait(timeout=timeout)
                time.sleep(0.01)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                raise TimeoutError(errors.read_text())
        drill.codes.append(process.returncode)
        drill.outputs.append(errors.read_text())
        if process.returncode == 0:
            assert not left, f"never in the middle of {left}"
            return drill
        assert process.returncode in {130, -signal.SIGKILL}, drill.outputs[-1]


def in_the_middle(run: Path, stage: str) -> bool:
    """Return whether a stage has left something of its result and is not done."""
    try:
        if json.loads((run / stage / "manifest.json").read_text())["state"] == "done":
            return False
    except (OSError, ValueError):
        return False
    return any((run / stage / "checkpoints").glob("step-*.pt")) or any((run / stage / "done").glob("*.json"))


def results(run: Path) -> dict[str, bytes]:
    """Return what must be equal between an interrupted and an undisturbed run: masks, maps and scores, by name."""
    files = [*run.glob("*/*.png"), *run.glob("*/*.parquet"), *run.glob("*/scores-*.json")]
    return {str(path.relative_to(run)): path.read_bytes() for path in files if "pictures" not in path.parts}
