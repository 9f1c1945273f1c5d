"""The table of checksums while it is written: blocks in any order, a few pages in memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from vsssnap.formats.sidecar.structs import DIGEST, ENTRIES, PAGE, SUM_AT, Geometry, checksum

if TYPE_CHECKING:
    from vsssnap.formats.storage import Storage

_OPEN_PAGES: Final = 64  # 256 KiB; with blocks of 256 KiB they speak of 4 GiB
_MODULUS: Final = 1 << 128


class Table:
    """Entries at fixed places of a sparse file; not thread-safe.

    A page is in memory while it fills; the one that was not touched for longest goes to the file
    and is read again if a block of it comes late.  So memory is the same for any volume, and a
    page that no block touched stays a hole of the file.
    """

    def __init__(self, storage: Storage, identity: bytes, geometry: Geometry) -> None:
        self._storage = storage
        self._identity = identity
        self._geometry = geometry
        self._pages: OrderedDict[int, bytearray] = OrderedDict()
        self.page_count = 0
        self.page_sum = 0

    def put(self, block: int, digests: bytes) -> None:
        """Set the entries of blocks that follow one another, from ``block`` on."""
        done = 0
        while done < len(digests):
            page, entry = divmod(block, ENTRIES)
            count = min(ENTRIES - entry, (len(digests) - done) // DIGEST)
            self._page(page)[entry * DIGEST : (entry + count) * DIGEST] = digests[
                done : done + count * DIGEST
            ]
            done += count * DIGEST
            block += count

    def flush(self) -> None:
        """Write all that is in memory."""
        while self._pages:
            self._store(*self._pages.popitem(last=False))

    def _page(self, page: int) -> bytearray:
        data = self._pages.get(page)
        if data is None:
            if len(self._pages) >= _OPEN_PAGES:
                self._store(*self._pages.popitem(last=False))
            data = self._pages[page] = bytearray(self._storage.pread(PAGE, self._geometry.page_at(page)))
        else:
            self._pages.move_to_end(page)
        return data

    def _store(self, page: int, data: bytearray) -> None:
        at = self._geometry.page_at(page)
        before = int.from_bytes(data[SUM_AT:], "big")
        empty = not any(data[:SUM_AT])
        if empty and not before:
            return  # was a hole, stays one
        sealed = bytes(DIGEST) if empty else checksum(memoryview(data)[:SUM_AT], self._identity, at)
        self._storage.pwrite(data[:SUM_AT] + sealed, at)
        self.page_count += (not empty) - bool(before)
        self.page_sum = (self.page_sum + int.from_bytes(sealed, "big") - before) % _MODULUS
