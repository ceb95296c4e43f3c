"""How a training is distributed: workers, devices, micro-batches, loader processes, arithmetic of the GPU.

The layout changes how long a training takes and not its result: the recipe fixes the global batch, each worker takes an equal share of
it in micro-batches, and every loss is a global sum divided by a global count. Only `precision`, `tf32`, `cudnn` and `gradient_reduce`
change rounding.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from vwl.config.node_labels import Selector
from vwl.errors import VwlError

Tf32 = Literal["none", "convolutions", "all"]
Cudnn = Literal["heuristics", "benchmark", "deterministic"]
GradientReduce = Literal["float32", "bf16"]
_MOST_LOADERS = 8
"""Loader processes of a GPU worker that are started unless another number is given."""
_GPU_SYNC_STEPS = 10


@dataclass(frozen=True)
class Layout:
    """Workers, devices and micro-batches of a training.

    Attributes:
        workers: number of data-parallel workers; with `min_workers`, their largest number.
        cpus_per_worker: CPU threads of each worker.
        gpus_per_worker: 0 or 1.
        micro_batch: images of one forward and backward pass of a worker; None: chosen for the device.
        checkpoint_steps: steps between checkpoints.
        precision: `float32`, `float64` (parity tests) or `bf16` autocast (losses and codebook stay float32).
        compile: use torch.compile.
        min_workers: elastic training: go on with this many workers or more while the cluster has fewer than `workers`; None: not elastic.
        trainers_on: labels of the nodes of a cluster where training workers may run; empty: all.
        inference_on: labels of the nodes where inference may run.
        loader_workers: processes of each worker that read and augment images; 0: two threads. None: chosen for the device.
        sync_steps: steps after which losses and stop requests are read on the host, which waits for the GPU; None: chosen for the device.
        tf32: which float32 arithmetic of a GPU is done in TF32: `none`, `convolutions` (PyTorch's default) or `all`, matrix products too.
        cudnn: how cuDNN chooses algorithms: `heuristics` (PyTorch's default), `benchmark` (times them first) or `deterministic`.
        gradient_reduce: in what the gradients of workers are added up: `float32`, or `bf16`, which halves the traffic.
    """

    workers: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: int = 0
    micro_batch: int | None = None
    checkpoint_steps: int = 50
    precision: str = "float32"
    compile: bool = False
    min_workers: int | None = None
    trainers_on: Selector = field(default_factory=dict)
    inference_on: Selector = field(default_factory=dict)
    loader_workers: int | None = None
    sync_steps: int | None = None
    tf32: Tf32 = "convolutions"
    cudnn: Cudnn = "heuristics"
    gradient_reduce: GradientReduce = "float32"

    @property
    def num_loaders(self) -> int:
        """Loader processes of each worker: as set; else none on CPUs, which the network needs, and beside a GPU one a CPU but one."""
        if self.loader_workers is not None:
            return self.loader_workers
        return min(self.cpus_per_worker - 1, _MOST_LOADERS) if self.gpus_per_worker else 0

    @property
    def steps_between_reads(self) -> int:
        """Steps after which losses are read: as set; else each step on CPUs, where it costs nothing, and ten beside a GPU."""
        return self.sync_steps or (_GPU_SYNC_STEPS if self.gpus_per_worker else 1)

    def split_batch(self, batch_size: int) -> tuple[int, int]:
        """Return (micro-batch size, micro-batches per step) of each worker for a global batch.

        Raises:
            VwlError: the batch is not divisible by `workers` (or by `min_workers`), or a worker's share of it not by the micro-batch.
        """
        for workers in {self.workers, self.min_workers or self.workers}:
            if batch_size % workers:
                good = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
                raise VwlError(f"the recipe's batch of {batch_size} does not divide among {workers} workers; use one of {good}")
        local = batch_size // self.workers
        micro = self.micro_batch_size(batch_size, self.workers)
        if local % micro:
            raise VwlError(f"a worker's share of {local} images does not divide into micro-batches of {micro}; choose a divisor of {local}")
        return micro, local // micro

    def fit_to_batch(self, batch_size: int) -> "Layout":
        """Return this layout with `workers` and `min_workers` lowered to the nearest divisors of the batch size."""
        most = max(n for n in range(1, self.workers + 1) if batch_size % n == 0)
        if self.min_workers is None:
            return replace(self, workers=most)
        return replace(self, workers=most, min_workers=max(n for n in range(1, self.min_workers + 1) if batch_size % n == 0))

    def micro_batch_size(self, batch_size: int, world_size: int) -> int:
        """Return the micro-batch size of each of `world_size` workers: as set, or a divisor of a worker's share (on CPUs at most 5)."""
        if self.micro_batch is not None:
            return self.micro_batch
        local = max(1, batch_size // world_size)
        largest = local if self.gpus_per_worker else 5
        return max(n for n in range(1, min(local, largest) + 1) if local % n == 0)
