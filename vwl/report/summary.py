"""The report of a finished run: `scores.json`, and pictures of some images with their score maps, masks and ground truth.

`vwl run` writes it after the last stage. It reads the folders of the stages and computes nothing anew.
"""

from dataclasses import asdict

import numpy as np

from vwl.data.index import Row
from vwl.maps.cam import upsample
from vwl.report.overlays import heat_overlay, mask_overlay
from vwl.report.sheets import Panel, contact_sheet, encode_png, panel_row
from vwl.storage.masks import decode_mask, missing, read_result
from vwl.storage.score_maps import MapReader
from vwl.workflow.run_folder import Run
from vwl.workflow.scoring import score_table
from vwl.workflow.stages import SCORED, STAGES, scored_rows, training_rows

NUM_PICTURES = 12
"""Images in the report, spread evenly over the val split (over the training images where val has none with a final mask)."""


def write_report(run: Run) -> str:
    """Write `scores.json`, `pictures/<image id>.png` and `pictures/all.png` in the run's folder.

    Returns:
        The URI of the folder `pictures`.
    """
    run.folder.write_json("scores.json", [asdict(line) for line in score_table(run)])
    rows = _with_final_mask(run, scored_rows(run.index, "val")) or _with_final_mask(run, training_rows(run.index))
    chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, min(NUM_PICTURES, len(rows))).round().astype(int)]
    folder = run.folder / "pictures"
    pictures = []
    for row in chosen:
        pictures.append(panel_row(image_panels(run, row)))
        folder.write(f"{row.image_id}.png", encode_png(pictures[-1]))
    folder.write("all.png", encode_png(contact_sheet(pictures)))
    return str(folder)


def image_panels(run: Run, row: Row) -> list[Panel]:
    """Return the panels of one image: the image itself, the result of each stage that has one, and the ground truth if there is any."""
    image, palette = np.asarray(run.index.read_image(row)), run.index.palette
    names = ", ".join(run.index.classes[label] for label in row.labels)
    panels = [Panel(f"{row.image_id}: {names}", image)]
    for stage in SCORED:
        folder = run.folder / stage
        if STAGES[stage].kind == "maps":
            maps = MapReader(folder)
            if row.image_id in maps:
                score = maps.read(row.image_id)
                values = upsample(score.values, score.height, score.width)
                panels.append(Panel(stage, heat_overlay(image, values, score.classes, palette)))
        elif folder.exists(f"{row.image_id}.png"):
            mask = decode_mask(read_result(folder, row.image_id), row.image_id)
            panels.append(Panel(stage, mask_overlay(image, mask, palette)))
    if row.mask is not None:
        panels.append(Panel("truth", mask_overlay(image, run.index.read_mask(row), palette)))
    return panels


def _with_final_mask(run: Run, rows: list[Row]) -> list[Row]:
    without = set(missing(run.folder / "segment", (row.image_id for row in rows)))
    return [row for row in rows if row.image_id not in without]
