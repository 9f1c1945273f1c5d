"""Snapshots that outlive their process, for `check_provider`."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vsssnap.errors import ProviderUnavailableError
from vsssnap.providers.base import SnapshotRecord
from vsssnap.testing._provider_case import Leftovers
from vsssnap.testing._provider_steps import ProviderSteps, Session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.providers.base import Provider, Taken
    from vsssnap.testing._provider_case import Written


class PersistentCase(ProviderSteps):
    """The clauses of `Provider.attach`, `Provider.list` and `Provider.purge`."""

    def persistent(self, one: Written) -> None:
        """Snapshots that outlive their process, or the refusal to take any."""
        where = f"a persistent snapshot of {one.checked.name}"
        self.unknown("before any was taken")
        provider = self.make_provider()
        offer = self.works(
            lambda: provider.probe(self.request([one], persistent=True)), "probe() answers", where
        )
        self.an_offer(offer, where)
        if offer.level is None:
            return
        for way in ("attach", "purge"):
            before = Leftovers(self.left)
            with Session(self, [one], where, persistent=True) as (_, taken):
                wanted = one.content
            self.found(taken, wanted, where)
            (record,) = self.records(taken, where)
            if way == "attach":
                with self.attached(taken, own=True, where=where):
                    pass
            else:
                clause = "purge() removes what list() gave"
                self.works(lambda r=record: self.make_provider().purge(r, self.deadline()), clause, where)  # type: ignore[misc] # bound per turn
            gone = not self.records(taken, where)
            self.clauses.require(gone, "a removed snapshot is not listed", f"{where}, {way}")
            self.unknown(f"{where}, {way}", taken.snapshot_id)
            self.nothing_left(before, f"{where}, {way}")

    def records(self, taken: Taken, where: str) -> list[SnapshotRecord]:
        listed = self.works(lambda: list(self.make_provider().list()), "list() answers", where)
        good = all(isinstance(record, SnapshotRecord) for record in listed)
        self.clauses.require(good, "list() gives SnapshotRecord objects", where)
        found = [record for record in listed if record.snapshot_id == taken.snapshot_id]
        for record in found:
            named = record.provider == type(self.make_provider()).name and record.owned
            self.clauses.require(named, "a snapshot of ours is listed as owned by its provider", f"{record}")
        return found

    def found(self, taken: Taken, wanted: bytes | None, where: str) -> None:
        """A persistent snapshot is listed, found again by its id, and holds what it held."""
        self.clauses.require(
            len(self.records(taken, where)) == 1, "list() names a persistent snapshot once", where
        )
        for _ in range(2):  # attached without `own` it stays
            with self.attached(taken, own=False, where=where) as (provider, again):
                same = (again.snapshot_id, again.volumes) == (taken.snapshot_id, taken.volumes)
                self.clauses.require(same, "attach() gives the snapshot that was taken", f"{where}: {again}")
                provider.alive()
                with provider.open(again.volumes[0]) as reader:
                    if wanted is not None:
                        clause = "a persistent snapshot holds what it held"
                        self.clauses.same(reader.readall(), wanted, clause, where)

    @contextmanager
    def attached(self, taken: Taken, *, own: bool, where: str) -> Iterator[tuple[Provider, Taken]]:
        provider = self.make_provider()
        clause = "attach() finds a persistent snapshot"
        try:
            yield (
                provider,
                self.works(lambda: provider.attach(taken.snapshot_id, own=own), clause, where),
            )
        finally:
            self.release(provider, where)

    def unknown(self, where: str, snapshot_id: str = "") -> None:
        """An id that nothing has."""
        provider = self.make_provider()
        clause = "attach() of an id that there is not raises ProviderUnavailableError"
        self.clauses.raises(
            ProviderUnavailableError,
            lambda: provider.attach(snapshot_id or str(uuid.uuid4()), own=False),
            clause,
            where,
        )
        self.release(provider, where)
