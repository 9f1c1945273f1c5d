"""A set of byte or sector ranges that grows."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Ranges:
    """Disjoint ranges, joined where they touch: small while neighbours are added about in order.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._ends: list[int] = []

    def add(self, first: int, end: int) -> None:
        """Add the range from ``first`` up to, not including, ``end``."""
        if first >= end:
            return
        low = bisect_left(self._ends, first)  # the first range that ends there or behind
        high = bisect_right(self._firsts, end)  # the first one that begins behind
        if low < high:
            first = min(first, self._firsts[low])
            end = max(end, self._ends[high - 1])
        self._firsts[low:high] = [first]
        self._ends[low:high] = [end]

    def __contains__(self, at: int) -> bool:
        index = bisect_right(self._firsts, at) - 1
        return index >= 0 and at < self._ends[index]

    def gaps(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """What of a range is not in the set, ascending."""
        at = first
        for index in range(bisect_right(self._ends, first), len(self._firsts)):
            if self._firsts[index] >= end:
                break
            if self._firsts[index] > at:
                yield at, self._firsts[index]
            at = self._ends[index]
        if at < end:
            yield at, end
