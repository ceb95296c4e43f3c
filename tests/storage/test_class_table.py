"""`classes.json` beside masks."""

import json
import re

import pytest

from vwl.errors import VwlError
from vwl.storage.class_table import read_class_table, write_class_table
from vwl.storage.folder import Folder
from vwl.storage.masks import voc_palette


def test_names_and_colours_are_read_as_they_were_written(tmp_path):
    write_class_table(Folder(tmp_path), ["background", "Größe"], voc_palette())
    table = read_class_table(Folder(tmp_path))
    assert (table.classes, table.palette, table.colour(1)) == (("background", "Größe"), tuple(voc_palette()), "#800000")


def test_the_same_classes_are_not_written_again_and_others_replace_them(tmp_path):
    file = tmp_path / "classes.json"
    write_class_table(Folder(tmp_path), ["background", "dog"], voc_palette())
    before = file.stat().st_mtime_ns
    write_class_table(Folder(tmp_path), ["background", "dog"], voc_palette())
    assert file.stat().st_mtime_ns == before
    write_class_table(Folder(tmp_path), ["background", "cat"], voc_palette())
    assert read_class_table(Folder(tmp_path)).classes == ("background", "cat")


def test_a_folder_without_the_file_has_no_table(tmp_path):
    assert read_class_table(Folder(tmp_path)) is None


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"classes": ["background"], "palette": voc_palette()},
        {"classes": ["background", 1], "palette": voc_palette()},
        {"classes": ["background", "dog"], "palette": [0, 1]},
        {"classes": ["background", "dog"], "palette": [256] * 768},
        {"classes": ["background", "dog"]},
    ],
)
def test_a_damaged_table_is_one_line(value, tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps(value))
    with pytest.raises(VwlError, match=re.escape("classes.json should hold class names, background first")):
        read_class_table(Folder(tmp_path))
