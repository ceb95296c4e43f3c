"""The order of training samples: which images are in the batch of a step.

It depends on (seed, step) only, so it is the same for any number of workers and after a resume. `vwl.training.loop` uses it. Up to
`SHUFFLED` samples, the order of an epoch is a shuffled array. Above, the sample at each position is computed, so that an epoch takes the
memory of a few thousand numbers, however many samples there are.
"""

import hashlib
from functools import lru_cache

import numpy as np

SHUFFLED = 2**19
"""Most samples whose order is an array: 4 MiB, shuffled once in an epoch."""
_ROUNDS = 8


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
    first = step_in_epoch * batch_size
    if num_samples > SHUFFLED and num_samples >= batch_size:
        return epoch, _computed_order(seed, epoch, num_samples).at(np.arange(first, first + batch_size))
    rounds = -(-batch_size // num_samples) if num_samples < batch_size else 1
    return epoch, _shuffled_order(seed, epoch, num_samples, rounds)[first : first + batch_size]


@lru_cache(maxsize=2)  # samples are read ahead, perhaps those of the next epoch
def _shuffled_order(seed: int, epoch: int, num_samples: int, rounds: int) -> np.ndarray:
    """Return permutations of the samples, one after the other, (rounds * num_samples,) int64."""
    order = np.concatenate([generator(seed, "order", epoch, r).permutation(num_samples) for r in range(rounds)])
    order.flags.writeable = False
    return order


@lru_cache(maxsize=2)
def _computed_order(seed: int, epoch: int, num_samples: int) -> "Permutation":
    return Permutation(num_samples, generator(seed, "positions", epoch))


class Permutation:
    """A random permutation of 0..n-1 of which any part can be computed, in memory of about sqrt(n) numbers.

    A Feistel network (Luby and Rackoff 1988) on pairs (a, b) with a < A, b < B and A * B just above n, whose round functions are tables of
    random numbers (Black and Rogaway 2002): each round adds to one of the two a number that the other selects, modulo A or B, which can
    be undone. A result of n or more goes through the network again until it is below n ("cycle walking"), which keeps it a permutation.
    """

    def __init__(self, num: int, rng: np.random.Generator) -> None:
        """Draw the round functions of a permutation of `num` numbers."""
        self._num = num
        self._sizes = (side := int(np.ceil(np.sqrt(num))), -(-num // side))
        self._tables = [rng.integers(0, self._sizes[r % 2], self._sizes[1 - r % 2]) for r in range(_ROUNDS)]

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Return the numbers (k,) int64 at positions (k,) of 0..n-1."""
        found = self._once(np.asarray(positions, dtype=np.int64))
        while len(outside := np.flatnonzero(found >= self._num)):
            found[outside] = self._once(found[outside])
        return found

    def _once(self, numbers: np.ndarray) -> np.ndarray:
        pair = list(np.divmod(numbers, self._sizes[1]))
        for r, table in enumerate(self._tables):
            own = r % 2
            pair[own] = (pair[own] + table[pair[1 - own]]) % self._sizes[own]
        return pair[0] * self._sizes[1] + pair[1]


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
