"""Frames of video files, decoded one at a time by PyAV, which the extra `video` installs."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from vwl.errors import VwlError
from vwl.model_file.image_input import require_file

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")
"""Endings of file names, in lower case, that mean a video."""


def is_video(path: str) -> bool:
    """Return whether a file is a video by its name."""
    return path.lower().endswith(SUFFIXES)


def frames(path: str, every: int = 1) -> Iterator[tuple[int, np.ndarray]]:
    """Yield number, from 0, and pixels (H, W, 3) uint8 RGB, upright, of every `every`-th frame of a local video file.

    Raises:
        VwlError: PyAV is not installed, the file is no video, or a frame cannot be decoded; frames before it have been yielded.
    """
    av = _pyav(path)
    require_file(path)
    number = 0
    try:
        with av.open(path, metadata_errors="ignore") as container:
            if not container.streams.video:
                raise VwlError(f"video {path} cannot be read: it has no pictures")
            for number, frame in enumerate(container.decode(container.streams.video[0])):
                if number % every == 0:
                    yield number, _upright(frame)
    except (av.FFmpegError, OSError, ValueError) as error:
        where = f" from frame {number + 1} on" if number else ""
        raise VwlError(f"video {path} cannot be read{where}: {getattr(error, 'strerror', None) or error}") from None


def num_frames(path: str) -> int:
    """Return the number of frames that the file states, 0 if it states none or cannot be read; for progress only."""
    try:
        av = _pyav(path)
        require_file(path)
        with av.open(path, metadata_errors="ignore") as container:
            return int(container.streams.video[0].frames) if container.streams.video else 0
    except (OSError, ValueError, VwlError):  # PyAV's errors are of these classes
        return 0


def _upright(frame: Any) -> np.ndarray:
    """Return a frame's pixels, turned as a camera held upright or on its side has noted in the file."""
    pixels = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def _pyav(path: str) -> Any:
    try:
        import av
    except ImportError:
        raise VwlError(f"{path} is a video, and reading it needs PyAV; install it with: pip install 'vwl[video]'") from None
    return av
