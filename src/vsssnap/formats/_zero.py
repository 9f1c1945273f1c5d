"""Finding zeros in blocks, and making them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = 64 << 10
"""Bytes: the finest hole that is made.  4 KiB would find under 1 % more zeros in real volumes."""

# As long as a piece, so that it stays in the processor's cache while a volume passes by.
_ZEROS = bytes(PIECE)
_begins_zeros = _ZEROS.startswith

# `bytes.startswith(view)` is one memcmp that copies nothing and ends at the first byte that
# differs.  Of a piece of zeros it compares 13.5 GB/s, where `bytes(view) == zeros` makes 10.4 and
# `view == zeros`, which goes item by item through the struct module, 0.35; data costs it nothing.


def is_zero(data: memoryview) -> bool:
    """Whether all bytes are zero.

    Args:
        data: Contiguous single bytes.
    """
    if len(data) <= PIECE:
        return _begins_zeros(data)
    return all(_begins_zeros(data[at : at + PIECE]) for at in range(0, len(data), PIECE))


def fill_zero(view: memoryview) -> None:
    """Make all bytes of a view of single bytes zero, whatever its length."""
    for at in range(0, len(view), PIECE):
        part = view[at : at + PIECE]
        part[:] = _ZEROS[: len(part)] if len(part) < PIECE else _ZEROS


def data_runs(data: memoryview) -> Iterator[tuple[int, int]]:
    """Where ``data`` holds anything but zeros, in steps of `PIECE`.

    Yields:
        ``(first, last)``, ascending and never touching; multiples of `PIECE` or the end.
    """
    is_start = _ZEROS.startswith
    size = len(data)
    first = -1
    for at in range(0, size, PIECE):
        if is_start(data[at : at + PIECE]):
            if first >= 0:
                yield first, at
                first = -1
        elif first < 0:
            first = at
    if first >= 0:
        yield first, size
