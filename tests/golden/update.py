"""Rewrite the golden losses after a change that is meant to change them: `python -m tests.golden.update`.

Each file holds the loss terms of ten steps of one training (`tests.trainings`), in float64 on one worker.
"""

import json
import tempfile
from pathlib import Path

from tests.trainings import KINDS, make_data, metrics, tiny_spec, train_to_end

GOLDEN = Path(__file__).parent
STEPS = 10


def loss_terms(kind: str, index_path: Path, folder: Path) -> list[dict[str, float]]:
    """Train and return the loss terms of every step."""
    train_to_end(tiny_spec(kind, index_path, folder, STEPS))
    lines = [line for line in metrics(folder) if "loss" in line]
    return [{name: value for name, value in line.items() if name.startswith("loss")} for line in lines]


def main() -> None:
    """Train all kinds and write their losses."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        index_path = make_data(folder, num_val=0)
        for kind in KINDS:
            losses = loss_terms(kind, index_path, folder / kind)
            (GOLDEN / f"{kind}.json").write_text(json.dumps(losses, indent=1) + "\n")
            print(f"{kind}: {losses[0]['loss']:.6f} to {losses[-1]['loss']:.6f}")


if __name__ == "__main__":
    main()
