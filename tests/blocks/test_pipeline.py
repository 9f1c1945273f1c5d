"""The plan of a copy, and the pump that runs it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.blocks.pipeline import Unit, plan, pump

KINDS = list(ExtentKind)


@st.composite
def maps(draw: st.DrawFn) -> list[Extent]:
    extents, offset = [], 0
    for length, kind in draw(st.lists(st.tuples(st.integers(1, 70), st.sampled_from(KINDS)), max_size=30)):
        extents.append(Extent(offset, length, kind))
        offset += length
    return extents


@given(maps(), st.integers(1, 40))
def test_plan_covers_the_volume_and_keeps_every_byte_kind(extents: list[Extent], unit: int) -> None:
    size = extents[-1].end if extents else 0
    wanted = [extent.kind for extent in extents for _ in range(extent.length)]
    got: list[ExtentKind] = []
    for item in plan(extents, unit, size):
        assert item.offset == len(got)
        if isinstance(item, Extent):
            assert item.kind is not ExtentKind.DATA
            got += [item.kind] * item.length
            continue
        assert item.offset % unit == 0
        assert item.length == min(unit, size - item.offset)
        inside = [ExtentKind.ZERO] * item.length
        for offset, length in item.parts:
            inside[offset - item.offset : offset - item.offset + length] = [ExtentKind.DATA] * length
        for mark in item.marks:
            assert mark.kind not in (ExtentKind.DATA, ExtentKind.ZERO)
            inside[mark.offset - item.offset : mark.end - item.offset] = [mark.kind] * mark.length
        assert ExtentKind.DATA in inside
        assert len(inside) == item.length
        got += inside
    assert got == wanted


def test_plan_gives_a_huge_hole_as_one_range() -> None:
    size = 64 << 40
    extents = [Extent(0, 10), Extent(10, size - 20, ExtentKind.ZERO), Extent(size - 10, 10)]
    items = list(plan(extents, 1 << 20, size))
    assert [type(item) for item in items] == [Unit, Extent, Unit]


def test_plan_joins_neighbouring_ranges_of_one_kind() -> None:
    extents = [Extent(0, 7, ExtentKind.HOLE), Extent(7, 25, ExtentKind.HOLE), Extent(32, 3, ExtentKind.ZERO)]
    assert list(plan(extents, 10, 35)) == [Extent(0, 32, ExtentKind.HOLE), Extent(32, 3, ExtentKind.ZERO)]


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_ordered_results_come_in_the_items_order_one_at_a_time(workers: int) -> None:
    got: list[tuple[int, int]] = []
    inside = threading.Lock()

    def work(item: int, buffer: bytearray) -> int:
        # Later items are quicker, so that results arrive out of order.
        threading.Event().wait(0.002 if item % 5 == 0 else 0)
        return item * item

    def done(item: int, result: int) -> None:
        assert inside.acquire(blocking=False), "two results at once"
        got.append((item, result))
        inside.release()

    pump(range(200), work, done, buffer_size=16, workers=workers, ordered=True)
    assert got == [(n, n * n) for n in range(200)]


def test_unordered_results_come_one_at_a_time_and_wait_for_none() -> None:
    """A file takes one write at a time (ext4, XFS and btrfs lock it): more would only spin."""
    inside, others = threading.Lock(), threading.Event()
    got: list[int] = []

    def work(item: int, buffer: bytearray) -> int:
        if item == 0:
            assert others.wait(60), "later items wait for the first"
        return item

    def done(item: int, result: int) -> None:
        assert inside.acquire(blocking=False), "two results at once"
        got.append(item)
        if len(got) == 99:
            others.set()
        inside.release()

    pump(range(100), work, done, buffer_size=1, workers=3)
    assert sorted(got) == list(range(100))
    assert got[-1] == 0


def test_unordered_results_all_come() -> None:
    got: set[int] = set()
    pump(range(500), lambda item, _: item, lambda _, result: got.add(result), buffer_size=1, workers=4)
    assert got == set(range(500))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_buffer_is_one_items_own_until_its_result_was_taken(ordered: bool) -> None:
    wrong: list[int] = []

    def work(item: int, buffer: bytearray) -> bytearray:
        buffer[:] = item.to_bytes(8, "big")
        threading.Event().wait(0.001 if item % 3 else 0)
        return buffer

    def done(item: int, buffer: bytearray) -> None:
        if int.from_bytes(buffer, "big") != item:
            wrong.append(item)

    pump(range(300), work, done, buffer_size=8, workers=4, ordered=ordered)
    assert wrong == []


def test_items_are_not_taken_far_ahead_of_what_is_stored() -> None:
    """The source is never more than the buffers ahead, however slow the first item is."""
    taken: list[int] = []
    hold = threading.Event()

    def items() -> Iterator[int]:
        for n in range(100):
            taken.append(n)
            if n == 8:
                raise AssertionError("ran ahead")
            yield n

    def work(item: int, buffer: bytearray) -> int:
        if item == 0:
            hold.wait(0.3)
            raise KeyError("enough")
        return item

    with pytest.raises(KeyError):
        pump(items(), work, lambda *_: None, buffer_size=1, workers=2, ordered=True)
    assert len(taken) <= 5


@pytest.mark.parametrize("where", ["items", "work", "done", "tick"])
@pytest.mark.parametrize("ordered", [True, False])
def test_an_error_anywhere_stops_everything_and_is_raised(where: str, ordered: bool) -> None:
    class Broken(Exception):
        pass

    def items() -> Iterator[int]:
        for n in range(10_000):
            if where == "items" and n == 20:
                raise Broken
            yield n

    def work(item: int, buffer: bytearray) -> int:
        if where == "work" and item == 20:
            raise Broken
        return item

    def done(item: int, result: int) -> None:
        if where == "done" and item == 20:
            raise Broken
        if where == "tick":
            threading.Event().wait(0.0005)

    def tick() -> None:
        if where == "tick":
            raise Broken

    with pytest.raises(Broken):
        pump(items(), work, done, buffer_size=1, workers=3, ordered=ordered, tick=tick)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vsssnap-")]


def test_the_first_error_in_the_items_order_is_the_one_raised() -> None:
    barrier = threading.Barrier(2)

    def work(item: int, buffer: bytearray) -> int:
        barrier.wait(5)
        if item == 0:
            threading.Event().wait(0.05)  # fails later in time, earlier in order
        raise ValueError(item)

    with pytest.raises(ValueError, match=r"^0$"):
        pump(range(2), work, lambda *_: None, buffer_size=1, workers=2)


def test_nothing_to_do_is_done_at_once() -> None:
    ticks: list[int] = []
    pump([], lambda *_: 0, lambda *_: None, buffer_size=1, workers=2, tick=lambda: ticks.append(1))
    assert ticks
