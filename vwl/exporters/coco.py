"""COCO's instances JSON: `annotations.json`, one annotation for each region.

Category ids are the class ids of the masks. A polygon of COCO has no holes, so a region with holes is stored as run lengths, with
``iscrowd`` 0. The file is written while masks are read: annotations wait in a temporary file until all images are listed.
"""

import json
import tempfile
from typing import Any

import numpy as np

from vwl.exporters.regions import Region, coco_rle
from vwl.exporters.target import Target
from vwl.storage.stream import text_stream

FILE = "annotations.json"
_PIECE = 1 << 16


def write(target: Target) -> None:
    """Write `annotations.json`, and the images below `images/`."""
    table, number = target.source.table, 0
    palette = np.array(table.palette).reshape(256, 3)
    categories = [
        {"id": class_id, "name": name, "supercategory": "", "color": palette[class_id].tolist()}
        for class_id, name in enumerate(table.classes[1:], 1)
    ]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as waiting, text_stream(target.out, FILE) as put:
        put(f'{{"info": {{"description": {json.dumps(target.source.title)}}}, "licenses": [], "categories": {json.dumps(categories)},\n')
        put('"images": [')
        for image_id, (entry, mask) in enumerate(target.masks(), 1):
            height, width = mask.shape
            image = {"id": image_id, "file_name": entry.image, "height": height, "width": width}
            put(f"{',' if image_id > 1 else ''}\n{json.dumps(image)}")
            for region in target.regions(mask):
                waiting.write(f"{',' if number else ''}\n{json.dumps(_annotation(region, number + 1, image_id, height, width))}")
                number += 1
            target.copy_image(entry, f"images/{entry.image}")
        put('],\n"annotations": [')
        waiting.seek(0)
        while piece := waiting.read(_PIECE):
            put(piece)
        put("]}\n")


def _annotation(region: Region, number: int, image_id: int, height: int, width: int) -> dict[str, Any]:
    if region.outline is None or region.holes:
        segmentation: Any = coco_rle(region.full_size(height, width))
    else:
        segmentation = [region.outline.corners.ravel().tolist()]
    return {
        "id": number,
        "image_id": image_id,
        "category_id": region.class_id,
        "segmentation": segmentation,
        "area": region.area,
        "bbox": list(region.box),
        "iscrowd": 0,
    }
