"""Compare the losses of the four trainings between two commits, or two layouts, or both.

    python tests/golden/compare.py main~1 .                 # a commit against the working tree
    python tests/golden/compare.py .@1x4 .@2x1              # one worker with all 4 images, two workers with one at a time
    python tests/golden/compare.py v0.1@2x2 main@2x2 --steps 20 --tolerance 1e-6

Each side trains the tiny trainings of its own `tests/trainings.py` in float64. The exit code is 1 where a loss differs by more.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Compare two sides given on the command line; with `--work` be one worker of a side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sides", nargs="*", metavar="COMMIT[@WORKERSxMICRO]")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--tolerance", type=float, default=1e-9, help="largest relative difference of a loss term")
    parser.add_argument("--work", nargs=4, metavar=("FOLDER", "WORKERS", "MICRO", "RANK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        folder, *numbers = options.work
        work(Path(folder), *map(int, numbers), options.steps)
        return
    if len(options.sides) != 2:
        parser.error("give two sides")
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        first, second = (losses(side, Path(scratch) / str(number), options.steps, stack) for number, side in enumerate(options.sides))
    sys.exit(0 if report(first, second, options.tolerance) else 1)


def losses(side: str, folder: Path, steps: int, stack: ExitStack) -> dict[str, list[dict[str, float]]]:
    """Return the loss terms of each step of each training of one side."""
    commit, _, layout = side.partition("@")
    workers, micro = (int(number) for number in (layout or "1x4").split("x"))
    tree = ROOT if commit == "." else checkout(commit, folder / "tree", stack)
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).absolute()), "--steps", str(steps), "--work", str(folder), str(workers), str(micro)]
    subprocess.run([sys.executable, "-c", DATA, str(folder)], check=True, cwd=tree, env=environment)
    processes = [subprocess.Popen([*command, str(rank)], cwd=tree, env=environment) for rank in range(workers)]
    codes = [process.wait() for process in processes]  # all are waited for
    if any(codes):
        raise SystemExit(f"{side} failed")
    return {path.parent.name: terms(path) for path in sorted(folder.glob("*/metrics.jsonl"))}


DATA = "import sys; from pathlib import Path; from tests.trainings import make_data; make_data(Path(sys.argv[1]), num_val=0)"


def checkout(commit: str, folder: Path, stack: ExitStack) -> Path:
    """Check a commit out beside the working tree for as long as the stack lives."""
    subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", folder, commit], check=True)
    stack.callback(subprocess.run, ["git", "-C", ROOT, "worktree", "remove", "--force", folder], check=True)
    return folder


def work(folder: Path, workers: int, micro: int, rank: int, steps: int) -> None:
    """Train all kinds as one worker; the modules are those of the tree in PYTHONPATH."""
    sys.path.remove(str(Path(__file__).parent))  # this script's own folder comes first otherwise
    import torch
    from torch import distributed

    from tests.trainings import KINDS, tiny_spec, train_to_end
    from vwl.config.layout import Layout

    torch.set_num_threads(1)
    if workers > 1:
        distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=workers)
    for kind in KINDS:
        train_to_end(
            tiny_spec(kind, folder / "index.parquet", folder / kind, steps), Layout(workers, micro_batch=micro, precision="float64")
        )


def terms(path: Path) -> list[dict[str, float]]:
    """Return the loss terms of each line of a metrics file."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key.startswith("loss")} for line in lines if "loss" in line]


def report(first: dict[str, list[dict[str, float]]], second: dict[str, list[dict[str, float]]], tolerance: float) -> bool:
    """Print a line a training and return whether all agree."""
    same = first.keys() == second.keys()
    for kind in sorted(first.keys() & second.keys()):
        differences = [
            abs(one[key] - other.get(key, float("inf"))) / max(abs(one[key]), 1e-12)
            for one, other in zip(first[kind], second[kind], strict=True)
            for key in one
        ]
        agrees = max(differences) <= tolerance and all(a.keys() == b.keys() for a, b in zip(first[kind], second[kind], strict=True))
        same = same and agrees
        print(
            f"{kind:14} {len(first[kind])} steps, largest relative difference {max(differences):.1e}: {'same' if agrees else 'DIFFERENT'}"
        )
    return same


if __name__ == "__main__":
    main()
