"""Image labels from JSON in COCO's layout, with any category ids: Roboflow, CVAT, Datumaro, Label Studio, one's own scripts.

Only the categories of an image's annotations are read, so that annotations need neither boxes nor segmentations. `vwl.data.coco` is for
MS COCO itself, and paints masks.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from vwl.data.coco_json import read_categories
from vwl.data.image_files import ImageFiles
from vwl.data.importers.common import LabelFile, find_image, split_for
from vwl.data.tagged import TaggedImage, TaggedImages
from vwl.errors import VwlError


def is_coco(content: Any) -> bool:
    """Return whether the value of a JSON file has COCO's lists."""
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "annotations", "categories"))


def read_coco_labels(label_files: Sequence[LabelFile], files: ImageFiles) -> TaggedImages:
    """Return the images of JSON files, one or one a split; classes are in the order of the category ids.

    Raises:
        VwlError: a file has not COCO's layout, files differ in their categories, or an entry lacks a key or names what is not listed.
    """
    images: list[TaggedImage] = []
    categories: dict[int, str] = {}
    for file, split in zip(label_files, split_for(label_files), strict=True):
        content = file.json()
        if not is_coco(content):
            raise VwlError(f"{file} has not the layout of COCO's JSON: it needs the lists images, annotations and categories")
        own = read_categories(content, str(file))
        if categories and own != categories:
            raise VwlError(f"{file} has other categories than {label_files[0]}; give both the same")
        categories = own
        labels = _labels(content, file, categories)
        folders = (file.parent, f"images/{file.split}", file.split, "images")
        for image in content["images"]:
            path = find_image(files, image["file_name"], folders)
            names = tuple(dict.fromkeys(categories[number] for number in sorted(labels[image["id"]])))
            images.append(TaggedImage(f"{file} image {image['id']}", path, names, split))
    if not images:
        raise VwlError(f"{label_files[0]} lists no images")
    return TaggedImages(images, str(label_files[0]), f"COCO JSON {label_files[0].name}", order=[*categories.values()])


def _labels(content: dict[str, Any], file: LabelFile, categories: dict[int, str]) -> dict[Any, set[int]]:
    """Return the category ids of each image id."""
    labels: dict[Any, set[int]] = defaultdict(set)
    try:
        listed = [image["id"] for image in content["images"]]
        if len({*listed}) < len(listed):
            twice = next(number for number in listed if listed.count(number) > 1)
            raise VwlError(f"{file}: image id {twice} is listed twice; give each image its own")
        if not all(isinstance(image["file_name"], str) for image in content["images"]):
            raise TypeError("a file name is no text")
        known = {*listed}
        for annotation in content["annotations"]:
            image, category = annotation["image_id"], annotation["category_id"]
            if image not in known or category not in categories:
                what = f"belongs to image {image}" if image not in known else f"has category {category}"
                raise VwlError(f"{file}: annotation {annotation.get('id')} {what}, which is not listed")
            labels[image].add(category)
    except KeyError as error:
        raise VwlError(f"{file} has not the layout of COCO's JSON: an entry lacks the key {error}") from None
    except (TypeError, AttributeError) as error:
        raise VwlError(f"{file} has not the layout of COCO's JSON: an entry has a value of another type ({error})") from None
    return labels
