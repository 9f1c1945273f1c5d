"""A file as it would be if its log had been replayed: patches in memory over a storage.

Source: [MS-VHDX] 2.3.3, and note 5 there: who may not write the file must not read the disk
without replaying the log in memory.  The file itself is never written.
"""

from __future__ import annotations

import bisect
import heapq
from typing import TYPE_CHECKING, NoReturn

from vsssnap.errors import UsageError
from vsssnap.formats._zero import fill_zero
from vsssnap.formats.storage import Storage
from vsssnap.formats.vhdx.structs import LOG_SECTOR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vsssnap.blocks.extent import Extent


class Patches:
    """Writes that are collected in order and then looked up by place; the last one of a byte counts."""

    def __init__(self) -> None:
        self._order = 0
        self._sectors: dict[int, tuple[int, memoryview | bytes]] = {}
        self._zeros: list[tuple[int, int, int]] = []
        self.end = 0  # first byte behind all of them

    def write(self, sector: memoryview | bytes, offset: int) -> None:
        """A sector of 4 KiB at a multiple of it."""
        self._order += 1
        self._sectors[offset] = (self._order, sector)
        self.end = max(self.end, offset + LOG_SECTOR)

    def zero(self, length: int, offset: int) -> None:
        """A stretch of zeros of any length."""
        self._order += 1
        self._zeros.append((offset, offset + length, self._order))
        self.end = max(self.end, offset + length)

    def settled(self) -> tuple[dict[int, memoryview | bytes], list[tuple[int, int]]]:
        """Sectors that were not zeroed later, and disjoint stretches of zeros, which sectors overrule."""
        self._zeros.sort()
        open_: list[tuple[int, int]] = []  # (-order, end) of the stretches that began: newest first
        waiting = iter(self._zeros)
        coming = next(waiting, None)
        kept: dict[int, memoryview | bytes] = {}
        for offset in sorted(self._sectors):
            while coming is not None and coming[0] <= offset:
                heapq.heappush(open_, (-coming[2], coming[1]))
                coming = next(waiting, None)
            while open_ and open_[0][1] <= offset:
                heapq.heappop(open_)
            order, sector = self._sectors[offset]
            if not open_ or -open_[0][0] < order:
                kept[offset] = sector
        merged: list[tuple[int, int]] = []
        for start, end, _ in self._zeros:
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            else:
                merged.append((start, end))
        return kept, merged


class OverlayStorage(Storage):
    """A storage with `Patches` over it; read-only, immutable, owns the storage below."""

    def __init__(self, base: Storage, patches: Patches, size: int) -> None:
        """Lay patches over ``base``.

        Args:
            base: The file as it is.
            patches: What the log says.
            size: Bytes that the file has after the replay; what ``base`` lacks is zero.
        """
        self.name = base.name
        self._base = base
        self._sectors, self._zeros = patches.settled()
        self._places = sorted(self._sectors)
        self._size = max(size, base.size, patches.end)

    @property
    def size(self) -> int:
        """Bytes after the replay."""
        return self._size

    def pread(self, length: int, offset: int, /) -> bytes:
        """See `Storage`."""
        if offset + length > self._size:
            raise self._short(length, offset)
        data = bytearray(length)
        with memoryview(data) as view:
            self.preadinto(view, offset)
        return bytes(data)

    def preadinto(self, view: memoryview, offset: int, /) -> None:
        """See `Storage`."""
        end = offset + len(view)
        if end > self._size:
            raise self._short(len(view), offset)
        there = min(len(view), max(0, self._base.size - offset))
        if there:
            self._base.preadinto(view[:there], offset)
        fill_zero(view[there:])
        for start, stop in self._stretches(offset, end):
            fill_zero(view[max(start, offset) - offset : min(stop, end) - offset])
        for place in self._between(offset, end):
            first, last = max(place, offset), min(place + LOG_SECTOR, end)
            view[first - offset : last - offset] = self._sectors[place][first - place : last - place]

    def _stretches(self, offset: int, end: int) -> list[tuple[int, int]]:
        first = bisect.bisect_right(self._zeros, (offset, self._size))
        last = bisect.bisect_left(self._zeros, (end, 0))
        before = first - 1
        touches = first and self._zeros[before][1] > offset
        return self._zeros[before if touches else first : last]

    def _between(self, offset: int, end: int) -> list[int]:
        first = bisect.bisect_right(self._places, offset - LOG_SECTOR)
        return self._places[first : bisect.bisect_left(self._places, end)]

    def extents(self, offset: int, length: int, /) -> Iterator[Extent]:
        """See `Storage`: the file's own where nothing was patched."""
        end = offset + length
        if end > self._base.size or self._stretches(offset, end) or self._between(offset, end):
            yield from super().extents(offset, length)
        else:
            yield from self._base.extents(offset, length)

    def append(self, parts: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Refused."""
        self._refuse()

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int, /) -> None:
        """Refused."""
        self._refuse()

    def truncate(self, size: int, /) -> None:
        """Refused."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UsageError(f"{self.name} is open for reading")

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """See `Storage`."""
        self._base.close()
