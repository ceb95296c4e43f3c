"""What becomes of `vwl report` and `vwl figures` on runs whose files are damaged, wrong or gone: a page without the part, or one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.damage import truncate
from tests.helpers import copy_run
from tests.hostile.cases import Case, check

SCORE, METRICS, WEIGHTS = "cam/scores-val.json", "classifier/metrics.jsonl", "classifier/weights.pt"
REMAKE = "scores-val.json is missing or damaged; make it again with: vwl infer cam --run"


def field(name: str, value: Any) -> Callable[[Path], None]:
    """Damage: a field of the stored score has another value."""

    def change(run: Path) -> None:
        (run / SCORE).write_text(json.dumps({**json.loads((run / SCORE).read_text()), name: value}))

    return change


def content(file: str, value: bytes) -> Callable[[Path], None]:
    """Damage: a file has another content."""

    def change(run: Path) -> None:
        (run / file).write_bytes(value)

    return change


def folder_instead(run: Path) -> None:
    (run / "report.html").unlink(missing_ok=True)
    (run / "report.html").mkdir()


def empty_masks(run: Path) -> None:
    for mask in (run / "segment").glob("*.png"):
        mask.write_bytes(b"")


def case(name: str, words: str, code: int, *parts: str, damage: Callable[[Path], None]) -> Case:
    def make(folder: Path) -> list[str]:
        damage(folder / "run")
        return [word.replace("RUN", str(folder / "run")) for word in words.split()]

    return Case(name, make, code, parts)


REPORT = "report --run RUN --images 1"
CASES = [
    *(
        case(f"score whose {name} is {value!r}", REPORT, 1, REMAKE, damage=field(name, value))
        for name, value in [
            ("iou", None),
            ("iou", {"background": "<b>"}),
            ("recall", {"cat": "1"}),
            ("curve", "abc"),
            ("curve", [[0.1]]),
            ("confusion", 7),
            ("confusion", [[1, 2], [3]]),
        ]
    ),
    case("the same score in vwl evaluate", "evaluate --run RUN --stage cam --confusion", 1, REMAKE, damage=field("confusion", [[1]])),
    case("metrics of bytes", REPORT, 0, damage=content(METRICS, b"\xff\x00\x01" * 50)),
    case("metrics of lists", REPORT, 0, damage=content(METRICS, b'[1,2]\n"x"\n')),
    case("metrics of other types", REPORT, 0, damage=content(METRICS, b'{"step":"a","loss":null}\n{"step":2,"loss":[1]}\n')),
    case("metrics of no number", REPORT, 0, damage=content(METRICS, b'{"step":1,"loss":NaN}\n{"step":2,"loss":Infinity}\n')),
    case("report that is a folder", REPORT, 1, "report.html: it is a folder, pipe or device; name a file", damage=folder_instead),
    case("run.json of a list", REPORT, 1, "run.json is missing or damaged", damage=content("run.json", b"[]")),
    case("words without weights", "figures words --run RUN", 1, "cannot read", WEIGHTS, damage=lambda run: (run / WEIGHTS).unlink()),
    case("words of damaged weights", "figures words --run RUN", 1, f"{WEIGHTS} is damaged", damage=lambda run: truncate(run / WEIGHTS)),
    case(
        "similarity of damaged weights",
        "figures similarity --run RUN",
        1,
        f"{WEIGHTS} is damaged",
        damage=lambda run: truncate(run / WEIGHTS),
    ),
    case("empty masks", "figures segmentations --run RUN", 1, "is damaged; delete it and run its stage again", damage=empty_masks),
    case(
        "maps of no stage",
        "figures maps --run RUN --stage walk",
        1,
        "has no finished stage walk",
        damage=lambda run: shutil.rmtree(run / "walk"),
    ),
    case("figures where a file is", "figures similarity --run RUN --out RUN/run.json", 1, "cannot write", damage=lambda run: None),
    case("no room for a name", "figures similarity --run RUN --label $\\frac{", 0, damage=lambda run: None),
]


@pytest.mark.parametrize("one", [pytest.param(one, id=one.name) for one in CASES])
def test_a_damaged_run_gives_a_page_or_a_line(tiny_run, tmp_path, one):
    copy_run(tiny_run, tmp_path)
    check(one, tmp_path)
