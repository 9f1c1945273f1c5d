"""Waiting that no machine is too slow for: until something has happened, however long that takes."""

from __future__ import annotations

import time
from collections.abc import Callable

_PATIENCE = 60.0  # seconds until what has not happened is given up
_AHEAD = 1e6  # seconds: more than any limit that a test gives


def until(happened: Callable[[], bool], seconds: float = _PATIENCE) -> bool:
    """Wait until something is so; False if it is not after a time in which it is on any machine."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


class Late:
    """Stands for the module `time` in a module of the library.

    Its clock is the real one until what shall be waited for has begun, and then far ahead of it.  So a
    limit that is generous is over at that moment, however long it took to get there.
    """

    def __init__(self, reached: Callable[[], int], looks: int = 0) -> None:
        """Make the clock.

        Args:
            reached: How often it has begun; the clock runs ahead each time.
            looks: How often it is right before it does: for limits that begin to run only then.
        """
        self._reached = reached
        self._looks = self._left = looks
        self._seen = 0
        self._ahead = 0.0
        self.sleep = time.sleep

    def monotonic(self) -> float:
        """As `time.monotonic`."""
        seen = int(self._reached())
        if seen > self._seen:
            if self._left:
                self._left -= 1
            else:
                self._ahead += _AHEAD
                self._seen, self._left = seen, self._looks
        return time.monotonic() + self._ahead
