"""What the fuzzing tests share: a command that must work or end in one line within bounds, and damage to files."""

import zlib
from pathlib import Path

from click.testing import Result
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.hostile.bounds import bounded
from vwl.cli.main import app

FEW = settings(max_examples=60, derandomize=True, deadline=None)
MANY = settings(max_examples=3_500, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


def run(folder: Path, *arguments: str | Path) -> Result:
    """Run a command; it works, or prints one line that is an error or a problem, and an error leaves no file behind."""
    before = sorted(folder.rglob("*"))
    with bounded():
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    printed = f"{result.stdout}\n{result.stderr}"
    assert result.exception is None or isinstance(result.exception, SystemExit), printed
    assert result.exit_code in (0, 1, 2), printed
    assert "Traceback" not in printed
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    problems = [line for line in result.stdout.splitlines() if line.startswith("problems: ")]
    if result.exit_code == 1:
        assert len(errors) + len(problems) == 1, printed
        assert all(len(line) < 2_000 for line in errors), printed
    if result.exit_code:
        assert sorted(folder.rglob("*")) == before
    assert not list(folder.rglob(".part-*"))
    return result


@st.composite
def damaged(draw: st.DrawFn, content: bytes, most: int = 4) -> bytes:
    """Flip bits, cut, repeat, delete and insert bytes, or leave the content as it is."""
    data = bytearray(content)
    for _ in range(draw(st.integers(0, most))):
        if not data:
            break
        kind = draw(st.sampled_from(("flip", "set", "cut", "delete", "repeat", "insert")))
        # most damage that matters is in headers
        at = draw(st.integers(0, min(len(data), 200) - 1) | st.integers(0, len(data) - 1))
        length = draw(st.integers(1, 40))
        if kind == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            data[at] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)) | st.integers(0, 255))
        elif kind == "cut":
            del data[at:]
        elif kind == "delete":
            del data[at : at + length]
        elif kind == "repeat":
            data[at:at] = data[at : at + length] * draw(st.integers(1, 20))
        else:
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
    return bytes(data)


def with_checksums(data: bytes) -> bytes:
    """Return a PNG whose checksums fit its damaged chunks, so that the damage reaches the decoder; other files unchanged."""
    fixed, at = bytearray(data), 8
    while data.startswith(b"\x89PNG\r\n\x1a\n") and at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(data):
            break
        fixed[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(fixed)
