"""The rows of shards in Ray's object store: they travel to the actors with their shards, and no actor reads the index.

A task names a shard and where its rows are: in which of some objects of tens of thousands of rows each, and at which position. An actor
holds the object of its newest shard, which of rows in columns is memory that the processes of a node share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import ray

from vwl.data.rows import Row, Rows, joined
from vwl.inference.runner import Shard

_ROWS = 2**16
"""Rows in an object; less by less than a shard."""


@dataclass(frozen=True)
class StoredShard:
    """Where the rows of a shard are.

    Attributes:
        number: of the shard.
        block: which object holds its rows.
        first, size: position of its first row in it, and number of rows.
    """

    number: int
    block: int
    first: int
    size: int


class StoredRows:
    """Rows in the object store of the connected cluster; it is sent to actors, which read them."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        """Store the rows of shards."""
        self.shards: list[StoredShard] = []
        self._blocks: list[ray.ObjectRef[Sequence[Row]]] = []
        self._newest: tuple[int, Sequence[Row]] | None = None
        waiting: list[Sequence[Row]] = []
        first = 0
        for shard in shards:
            self.shards.append(StoredShard(shard.number, len(self._blocks), first, len(shard.rows)))
            waiting.append(shard.rows)
            first += len(shard.rows)
            if first >= _ROWS:
                self._blocks.append(ray.put(_joined(waiting)))
                waiting, first = [], 0
        if waiting:
            self._blocks.append(ray.put(_joined(waiting)))

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": [], "_blocks": self._blocks, "_newest": None}

    def read(self, shard: StoredShard) -> Shard:
        """Return a shard with its rows."""
        if self._newest is None or self._newest[0] != shard.block:
            self._newest = shard.block, ray.get(self._blocks[shard.block])
        return Shard(shard.number, self._newest[1][shard.first : shard.first + shard.size])


def _joined(some: Sequence[Sequence[Row]]) -> Sequence[Row]:
    lazy = [rows for rows in some if isinstance(rows, Rows)]
    return joined(*lazy) if len(lazy) == len(some) else tuple(chain.from_iterable(some))
