"""Faults happen when they are ordered, as often as ordered, and no rule is forgotten."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vsssnap.errors import DeviceReadError, SnapshotLostError, UsageError
from vsssnap.testing import Faults
from vsssnap.testing.faults import FaultySource
from vsssnap.testing.memory import MemoryReader

WAIT = 60.0  # seconds until a test gives a stuck thread up


def raised(faults: Faults, calls: int, offset: int = 0, length: int = 1) -> list[int]:
    """Which of some calls of ``pread`` raise, from 1."""
    numbers = []
    for number in range(1, calls + 1):
        try:
            faults.hit("pread", offset, length)
        except OSError:
            numbers.append(number)
    return numbers


def test_without_rules_nothing_happens() -> None:
    faults = Faults()
    assert raised(faults, 3) == []
    faults.verify_all_exercised()


def test_rule_without_a_number_is_for_every_call() -> None:
    faults = Faults()
    faults.fail("pread", errno.EIO)
    assert raised(faults, 3) == [1, 2, 3]


@pytest.mark.parametrize(
    ("nth", "times", "expected"), [(1, None, [1]), (3, None, [3]), (2, 3, [2, 3, 4]), (None, 2, [1, 2])]
)
def test_rule_with_a_number_is_for_those_calls(
    nth: int | None, times: int | None, expected: list[int]
) -> None:
    faults = Faults()
    rule = faults.fail("pread", errno.EIO, nth=nth, times=times)
    assert raised(faults, 6) == expected
    assert (rule.seen, rule.fired) == (6, len(expected))


@pytest.mark.parametrize(
    ("offset", "length", "meets"),
    [(0, 100, False), (0, 101, True), (149, 1, True), (150, 1, False), (120, 0, True), (100, 0, False)],
)
def test_rule_over_a_range_is_for_calls_that_touch_it(offset: int, length: int, meets: bool) -> None:
    faults = Faults()
    faults.fail("pread", errno.EIO, over=(100, 50))
    assert raised(faults, 1, offset, length) == ([1] if meets else [])


def test_calls_elsewhere_are_not_counted() -> None:
    faults = Faults()
    faults.fail("pread", errno.EIO, nth=2, over=(100, 50))
    assert raised(faults, 5) == []
    assert raised(faults, 3, 100) == [2]


def test_rule_is_for_its_call_alone() -> None:
    faults = Faults()
    faults.fail("flush", errno.EIO)
    assert raised(faults, 2) == []


def test_number_becomes_what_the_wrapped_thing_raises() -> None:
    faults = Faults()
    faults.fail("pread", errno.ENXIO)
    with pytest.raises(OSError, match=os.strerror(errno.ENXIO)) as plain:
        faults.hit("pread")
    assert plain.value.errno == errno.ENXIO
    with pytest.raises(LookupError, match=str(errno.ENXIO)):
        faults.hit("pread", wrap=lambda number: LookupError(number))


def test_error_is_raised_as_a_fresh_copy() -> None:
    ordered, faults = SnapshotLostError("gone"), Faults()
    faults.fail("pread", ordered)
    caught = []
    for _ in range(2):
        with pytest.raises(SnapshotLostError, match="gone") as info:
            faults.hit("pread")
        caught.append(info.value)
    assert len({id(error) for error in (*caught, ordered)}) == 3
    assert ordered.__traceback__ is None


def test_function_makes_the_error() -> None:
    faults = Faults()
    faults.fail("pread", lambda: KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        faults.hit("pread")


@pytest.mark.parametrize("arguments", [{"nth": 0}, {"nth": -1}])
def test_numbers_begin_at_one(arguments: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="nth"):
        Faults().fail("pread", errno.EIO, **arguments)  # type: ignore[arg-type]  # options by name


def test_unknown_call_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(UsageError, match=r"no call 'write' to fail: known are .*pread, .*release"):
        Faults().fail("write", errno.EIO)


def test_held_call_waits_and_tells_that_it_does() -> None:
    faults, go = Faults(), threading.Event()
    rule = faults.hold("pread", go, nth=2)
    with ThreadPoolExecutor(1) as pool:
        assert faults.hit("pread") == 0
        job = pool.submit(faults.hit, "pread")
        assert rule.reached.wait(WAIT)
        assert not job.done()
        go.set()
        assert job.result(WAIT) == 0
    assert faults.hit("pread") == 0, "the third goes on"


def test_source_is_short_when_it_is_told_to_be() -> None:
    faults = Faults()
    faults.shorten(by=3, nth=1)
    with MemoryReader(b"0123456789") as reader:
        source = FaultySource(reader, faults)
        assert source.pread(10, 0) == b"0123456"
        assert source.pread(10, 0) == b"0123456789"


def test_lost_snapshot_tells_after_its_bytes_and_ever_after() -> None:
    faults = Faults()
    faults.lose(after_bytes=6)
    with MemoryReader(b"0123456789") as reader:
        source = FaultySource(reader, faults)
        assert source.pread(6, 0) == b"012345"
        source.confirm()
        for call in (lambda: source.pread(1, 0), source.confirm):
            for _ in range(2):
                with pytest.raises(SnapshotLostError, match="lost after 6 bytes"):
                    call()
    faults.verify_all_exercised()


def test_silent_loss_gives_wrong_bytes_and_only_confirm_tells() -> None:
    faults = Faults()
    faults.lose(after_bytes=5, silently=True)
    with MemoryReader(b"0123456789") as reader:
        source = FaultySource(reader, faults)
        assert source.pread(5, 0) == b"01234"
        wrong = source.pread(5, 5)
        assert len(wrong) == 5
        assert wrong != b"56789"
        with pytest.raises(SnapshotLostError):
            source.confirm()


def test_full_storage_has_room_for_the_beginning_of_the_last_write() -> None:
    faults = Faults()
    faults.fill(after_bytes=10)
    assert [faults.room(count) for count in (4, 6, 0, 1)] == [4, 6, 0, 0]
    other = Faults()
    other.fill(after_bytes=10)
    assert [other.room(count) for count in (7, 7, 7)] == [7, 3, 0]


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (lambda f: f.fail("flush", errno.EIO, nth=2), r"flush, call 2: raises 5"),
        (lambda f: f.fail("pread", errno.EIO, over=(4096, 512)), r"pread over 4096\+512: raises 5"),
        (lambda f: f.shorten(by=2), "pread: short by 2"),
        (lambda f: f.hold("take", threading.Event()), "take: held"),
        (lambda f: f.lose(after_bytes=100), r"lost after 100 bytes \(0 were read\)"),
        (lambda f: f.fill(after_bytes=7), r"full after 7 bytes \(0 were written\)"),
    ],
)
def test_rule_that_never_fired_is_named(order: object, said: str) -> None:
    faults = Faults()
    order(faults)  # type: ignore[operator]  # a function of the table
    with pytest.raises(AssertionError, match=f"faults that never fired: .*{said}"):
        faults.verify_all_exercised()


def test_loss_that_nobody_was_told_of_is_named() -> None:
    faults = Faults()
    faults.lose(after_bytes=1, silently=True)
    with MemoryReader(b"0123456789") as reader:
        FaultySource(reader, faults).pread(10, 0)
    with pytest.raises(AssertionError, match="lost after 1 bytes"):
        faults.verify_all_exercised()


def test_many_threads_fire_a_rule_as_often_as_ordered() -> None:
    faults = Faults()
    faults.fail("pread", errno.EIO, nth=10, times=7)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: len(raised(faults, 25)), range(8)))
    assert sum(results) == 7


def test_read_error_says_where() -> None:
    faults = Faults()
    faults.fail("pread", errno.EIO)
    with MemoryReader(bytes(100)) as reader, pytest.raises(DeviceReadError) as caught:
        FaultySource(reader, faults).pread(10, 20)
    assert (caught.value.offset, caught.value.length, caught.value.errno) == (20, 10, errno.EIO)
