"""The corpus of the review: damaged results that it would rank by, and masks that no one can be trained on. Each starts from a finished run."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.damage import delete, flip_unnoticed, truncate
from tests.helpers import copy_run
from tests.hostile.cases import Case, check

ADD = "data add-masks RUN MASKS --out NEW"
REVIEW = "review --run RUN --html HTML"
MASK = "train_00000.png"


def case(name: str, words: str, code: int, *parts: str, make: Callable[[Path], None] = lambda folder: None) -> Case:
    """A case on the finished run RUN after `make` was called with the folder that holds `run` and `masks`."""

    def made(folder: Path) -> list[str]:
        (folder / "masks").mkdir(exist_ok=True)
        make(folder)
        named = {"RUN": folder / "run", "MASKS": folder / "masks", "NEW": folder / "new.parquet", "HTML": folder / "review.html"}
        return [str(named.get(word, word)) for word in words.split()]

    return Case(name, made, code, parts)


def damaged(file: str, damage: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: damage(folder / "run" / file)


def file(content: bytes, name: str = MASK) -> Callable[[Path], None]:
    return lambda folder: (folder / "masks" / name).write_bytes(content)


def image(array: np.ndarray, kind: str = "PNG", mode: str | None = None) -> bytes:
    sink = io.BytesIO()
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(sink, format=kind)
    return sink.getvalue()


def link(folder: Path) -> None:
    (folder / "secret.png").write_bytes(image(np.zeros((4, 4), np.uint8)))
    (folder / "masks" / MASK).symlink_to(folder / "secret.png")


def of_the_run(folder: Path) -> None:
    shutil.copy(folder / "run/masks" / MASK, folder / "masks" / MASK)


def no_index(folder: Path) -> None:
    (folder / "masks" / MASK).write_bytes(image(np.zeros((4, 4), np.uint8)))
    (folder / "index.parquet").unlink()


def half_written(folder: Path) -> None:
    about = json.loads((folder / "run/segment/manifest.json").read_text())
    (folder / "run/segment/manifest.json").write_text(json.dumps(about)[:50])
    (folder / "run/segment/record.json").unlink()


SMALL = np.ones((8, 8), np.uint8)
CASES = [
    case("a mask is a JPEG", ADD, 1, f"masks/{MASK} is a JPEG, whose compression changes class ids", make=file(image(SMALL, "JPEG"))),
    case("a mask is 16 bit", ADD, 1, f"masks/{MASK} has mode I;16", make=file(image(SMALL.astype(np.uint16)))),
    case("a mask is RGB", ADD, 1, f"masks/{MASK} has mode RGB", make=file(image(SMALL, mode="RGB"))),
    case("a mask is empty", ADD, 1, f"masks/{MASK} cannot be read: it is an empty file", make=file(b"")),
    case("a mask is text", ADD, 1, f"masks/{MASK} cannot be read: it is not an image file", make=file(b"dog")),
    case(
        "a mask is an EPS program",
        ADD,
        1,
        "which would be run as a program",
        make=file(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    ),
    case("a mask has another size", ADD, 1, f"masks/{MASK} is 8 x 8 pixels, its image", make=file(image(SMALL))),
    case("a mask is of no image", ADD, 1, "train_9.png belongs to no image", make=file(image(SMALL), "train_9.png")),
    case("a mask is a link to a file elsewhere", ADD, 1, "leads out of", make=link),
    case("a folder without masks", ADD, 1, "masks holds no masks; name indexed PNG files after the images", make=file(b"", "a.txt")),
    case("the run's index is gone", ADD, 1, "there is no index table at", make=no_index),
    case("the new index would be a folder", ADD.replace("NEW", "RUN"), 1, "/run", make=of_the_run),
    case("masks without --out", "data add-masks RUN MASKS", 2, "'--out'"),
    case("a lost mask", REVIEW, 1, f"run/crf/{MASK} is missing; make it again with: vwl infer crf", make=damaged(f"crf/{MASK}", delete)),
    case("a damaged mask", REVIEW, 1, f"run/segment/{MASK} is damaged; delete it", make=damaged(f"segment/{MASK}", flip_unnoticed)),
    case("a damaged shard", REVIEW, 1, "run/walk/part-00000.parquet is damaged", make=damaged("walk/part-00000.parquet", flip_unnoticed)),
    case("a manifest that is cut off", REVIEW, 1, "run/segment/manifest.json is damaged", make=half_written),
    case(
        "an image that is cut off",
        REVIEW,
        1,
        "images/",
        "cannot be read",
        make=lambda f: truncate(next((f / "scenes/images").glob("*0.*"))),
    ),
    case("a page in a folder's place", "review --run RUN --html RUN", 1, "/run"),
    case(
        "pre-annotations in a file's place",
        "review --run RUN --out NEW",
        1,
        "new.parquet",
        make=lambda f: (f / "new.parquet").write_bytes(b"x"),
    ),
]


@pytest.mark.parametrize("case", [pytest.param(each, id=each.name) for each in CASES])
def test_hostile_review(case, tiny_run, tmp_path):
    copy_run(tiny_run, tmp_path)
    check(case, tmp_path)
    if case.code == 1:
        assert not (tmp_path / "review.html").exists()
        assert not (tmp_path / "new.parquet").exists() or (tmp_path / "new.parquet").read_bytes() == b"x"
