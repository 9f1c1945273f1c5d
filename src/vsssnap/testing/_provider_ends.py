"""How a snapshot ends before its time, for `check_provider`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeAlias

from vsssnap._deadline import Deadline
from vsssnap.errors import (
    CancelledError,
    SnapshotBusyError,
    SnapshotLostError,
    SnapshotTimeoutError,
    SourceChangedError,
)
from vsssnap.testing._clauses import run_threads
from vsssnap.testing._provider_case import SECTOR, Leftovers
from vsssnap.testing._provider_steps import ProviderSteps, Session

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from vsssnap.errors import VssSnapError
    from vsssnap.providers.base import Provider, Taken
    from vsssnap.testing._provider_case import Written

    Busy: TypeAlias = Callable[[], AbstractContextManager[object]]

_SOON = 0.2  # seconds that a take gets which cannot succeed


class EndingCase(ProviderSteps):
    """Deadlines, cancelling, and snapshots that are lost."""

    def deadlines(self, one: Written) -> None:
        """A budget that is spent or cancelled ends `prepare` or `take`, and nothing is left."""
        for early in (True, False):
            for kind in (SnapshotTimeoutError, CancelledError):
                where = f"{'prepare()' if early else 'take()'} with a deadline that is "
                where += "spent" if kind is SnapshotTimeoutError else "cancelled"
                before = Leftovers(self.left)
                provider = self.make_provider()
                over = self.over(kind)

                def steps(p: Provider = provider, d: Deadline = over, early: bool = early) -> None:
                    p.prepare(self.request([one]), d if early else self.deadline())
                    p.take(d)

                clause = "prepare() or take() ends with its deadline"
                try:
                    self.clauses.raises(kind, steps, clause, where)
                finally:
                    self.release(provider, where)
                self.gone(provider, where)
                self.nothing_left(before, where)

    def disturbed(self, one: Written) -> None:
        """A write to a source that must be still ends the snapshot."""
        if one.checked.write is None:
            return
        where = f"a snapshot of {one.checked.name} that was written to"
        with Session(self, [one], where) as (provider, taken):
            one.scribble()
            self.ended(provider, taken, (SourceChangedError, SnapshotLostError), where)

    def lost(self, one: Written, lose: Callable[[], object]) -> None:
        where = f"a snapshot of {one.checked.name} that was taken away"
        with Session(self, [one], where) as (provider, taken), provider.open(taken.volumes[0]) as reader:
            lose()
            self.ended(provider, taken, (SnapshotLostError,), where)
            clause = "a reader of a lost snapshot gives bytes or raises what the library raises"
            self.clauses.allows(lambda: reader.pread(SECTOR, 0), clause, where)

    def ended(
        self, provider: Provider, taken: Taken, kinds: tuple[type[VssSnapError], ...], where: str
    ) -> None:
        for _ in range(3):
            clause = "alive() says that the snapshot is gone, and so for every later call"
            self.clauses.raises(kinds, provider.alive, clause, where)
        clause = "open() of a snapshot that is gone says so"
        self.clauses.raises(kinds, lambda: provider.open(taken.volumes[0]), clause, where)

    def busy(self, one: Written, busy: Busy) -> None:
        """A volume that cannot be snapshotted now: no step hangs."""
        for cancel in (False, True):
            where = f"{one.checked.name} while it is busy, " + ("cancelled" if cancel else "for a moment")
            before = Leftovers(self.left)
            provider = self.make_provider()
            deadline = self.deadline() if cancel else Deadline(_SOON)
            ends = (SnapshotBusyError, CancelledError if cancel else SnapshotTimeoutError)

            def steps(p: Provider = provider, d: Deadline = deadline) -> None:
                p.prepare(self.request([one]), d)
                p.take(d)

            clause = "a volume that stays busy is given up at the deadline or when cancelled"
            with busy():
                timer = threading.Timer(_SOON, deadline.cancel)
                if cancel:
                    timer.start()
                try:
                    (raised,) = run_threads([steps], self.timeout)
                finally:
                    timer.cancel()
                self.clauses.require(isinstance(raised, ends), clause, f"{where}: {raised!r}")
                self.release(provider, where)
            if cancel:
                timer.join()
            self.nothing_left(before, where)
