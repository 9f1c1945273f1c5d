"""Results of several threads in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from vsssnap.blocks.mapped import mapped
from waiting import until


def _no_threads_left() -> bool:
    return until(lambda: not [each for each in threading.enumerate() if each.name.startswith("vsssnap-")])


@pytest.mark.parametrize("count", [0, 1, 23, 24, 25, 255, 256, 257, 5000])
def test_all_results_come_in_order(count: int) -> None:
    def work(item: int, buffer: bytearray) -> int:
        if item % 97 == 0:
            time.sleep(0.001)  # later items are done first
        return item * item

    assert list(mapped(range(count), work)) == [(n, n * n) for n in range(count)]
    assert _no_threads_left()


def test_a_buffer_is_one_items_own_while_it_is_worked_on() -> None:
    def work(item: int, buffer: bytearray) -> bool:
        buffer[:] = item.to_bytes(8, "big")
        time.sleep(0.0005 if item % 5 == 0 else 0)
        return int.from_bytes(buffer, "big") == item

    assert all(same for _, same in mapped(range(500), work, buffer_size=8))


def test_few_items_are_worked_on_by_the_caller() -> None:
    seen = {thread for _, thread in mapped(range(20), lambda item, buffer: threading.get_ident())}
    assert seen == {threading.get_ident()}


def test_items_are_found_while_others_are_worked_on_and_not_far_ahead() -> None:
    """Also bounded: what is kept does not grow with the number of items."""
    found: list[int] = []
    working = threading.Event()

    def items() -> Iterator[int]:
        for number in range(2000):
            if number == 100:
                assert working.wait(60), "nothing is worked on while items are found"
            found.append(number)
            yield number

    def work(item: int, buffer: bytearray) -> int:
        working.set()
        return item

    for at, (item, result) in enumerate(mapped(items(), work, ahead=128)):
        assert (item, result) == (at, at)
        assert len(found) <= at + 128 + 8


def test_an_error_is_raised_when_it_is_its_items_turn() -> None:
    def work(item: int, buffer: bytearray) -> int:
        if item in (70, 40):
            raise KeyError(item)
        return item

    got = []
    with pytest.raises(KeyError, match="40"):
        got += [item for item, _ in mapped(range(1000), work)]
    assert got == []
    for item, _ in mapped(range(1000), lambda item, buffer: work(item, buffer) if item < 40 else item):
        got.append(item)
    assert got == list(range(1000))
    assert _no_threads_left()


def test_an_error_of_the_source_is_raised_after_nothing_is_left_running() -> None:
    def items() -> Iterator[int]:
        yield from range(300)
        raise OSError("the source")

    with pytest.raises(OSError, match="the source"):
        list(mapped(items(), lambda item, buffer: item))
    assert _no_threads_left()


@pytest.mark.parametrize("count", [5, 30, 300])
def test_what_came_before_an_error_of_the_source_has_its_result_first(count: int) -> None:
    def items() -> Iterator[int]:
        yield from range(count)
        raise OSError("the source")

    got: list[tuple[int, int]] = []
    with pytest.raises(OSError, match="the source"):
        got.extend(mapped(items(), lambda item, buffer: -item))
    assert got == [(n, -n) for n in range(count)]
    assert _no_threads_left()


def test_lack_of_memory_for_the_buffers_is_raised() -> None:
    with pytest.raises(MemoryError):
        list(mapped(range(100), lambda item, buffer: item, buffer_size=1 << 62))
    assert _no_threads_left()


def test_whoever_stops_iterating_leaves_no_thread() -> None:
    results = mapped(range(10_000), lambda item, buffer: item)
    assert next(results) == (0, 0)
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert _no_threads_left()


def test_without_threads_the_caller_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    assert [result for _, result in mapped(range(100), lambda item, buffer: item + 1)] == list(range(1, 101))


def test_a_thread_that_hangs_is_not_waited_for_without_end() -> None:
    hang = threading.Event()

    def work(item: int, buffer: bytearray) -> int:
        if item == 90:
            hang.wait(120)
        return item

    results = mapped(range(200), work, ahead=80)
    try:
        for item, _ in results:
            if item == 20:
                break
        started = time.monotonic()
        results.close()  # type: ignore[attr-defined]  # it is a generator
        assert time.monotonic() - started < 60
    finally:
        hang.set()
    assert _no_threads_left()
