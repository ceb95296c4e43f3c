"""Figures 6 to 9 and 12 of the paper: the same images in several runs, as score maps or as masks, beside image and ground truth."""

from collections.abc import Sequence

import numpy as np

from vwl.data.index import Index, Row
from vwl.errors import VwlError, did_you_mean
from vwl.maps.cam import upsample
from vwl.report.figures.grid import Grid, GridRow
from vwl.report.overlays import display_palette, heat_overlay, mask_overlay
from vwl.report.sheets import class_colours
from vwl.storage.masks import decode_mask, missing, read_result
from vwl.storage.score_maps import MapReader
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import STAGES, scored_rows


def comparison(runs: Sequence[Run], labels: Sequence[str], stage: str, image_ids: Sequence[str] = (), num_images: int = 6) -> Grid:
    """Return a grid with a row for each image: the image, the stage's result in each run, and the ground truth if there is any.

    Args:
        runs: on the same data set.
        labels: title of each run's column.
        stage: whose results are compared.
        image_ids: of the images; if there are none, `num_images` that all runs have results of, spread evenly over val.
        num_images: how many.

    Raises:
        VwlError: the runs are on different data sets, an image is unknown, or no image has a result in all runs.
    """
    index = runs[0].index
    for run in runs[1:]:
        if run.index.fingerprint() != index.fingerprint():
            raise VwlError(f"{run.folder} and {runs[0].folder} are runs on different data sets; compare runs on one")
    readers = [_Results(run, stage) for run in runs]
    rows = _named(index, image_ids) if image_ids else _spread(runs[0], readers, num_images)
    with_truth = any(row.mask is not None for row in rows)
    palette = display_palette()
    found, shown = [], set[int]()
    for row in rows:
        image = np.asarray(index.read_image(row))
        images: list[np.ndarray | None] = [image]
        for reader in readers:
            overlay, classes = reader.overlay(row, image, palette)
            images.append(overlay)
            shown |= classes
        if with_truth:
            truth = None if row.mask is None else index.read_mask(row)
            images.append(None if truth is None else mask_overlay(image, truth, palette))
            shown |= set() if truth is None else set(np.unique(truth).tolist())
        found.append(GridRow(row.image_id, images))
    columns = ["Image", *labels, *(["Ground truth"] if with_truth else [])]
    return Grid(columns, found, class_colours(index.classes, shown))


class _Results:
    """The results of a stage of a run, as overlays."""

    def __init__(self, run: Run, stage: str) -> None:
        manifest = run.manifest(stage)
        if manifest is None or manifest.state != "done":
            raise VwlError(f"{run.folder} has no finished stage {stage}; run: vwl infer {stage} --run {run.folder}")
        self.folder = run.stage_folder(stage)
        self.maps = MapReader(self.folder) if STAGES[stage].kind == "maps" else None

    def has(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows that there is a result of."""
        if self.maps is not None:
            return [row for row in rows if row.image_id in self.maps]
        without = set(missing(self.folder, (row.image_id for row in rows)))
        return [row for row in rows if row.image_id not in without]

    def overlay(self, row: Row, image: np.ndarray, palette: Sequence[int]) -> tuple[np.ndarray | None, set[int]]:
        """Return an image's overlay, none if it has no result, and the class ids in it."""
        if not self.has([row]):
            return None, set()
        if self.maps is not None:
            found = self.maps.read(row.image_id)
            return heat_overlay(image, upsample(found.values, found.height, found.width), found.classes, palette), set(found.classes)
        mask = decode_mask(read_result(self.folder, row.image_id), row.image_id)
        return mask_overlay(image, mask, palette), set(np.unique(mask).tolist())


def _named(index: Index, image_ids: Sequence[str]) -> list[Row]:
    rows = []
    for image_id in image_ids:
        row = index.row(image_id)
        if row is None:
            raise VwlError(f"the data set has no image '{image_id}'{did_you_mean(image_id, index.rows.image_ids)}")
        rows.append(row)
    return rows


def _spread(run: Run, readers: Sequence[_Results], num_images: int) -> list[Row]:
    """Return rows spread evenly over those of val with ground truth that all runs have; over all rows if there are none."""
    for rows in (scored_rows(run.index, "val"), list(run.index.rows)):
        for reader in readers:
            rows = reader.has(rows)
        if rows:
            return [rows[i] for i in np.linspace(0, len(rows) - 1, min(num_images, len(rows))).round().astype(int)]
    raise VwlError(f"no image of {run.index_path} has a result in all runs")
