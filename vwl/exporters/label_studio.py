"""Label Studio: `tasks.json` with the regions as predictions, which people then correct, and the labelling configuration.

Polygons have corners in percent of the image. Regions with holes, and all regions with `geometry="rle"`, are brush strokes: run lengths
of the RGBA pixels of an image, bit-packed ("rle-pack" of thi.ng/umbrella, which Label Studio uses).
"""

import json
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from vwl.exporters.regions import Region, run_lengths
from vwl.exporters.target import Target
from vwl.storage.class_table import ClassTable
from vwl.storage.stream import text_stream

FILE, CONFIG = "tasks.json", "labeling_config.xml"
_LENGTH_BITS = (4, 8, 12, 16)
"""Sizes of a run's length; Label Studio's decoder reads up to 16 bits."""
_LONGEST = 1 << 16


def write(target: Target) -> None:
    """Write `tasks.json` and `labeling_config.xml`, and the images below `images/`."""
    target.out.write(CONFIG, labeling_config(target.source.table, target.options.geometry == "polygon").encode())
    names = target.source.table.classes
    with text_stream(target.out, FILE) as put:
        put("[")
        for number, (entry, mask) in enumerate(target.masks(), 1):
            height, width = mask.shape
            results = [
                {
                    "id": f"{number}-{count}",
                    "to_name": "image",
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    **_shape(region, names[region.class_id], height, width),
                }
                for count, region in enumerate(target.regions(mask), 1)
            ]
            image = f"{target.options.image_prefix}{quote(entry.image)}"
            task = {"id": number, "data": {"image": image}, "predictions": [{"model_version": target.source.title, "result": results}]}
            put(f"{',' if number > 1 else ''}\n{json.dumps(task)}")
            target.copy_image(entry, f"images/{entry.image}")
        put("]\n")


def labeling_config(table: ClassTable, polygons: bool) -> str:
    """Return the configuration of a project: an image, and the classes as brushes and, if wanted, as polygons."""
    labels = "".join(
        f"\n    <Label value={quoteattr(name)} background={quoteattr(table.colour(class_id))}/>"
        for class_id, name in enumerate(table.classes[1:], 1)
    )
    kinds = (*(("PolygonLabels", "polygon"),) * polygons, ("BrushLabels", "brush"))
    tags = "".join(f'\n  <{tag} name="{name}" toName="image">{labels}\n  </{tag}>' for tag, name in kinds)
    return f'<View>\n  <Image name="image" value="$image" zoom="true"/>{tags}\n</View>\n'


def brush_rle(bitmap: np.ndarray) -> list[int]:
    """Return the brush stroke of a bitmap (H, W) bool: the bytes of its bit-packed run lengths over (H, W, 4) values, 0 or 255."""
    bits = [_bits(4 * bitmap.size, 32), _bits(8 - 1, 5), *(_bits(size - 1, 4) for size in _LENGTH_BITS)]
    for number, length in enumerate(run_lengths(bitmap.ravel())):
        left = 4 * int(length)
        while left:
            run = min(left, _LONGEST)
            size = next(place for place, bits_of in enumerate(_LENGTH_BITS) if run <= 1 << bits_of)
            bits += ["1", _bits(size, 2), _bits(run - 1, _LENGTH_BITS[size]), _bits(255 * (number % 2), 8)]
            left -= run
    text = "".join(bits)
    return [int(value) for value in np.packbits(np.frombuffer(text.encode(), np.uint8) - ord("0"))]


def _bits(value: int, size: int) -> str:
    return format(value, f"0{size}b")


def _shape(region: Region, name: str, height: int, width: int) -> dict[str, Any]:
    if region.outline is None or region.holes:
        rle = brush_rle(region.full_size(height, width))
        return {"type": "brushlabels", "from_name": "brush", "value": {"format": "rle", "rle": rle, "brushlabels": [name]}}
    points = (region.outline.corners * (100 / np.array([width, height]))).round(6).tolist()
    return {"type": "polygonlabels", "from_name": "polygon", "value": {"points": points, "closed": True, "polygonlabels": [name]}}
