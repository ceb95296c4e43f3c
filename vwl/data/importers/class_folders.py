"""A folder for each class: `dog/1.jpg`, or with splits `train/dog/1.jpg`, as torchvision and Hugging Face read them."""

from pathlib import PurePosixPath

from vwl.data.image_files import ImageFiles
from vwl.data.importers.common import SPLIT_NAMES
from vwl.data.tagged import TaggedImage, TaggedImages
from vwl.errors import VwlError


def read_class_folders(files: ImageFiles) -> TaggedImages:
    """Return the images of a folder whose subfolders are named after classes; each image has one label.

    Raises:
        VwlError: an image lies in no folder of a class or in a folder below one, or only some folders are splits.
    """
    paths = files.paths
    root = files.folder
    parts = {path: PurePosixPath(path).parts for path in paths}
    tops = sorted({own[0] for own in parts.values() if len(own) > 1})
    splits = [top for top in tops if top.lower() in SPLIT_NAMES]
    if splits and len(splits) < len(tops):
        other = next(top for top in tops if top not in splits)
        raise VwlError(f"{root}: '{splits[0]}' is the name of a split and '{other}' is none; have folders of classes in folders of splits")
    depth = 3 if splits else 2
    images = []
    for path, own in parts.items():
        if len(own) != depth:
            layout = "SPLIT/CLASS/image" if splits else "CLASS/image"
            raise VwlError(f"{root}/{path}: images of this folder must lie as {layout}; move this one, or give a file of labels")
        images.append(TaggedImage(f"{root}/{path}", path, (own[-2],), SPLIT_NAMES[own[0].lower()] if splits else ""))
    with_splits = f" in the splits {', '.join(splits)}" if splits else ""
    return TaggedImages(images, str(root), f"class-per-folder {PurePosixPath(root.path).name}{with_splits}")
