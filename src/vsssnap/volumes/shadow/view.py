"""Where every block of a shadow copy comes from.

A block that is not in the shadow copy's own store is looked for in the newer ones, one after the
other, and then on the volume: a store keeps only what was overwritten while its shadow copy was the
newest.  On the way the block changes its place where the file system moved it.  A block that no store
knows and that was not protected is *unused*: the volume's content is of no use to the shadow copy.

The answer is worked out for a segment of the volume at a time and kept for the latest ones, so
memory does not grow with the volume.
"""

from __future__ import annotations

import re
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeAlias

from vsssnap.blocks.extent import ExtentKind
from vsssnap.volumes.shadow.bitmap import ALL, SEGMENT, SEGMENT_BLOCKS, Bitmap
from vsssnap.volumes.shadow.structs import BLOCK, BLOCK_BITS, SECTOR
from vsssnap.volumes.shadow.table import KIND, LOST, OVERLAID, OWN, UNUSED, VOLUME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vsssnap.blocks.reader import BlockReader
    from vsssnap.volumes.shadow.table import Table

_KEPT: Final = 64  # segments whose answer is kept: 8 GiB of volume, at most 8 MiB of memory
_LISTED: Final = b"f"
_ABSENT: Final = b"a"
_KINDS: Final = {ord("0"): VOLUME, ord("1"): UNUSED, _ABSENT[0]: LOST}
_RUNS: Final = re.compile(rb"0+|1+|f+|a+")
_SECTORS: Final = re.compile("0+|1+")
_NOT_KEPT: Final = frozenset({ExtentKind.HOLE, ExtentKind.EXCLUDED})


Piece: TypeAlias = tuple[int, int, int, int]
"""A range that lies in one place: its offset in the shadow copy; its length; VOLUME, OWN, OTHER, UNUSED or
LOST, and OVERLAID if it was written in the shadow copy; the offset where it lies, of UNUSED and LOST
the same as the first."""


class View:
    """The map of one shadow copy.  Thread-safe."""

    def __init__(
        self,
        volume: BlockReader,
        size: int,
        chain: Sequence[Table],
        overlay_kind: int,
        bitmaps: Sequence[Bitmap],
        sector_size: int,
    ) -> None:
        """Prepare the map; nothing is read yet.

        Args:
            volume: The volume as it is now.
            size: Bytes of the shadow copy.
            chain: The tables of its store and of all newer ones, oldest first.
            overlay_kind: OWN or OTHER: where the overlays of the first table lie.
            bitmaps: A block is unused if all of them say so; none: no block is.
            sector_size: Of the volume, bytes.
        """
        self.size = size
        self._volume = volume
        self._chain = chain
        self._overlays = chain[0].overlays
        self._overlay_kind = overlay_kind
        self._overlaid = array("Q", sorted(self._overlays))
        self._forwarded = array("Q", sorted({block for table in chain for block in table.forwards}))
        self._bitmaps = bitmaps
        # Imagers that trust the file system drop its last sector, a copy of the first one.
        self._tail = volume.size if 0 < size - volume.size <= sector_size else size
        self._end = self._known_end()
        self._segments: OrderedDict[int, tuple[array[int], array[int]]] = OrderedDict()
        self._lock = threading.Lock()

    def unused_bits(self, segment: int) -> int:
        """The blocks of a segment that were not protected, the first block's bit lowest."""
        if not self._bitmaps:
            return 0
        bits = ALL
        for bitmap in self._bitmaps:
            bits &= bitmap.bits(segment)
        return bits

    def shown_bits(self, segment: int) -> int:
        """The blocks of a segment that hold more than unused bytes."""
        starts, sources = self._segment(segment)
        bits = ALL
        for at, source in enumerate(sources):
            if source & KIND == UNUSED:
                first, last = (
                    (start - segment * SEGMENT) >> BLOCK_BITS for start in (starts[at], starts[at + 1])
                )
                bits &= ~((1 << last) - (1 << first))
        return bits

    def _known_end(self) -> int:
        """Where all that is known ends; without bitmaps a size that was made up costs nothing."""
        if self._bitmaps:
            return self.size
        last = max((keys[-1] for keys in (self._overlaid, self._forwarded) if keys), default=0)
        last = max([last, *(table.blocks[-1] for table in self._chain if table.blocks)])
        return max(self._volume.size, (last + 1) << BLOCK_BITS)

    def pieces(self, offset: int, length: int) -> Iterator[Piece]:
        """Where a range inside the shadow copy lies, ascending and gap-free.

        Raises:
            DeviceReadError: the bitmap cannot be read.
        """
        stop_at = offset + length
        end = min(stop_at, max(offset, self._end))
        size = self._volume.size
        while offset < end:
            starts, sources, low, high, last = self._part(offset, end)
            for start, behind, source in zip(
                starts[low:high], starts[low + 1 : high + 1], sources[low:high], strict=True
            ):
                stop = min(behind, last)
                kind = source & KIND
                place = source - kind + offset - start
                length = stop - offset
                if place + length <= size and kind < OVERLAID:
                    yield offset, length, kind, place
                elif kind < OVERLAID:
                    yield from self._plain(offset, length, kind, place)
                else:
                    yield from self._patched(offset, length, kind - OVERLAID, place)
                offset = stop
        if end < stop_at:
            yield from self._plain(end, stop_at - end, VOLUME, end)

    def plan(
        self, view: memoryview, offset: int, *, unused: int
    ) -> tuple[list[tuple[memoryview, int]], list[Piece]]:
        """How to read a range into memory: what to read from the volume, and all else.

        It says what `pieces` says, without a step for each piece: where changes are scattered there are
        many, and half of them are what lies in place between two others.  Nearly all there is lies on
        the volume, in place or as a copy.

        Args:
            view: Where the range goes; as long as it.
            offset: First byte of the range, which is inside the shadow copy.
            unused: Unused blocks before this byte have what lies in place, too.

        Returns:
            Parts of the memory and where on the volume their bytes lie, ascending; and the other pieces.

        Raises:
            DeviceReadError: the bitmap cannot be read.
        """
        parts: list[tuple[memoryview, int]] = []
        others: list[Piece] = []
        begin = -1  # of the stretch that lies in place and may go on
        at, stop, size = offset, offset + len(view), self._volume.size
        end = min(stop, max(at, self._end))
        while at < end:
            starts, sources, low, high, last = self._part(at, end)
            for start, behind, source in zip(
                starts[low:high], starts[low + 1 : high + 1], sources[low:high], strict=True
            ):
                first, at = at, behind
                if at > last:
                    at = last
                kind = source & KIND
                if (source == start or (kind == UNUSED and first < unused)) and at <= size:
                    if begin < 0:
                        begin = first
                    continue
                if begin >= 0:
                    parts.append((view[begin - offset : first - offset], begin))
                    begin = -1
                if kind == OWN:
                    parts.append((view[first - offset : at - offset], source - OWN + first - start))
                else:
                    cut = self._plain if kind < OVERLAID else self._patched
                    others += cut(first, at - first, kind & ~OVERLAID, source - kind + first - start)
        if begin >= 0:
            parts.append((view[begin - offset : at - offset], begin))
        if end < stop:
            others += self._plain(end, stop - end, VOLUME, end)
        return parts, others

    def _part(self, offset: int, end: int) -> tuple[array[int], array[int], int, int, int]:
        """The runs of a range in its first segment: both arrays, first and last index, where they end."""
        number = offset // SEGMENT
        starts, sources = self._segment(number)
        last = min((number + 1) * SEGMENT, end)
        low = bisect_right(starts, offset) - 1
        return starts, sources, low, bisect_left(starts, last, low), last

    def _plain(self, offset: int, length: int, kind: int, place: int) -> Iterator[Piece]:
        """A range without overlays, cut where the volume ends."""
        there = min(length, max(0, self._volume.size - place)) if kind in (VOLUME, UNUSED) else length
        if there:
            yield offset, there, kind, place
        if there < length:
            at = offset + there
            if kind == VOLUME:
                kind = UNUSED if at >= self._tail and at == place + there else LOST
            yield at, length - there, kind, at

    def _patched(self, offset: int, length: int, kind: int, place: int) -> Iterator[Piece]:
        """A range inside of one block, some sectors of which were written in the shadow copy."""
        block = offset >> BLOCK_BITS
        base = block << BLOCK_BITS
        patch, bits = self._overlays[block]
        end = offset + length
        for run in _SECTORS.finditer(f"{bits:032b}"[::-1]):
            first = max(offset, base + run.start() * SECTOR)
            stop = min(end, base + run.end() * SECTOR)
            if first >= stop:
                continue
            if run.group()[0] == "0":
                yield from self._plain(first, stop - first, kind, place + first - offset)
            elif patch is None:
                yield first, stop - first, LOST, first
            else:
                yield first, stop - first, self._overlay_kind | OVERLAID, patch + first - base

    def _segment(self, number: int) -> tuple[array[int], array[int]]:
        with self._lock:
            known = self._segments.get(number)
            if known is not None:
                self._segments.move_to_end(number)
                return known
        runs = self._runs(number)  # twice at worst, where two threads come for it at once
        with self._lock:
            self._segments[number] = runs
            while len(self._segments) > _KEPT:
                self._segments.popitem(last=False)
        return runs

    def _runs(self, number: int) -> tuple[array[int], array[int]]:
        """First byte and source of every run of a segment; a run's source grows with its bytes.

        The first bytes end with the one behind the segment.
        """
        first = number * SEGMENT_BLOCKS
        last = first + SEGMENT_BLOCKS
        unused = self.unused_bits(number)
        listed = self._listed(first, last, unused)
        marks = bytearray(f"{unused:0{SEGMENT_BLOCKS}b}"[::-1], "ascii")
        self._mark_absent(marks, first)
        for block in listed:
            marks[block - first] = _LISTED[0]
        starts, sources = array("Q"), array("Q")
        block = first
        for run in _RUNS.findall(marks):
            kind = _KINDS.get(run[0])
            if kind is not None:
                starts.append(block << BLOCK_BITS)
                sources.append(block << BLOCK_BITS | kind)
                block += len(run)
                continue
            expected = -1
            for _ in run:
                source = listed[block]
                if source != expected or source & OVERLAID:
                    starts.append(block << BLOCK_BITS)
                    sources.append(source)
                expected = source + BLOCK
                block += 1
        starts.append(last << BLOCK_BITS)
        return starts, sources

    def _listed(self, first: int, last: int, unused: int) -> dict[int, int]:
        """The blocks of a range that a store knows, and where they lie."""
        found: dict[int, int] = {}
        for table in reversed(self._chain):
            low, high = table.range(first, last)
            found.update(zip(table.blocks[low:high], table.sources[low:high], strict=True))
        for block in between(self._forwarded, first, last):
            source = self._follow(block)
            if source is not None:
                found[block] = source
        for block in between(self._overlaid, first, last):
            kind = UNUSED if unused >> (block - first) & 1 else VOLUME
            found[block] = found.get(block, block << BLOCK_BITS | kind) | OVERLAID
        return found

    def _follow(self, block: int) -> int | None:
        """Where a block lies, through all moves; None if no store knows it."""
        at, moved = block, False
        lost = block << BLOCK_BITS | LOST
        for table in self._chain:
            source = table.copy_of(at)
            if source is not None:
                return lost if source & KIND == LOST else source
            if at in table.forwards:
                target = table.forwards[at]
                if target is None:
                    return lost
                at, moved = target, True
        if not moved:
            return None
        kept = not any(extent.kind in _NOT_KEPT for extent in self._volume.extents(at << BLOCK_BITS, BLOCK))
        return at << BLOCK_BITS | VOLUME if kept else lost

    def _mark_absent(self, marks: bytearray, first: int) -> None:
        """Find blocks that the shadow copy needs and an image of the volume left out."""
        base = first << BLOCK_BITS
        for extent in self._volume.extents(base, SEGMENT):
            if extent.kind in _NOT_KEPT:
                low = (extent.offset - base) >> BLOCK_BITS
                high = -(-(extent.end - base) >> BLOCK_BITS)
                marks[low:high] = marks[low:high].replace(b"0", _ABSENT)


def between(blocks: array[int], first: int, last: int) -> array[int]:
    """The part of ascending blocks from ``first`` up to ``last``."""
    low = bisect_left(blocks, first)
    return blocks[low : bisect_left(blocks, last, low)]
