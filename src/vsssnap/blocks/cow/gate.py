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
        self._changed = threading.Condition(threading.Lock())
        self._writers = 0
        self._held = False

    def __enter__(self) -> None:
        with self._changed:
            while self._held:
                self._changed.wait()
            self._writers += 1

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        with self._changed:
            self._writers -= 1
            if self._held and not self._writers:
                self._changed.notify_all()

    def hold(self, deadline: Deadline, step: str) -> None:
        """Keep new writers out and wait until those inside have left; undone by `let_go`.

        Raises:
            SnapshotTimeoutError: they have not, at the deadline; the gate is open again.
            CancelledError: the same, cancelled.
        """
        with self._changed:
            while self._held:
                self._pause(deadline, step)
            self._held = True
            try:
                while self._writers:
                    self._pause(deadline, step)
            except BaseException:
                self._held = False
                self._changed.notify_all()
                raise

    def let_go(self) -> None:
        """Let writers in again."""
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def _pause(self, deadline: Deadline, step: str) -> None:
        deadline.check(step)
        self._changed.wait(min(0.25, max(deadline.left(), 0.001)))
