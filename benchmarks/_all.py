"""Every script of this folder one after the other, and at the end one table of what they found; leaves with an error if one did."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from _paired import Line, machine, table_of
from rich.console import Console

HERE = Path(__file__).parent


def main() -> None:
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder, "lines.jsonl")
        kept.touch()
        for script in sorted(HERE.glob("[!_]*.py")):
            print(f"== {script.name}", flush=True)
            done = subprocess.run([sys.executable, str(script)], env=os.environ | {"VWL_BENCH": str(kept)}, check=False)
            failed += [script.name] if done.returncode else []
        lines = [Line(**json.loads(line)) for line in kept.read_text().splitlines()]
    Console(width=160).print(table_of(f"all benchmarks\n{machine()}", lines))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
