"""Arithmetic on extents, against a list with one kind a byte."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsssnap.blocks.extent import (
    Extent,
    ExtentKind,
    checked,
    clip,
    coalesce,
    fill,
    grid,
    overlay,
    pair,
    shift,
)
from vsssnap.errors import UsageError
from vsssnap.testing.strategies import extent_maps

DATA, ZERO, HOLE = ExtentKind.DATA, ExtentKind.ZERO, ExtentKind.HOLE


def kinds(extents: Iterable[Extent]) -> dict[int, ExtentKind]:
    """Each byte's kind; fails where two extents claim one."""
    found: dict[int, ExtentKind] = {}
    for extent in extents:
        for offset in range(extent.offset, extent.end):
            assert offset not in found
            found[offset] = extent.kind
    return found


@st.composite
def maps(draw: st.DrawFn) -> list[Extent]:
    """Small enough to be taken apart byte by byte."""
    extents, offset = [], 0
    for length, kind in draw(
        st.lists(st.tuples(st.integers(1, 9), st.sampled_from(list(ExtentKind))), max_size=12)
    ):
        extents.append(Extent(offset, length, kind))
        offset += length
    return extents


@st.composite
def islands(draw: st.DrawFn) -> list[Extent]:
    """Ascending, with gaps."""
    return [extent for extent in draw(maps()) if draw(st.booleans())]


@given(maps())
def test_coalesce_keeps_every_byte_and_leaves_no_equal_neighbours(extents: list[Extent]) -> None:
    joined = list(coalesce(extents))
    assert kinds(joined) == kinds(extents)
    assert all(a.kind is not b.kind or a.end != b.offset for a, b in itertools.pairwise(joined))


def test_coalesce_drops_empty_ranges_and_does_not_join_over_gaps() -> None:
    extents = [Extent(0, 0), Extent(0, 2), Extent(2, 0, ZERO), Extent(2, 3), Extent(7, 1)]
    assert list(coalesce(extents)) == [Extent(0, 5), Extent(7, 1)]


@given(islands(), st.integers(0, 60), st.integers(0, 60))
def test_clip_keeps_what_lies_inside(extents: list[Extent], offset: int, length: int) -> None:
    wanted = {at: kind for at, kind in kinds(extents).items() if offset <= at < offset + length}
    assert kinds(clip(extents, offset, length)) == wanted


@given(islands(), st.integers(0, 50))
def test_shift_moves_every_byte(extents: list[Extent], by: int) -> None:
    assert kinds(shift(extents, by)) == {at + by: kind for at, kind in kinds(extents).items()}


@given(islands(), st.integers(0, 60), st.integers(0, 60))
def test_fill_leaves_no_gap(extents: list[Extent], offset: int, length: int) -> None:
    known = kinds(extents)
    filled = list(fill(extents, offset, length, HOLE))
    assert kinds(filled) == {at: known.get(at, HOLE) for at in range(offset, offset + length)}


@given(maps(), islands())
def test_overlay_lets_the_upper_one_win(base: list[Extent], top: list[Extent]) -> None:
    below, above = kinds(base), kinds(top)
    assert kinds(overlay(base, top)) == {at: above.get(at, kind) for at, kind in below.items()}


@given(maps(), maps())
def test_pair_walks_two_maps_together(a: list[Extent], b: list[Extent]) -> None:
    left, right = kinds(a), kinds(b)
    found = {at: (x, y) for offset, length, x, y in pair(a, b) for at in range(offset, offset + length)}
    assert found == {at: (left[at], right[at]) for at in range(min(len(left), len(right)))}


@given(maps(), st.integers(1, 20))
def test_grid_gives_each_block_with_more_than_zeros_once(extents: list[Extent], unit: int) -> None:
    size = extents[-1].end if extents else 0
    busy = {at // unit for at, kind in kinds(extents).items() if kind in (DATA, ExtentKind.UNREADABLE)}
    wanted = [(n * unit, min(unit, size - n * unit)) for n in sorted(busy)]
    assert list(grid(extents, unit, size)) == wanted


@given(extent_maps())
def test_checked_passes_what_keeps_the_contract(extents: list[Extent]) -> None:
    length = extents[-1].end if extents else 0
    assert list(checked(extents, 0, length, "source")) == extents


@pytest.mark.parametrize(
    "extents",
    [
        [],
        [Extent(0, 5)],
        [Extent(1, 9)],
        [Extent(0, 5), Extent(4, 6)],
        [Extent(0, 5), Extent(6, 4)],
        [Extent(0, 0), Extent(0, 10)],
        [Extent(-5, 4), Extent(0, 10)],
    ],
)
def test_checked_refuses_what_breaks_it(extents: list[Extent]) -> None:
    with pytest.raises(UsageError, match="Liar: extents"):
        list(checked(extents, 0, 10, "Liar"))


def test_checked_clips_what_reaches_beyond_the_range() -> None:
    extents = [Extent(0, 15), Extent(15, 20, ZERO), Extent(35, 5)]
    assert list(checked(extents, 10, 20, "source")) == [Extent(10, 5), Extent(15, 15, ZERO)]


def test_huge_ranges_cost_nothing() -> None:
    end = (1 << 63) - 1
    extents = [Extent(0, 1), Extent(1, end - 1, ZERO)]
    assert list(grid(extents, 1 << 20, end)) == [(0, 1 << 20)]
    assert list(clip(extents, end - 1, 1)) == [Extent(end - 1, 1, ZERO)]
