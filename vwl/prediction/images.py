"""Segments images and writes their files: the work that the processes of `vwl.prediction.pool` do."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from torch import from_numpy
from torch.nn import functional

from vwl.errors import VwlError
from vwl.inference.segment import SoftMask, crf_classes
from vwl.maps.cam import downsample
from vwl.model_file.image_input import read_image_file
from vwl.model_file.models import SegmentationModel
from vwl.model_file.prediction import Prediction
from vwl.prediction.results import ClassArea, PredictionLine
from vwl.report.sheets import encode_png
from vwl.storage.checked import digest
from vwl.storage.folder import Folder
from vwl.storage.masks import encode_mask
from vwl.storage.score_maps import ScoreMap, encode_maps

_LONGEST_NAME = 200
"""Bytes of a file's name, to which endings are added; most file systems allow 255."""


@dataclass(frozen=True)
class Job:
    """An image to be segmented.

    Attributes:
        line: of the record, with what is known before.
        classes: ids of the object classes that it may hold; none for all.
        pixels: (H, W, 3) uint8 of the frame of a video; none for an image file.
    """

    line: PredictionLine
    classes: tuple[int, ...] | None = None
    pixels: np.ndarray | None = None


@dataclass(frozen=True)
class Output:
    """What is written of each image, and how.

    Attributes:
        folder: for the files.
        crf: refine the masks with the dense CRF; none: as the model's run did.
        overlay, scores: whether these files are written.
        batch: images of one size that pass through the network together.
    """

    folder: Folder
    crf: bool | None = None
    overlay: bool = True
    scores: bool = False
    batch: int = 1

    def files_of(self, name: str) -> dict[str, str]:
        """Return the names of an image's files by kind: mask, overlay, scores."""
        wanted = {"mask": f"{name}_mask.png", "overlay": f"{name}_overlay.png", "scores": f"{name}_scores.parquet"}
        return {kind: file for kind, file in wanted.items() if kind == "mask" or getattr(self, kind)}


@dataclass(frozen=True, eq=False)  # arrays have no truth value
class Read:
    """A job with its pixels, or with the reason why they cannot be read."""

    job: Job
    pixels: np.ndarray | None
    problem: str | None = None


@dataclass(frozen=True, eq=False)
class Segmented:
    """A job with its pixels and scores, or with the reason why there are none."""

    read: Read
    soft: SoftMask | None = None


def read(job: Job) -> Read:
    """Return a job with its pixels."""
    if len(job.line.name.rpartition("/")[2].encode(errors="replace")) > _LONGEST_NAME:
        return Read(job, None, f"{job.line.image}: its name is too long for the names of its results; shorten it")
    try:
        return Read(job, read_image_file(job.line.image) if job.pixels is None else job.pixels)
    except VwlError as error:
        return Read(job, None, str(error))


def segment(model: SegmentationModel, images: Sequence[Read], output: Output) -> Iterator[Segmented]:
    """Yield the scores of images, those of one size together in batches; the order changes."""
    yield from (Segmented(image) for image in images if image.pixels is None)
    readable = sorted((image for image in images if image.pixels is not None), key=_shape)
    for _, same in groupby(readable, _shape):
        group = list(same)
        for start in range(0, len(group), output.batch):
            batch = group[start : start + output.batch]
            pixels = [image.pixels for image in batch if image.pixels is not None]
            found = model.soft_masks(pixels, output.crf, [image.job.classes for image in batch])
            yield from (Segmented(*pair) for pair in zip(batch, found, strict=True))


def write(model: SegmentationModel, found: Segmented, output: Output) -> PredictionLine:
    """Write the files of an image and return its line of the record.

    Raises:
        VwlError: they cannot be written.
    """
    line, pixels = found.read.job.line, found.read.pixels
    if pixels is None or found.soft is None:
        return line.model_copy(update={"status": "failed", "problem": found.read.problem})
    height, width = pixels.shape[:2]
    mask = found.soft.mask(height, width)
    prediction = Prediction(mask, model.classes, model.palette, pixels)
    names, contents = output.files_of(line.name), {"mask": encode_mask(mask, model.palette)}
    if output.overlay:
        contents["overlay"] = encode_png(prediction.overlay())
    if output.scores:
        contents["scores"] = encode_maps([score_map(line.name, found.soft, height, width)])
    for kind, data in contents.items():
        output.folder.write(names[kind], data)
    files = {names[kind]: (len(data), digest(data)) for kind, data in contents.items()}
    areas = {"height": height, "width": width, "classes": class_areas(mask, model.classes)}
    return line.model_copy(update={"status": "ok", **areas, **names, "files": files})


def process(model: SegmentationModel, jobs: Iterable[Job], output: Output) -> list[PredictionLine]:
    """Segment some images, write their files and return their lines of the record.

    Raises:
        VwlError: files cannot be written.
    """
    return [write(model, found, output) for found in segment(model, [read(job) for job in jobs], output)]


def class_areas(mask: np.ndarray, classes: Sequence[str]) -> tuple[ClassArea, ...]:
    """Return the areas of the classes in a mask (H, W) uint8, by id."""
    counts = np.bincount(mask.ravel(), minlength=len(classes))
    return tuple(
        ClassArea(id=number, name=name, pixels=int(count), share=int(count) / mask.size)
        for number, (name, count) in enumerate(zip(classes, counts, strict=True))
        if count
    )


def score_map(name: str, soft: SoftMask, height: int, width: int) -> ScoreMap:
    """Return the scores of an image of `height` x `width` pixels at stride 4, float16, as the stages of a run store theirs.

    Classes that are nowhere the most probable, and nowhere above 0.05, are left out.
    """
    kept = crf_classes(soft.scores)
    values = [_at_stride_4(soft.scores[number], height, width) for number in kept]
    return ScoreMap(name, tuple(int(soft.class_ids[number]) for number in kept), height, width, np.concatenate(values))


def _at_stride_4(scores: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return one class's scores (h, w), which are enlarged to the image's size first, as (1, ceil(height / 4), ceil(width / 4)) float16."""
    if scores.shape != (height, width):
        scores = functional.interpolate(from_numpy(scores)[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0].numpy()
    return downsample(scores[None]).clip(0, 1).astype(np.float16)


def _shape(image: Read) -> tuple[int, ...]:
    return () if image.pixels is None else image.pixels.shape
