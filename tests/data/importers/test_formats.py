"""What each importer takes for a mistake, and what it makes of several annotations, paths of other machines and shapes."""

import json

import pytest

from tests.data.importers.conftest import with_images
from vwl.data.importers.detect import prepare_any
from vwl.data.tagged import Choices
from vwl.errors import VwlError


def task(number, *annotations, image="a.jpg"):
    return {"id": number, "data": {"image": image}, "annotations": [*annotations]}


def annotation(*choices, name="choice", **more):
    result = [{"type": "choices", "from_name": name, "to_name": "image", "value": {"choices": [*choices]}}] if choices else []
    return {"result": result, "was_cancelled": False, "ground_truth": False, **more}


def of_tasks(photos, *tasks, **options):
    (photos / "export.json").write_text(json.dumps([*tasks]))
    prepared = prepare_any(photos / "export.json", **options)
    return {row.image_id: [prepared.index.classes[label] for label in row.labels] for row in prepared.index.rows}, prepared.notes


def test_a_label_needs_more_than_half_of_the_annotations(photos):
    found, notes = of_tasks(photos, task(1, annotation("dog", "cat"), annotation("dog"), annotation("dog")))
    assert found == {"a": ["dog"]}
    assert "the annotations of 1 tasks differ; labels are those that more than half of them have" in notes


def test_skipped_annotations_do_not_count_and_tasks_without_others_are_left_out(photos):
    skipped = annotation("cat", was_cancelled=True)
    found, notes = of_tasks(photos, task(1, annotation("dog"), skipped), task(2, skipped, image="b.jpg"), task(3, image="c.jpg"))
    assert found == {"a": ["dog"]}
    assert "2 tasks without an annotation, or only skipped ones, are left out" in notes


def test_ground_truth_counts_alone(photos):
    found, _ = of_tasks(photos, task(1, annotation("cat"), annotation("cat"), annotation("dog", ground_truth=True)))
    assert found == {"a": ["dog"]}


def test_an_annotation_without_a_choice_is_an_image_without_objects_only_if_that_is_said(photos):
    tasks = (task(1, annotation("dog")), task(2, annotation(), image="b.jpg"))
    with pytest.raises(VwlError, match=r"task 2: the training image 'b\.jpg' has no label"):
        of_tasks(photos, *tasks)
    assert of_tasks(photos, *tasks, choices=Choices(negatives="empty"))[0] == {"a": ["dog"], "b": []}


def test_annotators_who_agree_on_nothing_give_no_image_without_objects(photos):
    tasks = (task(1, annotation("dog")), task(2, annotation("dog"), annotation("cat"), image="b.jpg"))
    with pytest.raises(VwlError, match="task 2: its annotations agree on none of dog, cat; mark one annotation as ground truth"):
        of_tasks(photos, *tasks, choices=Choices(negatives="empty"))


def test_several_choices_need_the_name_of_one(photos):
    both = annotation("dog")
    both["result"] += annotation("blurred", name="quality")["result"]
    with pytest.raises(VwlError, match="has choices choice, quality; say with --field which are the labels"):
        of_tasks(photos, task(1, both))
    assert of_tasks(photos, task(1, both), field="quality")[0] == {"a": ["blurred"]}
    with pytest.raises(VwlError, match="--field says 'other'"):
        of_tasks(photos, task(1, both), field="other")


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/7/0123abcd-a.jpg",
        "/data/local-files/?d=home/me/photos/a.jpg",
        "https://example.org/bucket/a.jpg?signature=x%2Fy",
        "s3://bucket/photos/a.jpg",
        "photos\\a.jpg",
        "a.jpg",
    ],
)
def test_the_image_of_a_task_is_found_wherever_it_was(photos, image):
    assert of_tasks(photos, task(1, annotation("dog"), image=image))[0] == {"a": ["dog"]}


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([task(1, annotation("dog"), image="z.jpg")], r"task 1: there is no image 'z\.jpg'"),
        ([task(1, annotation("dog"), image="../../etc/z.jpg")], "task 1: there is no image"),
        ([{"id": 1, "data": {"text": "x"}, "annotations": [annotation("dog")]}], "task 1 has 0 values that name an image"),
        ([{"id": 1, "data": {}, "annotations": [{"result": None}]}], "task 1 has an annotation without a list 'result'"),
        ([{"id": 1, "data": [], "annotations": []}], "task 1 has no 'data' or no list"),
        ([task(1, {"result": [{"type": "rectanglelabels"}]})], r"holds no choices \(it has rectanglelabels\)"),
        ([task(1, annotation({"a": 1}))], "task 1: the label \"{'a': 1}\" is neither a name nor a whole number"),
        ([task(1, annotation("dog")), task(2, annotation("dog"))], "image id 'a' occurs more than once"),
        ([task(1)], "holds no choices"),
        ([task(1, annotation("background"))], "task 1: 'background' is id 0 of every mask"),
    ],
)
def test_faults_of_label_studio_are_named_with_their_task(photos, tasks, message):
    with pytest.raises(VwlError, match=message) as caught:
        of_tasks(photos, *tasks)
    assert "\n" not in str(caught.value)


def cvat(*images, meta=""):
    return f"<annotations><version>1.1</version><meta>{meta}</meta>{''.join(images)}</annotations>"


def of_file(photos, name, text, **options):
    (photos / name).write_text(text)
    return prepare_any(photos / name, **options)


def test_shapes_of_cvat_count_as_labels_and_subsets_are_splits(photos):
    images = (
        '<image id="0" name="a.jpg" subset="Train"><tag label="dog"/><box label="cat" xtl="0" ytl="0" xbr="1" ybr="1"/></image>',
        '<image id="1" name="b.jpg" subset="Validation"><tag label="dog"/></image>',
        '<image id="2" name="c.jpg" subset="default"><tag label="dog"/></image>',
    )
    prepared = of_file(photos, "x.xml", cvat(*images))
    assert [(row.labels, row.split) for row in prepared.index.rows] == [((1, 2), "train"), ((2,), "val"), ((2,), "train")]
    assert "1 boxes, polygons and masks count as labels of their images" in prepared.notes


IMAGE = '<image id="0" name="a.jpg"><tag label="dog"/></image>'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.xml", f"<!DOCTYPE a [<!ENTITY b 'c'>]>{cvat(IMAGE)}", "declares a document type"),
        ("x.xml", cvat(IMAGE)[:-5], "not valid XML"),
        ("x.xml", "<annotation><object/></annotation>", "its root is 'annotation' and not 'annotations'"),
        ("x.xml", cvat('<image id="4"/>'), "image 4 has no name"),
        ("x.xml", cvat('<image id="4" name="a.jpg" subset="night"><tag label="dog"/></image>'), "unknown split 'night'"),
        ("x.xml", cvat("<track/>", IMAGE), "holds tracks of a video"),
        ("x.xml", cvat(), "lists no images"),
        ("x.csv", "image,dog\na.jpg,2\n", "line 2: the column 'dog' holds '2'; write 0 or 1"),
        ("x.csv", "image,dog,width\na.jpg,1,640\n", "line 2: the column 'width' holds '640'"),
        ("x.csv", "image,dog,dog\na.jpg,1,0\n", "has two columns 'dog'"),
        ("x.csv", "image,dog\na.jpg,1\nb.jpg\n", "line 3 has 1 fields and the header 2"),
        ("x.csv", "image,dog\na.jpg,1\nb.jpg,0\n", r"line 3: the training image 'b\.jpg' has no label"),
        ("x.csv", "image,dog\n", "lists no images"),
        ("x.csv", 'annotation_id,annotator,image,choice\n1,1,a.jpg,"{""choices"":"\n', "are not valid JSON"),
        ("metadata.csv", "file_name,text\na.jpg,dog\n", r"no column 'labels'; name the column of the labels with --field \(text\)"),
        ("metadata.csv", "file,label\na.jpg,dog\n", "line 2 has no 'file_name'"),
        ("metadata.csv", "file_name,label\na.jpg\n", "line 2 has 1 fields and the header 2"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "label": 1.5}', "line 1: the label '1.5' is neither a name nor"),
        ("metadata.jsonl", "[1]", "line 1 is no JSON object"),
        ("metadata.jsonl", '{"file_name": "a.jpg"', "line 1 is not valid JSON"),
        ("x.json", '{"images": [{"id": 1}], "annotations": [], "categories": []}', "an entry lacks the key 'file_name'"),
        (
            "x.json",
            '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 2, "category_id": 1}], "categories": []}',
            "belongs to image 2, which is not listed",
        ),
        (
            "x.json",
            '{"images": [{"id": [], "file_name": "a.jpg"}], "annotations": [], "categories": []}',
            "an entry has a value of another type",
        ),
        (
            "x.json",
            '{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": [], "categories": []}',
            "image id 1 is listed twice",
        ),
    ],
)
def test_faults_of_files_are_named_with_their_place(photos, name, text, message):
    formats = {".xml": "cvat", ".json": "coco-json"}
    wanted = formats.get(f".{name.partition('.')[2]}") or ("multi-hot" if text.startswith("image") else None)
    with pytest.raises(VwlError, match=message) as caught:
        of_file(photos, name, text, label_format=wanted)
    assert "\n" not in str(caught.value)


def test_numbers_are_names_of_classes_and_a_named_column_holds_the_labels(photos):
    prepared = of_file(
        photos, "metadata.jsonl", '{"file_name": "a.jpg", "kind": 1, "label": "x"}\n{"file_name": "b.jpg", "kind": 0}', field="kind"
    )
    assert prepared.index.classes == ("background", "0", "1")
    prepared = of_file(photos, "metadata.csv", 'file_name,kind\na.jpg,"dog, cat"\n', field="kind")
    assert prepared.index.classes == ("background", "cat", "dog")


def test_a_column_split_of_a_multi_hot_file_is_no_class(photos):
    prepared = of_file(photos, "x.csv", "image,split,dog\na.jpg,val,1\n")
    assert (prepared.index.classes, prepared.index.rows[0].split) == (("background", "dog"), "val")


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("train/dog/1.jpg", "dog/1.jpg"), "'train' is the name of a split and 'dog' is none"),
        (("dog/1.jpg", "dog/old/2.jpg"), "dog/old/2.jpg: images of this folder must lie as CLASS/image"),
        (("train/1.jpg",), "train/1.jpg: images of this folder must lie as SPLIT/CLASS/image"),
        (("background/1.jpg",), "'background' is id 0 of every mask"),
        (("dog/1.jpg", "dog/1.png"), "image id 'dog_1' occurs more than once"),
        (("Dog/1.jpg", "dog/2.jpg"), "the class names 'Dog' and 'dog' differ only in case"),
    ],
)
def test_images_in_the_wrong_folder_are_refused(tmp_path, paths, message):
    with pytest.raises(VwlError, match=message):
        prepare_any(with_images(tmp_path / "data", *paths))


def test_an_image_that_is_a_link_out_of_the_folder_is_refused(tmp_path):
    root = with_images(tmp_path / "data", "dog/1.jpg", "dog/2.jpg")
    with_images(tmp_path, "outside.jpg")
    (root / "dog/3.jpg").symlink_to(tmp_path / "outside.jpg")
    with pytest.raises(VwlError, match="is a link that leads out of"):
        prepare_any(root)
