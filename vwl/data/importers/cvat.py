"""Tags of CVAT: its export `CVAT for images 1.1`, an XML file. Boxes, polygons and masks say that their class is there as well."""

from collections.abc import Sequence
from xml.etree import ElementTree

from vwl.data.image_files import ImageFiles
from vwl.data.importers.common import SPLIT_NAMES, LabelFile, find_image, split_for
from vwl.data.tagged import TaggedImage, TaggedImages
from vwl.errors import VwlError

_NO_SPLIT = {"", "default"}


def read_cvat(label_files: Sequence[LabelFile], files: ImageFiles) -> TaggedImages:
    """Return the images of XML files, one or one a split; the order of the classes is that of CVAT's labels.

    Raises:
        VwlError: a file is not valid XML, not of this format, or an image or tag lacks its name.
    """
    images: list[TaggedImage] = []
    order: dict[str, None] = {}
    num_shapes = 0
    for file, split in zip(label_files, split_for(label_files), strict=True):
        root = parse(file)
        if root.find("track") is not None:
            raise VwlError(f"{file} holds tracks of a video; export the task as 'CVAT for images 1.1'")
        order |= dict.fromkeys(label.findtext("name", "").strip() for label in root.iterfind("meta//labels/label"))
        for element in root.iterfind("image"):
            name, subset = element.get("name", ""), element.get("subset", "")
            where = f"{file} image '{name}'"
            if not name:
                raise VwlError(f"{file}: image {element.get('id', '(no id)')} has no name; export the task again")
            marks = [child for child in element if child.get("label") is not None]
            labels = dict.fromkeys(str(child.get("label")).strip() for child in marks)
            num_shapes += sum(child.tag != "tag" for child in marks)
            own = split if subset.lower() in _NO_SPLIT else SPLIT_NAMES.get(subset.lower(), subset)
            path = find_image(files, name, (f"images/{subset}", "images", file.parent))
            images.append(TaggedImage(where, path, tuple(labels), own))
    if not images:
        raise VwlError(f"{label_files[0]} lists no images; export a task or project with images")
    notes = [f"{num_shapes:,} boxes, polygons and masks count as labels of their images"] if num_shapes else []
    return TaggedImages(images, str(label_files[0]), f"CVAT for images {label_files[0].name}", notes, [name for name in order if name])


def parse(file: LabelFile) -> ElementTree.Element:
    """Return the root element of an XML file of CVAT.

    Raises:
        VwlError: it is not XML, declares entities, or has another root.
    """
    file.folder.require_inside(file.path)
    data = file.folder.read(file.path)
    if b"<!ENTITY" in data or b"<!DOCTYPE" in data:  # CVAT writes neither, and entities of entities fill the memory
        raise VwlError(f"{file} declares a document type, which CVAT's exports do not; export the task again")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: encodings that do not exist
        raise VwlError(f"{file} is not valid XML: {error}") from None
    if root.tag != "annotations":
        raise VwlError(f"{file} is not an export of CVAT: its root is '{root.tag[:60]}' and not 'annotations'")
    return root
