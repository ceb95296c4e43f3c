"""PASCAL VOC's folders: the masks as indexed PNG files, with 255 for ignored pixels, lists of the splits and the colours of the classes."""

from vwl.constants import IGNORE
from vwl.exporters.target import Target
from vwl.storage.masks import encode_mask

_SPLITS = {"train": "train", "aug": "train", "val": "val", "test": "test"}
_IGNORED = "ignored"
"""VOC's name of pixels that are 255."""


def write(target: Target) -> None:
    """Write `SegmentationClass/NAME.png`, `ImageSets/Segmentation/SPLIT.txt` and `labelmap.txt`; the images go to `JPEGImages/`."""
    table, lists = target.source.table, dict[str, list[str]]()
    for entry, mask in target.masks():
        target.out.write(f"SegmentationClass/{entry.name}.png", encode_mask(target.without_small_regions(mask), table.palette))
        suffix = entry.image[entry.image.rfind(".") :]
        target.copy_image(entry, f"JPEGImages/{entry.name}{suffix}")
        lists.setdefault(_SPLITS.get(entry.split, entry.split), []).append(entry.name)
    for split, names in lists.items():
        target.out.write(f"ImageSets/Segmentation/{split}.txt", "".join(f"{name}\n" for name in names).encode())
    lines = [f"{name}:{','.join(map(str, table.palette[3 * i : 3 * i + 3]))}::\n" for i, name in enumerate(table.classes)]
    if target.summary.ignored:  # readers refuse colours that are not declared
        lines.append(f"{_IGNORED}:{','.join(map(str, table.palette[3 * IGNORE :]))}::\n")
    target.out.write("labelmap.txt", "".join(["# label:color_rgb:parts:actions\n", *lines]).encode())
