"""Training: Ray Train and the plain loop, two workers and two threads, loaders, and the share of the visual words in a step.

The same short training (EfficientNet-Lite0, memory bank, generated scenes) runs alternately in four layouts. Images per second are
those that the loop logs, without the first lines (start, first batches). On a machine that others use as well, the CPU time of an
image is the fairer figure: it is that of the process of the loop, and in the table of the loaders that of its loader processes too.
Parity: in float64, where training does not amplify rounding errors visibly, all layouts have the same losses at every step.
"""

import argparse
import json
import statistics
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from _paired import Line, show
from rich.console import Console
from rich.table import Table

from vwl.config.files import load_recipe
from vwl.config.layout import Layout
from vwl.data.index import write_index
from vwl.data.scenes import prepare_scenes
from vwl.engine import local, train
from vwl.engine.session import session
from vwl.storage.folder import Folder
from vwl.training.build import TrainSpec

BATCH, LOG_EVERY, PARITY_STEPS = 8, 10, 6
LOADERS = {"2 threads": 0, "1 process": 1, "2 processes": 2}
KEYS = ["classifier.crop=160", "classifier.resize=[160,224]", f"classifier.batch_size={BATCH}", "classifier.codebook.num_codewords=256"]
LAYOUTS = {
    "plain loop, 1 thread": (local, Layout(cpus_per_worker=1, micro_batch=4, checkpoint_steps=10**6)),
    "Ray Train, 1 worker x 1 thread": (train, Layout(cpus_per_worker=1, micro_batch=4, checkpoint_steps=10**6)),
    "Ray Train, 1 worker x 2 threads": (train, Layout(cpus_per_worker=2, micro_batch=4, checkpoint_steps=10**6)),
    "Ray Train, 2 workers x 1 thread": (train, Layout(workers=2, cpus_per_worker=1, micro_batch=4, checkpoint_steps=10**6)),
}


@dataclass(frozen=True)
class Speed:
    """Of one training: images per second, share of the time in which a step waited for images, CPU seconds of an image."""

    images: float
    wait: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--part", choices=["all", "loaders", "ray"], default="all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        index, _ = prepare_scenes(folder / "scenes", num_train=options.steps * BATCH, num_val=0)
        write_index(index, folder / "index.parquet")
        write_index(replace(index, rows=index.rows[: PARITY_STEPS * BATCH]), folder / "few.parquet")
        if options.part != "ray":
            print_speeds("loaders of the plain loop, 1 thread (medians)", loaders(folder, options.repeats))
        if options.part != "loaders":
            compare_with_ray(folder, options.repeats)


def loaders(folder: Path, repeats: int) -> dict[str, list[Speed]]:
    """Train with each loader in turn, in this process; before Ray is started, whose processes would be counted."""
    found: dict[str, list[Speed]] = {name: [] for name in LOADERS}
    plain = LAYOUTS["plain loop, 1 thread"][1]
    for number in range(repeats):
        for name, processes in LOADERS.items():
            layout = replace(plain, loader_workers=processes)
            found[name].append(speed(trained(local, layout, folder, f"loader{processes}-{number}", count_children=True)))
    return found


def compare_with_ray(folder: Path, repeats: int) -> None:
    """Train in all layouts in turn, and show Ray against the plain loop."""
    with session(None, cpus=2):
        speeds: dict[str, list[Speed]] = {name: [] for name in LAYOUTS}
        for number in range(repeats):
            for name, (engine, layout) in LAYOUTS.items():
                lines = trained(engine, layout, folder, f"{list(LAYOUTS).index(name)}-{number}")
                speeds[name].append(speed(lines))
        shares = word_shares(folder)
        losses = {name: float64_losses(engine, layout, folder, name) for name, (engine, layout) in LAYOUTS.items()}
    print_details(speeds, shares)
    on_paper()
    spread = max(abs(a - b) / abs(b) for found in losses.values() for a, b in zip(found, losses["plain loop, 1 thread"], strict=True))
    parity = f"losses of {PARITY_STEPS} steps within {spread:.0e} (float64)"
    plain, ray_one, threads, workers = speeds.values()
    lines = [
        line("training: plain loop, Ray Train with one worker", plain, ray_one, "0.97", parity),
        cpu_line("training, CPU of an image: plain loop, Ray Train", plain, ray_one, "0.97", parity),
        line("training: one worker of 2 threads, two of one", threads, workers, "0.95", parity),
    ]
    show(f"Training, EfficientNet-Lite0, batch {BATCH}, memory bank", lines, spread <= 1e-9)


def speed(lines: list[dict[str, float]]) -> Speed:
    """Return the speed that the lines of a training show after its first."""
    images = BATCH * (lines[-1]["step"] - lines[0]["step"])
    cpu = (lines[-1]["cpu_seconds"] - lines[0]["cpu_seconds"]) / images
    rest = lines[1:]
    return Speed(*(statistics.median(line[key] for line in rest) for key in ("images_per_second", "data_wait_share")), cpu)


def line(what: str, first: list[Speed], second: list[Speed], wanted: str, parity: str) -> Line:
    """Return a line with the images per second of two layouts and the median ratio of paired repetitions."""
    ratio = statistics.median(b.images / a.images for a, b in zip(first, second, strict=True))
    return Line(what, *(f"{median(speeds, 'images'):.2f} images/s" for speeds in (first, second)), ratio, wanted, parity)


def cpu_line(what: str, first: list[Speed], second: list[Speed], wanted: str, parity: str) -> Line:
    """Return a line with the CPU time of an image of two layouts and the median ratio of paired repetitions."""
    ratio = statistics.median(a.cpu / b.cpu for a, b in zip(first, second, strict=True))
    return Line(what, *(f"{1000 * median(speeds, 'cpu'):.1f} ms" for speeds in (first, second)), ratio, wanted, parity)


def median(speeds: list[Speed], name: str) -> float:
    return statistics.median(getattr(speed, name) for speed in speeds)


class CpuFolder(Folder):
    """A folder that adds the CPU seconds of the process that trains to its metrics, and optionally those of the processes below it."""

    def __init__(self, uri: Path, count_children: bool) -> None:
        super().__init__(uri)
        self.count_children = count_children

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "count_children": self.count_children}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.count_children = state["count_children"]
        super().__setstate__(state)

    def append(self, name: str, text: str) -> None:
        seconds = time.process_time()
        for child in psutil.Process().children(recursive=True) if self.count_children else ():
            with suppress(psutil.NoSuchProcess):
                seconds += sum(child.cpu_times()[:2])
        super().append(name, json.dumps({**json.loads(text), "cpu_seconds": seconds}) + "\n")


def trained(engine, layout: Layout, folder: Path, name: str, count_children: bool = False) -> list[dict[str, float]]:
    spec = TrainSpec("classifier", recipe(), str(folder / "index.parquet"), CpuFolder(folder / name, count_children), None, name)
    engine.fit(spec, layout, lambda *_: None)
    return [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]


def float64_losses(engine, layout: Layout, folder: Path, name: str) -> list[float]:
    """Return the losses of every step of a short training in float64."""
    spec = TrainSpec("classifier", recipe(), str(folder / "few.parquet"), Folder(folder / "float64" / name), None, name)
    lines: list[float] = []
    engine.fit(spec, replace(layout, precision="float64"), lambda progress: lines.append(progress.metrics["loss"]))
    assert lines
    return lines


def recipe():
    return load_recipe("demo", [*KEYS, "classifier.epochs=1"])


def word_shares(folder: Path) -> dict[str, float]:
    """Return the shares of a step's time in the code of the visual words and in their all-reduce, on two Ray Train workers."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        timed_worker,
        train_loop_config={"folder": str(folder)},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(name="shares", storage_path=f"{folder}/ray"),
    )
    return trainer.fit().return_value


def timed_worker(config: dict[str, str]) -> dict[str, float]:
    from vwl.models.codebook import Codebook
    from vwl.training import classifier, distributed, loop
    from vwl.training.build import build_task

    spent = {"visual words": 0.0, "all-reduce of the bank": 0.0}

    @contextmanager
    def clock(kind: str):
        began = time.perf_counter()
        yield
        spent[kind] += time.perf_counter() - began

    def timed(owner, name: str, kind: str) -> None:
        inner = getattr(owner, name)

        def outer(*args, **kwargs):
            with clock(kind):
                return inner(*args, **kwargs)

        setattr(owner, name, outer)

    for name in ("forward", "assigned_sums", "update", "count_usage"):
        timed(Codebook, name, "visual words")
    # result() waits for what the backward pass has not hidden; __init__ starts the sum.
    timed(distributed.PendingSum, "__init__", "all-reduce of the bank")
    timed(distributed.PendingSum, "result", "all-reduce of the bank")
    assert classifier.PendingSum is distributed.PendingSum
    folder = Path(config["folder"])
    spec = TrainSpec("classifier", recipe(), str(folder / "index.parquet"), Folder(folder / "shares"), None, "shares")
    task = build_task(spec)
    times: list[float] = []
    before: list[dict[str, float]] = []

    def on_step(step: int, num_steps: int, metrics: dict[str, float]) -> None:
        times.append(time.perf_counter())
        before.append(dict(spent))

    loop.train(task, Layout(workers=2, micro_batch=4, checkpoint_steps=10**6), spec.folder, "shares", loop.Callbacks(on_step))
    if not times:  # only worker 0 calls on_step
        return {}
    whole = times[-1] - times[LOG_EVERY]
    return {kind: (before[-1][kind] - before[LOG_EVERY][kind]) / whole for kind in spent}


def print_speeds(title: str, speeds: dict[str, list[Speed]]) -> None:
    table = Table(title=title, box=None)
    for column in ("layout", "images/s", "all repetitions", "data wait", "CPU of an image"):
        table.add_column(column, justify="left" if column == "layout" else "right")
    for name, found in speeds.items():
        every = " ".join(f"{speed.images:.2f}" for speed in found)
        table.add_row(
            name, f"{median(found, 'images'):.2f}", every, f"{median(found, 'wait'):.1%}", f"{1000 * median(found, 'cpu'):.1f} ms"
        )
    Console(width=120).print(table)


def print_details(speeds: dict[str, list[Speed]], shares: dict[str, float]) -> None:
    print_speeds("images a second (medians)", speeds)
    for kind, share in shares.items():
        print(f"share of a step in the {kind}: {share:.2%}{' (aim: under 3 %)' if 'all-reduce' in kind else ''}")


def on_paper() -> None:
    """Print the time of a ring all-reduce of (k, d + 1) float32: 2 (n - 1) / n of its bytes over each link, and 2 (n - 1) latencies."""
    table = Table(title="the bank's all-reduce on paper, milliseconds (ring; link speed and latency as named)", box=None)
    clusters = {"8 GPUs, 1 node (200 GB/s, 5 us)": (8, 200e9, 5e-6), "64 GPUs, 8 nodes (20 GB/s, 10 us)": (64, 20e9, 10e-6)}
    for column in ("k", "d", "MB", *clusters):
        table.add_column(column, justify="right")
    for k, d in ((256, 1280), (256, 2048), (512, 2048), (2048, 2048)):
        size = k * (d + 1) * 4
        costs = [2 * (n - 1) / n * size / speed + 2 * (n - 1) * latency for n, speed, latency in clusters.values()]
        table.add_row(str(k), str(d), f"{size / 1e6:.1f}", *(f"{1000 * cost:.2f}" for cost in costs))
    Console().print(table)


if __name__ == "__main__":
    main()
