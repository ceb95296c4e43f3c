"""A driver that can be killed: `python -m tests.engine.driven ADDRESS INDEX FOLDER STEPS CHECKPOINT_STEPS WORKERS [FEWEST]`.

Trains the classifier with the memory bank through `vwl.engine.train.fit` and prints a line a step, and each message.
"""

import sys
from pathlib import Path

from tests.trainings import tiny_spec
from vwl.config.layout import Layout
from vwl.engine import train
from vwl.engine.session import session


def main() -> None:
    address, index_path, folder = sys.argv[1:4]
    steps, checkpoint_steps, workers = map(int, sys.argv[4:7])
    fewest = int(sys.argv[7]) if len(sys.argv) > 7 else None
    layout = Layout(workers=workers, min_workers=fewest, checkpoint_steps=checkpoint_steps, precision="float64")
    spec = tiny_spec("classifier-M", Path(index_path), Path(folder), steps)
    with session(address):
        train.fit(spec, layout, lambda progress: print(progress.message or progress.done, flush=True))


if __name__ == "__main__":
    main()
