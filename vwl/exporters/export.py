"""Writes masks in the format of an annotation tool: the table of formats, and the one function behind `vwl export FORMAT`."""

from collections.abc import Callable
from dataclasses import dataclass

from vwl.errors import VwlError, did_you_mean
from vwl.exporters import coco, cvat, fiftyone, label_studio, labelme, voc, yolo
from vwl.exporters.source import MaskSource
from vwl.exporters.target import OnImage, Options, Summary, Target
from vwl.storage.folder import Folder


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        write: writes it.
        outlines: whether it can hold regions as polygons.
        pixels: whether it can hold them as exact pixels.
    """

    write: Callable[[Target], None]
    outlines: bool
    pixels: bool


FORMATS = {
    "coco": Format(coco.write, True, True),
    "yolo-seg": Format(yolo.write, True, False),
    "label-studio": Format(label_studio.write, True, True),
    "cvat": Format(cvat.write, True, True),
    "labelme": Format(labelme.write, True, True),
    "voc": Format(voc.write, False, True),
    "fiftyone": Format(fiftyone.write, False, True),
}


def export_masks(
    source: MaskSource, format_name: str, out: Folder, options: Options | None = None, on_image: OnImage | None = None
) -> Summary:
    """Write masks in a format, one image at a time; files of an earlier export with the same names are replaced.

    Args:
        source: the masks (`vwl.exporters.source`).
        format_name: a name of `FORMATS`.
        out: folder to write to.
        options: of the export.
        on_image: called after each image.

    Raises:
        VwlError: the format is unknown or cannot hold the geometry, a mask or image cannot be read, or the folder cannot be written.
    """
    options = options or Options()
    found = FORMATS.get(format_name)
    if found is None:
        raise VwlError(f"unknown format '{format_name}'{did_you_mean(format_name, FORMATS)} (formats are {', '.join(FORMATS)})")
    if options.geometry == "rle" and found.outlines and not found.pixels:
        raise VwlError(f"{format_name} holds polygons only; leave --geometry out")
    target = Target(source, out, options, Summary(format_name, str(out)), on_image or (lambda done, total: None))
    target.check()
    found.write(target)
    return target.summary
