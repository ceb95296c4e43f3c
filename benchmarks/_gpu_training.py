"""Trainings of `benchmarks/gpu.py`: the classifier's and the segmentation model's steps, through the loop and with JPEG files."""

import copy
import json
import os
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from _gpu_result import Result, milliseconds, peak_gib, reset_peak
from _paired import real_images
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from vwl.config.files import load_recipe
from vwl.config.layout import Layout
from vwl.data.index import Row, make_index, write_index
from vwl.storage.folder import Folder
from vwl.storage.masks import encode_mask, voc_palette
from vwl.training.build import TrainSpec, build_task
from vwl.training.loader import stacked
from vwl.training.loop import train
from vwl.training.numerics import Numerics, arithmetic
from vwl.training.task import Sample, Task

NUM_OBJECTS, PARITY_IMAGES = 20, 2
TINY = [
    *(f"{section}.backbone.name=timm:test_resnet" for section in ("classifier", "segmenter")),
    *("classifier.crop=64", "classifier.resize=[64,96]", "classifier.batch_size=2", "classifier.frozen_stages=3"),
    *("classifier.codebook.num_codewords=16", "segmenter.crop=49", "segmenter.batch_size=2", "segmenter.atrous_rates=[2,4]"),
]


def matmul_peak(device: torch.device, size: int) -> float:
    """Return the operations per second of a bf16 matrix product."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / (milliseconds(lambda: a @ b, device, 10) / 1e3)


def classifier_steps(device: torch.device, folder: Path, small: bool, steps: int, peak: float) -> Iterator[Result]:
    """Yield the classifier's steps (ResNet-101, 512 pixels, batch 16) in both precisions, with threads and with processes that read."""
    spec = data(folder, "classifier", small, steps)
    cpus = os.cpu_count() or 1
    whole = Layout(cpus_per_worker=cpus, gpus_per_worker=int(device.type == "cuda"), checkpoint_steps=10**6)
    loaders = 1 if small else min(8, max(1, cpus - 1))
    layouts = {
        "float32 (TF32 convolutions)": replace(whole, loader_workers=loaders),
        f"bf16, {loaders} loader processes": replace(whole, precision="bf16", loader_workers=loaders),
        "bf16, 2 loader threads": replace(whole, precision="bf16", loader_workers=0),
        "bf16, read every step": replace(whole, precision="bf16", loader_workers=loaders, sync_steps=1),
    }
    names = list(layouts)[1:3] if small else list(layouts)
    yield from steps_of("classifier step", spec, {name: layouts[name] for name in names}, device, peak)


def segmenter_steps(device: torch.device, folder: Path, small: bool, steps: int, peak: float) -> Iterator[Result]:
    """Yield the steps of DeepLabV2 (ResNet-101, 321 pixels, batch 10, three scales)."""
    spec = data(folder, "segmenter", small, steps)
    cpus = os.cpu_count() or 1
    layout = Layout(cpus_per_worker=cpus, gpus_per_worker=int(device.type == "cuda"), checkpoint_steps=10**6, precision="bf16")
    yield from steps_of("DeepLabV2 step", spec, {"bf16": replace(layout, loader_workers=1 if small else None)}, device, peak)


def steps_of(what: str, spec: TrainSpec, layouts: dict[str, Layout], device: torch.device, peak: float) -> Iterator[Result]:
    """Yield the steps of a training in several layouts, with the parity of its losses."""
    task = build_task(spec)
    batch = stacked([task.sample(number, 0) for number in range(min(PARITY_IMAGES, task.batch_size))], torch.float32)
    parity, right = compare(task, batch, device)
    operations = task.batch_size * step_operations(task, batch, device)
    del task
    for name, layout in layouts.items():
        torch.set_num_threads(layout.cpus_per_worker)
        reset_peak(device)
        where = spec.folder / name.replace(" ", "-")
        train(build_task(spec), layout, where, name)
        lines = [json.loads(line) for line in where.read("metrics.jsonl").decode().splitlines()]
        lines = [line for line in lines if "loss" in line]
        lines = lines[1:] or lines  # the first has the start of processes and the choice of algorithms
        speed = statistics.median(line["images_per_second"] for line in lines)
        yield Result(
            f"{what}, {name}",
            f"{speed:.1f} images/s",
            speed,
            parity,
            right,
            flop_share=operations * speed / getattr(spec.recipe, spec.stage).batch_size / peak,
            data_wait=statistics.median(line["data_wait_share"] for line in lines),
            peak_gib=peak_gib(device),
        )


def compare(task: Task, batch: Sample, device: torch.device) -> tuple[str, bool]:
    """Compare the losses of a batch in float32 without TF32 on the device with those in float64 on the CPU."""
    with arithmetic(Numerics(tf32="none")):
        exact = losses(task, batch, torch.device("cpu"), torch.float64)
        found = losses(task, batch, device, torch.float32)
    apart = max(abs(found[name] - value) / max(abs(value), 1e-6) for name, value in exact.items())
    return f"losses within {apart:.0e} of float64", apart <= 1e-3


def losses(task: Task, batch: Sample, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    copied = copy.copy(task)
    copied.model = copy.deepcopy(task.model).to(device, dtype).to(memory_format=torch.channels_last)
    moved = moved_to(batch, device, dtype)
    return {name: float(value.detach()) for name, value in copied.losses(copied.model, moved, copied.counts(moved), part=1.0).items()}


def moved_to(batch: Sample, device: torch.device, dtype: torch.dtype) -> Sample:
    return {name: value.to(device, dtype if value.is_floating_point() else value.dtype) for name, value in batch.items()}


def step_operations(task: Task, batch: Sample, device: torch.device) -> float:
    """Return the operations of an image's forward and backward pass."""
    copied = copy.copy(task)
    copied.model = copy.deepcopy(task.model).to(device)
    moved = moved_to(batch, device, torch.float32)
    with FlopCounterMode(display=False) as counter:
        terms = copied.losses(copied.model, moved, copied.counts(moved), part=1.0)
        torch.stack([*terms.values()]).sum().backward()
    return counter.get_total_flops() / len(moved["images"])


def data(folder: Path, stage: str, small: bool, steps: int) -> TrainSpec:
    """Write images, masks and an index, and return the spec of a training of so many steps."""
    shape = ["classifier.epochs=1", "classifier.linear_probe=none", f"segmenter.iterations={steps}"]
    random = [f"{section}.backbone.weights=none" for section in ("classifier", "segmenter")]
    recipe = load_recipe("paper-voc", [*random, *shape, *(TINY if small else [])])
    masks = Folder(folder / "masks")
    folder.mkdir(parents=True)
    rows, rng = [], np.random.default_rng(0)
    images = real_images(4 if small else 20)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.jpg", quality=92)
    num = steps * getattr(recipe, stage).batch_size if stage == "classifier" else len(images)
    for number in range(num):
        labels = tuple(sorted({int(label) for label in rng.integers(1, NUM_OBJECTS + 1, 2)}))
        rows.append(Row(f"{number:05d}", f"{number % len(images)}.jpg", labels, None, "train"))
        height, width = images[number % len(images)].shape[:2]
        if stage == "segmenter":
            coarse = rng.integers(0, NUM_OBJECTS + 1, (height // 50 + 1, width // 50 + 1), np.uint8)
            mask = coarse.repeat(50, 0).repeat(50, 1)[:height, :width]
            masks.write(f"{number:05d}.png", encode_mask(mask, voc_palette()))
    classes = ["background", *(f"class{number}" for number in range(NUM_OBJECTS))]
    write_index(make_index(rows, classes, folder, "a benchmark"), folder / "index.parquet")
    return TrainSpec(stage, recipe, str(folder / "index.parquet"), Folder(folder / "runs"), masks, "benchmark")
