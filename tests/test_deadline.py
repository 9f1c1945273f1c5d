"""`vsssnap._deadline`: one budget, cancelled from anywhere.  Time is a fake that sleeps at once."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import pytest

from vsssnap import _deadline
from vsssnap._deadline import Deadline
from vsssnap.errors import CancelledError, SnapshotTimeoutError, UsageError


class Clock:
    """Stands for the module `time`: `monotonic` is what the test says."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def event(self, *, cancel_after: float = math.inf) -> Waiter:
        return Waiter(self, self.now + cancel_after)


class Waiter(threading.Event):
    """An event whose `wait` advances the clock, and which somebody sets at a given time."""

    def __init__(self, clock: Clock, cancelled_at: float) -> None:
        super().__init__()
        self.clock = clock
        self.cancelled_at = cancelled_at

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None, "a wait without an end"
        self.clock.waits.append(timeout)
        self.clock.now = min(self.clock.now + timeout, max(self.clock.now, self.cancelled_at))
        if self.clock.now >= self.cancelled_at:
            self.set()
        return self.is_set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_deadline, "time", clock)
    return clock


def test_budget_beyond_any_float_is_no_limit() -> None:
    assert Deadline(10**400).left() == math.inf


@pytest.mark.parametrize("seconds", [0, -1, -math.inf, math.nan, -(10**400)])
def test_budget_that_is_not_positive_is_refused(seconds: float) -> None:
    with pytest.raises(UsageError, match=r"time budget of .* s is not positive: pass seconds > 0"):
        Deadline(seconds)


def test_left_shrinks_with_time(clock: Clock) -> None:
    deadline = Deadline(10)
    clock.now += 4
    assert deadline.left() == 6


def test_left_is_never_negative(clock: Clock) -> None:
    deadline = Deadline(10)
    clock.now += 11
    assert deadline.left() == 0


def test_infinite_budget_never_ends(clock: Clock) -> None:
    deadline = Deadline(math.inf)
    clock.now += 1e12
    deadline.check("waiting for the writers")
    assert deadline.left() == math.inf


def test_milliseconds_are_rounded_up(clock: Clock) -> None:
    # Rounded down, the last wait would be one of 0 ms, again and again.
    deadline = Deadline(10)
    clock.now += 9.9999
    assert deadline.left_ms() == 1


@pytest.mark.parametrize("seconds", [math.inf, 1e300, 1e10])
def test_milliseconds_are_capped_at_a_signed_dword(seconds: float) -> None:
    assert Deadline(seconds).left_ms() == 0x7FFF_FFFF


def test_milliseconds_are_capped_at_the_given_slice(clock: Clock) -> None:
    assert Deadline(10).left_ms(250) == 250


def test_spent_budget_raises_with_step_and_number(clock: Clock) -> None:
    deadline = Deadline(2.5)
    clock.now += 2.5
    expected = r"^freezing /srv: not done within 2\.5 s .*raise timeout="
    with pytest.raises(SnapshotTimeoutError, match=expected) as caught:
        deadline.check("freezing /srv")
    assert caught.value.call == "freezing /srv"


@pytest.mark.parametrize(
    ("own", "hint", "expected"),
    [
        (1.0, "raise step=", "1 s [freezing /srv]: raise step="),
        (1.0, None, "1 s [freezing /srv]: raise timeout= or find what blocks it"),
        (9.0, "raise step=", "2.5 s [freezing /srv]: raise timeout= or find what blocks it"),
    ],
)
def test_the_remedy_names_the_limit_that_ended_it(
    clock: Clock, own: float, hint: str | None, expected: str
) -> None:
    step = Deadline(2.5).child(own, hint)
    clock.now += 2.5
    with pytest.raises(SnapshotTimeoutError) as caught:
        step.check("freezing /srv")
    assert str(caught.value) == f"freezing /srv: not done within {expected}"


def test_check_passes_while_there_is_time(clock: Clock) -> None:
    deadline = Deadline(2.5)
    clock.now += 2.4
    deadline.check("freezing /srv")
    assert not deadline.cancelled


def test_cancelled_budget_raises_with_step() -> None:
    deadline = Deadline(60)
    deadline.cancel()
    with pytest.raises(CancelledError, match=r"^freezing /srv: cancelled"):
        deadline.check("freezing /srv")


def test_cancelling_wins_over_lateness(clock: Clock) -> None:
    deadline = Deadline(1)
    clock.now += 2
    deadline.cancel()
    with pytest.raises(CancelledError):
        deadline.check("freezing /srv")


def test_shared_event_cancels_every_deadline_that_has_it() -> None:
    event = threading.Event()
    first, second = Deadline(60, cancelled=event), Deadline(60, cancelled=event)
    first.cancel()
    assert second.cancelled


def test_deadlines_of_their_own_are_cancelled_alone() -> None:
    first, second = Deadline(60), Deadline(60)
    first.cancel()
    assert not second.cancelled


def test_sleep_lasts_as_long_as_asked(clock: Clock) -> None:
    Deadline(60, cancelled=clock.event()).sleep(3, "waiting for the writers")
    assert clock.now == pytest.approx(1003)


def test_sleep_looks_for_cancelling_every_quarter_second(clock: Clock) -> None:
    Deadline(60, cancelled=clock.event()).sleep(3, "waiting for the writers")
    assert max(clock.waits) <= 0.25


def test_sleep_ends_with_the_budget(clock: Clock) -> None:
    deadline = Deadline(2, cancelled=clock.event())
    with pytest.raises(SnapshotTimeoutError, match="waiting for the writers: not done within 2 s"):
        deadline.sleep(10, "waiting for the writers")
    assert clock.now == pytest.approx(1002, abs=0.01)


def test_sleep_ends_when_cancelled(clock: Clock) -> None:
    deadline = Deadline(60, cancelled=clock.event(cancel_after=1))
    with pytest.raises(CancelledError, match="waiting for the writers: cancelled"):
        deadline.sleep(10, "waiting for the writers")
    assert clock.now == pytest.approx(1001)


@pytest.mark.parametrize("sleep", [0, -1])
def test_sleep_of_nothing_still_checks(clock: Clock, sleep: float) -> None:
    deadline = Deadline(60, cancelled=clock.event())
    deadline.cancel()
    with pytest.raises(CancelledError):
        deadline.sleep(sleep, "waiting for the writers")


def test_cancel_from_another_thread_ends_a_real_sleep() -> None:
    deadline, begun = Deadline(60), threading.Event()

    def in_thread(action: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=action)
        thread.start()
        return thread

    def cancel_soon() -> None:
        begun.wait(10)
        deadline.cancel()

    canceller = in_thread(cancel_soon)
    begun.set()
    with pytest.raises(CancelledError):
        deadline.sleep(50, "waiting for the writers")
    canceller.join()
