import numpy as np
import pytest
from PIL import Image

from vwl.data.folder import prepare_folder
from vwl.data.image_files import common_root
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.storage.masks import encode_mask, voc_palette


@pytest.fixture
def images(tmp_path):
    """Images a.jpg, b.png and c.JPG, and their masks in the folder `truth` next to theirs."""
    folder = tmp_path / "images"
    folder.mkdir()
    (tmp_path / "truth").mkdir()
    for name in ("a.jpg", "b.png", "c.JPG"):
        Image.new("RGB", (8, 6)).save(folder / name)
        (tmp_path / f"truth/{name[0]}.png").write_bytes(encode_mask(np.ones((6, 8), np.uint8), voc_palette()))
    return folder


def table(images, text):
    path = images.parent / "labels.csv"
    path.write_text(text)
    return path


def test_files_are_named_with_or_without_extension_and_classes_are_sorted(images):
    index, notes = prepare_folder(images, table(images, "image,labels\na,zebra ant\nb.png,ant\nc,zebra\n"))
    assert index.classes == ("background", "ant", "zebra")
    assert [(r.image_id, r.image, r.labels, r.split) for r in index.rows] == [
        ("a", "a.jpg", (1, 2), "train"),
        ("b", "b.png", (1,), "train"),
        ("c", "c.JPG", (2,), "train"),
    ]
    assert notes == [
        "classes 1 to 2 are the label names in alphabetical order: ant, zebra",
        "labels are separated by blanks; if a class name has blanks, separate labels by ';' or put the name in quotes",
    ]


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "bmp", "tif", "tiff", "webp", "gif"])
def test_images_of_every_format_that_is_read_are_found(tmp_path, suffix):
    Image.new("RGB", (8, 6)).save(tmp_path / f"a.{suffix}")
    (tmp_path / "labels.csv").write_text("image,labels\na,x\n")
    index, _ = prepare_folder(tmp_path, tmp_path / "labels.csv")
    assert index.read_image(index.rows[0]).size == (8, 6)


@pytest.mark.parametrize("labels", ["big cat;dog", "big cat | dog", '"big cat;dog"', "'big cat'; 'dog';", "dog;big cat;dog"])
def test_names_with_spaces_are_separated_by_semicolons_or_bars(images, labels):
    index, _ = prepare_folder(images, table(images, f"image,labels\na,{labels}\n"))
    assert index.classes == ("background", "big cat", "dog")
    assert index.rows[0].labels == (1, 2)


def test_a_separator_in_one_row_keeps_names_with_blanks_in_all_rows(images):
    index, notes = prepare_folder(images, table(images, 'image,labels\na,traffic light\nb,"dog, person"\n'))
    assert index.classes == ("background", "dog", "person", "traffic light")
    assert [row.labels for row in index.rows] == [(3,), (1, 2)]
    assert notes[:2] == [
        "classes 1 to 3 are the label names in alphabetical order: dog, person, traffic light",
        "labels are separated by ','",
    ]


def test_a_stated_separator_keeps_names_with_blanks_that_no_row_separates(images):
    index, _ = prepare_folder(images, table(images, "image,labels\na,traffic light\nb,dog\n"), separator="semicolon")
    assert index.classes == ("background", "dog", "traffic light")


def test_columns_are_in_any_order_and_the_column_split_is_used(images):
    text = "\ufeffsplit, labels, note, image\ntrain, x, hello, a\nval, y, , b\ntest, , , c\n"
    index, _ = prepare_folder(images, table(images, text))
    assert [(row.split, row.labels) for row in index.rows] == [("train", (1,)), ("val", (2,)), ("test", ())]


def test_with_masks_in_another_folder_the_root_is_above_both(images):
    index, _ = prepare_folder(images, table(images, "image,labels\na,x\n"), masks=images.parent / "truth")
    assert index.root.uri == str(images.parent)
    assert (index.rows[0].image, index.rows[0].mask) == ("images/a.jpg", "truth/a.png")
    assert index.read_image(index.rows[0]).size == (8, 6)
    assert index.read_mask(index.rows[0]).shape == (6, 8)


def test_masks_below_the_folder_of_the_images_are_found(images):
    (images.parent / "truth").rename(images / "truth")
    index, _ = prepare_folder(images, table(images, "image,labels\na,x\n"), masks=images / "truth")
    assert index.root.uri == str(images)
    assert (index.rows[0].image, index.rows[0].mask) == ("a.jpg", "truth/a.png")


def test_a_file_of_classes_sets_their_order_and_unused_classes_are_noted(images):
    (images.parent / "classes.txt").write_text("background\nzebra\nbig cat\nant\n")
    index, notes = prepare_folder(images, table(images, "image,labels\na,ant;zebra\n"), classes=images.parent / "classes.txt")
    assert index.classes == ("background", "zebra", "big cat", "ant")
    assert index.rows[0].labels == (1, 3)
    assert "no image is labelled big cat" in notes
    assert any(note.startswith("2 images of") and note.endswith("are left out") for note in notes)


def splits_of(tmp_path, names):
    for name in names:
        (tmp_path / f"{name}.jpg").touch()
    text = "image,labels\n" + "".join(f"{name},x\n" for name in names)
    (tmp_path / "labels.csv").write_text(text)
    index, _ = prepare_folder(tmp_path, tmp_path / "labels.csv", val_share=0.3)
    return {row.image_id: row.split for row in index.rows}


def test_the_share_of_val_is_approximate_and_an_image_keeps_its_split(tmp_path):
    names = [f"image{n}" for n in range(1000)]
    splits = splits_of(tmp_path, names)
    assert 0.25 < list(splits.values()).count("val") / 1000 < 0.35
    assert splits_of(tmp_path, names[100:150][::-1]) == {name: splits[name] for name in names[100:150]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,labels\nd,x\n", "line 2: there is no image 'd'"),
        ("image,labels\na.jpeg,x\n", "no image 'a.jpeg' in .*; did you mean 'a.jpg'"),
        ("image,labels\na,\n", "line 2: the training image 'a' has no label"),
        ("image,labels\na, ; \n", "line 2: the training image 'a' has no label"),
        ("image,labels\n", "lists no images"),
        ("", r"has no column 'image' \(it has: nothing\)"),
        ("image,label\na,x\n", r"has no column 'labels' \(it has: image, label\)"),
        ("image,labels\na,x\na.jpg,y\n", "image id 'a' occurs more than once"),
        ("image,labels\na,x,y\n", "line 2 has more fields than the header"),
        ("image,labels,split\na,x,vall\n", "line 2: unknown split 'vall'; did you mean 'val'"),
        ("image,labels,split\na,x,\n", "line 2 has no split; write train, aug, val or test"),
        ("image,labels,split\na,,val\n", "no image has a label"),
        ("image,labels\na,Dog\nb,dog\n", r"the class names 'Dog' \(line 2\) and 'dog' \(line 3\) differ only in case or blanks"),
        ("image,labels\na,a b;x\nb,ab\n", r"'a b' \(line 2\) and 'ab' \(line 3\) differ only in case or blanks"),
        ("image,labels\na,dog Background\n", "line 2: 'Background' is id 0 of every mask and cannot be an object class"),
        ("image,labels\na,x;y\u202ez\n", r"line 2: the class name 'y\\u202ez' holds characters that cannot be printed"),
        (f"image,labels\na,{' '.join(f'x{n}' for n in range(255))}\n", "there are 255 classes .*, but masks have ids for 254"),
    ],
)
def test_a_bad_csv_file_is_named_with_its_line(images, text, message):
    with pytest.raises(VwlError, match=message) as caught:
        prepare_folder(images, table(images, text))
    assert "\n" not in str(caught.value)


def test_an_image_or_mask_that_is_a_link_out_of_its_folder_is_refused(images):
    text = table(images, "image,labels\na,x\n")
    outside = images.parent.parent / "outside"
    for link in (images / "a.jpg", images.parent / "truth/a.png"):
        link.rename(outside)
        link.symlink_to(outside)
        with pytest.raises(VwlError, match=f"{link.name} is a link that leads out of"):
            prepare_folder(images, text, masks=images.parent / "truth")
        link.unlink()
        outside.rename(link)


def test_a_missing_mask_is_named_and_test_images_need_none(images):
    (images.parent / "truth/b.png").unlink()
    with pytest.raises(VwlError, match=r"line 3: the mask .*truth/b\.png of image 'b' is missing"):
        prepare_folder(images, table(images, "image,labels\na,x\nb,x\n"), masks=images.parent / "truth")
    index, _ = prepare_folder(images, table(images, "image,labels,split\na,x,train\nb,,test\n"), masks=images.parent / "truth")
    assert index.rows[1].mask is None


def test_two_files_that_differ_in_extension_need_it_in_the_table(images):
    Image.new("RGB", (8, 6)).save(images / "a.png")
    with pytest.raises(VwlError, match="there is no image 'a'"):
        prepare_folder(images, table(images, "image,labels\na,x\n"))
    assert prepare_folder(images, table(images, "image,labels\na.png,x\n"))[0].rows[0].image == "a.png"


def test_a_folder_without_images_a_wrong_share_and_wrong_classes_are_refused(images):
    text = table(images, "image,labels\na,x\n")
    (images.parent / "empty").mkdir()
    with pytest.raises(VwlError, match="holds no images"):
        prepare_folder(images.parent / "empty", text)
    with pytest.raises(VwlError, match=r"share of images for val is 1\.5"):
        prepare_folder(images, text, val_share=1.5)
    with pytest.raises(VwlError, match=r"absent\.csv"):
        prepare_folder(images, images / "absent.csv")
    classes = images.parent / "classes.txt"
    for content, message in (
        ("x\nbackground\n", "'background' is id 0 of every mask"),
        ("x\nX\n", "the class names 'x' and 'X' differ only in case or blanks"),
        ("x" * 101, "has 101 characters; 100 are allowed"),
        ("y\n", "class 'x' is not in"),
        ("x\nx\n", "the class name 'x' occurs more than once"),
        ("\n", "holds no class names"),
    ):
        classes.write_text(content)
        with pytest.raises(VwlError, match=message):
            prepare_folder(images, text, classes=classes)
    text = table(images, "image,labels,split\na,x,val\n")
    with pytest.raises(VwlError, match="share for val cannot be given as well"):
        prepare_folder(images, text, val_share=0.1)


def test_the_common_root_is_the_deepest_shared_folder():
    assert common_root(Folder("/data/a/b"), Folder("/data/a/c")).uri == "/data/a"
    assert common_root(Folder("/data/a"), Folder("/data/ab")).uri == "/data"
    assert common_root(Folder("/data/a"), Folder("/data/a")).uri == "/data/a"
    assert common_root(Folder("/data"), Folder("/home")).uri == "/"
    with pytest.raises(VwlError, match="no folder in common"):
        common_root(Folder("file:///data/a"), Folder("/data/a"))


def test_images_in_a_folder_that_is_a_link_can_have_masks_elsewhere(tmp_path):
    real = tmp_path / "disk/images"
    real.mkdir(parents=True)
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (4, 4)).save(real / "a.png")
    (tmp_path / "masks/a.png").write_bytes(encode_mask(np.ones((4, 4), np.uint8), voc_palette()))
    (tmp_path / "home").mkdir()
    (tmp_path / "home/images").symlink_to(real)
    (tmp_path / "home/masks").symlink_to(tmp_path / "masks")
    (tmp_path / "labels.csv").write_text("image,labels\na.png,cat\n")
    index, _ = prepare_folder(tmp_path / "home/images", tmp_path / "labels.csv", tmp_path / "home/masks")
    assert index.read_image(index.rows[0]).size == index.read_mask(index.rows[0]).shape
