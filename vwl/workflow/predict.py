"""Segments images outside any index with a trained segmentation model, on a GPU where there is one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vwl.errors import VwlError
from vwl.model_file.image_input import read_image_file
from vwl.model_file.models import SegmentationModel
from vwl.storage.class_table import write_class_table
from vwl.storage.folder import Folder


@dataclass(frozen=True)
class PredictedFile:
    """An image's prediction.

    Attributes:
        image: the file.
        classes: names of the object classes in its mask; none if there is only background.
        mask, overlay: the files written; none if the image could not be segmented.
        problem: why it could not be segmented.
    """

    image: str
    classes: tuple[str, ...] = ()
    mask: str | None = None
    overlay: str | None = None
    problem: str | None = None


def predict_files(model: SegmentationModel, images: Sequence[str | Path], out: str | Path, crf: bool | None = None) -> list[PredictedFile]:
    """Write `NAME_mask.png` (indexed) and `NAME_overlay.png` (with a legend) for each image, and list those that cannot be read.

    `classes.json` beside them has the names and colours of the class ids.

    Args:
        model: a trained segmentation model, of a run or of a model file.
        images: local image files with different names.
        out: folder for masks and overlays.
        crf: refine the masks with the dense CRF or not; default: as the run did.

    Raises:
        VwlError: two images have the same name, a result would replace one of the images, or results cannot be written.
    """
    _check_names([Path(image) for image in images], Folder(out))
    write_class_table(Folder(out), model.classes, model.palette)
    predictions = []
    for path in images:
        try:
            image = read_image_file(str(path))
        except VwlError as error:
            predictions.append(PredictedFile(str(path), problem=str(error)))
            continue
        prediction = model.predict(image, crf)
        mask, overlay = prediction.save(out, Path(path).stem)
        predictions.append(PredictedFile(str(path), prediction.classes, mask, overlay))
    return predictions


def _check_names(images: Sequence[Path], folder: Folder) -> None:
    """Check that each image's results have files of their own, which are none of the images."""
    names = [path.stem for path in images]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise VwlError(
            f"two images are named {duplicate}, so one mask would overwrite the other; predict them with different --out folders"
        )
    if folder.is_local:
        results = {Path(folder.path, f"{name}_{kind}.png") for name in names for kind in ("mask", "overlay")}
        if replaced := next((path for path in images if path.absolute() in results), None):
            raise VwlError(f"a result would be written over the image {replaced}; choose another --out folder")
