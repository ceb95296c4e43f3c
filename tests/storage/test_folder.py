"""Folders: files are whole or absent, names cannot lead out of their folder, and errors are one line."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import pytest
from pyarrow import fs

from vwl.errors import VwlError
from vwl.storage.folder import Folder


def files_below(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


class TestFolder:
    def test_a_file_is_read_back(self, tmp_path):
        folder = Folder(tmp_path / "run")
        folder.write("maps/a.bin", b"\x00\xff")
        assert folder.read("maps/a.bin") == b"\x00\xff"
        assert (folder / "maps").read("a.bin") == b"\x00\xff"
        assert (folder / "maps").names() == ["a.bin"]
        assert folder.exists("maps/a.bin")
        assert not folder.exists("maps/b.bin")

    def test_sizes_and_times_of_the_files_are_listed_at_once(self, tmp_path):
        folder = Folder(tmp_path)
        for name in ("b", "a", "below/c", ".part-1-d"):
            folder.write(name, name.encode())
        assert folder.sizes_and_mtimes() == {name: folder.size_and_mtime(name) for name in ("a", "b")}
        assert Folder(tmp_path / "missing").sizes_and_mtimes() == {}

    def test_names_are_also_listed_one_by_one(self, tmp_path):
        folder = Folder(tmp_path)
        for name in ("b.png", "a.png", "a.txt", "below/c.png", ".part-1-d.png"):
            folder.write(name, b"")
        assert sorted(folder.each_name(".png")) == folder.names(".png") == ["a.png", "b.png"]
        assert list(Folder(tmp_path / "missing").each_name()) == []
        with pytest.raises(VwlError, match=r"cannot list .*a\.txt: Not a directory"):
            list(Folder(tmp_path / "a.txt").each_name())

    def test_a_folder_is_created_by_the_first_write(self, tmp_path):
        folder = Folder(tmp_path / "run")
        assert not folder.exists()
        assert folder.names() == []
        assert files_below(tmp_path) == []
        assert not (tmp_path / "run").exists()

    def test_an_exception_during_a_write_leaves_only_the_old_file(self, tmp_path):
        folder = Folder(tmp_path)
        folder.write("a", b"old")
        with pytest.raises(TypeError):
            folder.write("a", cast(bytes, "text has no bytes: the temporary file is open when this is noticed"))
        assert folder.read("a") == b"old"
        assert files_below(tmp_path) == ["a"]

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
    def test_a_process_killed_during_a_write_leaves_a_whole_file(self, how, tmp_path):
        code = (
            "import itertools, sys; from vwl.storage.folder import Folder\n"
            "for n in itertools.count(): Folder(sys.argv[1]).write('a', bytes([n % 256]) * 20_000_000)"
        )
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
        try:
            while not (tmp_path / "a").exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(0.05)
        finally:
            process.send_signal(how)
            process.wait()
        data = Folder(tmp_path).read("a")
        assert len(data) == 20_000_000
        assert len(set(data)) == 1
        assert Folder(tmp_path).names() == ["a"]
        if how == signal.SIGINT:
            assert files_below(tmp_path) == ["a"]

    def test_sweep_deletes_only_the_temporary_files_of_killed_writers(self, tmp_path):
        folder = Folder(tmp_path)
        folder.write("a", b"whole")
        folder.write("below/b", b"whole")
        (tmp_path / ".part-0123-a").write_bytes(b"hal")
        (tmp_path / "below" / ".part-4567-b").write_bytes(b"hal")
        (tmp_path / ".hidden").write_bytes(b"a user's")
        folder.sweep()
        assert files_below(tmp_path) == [".hidden", "a", "below/b"]
        Folder(tmp_path / "not there").sweep()

    def test_a_failed_write_gives_one_line(self, tmp_path):
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(VwlError) as caught:
            Folder(tmp_path / "file" / "run").write("a", b"")
        assert str(caught.value) == f"cannot write {tmp_path}/file/run/a: Not a directory; free space or choose another folder"
        with pytest.raises(VwlError, match=r"cannot write .*/file/run/log.txt: Not a directory"):
            Folder(tmp_path / "file" / "run").append("log.txt", "line")

    def test_a_folder_that_cannot_be_read_listed_or_cleared_gives_one_line(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(VwlError, match=r"cannot read .*/a: No such file or directory"):
            Folder(tmp_path).read("a")
        with pytest.raises(VwlError, match=r"cannot list .*/file: Not a directory"):
            Folder(tmp_path / "file").names()
        with pytest.raises(VwlError, match=r"cannot clear .*/file"):
            Folder(tmp_path / "file").clear()

    @pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "..", "a\0b"])
    def test_a_name_that_leads_out_of_the_folder_is_refused_by_every_method(self, name, tmp_path):
        folder = Folder(tmp_path / "run")
        for use in (folder.read, folder.exists, folder.delete, folder.open, lambda n: folder.write(n, b""), lambda n: folder / n):
            with pytest.raises(VwlError, match="leads out of its folder"):
                use(name)
        assert files_below(tmp_path) == []

    @pytest.mark.parametrize("name", ["what?", "a b", "50%", "#1", "é"])
    def test_a_folder_may_have_any_name(self, name, tmp_path):
        for folder in (Folder(tmp_path) / name, Folder(f"file://{tmp_path}") / name):
            (folder / "sub").write("f", b"x")
            assert (tmp_path / name / "sub" / "f").read_bytes() == b"x"

    def test_a_uri_and_a_path_are_the_same_folder(self, tmp_path):
        Folder(f"file://{tmp_path}/run").write("a", b"x")
        assert Folder(tmp_path / "run").read("a") == b"x"

    def test_an_unknown_uri_scheme_is_refused(self):
        with pytest.raises(VwlError, match=r"cannot open ftp2://host/run"):
            Folder("ftp2://host/run")

    def test_a_folder_can_be_sent_to_another_process(self, tmp_path):
        Folder(tmp_path).write("a", b"x")
        sent = pickle.loads(pickle.dumps(Folder(tmp_path)))  # noqa: S301
        assert sent.uri == str(tmp_path)
        assert sent.read("a") == b"x"

    def test_append_adds_lines_at_the_end(self, tmp_path):
        folder = Folder(tmp_path)
        folder.append("logs/log.txt", "one\n")
        folder.append("logs/log.txt", "two\n")
        assert folder.read("logs/log.txt") == b"one\ntwo\n"

    def test_append_works_where_the_file_system_cannot_append(self, tmp_path):
        folder = Folder(tmp_path)
        folder.filesystem = fs.SubTreeFileSystem("/", fs.LocalFileSystem())
        folder.append("log.txt", "one\n")
        folder.append("log.txt", "two\n")
        assert (tmp_path / "log.txt").read_text() == "one\ntwo\n"

    def test_json_is_read_back_and_invalid_json_is_named(self, tmp_path):
        folder = Folder(tmp_path)
        folder.write_json("m.json", {"a": [1, None]})
        assert folder.read_json("m.json") == {"a": [1, None]}
        folder.write("m.json", b"{")
        with pytest.raises(VwlError, match=r"m.json is not valid JSON"):
            folder.read_json("m.json")

    def test_delete_and_clear_accept_missing_files(self, tmp_path):
        folder = Folder(tmp_path / "run")
        folder.clear()
        folder.delete("a")
        folder.write("a", b"")
        folder.write("b", b"")
        folder.delete("a")
        assert folder.names() == ["b"]
        folder.clear()
        assert folder.names() == []


@pytest.mark.parametrize("uri", ["~nobody-of-this-name/x", "/tmp/a\0b", "s3://", "/tmp/" + "a" * 300, "/tmp/\ud800"])
def test_a_folder_that_cannot_exist_is_one_line(uri):
    with pytest.raises(VwlError, match=r"^cannot (open|find) ") as caught:
        Folder(uri).exists()
    assert "\n" not in str(caught.value)


def test_a_file_name_that_is_not_utf_8_is_said_when_the_folder_is_listed(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xf6we.jpg")).touch()
    with pytest.raises(VwlError, match=r"^cannot list .*: a file name is not UTF-8; rename the file$"):
        Folder(tmp_path).names()


class TestRequireInside:
    """Names that come from data files: links may lead anywhere in the folder, and nowhere else."""

    @pytest.fixture
    def root(self, tmp_path):
        (tmp_path / "root/sub").mkdir(parents=True)
        for name in ("outside.png", "root/a.png", "root/sub/b.png"):
            (tmp_path / name).touch()
        return tmp_path / "root"

    def test_files_and_links_to_files_inside_pass(self, root):
        (root / "link.png").symlink_to("sub/b.png")
        (root / "sub/up.png").symlink_to("../a.png")
        (root.parent / "alias").symlink_to(root)
        for folder in (root, root.parent / "alias"):
            for name in ("a.png", "sub/b.png", "link.png", "sub/up.png", "missing.png"):
                Folder(folder).require_inside(name)

    @pytest.mark.parametrize("target", ["../outside.png", "sub/../../outside.png", "/etc/hostname"])
    def test_a_link_to_a_file_outside_is_refused(self, root, target):
        (root / "link.png").symlink_to(target)
        with pytest.raises(VwlError, match=r"link\.png is a link that leads out of .*/root, to /.*; put the file itself below the folder"):
            Folder(root).require_inside("link.png")

    def test_a_folder_that_is_a_link_to_outside_is_refused(self, root):
        (root.parent / "pool").mkdir()
        (root.parent / "pool/a.png").touch()
        (root / "pool").symlink_to("../pool")
        with pytest.raises(VwlError, match="is a link that leads out of"):
            Folder(root).require_inside("pool/a.png")

    def test_links_in_a_circle_are_refused(self, root):
        (root / "x").symlink_to("y")
        (root / "y").symlink_to("x")
        with pytest.raises(VwlError, match=r"cannot read .*/x: Too many levels of symbolic links"):
            Folder(root).require_inside("x")

    def test_folders_pipes_and_devices_are_refused(self, root):
        os.mkfifo(root / "pipe")
        for name in ("pipe", "sub"):
            with pytest.raises(VwlError, match=f"{name} is a folder, pipe or device and not a file"):
                Folder(root).require_inside(name)

    def test_a_folder_whose_name_starts_alike_is_outside(self, root):
        (root.parent / "root2").mkdir()
        (root.parent / "root2/a.png").touch()
        (root / "link.png").symlink_to("../root2/a.png")
        with pytest.raises(VwlError, match="leads out of"):
            Folder(root).require_inside("link.png")


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_folder_or_pipe_is_not_replaced_by_a_file(tmp_path, make):
    make(tmp_path / "out")
    before = (tmp_path / "out").stat()
    with pytest.raises(VwlError, match="out: it is a folder, pipe or device; name a file"):
        Folder(tmp_path).write("out", b"x")
    assert (tmp_path / "out").stat() == before
