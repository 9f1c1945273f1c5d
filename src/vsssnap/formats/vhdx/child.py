"""Writing differencing VHDX images: only the sectors that are not as in the parent.

Each unit of 1 MiB is in one of three states.  At first it is as in the parent, and stays so if
nobody speaks of it.  `_ZEROED`, it is zero as a whole and nothing was written for it.  `_TOLD`, the
bits of its sectors say which of them are in this file, and the others are as in the parent; the
file holds zeros where nothing was put.

At the end a block of zeroed units alone becomes ZERO (or UNMAPPED, see `VhdxWriter`); in others the
zeroed units get bits where the parent is not zero.  Blocks without any bit are NOT_PRESENT.

Bits go straight to their sector bitmap blocks in the file, so memory stays flat.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vsssnap._units import KIB
from vsssnap.errors import DeviceReadError, UsageError
from vsssnap.formats._zero import is_zero
from vsssnap.formats.vhdx import structs
from vsssnap.formats.vhdx.writer import VhdxWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.blocks.extent import Extent
    from vsssnap.formats.storage import Storage
    from vsssnap.formats.vhdx.building import Head
    from vsssnap.formats.vhdx.reader import VhdxReader

_TOLD: Final = 1
_ZEROED: Final = 2
_PIECE: Final = 64 * KIB  # bytes that are compared at once before single sectors are
_GAP: Final = 16 * KIB  # bytes as in the parent that are written along rather than begin a new write


@dataclass(frozen=True, slots=True)
class _Change:
    """A range to store, compared with the parent.

    Attributes:
        data: Its bytes.
        offset: Its place in the disk.
        bits: One for each sector, the lowest for the first: whether it differs from the parent.
        runs: ``(first, last)`` bytes of it to write.
    """

    data: memoryview
    offset: int
    bits: int
    runs: list[tuple[int, int]]


class VhdxChildWriter(VhdxWriter):
    """Writes a differencing image; the parent stays its owner's."""

    blank = structs.NOT_PRESENT

    def __init__(self, storage: Storage, head: Head, parent: VhdxReader) -> None:
        super().__init__(storage, head)
        self._parent = parent
        self._sector = head.geometry.sector_size
        self._bitmap_lock = threading.Lock()  # of `_bitmaps`, and of bytes that neighbours share
        self._bitmaps: dict[int, int] = {}  # place of a chunk's sector bitmap block
        self._differing = 0  # bytes of sectors that were stored because they are not as in the parent
        self._part_lock = threading.Lock()  # parts of one unit may be marked by several threads
        # When all is known: 1 + the state of each block that is not NOT_PRESENT.
        self._states = bytearray(head.geometry.blocks)

    def encode(self, data: memoryview, offset: int, /) -> _Change:  # type: ignore[override] # opaque
        """Compare with the parent."""
        self._check(len(data), offset)
        if offset % self._sector or len(data) % self._sector:
            raise UsageError(
                f"{len(data)} bytes at {offset} are no whole sectors of {self._sector} bytes",
                hint="a differencing VHDX is written by whole sectors",
            )
        try:
            below = self._parent.pread(len(data), offset)
        except DeviceReadError:  # what cannot be compared is stored
            return _Change(data, offset, (1 << len(data) // self._sector) - 1, [(0, len(data))])
        bits = 0
        runs: list[tuple[int, int]] = []
        for first, last in _differing(data, below, self._sector):
            bits |= ((1 << (last - first) // self._sector) - 1) << first // self._sector
            if runs and first - runs[-1][1] <= _GAP:
                runs[-1] = (runs[-1][0], last)
            else:
                runs.append((first, last))
        return _Change(data, offset, bits, runs)

    def store(self, encoded: _Change, /) -> None:  # type: ignore[override] # opaque
        """Write the sectors that differ, and their bits."""
        data, offset = encoded.data, encoded.offset
        end = offset + len(data)
        self._no_hole(offset, end)
        first, last = offset // self.unit, -(-end // self.unit)
        whole = offset % self.unit == 0 and (end % self.unit == 0 or end == self.size)
        told = self._touched.find(_TOLD, first, last) >= 0
        if whole and not told and encoded.bits and is_zero(data):
            self._touched[first:last] = bytes([_ZEROED]) * (last - first)
            return
        if whole:
            self._touched[first:last] = bytes([_TOLD]) * (last - first)
        else:
            with self._part_lock:
                for unit in range(first, last):
                    self._tell(unit)
        for start, stop in encoded.runs:
            part = data[start:stop]
            if told or not is_zero(part):
                self._put(part, offset + start)
        self._set_bits(offset, len(data), encoded.bits)
        with self._bitmap_lock:
            self._differing += encoded.bits.bit_count() * self._sector

    def changed(self) -> int | None:
        """See `ImageWriter`."""
        return self._differing

    def _tell(self, unit: int) -> None:
        """Let a unit's bits say what it is."""
        if self._touched[unit] == _ZEROED:
            start = unit * self.unit
            length = min(self.unit, self.size - start)
            self._set_bits(start, length, self._not_zero_below(start, length))
        self._touched[unit] = _TOLD

    def mark(self, extent: Extent, /) -> None:
        """See `VhdxWriter`."""
        self._check(extent.length, extent.offset)
        self._count(extent)
        unit, offset, end = self.unit, extent.offset, extent.end
        first = -(-offset // unit)
        last = len(self._touched) if end == self.size else end // unit
        if first >= last:
            self._mark_part(offset, end)
            return
        if offset < first * unit:
            self._mark_part(offset, first * unit)
        at = first
        while at < last:
            told = self._touched.find(_TOLD, at, last)
            stop = last if told < 0 else told
            self._touched[at:stop] = bytes([_ZEROED]) * (stop - at)
            if told >= 0:
                self._mark_part(told * unit, min((told + 1) * unit, self.size))
            at = stop + 1
        if last * unit < end:
            self._mark_part(last * unit, end)

    def _mark_part(self, offset: int, end: int) -> None:
        """Make a range zero by bits, and by zeros where bytes were put before."""
        unit = self.unit
        with self._part_lock:
            for number in range(offset // unit, -(-end // unit)):
                at, stop = max(offset, number * unit), min(end, (number + 1) * unit)
                if self._touched[number] == _ZEROED:
                    continue
                fresh = self._touched[number] != _TOLD
                self._touched[number] = _TOLD
                low, high = -(-at // self._sector) * self._sector, stop // self._sector * self._sector
                # Sectors of which only a part is marked keep their other bytes.
                edges = {at // self._sector, (stop - 1) // self._sector}
                for sector in sorted(edges):
                    start = sector * self._sector
                    if not (low <= start and start + self._sector <= high):
                        self._mark_in_sector(start, max(at, start), min(stop, start + self._sector))
                if low < high:
                    if not fresh and self._places.get(low // self._geometry.block_size):
                        self._put(memoryview(bytes(high - low)), low)
                    self._set_bits(low, high - low, self._not_zero_below(low, high - low))

    def _mark_in_sector(self, start: int, at: int, stop: int) -> None:
        data = bytearray(self._parent.pread(self._sector, start))
        place = self._places.get(start // self._geometry.block_size)
        if place and self._is_set(start):
            where = place + start % self._geometry.block_size
            # Behind the end are zeros that were never written.
            whole = where + self._sector <= self._storage.size
            data[:] = self._storage.pread(self._sector, where) if whole else bytes(self._sector)
        data[at - start : stop - start] = bytes(stop - at)
        self._put(memoryview(data), start)
        self._set_bits(start, self._sector, 1)

    def _is_set(self, offset: int) -> bool:
        block, inside = divmod(offset, self._geometry.block_size)
        number = inside // self._sector
        place = self._bitmap(block // self._geometry.ratio) + self._geometry.bitmap_place(block)
        return bool(self._storage.pread(1, place + number // 8)[0] >> number % 8 & 1)

    def _not_zero_below(self, offset: int, length: int) -> int:
        """Bits of the sectors that the parent does not know to be zero."""
        bits = 0
        for extent in self._parent.extents(offset, length):
            if extent.reads_as_zero:
                continue
            first = (extent.offset - offset) // self._sector
            last = -(-(extent.end - offset) // self._sector)
            bits |= ((1 << (last - first)) - 1) << first
        return bits

    def _set_bits(self, offset: int, length: int, bits: int) -> None:
        """Set the bits of a range of whole sectors; a block gets its place with its first bit."""
        size = self._geometry.block_size
        while length:
            block, inside = divmod(offset, size)
            count = min(length, size - inside) // self._sector
            part = bits & ((1 << count) - 1)
            if part:
                self._places.take(block)
            if self._places.get(block):
                self._write_bits(block, inside // self._sector, count, part)
            bits >>= count
            offset += count * self._sector
            length -= count * self._sector

    def _write_bits(self, block: int, first: int, count: int, bits: int) -> None:
        place = self._bitmap(block // self._geometry.ratio) + self._geometry.bitmap_place(block)
        at, skip = divmod(first, 8)
        whole = -(-(skip + count) // 8)
        ends = block * self._geometry.block_size + (first + count) * self._sector == self.size
        if not skip and (not count % 8 or ends):
            self._storage.pwrite(bits.to_bytes(whole, "little"), place + at)
            return
        with self._bitmap_lock:  # neighbours share a byte
            old = int.from_bytes(self._storage.pread(whole, place + at), "little")
            new = old & ~(((1 << count) - 1) << skip) | bits << skip
            self._storage.pwrite(new.to_bytes(whole, "little"), place + at)

    def _bitmap(self, chunk: int) -> int:
        with self._bitmap_lock:
            if chunk not in self._bitmaps:
                place = self._places.reserve(structs.BITMAP_BLOCK)
                # Now the file reaches behind it, so that parts of it can be read back.
                self._storage.pwrite(b"\0", place + structs.BITMAP_BLOCK - 1)
                self._bitmaps[chunk] = place
            return self._bitmaps[chunk]

    def _settle(self) -> None:
        """Turn zeroed units into states or bits, and find the states of the blocks."""
        per_block = self._geometry.block_size // self.unit
        number = self._touched.find(_ZEROED)
        while number >= 0:
            block = number // per_block
            first, last = block * per_block, min((block + 1) * per_block, len(self._touched))
            if self._touched.count(_ZEROED, first, last) == last - first:
                state = structs.UNMAPPED if self._holes[block] else structs.ZERO
                self._states[block] = 1 + state
            else:
                for unit in range(first, last):
                    if self._touched[unit] == _ZEROED:
                        self._tell(unit)
            number = self._touched.find(_ZEROED, last)
        for chunk, place in sorted(self._bitmaps.items()):
            bitmap = self._storage.pread(structs.BITMAP_BLOCK, place)
            for block, sectors in self._blocks_of(chunk):
                if self._places.get(block):
                    at = self._geometry.bitmap_place(block)
                    bits = bitmap[at : at + -(-sectors // 8)]
                    full = int.from_bytes(bits, "little") == (1 << sectors) - 1
                    self._states[block] = 1 + (structs.FULLY_PRESENT if full else structs.PARTIALLY_PRESENT)

    def _blocks_of(self, chunk: int) -> Iterator[tuple[int, int]]:
        geometry = self._geometry
        first = chunk * geometry.ratio
        for block in range(first, min(first + geometry.ratio, geometry.blocks)):
            length = min(geometry.block_size, geometry.size - block * geometry.block_size)
            yield block, length // geometry.sector_size

    def _has_states(self, first: int, last: int) -> bool:
        return self._states.count(0, first, last) < last - first

    def _entry(self, block: int) -> int:
        state = self._states[block]
        return self._places.get(block) | (state - 1) if state else structs.NOT_PRESENT

    def _bitmap_entry(self, chunk: int) -> int:
        place = self._bitmaps.get(chunk, 0)
        return place | structs.FULLY_PRESENT if place else 0


def _differing(data: memoryview, below: bytes, sector: int) -> Iterator[tuple[int, int]]:
    """Runs of whole sectors that are not equal, ascending and never touching."""
    first = -1
    size = len(data)
    for piece in range(0, size, _PIECE):
        stop = min(piece + _PIECE, size)
        # As in `_zero`: one memcmp that copies nothing.
        if below.startswith(data[piece:stop], piece):
            if first >= 0:
                yield first, piece
                first = -1
            continue
        for at in range(piece, stop, sector):
            if below.startswith(data[at : at + sector], at):
                if first >= 0:
                    yield first, at
                    first = -1
            elif first < 0:
                first = at
    if first >= 0:
        yield first, size
