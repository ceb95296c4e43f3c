"""The four trainings on Ray Train workers of a cluster, in many layouts: `python -m tests.engine.equality ADDRESS INDEX FOLDER STEPS`.

One group of workers does all trainings of its size one after the other, so that Ray starts few groups.
"""

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import ray.train
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from tests.training.worker import LocalSum
from tests.trainings import BATCH, KINDS, tiny_spec, train_to_end
from vwl.config.layout import Layout
from vwl.engine.session import session
from vwl.training import checkpoint
from vwl.training import classifier as classifier_training
from vwl.training.distributed import rank

LAYOUTS = {
    1: [(1, "float64"), (2, "float64"), (BATCH, "float64"), (BATCH, "float32")],
    2: [(1, "float64"), (2, "float64"), (2, "float32")],
    3: [(1, "float64")],
    4: [(1, "float64"), (1, "float32")],
}
"""Micro-batch and precision by number of workers; three do not share the batch of four equally."""


def folder_of(folder: Path, kind: str, workers: int, micro_batch: int, precision: str) -> Path:
    return folder / f"{kind}-{workers}x{micro_batch}-{precision}"


def worker(config: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    workers, index_path, folder = config["workers"], Path(config["index_path"]), Path(config["folder"])
    for kind in KINDS:
        for micro_batch, precision in LAYOUTS[workers]:
            spec = tiny_spec(kind, index_path, folder_of(folder, kind, workers, micro_batch, precision), config["steps"])
            # three workers are what an elastic training of two to four has now and then
            fewest = 2 if workers == 3 else None
            layout = Layout(workers=4 if fewest else workers, min_workers=fewest, micro_batch=micro_batch, precision=precision)
            task, _ = train_to_end(spec, layout)
            checkpoint.save(spec.folder, f"rank-{rank()}.pt", task.model.state_dict())
    if workers == 2:
        with mock.patch.object(classifier_training, "PendingSum", LocalSum):
            train_to_end(tiny_spec("classifier-M", index_path, folder / "bank-not-summed", config["steps"]), Layout(2, precision="float64"))
    nodes = folder / f"nodes-{workers}"
    nodes.mkdir(exist_ok=True)
    (nodes / f"{rank()}").write_text(ray.get_runtime_context().get_node_id())


def main() -> None:
    address, index_path, folder, steps = sys.argv[1:]
    with session(address):
        for workers in LAYOUTS:
            TorchTrainer(
                worker,
                train_loop_config={"workers": workers, "index_path": index_path, "folder": folder, "steps": int(steps)},
                scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1}),
                run_config=RunConfig(name=f"equality-{workers}", storage_path=f"{folder}/ray"),
            ).fit()


if __name__ == "__main__":
    main()
