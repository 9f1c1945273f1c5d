"""Writing monolithic sparse VMDK images.

The file is laid out as others write it: header, descriptor, the redundant directory with its
tables, the directory with its tables, then grains.  All tables have their place from the start (a
128th of a thousandth of the volume, holes while they are empty); a grain is given the next place in
the file when something of it is first stored.  Places are given out under a lock, bytes are
written outside of it.  Tables that are filled are kept until there are many, then written twice.

Until `finish` the first sector is zero.  All but the header is flushed first; the header makes the
image whole.
"""

from __future__ import annotations

import sys
import threading
from array import array
from collections import OrderedDict
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from vsssnap._units import GIB, MIB, round_up
from vsssnap.formats._zero import is_zero
from vsssnap.formats.base import ImageWriter, WriteOrder
from vsssnap.formats.raw import check_inside
from vsssnap.formats.vmdk import descriptor, structs
from vsssnap.formats.vmdk.stream import DESCRIPTOR_SECTORS, UNSAID, check_size, pack_entries
from vsssnap.formats.vmdk.structs import SECTOR, TABLE_ENTRIES, SparseHeader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vsssnap.blocks.extent import Extent
    from vsssnap.formats.storage import Storage
    from vsssnap.formats.vmdk.options import VmdkOptions
    from vsssnap.metadata import ImageMetadata

MAX_SIZE: Final = 2032 * GIB  # bytes: full, with the tables of the smallest grains, below sector 2**32
_KEPT: Final = 1024  # tables in memory: 2 MiB, 32 GiB of the volume in common grains
_TABLE: Final = 4 * TABLE_ENTRIES  # bytes
_ZEROS: Final = bytes(MIB)


class SparseWriter(ImageWriter):
    """Writes a monolithicSparse image in any order; any range of bytes."""

    write_order = WriteOrder.ANY

    def __init__(self, storage: Storage, size: int, options: VmdkOptions) -> None:
        """Lay out the file."""
        check_size(size, MAX_SIZE, "monolithicSparse")
        self._storage = storage
        self.size = size
        self._grain = options.grain_size
        self.unit = max(MIB, self._grain)
        name = storage.name.replace("\\", "/").rpartition("/")[2]
        self._text = descriptor.make("monolithicSparse", options.content_id(), name, size, options.adapter)
        self._count = -(-size // (self._grain * TABLE_ENTRIES))  # of tables
        directory = round_up(4 * self._count, SECTOR)
        self._redundant = SECTOR * (1 + DESCRIPTOR_SECTORS)
        self._directory = self._redundant + directory + self._count * _TABLE
        end = self._directory + directory + self._count * _TABLE
        self._overhead = self._next = round_up(end, max(self._grain, 64 << 10))
        self._tables: OrderedDict[int, array[int]] = OrderedDict()
        self._written: set[int] = set()  # numbers of tables that are in the file
        self._lock = threading.Lock()  # of _tables, _written, _next and _unsaid
        self._unsaid = dict.fromkeys(UNSAID, 0)

    # Storing.

    def encode(self, data: memoryview, offset: int, /) -> tuple[memoryview, int, list[bool]]:
        """Find the parts of grains that are not zero."""
        check_inside(len(data), offset, self.size)
        return data, offset, [not is_zero(data[low:high]) for low, high in self._cut(offset, len(data))]

    def _cut(self, offset: int, length: int) -> list[tuple[int, int]]:
        """The parts of a block that lie in one grain each, from its start."""
        first = -offset % self._grain
        bounds = [0, *range(first or self._grain, length, self._grain), length]
        return list(pairwise(bounds))

    def store(self, encoded: tuple[memoryview, int, list[bool]], /) -> None:
        """Write what is not zero, and zeros where something was written before."""
        data, offset, wanted = encoded
        if not data:
            return
        cuts = self._cut(offset, len(data))
        with self._lock:
            places = [
                self._place((offset + low) // self._grain, allocate=want)
                for (low, _), want in zip(cuts, wanted, strict=True)
            ]
        start = stop = at = 0  # a run of the block, and its place in the file
        for (low, high), place in zip(cuts, places, strict=True):
            where = place + (offset + low) % self._grain
            if place and stop == low and start < stop and where == at + low - start:
                stop = high
                continue
            if start < stop:
                self._storage.pwrite(data[start:stop], at)
            start, stop, at = (low, high, where) if place else (high, high, 0)
        if start < stop:
            self._storage.pwrite(data[start:stop], at)

    def _place(self, grain: int, *, allocate: bool) -> int:
        """Where a grain lies in the file, 0 if nowhere; under the lock."""
        number, index = divmod(grain, TABLE_ENTRIES)
        table = self._tables.get(number)
        if table is None:
            if number not in self._written and not allocate:
                return 0
            table = self._load(number)
        else:
            self._tables.move_to_end(number)
        if not table[index] and allocate:
            table[index] = self._next // SECTOR
            self._next += self._grain
        return table[index] * SECTOR

    def _load(self, number: int) -> array[int]:
        """Have a table in memory; the one that was not used for longest is written out for it."""
        if len(self._tables) >= _KEPT:
            self._write_table(*self._tables.popitem(last=False))
        table = array("I", bytes(_TABLE))
        if number in self._written:
            table = array("I", self._storage.pread(_TABLE, self._table_at(self._directory, number)))
            if sys.byteorder == "big":
                table.byteswap()
        self._tables[number] = table
        return table

    def _table_at(self, directory: int, number: int) -> int:
        return directory + round_up(4 * self._count, SECTOR) + number * _TABLE

    def _write_table(self, number: int, table: array[int]) -> None:
        data = pack_entries(table)
        for directory in (self._redundant, self._directory):
            self._storage.pwrite(data, self._table_at(directory, number))
        self._written.add(number)

    def mark(self, extent: Extent, /) -> None:
        """Count what a VMDK cannot say; zeros are there already, unless something was written."""
        check_inside(extent.length, extent.offset, self.size)
        if extent.kind in UNSAID:
            with self._lock:
                self._unsaid[extent.kind] += extent.length
        span = self._grain * TABLE_ENTRIES
        for number in range(extent.offset // span, -(-extent.end // span)):
            if number in self._tables or number in self._written:
                first, end = max(extent.offset, number * span), min(extent.end, (number + 1) * span)
                for at in range(first, end, MIB):
                    zeros = memoryview(_ZEROS)[: min(MIB, end - at)]
                    self.store((zeros, at, [False] * len(self._cut(at, len(zeros)))))

    # The end.

    def finish(self, metadata: ImageMetadata, /) -> None:
        """See `ImageWriter`; a VMDK has no room for ``metadata``."""
        while self._tables:
            self._write_table(*self._tables.popitem())
        for directory in (self._redundant, self._directory):
            first = self._table_at(directory, 0) // SECTOR
            entries = array("I", range(first, first + self._count * (_TABLE // SECTOR), _TABLE // SECTOR))
            self._storage.pwrite(pack_entries(entries), directory)
        self._storage.pwrite(self._text.ljust(DESCRIPTOR_SECTORS * SECTOR, b"\0"), SECTOR)
        if self._storage.size < self._next:
            self._storage.truncate(self._next)
        self._storage.flush()
        self._storage.pwrite(self._header(), 0)
        self._storage.flush()

    def _header(self) -> bytes:
        header = SparseHeader(
            magic=structs.MAGIC,
            version=1,
            flags=structs.CHECK_NEWLINES | structs.REDUNDANT,
            capacity=self.size // SECTOR,
            grain_size=self._grain // SECTOR,
            descriptor_offset=1,
            descriptor_size=DESCRIPTOR_SECTORS,
            table_entries=TABLE_ENTRIES,
            redundant_offset=self._redundant // SECTOR,
            directory_offset=self._directory // SECTOR,
            overhead=self._overhead // SECTOR,
            unclean=0,
            newlines=structs.NEWLINES,
            compression=0,
        )
        return header.pack().ljust(SECTOR, b"\0")

    def close(self) -> None:
        """See `ImageWriter`."""
        self._storage.close()

    def flattened(self) -> Mapping[str, int]:
        """See `ImageWriter`."""
        return {str(kind): count for kind, count in sorted(self._unsaid.items()) if count}
