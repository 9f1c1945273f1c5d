"""What exists on the machine, and removing what killed runs left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest

from vsssnap import list_snapshots, purge
from vsssnap._deadline import Deadline
from vsssnap.errors import SnapshotError, SnapshotTimeoutError, UsageError
from vsssnap.providers import SnapshotRecord
from vsssnap.testing import MemoryProvider, installed


class Machine(MemoryProvider):
    """Lists what the test says; purging what is in ``stuck`` fails."""

    name = "machine"
    records: ClassVar[list[SnapshotRecord]] = []
    stuck: ClassVar[set[str]] = set()
    purged: ClassVar[list[str]] = []
    budgets: ClassVar[list[float]] = []
    problem: ClassVar[str] = ""

    def unusable(self) -> str:
        return self.problem

    def list(self) -> Sequence[SnapshotRecord]:
        return self.records

    def purge(self, record: SnapshotRecord, deadline: Deadline, /) -> None:
        deadline.check("purge")
        self.budgets.append(deadline.seconds)
        if record.snapshot_id in self.stuck:
            raise SnapshotError(f"{record.snapshot_id} is held")
        self.purged.append(record.snapshot_id)


@pytest.fixture(autouse=True)
def machine() -> Iterator[type[Machine]]:
    for kept in (Machine.records, Machine.stuck, Machine.purged, Machine.budgets):
        kept.clear()
    Machine.problem = ""
    with installed(Machine):
        yield Machine


def record(number: int, *, owned: bool = True, alive: bool = False) -> SnapshotRecord:
    return SnapshotRecord(provider="machine", snapshot_id=f"s{number}", owned=owned, owner_alive=alive)


def test_snapshots_of_every_provider_are_listed() -> None:
    class Second(Machine):
        name = "second"
        records: ClassVar[list[SnapshotRecord]] = [SnapshotRecord(provider="second", snapshot_id="other")]

    Machine.records.append(record(1))
    with installed(Second):
        assert {found.snapshot_id for found in list_snapshots()} == {"s1", "other"}


def test_provider_that_cannot_be_used_is_left_out() -> None:
    Machine.records.append(record(1))
    Machine.problem = "no such service"
    assert list_snapshots() == []
    assert purge() == []


def test_only_what_is_ours_and_left_behind_is_purged() -> None:
    Machine.records.extend([record(1), record(2, alive=True), record(3, owned=False), record(4)])
    assert [gone.snapshot_id for gone in purge()] == Machine.purged == ["s1", "s4"]


def test_failure_is_raised_after_the_others_were_purged() -> None:
    Machine.records.extend([record(1), record(2), record(3)])
    Machine.stuck.update({"s1", "s2"})
    with pytest.raises(SnapshotError, match="s1 is held") as caught:
        purge()
    assert caught.value.__notes__ == ["s2 is held"]
    assert Machine.purged == ["s3"]


def test_budget_is_for_all() -> None:
    Machine.records.extend([record(1), record(2)])
    purge(timeout=7)
    assert Machine.budgets == [7, 7]
    with pytest.raises(UsageError):
        purge(timeout=0)
    with pytest.raises(SnapshotTimeoutError):
        purge(timeout=1e-9)
