"""The segmentation model's masks as an evaluation server takes them: one zip, laid out like PASCAL VOC's results."""

import io
import zipfile

from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.workflow.run_folder import Run

_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_submission(run: Run, split: str, folder: Folder, name: str, competition: str = "comp6") -> int:
    """Write `results/VOC2012/Segmentation/<competition>_<split>_cls/<id>.png` for a split into a zip; return the number of masks.

    The same masks give the same bytes.

    Args:
        run: with a finished segment stage.
        split: `test` (the server's), `val` or `train`.
        folder, name: where the zip goes.
        competition: the server's name of it: comp5 for training on VOC alone, comp6 for other data too.

    Raises:
        VwlError: the index has no images in the split, or masks of some are missing.
    """
    rows = run.index.split(split)
    masks = run.stage_folder("segment")
    there = set(masks.names(".png"))
    lacking = [row.image_id for row in rows if f"{row.image_id}.png" not in there]
    if lacking:
        raise VwlError(f"{masks} lacks {len(lacking)} of {len(rows)} masks of {split}, e.g. {lacking[0]}; run vwl infer segment first")
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for row in rows:
            path = f"results/VOC2012/Segmentation/{competition}_{split}_cls/{row.image_id}.png"
            archive.writestr(zipfile.ZipInfo(path, _EPOCH), masks.read(f"{row.image_id}.png"))
    folder.write(name, sink.getvalue())
    return len(rows)
