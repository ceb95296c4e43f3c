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
        workers: number of data-parallel workers; with `min_workers` the most that are used.
        cpus_per_worker: CPU threads of each.
        gpus_per_worker: 0 or 1.
        micro_batch: images a worker puts through the network at once; none: chosen for the device.
        loader_threads: threads that read and augment photographs, per worker.
        checkpoint_steps: steps between checkpoints.
        precision: `float32`, `float64` (parity tests) or `bf16` autocast (losses and codebook stay float32).
        compile: use torch.compile.
        min_workers: go on with as few workers as this while the cluster has no more (elastic); none: always `workers`.
    """

    workers: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: int = 0
    micro_batch: int | None = None
    loader_threads: int = 2
    checkpoint_steps: int = 50
    precision: str = "float32"
    compile: bool = False
    min_workers: int | None = None

    def pieces(self, batch_size: int) -> tuple[int, int]:
        """Return (micro-batch, micro-batches a step) of each of `workers` for a global batch.

        Raises:
            VwlError: the batch does not divide by the workers (elastic: by the most or the fewest), or a share by the micro-batch.
        """
        for workers in {self.workers, self.min_workers or self.workers}:
            if batch_size % workers:
                good = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
                raise VwlError(f"the recipe's batch of {batch_size} cannot be shared by {workers} workers; use one of {good}")
        local = batch_size // self.workers
        micro = self.images_at_once(batch_size, self.workers)
        if local % micro:
            raise VwlError(f"a worker's share of {local} images does not divide into micro-batches of {micro}")
        return micro, local // micro

    def fitting(self, batch_size: int) -> "Layout":
        """Return this layout with as many of its workers as can share a batch equally; an elastic one with fewer at its ends."""
        most = max(n for n in range(1, self.workers + 1) if batch_size % n == 0)
        if self.min_workers is None:
            return replace(self, workers=most)
        return replace(self, workers=most, min_workers=max(n for n in range(1, self.min_workers + 1) if batch_size % n == 0))

    def images_at_once(self, batch_size: int, world_size: int) -> int:
        """Return the micro-batch of workers of which there are `world_size` now."""
        if self.micro_batch is not None:
            return self.micro_batch
        local = max(1, batch_size // world_size)
        largest = local if self.gpus_per_worker else 5
        return max(n for n in range(1, min(local, largest) + 1) if local % n == 0)
