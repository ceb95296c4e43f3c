"""Frames of videos: all or each N-th, upright, and what cannot be read in one line."""

import sys

import numpy as np
import pytest

from tests.videos import turn, write_video
from vwl.errors import VwlError
from vwl.model_file.video import frames, is_video, num_frames


def pictures(num: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.repeat(np.repeat(rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8), 8, 0), 8, 1) for _ in range(num)]


def test_a_video_is_known_by_its_ending():
    assert [is_video(name) for name in ("a.mp4", "b.MOV", "c.mp4.jpg", "mp4")] == [True, True, False, False]


@pytest.mark.parametrize(("every", "expected"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (9, [0])])
def test_frames_are_the_pictures_that_were_written(tmp_path, every, expected):
    shown = pictures(5)
    path = write_video(tmp_path / "a.mkv", shown)
    found = dict(frames(str(path), every))
    assert list(found) == expected
    for number, pixels in found.items():
        np.testing.assert_array_equal(pixels, shown[number])


def test_a_video_of_a_phone_held_upright_is_turned(tmp_path):
    path = write_video(tmp_path / "a.mp4", pictures(5), codec="mpeg4")
    lying = dict(frames(str(path)))
    turn(path)
    upright = dict(frames(str(path)))
    assert len(upright) == num_frames(str(path)) == 5
    for number, pixels in upright.items():
        np.testing.assert_array_equal(pixels, np.rot90(lying[number], -1))


@pytest.mark.parametrize(
    ("content", "message"), [(None, "it does not exist"), (b"", "cannot be read: "), (b"no video" * 99, "cannot be read: ")]
)
def test_what_is_no_video_is_one_line(tmp_path, content, message):
    pytest.importorskip("av")
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(VwlError, match=message) as raised:
        list(frames(str(tmp_path / "a.mp4")))
    assert "\n" not in str(raised.value)
    assert num_frames(str(tmp_path / "a.mp4")) == 0


def test_a_video_with_sound_only_is_one_line(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(VwlError, match="it has no pictures"):
        list(frames(str(tmp_path / "a.mkv")))


def test_without_pyav_the_line_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)  # makes `import av` fail
    with pytest.raises(VwlError, match=r"install it with: pip install 'vwl\[video\]'"):
        list(frames("a.mp4"))
    assert num_frames("a.mp4") == 0
