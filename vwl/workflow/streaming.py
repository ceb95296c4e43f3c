"""CAM, CRF and IRNet's labels in one pass: while networks make the maps, the CPUs that they leave refine those that are there.

The stages behind the maps do ahead whole shards of theirs, the same that they would do later, so afterwards `run_stages` finds them
done and does the rest: a streamed run holds the same bytes as one stage after the other, and both go on where the other was cut off.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from threading import Thread

from vwl.inference.build import MapSpec
from vwl.inference.runner import SHARD_SIZE, Shard, shards, unfinished
from vwl.workflow.pipeline import Maps, Report, map_spec, stage_rows
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import STAGES

STREAMED = ("cam", "crf", "irnet-labels")
"""The stages of a streamed pass; those behind the first read its maps and nothing else."""
_SHARDS_A_CPU = 4
"""Shards that are worth a pool of processes, which takes seconds to start, for each of its CPUs."""
_POLL = 1.0
"""Seconds between looks at what is there."""


class Streaming:
    """Takes the shards of a run's CAM stage through an engine, and at the same time what its maps allow of the stages behind it."""

    def __init__(self, run: Run, maps: Maps, strict: bool = False) -> None:
        """Work for `run` with the engine `maps`, which does all other stages as ever."""
        self._run, self._maps, self._strict = run, maps, strict

    def split(self) -> tuple[int, int] | None:
        """As the engine's."""
        return self._maps.split()

    def run_shards(self, spec: MapSpec, shards: list[Shard], images_done: int, report: Report, most: int | None = None) -> None:
        """As the engine's `run_shards`, which says what it raises."""
        followers = [name for name in STREAMED[1:] if self._can_start(name)] if spec.stage == STREAMED[0] else []
        places = self.split()
        if places is None or not followers:
            self._maps.run_shards(spec, shards, images_done, report, most)
            return
        networks, rest = places
        for name in followers:
            self._run.begin(name)  # which clears away what other settings have left
        made = _Made(self._run)
        making = _Background(partial(self._maps.run_shards, spec, shards, images_done, report, networks))
        while making.is_alive():
            made.look()
            ready = {name: made.shards_of(name) for name in followers}
            todo = {name: unfinished(ready[name], self._run.stage_folder(name)) for name in followers}
            name = max(followers, key=lambda name: len(todo[name]))
            if len(todo[name]) >= _SHARDS_A_CPU * rest:
                self._refine(name, todo[name], _images(ready[name]) - _images(todo[name]), rest, report)
            else:
                time.sleep(_POLL)
        making.end()

    def _can_start(self, name: str) -> bool:
        """Whether a stage is to be done and needs nothing that is known only when all maps are made (a threshold chosen from them)."""
        return not self._run.is_done(name) and not (name == "crf" and self._run.recipe.crf.background == "auto")

    def _refine(self, name: str, todo: list[Shard], images_done: int, places: int, report: Report) -> None:
        images = len(STAGES[name].rows(self._run.index))
        spec = map_spec(self._run, name, self._strict)
        manifest, began = self._run.begin(name), time.monotonic()
        try:
            self._maps.run_shards(spec, todo, images_done, lambda stage, done, _, news: report(stage, done, images, news), places)
        finally:
            manifest["seconds"] = round(manifest["seconds"] + time.monotonic() - began, 3)
            self._run.write_manifest(name, manifest)


class _Made:
    """What there is of the maps so far."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._shards = {f"{shard.number:05d}.json": shard for shard in shards(stage_rows(run, STREAMED[0]))}
        self._looked_at: set[str] = set()
        self._made: set[str] = set()
        self._failed: set[str] = set()

    def look(self) -> None:
        """Read the notes of the shards that have ended since."""
        done = self._run.stage_folder(STREAMED[0]) / "done"
        for name in set(done.names(".json")) - self._looked_at:
            self._made.update(row.image_id for row in self._shards[name].rows)
            self._failed.update(done.read_json(name)["failed"])
            self._looked_at.add(name)

    def shards_of(self, stage: str) -> list[Shard]:
        """Return the shards of a stage behind the maps that can be done.

        An image without a map is in none of them, so where a shard ends is known only when all images before have been tried.
        """
        rows = STAGES[stage].rows(self._run.index)
        tried = list(takewhile(lambda row: row.image_id in self._made, rows))
        found = shards([row for row in tried if row.image_id not in self._failed])
        return found if len(tried) == len(rows) else [shard for shard in found if len(shard.rows) == SHARD_SIZE]


class _Background:
    """A call in a thread that does not keep the process alive: after Ctrl-C nobody waits for it."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # raised again by `end`, where somebody waits for it
            self._error = error

    def is_alive(self) -> bool:
        """Return whether the call has not ended."""
        return self._thread.is_alive()

    def end(self) -> None:
        """Wait for the call, and raise what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error


def _images(some: Sequence[Shard]) -> int:
    return sum(len(shard.rows) for shard in some)
