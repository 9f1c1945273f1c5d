"""The L1 and L2 tables of an image under way.

L2 tables lie in the file from the first time that one is touched; those used last are kept in
memory, so memory does not grow with the volume.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from vsssnap.formats.qcow2.tables import packed, words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.formats.qcow2.allocation import Allocator
    from vsssnap.formats.storage import Storage

_KEPT: Final = 16 << 20  # bytes


class MapWriter:
    """Tables being filled; for one thread at a time."""

    def __init__(
        self,
        storage: Storage,
        allocator: Allocator,
        cluster_size: int,
        size: int,
    ) -> None:
        """Begin with nothing mapped.

        Args:
            storage: The file, readable.
            allocator: Where tables come from.
            cluster_size: Bytes.
            size: Bytes of the virtual disk.
        """
        self._storage = storage
        self._allocator = allocator
        self._cluster = cluster_size
        self.per_table = cluster_size // 8
        clusters = -(-size // cluster_size)
        self.l1 = array("Q", bytes(8 * -(-clusters // self.per_table)))
        # A disk of no bytes has no table, at 0: so does qemu-img.
        self.l1_offset = allocator.take(-(-len(self.l1) * 8 // cluster_size)) if self.l1 else 0
        self._tables: OrderedDict[int, array[int]] = OrderedDict()
        self._most = max(4, _KEPT // cluster_size)

    def spans(self, first: int, last: int, *, make: bool) -> Iterator[tuple[int, array[int], int, int]]:
        """The tables of clusters ``first`` to ``last`` (not included), to be changed before the next step.

        Args:
            first: Cluster.
            last: Cluster behind the last one.
            make: Whether tables that are not there yet are made, or passed over.

        Yields:
            ``(number of the table's first cluster, table, from, to)``: indexes of the table.
        """
        each = self.per_table
        for number in range(first // each, -(-last // each)):
            if make or self.l1[number]:
                base = number * each
                yield base, self._table(number), max(0, first - base), min(each, last - base)

    def _table(self, number: int) -> array[int]:
        table = self._tables.get(number)
        if table is not None:
            self._tables.move_to_end(number)
            return table
        if self.l1[number]:
            table = words(self._storage.pread(self._cluster, self.l1[number]))
        else:
            table = array("Q", bytes(self._cluster))
            self.l1[number] = self._allocator.take(1)
        self._tables[number] = table
        if len(self._tables) > self._most:
            self._write(*self._tables.popitem(last=False))
        return table

    def _write(self, number: int, table: array[int]) -> None:
        self._storage.pwrite(packed(table), self.l1[number])

    def finish(self, copied: int) -> None:
        """Write what is in memory; ``copied`` is the flag of L1 entries."""
        for number, table in sorted(self._tables.items()):
            self._write(number, table)
        self._tables.clear()
        entries = array("Q", [entry | copied if entry else 0 for entry in self.l1])
        self._storage.pwrite(packed(entries), self.l1_offset)
