"""Tables of 64-bit big-endian entries, read by the page as they are needed.

A page is 64 KiB or a cluster, whichever is less, so that opening an image costs the same
whatever its size and a random read never waits for a whole table of 2 MiB.  The last pages
used are kept; an L1 table of 32 MiB is never in memory as a whole.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Final

from vsssnap.formats._cache import ByteCache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.formats.storage import Storage

PAGE: Final = 64 << 10
_KEPT: Final = 16 << 20  # bytes: the maps of 128 GiB with clusters of 64 KiB


def words(data: bytes) -> array[int]:
    """Big-endian bytes as an array; a rest below 8 bytes is left out."""
    result = array("Q", data[: len(data) & ~7])
    if sys.byteorder == "little":
        result.byteswap()
    return result


def packed(values: array[int]) -> bytes:
    """An array as big-endian bytes."""
    if sys.byteorder == "little":
        values = values[:]
        values.byteswap()
    return values.tobytes()


class Tables:
    """Reads tables of one file; any thread."""

    def __init__(self, storage: Storage, cluster_size: int) -> None:
        self._storage = storage
        self.cache = ByteCache(_KEPT)
        self.page_size = min(PAGE, cluster_size)

    def pages(self, offset: int, first: int, last: int) -> Iterator[tuple[int, array[int], int, int]]:
        """The pages that hold entries ``first`` to ``last`` (not included) of a table.

        Args:
            offset: Of the table.
            first: Entry.
            last: Entry behind the last one.

        Yields:
            ``(number of the page's first entry, page, from, to)``: indexes of the page.

        Raises:
            CorruptImageError: the table is not all in the file.
        """
        each = self.page_size // 8
        for base in range(first - first % each, last, each):
            page = self._page(offset + base * 8, min(each, last - base) * 8)
            yield base, page, max(0, first - base), min(each, last - base)

    def entry(self, offset: int, index: int) -> int:
        """One entry of a table; raises as `pages` does."""
        each = self.page_size // 8
        base = index - index % each
        return self._page(offset + base * 8, (index - base + 1) * 8)[index - base]

    def _page(self, offset: int, least: int) -> array[int]:
        found: array[int] | None = self.cache.get(offset)
        if found is not None and len(found) * 8 >= least:
            return found
        # A table may end with the file, in the middle of a page.
        length = max(least, min(self.page_size, self._storage.size - offset))
        found = words(self._storage.pread(length, offset))
        self.cache.put(offset, found, len(found) * 8 + 200)
        return found
