"""What is known of one segmented image: the line of `predictions.jsonl`, and what `predict_files` returns."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict


class ClassArea(BaseModel):
    """The area of a class in a mask."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    id: int
    """Class id, 0 for the background."""
    name: str
    """Name of the class."""
    pixels: int
    """Number of its pixels."""
    share: float
    """Its share of the image's pixels, 0 to 1."""


class PredictionLine(BaseModel):
    """One line of `predictions.jsonl`: an image or a frame of a video, and how its results were made."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    image: str
    """The file as it was named or found."""
    frame: int | None = None
    """Number of the frame of a video, from 0."""
    name: str
    """Of the results, relative to the folder, without `_mask.png`."""
    status: str
    """`ok` or `failed`."""
    problem: str | None = None
    """Why it could not be segmented."""
    height: int | None = None
    """Of the upright image, pixels."""
    width: int | None = None
    """Of the upright image, pixels."""
    classes: tuple[ClassArea, ...] = ()
    """Areas of the classes in the mask, by id, the background with them."""
    labels: tuple[str, ...] | None = None
    """Names of the classes that the mask was kept to; none: all."""
    mask: str | None = None
    """The mask's file, relative to the folder."""
    overlay: str | None = None
    """The overlay's file, relative to the folder."""
    scores: str | None = None
    """The file of the soft scores, relative to the folder."""
    settings: str = ""
    """Digest of the model and the settings that the results depend on."""
    source: tuple[int, int] = (0, 0)
    """Size (bytes) and modification time (nanoseconds since 1970) of the image or video."""
    files: dict[str, tuple[int, str]] = {}
    """Size (bytes) and digest of each file written."""


@dataclass(frozen=True)
class PredictedFile:
    """An image's prediction.

    Attributes:
        image: the file.
        classes: names of the object classes in its mask; none if there is only background.
        mask, overlay: the files written; none if the image could not be segmented, or no overlay was wanted.
        problem: why it could not be segmented.
        scores: the file of soft scores, if wanted.
        frame: number of the frame of a video, from 0.
        height, width: of the upright image, pixels.
        areas: of the classes in the mask, the background with them.
        kept: whether an earlier call had written the files.
    """

    image: str
    classes: tuple[str, ...] = ()
    mask: str | None = None
    overlay: str | None = None
    problem: str | None = None
    scores: str | None = None
    frame: int | None = None
    height: int | None = None
    width: int | None = None
    areas: tuple[ClassArea, ...] = ()
    kept: bool = False


def predicted(line: PredictionLine, out: str, kept: bool = False) -> PredictedFile:
    """Return a line of the record as a result, with paths that begin with the folder `out`."""
    mask, overlay, scores = (name and f"{out}/{name}" for name in (line.mask, line.overlay, line.scores))
    names = tuple(area.name for area in line.classes if area.id)
    return PredictedFile(line.image, names, mask, overlay, line.problem, scores, line.frame, line.height, line.width, line.classes, kept)
