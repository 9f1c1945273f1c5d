"""Ranges that are HOLE, EXCLUDED or UNREADABLE: collected while writing, looked up while reading."""

from __future__ import annotations

import bisect
import operator
import struct
import sys
from array import array
from typing import TYPE_CHECKING, Final

from vsssnap._units import MAX_SIZE
from vsssnap.blocks.extent import Extent, ExtentKind, coalesce, fill, overlay
from vsssnap.errors import CorruptImageError, DeviceReadError
from vsssnap.formats.sidecar.structs import STATE

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS: Final = (ExtentKind.HOLE, ExtentKind.EXCLUDED, ExtentKind.UNREADABLE)
"""By the number they have in the file; where ranges overlap, the later one wins."""

_CODES: Final = {kind: code for code, kind in enumerate(KINDS)}
_PIECE: Final = STATE << 15  # bytes that are packed at once
_LAYOUT: Final = struct.Struct("<QQQ")


class StateLog:
    """Collects ranges in any order: 16 bytes of memory for each run that does not touch the one before."""

    def __init__(self) -> None:
        self._firsts = {kind: array("Q") for kind in KINDS}
        self._ends = {kind: array("Q") for kind in KINDS}

    def add(self, extent: Extent) -> None:
        """Keep a range; one thread at a time."""
        firsts, ends = self._firsts[extent.kind], self._ends[extent.kind]
        if ends and ends[-1] == extent.offset:
            ends[-1] = extent.end
        else:
            firsts.append(extent.offset)
            ends.append(extent.end)

    def runs(self) -> Iterator[Extent]:
        """All ranges, ascending, without overlap."""
        base: Iterator[Extent] = iter((Extent(0, MAX_SIZE, ExtentKind.ZERO),))
        for kind in KINDS:
            base = overlay(base, self._sorted(kind))
        return (extent for extent in coalesce(base) if extent.kind is not ExtentKind.ZERO)

    def _sorted(self, kind: ExtentKind) -> Iterator[Extent]:
        firsts, ends = self._firsts[kind], self._ends[kind]
        pairs = zip(firsts, ends, strict=True)
        if any(map(operator.gt, firsts, firsts[1:])):
            pairs = iter(sorted(pairs))  # type: ignore[assignment]  # an iterator of pairs like the other
        at = -1
        for first, end in pairs:
            if end > at:
                first = max(first, at)
                yield Extent(first, end - first, kind)
                at = end

    def pieces(self) -> Iterator[bytes]:
        """The ranges as they are stored, some hundred KiB at a time."""
        piece = bytearray()
        for extent in self.runs():
            piece += _LAYOUT.pack(extent.offset, extent.length, _CODES[extent.kind])
            if len(piece) >= _PIECE:
                yield bytes(piece)
                piece.clear()
        if piece:
            yield bytes(piece)


class States:
    """The ranges of a side-car, ascending; 17 bytes of memory each."""

    def __init__(self) -> None:
        self._firsts = array("Q")
        self._ends = array("Q")
        self._kinds = bytearray()
        self._unreadable = array("Q")  # indices of those ranges, for a look-up at every read

    def load(self, data: bytes, size: int) -> None:
        """Append stored ranges.

        Args:
            data: Whole states.
            size: Bytes of the volume.

        Raises:
            CorruptImageError: they are not ascending ranges inside the volume, of known kinds.
        """
        words = array("Q", data)
        if sys.byteorder == "big":
            words.byteswap()
        firsts, lengths, kinds = words[0::3], words[1::3], words[2::3]
        if firsts and (max(firsts) > size or max(lengths) > size or max(kinds) >= len(KINDS)):
            raise CorruptImageError("a state lies outside the volume or has no known kind")
        ends = array("Q", map(operator.add, firsts, lengths))
        before = self._ends[-1] if self._ends else 0
        ascending = all(map(operator.le, array("Q", [before]) + ends[:-1], firsts))
        if firsts and (not min(lengths) or ends[-1] > size or not ascending):
            raise CorruptImageError("states are empty, overlap, or leave the volume")
        start = len(self._firsts)
        self._firsts += firsts
        self._ends += ends
        self._kinds += bytes(kinds.tolist())  # bytes(kinds) would take the eight bytes of each
        lost = KINDS.index(ExtentKind.UNREADABLE)
        self._unreadable.extend(start + index for index, kind in enumerate(kinds) if kind == lost)

    def __len__(self) -> int:
        return len(self._firsts)

    def __iter__(self) -> Iterator[Extent]:
        return self.within(0, MAX_SIZE)

    def within(self, offset: int, length: int) -> Iterator[Extent]:
        """The ranges that reach into a range, whole, ascending; gaps are plain content."""
        for index in range(bisect.bisect_right(self._ends, offset), len(self._firsts)):
            if self._firsts[index] >= offset + length:
                return
            yield self._at(index)

    def _at(self, index: int) -> Extent:
        first = self._firsts[index]
        return Extent(first, self._ends[index] - first, KINDS[self._kinds[index]])

    def unreadable(self, offset: int, length: int) -> Iterator[Extent]:
        """The UNREADABLE ranges that reach into a range, whole, ascending."""
        lost = self._unreadable
        for place in range(bisect.bisect_right(lost, offset, key=self._ends.__getitem__), len(lost)):
            if self._firsts[lost[place]] >= offset + length:
                return
            yield self._at(lost[place])

    def require_readable(self, offset: int, length: int) -> None:
        """Return if no byte of a range is UNREADABLE.

        Raises:
            DeviceReadError: some are; its offset and length name the first such range.
        """
        if not self._unreadable:
            return
        lost = next(self.unreadable(offset, length), None)
        if lost is not None:
            raise DeviceReadError(
                f"bytes {lost.offset} to {lost.end} could not be read when the image was made",
                offset=lost.offset,
                length=lost.length,
                hint="extents() tells UNREADABLE ranges; read around them",
            )

    def over(self, extents: Iterator[Extent], offset: int, length: int) -> Iterator[Extent]:
        """What a container knows of a range, refined by what was recorded when it was made.

        UNREADABLE always holds.  HOLE and EXCLUDED hold only where the container has no data:
        if somebody has written there since, the bytes are data, not to be passed over.

        Args:
            extents: The container's, ascending and gap-free over the range.
            offset: First byte of the range.
            length: Its bytes.
        """
        if not self._firsts:
            return extents
        return coalesce(self._over(extents, offset, length))

    def _over(self, extents: Iterator[Extent], offset: int, length: int) -> Iterator[Extent]:
        stored = fill(self.within(offset, length), offset, length, ExtentKind.DATA)  # DATA: says nothing
        state = next(stored, None)
        for extent in extents:
            at = extent.offset
            while state is not None and at < extent.end:
                if state.end <= at:
                    state = next(stored, None)
                    continue
                stop = min(extent.end, state.end)
                wins = state.kind is ExtentKind.UNREADABLE or (
                    state.kind is not ExtentKind.DATA and extent.reads_as_zero
                )
                yield Extent(at, stop - at, state.kind if wins else extent.kind)
                at = stop
