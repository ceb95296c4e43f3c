"""What a finished run shows: pictures of photograph, map, masks and truth side by side, and all scores in one file."""

from dataclasses import asdict

import numpy as np

from vwl.data.index import Row
from vwl.maps.cam import upsample
from vwl.report.overlays import contact_sheet, heat_overlay, mask_overlay, panel_row, png
from vwl.storage.masks import decode_mask, missing
from vwl.storage.score_maps import MapReader
from vwl.workflow.run_folder import Run
from vwl.workflow.scoring import score_table
from vwl.workflow.stages import SCORED, STAGES, scored_rows, training_rows

NUM_PICTURES = 12
"""Photographs shown, spread evenly over the val split (or the training photographs where nothing is held out)."""


def write_report(run: Run) -> str:
    """Write `scores.json`, `pictures/<image>.png` and `pictures/all.png`; return the pictures' folder."""
    run.folder.write_json("scores.json", [asdict(line) for line in score_table(run)])
    rows = _shown(run, scored_rows(run.index, "val")) or _shown(run, training_rows(run.index))
    chosen = [rows[i] for i in np.linspace(0, len(rows) - 1, min(NUM_PICTURES, len(rows))).round().astype(int)]
    folder = run.folder / "pictures"
    pictures = []
    for row in chosen:
        pictures.append(panel_row(panels(run, row)))
        folder.write(f"{row.image_id}.png", png(pictures[-1]))
    folder.write("all.png", png(contact_sheet(pictures)))
    return str(folder)


def _shown(run: Run, rows: list[Row]) -> list[Row]:
    lacking = set(missing(run.folder / "segment", (row.image_id for row in rows)))
    return [row for row in rows if row.image_id not in lacking]


def panels(run: Run, row: Row) -> list[tuple[str, np.ndarray]]:
    """Return captions and (H, W, 3) uint8 pictures of one photograph through the stages."""
    photo = np.asarray(run.index.read_image(row))
    names = ", ".join(run.index.classes[label] for label in row.labels)
    found = [(f"{row.image_id}: {names}", photo)]
    for stage in SCORED:
        folder = run.folder / stage
        if STAGES[stage].kind == "maps":
            maps = MapReader(folder)
            if row.image_id in maps:
                score = maps.read(row.image_id)
                values = upsample(score.values, score.height, score.width)
                found.append((stage, heat_overlay(photo, values, score.classes, run.index.palette)))
        elif folder.exists(f"{row.image_id}.png"):
            mask = decode_mask(folder.read(f"{row.image_id}.png"), row.image_id)
            found.append((stage, mask_overlay(photo, mask, run.index.palette)))
    if row.mask is not None:
        found.append(("truth", mask_overlay(photo, run.index.read_mask(row), run.index.palette)))
    return found
