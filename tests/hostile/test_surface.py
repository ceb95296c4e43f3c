"""The corpus of the command line: recipes, options, starts that cannot succeed."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.conftest import TINY
from tests.helpers import tiny_scenes
from tests.hostile.cases import Case, check
from vwl.cli.main import app
from vwl.data.index import write_index

Make = Callable[[Path], Sequence[str | Path]]


def start(*overrides: str, options: Sequence[str] = (), command: Sequence[str] = ("train", "classifier")) -> Make:
    """A command that starts a run in the folder `run` on tiny scenes; `{folder}` in an override is the case's folder."""

    def make(folder: Path) -> list[str | Path]:
        write_index(tiny_scenes(folder / "scenes"), folder / "index.parquet")
        changes = [word for setting in (*TINY, *overrides) for word in ("-o", setting.format(folder=folder))]
        given = ["--data", folder / "index.parquet", "--recipe", "demo", "--run", folder / "run", "--backend", "local"]
        return [*command, *given, *(option.format(folder=folder) for option in options), *changes]

    return make


def torch_file(name: str, content: dict[str, torch.Tensor], make: Make) -> Make:
    """The command after a weights file was written into its folder."""

    def written(folder: Path) -> Sequence[str | Path]:
        torch.save(content, folder / name)
        return make(folder)

    return written


def recipe(text: str | bytes, *overrides: str) -> Make:
    """A command that shows the recipe file `r.yaml` of this text."""

    def make(folder: Path) -> list[str | Path]:
        (folder / "r.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
        return ["recipe", "show", folder / "r.yaml", *(word for setting in overrides for word in ("-o", setting))]

    return make


def pipe(folder: Path) -> list[str | Path]:
    """A command whose recipe is a named pipe that nobody writes into."""
    os.mkfifo(folder / "r.yaml")
    return ["recipe", "show", folder / "r.yaml"]


def bomb(levels: int, width: int) -> str:
    """A list of `width` ** `levels` values in a few lines of aliases."""
    lists = (f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels))
    return "\n".join([f"a0: &a0 [{', '.join(['x'] * width)}]", *lists, ""])


def overridden(*overrides: str) -> Make:
    """A command that shows the recipe `demo` with overrides."""
    return lambda folder: ["recipe", "show", "demo", *(word for setting in overrides for word in ("-o", setting))]


def with_pipe(make: Make) -> Make:
    """The command after a named pipe `pipe` was made in its folder."""

    def made(folder: Path) -> Sequence[str | Path]:
        os.mkfifo(folder / "pipe")
        return make(folder)

    return made


RUN = ("run",)
OTHER = {"layers.0.weight": torch.zeros(3, 3)}
STARTS = [
    Case("labels without a cluster", start(options=("--trainers-on", "market=spot")), 1, ("choose nodes of a Ray cluster",)),
    Case("irnet crop too small", start("irnet.crop=24"), 1, ("irnet: crop = 24 is too small for radius = 4", "25 or more")),
    Case("irnet crop too small, run", start("irnet.crop=64", "irnet.radius=10", command=RUN), 1, ("set crop to 73 or more",)),
    Case("irnet radius without pairs", start("irnet.radius=1"), 1, ("irnet.radius should be greater than or equal to 2",)),
    Case("classifier crop of 1", start("classifier.crop=1"), 1, ("classifier.crop should be greater than or equal to 16 (given: 1)",)),
    Case("segmenter crop of 1", start("segmenter.crop=1"), 1, ("segmenter.crop should be greater than or equal to 16 (given: 1)",)),
    Case("walk exponent 0", start("walk.exponent=0"), 1, ("walk.exponent should be greater than 0",)),
    Case("seed of 64 bits", start("seed=18446744073709551616"), 1, ("seed should be a number of at most 64 bits (given: 18446744073709551616)",)),
    Case("negative seed", start("seed=-1"), 1, ("seed should be greater than or equal to 0",)),
    Case("unknown backbone of a later stage", start("segmenter.backbone.name=timm:nonsense", command=RUN), 1, ("segmenter", "nonsense")),
    Case("more frozen stages than stages", start("classifier.backbone.name=timm:convnext_atto", "classifier.frozen_stages=5"), 1, ("frozen",)),
    Case(
        "weights of a later stage are missing",
        start("segmenter.backbone.weights={folder}/no.pth", command=RUN),
        1,
        ("segmenter.backbone.weights: cannot read", "/no.pth"),
    ),
    Case(
        "weights of another network",
        torch_file("other.pth", OTHER, start("irnet.backbone.weights={folder}/other.pth", command=RUN)),
        1,
        ("irnet.backbone.weights", "other.pth", "another network"),
    ),
    Case("weights are a folder", start("classifier.backbone.weights={folder}"), 1, ("classifier.backbone.weights: cannot read",)),
    Case(
        "weights are a pipe",
        with_pipe(start("irnet.backbone.weights={folder}/pipe", command=RUN)),
        1,
        ("irnet.backbone.weights: cannot read", "it is not a regular file"),
    ),
    Case("index is a device", lambda folder: ["data", "show", "/dev/zero"], 1, ("cannot read /dev/zero: it is not a regular file",)),
    Case("start_from is missing", start("segmenter.start_from={folder}/no.pt", command=RUN), 1, ("segmenter.start_from: cannot read",)),
    Case(
        "start_from of another network",
        torch_file("other.pt", OTHER, start(options=("--start-from", "{folder}/other.pt"))),
        1,
        ("classifier.start_from", "other.pt", "another network"),
    ),
    Case("more classes of codewords than memory", start("classifier.codebook.num_codewords=1000000000000000"), 1, ("recipe section classifier",)),
    Case("more clusters than memory", start("lpcam.clusters=1000000000000000"), 1, ("lpcam.clusters should be less than or equal to 1000",)),
    Case("context above itself", start("lpcam.context_probability=[0.9, 0.1]"), 1, ("lpcam.context_probability", "smaller end first")),
    Case("recam backwards", start("recam.epochs=-1"), 1, ("recam.epochs should be greater than or equal to 0",)),
    Case("a CAM method that is none", start("cam.method=lpcan"), 1, ("cam.method", "lpcan")),
    Case("AdvCAM of prototypes", start("cam.advcam.steps=5", "cam.method=lpcam"), 1, ("advcam.steps = 5 needs method: weights",)),
    Case("maps of no folder", start(command=("tune", "run", "table1"), options=("--import", "IRN={folder}/no")), 1, ("there is no folder",)),
    Case("maps in a space of values", start(command=("tune", "run", "table5a"), options=("--import", "IRN=x")), 1, ("table5a has no rows",)),
    Case("weights that no row takes", start(command=("tune", "run", "table2"), options=("--weights", "voc=x")), 1, ("no row of the space table2 takes them; did you mean 'coco'?",)),
    Case("micro-batches that do not divide", start(options=("--micro-batch", "3"), command=RUN), 1, ("micro-batches of 3",)),
    Case("a GPU where there is none", start(options=("--gpus-per-worker", "1")), 1, ("--gpus-per-worker 1: this machine has no GPU",)),
    Case("a GPU where there is none, run", start(options=("--gpus-per-worker", "1"), command=RUN), 1, ("this machine has no GPU",)),
]  # fmt: skip


YAML = [
    Case("alias bomb", recipe(bomb(9, 9)), 1, ("r.yaml is not valid YAML", "more than 20000 values")),
    Case("alias bomb in merge keys", recipe("a: &a {x: 1}\n" + "".join(f"b{n}: &b{n} {{<<: [*{'a' if not n else f'b{n - 1}'}, *{'a' if not n else f'b{n - 1}'}]}}\n" for n in range(40))), 1, ("more than 20000 values",)),
    Case("alias of itself", recipe("cam: &cam {scales: [*cam]}"), 1, ("an alias of a value inside it",)),
    Case("many aliases of a small value", recipe("cam: {scales: [&s 1.0, *s, *s]}"), 0, ("scales:",)),
    Case("deep lists", recipe("cam: " + "[" * 5000), 1, ("nested more than 20 deep",)),
    Case("deep mappings", recipe("cam: " + "{a: " * 3000 + "1" + "}" * 3000), 1, ("nested more than 20 deep",)),
    Case("deep override", overridden("cam=" + "[" * 3000), 1, ("nested more than 20 deep",)),
    Case("key of many parts", overridden("a." * 5000 + "b=1"), 1, ("is not of the form section.key=value",)),
    Case("large file", recipe("# " + "x" * 2_000_000), 1, ("r.yaml", "larger than")),
    Case("many keys", recipe("".join(f"key{n}: 1\n" for n in range(5000))), 1, ("unknown key 'key0'", "and 4980 more")),
    Case("empty section", recipe("classifier:\ncam: {hflip: true}\n"), 1, ("the section 'classifier' is empty; give it keys or delete it",)),
    Case("empty sub-section", recipe("classifier: {backbone: }\n"), 1, ("the section 'classifier.backbone' is empty",)),
    Case("empty section in an override", overridden("irnet="), 1, ("the section 'irnet' is empty",)),
    Case("section that is a number", overridden("irnet=3"), 1, ("irnet is a section of keys and not a value (given: 3)",)),
    Case("section that is a list", recipe("cam: [hflip]\n"), 1, ("cam is a section of keys and not a value (given: ['hflip'])",)),
    Case("empty file", recipe(""), 1, ("r.yaml is not a mapping of sections",)),
    Case("empty file of comments", recipe("# nothing\n"), 1, ("r.yaml is not a mapping of sections",)),
    Case("two documents", recipe("seed: 1\n---\nseed: 2\n"), 1, ("is not valid YAML", "single document")),
    Case("number of 5000 digits", recipe("seed: " + "9" * 5000), 1, ("is not valid YAML", "5000 digits")),
    Case("number of 4000 digits", recipe("seed: " + "9" * 4000), 1, ("seed should be a number of at most 64 bits (given: 9999",)),
    Case("number of 4000 digits where none bounds it", overridden("classifier.epochs=" + "9" * 4000), 1, ("classifier.epochs should be a number of at most 64 bits",)),
    Case("date that does not exist", recipe("seed: 2020-99-99"), 1, ("is not valid YAML", "month must be")),
    Case("date", recipe("seed: 2020-01-01"), 1, ("seed should be a valid integer",)),
    Case("python object", recipe("seed: !!python/object/apply:os.system [true]"), 1, ("is not valid YAML", "tag")),
    Case("tag of a number", recipe("seed: !!int x"), 1, ("is not valid YAML", "tag")),
    Case("binary digits of nothing", recipe("seed: 0b_"), 1, ("is not valid YAML",)),
    Case("key that is a list", recipe("[1, 2]: 3"), 1, ("is not valid YAML", "unhashable key")),
    Case("key that is a number", recipe("1: 2"), 1, ("unknown key '1'",)),
    Case("control characters", recipe(b"seed: \x00\x07"), 1, ("is not valid YAML",)),
    Case("escape sequence in a key", recipe('"\\e[31mred": 1'), 1, ("unknown key", "red")),
    Case("null byte in a base", recipe('base: "x\\0.yaml"'), 1, ("recipe file", "cannot be read")),
    Case("base that is a list", recipe("base: [demo]"), 1, ("no recipe named",)),
    Case("long value", overridden("classifier.pooling=" + "x" * 50_000), 1, ("classifier.pooling should be 'gap' or 'hybrid'",)),
    Case("scale beyond any image", overridden("cam.scales=[1, 1e300]"), 1, ("cam.scales.1 should be less than or equal to 16",)),
    Case("rescaling beyond any image", overridden("irnet.rescale=[1, 1e300]"), 1, ("irnet.rescale.1 should be less than or equal to 16",)),
    Case("input scale beyond any image", overridden("segmenter.input_scales=[99]"), 1, ("segmenter.input_scales.0 should be less",)),
    Case("pipe", pipe, 1, ("r.yaml cannot be read: it is not a regular file",)),
    Case("folder", lambda folder: ["recipe", "show", *([folder / "r.yaml"] if (folder / "r.yaml").mkdir() is None else [])], 1, ("r.yaml cannot be read: it is not a regular file",)),
]  # fmt: skip


@pytest.mark.parametrize("case", YAML, ids=lambda case: case.name)
def test_yaml_that_is_no_recipe_gives_one_short_line(case, tmp_path):
    check(case, tmp_path)


@pytest.mark.parametrize("case", STARTS, ids=lambda case: case.name)
def test_a_start_that_cannot_succeed_is_refused_before_the_run_folder_is_written(case, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check(case, tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_start_on_a_cluster_that_does_not_answer_leaves_no_folder(tmp_path):
    command = [*start(command=RUN)(tmp_path), "--backend", "ray", "--address", "127.0.0.1:1"]
    check(Case("no cluster", lambda folder: command, 1, ("127.0.0.1:1",)), tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_new_run_without_a_recipe_says_which_default_it_takes(tmp_path):
    command = [word for word in start("irnet.crop=24")(tmp_path) if word not in {"--recipe", "demo"}]
    result = CliRunner().invoke(app, [*map(str, command), "-o", "irnet.crop=25", "--micro-batch", "3"])
    assert result.stderr.splitlines()[0].startswith("recipe: reference-voc, the default (")


@pytest.mark.parametrize("change", ["classifier.crop=1000000000", "classifier.epochs=9223372036854775807", "cam.long_side=1000000000"])
def test_a_plan_of_any_length_is_shown(change, tmp_path):
    write_index(tiny_scenes(tmp_path / "scenes"), tmp_path / "index.parquet")
    words = ["plan", "--data", str(tmp_path / "index.parquet"), "--recipe", "demo", "-o", change]
    result = CliRunner().invoke(app, words)
    assert result.exit_code in {0, 1}, result.exception
    assert re.search(r"in all .* \d+d \d+h", result.stdout)


def existing(name: str) -> Callable[[Path], str]:
    return lambda folder: name


def written(name: str, content: bytes = b"") -> Callable[[Path], str]:
    """Writes a file of the case's folder and returns its path."""

    def make(folder: Path) -> str:
        (folder / name).write_bytes(content)
        return str(folder / name)

    return make


def named_pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe.jpg")
    return str(folder / "pipe.jpg")


IMAGES = {
    "a file that is missing": (existing("missing.jpg"), "missing.jpg: it does not exist"),
    "text": (written("text.jpg", b"no picture"), "text.jpg cannot be read: it is not an image file"),
    "an empty file": (written("empty.jpg"), "empty.jpg cannot be read"),
    "a pipe": (named_pipe, "pipe.jpg: it is not a regular file"),
    "a device": (existing("/dev/zero"), "/dev/zero: it is not a regular file"),
    "a URL": (existing("https://example.org/dog.jpg"), "https://example.org/dog.jpg: it is not a local file; download it first"),
    "an object in a bucket": (existing("s3://bucket/dog.jpg"), "s3://bucket/dog.jpg: it is not a local file; download it first"),
    "a path through a file": (lambda folder: written("a.jpg")(folder) + "/b.jpg", "a.jpg/b.jpg: Not a directory"),
    "a name that is too long": (lambda folder: f"{folder}/{'x' * 300}.jpg", "File name too long"),
    "a name that is not UTF-8": (written("\udcff.jpg", b"no picture"), "its name is not UTF-8; rename it"),
    "an empty name": (existing(""), "is a folder"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_predict_lists_what_it_cannot_read_and_segments_the_rest(name, tiny_run, tmp_path):
    make, line = IMAGES[name]
    good = f"{tiny_run.index.root.path}/images/val_00001.jpg"
    command = ["predict", make(tmp_path), good, "--run", str(tiny_run.folder), "--out", tmp_path / "out", "--no-crf", "--json"]
    check(Case(name, lambda folder: command, 1, ("1 of 2 images could not be segmented: ", line)), tmp_path)
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == [
        "classes.json",
        "predictions.jsonl",
        "val_00001_mask.png",
        "val_00001_overlay.png",
    ]


def test_the_json_of_predict_has_lists_of_classes_and_the_problem_of_each_image(tiny_run, tmp_path):
    good = f"{tiny_run.index.root.path}/images/val_00001.jpg"
    words = ["predict", good, "missing.jpg", "--run", str(tiny_run.folder), "--out", str(tmp_path / "out"), "--no-crf", "--json"]
    segmented, missing = json.loads(CliRunner().invoke(app, words).stdout)
    assert isinstance(segmented["classes"], list)
    assert set(segmented["classes"]) <= set(tiny_run.index.classes)
    assert segmented["problem"] is None
    assert (missing["classes"], missing["mask"], missing["overlay"]) == ([], None, None)
    assert "it does not exist" in missing["problem"]


def test_sigterm_ends_predict_with_what_is_done_kept(tiny_run, tmp_path):
    image = Path(tiny_run.index.root.path, "images/val_00001.jpg")
    copies = [tmp_path / f"{number}.jpg" for number in range(500)]
    for copy in copies:
        copy.symlink_to(image)
    words = ["predict", *map(str, copies), "--run", str(tiny_run.folder), "--out", str(tmp_path / "out"), "--processes", "2"]
    running = subprocess.Popen([sys.executable, "-m", "vwl.cli.main", *words], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out" / "predictions.jsonl").exists():
        assert running.poll() is None
        time.sleep(0.05)
    running.terminate()
    _, printed = running.communicate(timeout=60)
    assert running.returncode == 130
    *progress, last = printed.splitlines()
    assert last == "predict stopped; finished work is saved; run the same command to resume"
    assert all(line.startswith("predict ") for line in progress)
    lines = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert 1 <= len(lines) < 500
    assert all((tmp_path / "out" / line["mask"]).exists() for line in lines)


OPTIONS = [
    Case("backend", start(options=("--backend", "spark")), 2, ("invalid value for '--backend'", "'ray', 'local'", "see vwl train classifier --help")),
    Case("precision", start(options=("--precision", "half")), 2, ("invalid value for '--precision'", "'float32', 'bf16'")),
    Case("crf", start(options=("--crf", "simplecrf"), command=RUN), 2, ("invalid value for '--crf'", "'pydensecrf'")),
    Case("no workers", start(options=("--workers", "0")), 2, ("'0' is neither a number of workers nor MIN:MAX",)),
    Case("workers from more to fewer", start(options=("--workers", "4:2")), 2, ("'4:2' is neither a number of workers nor MIN:MAX",)),
    Case("elastic workers without Ray", start(options=("--workers", "1:2")), 2, ("elastic workers need --backend ray",)),
    Case("label without a value", start(options=("--trainers-on", "market")), 2, ("--trainers-on 'market' is no label of nodes; write KEY=VALUE",)),
    Case("label twice", start(options=("--inference-on", "a=b", "--inference-on", "a=c"), command=RUN), 2, ("names the label a twice",)),
    Case("label that no shell means", start(options=("--trainers-on", "a=b;c")), 2, ("--trainers-on 'a=b;c' is no label of nodes",)),
    Case("half a GPU", start(options=("--gpus-per-worker", "0.5")), 2, ("invalid value for '--gpus-per-worker'",)),
    Case("override without a value", start(options=("-o", "seed")), 2, ("'seed' is not of the form KEY=VALUE",)),
    Case("competition", lambda folder: ["voc-submission", "--run", folder, "--competition", "comp7"], 2, ("'comp5', 'comp6'",)),
    Case("split", lambda folder: ["tune", "best", "--run", folder, "--split", "test"], 2, ("'train', 'val'",)),
    Case("maps without a folder", start(command=("tune", "run", "table1"), options=("--import", "IRN")), 2, ("'IRN' is not NAME=PATH",)),
    Case("maps twice", start(command=("tune", "run", "table1"), options=("--import", "a=x", "--import", "a=y")), 2, ("'a' is given twice",)),
    Case("kind of cluster", lambda folder: ["deploy", "render", "swarm"], 2, ("'kuberay', 'ray-up', 'slurm'",)),
    Case("a run without --run", lambda folder: ["status", "runs/voc"], 2, ("name the run with --run: vwl status --run runs/voc",)),
    Case("unknown option", lambda folder: ["status", "--rum", "r"], 2, ("no such option: --rum",)),
    Case("unknown command", lambda folder: ["trian"], 2, ("no such command 'trian'", "'train'")),
]  # fmt: skip


@pytest.mark.parametrize("case", OPTIONS, ids=lambda case: case.name)
def test_a_wrong_option_is_one_line_and_exit_code_2(case, tmp_path):
    check(case, tmp_path)
    assert not (tmp_path / "run").exists()
