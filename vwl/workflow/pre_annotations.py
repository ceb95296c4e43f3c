"""Masks of a review queue as a folder that people correct and `vwl data add-masks` takes back.

```
<image id>.png     indexed PNG of class ids, as large as the upright image
queue.csv          rank, image id, path of the image, split, labels, score, reason, the stage and a digest of each mask
classes.txt        class names in the order of their ids, from 0
```
"""

import csv
import io
from collections.abc import Sequence
from typing import Literal

from vwl.data.corrections import QUEUE, mask_digest
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.storage.masks import encode_mask
from vwl.workflow.review import ReviewedImage, RunMasks
from vwl.workflow.run_folder import Run

MaskStage = Literal["walk", "segment", "crf"]
CLASSES = "classes.txt"
_COLUMNS = ("rank", "image_id", "image", "split", "labels", "score", "reason", "stage", "digest")


def write_pre_annotations(run: Run, images: Sequence[ReviewedImage], folder: Folder, stage: MaskStage = "walk") -> int:
    """Write the masks of some images of a queue, with a table of them, and return their number.

    Args:
        run: that was reviewed.
        images: of its queue.
        folder: new or empty: corrected masks are never overwritten.
        stage: whose masks are written; of an image that it has none of, those of another stage.

    Raises:
        VwlError: the folder holds masks already, or cannot be written, or a mask of the run is damaged.
    """
    if folder.names(".png"):
        raise VwlError(f"{folder} holds masks already, perhaps corrected ones; name another folder, or delete these")
    masks, sink = RunMasks(run), io.StringIO()
    table = csv.writer(sink, lineterminator="\n")
    table.writerow(_COLUMNS)
    for image in images:
        row, available = image.row, masks.stages(image.row.image_id)
        source = stage if stage in available else available[-1]
        mask = masks.mask(source, row.image_id)
        folder.write(f"{row.image_id}.png", encode_mask(mask, run.index.palette))
        labels = ";".join(run.index.classes[label] for label in row.labels)
        where = run.index.root.uri_of(row.image)
        table.writerow((image.rank, row.image_id, where, row.split, labels, f"{image.score:.4f}", image.reason, source, mask_digest(mask)))
    folder.write(CLASSES, "".join(f"{name}\n" for name in run.index.classes).encode())
    folder.write(QUEUE, sink.getvalue().encode())  # last: a folder without it is not whole
    return len(images)
