"""Sparse bitmaps, and sets of neighbouring blocks as integers.

A *mask* is a set of blocks near ``first``: bit ``i`` stands for block ``first + i``.  Python's
long integers make set arithmetic on a thousand blocks one operation each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE_BYTES: Final = 4096
_PAGE_BITS: Final = PAGE_BYTES * 8


class Bitmap:
    """Bits of any number, all clear at first; memory only for pages that were touched.

    A page holds 32768 bits in 4 KiB.  Not thread-safe.
    """

    __slots__ = ("_pages",)

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def get(self, first: int, count: int) -> int:
        """Bits ``first`` to ``first + count`` as a mask."""
        mask = done = 0
        while self._pages and done < count:
            page, at = divmod(first + done, _PAGE_BITS)
            take = min(count - done, _PAGE_BITS - at)
            held = self._pages.get(page)
            if held is not None:
                bits = int.from_bytes(held[at >> 3 : (at + take + 7) >> 3], "little") >> (at & 7)
                mask |= (bits & full(take)) << done
            done += take
        return mask

    def set(self, first: int, mask: int) -> None:
        """Set the bits of ``mask``."""
        while mask:
            page, at = divmod(first, _PAGE_BITS)
            take = _PAGE_BITS - at
            bits = (mask & full(take)) << (at & 7)
            if bits:
                held = self._pages.get(page)
                if held is None:
                    held = self._pages[page] = bytearray(PAGE_BYTES)
                begin = at >> 3
                end = begin + ((bits.bit_length() + 7) >> 3)
                bits |= int.from_bytes(held[begin:end], "little")
                held[begin:end] = bits.to_bytes(end - begin, "little")
            mask >>= take
            first += take

    def __bool__(self) -> bool:
        """Whether any bit was ever set."""
        return bool(self._pages)


def full(count: int) -> int:
    """The mask of ``count`` blocks, all in it."""
    return (1 << count) - 1


def runs(mask: int) -> Iterator[tuple[int, int]]:
    """Unbroken runs of a mask, ascending: ``(first bit, number of bits)``."""
    at = 0
    while mask:
        skip = (mask & -mask).bit_length() - 1
        mask >>= skip
        count = (~mask & (mask + 1)).bit_length() - 1
        yield at + skip, count
        at += skip + count
        mask >>= count
