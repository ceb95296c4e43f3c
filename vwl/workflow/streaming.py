"""CAM, CRF and IRNet's labels in one pass: while networks make the maps, the remaining CPUs refine the maps that are finished.

The stages after CAM run whole shards early, the same shards that they would run later. `run_stages` then finds these done and does the
rest, so a streamed run writes the same bytes as one stage after the other, and either can resume the other.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from threading import Thread

import numpy as np

from vwl.config.recipe import Recipe
from vwl.data.rows import Row, Rows
from vwl.engine.base import OnProgress, Progress, ShardRunner
from vwl.inference.build import InferenceSpec
from vwl.inference.runner import Shard, shards, unfinished
from vwl.workflow.inputs import inference_spec
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import STAGES, stages_of

STREAMED = ("cam", "crf", "irnet-labels", "psa-labels")
"""Stages that a streamed pass can hold; those after the first read its maps and nothing else."""
_SHARDS_PER_CPU = 4
"""Shards per CPU that are worth starting a pool of processes for, which takes seconds."""
_POLL = 1.0
"""Seconds between checks for finished shards."""


def streamed(recipe: Recipe) -> tuple[str, ...]:
    """Return the stages of a streamed pass: those of its refiner."""
    return tuple(stage for stage in STREAMED if stage in stages_of(recipe))


class Streaming:
    """A shard runner that, during a run's CAM stage, also runs the shards of the stages after it whose maps are finished."""

    def __init__(self, run: Run, runner: ShardRunner, strict: bool = False) -> None:
        """Wrap `runner`, which runs all shards; `strict` as in `run_stages`."""
        self._run, self._runner, self._strict = run, runner, strict

    def split_processes(self) -> tuple[int, int] | None:
        """Return the wrapped runner's."""
        return self._runner.split_processes()

    def run_shards(
        self, spec: InferenceSpec, shards: list[Shard], images_done: int, on_progress: OnProgress, max_processes: int | None = None
    ) -> None:
        """Run shards as the wrapped runner does, and in the CAM stage the shards after them."""
        followers = [stage for stage in STREAMED[1:] if self._can_start(stage)] if spec.stage == STREAMED[0] else []
        processes = self.split_processes()
        if processes is None or not followers:
            self._runner.run_shards(spec, shards, images_done, on_progress, max_processes)
            return
        num_networks, num_refining = processes
        for stage in followers:
            self._run.start_stage(stage)  # deletes results of other settings
        finished = _FinishedMaps(self._run)
        cam = _Background(partial(self._runner.run_shards, spec, shards, images_done, on_progress, num_networks))
        while cam.is_alive():
            finished.update()
            ready = {stage: finished.shards_of(stage) for stage in followers}
            todo = {stage: unfinished(ready[stage], self._run.stage_folder(stage)) for stage in followers}
            stage = max(followers, key=lambda stage: len(todo[stage]))
            if len(todo[stage]) >= _SHARDS_PER_CPU * num_refining:
                self._refine(stage, todo[stage], _num_images(ready[stage]) - _num_images(todo[stage]), num_refining, on_progress)
            else:
                time.sleep(_POLL)
        cam.join()

    def _can_start(self, stage: str) -> bool:
        """Return whether a stage is needed, not done, and needs no threshold chosen from all maps."""
        return (
            self._run.needs(stage) and not self._run.is_done(stage) and not (stage == "crf" and self._run.recipe.crf.background == "auto")
        )

    def _refine(self, stage: str, todo: list[Shard], images_done: int, processes: int, on_progress: OnProgress) -> None:
        total = len(STAGES[stage].rows(self._run.index))
        spec = inference_spec(self._run, stage, self._strict)
        manifest, start = self._run.start_stage(stage), time.monotonic()

        def of_all(progress: Progress) -> None:
            on_progress(replace(progress, total=total))

        try:
            self._runner.run_shards(spec, todo, images_done, of_all, processes)
        finally:
            self._run.write_manifest(replace(manifest, seconds=round(manifest.seconds + time.monotonic() - start, 3)))


class _FinishedMaps:
    """The maps that the CAM stage has finished so far: two bits for each image of the data set."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._shards = {shard.marker: shard for shard in run.shards(STREAMED[0])}
        self._read: set[str] = set()
        self._processed = np.zeros(len(run.index.rows), bool)
        self._failed = np.zeros(len(run.index.rows), bool)

    def update(self) -> None:
        """Read the records of the shards that have finished since the last call."""
        done, columns = self._run.stage_folder(STREAMED[0]) / "done", self._run.index.rows.columns
        for name in set(done.names(".json")) - self._read:
            self._processed[_positions(self._shards[name].rows)] = True
            failed = list(done.read_json(name)["failed"])
            if failed:
                self._failed[columns.find(failed)] = True
            self._read.add(name)

    def shards_of(self, stage: str) -> list[Shard]:
        """Return the shards of a later stage that can run.

        An image whose map failed is in none of them, so a shard's last image is known only when all images before it were processed.
        """
        rows = STAGES[stage].rows(self._run.index)
        missing = np.flatnonzero(~self._processed[_positions(rows)])
        processed = rows[: missing[0]] if len(missing) else rows
        (size,) = self._run.shard_sizes(stage)
        ready = shards(processed.where(~self._failed[_positions(processed)]), sizes=[size])
        return [shard for shard in ready if len(shard.rows) == size] if len(missing) else ready


def _positions(rows: Sequence[Row]) -> np.ndarray:
    """Return the positions of a data set's rows in its index."""
    assert isinstance(rows, Rows)
    return np.asarray(rows.positions, dtype=np.int64)


class _Background:
    """A call in a daemon thread, so that nobody waits for it after Ctrl-C."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # raised again by `join`
            self._error = error

    def is_alive(self) -> bool:
        """Return whether the call is still running."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait for the call, and raise what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error


def _num_images(some: Sequence[Shard]) -> int:
    return sum(len(shard.rows) for shard in some)
