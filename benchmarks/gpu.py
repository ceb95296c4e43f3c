"""What a GPU does: training steps, class activation maps, dense CRF and random walk, each with its parity against the CPU.

    make bench-gpu                                          # a bare machine with a GPU: a table, and gpu.json
    python benchmarks/gpu.py --json gpu.json                # the same without make
    python benchmarks/gpu.py --device cpu --small           # tiny networks, to see that it runs

Nothing is downloaded: networks have random weights, and images are VOC's where they are at hand (VWL_DATA), else drawn scenes. Training
steps go through the loop of `vwl train` with JPEG files, so that the share of the time in which the device waits for data is that of a real
training. Leaves with an error where parity does not hold.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

# before torch is imported: --device cpu must not find a GPU, which the loop and the CRF would take
if "cpu" in sys.argv:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from _gpu_inference import cam, crf, random_walk
from _gpu_training import classifier_steps, matmul_peak, segmenter_steps
from _paired import machine
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Report:
    """What `--json` holds.

    Attributes:
        machine, device, torch, cudnn: what ran it.
        small: whether sizes were tiny; its figures say nothing then.
        matmul_tflops: measured peak of bf16 matrix products.
        results: one entry for each line of the table.
    """

    machine: str
    device: str
    torch: str
    cudnn: int | None
    small: bool
    matmul_tflops: float
    results: list[dict[str, object]] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny networks and images, seconds in all")
    parser.add_argument("--steps", type=int, default=60, help="of each training")
    parser.add_argument("--repeats", type=int, default=10, help="of each timing beside trainings")
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file; - prints them")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch finds no GPU on this machine; --device cpu --small shows that the script runs")
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    peak = matmul_peak(device, 256 if options.small else 8192)
    report = Report(machine(), name, torch.__version__, torch.backends.cudnn.version(), options.small, peak / 1e12)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for result in results(device, folder, options.small, 4 if options.small else options.steps, options.repeats, peak):
            report.results.append(asdict(result))
            print(f"{result.what}: {result.speed}", file=sys.stderr, flush=True)
    if options.json == "-":
        print(json.dumps(asdict(report), indent=2))
    else:
        Console(width=180).print(table(report))
        if options.json:
            Path(options.json).write_text(json.dumps(asdict(report), indent=2) + "\n")
    if wrong := [str(result["what"]) for result in report.results if not result["right"]]:
        sys.exit(f"parity does NOT hold: {', '.join(wrong)}")


def results(device: torch.device, folder: Path, small: bool, steps: int, repeats: int, peak: float) -> Iterator["object"]:
    """Yield a `Result` for each line."""
    yield from classifier_steps(device, folder / "classifier", small, steps, peak)
    yield from segmenter_steps(device, folder / "segmenter", small, steps, peak)
    yield cam(device, small, 1 if small else repeats)
    yield from crf(device, small, 1 if small else repeats)
    yield from random_walk(device, small, 1 if small else repeats)


def table(report: Report) -> Table:
    title = f"{report.device}, bf16 matrix products {report.matmul_tflops:,.1f} TFLOPS, torch {report.torch}\n{report.machine}"
    found = Table("what", "speed", "share of peak", "data wait", "peak memory", "CPU form", "ratio", "parity", title=title)
    for line in report.results:
        cells = [
            percent(line["flop_share"]),
            percent(line["data_wait"]),
            "" if line["peak_gib"] is None else f"{line['peak_gib']:.2f} GiB",
            "" if line["cpu_ms"] is None else f"{line['cpu_ms']:.1f} ms",
            "" if line["ratio"] is None else f"{line['ratio']:.2f}",
        ]
        found.add_row(str(line["what"]), str(line["speed"]), *cells, str(line["parity"]))
    return found


def percent(share: object) -> str:
    return "" if share is None else f"{share:.1%}"


if __name__ == "__main__":
    main()
