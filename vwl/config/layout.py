"""How a training is laid out on machines: workers, devices, micro-batches.

The layout changes how long a training takes and never its result: the recipe fixes the global batch, workers take equal shares of it
in micro-batches, and everything that enters a loss is a global sum over a global count.
"""

from dataclasses import dataclass, replace

from vwl.errors import VwlError


@dataclass(frozen=True)
class Layout:
    """Where and in what pieces a training runs.

    Attributes:
        workers: data-parallel workers; with `min_workers` the largest number.
        cpus_per_worker: CPU threads of each worker.
        gpus_per_worker: 0 or 1.
        micro_batch: images that a worker passes through the network at once; none: chosen for the device.
        checkpoint_steps: steps between checkpoints.
        precision: `float32`, `float64` (parity tests) or `bf16` autocast (losses and codebook stay float32).
        compile: use torch.compile.
        min_workers: continue with as few workers as this while the cluster has no more (elastic); none: always `workers`.
    """

    workers: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: int = 0
    micro_batch: int | None = None
    checkpoint_steps: int = 50
    precision: str = "float32"
    compile: bool = False
    min_workers: int | None = None

    def split_batch(self, batch_size: int) -> tuple[int, int]:
        """Return (micro-batch size, micro-batches per step) of each worker for a global batch.

        Raises:
            VwlError: the workers do not divide the batch (elastic: the largest or the smallest number), or the micro-batch not a share.
        """
        for workers in {self.workers, self.min_workers or self.workers}:
            if batch_size % workers:
                good = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
                raise VwlError(f"the recipe's batch of {batch_size} does not divide among {workers} workers; use one of {good}")
        local = batch_size // self.workers
        micro = self.micro_batch_size(batch_size, self.workers)
        if local % micro:
            raise VwlError(f"a worker's share of {local} images does not divide into micro-batches of {micro}")
        return micro, local // micro

    def fit_to_batch(self, batch_size: int) -> "Layout":
        """Return this layout with the largest number of workers, and of minimum workers, that divides a batch."""
        most = max(n for n in range(1, self.workers + 1) if batch_size % n == 0)
        if self.min_workers is None:
            return replace(self, workers=most)
        return replace(self, workers=most, min_workers=max(n for n in range(1, self.min_workers + 1) if batch_size % n == 0))

    def micro_batch_size(self, batch_size: int, world_size: int) -> int:
        """Return the micro-batch size of each of `world_size` workers."""
        if self.micro_batch is not None:
            return self.micro_batch
        local = max(1, batch_size // world_size)
        largest = local if self.gpus_per_worker else 5
        return max(n for n in range(1, min(local, largest) + 1) if local % n == 0)
