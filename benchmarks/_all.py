"""Every timing of this folder one after the other, and at the end one table of what they found; leaves with an error if one did."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from _paired import Line, machine, table_of
from rich.console import Console

HERE = Path(__file__).parent
OF_GPUS = {"gpu.py"}
"""Scripts that need a GPU: `make bench-gpu`."""
EXPERIMENTS = {"negatives.py", "positive_control.py", "review.py", "scoring.py"}
"""Scripts that are started by hand: `scoring.py` needs a finished run; the others train for hours, keep their trainings in `--out`, and
have their results in docs/results."""


def main() -> None:
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder, "lines.jsonl")
        kept.touch()
        for script in sorted(path for path in HERE.glob("[!_]*.py") if path.name not in EXPERIMENTS | OF_GPUS):
            print(f"== {script.name}", flush=True)
            done = subprocess.run([sys.executable, str(script)], env=os.environ | {"VWL_BENCH": str(kept)}, check=False)
            failed += [script.name] if done.returncode else []
        lines = [Line(**json.loads(line)) for line in kept.read_text().splitlines()]
    Console(width=160).print(table_of(f"all benchmarks\n{machine()}", lines))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
