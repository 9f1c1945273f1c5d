"""Extents: what a range of a volume holds, and arithmetic on sequences of them.

A sequence is *ascending and gap-free*: each extent begins where the one before ended.
Everything here is lazy and needs memory for one extent of each input.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from vsssnap.errors import UsageError

__all__ = ["Extent", "ExtentKind"]


class ExtentKind(enum.StrEnum):
    """What a reader promises about the bytes of an extent."""

    DATA = "data"
    """Bytes that must be kept.  They may happen to be zero."""
    ZERO = "zero"
    """Known zeros: a file hole, an unallocated cluster, a discarded range."""
    HOLE = "hole"
    """The source does not promise these bytes (free clusters under VSS); reads give zeros."""
    EXCLUDED = "excluded"
    """Left out on purpose (a page file); reads give zeros."""
    UNREADABLE = "unreadable"
    """The source failed to deliver them; reads raise DeviceReadError."""


READS_AS_ZERO: Final = frozenset({ExtentKind.ZERO, ExtentKind.HOLE, ExtentKind.EXCLUDED})
"""Kinds that `pread` answers with zeros; digests, compare and verify take them all as zeros."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A range of one kind.

    Attributes:
        offset: First byte.
        length: Bytes, at least 1.
        kind: What they are.
    """

    offset: int
    length: int
    kind: ExtentKind = ExtentKind.DATA

    @property
    def end(self) -> int:
        """First byte after the range."""
        return self.offset + self.length

    @property
    def reads_as_zero(self) -> bool:
        """Whether reading it gives zeros without asking a device."""
        return self.kind in READS_AS_ZERO


def coalesce(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join neighbours of one kind and drop empty ranges."""
    last: Extent | None = None
    for extent in extents:
        if not extent.length:
            continue
        if last is None:
            last = extent
        elif last.kind is extent.kind and last.end == extent.offset:
            last = Extent(last.offset, last.length + extent.length, last.kind)
        else:
            yield last
            last = extent
    if last is not None:
        yield last


def clip(extents: Iterable[Extent], offset: int, length: int) -> Iterator[Extent]:
    """The parts of ``extents`` that lie in a range; stops reading the input behind it."""
    end = offset + length
    for extent in extents:
        if extent.offset >= end:
            return
        first, last = max(extent.offset, offset), min(extent.end, end)
        if first < last:
            yield extent if last - first == extent.length else Extent(first, last - first, extent.kind)
        if extent.end >= end:
            return


def shift(extents: Iterable[Extent], by: int) -> Iterator[Extent]:
    """The same ranges ``by`` bytes further on (or back, if negative)."""
    return (Extent(extent.offset + by, extent.length, extent.kind) for extent in extents)


def fill(extents: Iterable[Extent], offset: int, length: int, kind: ExtentKind) -> Iterator[Extent]:
    """Make a sequence gap-free over a range: what lies between its extents becomes ``kind``."""
    at = offset
    for extent in clip(extents, offset, length):
        if extent.offset > at:
            yield Extent(at, extent.offset - at, kind)
        yield extent
        at = extent.end
    if at < offset + length:
        yield Extent(at, offset + length - at, kind)


def overlay(base: Iterable[Extent], top: Iterable[Extent]) -> Iterator[Extent]:
    """Lay ``top`` (ascending, gaps allowed) over ``base`` (gap-free); ``top`` wins."""
    upper = iter(top)
    above = next(upper, None)
    for below in base:
        at = below.offset
        while at < below.end:
            while above is not None and (above.end <= at or above.length <= 0):
                above = next(upper, None)
            if above is None or above.offset >= below.end:
                yield Extent(at, below.end - at, below.kind)
                break
            if above.offset > at:
                yield Extent(at, above.offset - at, below.kind)
                at = above.offset
            last = min(above.end, below.end)
            yield Extent(at, last - at, above.kind)
            at = last


def pair(a: Iterable[Extent], b: Iterable[Extent]) -> Iterator[tuple[int, int, ExtentKind, ExtentKind]]:
    """Walk two gap-free sequences over the same range together.

    Yields:
        ``(offset, length, kind in a, kind in b)``; ends where the shorter one ends.
    """
    left, right = iter(a), iter(b)
    x, y = next(left, None), next(right, None)
    while x is not None and y is not None:
        first, last = max(x.offset, y.offset), min(x.end, y.end)
        if first < last:
            yield first, last - first, x.kind, y.kind
        if x.end == last:
            x = next(left, None)
        if y.end == last:
            y = next(right, None)


def grid(extents: Iterable[Extent], unit: int, size: int) -> Iterator[tuple[int, int]]:
    """The blocks of an aligned grid that hold anything but zeros, each once.

    Args:
        extents: Ascending; gaps count as zeros.
        unit: Bytes a block; blocks begin at its multiples.
        size: Bytes of the volume; the last block ends there.

    Yields:
        ``(offset, length)``, ascending.  UNREADABLE ranges count as data: reading such a
        block is what raises.
    """
    done = 0  # blocks below this offset were given out
    for extent in extents:
        if extent.reads_as_zero or extent.length <= 0:
            continue
        first = max(extent.offset - extent.offset % unit, done)
        for offset in range(first, min(extent.end, size), unit):
            yield offset, min(unit, size - offset)
            done = offset + unit


def checked(extents: Iterable[object], offset: int, length: int, what: str) -> Iterator[Extent]:
    """Pass a foreign sequence on, clipped to a range and held to the contract.

    It may begin before the range and end behind it.

    Raises:
        UsageError: it is not ascending and gap-free over the range, or not of extents; named by ``what``.
    """
    if not length:
        return
    end = offset + length
    at: int | None = None
    for extent in extents:
        # A kind that is merely equal to a member would pass for DATA in one place and not in another.
        if not (isinstance(extent, Extent) and isinstance(extent.kind, ExtentKind)):
            raise UsageError(
                f"{what}: extents() gave {extent!r}", hint="give Extent objects with an ExtentKind"
            )
        start = _index(extent.offset, what)
        size = _index(extent.length, what)
        if size <= 0 or (start > offset if at is None else start != at):
            expected = offset if at is None else at
            raise UsageError(
                f"{what}: extents() gave {start}+{size} where {expected} had to begin and {end} is the end",
                hint="extents must be ascending and gap-free over the range asked for",
            )
        at = start + size
        first, last = max(start, offset), min(at, end)
        if first < last:
            yield Extent(first, last - first, extent.kind)
        if at >= end:
            return
    raise UsageError(
        f"{what}: extents() ended at {offset if at is None else at}, not at {end}",
        hint="extents must be ascending and gap-free over the range asked for",
    )


def _index(value: object, what: str) -> int:
    if not isinstance(value, int):
        raise UsageError(f"{what}: extents() gave {value!r} for a number of bytes", hint="give whole numbers")
    return value
