"""Segments images outside any index with the segmentation model of a finished run, on a GPU where there is one."""

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vwl.data.index import decode_image
from vwl.errors import VwlError
from vwl.inference.build import load_segmenter
from vwl.inference.segment import SegmentStage
from vwl.report.overlays import display_palette, mask_overlay
from vwl.report.sheets import class_colours, encode_png, legend
from vwl.storage.folder import Folder
from vwl.storage.masks import encode_mask
from vwl.workflow.run_folder import Run, fault_line


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


def predict_files(run: Run, images: Sequence[str | Path], out: str | Path, crf: bool) -> list[PredictedFile]:
    """Write `NAME_mask.png` (indexed) and `NAME_overlay.png` (with a legend) for each image, and list those that cannot be read.

    Args:
        run: with a trained segmentation model.
        images: local image files with different names.
        out: folder for masks and overlays.
        crf: refine the masks with the dense CRF.

    Raises:
        VwlError: the run has no trained segmentation model, two images have the same name, a result would replace one of the images, or
            results cannot be written.
    """
    if not run.is_done("segmenter"):
        damage = fault_line(run.stage_folder("segmenter"), run.faults("segmenter"))
        if damage:
            raise VwlError(f"{damage}; make it again with: vwl train segmenter --run {run.folder}")
        raise VwlError(f"{run.folder} has no trained segmentation model; finish the run with: vwl run --run {run.folder}")
    folder = Folder(out)
    _check_names([Path(image) for image in images], folder)
    recipe = run.recipe.model_copy(update={"segment": run.recipe.segment.model_copy(update={"crf": crf})})
    stage = SegmentStage(recipe, run.index, load_segmenter(recipe, run.index, run.folder))
    predictions = []
    for path in images:
        try:
            image = _read(str(path))
        except VwlError as error:
            predictions.append(PredictedFile(str(path), problem=str(error)))
            continue
        mask, name = stage.mask(image), Path(path).stem
        folder.write(f"{name}_mask.png", encode_mask(mask, run.index.palette))
        folder.write(f"{name}_overlay.png", encode_png(_overlay(image, mask, run.index.classes)))
        classes = tuple(run.index.classes[c] for c in np.unique(mask) if c)
        predictions.append(PredictedFile(str(path), classes, f"{out}/{name}_mask.png", f"{out}/{name}_overlay.png"))
    return predictions


def _overlay(image: np.ndarray, mask: np.ndarray, classes: Sequence[str]) -> Image.Image:
    """Return the image (H, W, 3) with its mask on it, and a legend of the mask's classes below."""
    overlay = mask_overlay(image, mask, display_palette())
    colours = class_colours(classes, np.unique(mask).tolist())
    below = [np.asarray(legend(colours, image.shape[1]))] if colours else []
    return Image.fromarray(np.concatenate([overlay, *below]))


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


def _read(path: str) -> np.ndarray:
    """Return an image (H, W, 3) uint8 RGB. Pipes and devices, which might never end, are refused."""
    if "://" in path:
        raise VwlError(f"{path}: it is not a local file; download it first")
    try:
        path.encode()
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise VwlError(f"{path} is a folder; name its images, e.g. {path.rstrip('/')}/*.jpg")
        if not stat.S_ISREG(mode):
            raise VwlError(f"{path}: it is not a regular file")
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise VwlError(f"{path}: it does not exist") from None
    except OSError as error:
        raise VwlError(f"{path}: {error.strerror}") from None
    except UnicodeError:
        raise VwlError(f"{path}: its name is not UTF-8; rename it") from None
    return np.array(decode_image(data, path))
