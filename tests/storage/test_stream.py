"""Text files written piece by piece."""

import re

import pytest

from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.storage.stream import text_stream


def test_a_file_appears_whole_at_the_end(tmp_path):
    with text_stream(Folder(tmp_path / "new"), "a.txt") as put:
        put("ä")
        assert not (tmp_path / "new/a.txt").exists()
        put("b\n")
    assert (tmp_path / "new/a.txt").read_text(encoding="utf-8") == "äb\n"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_file_of_before(error, tmp_path):
    (tmp_path / "a.txt").write_text("before")

    def fail() -> None:
        with text_stream(Folder(tmp_path), "a.txt") as put:
            put("after")
            raise error

    with pytest.raises(error):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


def test_a_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VwlError, match=re.escape(f"cannot write {tmp_path}/file/a.txt")), text_stream(Folder(tmp_path / "file"), "a.txt"):
        pass
