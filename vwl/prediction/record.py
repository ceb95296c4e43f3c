"""The record of a folder of predictions, `predictions.jsonl`: one JSON object a line, appended when an image is done.

After a kill it says what is there: an image is kept if the line's settings, image file and result files are what they were.
"""

import time
from collections.abc import Callable, Iterable

from pydantic import ValidationError

from vwl.errors import VwlError
from vwl.prediction.results import PredictionLine
from vwl.storage.checked import digest
from vwl.storage.folder import Folder

NAME = "predictions.jsonl"
_SECONDS = 30.0
"""Time between writes to an object store, which rewrites the whole file."""


class PredictionRecord:
    """The lines of a folder, by the name of the results."""

    def __init__(self, folder: Folder, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the record in a folder; lines that a killed process or someone else has damaged do not count."""
        self._folder, self._clock = folder, clock
        self.lines: dict[str, PredictionLine] = {}
        self._unwritten: list[str] = []
        self._written = clock()
        text = folder.read(NAME).decode(errors="replace") if folder.exists(NAME) else ""
        for part in text.splitlines():
            try:
                line = PredictionLine.model_validate_json(part)
            except ValidationError:
                continue
            self.lines[line.name] = line
        if text and (not text.endswith("\n") or len(self.lines) < text.count("\n")):
            self._rewrite()

    def done(self, wanted: PredictionLine, files: Iterable[str]) -> PredictionLine | None:
        """Return the line of results that are there as they were written, none if an image is to be segmented.

        Args:
            wanted: image, frame, name, labels, settings and source as the line of new results would have them.
            files: names of the files that are wanted.
        """
        line = self.lines.get(wanted.name)
        if line is None or line.status != "ok" or (line.settings, line.labels) != (wanted.settings, wanted.labels):
            return None
        if (line.source, line.frame) != (wanted.source, wanted.frame) or not set(files) <= set(line.files):
            return None
        if any(not self._is_intact(name, *line.files[name]) for name in files):
            return None
        kept = line.model_copy(update={"image": wanted.image})
        self.lines[line.name] = kept
        return kept

    def add(self, line: PredictionLine) -> None:
        """Add or replace a line, and write it before long."""
        self.lines[line.name] = line
        self._unwritten.append(line.model_dump_json() + "\n")
        if self._folder.is_local or self._clock() - self._written > _SECONDS:
            self._folder.append(NAME, "".join(self._unwritten))
            self._unwritten, self._written = [], self._clock()

    def finish(self, names: Iterable[str]) -> None:
        """Write the record with each line once: those of other calls first, then those of `names`, in this order."""
        last = [self.lines.pop(name) for name in dict.fromkeys(names) if name in self.lines]
        self.lines |= {line.name: line for line in last}
        self._rewrite()

    def _rewrite(self) -> None:
        self._folder.write(NAME, "".join(line.model_dump_json() + "\n" for line in self.lines.values()).encode())
        self._unwritten = []

    def _is_intact(self, name: str, size: int, content: str) -> bool:
        if not self._folder.exists(name):
            return False
        try:
            data = self._folder.read(name)
        except VwlError:
            return False
        return len(data) == size and digest(data) == content
