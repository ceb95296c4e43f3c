"""The gallery: images with the result of each stage as layers to be laid over the photo, and the score of each image.

All images of the gallery have small pictures (`THUMBNAIL`), some also large ones (`FULL`), so that the page stays below 15 MB.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from vwl.data.index import Row
from vwl.errors import VwlError
from vwl.maps.cam import argmax_with_background, upsample
from vwl.maps.confusion import confusion_matrix
from vwl.report.html.page import Section
from vwl.report.html.pictures import heat_layer, mask_layer, photo
from vwl.report.html.sections.summary import STAGE_NAMES
from vwl.report.overlays import display_palette
from vwl.storage.masks import decode_mask, read_result
from vwl.storage.score_maps import MapReader
from vwl.workflow.inputs import Background, class_scales
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import SCORED, STAGES

MAX_IMAGES = 1000
"""Images in the gallery; of more, as many spread evenly over each split."""


@dataclass(frozen=True)
class Sizes:
    """Long sides of an image's pictures, pixels, and WebP's quality of photo and heat map."""

    photo: int
    mask: int
    heat: int
    quality: int
    heat_quality: int


LAYERS = tuple(stage for stage in STAGES if stage in {*SCORED, "masks"})
"""The stages that are shown; the pseudo masks are the maps that they are cut from, and have no score of their own."""
THUMBNAIL, FULL = Sizes(160, 128, 56, 50, 35), Sizes(560, 560, 140, 72, 60)
"""Of the small pictures that every image has, and of the large ones."""


@dataclass(frozen=True)
class GalleryImage:
    """An image of the gallery, as it is written into the page.

    Attributes:
        id, split: of the row.
        labels: class ids of the image's labels.
        photo: data URI.
        layers: data URI of each stage's result, by stage; `truth` is the ground truth.
        scores: mean IoU of each stage's mask over the classes in it or in the ground truth, percent, by stage.
        ratio: width divided by height.
    """

    id: str
    split: str
    labels: Sequence[int]
    photo: str
    layers: Mapping[str, str]
    scores: Mapping[str, float]
    ratio: float


@dataclass(frozen=True)
class Gallery:
    """Content of the section: how many images the run has results of, how many are shown, and how many of those in full size."""

    available: int
    shown: int
    full: int
    stages: Sequence[tuple[str, str]]
    classes: Sequence[tuple[int, str]]
    splits: Sequence[str]
    scored: Sequence[tuple[str, str]]


class Reader:
    """Reads the results of a run's stages for one thread."""

    def __init__(self, run: Run) -> None:
        """Open the score maps of the finished stages."""
        self.run, self.palette = run, display_palette()
        self.maps: dict[str, MapReader] = {}
        self.thresholds: dict[str, float] = {}
        for stage in SCORED:
            manifest = run.manifest(stage)
            if STAGES[stage].kind != "maps" or manifest is None:
                continue
            scales = {}
            if manifest.threshold is not None:
                self.thresholds[stage] = manifest.threshold
                scales = class_scales(run, Background(manifest.threshold, manifest.threshold_chosen or "", manifest.class_thresholds))
            self.maps[stage] = MapReader(run.stage_folder(stage), scales)

    def picture(self, row: Row, sizes: Sizes) -> GalleryImage | None:
        """Return an image with its layers and scores; none if it cannot be read. A layer that cannot be read is left out."""
        try:
            image = np.asarray(self.run.index.read_image(row))
        except VwlError:
            return None
        truth = None
        if row.mask is not None:
            with suppress(VwlError):
                truth = self.run.index.read_mask(row)
        layers: dict[str, str] = {}
        scores: dict[str, float] = {}
        for stage in LAYERS:
            with suppress(VwlError):
                layer, mask = self._map(stage, row, sizes) if STAGES[stage].kind == "maps" else self._mask(stage, row, sizes)
                if layer is not None:
                    layers[stage] = layer
                if stage in SCORED and truth is not None and mask is not None and mask.shape == truth.shape:
                    scores[stage] = round(100 * image_iou(truth, mask, len(self.run.index.classes)), 1)
        if truth is not None:
            layers["truth"] = mask_layer(truth, self.palette, sizes.mask)
        ratio = round(image.shape[1] / image.shape[0], 4)
        return GalleryImage(row.image_id, row.split, row.labels, photo(image, sizes.photo, sizes.quality), layers, scores, ratio)

    def _map(self, stage: str, row: Row, sizes: Sizes) -> tuple[str | None, np.ndarray | None]:
        """Return the layer of an image's score maps and, if it has ground truth to compare with, their mask; none where there are none."""
        maps = self.maps.get(stage)
        if maps is None or row.image_id not in maps:
            return None, None
        found = maps.read(row.image_id)
        layer = heat_layer(found.values, found.classes, self.palette, sizes.heat, sizes.heat_quality)
        if row.mask is None or stage not in self.thresholds:
            return layer, None
        return layer, argmax_with_background(upsample(found.values, found.height, found.width), found.classes, self.thresholds[stage])

    def _mask(self, stage: str, row: Row, sizes: Sizes) -> tuple[str | None, np.ndarray | None]:
        """Return the layer of an image's mask, and the mask; none where there is none."""
        folder = self.run.stage_folder(stage)
        if not folder.exists(f"{row.image_id}.png"):
            return None, None
        mask = decode_mask(read_result(folder, row.image_id), row.image_id)
        return mask_layer(mask, self.palette, sizes.mask), mask


def gallery_section(run: Run, num_full: int) -> tuple[Section, list[GalleryImage]]:
    """Return the section and its images; `num_full` of them, the worst and as many spread evenly, have large pictures."""
    available = _with_results(run)
    rows = [row for row in run.index.rows if row.image_id in available]
    chosen = chosen_rows(rows, MAX_IMAGES)
    small = _pictures(run, chosen, THUMBNAIL)
    large = set(_worst_and_spread(small, num_full))
    full = _pictures(run, [row for row in chosen if row.image_id in large], FULL)
    shown_stages = [(stage, STAGE_NAMES[stage]) for stage in LAYERS if any(stage in one.layers for one in small)]
    if any("truth" in one.layers for one in small):
        shown_stages.append(("truth", "Ground truth"))
    labels = sorted({label for one in small for label in one.labels})
    content = Gallery(
        len(rows),
        len(small),
        len(full),
        [("photo", "Image"), *shown_stages],
        [(label, run.index.classes[label]) for label in labels],
        list(dict.fromkeys(one.split for one in small)),
        [(stage, STAGE_NAMES[stage]) for stage in reversed(SCORED) if any(stage in one.scores for one in small)],
    )
    colours = np.asarray(display_palette()).reshape(256, 3)
    data = {
        "images": [vars(one) for one in small],
        "full": {one.id: {"photo": one.photo, "layers": one.layers} for one in full},
        "classes": list(run.index.classes),
        "colours": [f"rgb({r},{g},{b})" for r, g, b in colours[: len(run.index.classes)].tolist()],
        "stages": content.stages,
    }
    return Section("gallery", "Gallery", content, {"gallery": data}), small


def image_iou(truth: np.ndarray, mask: np.ndarray, num_classes: int) -> float:
    """Return the mean IoU, 0..1, over the classes, background included, that an image's ground truth (255 ignored) or mask holds."""
    counts = confusion_matrix(truth, mask, num_classes)
    right, union = np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1) - np.diag(counts)
    present = union > 0
    return float((right[present] / union[present]).mean()) if present.any() else 1.0


def chosen_rows(rows: Sequence[Row], most: int) -> list[Row]:
    """Return at most `most` rows, spread evenly over each split; small splits are kept whole as far as there is room."""
    by_split: dict[str, list[Row]] = {}
    for row in rows:
        by_split.setdefault(row.split, []).append(row)
    chosen: set[str] = set()
    left = most
    for position, own in enumerate(sorted(by_split.values(), key=len)):
        share = min(len(own), left // (len(by_split) - position))
        chosen |= {own[i].image_id for i in np.linspace(0, len(own) - 1, share).round().astype(int)}
        left -= share
    return [row for row in rows if row.image_id in chosen]


def _with_results(run: Run) -> set[str]:
    """Return the ids of the images that a scored stage has a result of."""
    found: set[str] = set()
    for stage in SCORED:
        folder = run.stage_folder(stage)
        if STAGES[stage].kind == "maps":
            found |= set(MapReader(folder).locations)
        else:
            found |= {name.removesuffix(".png") for name in folder.names(".png")}
    return found


def _worst_and_spread(images: Sequence[GalleryImage], number: int) -> list[str]:
    """Return ids: half of them with the lowest scores of their last stage, the rest spread evenly."""
    scored = sorted((one for one in images if one.scores), key=lambda one: list(one.scores.values())[-1])
    chosen = dict.fromkeys(one.id for one in scored[: number // 2])
    others = [one.id for one in images if one.id not in chosen]
    spread = np.linspace(0, len(others) - 1, min(number - len(chosen), len(others))).round().astype(int)
    return [*chosen, *dict.fromkeys(others[i] for i in spread)]


def _pictures(run: Run, rows: Sequence[Row], sizes: Sizes) -> list[GalleryImage]:
    """Return the pictures of rows, made in threads: decoding and encoding release the GIL."""
    threads = max(1, min(4, os.cpu_count() or 1, len(rows)))

    def part(some: Sequence[Row]) -> list[GalleryImage | None]:
        reader = Reader(run)
        return [reader.picture(row, sizes) for row in some]

    size = -(-len(rows) // threads)  # neighbours share a file of maps
    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(part, [rows[i * size : (i + 1) * size] for i in range(threads)])
    return [one for some in parts for one in some if one is not None]
