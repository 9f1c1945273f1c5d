"""Writing dynamic and differencing VHD images.

A block of the volume is given a place in the file when something of it is first stored: a bitmap
of its sectors, then room for all of them.  In a differencing image a sector whose bit is 0 is the
parent's.  In a dynamic one it would be zero; there all bits of a block are set, because some
readers do not look at them and others go wrong where they are mixed.  The places are given out
under a lock; bytes are written outside of it, so several threads write at once.  The file is
sparse: a new block is all zero, and what is zero in it is never written.

In a differencing image a sector that was stored or marked and differs from the parent has its bit
set; one that is equal to it, or of which nobody spoke, is left to the parent.

Until `finish` the file has neither header nor footer.  Table and header are written and flushed with
the blocks; then the two footers, either of which makes the image whole.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
from array import array
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vsssnap._units import MIB, round_up
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import DeviceReadError, UsageError
from vsssnap.formats._zero import PIECE, data_runs
from vsssnap.formats.base import ImageWriter, WriteOrder
from vsssnap.formats.raw import check_inside
from vsssnap.formats.vhd import structs
from vsssnap.formats.vhd.locators import encode
from vsssnap.formats.vhd.opening import bitmap_size
from vsssnap.formats.vhd.reader import runs
from vsssnap.formats.vhd.structs import FOOTER_SIZE, HEADER_SIZE, SECTOR, UNUSED, Header
from vsssnap.formats.vhd.writer import make_footer, time_stamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vsssnap.formats.storage import Storage
    from vsssnap.formats.vhd.options import VhdOptions
    from vsssnap.formats.vhd.reader import VhdReader
    from vsssnap.metadata import ImageMetadata

_ALIGNMENT: Final = 4096  # bytes: of the data of a block, as Windows has it since 8
# Bytes that a byte of a bitmap stands for.  A bit a sector would be finer, but libvhdi, on which
# many programs rest, reads zeros where the parent's sectors begin inside a byte.
_GRAIN: Final = 8 * SECTOR
_STRIPES: Final = 16  # locks for the bitmaps, by block
_ZEROS: Final = bytes(MIB)
_UNSAID: Final = frozenset({ExtentKind.HOLE, ExtentKind.EXCLUDED, ExtentKind.UNREADABLE})

Encoded = tuple[memoryview, int, list[tuple[int, int]]]


class SparseWriter(ImageWriter):
    """Writes a dynamic image, or a differencing one if there is a parent; see the module.

    What is stored begins and ends between sectors; marks may begin and end anywhere.
    """

    write_order = WriteOrder.ANY

    def __init__(self, storage: Storage, size: int, options: VhdOptions, parent: VhdReader | None) -> None:
        """Begin an image; ``parent`` stays its owner's and is read until `finish`."""
        self._storage = storage
        self.size = size
        self.unit = self._block = options.block_size
        self._parent = parent
        self._stored = 0  # bytes of data
        disk_type = structs.DYNAMIC if parent is None else structs.DIFFERENCING
        self._footer = make_footer(size, disk_type, options.identity, options.created)
        self._table = array("I", [UNUSED]) * -(-size // self._block)
        self._bitmap = bitmap_size(self._block)
        self._place(round_up(FOOTER_SIZE + HEADER_SIZE + 4 * len(self._table), SECTOR))
        self._lock = threading.Lock()  # of _table, _next and _unsaid
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self._unsaid = dict.fromkeys(_UNSAID, 0)

    def _place(self, end_of_table: int) -> None:
        """Lay out the file: locators behind the table, blocks behind them."""
        parent = self._parent.path if self._parent is not None else ""
        self._name, self._locators, self._texts = encode(parent, self._storage.name, end_of_table)
        first = end_of_table + len(self._texts)
        self._stride = round_up(self._bitmap + self._block, _ALIGNMENT)
        self._next = round_up(first + self._bitmap, _ALIGNMENT) - self._bitmap
        # A full image of small blocks would not fit below the last sector that the table can name.
        if self._next + len(self._table) * self._stride > UNUSED * SECTOR:
            self._stride, self._next = self._bitmap + self._block, first

    # Storing.

    def encode(self, data: memoryview, offset: int, /) -> Encoded:
        """Find what is not zero or, in a child, what differs from the parent."""
        check_inside(len(data), offset, self.size)
        if offset % SECTOR or len(data) % SECTOR:
            raise UsageError(
                f"{len(data)} bytes at {offset} are no whole sectors of {SECTOR} bytes",
                hint="write whole sectors",
            )
        if self._parent is None:
            return data, offset, list(data_runs(data))
        return data, offset, list(self._changes(data, offset))

    def _changes(self, data: memoryview, offset: int) -> Iterator[tuple[int, int]]:
        """Where ``data`` differs from the parent, in steps of `_GRAIN`; ranges may touch."""
        assert self._parent is not None  # noqa: S101 - encode asks first
        try:
            below = self._parent.pread(len(data), offset)
        except DeviceReadError:  # what the parent has lost is never left to it
            yield 0, len(data)
            return
        below = below.ljust(len(data), b"\0")
        for at in range(0, len(data), PIECE):
            piece, old = bytes(data[at : at + PIECE]), below[at : at + PIECE]
            if piece == old:
                continue
            for low in range(0, len(piece), _GRAIN):
                if piece[low : low + _GRAIN] != old[low : low + _GRAIN]:
                    yield at + low, at + min(low + _GRAIN, len(piece))

    def store(self, encoded: Encoded, /) -> None:
        """Put down what is to be stored; sectors that were stored before are written again."""
        data, offset, found = encoded
        end = offset + len(data)
        with self._lock:
            self._stored += sum(high - low for low, high in found)
        index = 0
        for first, stop in self._blocks(offset, end):
            wanted = 0
            while index < len(found):
                low, high = max(found[index][0] + offset, first), min(found[index][1] + offset, stop)
                if low < high:
                    wanted |= self._mask(low, high)
                if found[index][1] + offset > stop:
                    break
                index += 1
            for low, high in self._claim(first, stop, wanted):
                self._storage.pwrite(data[low - offset : high - offset], self._at(low))

    def _blocks(self, offset: int, end: int) -> Iterator[tuple[int, int]]:
        while offset < end:
            stop = min(end, offset - offset % self._block + self._block)
            yield offset, stop
            offset = stop

    def _mask(self, low: int, high: int) -> int:
        """The bits of the sectors of a range inside one block, as a number of all of a bitmap's bits."""
        base = low - low % self._block
        first, last = (low - base) // SECTOR, -(-(high - base) // SECTOR)
        return ((1 << (last - first)) - 1) << (8 * self._bitmap - last)

    def _at(self, offset: int) -> int:
        """Where a byte of a block that has a place lies in the file."""
        block, within = divmod(offset, self._block)
        return self._table[block] * SECTOR + self._bitmap + within

    def _claim(self, first: int, stop: int, wanted: int) -> list[tuple[int, int]]:
        """Give sectors of one block their place and set their bits.

        Args:
            first: First byte of a range of whole sectors inside the block.
            stop: Its end.
            wanted: Bits of the sectors in it that must be in the file.

        Returns:
            What to write of the range: those sectors, and those that had a bit before.
        """
        block = first // self._block
        base = block * self._block
        with self._stripes[block % _STRIPES]:
            there = self._bits(block)
            if wanted & ~there:
                with self._lock:
                    if self._table[block] == UNUSED:
                        self._table[block] = self._next // SECTOR
                        self._next += self._stride
                now = there | wanted if self._parent is not None else self._mask(base, base + self._block)
                bits = now.to_bytes(self._bitmap, "big")
                self._storage.pwrite(bits, self._table[block] * SECTOR)
            wanted |= there & self._mask(first, stop)
        if not wanted:
            return []
        return [
            (base + low * SECTOR, base + high * SECTOR)
            for low, high, present in runs(
                wanted.to_bytes(self._bitmap, "big"), (first - base) // SECTOR, (stop - base) // SECTOR
            )
            if present
        ]

    def _bits(self, block: int) -> int:
        entry = self._table[block]
        if entry == UNUSED:
            return 0
        return int.from_bytes(self._storage.pread(self._bitmap, entry * SECTOR), "big")

    # Zeros.

    def mark(self, extent: Extent, /) -> None:
        """Count what a VHD cannot say, and make the range zero."""
        check_inside(extent.length, extent.offset, self.size)
        if extent.kind in _UNSAID:
            with self._lock:
                self._unsaid[extent.kind] += extent.length
        first, end = extent.offset, extent.end
        low, high = round_up(first, SECTOR), end - end % SECTOR
        if low > high:  # inside one sector
            self._zero_part(first, end)
            return
        self._zero_part(first, low)
        self._zero_part(high, end)
        self._zero(low, high)

    def _zero_part(self, first: int, end: int) -> None:
        """Zero a part of a sector; what else is in it stays."""
        if first >= end:
            return
        at = first - first % SECTOR
        sector = bytearray(SECTOR)
        bits = self._bits(at // self._block)
        if bits & self._mask(at, at + SECTOR):
            if self._at(at) + SECTOR <= self._storage.size:  # else zeros that were never written
                self._storage.preadinto(memoryview(sector), self._at(at))
        elif self._parent is not None:
            self._parent.preadinto(sector, at)
        sector[first - at : end - at] = bytes(end - first)
        self.store(self.encode(memoryview(sector), at))

    def _zero(self, first: int, end: int) -> None:
        """Make a range of whole sectors zero."""
        if self._parent is not None:
            for extent in self._parent.extents(first, end - first):
                if not extent.reads_as_zero:
                    low = extent.offset - extent.offset % SECTOR
                    self._hide(max(low, first), min(round_up(extent.end, SECTOR), end))
        for block in range(first // self._block, -(-end // self._block)):
            if self._table[block] != UNUSED:
                base = block * self._block
                self._clear(max(first, base), min(end, base + self._block), 0)

    def _hide(self, first: int, end: int) -> None:
        """Store zeros over what the parent has."""
        for low, stop in self._blocks(first, end):
            if self._table[low // self._block] == UNUSED:
                self._claim(low, stop, self._mask(low, stop))  # a new block is zero already
            else:
                self._clear(low, stop, self._mask(low, stop))

    def _clear(self, first: int, stop: int, wanted: int) -> None:
        for low, high in self._claim(first, stop, wanted):
            for at in range(low, high, MIB):
                self._storage.pwrite(memoryview(_ZEROS)[: min(MIB, high - at)], self._at(at))

    # The end.

    def finish(self, metadata: ImageMetadata, /) -> None:
        """See `ImageWriter`; a VHD has no room for ``metadata``."""
        self._storage.pwrite(self._header() + self._packed_table() + self._texts, FOOTER_SIZE)
        self._storage.flush()
        self._storage.pwrite(self._footer, self._next)
        self._storage.pwrite(self._footer, 0)
        self._storage.flush()

    def _packed_table(self) -> bytes:
        table = array("I", self._table)
        if sys.byteorder == "little":
            table.byteswap()
        data = table.tobytes()
        return data.ljust(round_up(HEADER_SIZE + len(data), SECTOR) - HEADER_SIZE, b"\xff")

    def _header(self) -> bytes:
        parent = self._parent
        header = Header(
            cookie=structs.HEADER_COOKIE,
            data_offset=structs.NO_OFFSET,
            table_offset=FOOTER_SIZE + HEADER_SIZE,
            version=structs.VERSION,
            max_entries=len(self._table),
            block_size=self._block,
            checksum=0,
            parent_identity=parent.identity if parent is not None else bytes(16),
            parent_time_stamp=_modified(parent) if parent is not None else 0,
            reserved_1=0,
            parent_name=self._name,
            locators=self._locators,
            reserved_2=bytes(256),
        )
        total = structs.checksum(header.pack(), Header.OFFSETS["checksum"])
        return dataclasses.replace(header, checksum=total).pack()

    def close(self) -> None:
        """See `ImageWriter`."""
        self._storage.close()

    def changed(self) -> int | None:
        """See `ImageWriter`."""
        return self._stored if self._parent is not None else None

    def flattened(self) -> Mapping[str, int]:
        """See `ImageWriter`."""
        return {str(kind): count for kind, count in sorted(self._unsaid.items()) if count}


def _modified(parent: VhdReader) -> int:
    """When the parent's file was last changed or, where it has none, when it says it was made."""
    with suppress(OSError, ValueError):
        return time_stamp(Path(parent.path).stat().st_mtime)
    return parent.layout.footer.time_stamp
