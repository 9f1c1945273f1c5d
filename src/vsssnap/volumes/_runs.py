"""Which blocks are used, as runs: made of a bitmap or a table, small and quick to search."""

from __future__ import annotations

import bisect
import re
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_ALIKE = re.compile(rb"\x00+|\xff+|[^\x00\xff]+", re.DOTALL)
_ZERO_OR_NOT = re.compile(rb"\x00+|[^\x00]+", re.DOTALL)

# For each byte: the bits, from the lowest, whose value differs from that of the bit before.
_CHANGES = tuple(
    tuple(bit for bit in range(1, 8) if (byte >> bit & 1) != (byte >> (bit - 1) & 1)) for byte in range(256)
)


class Runs:
    """Alternating runs of used and free blocks, from block 0.

    Attributes:
        first: Whether block 0 is used.
        ends: The block after each run, rising; four bytes a run, so that a page of scattered bits
            stays small.
    """

    __slots__ = ("ends", "first")

    def __init__(self, first: bool, ends: array[int]) -> None:
        self.first = first
        self.ends = ends

    def between(self, start: int, stop: int) -> Iterator[tuple[int, int, bool]]:
        """The runs of a range: first block, block after it, whether used."""
        index = bisect.bisect_right(self.ends, start)
        used = self.first ^ bool(index & 1)
        while start < stop:
            end = min(self.ends[index], stop)
            yield start, end, used
            start = end
            index += 1
            used = not used


def all_used(count: int) -> Runs:
    """So many used blocks."""
    return Runs(True, array("I", [count]))


def of_bits(bitmap: bytes, count: int) -> Runs:
    """Of a bitmap, the lowest bit first; a set bit is a used block.

    Args:
        bitmap: At least ``count`` bits.
        count: Blocks, at least 1; what follows is ignored.
    """
    first = state = bitmap[0] & 1
    ends = array("I")
    add = ends.append
    for found in _ALIKE.finditer(bitmap, 0, -(-count // 8)):
        start = found.start()
        byte = bitmap[start]
        if byte in (0, 255):
            if byte & 1 != state:
                add(start * 8)
                state = byte & 1
            continue
        for at, each in enumerate(found.group(), start):
            if each & 1 != state:
                add(at * 8)
            for bit in _CHANGES[each]:
                add(at * 8 + bit)
            state = each >> 7
    while ends and ends[-1] >= count:
        ends.pop()
    add(count)
    return Runs(bool(first), ends)


def of_bytes(marks: bytes, count: int) -> Runs:
    """Of one byte a block: anything but zero is a used block."""
    ends = array("I")
    for found in _ZERO_OR_NOT.finditer(marks, 0, count):
        ends.append(found.end())
    return Runs(bool(marks[0]), ends)
