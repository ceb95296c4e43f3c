"""A JSON file with a checksum is read back as it was written, or is known to be damaged."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vwl.errors import Damaged, VwlError
from vwl.storage.checked import checked_bytes, parse_checked, read_checked, write_checked
from vwl.storage.folder import Folder

VALUES = st.dictionaries(
    st.text().filter(lambda key: key != "checksum"),
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.text()),
)


@given(value=VALUES)
def test_a_value_is_read_back_as_it_was_written(value):
    assert parse_checked(checked_bytes(value), "a file", required=True) == value


@given(value=VALUES, data=st.data())
def test_a_changed_byte_is_noticed_or_changes_nothing(value, data):
    written = bytearray(checked_bytes(value))
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] ^= data.draw(st.integers(1, 255))
    with suppress(Damaged):
        assert parse_checked(bytes(written), "a file", required=True) == value


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 100_000])
def test_a_file_that_holds_no_object_is_damaged(tmp_path, content):
    Folder(tmp_path).write("a.json", content)
    with pytest.raises(Damaged, match=rf"^{tmp_path}/a\.json is damaged: "):
        read_checked(Folder(tmp_path), "a.json")


def test_a_file_without_checksum_is_accepted_unless_it_is_required(tmp_path):
    Folder(tmp_path).write_json("a.json", {"a": 1})
    assert read_checked(Folder(tmp_path), "a.json") == {"a": 1}
    with pytest.raises(Damaged):
        read_checked(Folder(tmp_path), "a.json", required=True)


def test_a_file_that_is_not_there_is_not_called_damaged(tmp_path):
    with pytest.raises(VwlError, match="No such file") as caught:
        read_checked(Folder(tmp_path), "a.json")
    assert not isinstance(caught.value, Damaged)


def test_equal_objects_give_equal_bytes(tmp_path):
    for name in ("a.json", "b.json"):
        write_checked(Folder(tmp_path), name, {"a": [1, 2.5], "b": "ü"})
    assert Folder(tmp_path).read("a.json") == Folder(tmp_path).read("b.json")
