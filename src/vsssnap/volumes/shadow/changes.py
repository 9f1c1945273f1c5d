"""Which blocks differ between two shadow copies, told by their stores.

A block may differ if a store in between copied it or saw it move, if sectors of it were written in
one of the two shadow copies, or if it was not protected at some time in between: what is written to
such a block leaves no trace.  Of these only those matter that are in use in the newer one.  The first
block always counts: Windows updates the volume header in it without keeping the old one.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from vsssnap.blocks.extent import Extent, ExtentKind, coalesce, overlay
from vsssnap.errors import ChangesUnknownError, DeviceReadError, ImageError, UsageError
from vsssnap.volumes.detect import filesystem
from vsssnap.volumes.policy import DEFAULT_EXCLUSIONS
from vsssnap.volumes.shadow.bitmap import ALL, SEGMENT, SEGMENT_BLOCKS
from vsssnap.volumes.shadow.catalog import read_boot
from vsssnap.volumes.shadow.structs import BLOCK, BLOCK_BITS
from vsssnap.volumes.shadow.view import between

if TYPE_CHECKING:
    from vsssnap.blocks.reader import BlockReader
    from vsssnap.volumes.shadow.stack import Level

_ONES: Final = re.compile("1+")
_COMPARED: Final = 64  # blocks that are read at once
_FULL: Final = "take a full image"


def changes(
    passed: Sequence[Level],
    volume: BlockReader,
    *,
    to_present: bool,
    allocated: Iterable[Extent] | None,
    readers: Callable[[], tuple[BlockReader, BlockReader]] | None,
) -> Iterator[Extent]:
    """What `ShadowVolume.changed_extents` gives.

    Args:
        passed: The shadow copies from the older one up to the newer one, or to the newest.
        volume: The volume as it is now.
        to_present: Whether the newer state is that of the volume now, not that of the last one.
        allocated: What is in use now; None if that is not known.
        readers: Open the older and the newer state, to leave out what is the same; None to keep it.

    Raises:
        ChangesUnknownError: the stores do not tell.
    """
    _check(passed, volume, to_present=to_present)
    return coalesce(_Comparison(passed, to_present, allocated, readers).walk())


def _check(passed: Sequence[Level], volume: BlockReader, *, to_present: bool) -> None:
    """Refuse what the stores cannot answer."""
    first = passed[0]
    sizes = {level.name: level.entry.volume_size for level in passed}
    if to_present:
        sizes["the volume"] = read_boot(volume).size or volume.size
    before = first.entry.volume_size
    for name, size in sizes.items():
        if size != before:
            raise ChangesUnknownError(
                f"the volume was resized: {first.name} has {before} bytes, {name} has {size}", hint=_FULL
            )
    for older, newer in pairwise(passed):
        if newer.entry.stack_position != older.entry.stack_position + 1:
            raise ChangesUnknownError(
                f"a shadow copy between {older.name} and {newer.name} is missing", hint=_FULL
            )
    for level in passed:
        try:
            level.chain()
            known = level.bitmaps()
        except (ImageError, DeviceReadError, UsageError) as exc:
            raise ChangesUnknownError(f"{level.name} cannot be read: {exc}", hint=_FULL) from exc
        if not known:
            raise ChangesUnknownError(f"{level.name} has no bitmap of what it protected", hint=_FULL)


def in_use(volume: BlockReader) -> Iterator[Extent] | None:
    """What files use on a volume, without those that Windows makes anew; None if that cannot be told."""
    try:
        fs = filesystem(volume)
        if fs is None or fs.doubt:
            return None
        left_out = sorted(
            (extent for _, _, extents in fs.excluded(DEFAULT_EXCLUSIONS) for extent in extents),
            key=lambda extent: extent.offset,
        )
        if any(one.end > other.offset for one, other in pairwise(left_out)):
            return None  # two files in one place: it is damaged
        return overlay(fs.allocation(), left_out)
    except DeviceReadError:
        return None


class _Comparison:
    """Two states of a volume, and the stores between them; bits are as in `Bitmap`."""

    def __init__(
        self,
        passed: Sequence[Level],
        to_present: bool,
        allocated: Iterable[Extent] | None,
        readers: Callable[[], tuple[BlockReader, BlockReader]] | None,
    ) -> None:
        ends = passed[:1] if to_present else (passed[0], passed[-1])
        between_them = passed if to_present else passed[:-1]
        self._size = passed[0].entry.volume_size
        self._to_present = to_present
        self._views = [level.view(level.bitmaps()) for level in between_them]
        self._tables = [level.table() for level in between_them]
        self._newer = None if to_present else passed[-1].view(passed[-1].bitmaps())
        self._overlays = [array("Q", sorted(level.table().overlays)) for level in ends]
        self._allocated = None if allocated is None else _Allocation(allocated)
        self._readers = None if readers is None else readers()

    def walk(self) -> Iterator[Extent]:
        """The ranges, a segment at a time."""
        for number in range(-(-self._size // SEGMENT)):
            unprotected = [view.unused_bits(number) for view in self._views]
            shown = self._views[0].shown_bits(number)
            wanted = self._wanted(number)
            changed = self._touched(number)
            for bits in unprotected:
                changed |= bits
            changed &= wanted
            if self._readers is not None:
                # What was not protected at first has no trustworthy content to compare with.
                keep = unprotected[0] | (number == 0)
                changed = changed & keep | self._really(number, changed & ~keep, *self._readers)
            freed = 0 if self._to_present and self._allocated is None else shown & ~wanted
            yield from self._extents(number, changed, freed)

    def _touched(self, number: int) -> int:
        """What the stores in between list, and what was written in the two shadow copies."""
        first = number * SEGMENT_BLOCKS
        last = first + SEGMENT_BLOCKS
        marks = bytearray(b"0" * SEGMENT_BLOCKS)
        if number == 0:
            marks[0] = ord("1")
        for table in self._tables:
            for blocks in (table.blocks, table.moved):
                for block in between(blocks, first, last):
                    marks[block - first] = ord("1")
        for overlaid in self._overlays:
            for block in between(overlaid, first, last):
                marks[block - first] = ord("1")
        return int(marks[::-1], 2)

    def _wanted(self, number: int) -> int:
        """What is in use in the newer state."""
        if self._newer is not None:
            return self._newer.shown_bits(number)
        if self._allocated is None:
            return ALL
        return self._allocated.bits(number)

    def _really(self, number: int, bits: int, before: BlockReader, after: BlockReader) -> int:
        """The blocks of ``bits`` whose content differs, or cannot be read."""
        base = number * SEGMENT
        found = 0
        for start, stop in _runs(bits):
            for low in range(start, stop, _COMPARED):
                count = min(_COMPARED, stop - low)
                offset = base + low * BLOCK
                length = min(count * BLOCK, self._size - offset)
                try:
                    one, other = before.pread(length, offset), after.pread(length, offset)
                except DeviceReadError:
                    found |= ((1 << count) - 1) << low
                    continue
                if one == other:
                    continue
                for block in range(count):
                    part = slice(block * BLOCK, (block + 1) * BLOCK)
                    found |= (one[part] != other[part]) << (low + block)
        return found

    def _extents(self, number: int, changed: int, freed: int) -> Iterator[Extent]:
        runs = [(*run, ExtentKind.DATA) for run in _runs(changed)]
        runs += [(*run, ExtentKind.ZERO) for run in _runs(freed)]
        base = number * SEGMENT
        for start, stop, kind in sorted(runs):
            offset = base + start * BLOCK
            end = min(base + stop * BLOCK, self._size)
            if offset < end:
                yield Extent(offset, end - offset, kind)


class _Allocation:
    """The blocks that extents call used, a segment at a time, ascending."""

    def __init__(self, extents: Iterable[object]) -> None:
        self._extents = iter(extents)
        self._pending: Extent | None = None
        self._at = 0

    def bits(self, number: int) -> int:
        first = number * SEGMENT
        last = first + SEGMENT
        bits = 0
        while True:
            extent = self._next() if self._pending is None else self._pending
            self._pending = extent
            if extent is None or extent.offset >= last:
                return bits
            if not extent.reads_as_zero and extent.end > first:
                low = (max(extent.offset, first) - first) >> BLOCK_BITS
                high = -(-(min(extent.end, last) - first) >> BLOCK_BITS)
                bits |= ((1 << (high - low)) - 1) << low
            if extent.end > last:
                return bits
            self._pending = None

    def _next(self) -> Extent | None:
        extent = next(self._extents, None)
        if extent is None:
            return None
        if not isinstance(extent, Extent) or extent.offset < self._at:
            raise UsageError(
                f"allocated gave {extent!r} after byte {self._at}", hint="give ascending extents"
            )
        self._at = extent.end
        return extent


def _runs(bits: int) -> Iterator[tuple[int, int]]:
    """First bit and the one behind the last of every run of ones."""
    if bits:
        for run in _ONES.finditer(f"{bits:b}"[::-1]):
            yield run.span()
