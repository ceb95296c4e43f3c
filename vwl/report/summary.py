"""The report of a finished run: `scores.json`, and pictures of some images with their score maps, masks and ground truth.

`vwl run` writes it after the last stage. It reads the folders of the stages and computes nothing anew.
"""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from PIL import Image

from vwl.data.index import Row
from vwl.maps.cam import upsample
from vwl.report.overlays import display_palette, heat_overlay, mask_overlay
from vwl.report.sheets import Panel, aligned_rows, class_colours, contact_sheet, encode_png, legend, panel_row
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
    rows_of_panels = [image_panels(run, row) for row in chosen]
    for row, panels in zip(chosen, rows_of_panels, strict=True):
        picture = panel_row([panel for panel in panels if panel.image is not None])
        folder.write(f"{row.image_id}.png", encode_png(contact_sheet([picture, _legend(run, [row], picture.width)])))
    aligned = aligned_rows(rows_of_panels)
    folder.write("all.png", encode_png(contact_sheet([_legend(run, chosen, aligned[0].width), *aligned])))
    return str(folder)


def image_panels(run: Run, row: Row) -> list[Panel]:
    """Return the panels of one image: the image itself, the result of each stage, and the ground truth; those that it lacks are empty."""
    image, palette = np.asarray(run.index.read_image(row)), display_palette()
    names = "no object" if row.negative else ", ".join(run.index.classes[label] for label in row.labels)
    panels = [Panel(f"{row.image_id}: {names}", image)]
    for stage in SCORED:
        folder, overlay = run.folder / stage, None
        if STAGES[stage].kind == "maps":
            maps = MapReader(folder)
            if row.image_id in maps:
                score = maps.read(row.image_id)
                overlay = heat_overlay(image, upsample(score.values, score.height, score.width), score.classes, palette)
        elif folder.exists(f"{row.image_id}.png"):
            mask = decode_mask(read_result(folder, row.image_id), row.image_id)
            overlay = mask_overlay(image, mask, palette)
        panels.append(Panel(stage, overlay))
    truth = None if not row.has_truth else mask_overlay(image, run.index.read_mask(row), palette)
    return [*panels, Panel("truth", truth)]


def _legend(run: Run, rows: list[Row], width: int) -> Image.Image:
    """Return the legend of the classes in the images' labels and final masks."""
    class_ids = {label for row in rows for label in row.labels}
    for row in rows:
        mask = decode_mask(read_result(run.folder / "segment", row.image_id), row.image_id)
        class_ids |= set(np.unique(mask).tolist())
    return legend(class_colours(run.index.classes, class_ids), width)


def _with_final_mask(run: Run, rows: Sequence[Row]) -> list[Row]:
    without = set(missing(run.folder / "segment", (row.image_id for row in rows)))
    return [row for row in rows if row.image_id not in without]
