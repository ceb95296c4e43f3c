"""Lookup of image ids without a dictionary of all of them: sorted hashes and the positions of their rows, 12 bytes a row.

The arrays may be mapped from a file. Two ids with the same hash are told apart by the ids themselves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_START, _FACTOR = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class IdLookup:
    """Hashes of image ids in ascending order, and the positions of their rows.

    Attributes:
        hashes: (n,) uint64.
        positions: (n,) int32 or int64.
    """

    hashes: np.ndarray
    positions: np.ndarray

    @classmethod
    def of(cls, hashes: np.ndarray) -> "IdLookup":
        """Return the lookup of the hashes (n,) uint64 of rows in their order; rows with equal hashes keep it."""
        order = np.argsort(hashes, kind="stable")
        return cls(hashes[order], order.astype(np.int32 if len(order) < 2**31 else np.int64))

    def find(self, image_ids: Sequence[str], stored: Callable[[np.ndarray], pa.Array]) -> np.ndarray:
        """Return the position (n,) int64 of the row of each image id, -1 where there is none.

        Args:
            image_ids: the ids.
            stored: returns the ids (binary) of the rows at some positions.
        """
        wanted = pa.array([image_id.encode("utf-8", "surrogatepass") for image_id in image_ids], pa.binary())
        hashes = id_hashes(wanted)
        at = np.searchsorted(self.hashes, hashes)
        found, left = np.full(len(wanted), -1, np.int64), np.arange(len(wanted))
        while True:
            left = left[at[left] < len(self.hashes)]
            left = left[self.hashes[at[left]] == hashes[left]]
            if not len(left):
                return found
            positions = self.positions[at[left]].astype(np.int64)
            equal = pc.equal(stored(positions), wanted.take(pa.array(left))).to_numpy(zero_copy_only=False)
            found[left[equal]] = positions[equal]
            left = left[~equal]
            at[left] += 1

    def same_hash(self) -> np.ndarray:
        """Return (k, 2) int64: first and last but one index of each run of equal hashes of two or more rows."""
        equal = np.flatnonzero(self.hashes[1:] == self.hashes[:-1])
        if not len(equal):
            return np.zeros((0, 2), np.int64)
        breaks = np.flatnonzero(np.diff(equal) > 1)
        return np.stack([equal[np.r_[0, breaks + 1]], equal[np.r_[breaks, len(equal) - 1]] + 2], axis=1)


def id_hashes(ids: pa.Array) -> np.ndarray:
    """Return a hash (n,) uint64 of each text or binary value; of a null, that of nothing."""
    offsets, data = offsets_and_bytes(ids)
    lengths = np.diff(offsets)
    hashes = np.full(len(lengths), _START)
    left = np.arange(len(lengths))
    for k in range(int(lengths.max(initial=0))):
        left = left[lengths[left] > k]
        hashes[left] = (hashes[left] ^ data[offsets[left] + k]) * _FACTOR  # FNV-1a
    hashes ^= hashes >> np.uint64(32)
    return hashes * _MIX


def offsets_and_bytes(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets (n + 1,) int64 and the bytes (uint8) of a string or binary array; those of its first value start at 0."""
    _, offset_buffer, data_buffer = array.buffers()
    if not len(array):
        return np.zeros(1, np.int64), np.zeros(0, np.uint8)
    offsets = np.frombuffer(offset_buffer, np.int32)[array.offset : array.offset + len(array) + 1].astype(np.int64)
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.zeros(0, np.uint8)
    return offsets - offsets[0], data[offsets[0] : offsets[-1]]


def text_bytes(array: pa.Array) -> pa.Array:
    """Return a string array as a binary one."""
    return array.cast(pa.binary())
