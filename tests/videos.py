"""Videos for the tests, written by PyAV, which is an extra."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

IDENTITY = (1, 0, 0, 1)
CLOCKWISE = (0, 1, -1, 0)
"""The first four numbers of the matrix of a video that is shown turned by a quarter clockwise, as a phone held upright writes it."""


def write_video(path: Path, frames: Sequence[np.ndarray], codec: str = "ffv1") -> Path:
    """Write frames (H, W, 3) uint8 as a video, with `ffv1` in .mkv and `png` in .mov without loss."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = {"ffv1": "bgr0", "png": "rgb24"}.get(codec, "yuv420p")
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def turn(path: Path, matrix: Sequence[int] = CLOCKWISE) -> None:
    """Write the matrix by which a player turns the pictures into an .mp4 file: its track header (ISO 14496-12, tkhd)."""
    data = path.read_bytes()
    old, new = (
        b"".join(number.to_bytes(4, "big", signed=True) for number in (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30))
        for a, b, c, d in (IDENTITY, matrix)
    )
    start = data.index(old, data.index(b"tkhd"))
    path.write_bytes(data[:start] + new + data[start + len(old) :])
