"""CVAT's "CVAT for images 1.1": `annotations.xml`, with a polygon or a mask for each region.

Polygons of CVAT have no holes; regions with holes are masks, run lengths by rows within the region's box.
"""

from xml.sax.saxutils import escape, quoteattr

from vwl.exporters.regions import Region, run_lengths
from vwl.exporters.target import Target
from vwl.storage.class_table import ClassTable
from vwl.storage.stream import text_stream

FILE = "annotations.xml"
_SHAPE = 'source="auto" occluded="0"'


def write(target: Target) -> None:
    """Write `annotations.xml`, and the images below `images/`."""
    names = target.source.table.classes
    with text_stream(target.out, FILE) as put:
        put(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n{_labels(target.source.table)}')
        for number, (entry, mask) in enumerate(target.masks()):
            height, width = mask.shape
            put(f'  <image id="{number}" name={quoteattr(entry.image)} width="{width}" height="{height}">\n')
            for region in target.regions(mask):
                put(f"    {_shape(region, names[region.class_id])}\n")
            put("  </image>\n")
            target.copy_image(entry, f"images/{entry.image}")
        put("</annotations>\n")


def _labels(table: ClassTable) -> str:
    labels = "".join(
        f"        <label><name>{escape(name)}</name><color>{table.colour(class_id)}</color><attributes/></label>\n"
        for class_id, name in enumerate(table.classes[1:], 1)
    )
    return f"  <meta>\n    <task>\n      <labels>\n{labels}      </labels>\n    </task>\n  </meta>\n"


def _shape(region: Region, name: str) -> str:
    label = f"label={quoteattr(name)}"
    if region.outline is not None and not region.holes:
        points = ";".join(f"{x:g},{y:g}" for x, y in region.outline.corners.tolist())
        return f'<polygon {label} {_SHAPE} points="{points}" z_order="0"/>'
    left, top, width, height = region.box
    counts = ", ".join(str(length) for length in run_lengths(region.bitmap.ravel()))
    return f'<mask {label} {_SHAPE} rle="{counts}" left="{left}" top="{top}" width="{width}" height="{height}" z_order="0"/>'
