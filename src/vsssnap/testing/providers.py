"""The contract of `Provider`, as a check."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from vsssnap._units import is_power_of_two
from vsssnap.blocks.reader import BlockReader
from vsssnap.consistency import Consistency
from vsssnap.errors import SnapshotBusyError, SourceChangedError, VssSnapError
from vsssnap.metadata import WriterReport
from vsssnap.providers.base import PROVIDER_API, Provider, SnapshotVolume, Taken
from vsssnap.testing._clauses import run_threads
from vsssnap.testing._provider_case import CheckedVolume as CheckedVolume
from vsssnap.testing._provider_case import (
    Leftovers,
    Pair,
    Written,
    holds,
    meanwhile,
    requested,
    texts,
)
from vsssnap.testing._provider_ends import EndingCase
from vsssnap.testing._provider_kept import PersistentCase
from vsssnap.testing._provider_steps import Session
from vsssnap.testing.readers import check_reader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

_ROUNDS = 3  # snapshots taken while an application counts in two places
_CLOCK = timedelta(seconds=2)  # that a clock may be set back while a snapshot is taken


def check_provider(
    make_provider: Callable[[], Provider],
    volumes: Sequence[CheckedVolume],
    *,
    options: object = None,
    still: bool = False,
    busy: Callable[[], AbstractContextManager[object]] | None = None,
    lose: Callable[[], object] | None = None,
    left: Callable[[], object] | None = None,
    threads: int = 4,
    seed: int = 0,
    timeout: float = 60.0,
) -> None:
    """Hold a provider to the contract of `Provider`.

    Snapshots are taken of every volume alone and, if the provider offers it, of all at one instant,
    while their applications write; each is compared with what the volume held.  After every one
    this process must hold as many descriptors, threads and child processes as before.

    Args:
        make_provider: Makes a provider object; one for each snapshot.
        volumes: What it can snapshot, one at least; they are written to.
        options: What it is asked with.
        still: It watches sources that nobody may write: there are no writes while a snapshot
            exists, and one that comes must end it.
        busy: A context manager inside which the first volume cannot be snapshotted: the provider
            must say so, or give up at its deadline or when cancelled.
        lose: Takes away the snapshots of the first volume that exist; called once, at the very end.
        left: A look at what a snapshot might leave outside this process (files, devices): anything
            that can be compared, and must be the same afterwards.
        threads: How many read at once.
        seed: Of all that is random.
        timeout: Seconds for each step of the provider, and for anything that runs in threads.

    Raises:
        AssertionError: a clause is broken; the message says which and where.
        UsageError: a volume is too small to be written to.
    """
    check = _ProviderCheck(make_provider, volumes, options, still, left, threads, seed, timeout)
    with check.clauses.during("asking for facts"):
        check.facts()
    for one in check.written:
        with check.clauses.during(f"snapshots of {one.checked.name}"):
            check.alone(one)
    if len(check.written) > 1 and check.offers(check.written) is not None:
        with check.clauses.during("snapshots of all volumes"):
            check.taken(check.written)
            check.content(check.written)
    with check.clauses.during("persistent snapshots"):
        check.persistent(check.written[0])
    if busy is not None:
        with check.clauses.during("snapshots of a busy volume"):
            check.busy(check.written[0], busy)
    if lose is not None:
        with check.clauses.during("a lost snapshot"):
            check.lost(check.written[0], lose)


class _ProviderCheck(PersistentCase, EndingCase):
    """The clauses, one method each."""

    def facts(self) -> None:
        require = self.clauses.require
        provider = self.make_provider()
        kind = type(provider)
        require(isinstance(provider, Provider), "a provider is a Provider")
        require(kind.api == PROVIDER_API, "api is that of this vsssnap", f"{kind.api}, not {PROVIDER_API}")
        name: object = getattr(kind, "name", None)
        lower = isinstance(name, str) and bool(name) and name == name.lower()
        require(lower, "name is lower case", repr(name))
        options = kind.options_type
        params: Any = getattr(options, "__dataclass_params__", None)
        frozen = options is None or (params is not None and params.frozen)
        require(frozen, "options_type is a frozen dataclass or None", repr(options))
        unusable: object = provider.unusable()
        require(unusable == "", 'unusable() is "" where the provider is used', repr(unusable))

    def alone(self, one: Written) -> None:
        """All that can be seen with one volume."""
        self.offers([one])
        self.refusals(one)
        self.order(one)
        self.deadlines(one)
        self.taken([one])
        self.content([one])
        if self.still:
            self.disturbed(one)

    def offers(self, of: Sequence[Written]) -> Consistency | None:
        """What is offered for these; None, with a reason, is only right for several."""
        where = f"probe of {', '.join(written.checked.name for written in of)}"
        before = Leftovers(self.left)
        provider = self.make_provider()
        offers = [
            self.works(lambda: provider.probe(self.request(of)), "probe() answers", where) for _ in range(2)
        ]
        for offer in offers:
            self.an_offer(offer, where)
        self.clauses.require(offers[0] == offers[1], "probe() says the same again", f"{where}: {offers}")
        self.nothing_left(before, where)
        offer = offers[0]
        seen = f"{where}: {offer.reason}"
        self.clauses.require(offer.level is not None or len(of) > 1, "probe() offers to snapshot it", seen)
        level: Consistency | None = offer.level
        return level

    def refusals(self, one: Written) -> None:
        """What no provider can snapshot."""
        before = Leftovers(self.left)
        (known,) = requested([one.checked])
        nothing = os.path.join(tempfile.gettempdir(), f"vsssnap-{uuid.uuid4()}")
        strange: dict[str, tuple[object, ...]] = {
            "an object of no known kind": (object(),),
            "a path where nothing is": (nothing,),
            "a volume and an object of no known kind": (known, object()),
            "a volume and a path where nothing is": (known, nothing),
        }
        for where, volumes in strange.items():
            provider = self.make_provider()
            clause = "probe() says no to what it cannot snapshot, and never raises"
            offer = self.works(lambda p=provider, v=volumes: p.probe(self.ask(*v)), clause, where)  # type: ignore[misc] # bound per turn
            self.an_offer(offer, where)
            self.clauses.require(offer.level is None, clause, f"{where} was offered {offer.level}")

        def taking() -> None:  # a path may vanish after it was probed
            provider.prepare(self.ask(nothing), self.deadline())
            provider.take(self.deadline())

        provider = self.make_provider()
        where = "a path where nothing is"
        clause = "prepare() or take() raises what the library raises for a volume that is gone"
        self.clauses.raises(VssSnapError, taking, clause, where)
        self.release(provider, where)
        self.nothing_left(before, where)

    def order(self, one: Written) -> None:
        """Steps in the wrong order, and a release at each point."""
        before = Leftovers(self.left)
        request = self.request([one])
        provider = self.make_provider()
        where = "a provider that nothing was asked of"
        self.gone(provider, where)
        clause = "take() before prepare() raises what the library raises"
        self.clauses.raises(VssSnapError, lambda: provider.take(self.deadline()), clause, where)
        self.release(provider, where)

        provider = self.make_provider()
        provider.probe(request)
        self.release(provider, "after probe()")

        provider = self.make_provider()
        where = "after prepare()"
        provider.prepare(request, self.deadline())
        self.gone(provider, where)
        self.release(provider, where)
        self.nothing_left(before, where)

    def taken(self, of: Sequence[Written]) -> None:
        """What `take` says of the snapshot."""
        twice = [*of, of[0]]
        where = f"a snapshot of {', '.join(written.checked.name for written in twice)}"
        start = datetime.now(UTC)
        session = Session(self, twice, where)
        with session as (provider, taken):
            end = datetime.now(UTC)
            self.facts_of(taken, start, end, session.request.require, where)
            self.volumes(taken, twice, where)
            provider.alive()

    def facts_of(
        self,
        taken: Any,  # noqa: ANN401 - a driver's answer
        start: datetime,
        end: datetime,
        offered: Consistency,
        where: str,
    ) -> None:
        require = self.clauses.require
        zoned = isinstance(taken.created, datetime) and taken.created.tzinfo is not None
        require(zoned, "created has a time zone", f"{where}: {taken.created!r}")
        now = start - _CLOCK <= taken.created <= end + _CLOCK
        require(now, "created is the instant", f"{where}: {taken.created}, taken {start} to {end}")
        level = isinstance(taken.level, Consistency) and taken.level >= offered
        require(level, "take() reaches what probe() offered", f"{where}: {taken.level!r}")
        reports = isinstance(taken.writers, tuple)
        reports = reports and all(isinstance(report, WriterReport) for report in taken.writers)
        require(reports, "writers are WriterReport objects", where)
        documents = isinstance(taken.documents, Mapping)
        documents = documents and all(
            isinstance(key, str) and isinstance(value, bytes) for key, value in taken.documents.items()
        )
        require(documents, "documents are bytes by name", where)
        require(texts(taken.notes), "notes are sentences", where)

    def volumes(self, taken: Taken, of: Sequence[Written], where: str) -> None:
        require = self.clauses.require
        names = [volume.name for volume in taken.volumes]
        wanted = [written.checked.name for written in of]
        clause = "there is one volume for each that was asked for, in that order and spelling"
        require(names == wanted, clause, f"{where}: {names}")
        same = taken.volumes[0].device == taken.volumes[-1].device
        require(same, "two spellings of one volume have one device", where)
        for volume, written in zip(taken.volumes, of, strict=True):
            seen = f"{where}: {volume}"
            require(isinstance(volume, SnapshotVolume), "volumes are SnapshotVolume objects", seen)
            require(bool(volume.device), "a volume names the device that was snapshotted", seen)
            require(is_power_of_two(volume.sector_size), "sector_size is a power of two", seen)
            fits = written.content is None or volume.size == len(written.content)
            require(fits and volume.size >= 0, "size is that of the volume at the instant", seen)

    def content(self, of: Sequence[Written]) -> None:
        """Readers give the instant, whatever is written."""
        where = f"a snapshot of {', '.join(written.checked.name for written in of)}"
        with Session(self, of, where) as (provider, taken):
            for written, volume in zip(of, taken.volumes, strict=True):
                self.opened(provider, written, volume, where)
                if self.still:
                    self.reads(provider, written, volume, where)
                    continue
                written.scribble()
                with meanwhile(written.scribble, self.timeout) as more:
                    more()
                    self.reads(provider, written, volume, where)
                provider.alive()
        if not self.still:
            self.instants(of, where)

    def opened(self, provider: Provider, written: Written, volume: SnapshotVolume, where: str) -> None:
        """A reader is of its volume, and shows the last write before the instant."""
        require = self.clauses.require
        clause = "open() gives a reader of the volume"
        with self.works(lambda: provider.open(volume), clause, where) as reader:
            require(isinstance(reader, BlockReader), "open() gives a BlockReader", type(reader).__name__)
            facts = (reader.size, reader.sector_size)
            seen = f"{where}: {facts}, not {(volume.size, volume.sector_size)}"
            clause = "a reader has the size and the sector size of its volume"
            require(facts == (volume.size, volume.sector_size), clause, seen)
            clause = "what was written before take() is in the snapshot"
            require(not written.mark or holds(reader, written.mark), clause, where)

    def reads(self, provider: Provider, written: Written, volume: SnapshotVolume, where: str) -> None:
        """Every reader of a volume holds the instant, and closing one leaves the snapshot."""
        self.opens(provider, volume, where)
        if written.content is not None:
            try:
                check_reader(
                    lambda: provider.open(volume),
                    written.content,
                    threads=self.threads,
                    seed=self.seed,
                    timeout=self.timeout,
                )
            except AssertionError as exc:
                clause = "a reader gives the instant while the volume is written"
                raise AssertionError(f"{self.clauses.what}: {clause}; {where}: {exc}") from exc
        elif written.checked.write is not None:
            written.stamp()
            late = written.mark
            with provider.open(volume) as reader:
                clause = "what is written after take() is not in the snapshot"
                self.clauses.require(not holds(reader, late), clause, where)
        other = dataclasses.replace(volume, name="another", device="another")
        clause = "open() of a volume that is not in the snapshot raises what the library raises"
        self.clauses.raises(VssSnapError, lambda: provider.open(other), clause, where)

    def opens(self, provider: Provider, volume: SnapshotVolume, where: str) -> None:
        """Several threads open, read and close at once; nothing but that happens to the snapshot."""

        def use() -> None:
            for _ in range(5):
                with provider.open(volume) as reader:
                    reader.pread(4096, 0)
                    reader.confirm()
                provider.alive()

        for exc in run_threads([use] * self.threads, self.timeout):
            if exc is not None:
                clause = "open() and alive() work in several threads at once"
                raise AssertionError(f"{self.clauses.what}: {clause}; {where}: {exc!r}") from exc

    def instants(self, of: Sequence[Written], where: str) -> None:
        """While an application counts in two places, one after the other, both are of one instant."""
        first, last = of[0].checked, of[-1].checked
        if first.write is None or last.write is None:
            return
        clause = "all that a snapshot holds is of one instant"
        before = Leftovers(self.left)
        for turn in range(_ROUNDS):
            pair = Pair(first, last, self.seed + turn)
            pair.step()
            try:
                ahead = self.ahead(pair, of, where)
            except (SourceChangedError, SnapshotBusyError):
                continue  # one that cannot take what is being written says so, which is right
            except ValueError as exc:
                self.clauses.broken(clause, f"{where}: {exc}")
            seen = f"{where}: the place written first is {ahead} writes ahead"
            self.clauses.require(ahead in (0, 1), clause, seen)
        self.nothing_left(before, where)

    def ahead(self, pair: Pair, of: Sequence[Written], where: str) -> int:
        """By how many writes the first place is ahead in a snapshot taken meanwhile."""
        with (
            meanwhile(pair.step, self.timeout) as more,
            Session(self, of, where, alone=False) as (provider, taken),
        ):
            more()
            with provider.open(taken.volumes[0]) as one, provider.open(taken.volumes[-1]) as two:
                return pair.seen(0, one) - pair.seen(1, two)
