"""labelme: a JSON file for each image, beside which the image belongs, and `labels.txt`.

labelme fills a polygon with its border, so its corners are pixels of the region. Regions with holes are shapes of type `mask`: a PNG of
the region's box.
"""

import base64
import io
import json
from pathlib import PurePosixPath
from typing import Any

from PIL import Image

from vwl.exporters.regions import Region
from vwl.exporters.target import Target

_VERSION = "5.5.0"
"""Of labelme's files; 5.0 brought shapes of type `mask`."""


def write(target: Target) -> None:
    """Write `NAME.json` where the image has its place, and `labels.txt` for `labelme --labels`; the images go beside the files."""
    names = target.source.table.classes
    for entry, mask in target.masks():
        height, width = mask.shape
        path = PurePosixPath(entry.image)
        content = {
            "version": _VERSION,
            "flags": {},
            "shapes": [_shape(region, names[region.class_id]) for region in target.regions(mask)],
            "imagePath": path.name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        target.out.write(str(path.with_name(f"{PurePosixPath(entry.name).name}.json")), json.dumps(content, indent=1).encode())
        target.copy_image(entry, entry.image)
    # labelme numbers the lines from -1: ignored, background, classes
    target.out.write("labels.txt", "".join(f"{name}\n" for name in ("__ignore__", "_background_", *names[1:])).encode())


def _shape(region: Region, name: str) -> dict[str, Any]:
    shape: dict[str, Any] = {"label": name, "group_id": None, "description": "", "flags": {}}
    if region.outline is not None and not region.holes:
        return {**shape, "shape_type": "polygon", "points": region.outline.pixels.tolist(), "mask": None}
    left, top, width, height = region.box
    sink = io.BytesIO()
    Image.fromarray(region.bitmap).save(sink, format="PNG")
    corners = [[left, top], [left + width - 1, top + height - 1]]
    return {**shape, "shape_type": "mask", "points": corners, "mask": base64.b64encode(sink.getvalue()).decode()}
