"""Entering quiesce managers and leaving them, whatever happens between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.errors import QuiesceError, VssSnapError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from vsssnap._deadline import Deadline
    from vsssnap.consistency import Consistency
    from vsssnap.quiesce import QuiesceManager


def all_claim(managers: Sequence[QuiesceManager], level: Consistency) -> bool:
    """Whether there is a manager and every one declares at least ``level``."""
    claims = [getattr(manager, "claims", None) for manager in managers]
    return bool(claims) and all(claim is not None and claim >= level for claim in claims)


class Quieted:
    """Enters managers in order and leaves them newest first, whatever happens between.

    A manager's own exception is raised as a QuiesceError, with itself as the cause.  On the way out a
    failing manager never keeps the others from leaving; the first failure is raised unless something
    else is already under way, which then gets a note.
    """

    def __init__(self, managers: Sequence[QuiesceManager], deadline: Deadline) -> None:
        self._managers = managers
        self._deadline = deadline
        self._entered: list[QuiesceManager] = []

    def __enter__(self) -> None:
        try:
            for manager in self._managers:
                self._deadline.check("quiesce applications")
                self._enter(manager)
                self._entered.append(manager)
        except BaseException as exc:
            self._leave(exc)
            raise

    def _enter(self, manager: QuiesceManager) -> None:
        enter = getattr(manager, "enter", None)
        try:
            if enter is not None:
                enter(self._deadline)
            else:
                manager.__enter__()
        except VssSnapError:
            raise
        except Exception as exc:
            raise QuiesceError(
                f"quiesce manager {type(manager).__name__} failed to quiet its application: {exc}",
                hint="look at the cause; no snapshot was taken",
            ) from exc

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._leave(value)

    def _leave(self, first: BaseException | None) -> None:
        failed: BaseException | None = None
        while self._entered:
            manager = self._entered.pop()
            try:
                manager.__exit__(
                    type(first) if first else None, first, first.__traceback__ if first else None
                )
            except BaseException as exc:
                what = f"quiesce manager {type(manager).__name__} failed to let its application go: {exc}"
                if first is not None:
                    first.add_note(what)
                elif failed is not None:
                    failed.add_note(what)
                elif isinstance(exc, Exception) and not isinstance(exc, VssSnapError):
                    failed = QuiesceError(what, hint="check that the application runs")
                    failed.__cause__ = exc
                else:
                    failed = exc
        if failed is not None:
            raise failed
