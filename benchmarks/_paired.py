"""Two ways to do one thing, timed in turn: a machine's load changes from minute to minute, and so only pairs can be compared."""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

DATA = Path(os.environ.get("VWL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
"""Where real images are: beside the project, or in VWL_DATA."""


@dataclass(frozen=True)
class Paired:
    """Medians over the pairs.

    Attributes:
        first, second: seconds.
        ratio: how many times faster the second is, pair by pair.
        repeats: number of pairs.
    """

    first: float
    second: float
    ratio: float
    repeats: int


def paired(first: Callable[[], object], second: Callable[[], object], repeats: int, warm_up: bool = True) -> Paired:
    """Time two functions in turn, the order turned round from pair to pair; before that each is called once, unless `warm_up` is off."""
    if warm_up:
        first(), second()
    pairs = []
    for number in range(repeats):
        seconds = {work: seconds_of(work) for work in ((first, second), (second, first))[number % 2]}
        pairs.append((seconds[first], seconds[second]))
    one, other = zip(*pairs, strict=True)
    return Paired(
        statistics.median(one), statistics.median(other), statistics.median(a / b for a, b in zip(one, other, strict=True)), repeats
    )


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long a function takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Line:
    """What a benchmark says in one line.

    Attributes:
        what: of the comparison.
        first, second: a figure of the one and of the other, with its unit.
        ratio: how many times better the second is.
        wanted: in words.
        parity: how far apart the two results are, in words.
    """

    what: str
    first: str
    second: str
    ratio: float
    wanted: str
    parity: str


def show(title: str, lines: Sequence[Line], right: bool = True) -> None:
    """Print a benchmark's lines as a table, keep them for the table at the end of `make bench`, and end with exit code 1 if not `right`."""
    Console(width=160).print(table_of(f"{title}\n{machine()}", lines))
    if "VWL_BENCH" in os.environ:
        with open(os.environ["VWL_BENCH"], "a") as stream:
            stream.writelines(json.dumps(asdict(line)) + "\n" for line in lines)
    if not right:
        sys.exit(f"{title}: parity does NOT hold")


def table_of(title: str, lines: Sequence[Line]) -> Table:
    table = Table("what", "one", "the other", "ratio", "wanted", "parity", title=title)
    for line in lines:
        ratio = f"{line.ratio:,.2f}" if line.ratio < 100 else f"{line.ratio:,.0f}"
        table.add_row(line.what, line.first, line.second, ratio, line.wanted, line.parity)
    return table


def machine() -> str:
    """Describe the machine in a line, with its present load."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{name or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"


def real_images(num: int, height: int = 375, width: int = 500) -> list[np.ndarray]:
    """Return images of a size, (H, W, 3) uint8: of VOC if they are in `DATA`, else drawn scenes."""
    found: list[np.ndarray] = []
    for path in sorted((DATA / "voc12mini" / "JPEGImages").glob("*.jpg")):
        with Image.open(path) as image:
            if image.size == (width, height):
                found.append(np.array(image.convert("RGB")))
        if len(found) == num:
            return found
    from vwl.data.animals import draw_scene

    rng = np.random.default_rng(0)
    return found + [draw_scene(rng, height, width, 4)[0] for _ in range(num - len(found))]
