"""The plan of a copy, and the pump that runs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsssnap.blocks import pipeline
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.blocks.pipeline import Unit, plan, pump
from waiting import until

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
@pytest.mark.parametrize(("ordered", "keeps"), [(True, True), (False, True), (True, False)])
def test_an_error_anywhere_stops_everything_and_is_raised(where: str, ordered: bool, keeps: bool) -> None:
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
        pump(items(), work, done, buffer_size=1, workers=3, ordered=ordered, keeps=keeps, tick=tick)
    assert until(lambda: not [each for each in threading.enumerate() if each.name.startswith("vsssnap-")])


def test_the_first_error_in_the_items_order_is_the_one_raised() -> None:
    barrier = threading.Barrier(2)

    def work(item: int, buffer: bytearray) -> int:
        barrier.wait(60)
        if item == 0:
            threading.Event().wait(0.05)  # fails later in time, earlier in order
        raise ValueError(item)

    with pytest.raises(ValueError, match=r"^0$"):
        pump(range(2), work, lambda *_: None, buffer_size=1, workers=2)


def test_a_worker_that_hangs_in_the_system_holds_ctrl_c_for_a_moment_only() -> None:
    stuck, inside = threading.Event(), threading.Event()

    def work(item: int, buffer: bytearray) -> int:
        inside.set()
        assert stuck.wait(60)
        return item

    def tick() -> None:
        assert inside.wait(60)
        raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        pump(range(3), work, lambda item, result: None, buffer_size=1, workers=2, tick=tick)
    took = time.monotonic() - begin
    stuck.set()
    assert took < 25, "it is a half second; one that fails by itself is waited for longer"


def test_a_worker_that_hangs_in_the_system_does_not_hide_the_error_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "PATIENCE", 0.2)
    stuck, inside = threading.Event(), threading.Event()

    def work(item: int, buffer: bytearray) -> int:
        if item:
            assert inside.wait(60)
            raise ValueError(item)
        inside.set()
        assert stuck.wait(60)
        return item

    with pytest.raises(ValueError, match=r"^1$"):
        pump(range(3), work, lambda item, result: None, buffer_size=1, workers=2)
    stuck.set()


@pytest.mark.parametrize("possible", [0, 1])
def test_a_system_that_starts_few_threads_is_enough_if_it_starts_one(
    possible: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, count = threading.Thread.start, iter(range(10))

    def few(thread: threading.Thread) -> None:
        if next(count) >= possible:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", few)
    got: list[int] = []
    if possible:
        pump(range(20), lambda n, _: n, lambda _, n: got.append(n), buffer_size=1, workers=4, ordered=True)
        assert got == list(range(20))
    else:
        with pytest.raises(MemoryError, match="starts no thread"):
            pump(range(20), lambda n, _: n, lambda _, n: got.append(n), buffer_size=1, workers=4)


def test_nothing_to_do_is_done_at_once() -> None:
    ticks: list[int] = []
    pump([], lambda *_: 0, lambda *_: None, buffer_size=1, workers=2, tick=lambda: ticks.append(1))
    assert ticks


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(("count", "workers"), [(0, 2), (1, 1), (5, 3), (8, 1), (203, 1), (203, 4)])
def test_results_that_keep_nothing_all_come_one_at_a_time(ordered: bool, count: int, workers: int) -> None:
    inside = threading.Lock()
    got: list[int] = []
    buffers: dict[int, set[int]] = {}

    def work(item: int, buffer: bytearray) -> int:
        buffers.setdefault(threading.get_ident(), set()).add(id(buffer))
        threading.Event().wait(0.001 if item % 7 == 0 else 0)
        return -item

    def done(item: int, result: int) -> None:
        assert inside.acquire(blocking=False), "two results at once"
        assert result == -item
        got.append(item)
        inside.release()

    pump(range(count), work, done, buffer_size=8, workers=workers, ordered=ordered, keeps=False)
    assert (got if ordered else sorted(got)) == list(range(count))
    assert all(len(own) == 1 for own in buffers.values()), "a worker changed its buffer"


def test_results_that_keep_nothing_wait_for_each_other_but_not_long() -> None:
    """A slow source shows progress, and what is held is bounded."""
    stored: list[int] = []
    seen: list[int] = []

    def items() -> Iterator[int]:
        for number in range(6):
            threading.Event().wait(0.08)
            seen.append(len(stored))
            yield number

    pump(
        items(),
        lambda item, _: item,
        lambda item, _: stored.append(item),
        buffer_size=1,
        workers=1,
        keeps=False,
    )
    assert stored == list(range(6))
    assert seen[-1] >= 3


@pytest.mark.parametrize("size", [1, 1 << 20, 16 << 20])
def test_results_that_keep_nothing_are_bounded_in_bytes(size: int) -> None:
    taken: list[int] = []
    hold = threading.Event()

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    def work(item: int, buffer: bytearray) -> int:
        if item == 0:
            hold.wait(0.3)
            raise KeyError("enough")
        return item

    with pytest.raises(KeyError):
        pump(items(), work, lambda *_: None, buffer_size=size, workers=2, ordered=True, keeps=False)
    assert len(taken) <= (19 if size <= 1 << 20 else 5)
