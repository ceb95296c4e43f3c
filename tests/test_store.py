"""The store: files are whole or absent, names stay in their folder, maps and masks come back as they were."""

import io
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import fs

from vwl.errors import VwlError
from vwl.store import Folder, MapReader, ScoreMap, decode_mask, encode_mask, map_size, missing, voc_palette, write_maps


def score_map(image_id: str, classes: tuple[int, ...], height: int, width: int, seed: int = 0) -> ScoreMap:
    """Random bit patterns: every float16 there is, not-a-numbers and negative zeros too."""
    bits = np.random.default_rng(seed).integers(0, 2**16, (len(classes), *map_size(height, width)), dtype=np.uint16)
    return ScoreMap(image_id, classes, height, width, bits.view(np.float16))


def assert_same(one: ScoreMap, other: ScoreMap) -> None:
    assert (one.image_id, one.classes, one.height, one.width) == (other.image_id, other.classes, other.height, other.width)
    assert one.values.dtype == other.values.dtype == np.float16
    assert one.values.shape == other.values.shape
    assert one.values.tobytes() == other.values.tobytes()


def files_below(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


class TestFolder:
    def test_what_was_written_is_read(self, tmp_path):
        folder = Folder(tmp_path / "run")
        folder.write("maps/a.bin", b"\x00\xff")
        assert folder.read("maps/a.bin") == b"\x00\xff"
        assert (folder / "maps").read("a.bin") == b"\x00\xff"
        assert (folder / "maps").names() == ["a.bin"]
        assert folder.exists("maps/a.bin")
        assert not folder.exists("maps/b.bin")

    def test_a_folder_is_made_at_the_first_write_only(self, tmp_path):
        folder = Folder(tmp_path / "run")
        assert not folder.exists()
        assert folder.names() == []
        assert files_below(tmp_path) == []
        assert not (tmp_path / "run").exists()

    def test_a_write_cut_off_by_an_exception_leaves_the_old_file_and_nothing_else(self, tmp_path):
        folder = Folder(tmp_path)
        folder.write("a", b"old")
        with pytest.raises(TypeError):
            folder.write("a", cast(bytes, "text has no bytes: the temporary file is open when this is noticed"))
        assert folder.read("a") == b"old"
        assert files_below(tmp_path) == ["a"]

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
    def test_a_process_stopped_while_writing_leaves_a_whole_file(self, how, tmp_path):
        code = (
            "import itertools, sys; from vwl.store import Folder\n"
            "for n in itertools.count(): Folder(sys.argv[1]).write('a', bytes([n % 256]) * 20_000_000)"
        )
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[1])
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

    def test_what_a_killed_writer_left_is_swept_away_and_nothing_else(self, tmp_path):
        folder = Folder(tmp_path)
        folder.write("a", b"whole")
        folder.write("below/b", b"whole")
        (tmp_path / ".part-0123-a").write_bytes(b"hal")
        (tmp_path / "below" / ".part-4567-b").write_bytes(b"hal")
        (tmp_path / ".hidden").write_bytes(b"a user's")
        folder.sweep()
        assert files_below(tmp_path) == [".hidden", "a", "below/b"]
        Folder(tmp_path / "not there").sweep()

    def test_a_write_that_fails_is_told_in_one_line(self, tmp_path):
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(VwlError) as caught:
            Folder(tmp_path / "file" / "run").write("a", b"")
        assert str(caught.value) == f"cannot write {tmp_path}/file/run/a: Not a directory; free space or choose another folder"
        with pytest.raises(VwlError, match=r"cannot write .*/file/run/log.txt: Not a directory"):
            Folder(tmp_path / "file" / "run").append("log.txt", "line")

    def test_what_cannot_be_read_listed_or_cleared_is_told_in_one_line(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(VwlError, match=r"cannot read .*/a: No such file or directory"):
            Folder(tmp_path).read("a")
        with pytest.raises(VwlError, match=r"cannot list .*/file: Not a directory"):
            Folder(tmp_path / "file").names()
        with pytest.raises(VwlError, match=r"cannot clear .*/file"):
            Folder(tmp_path / "file").clear()

    @pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "..", "a\0b"])
    def test_a_name_that_leaves_the_folder_is_refused_everywhere(self, name, tmp_path):
        folder = Folder(tmp_path / "run")
        for use in (folder.read, folder.exists, folder.delete, folder.open, lambda n: folder.write(n, b""), lambda n: folder / n):
            with pytest.raises(VwlError, match="would leave its folder"):
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

    def test_an_unknown_kind_of_uri_is_refused(self):
        with pytest.raises(VwlError, match=r"cannot open ftp2://host/run"):
            Folder("ftp2://host/run")

    def test_a_folder_can_be_sent_to_another_process(self, tmp_path):
        Folder(tmp_path).write("a", b"x")
        sent = pickle.loads(pickle.dumps(Folder(tmp_path)))  # noqa: S301
        assert sent.uri == str(tmp_path)
        assert sent.read("a") == b"x"

    def test_lines_are_added_at_the_end(self, tmp_path):
        folder = Folder(tmp_path)
        folder.append("logs/log.txt", "one\n")
        folder.append("logs/log.txt", "two\n")
        assert folder.read("logs/log.txt") == b"one\ntwo\n"

    def test_lines_are_added_where_the_file_system_cannot_append(self, tmp_path):
        folder = Folder(tmp_path)
        folder.filesystem = fs.SubTreeFileSystem("/", fs.LocalFileSystem())
        folder.append("log.txt", "one\n")
        folder.append("log.txt", "two\n")
        assert (tmp_path / "log.txt").read_text() == "one\ntwo\n"

    def test_json_comes_back_and_what_is_no_json_is_named(self, tmp_path):
        folder = Folder(tmp_path)
        folder.write_json("m.json", {"a": [1, None]})
        assert folder.read_json("m.json") == {"a": [1, None]}
        folder.write("m.json", b"{")
        with pytest.raises(VwlError, match=r"m.json is not valid JSON"):
            folder.read_json("m.json")

    def test_delete_and_clear_do_not_mind_what_is_not_there(self, tmp_path):
        folder = Folder(tmp_path / "run")
        folder.clear()
        folder.delete("a")
        folder.write("a", b"")
        folder.write("b", b"")
        folder.delete("a")
        assert folder.names() == ["b"]
        folder.clear()
        assert folder.names() == []

    def test_missing_names_the_images_without_a_file(self, tmp_path):
        Folder(tmp_path).write("b.png", b"")
        assert missing(Folder(tmp_path), ["a", "b", "c"]) == ["a", "c"]


class TestScoreMaps:
    @settings(max_examples=30, deadline=None)
    @given(
        sizes=st.lists(
            st.tuples(st.integers(1, 33), st.integers(1, 33), st.lists(st.integers(0, 90), max_size=3, unique=True).map(sorted)), max_size=4
        )
    )
    def test_maps_come_back_bit_for_bit(self, sizes, tmp_path_factory):
        folder = Folder(tmp_path_factory.mktemp("maps"))
        maps = [score_map(f"i{n}", tuple(classes), h, w, seed=n) for n, (h, w, classes) in enumerate(sizes)]
        write_maps(folder, "s.parquet", maps)
        reader = MapReader(folder)
        assert len(reader) == len(maps)
        for m in maps:
            assert_same(reader.read(m.image_id), m)

    @pytest.mark.parametrize(("pixels", "cells"), [(1, 1), (4, 1), (5, 2), (500, 125), (375, 94)])
    def test_a_map_has_a_cell_for_every_four_pixels_begun(self, pixels, cells):
        assert map_size(pixels, 4) == (cells, 1)
        assert map_size(4, pixels) == (1, cells)

    def test_the_same_maps_make_the_same_bytes(self, tmp_path):
        maps = [score_map("a", (1, 5), 30, 41), score_map("b", (), 7, 7)]
        write_maps(Folder(tmp_path), "one.parquet", maps)
        write_maps(Folder(tmp_path), "two.parquet", maps)
        assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()

    def test_a_map_of_another_size_than_its_photograph_is_a_mistake(self, tmp_path):
        good = score_map("a", (1,), 30, 41)
        with pytest.raises(ValueError, match="map of a has shape"):
            write_maps(Folder(tmp_path), "s.parquet", [ScoreMap("a", (1,), 30, 60, good.values)])
        assert files_below(tmp_path) == []

    def test_any_image_of_several_shards_is_read_in_any_order(self, tmp_path):
        maps = {f"i{n}": score_map(f"i{n}", (n,), 16 + n, 20, seed=n) for n in range(9)}
        for shard in range(3):
            write_maps(Folder(tmp_path), f"{shard}.parquet", list(maps.values())[3 * shard : 3 * shard + 3])
        reader = MapReader(Folder(tmp_path))
        assert "i4" in reader
        assert "i9" not in reader
        for image_id in ["i8", "i0", "i4", "i4", "i1", "i7"]:
            assert_same(reader.read(image_id), maps[image_id])

    def test_a_reader_can_be_sent_to_another_process_at_any_time(self, tmp_path):
        m = score_map("a", (1, 2), 17, 9)
        write_maps(Folder(tmp_path), "s.parquet", [m])
        reader = MapReader(Folder(tmp_path))
        for _ in range(2):
            assert_same(pickle.loads(pickle.dumps(reader)).read("a"), m)  # noqa: S301
            assert_same(reader.read("a"), m)

    def test_an_image_without_maps_is_named(self, tmp_path):
        write_maps(Folder(tmp_path), "s.parquet", [score_map("a", (1,), 8, 8)])
        with pytest.raises(VwlError, match=f"{tmp_path} holds no map of image b; run the stage that makes it first"):
            MapReader(Folder(tmp_path)).read("b")

    @pytest.mark.parametrize("keep", [0, 7, 200])
    def test_a_shard_that_was_cut_off_is_named(self, keep, tmp_path):
        write_maps(Folder(tmp_path), "s.parquet", [score_map("a", (1,), 80, 80)])
        whole = (tmp_path / "s.parquet").read_bytes()
        (tmp_path / "s.parquet").write_bytes(whole[:keep])
        with pytest.raises(VwlError, match=r"s.parquet is no whole file of score maps") as caught:
            MapReader(Folder(tmp_path)).read("a")
        assert "\n" not in str(caught.value)


def png(mode: str, size: tuple[int, int] = (5, 4), kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.new(mode, size).save(sink, kind)
    return sink.getvalue()


class TestMasks:
    @pytest.mark.parametrize("shape", [(1, 1), (3, 7), (33, 20)])
    def test_a_mask_comes_back_with_its_palette(self, shape):
        mask = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        data = encode_mask(mask, voc_palette())
        assert np.array_equal(decode_mask(data, "a.png"), mask)
        image = Image.open(io.BytesIO(data))
        assert image.mode == "P"
        assert image.getpalette() == voc_palette()

    def test_the_same_mask_makes_the_same_bytes(self):
        mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
        assert encode_mask(mask, voc_palette()) == encode_mask(mask.copy(), voc_palette())

    def test_grey_masks_hold_ids_too(self):
        sink = io.BytesIO()
        Image.fromarray(np.array([[0, 20, 255]], np.uint8)).save(sink, "PNG")
        assert decode_mask(sink.getvalue(), "a.png").tolist() == [[0, 20, 255]]

    @pytest.mark.parametrize(("mode", "told"), [("RGB", "mode RGB"), ("RGBA", "mode RGBA"), ("I;16", "mode I;16"), ("LA", "mode LA")])
    def test_an_image_whose_pixels_are_no_ids_is_refused(self, mode, told):
        with pytest.raises(VwlError, match=f"mask a.png has {told}; masks hold one 8-bit class id a pixel"):
            decode_mask(png(mode), "a.png")

    def test_a_jpeg_is_refused_because_it_changes_ids(self):
        with pytest.raises(VwlError, match=r"mask a\.jpg is a JPEG"):
            decode_mask(png("L", kind="JPEG"), "a.jpg")

    @pytest.mark.parametrize("data", [b"", b"no image", png("P")[:45]])
    def test_what_cannot_be_read_is_named(self, data):
        with pytest.raises(VwlError, match=r"mask a\.png cannot be read: (it is no image|.*[Tt]runcated)"):
            decode_mask(data, "a.png")

    def test_ids_are_bytes(self):
        with pytest.raises(AssertionError):
            encode_mask(np.zeros((2, 2), np.int64), voc_palette())


def test_the_palette_is_that_of_the_voc_devkit():
    colours = np.array(voc_palette()).reshape(256, 3).tolist()
    assert colours[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert colours[20] == [0, 64, 128]
    assert colours[255] == [224, 224, 192]
    assert len({tuple(colour) for colour in colours}) == 256
