"""Segments any number of images outside any index into a folder, on a GPU where there is one or on all CPUs; a later call goes on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from vwl.engine.base import OnProgress, Progress
from vwl.errors import VwlError
from vwl.model_file.image_input import require_file
from vwl.model_file.models import SegmentationModel
from vwl.model_file.sources import Source, find_sources, frames_of
from vwl.model_file.video import num_frames
from vwl.prediction.images import Job, Output
from vwl.prediction.labels import ImageLabels
from vwl.prediction.pool import chunks, in_processes, in_this_process, num_processes
from vwl.prediction.record import PredictionRecord
from vwl.prediction.results import PredictedFile, PredictionLine, predicted
from vwl.storage.checked import digest
from vwl.storage.class_table import write_class_table
from vwl.storage.folder import Folder
from vwl.storage.lock import exclusive_lock

__all__ = ["PredictedFile", "predict_files"]


def predict_files(
    model: SegmentationModel,
    images: Sequence[str | Path],
    out: str | Path,
    crf: bool | None = None,
    *,
    overlay: bool = True,
    scores: bool = False,
    labels: str | Path | None = None,
    separator: str | None = None,
    recursive: bool = True,
    every: int = 1,
    batch: int = 1,
    processes: int | None = None,
    on_progress: OnProgress = lambda progress: None,
    on_message: Callable[[str], None] = lambda message: None,
) -> list[PredictedFile]:
    """Segment images and list those that cannot be read. Results that an earlier call has written, and that are intact, are kept.

    The masks have the bits of the run's segment stage, however many processes there are. Files of an image, with NAME as
    `vwl.model_file.sources` says: `NAME_mask.png` (indexed), `NAME_overlay.png` (with a legend), `NAME_scores.parquet` (as a score map
    of a run). `predictions.jsonl` has a line for each image (`PredictionLine`).

    `classes.json` beside them has the names and colours of the class ids.

    Args:
        model: a trained segmentation model, of a run or of a model file.
        images: local files, folders, patterns such as `images/*.jpg`, and videos (with the extra `video`).
        out: folder for the results, path or URI.
        crf: refine the masks with the dense CRF or not; default: as the run did.
        overlay, scores: whether these files are written.
        labels: CSV file of image labels, as `vwl data prepare folder` reads it: a mask has no classes but those of its image.
        separator: what separates labels, a key of `vwl.data.labels_csv.SEPARATORS`; without it, it is detected.
        recursive: whether folders below a folder are searched.
        every: of videos, only each frame of this many.
        batch: images of one size that pass through the network together; more than 1 changes the last bits of the scores.
        processes: on CPUs; default: one for each physical CPU, where the number of images is worth it.
        on_progress: is called with the number of images that are done.
        on_message: is called with lines for the user.

    Returns:
        The results in the order of the images.

    Raises:
        VwlError: there are no images, a result would replace one of them, the labels are wrong, or results cannot be written.
    """
    folder = Folder(out)
    output = Output(folder, model.description.prediction.crf if crf is None else crf, overlay, scores, batch)
    sources = find_sources(images, recursive, out)
    _require_apart(sources, output)
    limits = None if labels is None else ImageLabels(labels, model.classes, sources, separator)
    if limits and limits.num_unused:
        on_message(f"{limits.num_unused:,} lines of {labels} name none of the images")
    total = sum(num_frames(source.path) // every or 1 if source.is_video else 1 for source in sources)
    workers = num_processes(processes, total, model.device)
    with exclusive_lock(folder, "predict"):
        write_class_table(folder, model.classes, model.palette)
        record = PredictionRecord(folder)
        todo = _Todo(model, sources, output, limits, record, every)
        parts = chunks(todo.jobs(), batch)
        working = in_this_process(model, parts, output) if workers == 1 else in_processes(model, parts, output, workers)
        try:
            on_progress(Progress("predict", 0, total))
            with closing(working):
                for lines in working:
                    for line in lines:
                        record.add(line)
                    todo.report(len(lines), total, on_progress)
            todo.report(0, max(total, todo.num_done), on_progress, ended=True)
        finally:
            record.finish(todo.names)
    return [predicted(record.lines[name], str(out), name in todo.kept) for name in todo.names if name in record.lines]


@dataclass
class _Todo:
    """The images of a call: which are done already, and which are to be segmented.

    Attributes:
        names: of the results of all images met so far, in order.
        kept: those of them that an earlier call has written.
        num_done: images that are done.
    """

    model: SegmentationModel
    sources: Sequence[Source]
    output: Output
    labels: ImageLabels | None
    record: PredictionRecord
    every: int
    names: list[str] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    num_done: int = 0

    def jobs(self) -> Iterator[Job]:
        """Yield the images that are to be segmented; of the others, and of what cannot be read, the record holds the lines afterwards."""
        settings = _settings(self.model, self.output)
        for source in self.sources:
            line = PredictionLine(image=_utf8(source.path), name=_utf8(source.name), status="", settings=settings)
            try:
                info = require_file(source.path)
                classes = None if self.labels is None else self.labels.of(source)
                names = None if classes is None else tuple(self.model.classes[number] for number in classes)
                line = line.model_copy(update={"source": (info.st_size, info.st_mtime_ns), "labels": names})
                if not source.is_video:
                    yield from self._unless_done(Job(line, classes))
                    continue
                for name, pixels in frames_of(source, self.every):
                    frame = line.model_copy(update={"name": name, "frame": int(name.rpartition("/")[2])})
                    yield from self._unless_done(Job(frame, classes, pixels))
                self.record.lines.pop(line.name, None)  # of an earlier call that could not read it to the end
            except VwlError as error:
                self.names.append(line.name)
                self.record.add(line.model_copy(update={"status": "failed", "problem": _utf8(str(error))}))
                self.num_done += 1

    def _unless_done(self, job: Job) -> Iterator[Job]:
        self.names.append(job.line.name)
        if self.record.done(job.line, self.output.files_of(job.line.name).values()):
            self.kept.add(job.line.name)
            self.num_done += 1
        else:
            yield job

    def report(self, num: int, total: int, on_progress: OnProgress, ended: bool = False) -> None:
        """Report that `num` more images are done; those of an earlier call are not counted, so that they do not count as speed."""
        self.num_done += num
        kept = f"{len(self.kept):,} of an earlier call" if self.kept else ""
        wanted, done = max(0, total - len(self.kept)), self.num_done - len(self.kept)
        on_progress(Progress("predict", wanted if ended else min(done, max(0, wanted - 1)), wanted, kept))


def _utf8(path: str) -> str:
    """Return a path as it is, or with escapes where it is not UTF-8, which `require_file` refuses."""
    return path.encode("utf-8", "backslashreplace").decode()


def _settings(model: SegmentationModel, output: Output) -> str:
    """Return a digest of what an image's results depend on, beside the image."""
    about = model.description
    parts = (about.weights, about.architecture, about.prediction, about.classes, about.palette, output.crf)
    return digest(repr(parts).encode())


def _require_apart(sources: Sequence[Source], output: Output) -> None:
    """Check that no result would be written over one of the images."""
    if not output.folder.is_local:
        return
    whole = replace(output, overlay=True, scores=True)
    results = {Path(output.folder.path, file) for source in sources for file in whole.files_of(source.name).values()}
    replaced = next((source.path for source in sources if "\0" not in source.path and Path(source.path).absolute() in results), None)
    if replaced is not None:
        raise VwlError(f"a result would be written over the image {replaced}; choose another --out folder")
