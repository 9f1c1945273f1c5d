"""Closing a resource under running users."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from vsssnap.errors import ClosedError

if TYPE_CHECKING:
    from types import TracebackType

    from vsssnap._deadline import Deadline


class UseGate:
    """Counts the calls that run inside a resource, so that the last one lets it go.

    ``with gate:`` around every use.  `close` refuses new uses at once; the release runs
    exactly once, in whichever thread makes the gate both closed and empty.  So a file
    descriptor is never closed, and its number never given to somebody else, while a read
    that was begun on it still runs.

    A gate does not refer to what it guards until it is closed, so that an owner that is
    forgotten goes with its last reference.
    """

    __slots__ = ("_closed", "_idle", "_lock", "_release", "_released", "_users", "_what")

    def __init__(self, what: str) -> None:
        """Guard a resource.

        Args:
            what: Its name in "... is closed".
        """
        self._what = what
        self._release: Callable[[], None] | None = None
        # Re-entrant: a collection that runs in here may close this very gate, through the
        # finalizer of a view that owns the resource.
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self._users = 0
        self._closed = False
        self._released = False

    @property
    def closed(self) -> bool:
        """Whether new uses are refused."""
        return self._closed

    def __enter__(self) -> None:
        entered = False
        try:
            with self._lock:
                # Before the look at `_closed`, so that a close in between leaves the release.
                self._users += 1
                entered = True
                if not self._closed:
                    return
        except BaseException:  # Ctrl-C while the lock is left
            if entered:
                self.__exit__(None, None, None)
            raise
        self.__exit__(None, None, None)
        raise ClosedError(f"{self._what} is closed", hint="open it again")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        with self._lock:
            self._users -= 1
            last = self._closed and not self._users
        if last:
            self._let_go()

    def close(self, release: Callable[[], None]) -> None:
        """Refuse new uses; release now if there is no user, else leave that to the last one.

        Args:
            release: Lets the resource go; called without any lock held.  Of several closes the
                first one's counts.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._release = release
            last = not self._users
        if last:
            self._let_go()

    def wait_released(self, deadline: Deadline, step: str) -> None:
        """Wait until the release has run.

        Raises:
            SnapshotTimeoutError: a user is still inside at the deadline.
        """
        while True:
            with self._idle:
                tick = min(0.25, max(deadline.left(), 0.001))
                if self._idle.wait_for(lambda: self._released, tick):
                    return
            deadline.check(step)

    def _let_go(self) -> None:
        with self._lock:  # a use that was refused may find the gate empty a second time
            release, self._release = self._release, None
        if release is None:
            return
        try:
            release()
        finally:
            with self._idle:
                self._released = True
                self._idle.notify_all()
