"""FiftyOne's ImageSegmentationDirectory: masks in `labels/`, images in `data/`, and the names and colours of the classes.

The masks are grey PNG files: FiftyOne reads an indexed one as its colours, and classes from grey values only.
"""

import io

from PIL import Image

from vwl.exporters.target import Target

FILE = "mask_targets.json"


def write(target: Target) -> None:
    """Write `labels/NAME.png` and `mask_targets.json`; the images go to `data/`."""
    table = target.source.table
    for entry, mask in target.masks():
        stem = entry.image.rpartition(".")[0]
        sink = io.BytesIO()
        Image.fromarray(target.without_small_regions(mask)).save(sink, format="PNG")
        target.out.write(f"labels/{stem}.png", sink.getvalue())
        target.copy_image(entry, f"data/{entry.image}")
    classes = list(enumerate(table.classes))
    colours = [{"intTarget": class_id, "color": table.colour(class_id)} for class_id, _ in classes]
    value = {"default_mask_targets": {str(class_id): name for class_id, name in classes}, "default_mask_targets_colors": colours}
    target.out.write_json(FILE, value)
