"""The steps of a provider, run as the contract has them, for `check_provider`."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from vsssnap._deadline import Deadline
from vsssnap.consistency import Consistency
from vsssnap.errors import (
    CancelledError,
    SnapshotBusyError,
    SnapshotLostError,
    SourceChangedError,
    VssSnapError,
)
from vsssnap.providers.base import Offer, Provider, SnapshotRequest, SnapshotVolume, Taken
from vsssnap.testing._clauses import Clauses
from vsssnap.testing._provider_case import CheckedVolume, Leftovers, Written, requested

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType


class ProviderSteps:
    """One provider under check, and what is done with it again and again."""

    def __init__(
        self,
        make_provider: Callable[[], Provider],
        volumes: Sequence[CheckedVolume],
        options: object,
        still: bool,
        left: Callable[[], object] | None,
        threads: int,
        seed: int,
        timeout: float,
    ) -> None:
        self.make_provider = make_provider
        self.options = options
        self.still = still
        self.left = left
        self.threads = threads
        self.seed = seed
        self.timeout = timeout
        self.clauses = Clauses(type(make_provider()).__name__)
        self.written = [Written(checked, seed + n) for n, checked in enumerate(volumes)]
        self.ids: set[str] = set()

    def deadline(self) -> Deadline:
        return Deadline(self.timeout)

    def request(self, of: Sequence[Written], *, persistent: bool = False) -> SnapshotRequest:
        return self.ask(*requested([written.checked for written in of]), persistent=persistent)

    def ask(self, *volumes: object, persistent: bool = False) -> SnapshotRequest:
        return SnapshotRequest(
            volumes=volumes, require=Consistency.CRASH, persistent=persistent, options=self.options
        )

    def works(
        self,
        call: Callable[[], Any],
        clause: str,
        where: str,
        passing: tuple[type[VssSnapError], ...] = (),
    ) -> Any:  # noqa: ANN401 - the call's
        """Run what must not raise, but for what may pass; gives its result."""
        try:
            return call()
        except Exception as exc:
            if isinstance(exc, passing):
                raise
            raise AssertionError(
                f"{self.clauses.what}: {clause}; {where}: it raised {type(exc).__name__} ({exc})"
            ) from exc

    def release(self, provider: Provider, where: str) -> None:
        clause = "release() undoes whatever was begun, and once more does nothing"
        for _ in range(2):
            self.works(lambda: provider.release(self.deadline()), clause, where)

    def nothing_left(self, before: Leftovers, where: str) -> None:
        problem = before.problem()
        self.clauses.require(not problem, "a released snapshot leaves nothing", f"{where}: {problem}")

    def gone(self, provider: Provider, where: str) -> None:
        """What holds where there is no snapshot: before `take` and after `release`."""
        clause = "alive() raises SnapshotLostError when there is no snapshot"
        for _ in range(2):
            self.clauses.raises((SnapshotLostError, SourceChangedError), provider.alive, clause, where)
        volume = SnapshotVolume(name="nothing", device="nothing", size=0)
        clause = "open() raises what the library raises when there is no snapshot"
        self.clauses.raises(VssSnapError, lambda: provider.open(volume), clause, where)

    def an_offer(self, offer: Any, where: str) -> None:  # noqa: ANN401 - a driver's answer
        self.clauses.require(isinstance(offer, Offer), "probe() gives an Offer", f"{where}: {offer!r}")
        known = offer.level is None or isinstance(offer.level, Consistency)
        self.clauses.require(known, "an offer's level is a Consistency or None", f"{where}: {offer.level!r}")
        said = isinstance(offer.reason, str) and bool(offer.reason or offer.level is not None)
        self.clauses.require(said, "probe() says why not", where)

    def own_id(self, taken: Any, where: str) -> None:  # noqa: ANN401 - a driver's answer
        self.clauses.require(isinstance(taken, Taken), "take() gives a Taken", f"{where}: {taken!r}")
        own = isinstance(taken.snapshot_id, str) and taken.snapshot_id not in {"", *self.ids}
        self.clauses.require(own, "a snapshot has an id of its own", f"{where}: {taken.snapshot_id!r}")
        self.ids.add(taken.snapshot_id)

    def over(self, kind: type[VssSnapError]) -> Deadline:
        """A deadline that has ended in one way or the other."""
        if kind is CancelledError:
            deadline = self.deadline()
            deadline.cancel()
            return deadline
        deadline = Deadline(0.001)
        while deadline.left():
            time.sleep(0.001)
        return deadline


class Session:
    """A provider with a snapshot; released at the end, twice, and nothing may be left.

    Not ``alone``: somebody writes all the time, so what is left cannot be told, and the provider
    may refuse: that error passes.
    """

    def __init__(
        self,
        check: ProviderSteps,
        of: Sequence[Written],
        where: str,
        *,
        persistent: bool = False,
        alone: bool = True,
    ) -> None:
        self.check = check
        self.where = where
        self.of = of
        self.persistent = persistent
        self.alone = alone

    def __enter__(self) -> tuple[Provider, Taken]:
        works = self.check.works
        passing = () if self.alone else (SourceChangedError, SnapshotBusyError)
        for written in self.of:
            written.learn()
        self.before = Leftovers(None if self.persistent else self.check.left)
        self.provider = self.check.make_provider()
        self.request = self.check.request(self.of, persistent=self.persistent)
        try:
            offer = works(lambda: self.provider.probe(self.request), "probe() answers", self.where)
            if offer.level is not None:
                self.request = dataclasses.replace(self.request, require=offer.level)
            if self.check.still:
                self.stamp()
            clause = "prepare() takes what probe() offered"
            works(
                lambda: self.provider.prepare(self.request, self.check.deadline()),
                clause,
                self.where,
                passing,
            )
            if not self.check.still:
                self.stamp()
            clause = "instant() says whether it took the snapshot"
            alone = works(lambda: self.provider.instant(self.check.deadline()), clause, self.where, passing)
            self.check.clauses.require(isinstance(alone, bool), clause, f"{self.where}: {alone!r}")
            clause = "take() gives a snapshot of what was prepared"
            taken = works(lambda: self.provider.take(self.check.deadline()), clause, self.where, passing)
            self.check.own_id(taken, self.where)
            return self.provider, taken
        except BaseException:
            self.provider.release(self.check.deadline())
            raise

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if value is not None:
            self.provider.release(self.check.deadline())
            return
        self.check.release(self.provider, self.where)
        self.check.gone(self.provider, self.where)
        if self.alone:
            self.check.nothing_left(self.before, self.where)

    def stamp(self) -> None:
        """Write something that has returned before `take` is called."""
        for written in self.of:
            written.stamp()
