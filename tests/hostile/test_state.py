"""What becomes of a run: files of it deleted or damaged, commands interrupted, stages without results. Each case starts from a finished run."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.damage import delete, empty, flip, flip_unnoticed, truncate
from tests.helpers import copy_run
from tests.hostile.cases import Case, check
from vwl.data.index import make_index, read_index, write_index
from vwl.workflow.run_folder import Run

Damage = Callable[[Path], None]


def list_instead(path: Path) -> None:
    path.write_text("[1]")


def number_instead(path: Path) -> None:
    path.write_text('{"index": 1}')


def case(
    name: str, words: str, code: int, *parts: str, damage: Damage = lambda path: None, file: str = "", removed: Sequence[str] = ()
) -> Case:
    """A case on the finished run RUN: stages are `removed` from it, and its `file`, or the whole run, is damaged."""

    def make(folder: Path) -> list[str]:
        for stage in removed:
            shutil.rmtree(folder / "run" / stage)
        damage(folder / "run" / file)
        return words.replace("RUN", str(folder / "run")).split()

    return Case(name, make, code, parts)


def without_truth(folder: Path) -> None:
    """Take the masks out of the data set, whose path run.json states."""
    about = json.loads((folder / "run.json").read_text())
    index = read_index(about["index"])
    bare = make_index([replace(row, mask=None) for row in index.rows], index.classes, index.root, index.source)
    write_index(bare, about["index"])
    run = Run.open(str(folder))
    Run.start(str(folder), run.recipe, about["index"], overwrite=True)


def other_version(path: Path) -> None:
    """As a later version would write it, without a copy in the record."""
    (path.parent / "record.json").unlink()
    stored = json.loads(path.read_text())
    del stored["checksum"]
    path.write_text(json.dumps({**stored, "decisions": {}}))


RUN = "run --run RUN --backend local"
AGAIN = "what is missing is made again"
FILES = {
    "weights": "classifier/weights.pt",
    "shard": "cam/part-00000.parquet",
    "mask": "masks/train_00003.png",
    "marker": "walk/done/00000.json",
    "score": "segment/scores-val.json",
}
READERS = {"weights": "cam", "shard": "crf", "mask": "segmenter", "marker": "masks"}
"""The stage that reads a stage's results."""
COMMANDS = {"cam": "infer cam", "crf": "infer crf", "segmenter": "train segmenter", "masks": "infer masks"}

REPAIRED = [
    case(f"vwl run makes a {kind} again: {damage.__name__}", RUN, 0, f"run/{file} is ", AGAIN, damage=damage, file=file)
    for kind, file in FILES.items()
    for damage in (delete, empty)
]
REFUSED = [
    case(
        f"a stage is not made from a damaged {kind}: {damage.__name__}",
        f"{COMMANDS[reader]} --run RUN --backend local",
        1,
        f"{reader} needs the {FILES[kind].split('/')[0]} stage, of which /",
        f"run/{FILES[kind]} is ",
        f"{FILES[kind].split('/')[0]} --run /",
        damage=damage,
        file=FILES[kind],
        removed=[reader],
    )
    for kind, reader in READERS.items()
    for damage in (delete, empty, truncate, flip)
]
UNNOTICED = [
    case(
        f"a bit of a {kind} that flipped on the disk is noticed by the stage that reads it",
        f"{COMMANDS[reader]} --run RUN --backend local",
        1,
        f"run/{FILES[kind]} is damaged",
        "; delete it and ",
        damage=flip_unnoticed,
        file=FILES[kind],
        removed=[reader],
    )
    for kind, reader in READERS.items()
    if kind != "marker"
]
MANIFESTS = [
    *(
        case(
            f"status restores a manifest: {damage.__name__}",
            "status --run RUN --json",
            0,
            '"state": "done"',
            damage=damage,
            file="cam/manifest.json",
        )
        for damage in (delete, empty, truncate, flip)
    ),
    *(
        case(
            f"a manifest of another version is one line of {words}",
            words,
            1,
            "run/cam/manifest.json is damaged or of another version of vwl; delete /",
            damage=other_version,
            file="cam/manifest.json",
        )
        for words in ("status --run RUN", RUN, "evaluate --run RUN", "infer crf --run RUN --backend local")
    ),
]
RUN_FILES = [
    case(
        f"{name} is {damage.__name__} for {words}",
        words,
        1,
        f"run/{name} is missing or damaged; write it again with --data",
        damage=damage,
        file=name,
    )
    for name in ("run.json", "recipe.yaml")
    for damage in (empty, truncate)
    for words in ("status --run RUN", RUN)
] + [
    case("recipe.yaml is deleted", "status --run RUN", 1, "run/recipe.yaml is missing or damaged", damage=delete, file="recipe.yaml"),
    case(
        "run.json is deleted",
        "status --run RUN",
        1,
        "is not a run folder (it has no run.json); start a run with",
        damage=delete,
        file="run.json",
    ),
    case("run.json is a list", "status --run RUN", 1, "run/run.json is missing or damaged", damage=list_instead, file="run.json"),
    case("run.json has another type", "status --run RUN", 1, "run/run.json is missing", damage=number_instead, file="run.json"),
]
OTHERS = [
    case(
        "status names what is missing",
        "status --run RUN",
        0,
        "incomplete",
        "run/masks/train_00003.png is missing",
        damage=delete,
        file=FILES["mask"],
    ),
    case(
        "predict names damaged weights",
        "predict x.jpg --run RUN",
        1,
        "run/segmenter/weights.pt is damaged",
        "vwl train segmenter",
        damage=truncate,
        file="segmenter/weights.pt",
    ),
    case("a metrics file that is cut off", "status --run RUN", 0, "done", damage=truncate, file="classifier/metrics.jsonl"),
    case("a record that is lost", RUN, 0, "cam: done before, skipped", damage=delete, file="cam/record.json"),
    case("a record that is damaged", RUN, 0, "cam: done before, skipped", damage=flip, file="cam/record.json"),
    case(
        "evaluate of a score that is lost",
        "evaluate --run RUN --stage cam",
        1,
        "run/cam/scores-val.json is missing or damaged; make it again with: vwl infer cam --run /",
        damage=delete,
        file="cam/scores-val.json",
    ),
    case(
        "evaluate of a score that is damaged",
        "evaluate --run RUN --stage cam",
        1,
        "run/cam/scores-val.json is missing or damaged",
        damage=empty,
        file="cam/scores-val.json",
    ),
    case(
        "evaluate of a stage that has no score",
        "evaluate --run RUN --stage masks",
        2,
        "'masks' is not one of 'cam', 'crf', 'walk', 'segment'",
    ),
    case(
        "evaluate of a stage that there is not",
        "evaluate --run RUN --stage ../cam",
        2,
        "'../cam' is not one of 'cam', 'crf', 'walk', 'segment'",
    ),
    case("evaluate of a split that is not scored", "evaluate --run RUN --stage cam --split test", 2, "'test' is not one of 'train', 'val'"),
    case(
        "evaluate of a stage that is not done",
        "evaluate --run RUN --stage walk",
        1,
        "the stage is not done (vwl infer walk --run /",
        removed=["walk"],
    ),
    case(
        "evaluate before anything is done",
        "evaluate --run RUN",
        1,
        "nothing was scored: none of the stages cam, crf, walk, segment is done; run: vwl run",
        removed=["cam", "crf", "walk", "segment"],
    ),
    case(
        "evaluate without ground truth",
        "evaluate --run RUN",
        1,
        "nothing was scored: ",
        "has no ground truth for labelled images of train or val",
        damage=without_truth,
        removed=["cam", "crf", "walk", "segment"],
    ),
    case("segmenting an unknown split", "infer segment --run RUN --split nothing --backend local", 2, "--split"),
    case(
        "segmenting a split without images",
        "infer segment --run RUN --split test --backend local",
        1,
        "the index has no images in split 'test' (it has train, val)",
    ),
    case("segmenting a split that is done", "infer segment --run RUN --split val --backend local", 0, "segment: done before, skipped"),
    case(
        "packing a split of which masks are missing",
        "voc-submission --run RUN --split val --out RUN/val.zip",
        1,
        "run/segment lacks 1 of 4 masks of val, e.g. val_00002; run: vwl infer segment --split val --run /",
        damage=delete,
        file="segment/val_00002.png",
    ),
    case(
        "packing a damaged mask",
        "voc-submission --run RUN --split val --out RUN/val.zip",
        1,
        "run/segment/val_00002.png is damaged; delete it",
        damage=flip_unnoticed,
        file="segment/val_00002.png",
    ),
    case(
        "packing a split without images",
        "voc-submission --run RUN --split test --out RUN/val.zip",
        1,
        "the index has no images in split 'test'",
    ),
]


@pytest.mark.parametrize(
    "case", [pytest.param(each, id=each.name) for each in (*REPAIRED, *REFUSED, *UNNOTICED, *MANIFESTS, *RUN_FILES, *OTHERS)]
)
def test_hostile_state(case, tiny_run, tmp_path):
    copy_run(tiny_run, tmp_path)
    check(case, tmp_path)
