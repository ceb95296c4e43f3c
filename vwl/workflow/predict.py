"""Masks of photographs outside any index, by the segmentation model of a finished run, on the CPU."""

from collections.abc import Sequence
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
from vwl.workflow.run_folder import Run


def predict_files(run: Run, images: Sequence[Path], out: Path, crf: bool) -> list[list[str]]:
    """Write `NAME_mask.png` (indexed) and `NAME_overlay.png` for each photograph.

    Returns:
        For each: file, the classes found, mask file, overlay file.

    Raises:
        VwlError: the run has no trained segmentation model, a photograph cannot be read, or two have the same name.
    """
    if not run.is_done("segmenter"):
        raise VwlError(f"{run.folder} has no trained segmentation model yet; finish it with: vwl run --run {run.folder}")
    names = [path.stem for path in images]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise VwlError(f"two photographs are named {twice}; their masks would overwrite each other, predict them into different folders")
    recipe = run.recipe.model_copy(update={"segment": run.recipe.segment.model_copy(update={"crf": crf})})
    stage, folder = SegmentStage(recipe, run.index, load_segmenter(recipe, run.index, run.folder)), Folder(out)
    lines = []
    for path in images:
        photo = np.array(decode_image(Folder(path.parent).read(path.name), str(path)))
        mask = stage.mask(photo)
        folder.write(f"{path.stem}_mask.png", encode_mask(mask, run.index.palette))
        folder.write(f"{path.stem}_overlay.png", encode_png(mask_overlay(photo, mask, run.index.palette)))
        found = ", ".join(run.index.classes[c] for c in np.unique(mask) if c) or "only background"
        lines.append([str(path), found, f"{out}/{path.stem}_mask.png", f"{out}/{path.stem}_overlay.png"])
    return lines
