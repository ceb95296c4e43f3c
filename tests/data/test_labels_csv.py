"""The CSV file of labels: separators are detected for the whole file or stated, quoted names are kept, mistakes are one line."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vwl.data.labels_csv import SEPARATORS, read_labels, split_labels
from vwl.errors import VwlError


@pytest.fixture
def file(tmp_path):
    """Return a function that writes the file of labels."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "labels.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def labels(path: Path, separator: str | None = None) -> list[tuple[str, ...]]:
    return [row.labels for row in read_labels(path, separator).rows]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["dog person", "dog"], [("dog", "person"), ("dog",)]),
        (["traffic light;dog", "traffic light"], [("traffic light", "dog"), ("traffic light",)]),
        (["traffic light|dog", "traffic light"], [("traffic light", "dog"), ("traffic light",)]),
        (['"dog, person"', "traffic light"], [("dog", "person"), ("traffic light",)]),
        (["'traffic light' dog", "person"], [("traffic light", "dog"), ("person",)]),
        (['"""traffic light"" dog"', "person"], [("traffic light", "dog"), ("person",)]),
        (["'dog; brown'|cat", "cat"], [("dog; brown", "cat"), ("cat",)]),
        (["bird's nest;cat", "cats'"], [("bird's nest", "cat"), ("cats'",)]),
        ([" ; dog ;; cat ;", ""], [("dog", "cat"), ()]),
        (["'';dog", "' cat '"], [("dog",), ("cat",)]),
    ],
)
def test_the_separator_that_occurs_holds_for_the_whole_file(file, fields, expected):
    assert labels(file("image,labels\n" + "".join(f"p{n}.jpg,{field}\n" for n, field in enumerate(fields)))) == expected


@pytest.mark.parametrize(
    ("separator", "expected"),
    [
        ("semicolon", ("a b, c|d", "e")),
        ("bar", ("a b, c", "d;e")),
        ("comma", ("a b", "c|d;e")),
        ("blank", ("a", "b,", "c|d;e")),
    ],
)
def test_a_stated_separator_is_the_only_one(file, separator, expected):
    assert labels(file('image,labels\np.jpg,"a b, c|d;e"\n'), separator) == [expected]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["unix", "windows", "old mac"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_every_line_end_is_read_and_blank_rows_are_skipped(file, end, mark):
    table = read_labels(file(mark + end.join(["image,labels,split", "", "a.jpg,dog,val", ",,", "b.jpg,cat,train", ""])))
    assert [(row.line, row.image, row.labels, row.split) for row in table.rows] == [
        (3, "a.jpg", ("dog",), "val"),
        (5, "b.jpg", ("cat",), "train"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('image,labels\na,x;y\nb,"x,y"\n', r"separates labels by ';' \(line 2\) and by ',' \(line 3\); use one of them"),
        ("image,labels\na,'dog x\n", "line 2: the label 'dog begins with a quote that does not end it"),
        ("image,labels\na,x;'dog' x\n", "line 2: the label 'dog' x begins with a quote that does not end it"),
        ('image,labels\na,"dog\nb,cat\n', r"line 3 is not valid CSV \(unexpected end of data\)"),
        ('image,labels\na,"dog" cat\n', r"line 2 is not valid CSV \(',' expected after '\"'\); quotes go around a whole field"),
        (f"image,labels\na,{'x' * 140_000}\n", r"line 2 is not valid CSV \(field larger than field limit \(131072\)\)"),
        ("image,labels\na,x\0y\n", "line 2 holds the control character 0x00"),
        ("image,labels\na,\x1b[31mx\n", "line 2 holds the control character 0x1b"),
        ("image,image,labels\na,b,x\n", "has 2 columns 'image'; remove all but one"),
        ("image,labels,split, split\na,b,val,val\n", "has 2 columns 'split'; remove all but one"),
        ("image,labels\na,x\n".encode("utf-16"), "is not a text file in UTF-8"),
        (b"\x89PNG\r\n\x1a\n", "is not a text file in UTF-8"),
        (b"PK\3\4\0\0", "line 1 holds the control character 0x03"),
    ],
)
def test_what_is_not_such_a_file_is_named_with_its_line(file, content, message):
    with pytest.raises(VwlError, match=message) as caught:
        read_labels(file(content))
    assert "\n" not in str(caught.value)
    assert "labels.csv" in str(caught.value)


NAMES = st.text(st.characters(codec="utf-8", categories=("L", "N"), include_characters=" -_.'"), min_size=1, max_size=12)


@given(st.lists(NAMES.map(str.strip).filter(lambda name: name and name[0] != "'"), max_size=6), st.sampled_from([*SEPARATORS.values()]))
def test_quoted_names_are_kept_whatever_separates_them(names, separator):
    text = separator.join(f'"{name}"' for name in names)
    assert list(split_labels(text, separator, "x")) == names


@pytest.mark.parametrize("text", ["'" * 131_072, "' " * 65_536, " " * 131_072, ";" * 131_072, "a;" * 65_536, "a" + " " * 131_000 + "b"])
@pytest.mark.timeout(20)
def test_the_largest_fields_take_no_longer_than_others(file, text):
    with suppress(VwlError):
        read_labels(file(f"image,labels\na,{text[:131_072]}\n"))
