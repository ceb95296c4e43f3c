"""`vwl predict` on a folder against the loop that a user would write: load the model, then predict and save one file after the other.

Each is a process of its own, timed from start to end: the loop with torch's own number of threads and with one, the command with a
process for each physical CPU. Parity: the masks of the loop with one thread have the bytes of the command's. Then the command runs
on many images: its memory (of all its processes, of shared pages each its part) until 100 are done and until the end; and it is killed
half way and called again. Without `--model` a network of the recipe `quick` that was never trained is taken.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _paired import DATA, Line, paired, real_images, show
from memory import family, memory
from PIL import Image

from vwl.config.files import load_recipe
from vwl.data.index import Row, make_index
from vwl.model_file.content import encode_model
from vwl.model_file.description import ARCHITECTURE
from vwl.model_file.models import described
from vwl.models.deeplab import DeepLabV2

LOOP = """
import sys
import vwl
model = vwl.load_model(sys.argv[1], device="cpu")
for path in sys.argv[3:]:
    model.predict(path).save(sys.argv[2])
"""
FEW, MANY = 100, 1000
PAUSE = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100, help="of the comparison with the loop")
    parser.add_argument("--many", type=int, default=MANY, help="of the measurement of memory and of the kill; 0 leaves both out")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--model", help="model file of a trained run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = options.model or untrained(folder / "model.safetensors")
        images = linked(folder / "images", options.images)
        found = []
        for threads in (None, 1):
            ours, loop = folder / f"ours-{threads}", folder / f"loop-{threads}"
            pair = paired(
                lambda threads=threads, loop=loop: run_loop(model, images, loop, threads),
                lambda ours=ours: run_command(model, images, ours),
                options.repeats,
                warm_up=False,
            )
            found.append((threads, pair, same_masks(ours, loop)))
        lines = [
            Line(
                f"predict, {options.images} images: loop with {threads or 'all'} thread{'s' if threads is None else ''}, command",
                *(f"{options.images / seconds:.2f} images/s" for seconds in (pair.first, pair.second)),
                pair.ratio,
                "1.8 on 2 cores" if threads is None else "",
                f"{share:.0%} of the masks have the same bytes",
            )
            for threads, pair, share in found
        ]
        right = found[-1][2] == 1
        if options.many:
            more, equal = many(model, linked(folder / "many", options.many), folder)
            lines, right = [*lines, *more], right and equal
    show("vwl predict", lines, right)


def run_loop(model: str, images: Path, out: Path, threads: int | None) -> None:
    """Segment all images by the loop, with a number of threads or torch's own."""
    empty(out)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
    words = [sys.executable, "-c", LOOP, model, str(out), *map(str, sorted(images.iterdir()))]
    subprocess.run(words, env=environment, check=True)


def command(model: str, images: Path, out: Path) -> list[str]:
    words = ["predict", str(images), "--model", model, "--device", "cpu", "--out", str(out)]
    return [sys.executable, "-m", "vwl.cli.main", *words]


def run_command(model: str, images: Path, out: Path) -> None:
    empty(out)
    subprocess.run(command(model, images, out), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def many(model: str, images: Path, folder: Path) -> tuple[list[Line], bool]:
    """Return lines on memory and on a kill, and whether the results after the kill are those of a call that was not killed."""
    num = len(list(images.iterdir()))
    whole, killed = folder / "whole", folder / "killed"
    began = time.monotonic()
    early, late = 0.0, 0.0
    with subprocess.Popen(command(model, images, whole), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            now = sum(memory(pid) for pid in family(process.pid))
            early, late = max(early, now if num_lines(whole) <= FEW else 0), max(late, now)
            time.sleep(PAUSE)
    seconds = time.monotonic() - began
    with subprocess.Popen(command(model, images, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while num_lines(killed) < num // 2:
            time.sleep(PAUSE)
        process.send_signal(signal.SIGKILL)
    there, again = num_lines(killed), time.monotonic()
    subprocess.run(command(model, images, killed), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rest = time.monotonic() - again
    same = contents(whole) == contents(killed)
    parity = "same files" if same else "NOT the same files"
    first, second = f"{early / 2**20:,.0f} MiB", f"{late / 2**20:,.0f} MiB"
    return [
        Line(f"predict, peak until {FEW} and {num:,} images", first, second, late / early, "under 1.1", parity),
        Line(
            f"predict, killed after {there:,} of {num:,}: all, the rest",
            f"{seconds:.0f} s",
            f"{rest:.0f} s",
            seconds / rest,
            "",
            parity,
        ),
    ], same


def num_lines(out: Path) -> int:
    record = out / "predictions.jsonl"
    return record.read_bytes().count(b"\n") if record.exists() else 0


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("[!.]*")}


def same_masks(one: Path, other: Path) -> float:
    """Share of the masks that have the same bytes."""
    names = sorted(path.name for path in one.glob("*_mask.png"))
    return float(np.mean([(one / name).read_bytes() == (other / name).read_bytes() for name in names]))


def empty(out: Path) -> None:
    for path in out.glob("*") if out.exists() else ():
        path.unlink()
    (out / ".predict.lock").unlink(missing_ok=True)


def linked(folder: Path, num: int) -> Path:
    """Make a folder of so many real images, repeated under new names where there are fewer."""
    folder.mkdir()
    found = sorted((DATA / "voc12mini" / "JPEGImages").glob("*.jpg"))[:num]
    if not found:
        for number, image in enumerate(real_images(20)):
            Image.fromarray(image).save(folder.parent / f"drawn{number}.jpg")
        found = sorted(folder.parent.glob("drawn*.jpg"))
    for number in range(num):
        (folder / f"{number:05d}.jpg").symlink_to(found[number % len(found)])
    return folder


def untrained(path: Path) -> str:
    """Write the model file of a network that was never trained, whose masks have several classes."""
    recipe = load_recipe("quick")
    classes = ("background", *(f"class {number}" for number in range(1, 21)))
    torch.manual_seed(0)
    network = DeepLabV2(recipe.segmenter, len(classes)).eval()
    with torch.no_grad():
        for weight in network.aspp_weights():
            weight.mul_(20)
    section = recipe.segmenter.model_dump(mode="json")
    index = make_index([Row("a", "a.jpg", (1,), None, "val")], classes, path.parent, "none")
    values = {
        **{"format": 1, "kind": "segmentation", "classes": classes, "palette": index.palette},
        "normalisation": {"mean": network.backbone.mean, "std": network.backbone.std},
        "architecture": {**{key: section[key] for key in ARCHITECTURE["segmentation"]}, "backbone": {"name": "lite0"}},
        "prediction": recipe.segment.model_dump(mode="json"),
        **{
            "recipe": "quick",
            "recipe_hash": "",
            "seed": 0,
            "scores": (),
            "scored_classes": None,
            "thresholds": (),
            "training_images": None,
        },
        **{"data_fingerprint": "", "versions": {}, "licence": "none"},
    }
    state = network.state_dict()
    path.write_bytes(encode_model(described(values, state), state))
    return str(path)


if __name__ == "__main__":
    main()
