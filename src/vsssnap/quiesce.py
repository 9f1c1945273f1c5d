"""Quiet applications that know nothing of snapshots, for the instant of one.

A *quiesce manager* is any context manager: it is entered after everything slow was done and
left right after the instant, newest first, also when the instant failed.  One that has a
``claims`` attribute of `Consistency.APPLICATION` declares that while it is entered its
application has flushed everything and writes nothing; if all managers of a `Snapshot` declare
it, the snapshot is APPLICATION consistent::

    with Snapshot("/srv/db", quiesce=[service_stopped("billing")]) as s:
        save_image(s.open(), "db.vsnap")

Managers may also have an ``enter(deadline)`` method, which is then called in place of
``__enter__`` with what is left of the snapshot's time budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from vsssnap import _process
from vsssnap._deadline import Deadline
from vsssnap.consistency import Consistency
from vsssnap.errors import UsageError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

__all__ = ["QuiesceManager", "claiming", "run_commands", "service_stopped"]


@runtime_checkable
class QuiesceManager(Protocol):
    """What `Snapshot` asks of a manager: to be a context manager."""

    def __enter__(self) -> object:
        """Quiet the application; return when it is quiet."""

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> object:
        """Let it go on."""


class _Managed:
    """Base of the ready-made managers: they take part in the snapshot's time budget."""

    claims: Consistency | None

    def __init__(self, timeout: float, claims: Consistency | None) -> None:
        self._timeout = Deadline(timeout).seconds  # checks it
        self.claims = claims

    def enter(self, deadline: Deadline) -> None:
        """Quiet the application within the shorter of ``timeout`` and ``deadline``."""
        raise UsageError(f"{type(self).__name__} does nothing")

    def leave(self) -> None:
        """Let the application go on, with a budget of its own."""
        raise UsageError(f"{type(self).__name__} does nothing")

    def __enter__(self) -> None:
        self.enter(Deadline(self._timeout))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.leave()

    def _budget(self, deadline: Deadline) -> Deadline:
        # A child budget must end when the snapshot is cancelled, so it shares the event.
        return deadline.child(self._timeout)


class _Commands(_Managed):
    def __init__(
        self,
        before: Sequence[str],
        after: Sequence[str],
        timeout: float,
        claims: Consistency | None,
    ) -> None:
        super().__init__(timeout, claims)
        for command in (before, after):
            if isinstance(command, str) or not all(isinstance(word, str) for word in command):
                raise UsageError(
                    f"{command!r} is no command", hint='pass a list such as ["sync"]; there is no shell'
                )
        if not before and not after:
            raise UsageError("run_commands has nothing to run", hint="pass before= or after=")
        self._before = list(before)
        self._after = list(after)

    def enter(self, deadline: Deadline) -> None:
        if self._before:
            try:
                _process.run_checked(
                    self._before,
                    self._budget(deadline),
                    "command before the instant",
                    hint="run it by hand to see why; no snapshot was taken",
                )
            except BaseException as exc:
                # It may have quieted the application before it failed, so `after` is owed.
                try:
                    self.leave()
                except Exception as failed:  # the first error is the one to raise
                    exc.add_note(f"letting the application go on failed too: {failed}")
                raise

    def leave(self) -> None:
        if self._after:
            _process.run_checked(
                self._after,
                Deadline(self._timeout),
                "command after the instant",
                hint="look whether the application runs: this command was to let it go on",
            )


class _ServiceStopped(_Managed):
    def __init__(self, name: str, timeout: float, claims: Consistency | None) -> None:
        super().__init__(timeout, claims)
        self._service = _process.Service(name)
        self._stopped = False

    def enter(self, deadline: Deadline) -> None:
        budget = self._budget(deadline)
        if not self._service.running(budget):
            return  # it was not running, so it is not started afterwards either
        self._stopped = True  # from here on it is owed a start, however the stop ends
        try:
            self._service.stop(budget)
        except BaseException as exc:
            try:
                self.leave()
            except Exception as failed:  # the first error is the one to raise
                exc.add_note(f"starting it again failed too: {failed}")
            raise

    def leave(self) -> None:
        if self._stopped:
            self._stopped = False
            self._service.start(Deadline(self._timeout))


class _Claiming:
    """A context manager with a claim."""

    def __init__(self, manager: AbstractContextManager[object], claims: Consistency) -> None:
        self._manager = manager
        self.claims = claims

    def __enter__(self) -> object:
        return self._manager.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        return self._manager.__exit__(kind, value, trace)


def run_commands(
    *,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
    timeout: float = 60.0,
    claims: Consistency | None = None,
) -> AbstractContextManager[None]:
    """Run one command before the instant and one after it.

    ``after`` runs whenever ``before`` was started, also if that failed.  A command that ends with
    a status other than 0 is a QuiesceError; one that is late is killed with all it started.

    Args:
        before: Program and arguments; no shell.
        after: The same.
        timeout: Seconds for each.
        claims: What being between the two is worth; a command by itself promises nothing.
    """
    return _Commands(before, after, timeout, claims)


def service_stopped(
    name: str, *, timeout: float = 120.0, claims: Consistency | None = Consistency.APPLICATION
) -> AbstractContextManager[None]:
    """Stop a service for the instant, and start it again.

    A service that does not run is left stopped.

    Args:
        name: As systemd or the Windows service control manager knows it.
        timeout: Seconds for stopping, and again for starting.
        claims: A stopped service has flushed and writes nothing; pass None if that is not so.
    """
    return _ServiceStopped(name, timeout, claims)


def claiming(
    manager: AbstractContextManager[object], *, claims: Consistency
) -> AbstractContextManager[object]:
    """Let a context manager of your own declare what it is worth.

    Args:
        manager: Quiets an application while it is entered.
        claims: `Consistency.APPLICATION` if the application has then flushed and writes nothing.
    """
    return _Claiming(manager, claims)
