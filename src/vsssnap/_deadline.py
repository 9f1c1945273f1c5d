"""One time budget for a whole operation, which any thread can cancel."""

from __future__ import annotations

import math
import threading
import time

from vsssnap.errors import CancelledError, SnapshotTimeoutError, UsageError

_TICK = 0.25  # seconds: the longest that a wait in `sleep` goes without looking at `cancel`


class Deadline:
    """A moment on `time.monotonic` by which an operation must be done.

    One object covers an operation from its first step to its last, so that no step can
    spend the time of another.  Thread-safe.
    """

    __slots__ = ("_cancelled", "_end", "_hint", "seconds", "told")

    def __init__(self, seconds: float, *, cancelled: threading.Event | None = None) -> None:
        """Start the budget now.

        Args:
            seconds: The budget, ``0 < seconds``; ``math.inf`` for no limit.
            cancelled: Shared event that ends every wait; by default one of its own.
        """
        if not isinstance(seconds, int | float):
            raise UsageError(f"a time budget is {type(seconds).__name__}, no number of seconds")
        if not seconds > 0:  # NaN is not, either
            raise UsageError(f"a time budget of {seconds} s is not positive", hint="pass seconds > 0")
        try:
            self.seconds = float(seconds)
        except OverflowError:  # a whole number that no float can hold
            self.seconds = math.inf
        self.told = self.seconds  # the number that the caller knows
        self._hint: str | None = None
        self._end = time.monotonic() + self.seconds
        self._cancelled = cancelled if cancelled is not None else threading.Event()

    def child(self, seconds: float, hint: str | None = None) -> Deadline:
        """A budget for one step: at most ``seconds``, ending with this one, cancelled with it.

        Args:
            seconds: The step's own limit.
            hint: What to do when that limit is what ends it.
        """
        left = self.left()
        found = Deadline(max(0.001, min(seconds, left)), cancelled=self._cancelled)
        found._hint = hint
        if left < seconds:
            found.told, found._hint = self.told, self._hint
        return found

    def left(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    def left_ms(self, ceiling: int = 0x7FFF_FFFF) -> int:
        """Milliseconds left, rounded up and capped at ``ceiling``."""
        return min(ceiling, math.ceil(min(self.left(), 1e9) * 1000))

    def cancel(self) -> None:
        """End the operation: every later `check` raises CancelledError."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled.is_set()

    def check(self, step: str) -> None:
        """Raise if the budget is spent or cancelled.

        Args:
            step: What is being waited for, in the caller's words; it begins the message.
        """
        if self._cancelled.is_set():
            raise CancelledError(f"{step}: cancelled", call=step)
        if time.monotonic() >= self._end:
            raise SnapshotTimeoutError(
                f"{step}: not done within {self.told:g} s",
                call=step,
                hint="raise timeout= or find what blocks it" if self._hint is None else self._hint,
            )

    def sleep(self, seconds: float, step: str) -> None:
        """Wait ``seconds``, less if the budget ends or is cancelled, which raises."""
        until = time.monotonic() + seconds
        while (rest := until - time.monotonic()) > 0:
            self.check(step)
            self._cancelled.wait(min(rest, _TICK, max(self.left(), 0.001)))
        self.check(step)
