"""The masks of the segmentation model as a zip file for the PASCAL VOC evaluation server."""

import io
import zipfile

from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.storage.masks import read_result
from vwl.workflow.run_folder import Run

_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_submission(run: Run, split: str, folder: Folder, name: str, competition: str = "comp6") -> int:
    """Pack the masks of a split as `results/VOC2012/Segmentation/<competition>_<split>_cls/<id>.png`; return their number.

    The same masks give the same bytes.

    Args:
        run: a run with a finished segment stage.
        split: `test` (the server's), `val` or `train`.
        folder, name: of the zip file.
        competition: comp5 for training on VOC only, comp6 for training on other data too.

    Raises:
        VwlError: the index has no images in the split, or masks are missing.
    """
    rows = run.index.split(split)
    masks = run.stage_folder("segment")
    available = set(masks.names(".png"))
    absent = [row.image_id for row in rows if f"{row.image_id}.png" not in available]
    if absent:
        manifest = run.manifest("segment")
        failed = {image_id: manifest.failed[image_id] for image_id in absent if image_id in manifest.failed} if manifest else {}
        if len(failed) == len(absent):
            raise VwlError(
                f"{len(absent)} of {len(rows)} images of {split} failed in {masks}, e.g. {absent[0]}: {failed[absent[0]]}; "
                f"repair them, delete {masks}, and run: vwl infer segment --split {split} --run {run.folder}"
            )
        raise VwlError(
            f"{masks} lacks {len(absent)} of {len(rows)} masks of {split}, e.g. {absent[0]}; "
            f"run: vwl infer segment --split {split} --run {run.folder}"
        )
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for row in rows:
            path = f"results/VOC2012/Segmentation/{competition}_{split}_cls/{row.image_id}.png"
            archive.writestr(zipfile.ZipInfo(path, _EPOCH), read_result(masks, row.image_id))
    folder.write(name, sink.getvalue())
    return len(rows)
