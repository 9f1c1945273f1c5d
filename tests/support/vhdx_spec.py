"""A reader of VHDX chains written from [MS-VHDX] alone: sector by sector, no checks, no speed.

It is the second witness where only one other program reads a kind of image right.  It wants sound
images whose log is empty, all in memory.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from vhdx_images import map_of


class _File:
    """One file of a chain."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.map = map_of(data)

    def entry(self, at: int) -> tuple[int, int]:
        """State and file offset of the BAT entry that lies at ``at`` (2.5.1)."""
        (value,) = struct.unpack_from("<Q", self.data, at)
        return value & 7, value >> 20 << 20


def sector(chain: Sequence[_File], number: int) -> bytes:
    """A sector of the first file of a chain (2.5.1.1)."""
    if not chain:
        return bytes(4096)  # longer than asked for: cut by the caller
    file = chain[0]
    size = file.map.sector
    if (number + 1) * size > file.map.size:
        return bytes(size)
    block, inside = divmod(number, file.map.block_size // size)
    state, place = file.entry(file.map.entry(block))
    if state in (1, 2, 3):  # UNDEFINED, ZERO, UNMAPPED
        return bytes(size)
    if state == 7:  # PARTIALLY_PRESENT: bit 0 of byte 0 is the first sector of the chunk (2.4)
        _, bitmap = file.entry(file.map.bitmap_entry(block))
        bit = number % (1 << 23)
        if not file.data[bitmap + bit // 8] >> bit % 8 & 1:
            return sector(chain[1:], number)[:size]
    elif state == 0:  # NOT_PRESENT
        return sector(chain[1:], number)[:size]
    else:
        assert state == 6, f"block {block} has the state {state}"
    return file.data[place + inside * size : place + (inside + 1) * size]


def read(*files: bytes) -> bytes:
    """All of a disk; ``files`` are the image and those behind it, nearest first."""
    chain = [_File(data) for data in files]
    first = chain[0].map
    return b"".join(sector(chain, number) for number in range(first.size // first.sector))
