"""Segments images outside any index with the segmentation model of a finished run, on a GPU where there is one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vwl.data.index import decode_image
from vwl.errors import VwlError
from vwl.inference.build import load_segmenter
from vwl.inference.segment import SegmentStage
from vwl.report.overlays import mask_overlay
from vwl.report.sheets import encode_png
from vwl.storage.folder import Folder
from vwl.storage.masks import encode_mask
from vwl.workflow.run_folder import Run, fault_line


@dataclass(frozen=True)
class PredictedFile:
    """An image's prediction.

    Attributes:
        image: the file segmented.
        classes: names of the object classes in its mask, comma-separated; `only background` if there are none.
        mask, overlay: the files written.
    """

    image: str
    classes: str
    mask: str
    overlay: str


def predict_files(run: Run, images: Sequence[Path], out: Path, crf: bool) -> list[PredictedFile]:
    """Write `NAME_mask.png` (indexed) and `NAME_overlay.png` for each image.

    Args:
        run: with a trained segmentation model.
        images: image files with different names.
        out: folder for masks and overlays.
        crf: refine the masks with the dense CRF.

    Raises:
        VwlError: the run has no trained segmentation model, an image cannot be read, or two images have the same name.
    """
    if not run.is_done("segmenter"):
        damage = fault_line(run.stage_folder("segmenter"), run.faults("segmenter"))
        if damage:
            raise VwlError(f"{damage}; make it again with: vwl train segmenter --run {run.folder}")
        raise VwlError(f"{run.folder} has no trained segmentation model; finish the run with: vwl run --run {run.folder}")
    names = [path.stem for path in images]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate:
        raise VwlError(
            f"two images are named {duplicate}, so one mask would overwrite the other; predict them with different --out folders"
        )
    recipe = run.recipe.model_copy(update={"segment": run.recipe.segment.model_copy(update={"crf": crf})})
    stage, folder = SegmentStage(recipe, run.index, load_segmenter(recipe, run.index, run.folder)), Folder(out)
    predictions = []
    for path in images:
        image = np.array(decode_image(Folder(path.parent).read(path.name), str(path)))
        mask = stage.mask(image)
        folder.write(f"{path.stem}_mask.png", encode_mask(mask, run.index.palette))
        folder.write(f"{path.stem}_overlay.png", encode_png(mask_overlay(image, mask, run.index.palette)))
        classes = ", ".join(run.index.classes[c] for c in np.unique(mask) if c) or "only background"
        predictions.append(PredictedFile(str(path), classes, f"{out}/{path.stem}_mask.png", f"{out}/{path.stem}_overlay.png"))
    return predictions
