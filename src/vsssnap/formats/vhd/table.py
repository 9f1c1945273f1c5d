"""The block allocation table: where each block lies, read page by page and looked up.

A chain has a table in each of its images, of 4 MiB for the largest disks, so no image keeps its
own: pages are read when they are needed, and those used last are kept, in one room for the chain.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Final

from vsssnap._units import KIB, MIB
from vsssnap.formats._cache import ByteCache
from vsssnap.formats.vhd.structs import UNUSED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.formats.storage import Storage

_PAGE: Final = 4 * KIB  # bytes; a chain of hundreds has one page of each image in the room
_ENTRIES: Final = _PAGE // 4  # of a page
_KEPT: Final = 4 * MIB  # bytes of pages
_PIECE: Final = MIB  # bytes that are read at once where all is looked at
_NONE: Final = array("I")  # stands for a page that holds no block


class Table:
    """The sector of each block's bitmap, or UNUSED.  Thread-safe; no lock is held while a page is read.

    Attributes:
        offset: First byte in the file.
        cache: The pages read last.
    """

    def __init__(self, storage: Storage, offset: int, count: int) -> None:
        """Begin; reads nothing.  ``count`` entries must lie in the file."""
        self.offset = offset
        self.cache = ByteCache(_KEPT)
        self._storage = storage
        self._count = count

    def __len__(self) -> int:
        return self._count

    def used(self) -> Iterator[tuple[int, int]]:
        """All blocks that have a place, ascending, with it; the whole table is read, and nothing kept."""
        step = _PIECE // 4
        for first in range(0, self._count, step):
            entries = self._read(first, min(step, self._count - first))
            for low in range(0, len(entries), _ENTRIES):
                page = entries[low : low + _ENTRIES]
                if page != _UNUSED[: len(page)]:
                    for block, entry in enumerate(page, first + low):
                        if entry != UNUSED:
                            yield block, entry

    def runs(self, first: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Blocks ``first`` to ``end``: ``(from, to, entry)``; unused ones may be many, others are one."""
        while first < end:
            number, index = divmod(first, _ENTRIES)
            stop = min(end, (number + 1) * _ENTRIES)
            page = self._page(number)
            if page is _NONE:
                yield first, stop, UNUSED
            else:
                for block in range(first, stop):
                    yield block, block + 1, page[block - first + index]
            first = stop

    def _page(self, number: int) -> array[int]:
        page: array[int] | None = self.cache.get(number)
        if page is None:
            first = number * _ENTRIES
            page = self._read(first, min(_ENTRIES, self._count - first))
            if page == _UNUSED[: len(page)]:
                page = _NONE
            self.cache.put(number, page, 128 + 4 * len(page))
        return page

    def _read(self, first: int, count: int) -> array[int]:
        entries = array("I", self._storage.pread(4 * count, self.offset + 4 * first))
        if sys.byteorder == "little":
            entries.byteswap()
        return entries


_UNUSED: Final = array("I", [UNUSED]) * _ENTRIES
