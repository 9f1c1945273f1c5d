"""Many writers, or one instant."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from vsssnap._deadline import Deadline


class InstantGate:
    """Shared by writers, held alone for an instant, so that each write is before or after it.

    ``with gate:`` around every write.  `hold` has priority: writers that come later wait, so
    that steady writing cannot put an instant off for ever.
    """

    def __init__(self) -> None:
        # Entered by itself: Ctrl-C may come into the method by which a condition enters its lock.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._writers = 0
        self._holder: object = None

    def __enter__(self) -> None:
        entered = False
        try:
            with self._lock:
                while self._holder is not None:
                    self._changed.wait()
                self._writers += 1
                entered = True
        except BaseException:  # Ctrl-C while the lock is left
            if entered:
                self.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        with self._lock:
            self._writers -= 1
            if self._holder is not None and not self._writers:
                self._changed.notify_all()

    def hold(self, holder: object, deadline: Deadline, step: str) -> None:
        """Keep new writers out and wait until those inside have left; undone by `let_go`, whatever happens.

        Args:
            holder: Who holds it; any object of the caller's own.
            deadline: How long to wait.
            step: What is waited for, for errors.

        Raises:
            SnapshotTimeoutError: they have not, at the deadline.
            CancelledError: the same, cancelled.
        """
        with self._lock:
            while self._holder is not None:
                self._pause(deadline, step)
            self._holder = holder
            while self._writers:
                self._pause(deadline, step)

    def let_go(self, holder: object) -> None:
        """Let writers in again, if it is this one that keeps them out.  Idempotent."""
        with self._lock:
            if self._holder is holder:
                self._holder = None
                self._changed.notify_all()

    def _pause(self, deadline: Deadline, step: str) -> None:
        deadline.check(step)
        self._changed.wait(min(0.25, max(deadline.left(), 0.001)))
