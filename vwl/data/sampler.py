"""The images of each step: a function of (seed, step) only, so that they are the same at any worker count and after resuming."""

import hashlib

import numpy as np


def generator(*key: int | str) -> np.random.Generator:
    """Return a random generator that depends on the key only, e.g. (seed, epoch, image id)."""
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Return the full batches of an epoch (the remaining images, others in each epoch, are left out); at least 1."""
    return max(1, num_samples // batch_size)


def global_batch(seed: int, step: int, num_samples: int, batch_size: int) -> tuple[int, np.ndarray]:
    """Return (epoch, the sample numbers (batch_size,) of a step).

    Each epoch is a permutation; where there are fewer samples than the batch holds, permutations follow each other.
    """
    per_epoch = steps_per_epoch(num_samples, batch_size)
    epoch, position = divmod(step, per_epoch)
    rounds = -(-batch_size // num_samples) if num_samples < batch_size else 1
    order = np.concatenate([generator(seed, "order", epoch, r).permutation(num_samples) for r in range(rounds)])
    return epoch, order[position * batch_size : (position + 1) * batch_size]


def share(batch: np.ndarray, rank: int, world_size: int, micro_batch: int) -> list[np.ndarray]:
    """Return the micro-batches of one worker: a contiguous part of the global batch, in order.

    Where the batch does not divide (an elastic training between its worker counts) the first workers take one image more.
    """
    mine = np.array_split(batch, world_size)[rank]
    return [mine[i : i + micro_batch] for i in range(0, len(mine), micro_batch)]
