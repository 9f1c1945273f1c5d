"""Host clusters of an image under way, handed out in rising order and counted exactly.

Nothing is ever freed, so a refcount block is final when the clusters that it counts have all been
handed out; it is written then, and memory holds the counts of one block's clusters alone.

Source: QEMU, docs/interop/qcow2.txt, section "Host cluster management".
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Final

from vsssnap.formats.qcow2.tables import packed

if TYPE_CHECKING:
    from vsssnap.formats.storage import Storage

_MOST: Final = 0xFFFF  # what a refcount of 16 bits holds


class Allocator:
    """Hands out clusters; for one thread at a time."""

    def __init__(self, storage: Storage, cluster_size: int) -> None:
        self._storage = storage
        self._cluster = cluster_size
        self._per_block = cluster_size // 2
        self._next = 0  # cluster
        self._counts = array("H")  # of the clusters behind those of `_blocks`
        self._blocks = array("Q")
        self._pack_at = self._pack_end = 0  # bytes: the rest of the clusters that hold compressed ones

    def take(self, count: int) -> int:
        """Some clusters in a row; gives the offset of the first."""
        offset = self._extend(count, 1)
        self._write_full_blocks()
        return offset

    def pack(self, length: int) -> int:
        """Room for a compressed cluster, right behind the one before if that can be."""
        size = self._cluster
        at, end = self._pack_at, self._pack_end
        base = len(self._blocks) * self._per_block
        fits = at + length <= end or end == self._next * size
        if not (at < end and fits and self._counts[at // size - base] < _MOST):
            at = end = self._next * size
        missing = -(-(at + length - end) // size)
        if missing > 0:
            self._extend(missing, 0)
            end += missing * size
        for cluster in range(at // size, (at + length - 1) // size + 1):
            self._counts[cluster - base] += 1
        self._pack_at, self._pack_end = at + length, end
        self._write_full_blocks()
        return at

    def _extend(self, count: int, value: int) -> int:
        offset = self._next * self._cluster
        self._counts.extend(array("H", [value]) * count)
        self._next += count
        return offset

    def _write_full_blocks(self) -> None:
        while len(self._counts) > self._per_block:
            self._pack_at = self._pack_end = 0  # its cluster's count may be written now
            block = self._counts[: self._per_block]
            del self._counts[: self._per_block]
            self._blocks.append(self._extend(1, 1))
            self._storage.pwrite(_packed_counts(block), self._blocks[-1])

    def finish(self) -> tuple[int, int, int]:
        """Write the blocks that are left and the refcount table.

        Returns:
            Offset and clusters of the table, and the bytes of the file.
        """
        size = self._cluster
        blocks = table = 0
        while True:  # they count themselves; both only grow
            total = -(-(self._next + blocks + table) // self._per_block)
            now = (total - len(self._blocks), -(-total * 8 // size))
            if now == (blocks, table):
                break
            blocks, table = now
        first = self._extend(blocks + table, 1)
        self._counts.extend(array("H", bytes(2 * (blocks * self._per_block - len(self._counts)))))
        self._storage.pwrite(_packed_counts(self._counts), first)
        self._blocks.extend(range(first, first + blocks * size, size))
        offset = first + blocks * size
        self._storage.pwrite(packed(self._blocks).ljust(table * size, b"\0"), offset)
        return offset, table, self._next * size


def _packed_counts(counts: array[int]) -> bytes:
    if sys.byteorder == "little":
        counts = counts[:]
        counts.byteswap()
    return counts.tobytes()
