"""The picture of the first page: what the stages of trained runs make of images and of scenes.

    python -m docs.generator.picture --images RUN cat.png=cat --scenes RUN val_00003 --out docs/pictures/stages.jpg

An image need not be in the run's data set: the trained networks of the run are applied to it, with the labels that are given.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from vwl.data.index import Row, make_index
from vwl.inference.build import load_boundary_net, load_classifier, load_segmenter
from vwl.inference.cam import CamStage
from vwl.inference.crf import CrfStage
from vwl.inference.masks import MasksStage
from vwl.inference.segment import SegmentStage
from vwl.inference.walk import WalkStage
from vwl.maps.cam import upsample
from vwl.report.overlays import display_palette, heat_overlay, mask_overlay
from vwl.report.sheets import Panel, aligned_rows, contact_sheet
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, read_result
from vwl.storage.score_maps import MapReader, write_maps
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import STAGES

_CAPTIONS = ("class activation maps", "dense CRF", "random walk", "segmentation model", "ground truth")
_HEIGHT = 150
_LONG_SIDE = 500


def image_panels_of(run: Run, file: str, labels: list[str]) -> list[Panel]:
    """Return the panels of an image file: itself, what the run's networks make of it with the labels, and an empty place."""
    palette, recipe = display_palette(), run.recipe
    with tempfile.TemporaryDirectory() as name:
        image = Image.open(file).convert("RGB")
        image.thumbnail((_LONG_SIDE, _LONG_SIDE))
        image.save(Path(name) / "image.png")
        row = Row("image", "image.png", tuple(sorted(run.index.class_ids(labels))), None, "val")
        index = make_index([row], run.index.classes, name, "image")
        folder, pixels = Folder(name), np.asarray(image)
        write_maps(folder / "cam", "part-00000.parquet", [cam := CamStage(recipe, index, load_classifier(recipe, index, run.folder))(row)])
        walk = WalkStage(recipe, index, MapReader(folder / "cam"), load_boundary_net(recipe, run.folder))
        write_maps(folder / "walk", "part-00000.parquet", [walk(row)])
        masks = (
            CrfStage(recipe, index, MapReader(folder / "cam"), _threshold(run, "cam"))(row),
            MasksStage(MapReader(folder / "walk"), _threshold(run, "walk"), index)(row),
            SegmentStage(recipe, index, load_segmenter(recipe, index, run.folder))(row),
        )
    heat = heat_overlay(pixels, upsample(cam.values, cam.height, cam.width), cam.classes, palette)
    pictures = [heat, *(mask_overlay(pixels, mask, palette) for mask in masks)]
    panels = [Panel(caption, picture) for caption, picture in zip(_CAPTIONS, pictures, strict=False)]
    return [Panel(f"label: {', '.join(labels)}", pixels), *panels, Panel("", None)]


def _threshold(run: Run, stage: str) -> float:
    manifest = run.manifest(stage)
    assert manifest is not None
    assert manifest.threshold is not None
    return float(manifest.threshold)


def scene_panels(run: Run, image_id: str) -> list[Panel]:
    """Return the panels of an image of a finished run: itself, its results and its ground truth."""
    palette = display_palette()
    (row,) = (row for row in run.index.rows if row.image_id == image_id)
    pixels = np.asarray(run.index.read_image(row))
    pictures: list[np.ndarray] = []
    for stage in ("cam", "crf", "walk", "segment"):
        if STAGES[stage].kind == "maps" and stage == "cam":
            score = MapReader(run.folder / stage).read(image_id)
            pictures.append(heat_overlay(pixels, upsample(score.values, score.height, score.width), score.classes, palette))
        else:
            mask = MasksStage(MapReader(run.folder / stage), _threshold(run, stage), run.index)(row) if stage == "walk" else None
            found = decode_mask(read_result(run.folder / stage, image_id), image_id) if mask is None else mask
            pictures.append(mask_overlay(pixels, found, palette))
    pictures.append(mask_overlay(pixels, run.index.read_mask(row), palette))
    panels = [Panel(caption, picture) for caption, picture in zip(_CAPTIONS, pictures, strict=True)]
    return [Panel(f"label: {', '.join(run.index.classes[label] for label in row.labels)}", pixels), *panels]


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", nargs="+", default=[], metavar="RUN FILE=LABEL,LABEL")
    parser.add_argument("--scenes", nargs="+", default=[], metavar="RUN ID")
    parser.add_argument("--out", default="docs/pictures/stages.jpg")
    given = parser.parse_args()
    rows = []
    if given.images:
        run, *files = given.images
        rows += [image_panels_of(Run.open(run), name.rpartition("=")[0], name.rpartition("=")[2].split(",")) for name in files]
    if given.scenes:
        run, *ids = given.scenes
        rows += [scene_panels(Run.open(run), image_id) for image_id in ids]
    sheet = contact_sheet(aligned_rows(rows, _HEIGHT))
    Path(given.out).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(given.out, quality=76, optimize=True)
    print(given.out, sheet.size, Path(given.out).stat().st_size)


if __name__ == "__main__":
    main()
