"""Round trips through the libraries of the tools themselves; those that are not installed are skipped.

They come with the extra `formats-test`, which changes versions that other tests rely on, so it belongs into an environment of its own.
`VWL_MASKS` names a folder of masks to take 20 from instead of VOC's ground truth. `-s` shows the figures.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from tests.exporters.sources import NAMES, ious, painted, real, ring, source_of, without_ignored
from vwl.storage.folder import Folder

pytest.importorskip("shapely")

from vwl.exporters.export import export_masks
from vwl.exporters.polygons import outlined
from vwl.exporters.regions import number_regions
from vwl.exporters.target import Options

pytestmark = pytest.mark.drill

Reader = Callable[[Path], list[np.ndarray]]


def read_datumaro(format_name: str) -> Reader:
    def read(folder: Path) -> list[np.ndarray]:
        dataset = pytest.importorskip("datumaro.components.dataset").Dataset.import_from(str(folder), format_name)
        annotation = pytest.importorskip("datumaro.components.annotation")
        coco_mask = pytest.importorskip("pycocotools.mask")
        names = [label.name for label in dataset.categories()[annotation.AnnotationType.label].items]
        masks = []
        for item in sorted(dataset, key=lambda item: item.id):
            height, width = item.media.size
            parts = []
            for shape in item.annotations:
                if shape.type == annotation.AnnotationType.polygon:
                    bitmap = coco_mask.decode(coco_mask.frPyObjects([shape.points], height, width))[..., 0]
                elif shape.type == annotation.AnnotationType.mask:
                    bitmap = np.asarray(shape.image)
                else:
                    continue
                if names[shape.label] in NAMES:
                    parts.append((NAMES.index(names[shape.label]), bitmap))
            masks.append(painted((height, width), parts))
        return masks

    return read


def read_supervision(folder: Path) -> list[np.ndarray]:
    supervision = pytest.importorskip("supervision")
    data = supervision.DetectionDataset.from_yolo(
        str(folder / "images/train"), str(folder / "labels/train"), str(folder / "data.yaml"), force_masks=True
    )
    masks = []
    for _, image, found in sorted(data, key=lambda item: item[0]):
        parts = [] if found.mask is None else [(class_id + 1, bitmap) for class_id, bitmap in zip(found.class_id, found.mask, strict=True)]
        masks.append(painted(image.shape[:2], parts))
    assert data.classes == list(NAMES[1:])
    return masks


def read_ultralytics(folder: Path) -> list[np.ndarray]:
    utils, data = pytest.importorskip("ultralytics.data.utils"), pytest.importorskip("ultralytics.data.dataset")
    described = utils.check_det_dataset(str(folder / "data.yaml"), autodownload=False)
    assert list(described["names"].values()) == list(NAMES[1:])
    dataset = data.YOLODataset(img_path=described["train"], data=described, task="segment", augment=False, imgsz=640)
    masks = []
    for label in sorted(dataset.labels, key=lambda label: label["im_file"]):
        height, width = label["shape"]
        parts = [
            (int(class_id) + 1, utils.polygon2mask((height, width), [(segment * [width, height]).reshape(-1)]))
            for class_id, segment in zip(label["cls"].ravel(), label["segments"], strict=True)
        ]
        masks.append(painted((height, width), parts))
    return masks


def read_label_studio(folder: Path) -> list[np.ndarray]:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    interface = pytest.importorskip("label_studio_sdk.label_interface").LabelInterface((folder / "labeling_config.xml").read_text())
    draw, image = pytest.importorskip("PIL.ImageDraw"), pytest.importorskip("PIL.Image")
    masks = []
    for task in json.loads((folder / "tasks.json").read_text()):
        (prediction,) = task["predictions"]
        assert interface.validate_prediction({**prediction, "score": 1.0})
        mask = None
        for result in prediction["result"]:
            height, width = result["original_height"], result["original_width"]
            mask = np.zeros((height, width), np.uint8) if mask is None else mask
            value = result["value"]
            if result["type"] == "brushlabels":
                bitmap = brush.decode_rle(value["rle"]).reshape(height, width, 4)[..., 3] > 0
                class_id = NAMES.index(value["brushlabels"][0])
            else:  # the tool draws them on a canvas; drawn here eight times as large and reduced to the pixels whose centre is inside
                points = [(x * width * 8 / 100 - 0.5, y * height * 8 / 100 - 0.5) for x, y in value["points"]]
                large = image.new("1", (8 * width, 8 * height))
                draw.Draw(large).polygon(points, fill=1)
                bitmap = np.array(large)[4::8, 4::8]
                class_id = NAMES.index(value["polygonlabels"][0])
            mask[bitmap] = class_id
        masks.append(mask)
    return masks


def read_labelme(folder: Path) -> list[np.ndarray]:
    label_file, utils = pytest.importorskip("labelme._label_file"), pytest.importorskip("labelme.utils")
    names = {name: number for number, name in enumerate(NAMES)}
    masks = []
    for file in sorted((folder / "deep").glob("*.json")):
        content = label_file.read_label_file(str(file))  # opens the image, and compares its size
        size = json.loads(file.read_text())
        masks.append(utils.shapes_to_label((size["imageHeight"], size["imageWidth"]), content.shapes, names)[0])
    return masks


def read_fiftyone(folder: Path) -> list[np.ndarray]:
    importers = pytest.importorskip("fiftyone.utils.data")
    importer = importers.ImageSegmentationDirectoryImporter(str(folder), load_masks=True)
    importer.setup()
    found = sorted(importer, key=lambda item: item[0])
    assert all(Path(image).is_file() for image, _, _ in found)
    return [label.mask for _, _, label in found]


READERS = {
    "datumaro-coco": ("coco", "datumaro", read_datumaro("coco"), ("polygon", "rle")),
    "datumaro-cvat": ("cvat", "datumaro", read_datumaro("cvat"), ("polygon", "rle")),
    "datumaro-voc": ("voc", "datumaro", read_datumaro("voc_segmentation"), ("rle",)),
    "supervision": ("yolo-seg", "supervision", read_supervision, ("polygon",)),
    "ultralytics": ("yolo-seg", "ultralytics", read_ultralytics, ("polygon",)),
    "label-studio": ("label-studio", "label-studio-sdk", read_label_studio, ("polygon", "rle")),
    "labelme": ("labelme", "labelme", read_labelme, ("polygon", "rle")),
    "fiftyone": ("fiftyone", "fiftyone", read_fiftyone, ("rle",)),
}
CASES = [(name, geometry) for name, (*_, geometries) in READERS.items() for geometry in geometries]


def round_trip(name: str, geometry: str, masks: list[np.ndarray], folder: Path) -> list[np.ndarray]:
    format_name, package, read, _ = READERS[name]
    pytest.importorskip({"label-studio-sdk": "label_studio_sdk"}.get(package, package))
    source = source_of(masks, folder / "in")
    if name == "datumaro-coco":  # it takes COCO's folders: annotations/, images/
        export_masks(source, format_name, Folder(folder / "out/annotations"), Options(geometry))
        (folder / "out/annotations/annotations.json").rename(folder / "out/annotations/instances_train.json")
        source.images and (folder / "in").rename(folder / "out/images")
    else:
        export_masks(source, format_name, Folder(folder / "out"), Options(geometry, copy_images=True))
    return read(folder / "out")


def without_holes(mask: np.ndarray) -> np.ndarray:
    """Only the regions of a mask that have no holes: those that every format stores as polygons when asked for them."""
    numbered = number_regions(mask)
    return painted(mask.shape, [(r.class_id, r.full_size(*mask.shape)) for r in outlined(numbered, 0) if not r.holes])


def measured(name: str, geometry: str, masks: list[np.ndarray], folder: Path, what: str) -> list[float]:
    """The IoU of each class after a round trip, printed."""
    found = round_trip(name, geometry, masks, folder)
    assert len(found) == len(masks)
    values = [iou for mask, again in zip(masks, found, strict=True) for iou in ious(mask, again)]
    format_name, package, *_ = READERS[name]
    share = sum(np.count_nonzero(without_ignored(mask)) for mask in masks)
    print(f"\n{format_name} {geometry} by {package} {metadata.version(package)}, {what}: {len(values)} classes, {share} pixels, "
          f"IoU mean {np.mean(values):.4f}, least {min(values):.4f}")  # fmt: skip
    return values


@pytest.mark.parametrize(("name", "geometry"), CASES)
def test_the_tools_own_library_reads_20_real_masks(name, geometry, tmp_path):
    values = measured(name, geometry, real(), tmp_path, "whole masks, holes as the format has them")
    assert min(values) >= (1.0 if geometry == "rle" else 0.98)


@pytest.mark.parametrize("name", [name for name, geometry in CASES if geometry == "polygon"])
@pytest.mark.parametrize("min_area", [0, 50])
def test_what_is_stored_as_polygons_is_read_as_it_was(name, min_area, tmp_path):
    # Whole masks would hide how good polygons are: their regions with holes are stored as pixels.
    cleaned = [cleaned_mask(mask, min_area) for mask in real()]
    values = measured(name, "polygon", [without_holes(mask) for mask in cleaned], tmp_path, f"polygons only, min_area {min_area}")
    assert len(values) >= 10
    assert min(values) >= 0.98


def cleaned_mask(mask: np.ndarray, min_area: int) -> np.ndarray:
    numbered = number_regions(mask, min_area)
    return np.array([0, *numbered.class_ids], np.uint8)[numbered.numbers]


@pytest.mark.parametrize("name", [name for name, geometry in CASES if geometry == "rle"])
def test_holes_lone_pixels_and_islands_are_exact_as_run_lengths(name, tmp_path):
    (found,) = round_trip(name, "rle", [ring()], tmp_path)
    np.testing.assert_array_equal(without_ignored(found), without_ignored(ring()))


def test_an_image_in_a_folder_named_images_finds_its_yolo_labels(tmp_path):
    utils = pytest.importorskip("ultralytics.data.utils")
    source = source_of([ring()])
    source = replace(source, entries=[replace(source.entries[0], name="images/a")], read=lambda entry: ring())
    export_masks(source, "yolo-seg", Folder(tmp_path))
    image = tmp_path / (tmp_path / "train.txt").read_text().strip()
    assert Path(*utils.img2label_paths([str(image)])).is_file()
