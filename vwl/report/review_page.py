"""The review queue as one HTML file: an image a row, with its masks as thumbnails and the reason; it loads nothing from elsewhere."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image

from vwl.data.transforms import resize, resize_mask
from vwl.evaluation.disagreement import STAGE_NAMES
from vwl.report.overlays import display_palette, mask_overlay
from vwl.report.sheets import class_colours
from vwl.workflow.review import Queue, ReviewedImage, RunMasks
from vwl.workflow.run_folder import Run

THUMBNAIL = 200
"""Longer side of a thumbnail, in pixels."""


@dataclass(frozen=True)
class Thumbnail:
    """A picture of a row.

    Attributes:
        caption: below it.
        description: in words, for people who do not see it.
        data: a JPEG as a data URI.
        width, height: in pixels.
    """

    caption: str
    description: str
    data: str
    width: int
    height: int


def review_page(
    run: Run, queue: Queue, images: Sequence[ReviewedImage], on_progress: Callable[[int, int], None] = lambda done, total: None
) -> bytes:
    """Return the page of some images of a queue.

    Raises:
        VwlError: an image or a mask cannot be read.
    """
    masks, shown, class_ids = RunMasks(run), [], set[int]()
    for number, image in enumerate(images):
        on_progress(number, len(images))
        pictures, seen = _thumbnails(run, masks, image)
        class_ids |= seen
        labels = ", ".join(run.index.classes[label] for label in image.row.labels) or "no label"
        shown.append({"image": image, "labels": labels, "pictures": pictures})
    on_progress(len(images), len(images))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files("vwl.report").joinpath("review_page.html").read_text(encoding="utf-8"))
    legend = [(colour.name, "#{:02x}{:02x}{:02x}".format(*colour.rgb)) for colour in class_colours(run.index.classes, class_ids)]
    return template.render(run=str(run.folder), source=run.index.source, queue=queue, shown=shown, legend=legend).encode()


def _thumbnails(run: Run, masks: RunMasks, image: ReviewedImage) -> tuple[list[Thumbnail], set[int]]:
    """Return the pictures of an image (itself, each stage's mask, the ground truth), and the class ids in them."""
    row, palette = image.row, display_palette()
    pixels = np.asarray(run.index.read_image(row))
    scale = min(1.0, THUMBNAIL / max(pixels.shape[:2]))
    size = max(1, round(pixels.shape[0] * scale)), max(1, round(pixels.shape[1] * scale))
    small = resize(pixels, *size)
    found = [_thumbnail("image", f"image {row.image_id}", small)]
    named = {STAGE_NAMES[stage]: masks.mask(stage, row.image_id) for stage in masks.stages(row.image_id)}
    if row.has_truth:
        named["ground truth"] = run.index.read_mask(row)
    class_ids = set[int]()
    for name, mask in named.items():
        shares = np.bincount(mask.ravel(), minlength=256) / mask.size
        objects = [class_id for class_id in np.flatnonzero(shares).tolist() if 0 < class_id < len(run.index.classes)]
        class_ids |= set(objects)
        words = ", ".join(f"{run.index.classes[class_id]} {shares[class_id]:.0%}" for class_id in objects) or "only background"
        found.append(_thumbnail(name, f"mask of {name}: {words}", mask_overlay(small, resize_mask(mask, *size), palette)))
    return found, class_ids


def _thumbnail(caption: str, description: str, pixels: np.ndarray) -> Thumbnail:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format="JPEG", quality=82)
    data = f"data:image/jpeg;base64,{base64.b64encode(sink.getvalue()).decode()}"
    return Thumbnail(caption.removeprefix("the "), description, data, pixels.shape[1], pixels.shape[0])
