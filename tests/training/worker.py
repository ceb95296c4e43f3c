"""One of several worker processes without Ray: all trainings in a few layouts, one after the other.

Run as `python -m tests.training.worker INDEX FOLDER RANK WORLD_SIZE NUM_STEPS`; every worker gets the same folder.
"""

import sys
from pathlib import Path
from unittest import mock

import torch
from torch import distributed

from tests.trainings import KINDS, tiny_spec, train_to_end
from vwl.config.layout import Layout
from vwl.training import checkpoint
from vwl.training import classifier as classifier_training
from vwl.training.distributed import rank
from vwl.training.loop import Callbacks


class LocalSum:
    """Stands for `PendingSum` and returns a worker's own sum, so that the memory bank is not summed over workers."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def result(self) -> torch.Tensor:
        return self.values


def run_layouts(index_path: Path, folder: Path, world_size: int, micro_batches: tuple[int, ...], num_steps: int) -> None:
    """Train each kind in each layout in `folder/KIND-WORLDxMICRO`; every worker saves its own state there as `rank-R.pt`."""
    for kind in KINDS:
        for micro_batch in micro_batches:
            spec = tiny_spec(kind, index_path, folder / f"{kind}-{world_size}x{micro_batch}", num_steps)
            task, _ = train_to_end(spec, Layout(workers=world_size, micro_batch=micro_batch, precision="float64"))
            checkpoint.save(spec.folder, f"rank-{rank()}.pt", task.model.state_dict())


def stop_before(step: int) -> Callbacks:
    """Return a callbacks that asks for a stop after `step` steps."""
    asked = iter(range(10**6))
    return Callbacks(should_stop=lambda: next(asked) == step)


def main() -> None:
    """Join the process group; train in two layouts, with a memory bank that is not summed over workers, and once with a stop and a resume."""
    torch.set_num_threads(1)
    index_path, folder = Path(sys.argv[1]), Path(sys.argv[2])
    number, world_size, num_steps = (int(argument) for argument in sys.argv[3:])
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=number, world_size=world_size)
    run_layouts(index_path, folder, world_size, (2, 1), num_steps)
    spec = tiny_spec("classifier-M", index_path, folder / "bank-not-summed", num_steps)
    with mock.patch.object(classifier_training, "PendingSum", LocalSum):
        train_to_end(spec, Layout(workers=world_size, micro_batch=2, precision="float64"))
    spec = tiny_spec("classifier-M", index_path, folder / "resumed", num_steps)
    train_to_end(spec, Layout(workers=world_size, micro_batch=2, precision="float64"), stop_before(3), log_every=4)
    train_to_end(spec, Layout(workers=world_size, micro_batch=2, precision="float64"), log_every=4)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
