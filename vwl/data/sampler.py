"""The order of training samples: which images are in the batch of a step.

It depends on (seed, step) only, so it is the same for any number of workers and after a resume. `vwl.training.loop` uses it.
"""

import hashlib

import numpy as np


def generator(*key: int | str) -> np.random.Generator:
    """Return a random generator seeded by the key, e.g. (seed, epoch, image id)."""
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Return the number of full batches in an epoch, at least 1. The samples left over differ from epoch to epoch."""
    return max(1, num_samples // batch_size)


def global_batch(seed: int, step: int, num_samples: int, batch_size: int) -> tuple[int, np.ndarray]:
    """Return the epoch of a step and the indices of its samples.

    An epoch is a random permutation of the samples. If there are fewer samples than a batch holds, a batch joins several permutations.

    Args:
        seed: seed of the training.
        step: number of the step, from 0.
        num_samples: number of training samples.
        batch_size: samples in a step, over all workers.

    Returns:
        The epoch, from 0, and (batch_size,) int64.
    """
    per_epoch = steps_per_epoch(num_samples, batch_size)
    epoch, step_in_epoch = divmod(step, per_epoch)
    rounds = -(-batch_size // num_samples) if num_samples < batch_size else 1
    order = np.concatenate([generator(seed, "order", epoch, r).permutation(num_samples) for r in range(rounds)])
    return epoch, order[step_in_epoch * batch_size : (step_in_epoch + 1) * batch_size]


def share(batch: np.ndarray, rank: int, world_size: int, micro_batch: int) -> list[np.ndarray]:
    """Return one worker's part of the global batch, split into micro-batches.

    The part is contiguous. If the batch size is not a multiple of `world_size`, the first workers get one sample more.

    Args:
        batch: (batch_size,) sample indices of the step.
        rank: number of the worker, from 0.
        world_size: number of workers.
        micro_batch: largest size of a micro-batch.
    """
    part = np.array_split(batch, world_size)[rank]
    return [part[i : i + micro_batch] for i in range(0, len(part), micro_batch)]
