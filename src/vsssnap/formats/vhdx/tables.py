"""The BAT and the sector bitmaps, read page by page and looked up; what lies where.

Source: [MS-VHDX] 2.4 and 2.5.  A BAT may have half a GiB (64 TiB in blocks of 1 MiB), so tables
are read in pages when they are needed, and some MiB of those used last are kept: one page at least
of each image in a chain of hundreds, lest reading there be mostly reading of pages.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vsssnap._units import KIB, MIB
from vsssnap.formats._cache import ByteCache
from vsssnap.formats.vhdx import structs
from vsssnap.formats.vhdx.layout import Layout, corrupt

if TYPE_CHECKING:
    from vsssnap.errors import CorruptImageError
    from vsssnap.formats.storage import Storage

PAGE: Final = 16 * KIB
_KEPT: Final = 4 * MIB  # bytes of pages
_BITS: Final = tuple(bytes(byte >> bit & 1 for bit in range(8)) for byte in range(256))


class Pages:
    """Pages of a file, the ones used last kept.  Thread-safe; no lock is held while one is read."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.cache = ByteCache(_KEPT)

    def page(self, number: int) -> bytes:
        """A page; the file's last one may be short."""
        found: bytes | None = self.cache.get(number)
        if found is None:
            at = number * PAGE
            found = self._storage.pread(max(0, min(PAGE, self._storage.size - at)), at)
            self.cache.put(number, found, len(found) + 100)
        return found

    def read(self, length: int, offset: int) -> bytes:
        """Some bytes, over as many pages as they touch."""
        number, start = divmod(offset, PAGE)
        data = self.page(number)[start : start + length]
        if len(data) == length:
            return data
        parts = [data]
        missing = length - len(data)
        while missing:
            number += 1
            data = self.page(number)[:missing]
            if not data:
                break
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the disk that lies in one place.

    Attributes:
        offset: First byte in the disk.
        length: Bytes.
        where: First byte in the file; `ZEROS`, `NOTHING`, `PARENT` or `LOST` if it is not there.
    """

    offset: int
    length: int
    where: int


ZEROS: Final = -1  # defined to be zero
NOTHING: Final = -2  # not defined: whoever used the disk gave it up
PARENT: Final = -3  # as the parent has it
LOST: Final = -4  # behind the end of the file; only where recovering

_BY_STATE: Final = {structs.UNDEFINED: NOTHING, structs.ZERO: ZEROS, structs.UNMAPPED: NOTHING}


class Tables:
    """Finds blocks.  Thread-safe."""

    def __init__(self, layout: Layout, *, recover: bool = False) -> None:
        self.recover = recover
        self._layout = layout
        self._geometry = layout.geometry
        self._storage = layout.storage
        self._pages = Pages(layout.storage)
        self.cache = self._pages.cache
        self._absent = PARENT if layout.geometry.has_parent else ZEROS

    def entries(self, first: int, count: int) -> array[int]:
        """Consecutive entries of the BAT as they are stored."""
        found = array("Q", self._pages.read(count * 8, self._layout.bat.offset + first * 8))
        if sys.byteorder == "big":
            found.byteswap()
        return found

    def pieces(self, offset: int, length: int) -> Iterator[Piece]:
        """Where a range of the disk lies, ascending and gap-free; neighbours are joined.

        Raises:
            CorruptImageError: an entry breaks a rule; what comes before it was given out.
        """
        last: Piece | None = None
        for piece in self._single(offset, length):
            if last is None:
                last = piece
            elif piece.where == (last.where if last.where < 0 else last.where + last.length):
                last = Piece(last.offset, last.length + piece.length, last.where)
            else:
                yield last
                last = piece
        if last is not None:
            yield last

    def _single(self, offset: int, length: int) -> Iterator[Piece]:
        end = offset + length
        size, ratio = self._geometry.block_size, self._geometry.ratio
        block = offset // size
        while offset < end:
            # Entries of one chunk follow one another; a page's worth of them at a time.
            count = min(-(-end // size) - block, ratio - block % ratio, PAGE // 8)
            entries = self.entries(self._geometry.entry_of(block), count)
            if entries[0] <= structs.UNMAPPED and entries == entries[:1] * count:
                stop = min(end, (block + count) * size)
                yield from self._block(block, entries[0], offset, stop - offset)
                offset, block = stop, block + count
                continue
            for entry in entries:
                stop = min(end, (block + 1) * size)
                yield from self._block(block, entry, offset, stop - offset)
                offset, block = stop, block + 1

    def _block(self, block: int, entry: int, offset: int, length: int) -> Iterator[Piece]:
        state = entry & structs.STATE_MASK
        if state == structs.NOT_PRESENT:
            yield Piece(offset, length, self._absent)
        elif state in _BY_STATE:
            yield Piece(offset, length, _BY_STATE[state])
        elif state == structs.FULLY_PRESENT:
            start = self._start(block, entry)
            yield from self._inside(offset, length, start + offset % self._geometry.block_size)
        elif state == structs.PARTIALLY_PRESENT and self._geometry.has_parent:
            yield from self._partial(block, entry, offset, length)
        else:
            raise self._broken(block, f"the state {state} is not for such a disk")

    def _inside(self, offset: int, length: int, where: int) -> Iterator[Piece]:
        """A stretch in the file; where recovering, what lies behind its end is `LOST`."""
        there = max(0, min(length, self._storage.size - where)) if self.recover else length
        if there:
            yield Piece(offset, there, where)
        if there < length:
            yield Piece(offset + there, length - there, LOST)

    def _partial(self, block: int, entry: int, offset: int, length: int) -> Iterator[Piece]:
        start = self._start(block, entry) - block * self._geometry.block_size
        sector = self._geometry.sector_size
        first, end = offset // sector, -(-(offset + length) // sector)
        base = first - first % 8  # the sector of the first bit that is read
        bits = self.bits(block, base, -(-(end - base) // 8))
        at = first
        while at < end:
            value = bits[at - base]
            stop = bits.find(1 - value, at - base, end - base)
            stop = end if stop < 0 else base + stop
            begin, last = max(offset, at * sector), min(offset + length, stop * sector)
            if value:
                yield from self._inside(begin, last - begin, start + begin)
            else:
                yield Piece(begin, last - begin, PARENT)
            at = stop

    def bits(self, block: int, sector: int, count: int) -> bytes:
        """For each of ``count * 8`` sectors of a block, from ``sector`` on, 1 if it is in this file."""
        number = self._geometry.bitmap_entry_of(block)
        entry = self.entries(number, 1)[0]
        where = entry & structs.OFFSET_MASK
        if entry & ~structs.OFFSET_MASK != structs.FULLY_PRESENT:
            raise self._broken(block, f"partially present without a sector bitmap (entry {entry:#x})")
        self._check_place("sector bitmap", number, where, structs.BITMAP_BLOCK)
        per_block = self._geometry.block_size // self._geometry.sector_size
        place = where + self._geometry.bitmap_place(block) + (sector - block * per_block) // 8
        stored = self._pages.read(count, place)
        if len(stored) != count:
            raise self._broken(block, "its sector bitmap lies behind the end of the file")
        if stored.count(0) == count:
            return bytes(count * 8)
        if stored.count(255) == count:
            return b"\1" * (count * 8)
        return b"".join([_BITS[byte] for byte in stored])

    def _start(self, block: int, entry: int) -> int:
        if entry & structs.RESERVED_MASK:
            raise self._broken(block, f"the reserved bits of entry {entry:#x} are not zero")
        where = entry & structs.OFFSET_MASK
        self._check_place("payload block", self._geometry.entry_of(block), where, self._geometry.block_size)
        return where

    def _check_place(self, what: str, number: int, where: int, length: int) -> None:
        problem, hint = self.misplaced(where, length), ""
        # The last block of a file may be cut where a writer left out its end; reading there says so.
        if not problem and where >= self._storage.size and not self.recover:
            problem = f"lies at byte {where}, behind the end of the file at {self._storage.size}"
            hint = "pass recover=True to read what is left"
        if problem:
            at = self._layout.bat.offset + number * 8
            raise corrupt(self._storage, "BAT entry", at, f"its {what} {problem}", hint)

    def misplaced(self, where: int, length: int) -> str:
        """What is wrong with the place of a block, or ""; that it is inside the file is not looked at."""
        if where < structs.HEADER_SECTION:
            return f"lies at byte {where}, in the header section"
        for region in self._layout.regions:
            if where < region.end and region.offset < where + length:
                return f"at byte {where} overlaps the {region.name}"
        return ""

    def _broken(self, block: int, message: str) -> CorruptImageError:
        at = self._layout.bat.offset + self._geometry.entry_of(block) * 8
        return corrupt(self._storage, "BAT entry", at, f"payload block {block}: {message}")
