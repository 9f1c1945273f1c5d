"""Hypothesis strategies: valid values by construction, named by plural nouns.

This module alone of `vsssnap.testing` needs hypothesis.  Derive bad input from good with
`mutations`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from vsssnap._units import MAX_SIZE
from vsssnap.blocks.extent import Extent, ExtentKind

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Cmd",
    "Write",
    "contents",
    "extent_kinds",
    "extent_maps",
    "mutations",
    "ranges",
    "sizes",
    "snapshot_scripts",
    "sparse_extents",
    "volumes",
    "writes",
]


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes that go to a place.

    Attributes:
        offset: First byte.
        data: At least one byte.
    """

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Cmd:
    """A step of a `snapshot_scripts` script.

    Attributes:
        what: ``"write"``, ``"snapshot"``, ``"read"`` (the volume), ``"read snapshot"``, ``"drop"``.
        write: For ``"write"``.
        snapshot: Number of a snapshot that is there, from 0 in the order they were taken; for
            ``"read snapshot"`` and ``"drop"``.
        offset: For reads.
        length: For reads.
    """

    what: str
    write: Write | None = None
    snapshot: int = 0
    offset: int = 0
    length: int = 0


def sizes(
    *, min_size: int = 0, max_size: int = MAX_SIZE, around: Sequence[int] = (512, 4096, 1 << 16, 1 << 20)
) -> st.SearchStrategy[int]:
    """Sizes in bytes, many of them at a boundary or one off it.

    Args:
        min_size: The least.
        max_size: The most.
        around: Units; their multiples are the boundaries.
    """
    near = st.builds(
        lambda unit, count, off: unit * count + off,
        st.sampled_from(list(around)),
        st.integers(0, 8),
        st.sampled_from((-1, 0, 0, 1)),
    ).filter(lambda size: min_size <= size <= max_size)
    return st.one_of(
        st.integers(min_size, min(max_size, min_size + 64)), near, st.integers(min_size, max_size)
    )


def extent_kinds(*, unreadable: bool = True) -> st.SearchStrategy[ExtentKind]:
    """Kinds of extents, DATA first."""
    return st.sampled_from([k for k in ExtentKind if unreadable or k is not ExtentKind.UNREADABLE])


@st.composite
def extent_maps(
    draw: st.DrawFn,
    *,
    offset: int = 0,
    max_extents: int = 20,
    max_length: int = 1 << 20,
    unreadable: bool = True,
) -> list[Extent]:
    """Ascending, gap-free extents from ``offset`` on; neighbours may be of one kind."""
    result: list[Extent] = []
    at = offset
    for length in draw(st.lists(st.integers(1, max_length), max_size=max_extents)):
        result.append(Extent(at, length, draw(extent_kinds(unreadable=unreadable))))
        at += length
    return result


@st.composite
def sparse_extents(
    draw: st.DrawFn, *, size: int, max_extents: int = 10, unreadable: bool = True
) -> list[Extent]:
    """Ascending extents inside ``size`` bytes with gaps between some of them."""
    edges = sorted(draw(st.sets(st.integers(0, size), max_size=2 * max_extents)))
    pairs = itertools.pairwise(edges)
    return [
        Extent(first, last - first, draw(extent_kinds(unreadable=unreadable)))
        for first, last in pairs
        if draw(st.booleans())
    ]


@st.composite
def ranges(draw: st.DrawFn, *, size: int, beyond: int = 16) -> tuple[int, int]:
    """``(offset, length)`` that begin or end up to ``beyond`` bytes behind a volume's end."""
    offset = draw(st.integers(0, size + beyond))
    return offset, draw(st.integers(0, max(0, size - offset) + beyond))


@st.composite
def contents(draw: st.DrawFn, *, size: int) -> bytes:
    """Bytes of a block or volume: zeros, one value, a repeated pattern, noise."""
    look = draw(st.sampled_from(("zeros", "value", "pattern", "noise")))
    if look == "zeros" or not size:
        return bytes(size)
    if look == "value":
        return bytes([draw(st.integers(1, 255))]) * size
    if look == "pattern":
        pattern = draw(st.binary(min_size=1, max_size=40))
        return (pattern * (size // len(pattern) + 1))[:size]
    return draw(st.randoms(use_true_random=False)).randbytes(size)


@st.composite
def writes(draw: st.DrawFn, *, size: int, max_length: int = 4096, align: int = 1) -> Write:
    """Writes inside a volume of ``size`` bytes, at least ``align`` of them.

    Args:
        draw: Hypothesis's.
        size: Of the volume.
        max_length: Most bytes.
        align: Offsets and lengths are multiples of it.
    """
    cells = size // align
    first = draw(st.integers(0, cells - 1))
    count = draw(st.integers(1, max(1, min(cells - first, max_length // align))))
    return Write(first * align, draw(contents(size=count * align)))


@st.composite
def volumes(
    draw: st.DrawFn, *, max_size: int = 1 << 16, max_extents: int = 8, unreadable: bool = False
) -> tuple[bytes, list[Extent]]:
    """Small volumes: their bytes and an extent map that is true of them.

    DATA may be zeros; what is not DATA is zeros.
    """
    longest = max(1, max_size // max(1, max_extents))
    extents = draw(extent_maps(max_extents=max_extents, max_length=longest, unreadable=unreadable))
    parts = [
        draw(contents(size=extent.length)) if extent.kind is ExtentKind.DATA else bytes(extent.length)
        for extent in extents
    ]
    return b"".join(parts), extents


@st.composite
def snapshot_scripts(
    draw: st.DrawFn,
    *,
    size: int,
    max_steps: int = 30,
    max_snapshots: int = 4,
    max_length: int = 4096,
    align: int = 1,
) -> list[Cmd]:
    """What may happen to a volume with snapshots, in order; every step is possible when it comes.

    Args:
        draw: Hypothesis's.
        size: Of the volume, at least ``align``.
        max_steps: Most steps.
        max_snapshots: Most snapshots at a time.
        max_length: Most bytes a write.
        align: Of writes.
    """
    steps: list[Cmd] = []
    taken, live = 0, list[int]()
    for _ in range(draw(st.integers(0, max_steps))):
        choices = ["write", "write", "read"]
        choices += ["snapshot"] * (len(live) < max_snapshots)
        choices += ["read snapshot", "read snapshot", "drop"] * bool(live)
        what = draw(st.sampled_from(choices))
        offset, length = draw(ranges(size=size))
        number = draw(st.sampled_from(live)) if what in ("read snapshot", "drop") else 0
        if what == "write":
            steps.append(Cmd(what, write=draw(writes(size=size, max_length=max_length, align=align))))
        else:
            steps.append(Cmd(what, snapshot=number, offset=offset, length=length))
        if what == "snapshot":
            live.append(taken)
            taken += 1
        elif what == "drop":
            live.remove(number)
    return steps


@st.composite
def mutations(draw: st.DrawFn, data: bytes, *, max_changes: int = 4) -> bytes:
    """Valid bytes made bad: bits turned, bytes put in or taken out, the end cut off.

    Args:
        draw: Hypothesis's.
        data: The valid bytes; nothing changes if there are none.
        max_changes: Most changes, at least one.
    """
    result = bytearray(data)
    for _ in range(draw(st.integers(1, max_changes))):
        if not result:
            break
        at = draw(st.integers(0, len(result) - 1))
        how = draw(st.sampled_from(("bit", "bit", "byte", "number", "cut", "insert", "remove")))
        if how == "bit":
            result[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "byte":
            result[at] = draw(st.integers(0, 255))
        elif how == "number":
            number = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)))
            span = result[at : at + draw(st.sampled_from((2, 4, 8)))]
            result[at : at + len(span)] = bytes([number]) * len(span)
        elif how == "cut":
            del result[at:]
        elif how == "insert":
            result[at:at] = draw(st.binary(min_size=1, max_size=16))
        else:
            del result[at : at + draw(st.integers(1, 16))]
    return bytes(result)
