"""What is left behind is found and deleted; what is not ours, or is in use, or is meant to stay, never is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from vsssnap import Snapshot, list_snapshots, purge
from vsssnap.errors import SnapshotError, SnapshotPermissionError, UsageError
from vsssnap.providers import SnapshotRecord, by_name
from vsssnap.providers.vss.journal import Journal
from vsssnap.testing.fake_vss import FakeShadow, FakeVolume, FakeVss
from vsssnap.vss import purge_orphans

VOLUME = UUID(int=5)
PROGRAM = """
import sys, time
from uuid import UUID
from vsssnap import Snapshot
from vsssnap.testing.fake_vss import FakeVss
vss = FakeVss()
vss.environment["LOCALAPPDATA"] = sys.argv[1]
vss.add_volume("C:\\\\", id=UUID(int=5))
with vss.installed(), Snapshot("C:", persistent=True) as s:
    print(s.id, flush=True)
    time.sleep(100)
"""


@contextmanager
def other_program(folder: str) -> Iterator[tuple[subprocess.Popen[str], UUID]]:
    """A process that has taken persistent shadow copies and goes on; its set."""
    command = [sys.executable, "-c", PROGRAM, folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, UUID(process.stdout.readline().strip())
        finally:
            process.kill()


def left(vss: FakeVss, set_id: UUID, volume: FakeVolume, *, context: int = 0x9) -> FakeShadow:
    """A shadow copy that VSS still has."""
    shadow = FakeShadow(uuid.uuid4(), set_id, volume, vss.next_number(), context)
    vss.shadows[shadow.id] = shadow
    return shadow


@pytest.fixture
def volume(fake_vss: FakeVss) -> FakeVolume:
    return fake_vss.add_volume("C:\\", id=VOLUME)


def names(vss: FakeVss) -> list[str]:
    """The records."""
    folder = Path(vss.home, "vsssnap", "vss")
    return sorted(path.suffix for path in folder.iterdir()) if folder.is_dir() else []


@pytest.mark.posix("signals are those of POSIX")
@pytest.mark.parametrize("by", ["purge", "purge_orphans"])
def test_what_a_killed_process_left_is_found_and_deleted(
    fake_vss: FakeVss, volume: FakeVolume, by: str
) -> None:
    with other_program(fake_vss.home) as (process, set_id):
        mine = left(fake_vss, set_id, volume)
        foreign = left(fake_vss, uuid.uuid4(), volume)
        (record,) = (one for one in list_snapshots() if one.owned)
        assert (record.snapshot_id, record.owner_alive, record.kept) == (str(set_id), True, False)
        assert purge() == purge_orphans() == [], "the process lives"
        with pytest.raises(SnapshotError, match="running process"):
            purge_one(record)
        process.send_signal(signal.SIGKILL)
        process.wait()
    removed = purge() if by == "purge" else purge_orphans()
    assert [one.snapshot_id for one in removed] == [str(set_id)]
    assert list(fake_vss.shadows.values()) == [foreign]
    assert mine.lost
    assert names(fake_vss) == []


def purge_one(record: SnapshotRecord) -> None:
    from vsssnap._deadline import Deadline

    by_name("vss").purge(record, Deadline(10))


def test_what_others_made_is_listed_and_never_deleted(fake_vss: FakeVss, volume: FakeVolume) -> None:
    left(fake_vss, uuid.uuid4(), volume, context=0x1D)
    (record,) = list_snapshots()
    assert not record.owned
    assert purge() == purge_orphans() == []
    with pytest.raises(SnapshotError, match="not of this account"):
        purge_one(record)
    assert len(fake_vss.shadows) == 1


def test_what_was_closed_is_meant_to_stay(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with Snapshot("C:", persistent=True) as s:
        assert names(fake_vss) == [".taking"]
        assert [(one.owned, one.owner_alive, one.kept) for one in list_snapshots()] == [(True, True, False)]
    assert names(fake_vss) == [".kept"]
    assert [(one.owned, one.owner_alive, one.kept) for one in list_snapshots()] == [(True, False, True)]
    assert purge() == purge_orphans() == []
    Snapshot.attach(s.id, own=True).close()
    assert not fake_vss.shadows
    assert names(fake_vss) == []


@pytest.mark.parametrize("call", ["close", "unlink", "replace"])
def test_what_is_meant_to_stay_is_never_seen_as_left_behind(
    fake_vss: FakeVss, volume: FakeVolume, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    seen: list[tuple[bool, bool]] = []
    original, busy = getattr(os, call), threading.Lock()

    def look(*arguments: object) -> None:
        original(*arguments)
        if busy.acquire(blocking=False):  # another process looks right after each change
            seen.extend((one.alive, one.kept) for one in Journal(fake_vss).records().values())
            busy.release()

    with Snapshot("C:", persistent=True) as s:
        monkeypatch.setattr(os, call, look)
    monkeypatch.undo()
    assert all(alive or kept for alive, kept in seen)
    assert names(fake_vss) == [".kept"]
    Snapshot.attach(s.id, own=True).close()


def test_a_set_that_ends_with_its_process_is_on_record_as_long(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with Snapshot("C:"):
        assert names(fake_vss) == [".taking"]
    assert names(fake_vss) == []


@pytest.mark.posix("modes are those of POSIX")
def test_records_are_for_the_account_alone(fake_vss: FakeVss, volume: FakeVolume) -> None:
    folder = Path(fake_vss.home, "vsssnap", "vss")
    with Snapshot("C:"):
        (record,) = folder.iterdir()
        assert record.stat().st_mode & 0o777 == 0o600
        assert folder.stat().st_mode & 0o777 == 0o700
        assert record.stem == str(next(iter(fake_vss.shadows.values())).set_id)
        assert f'"pid": {os.getpid()}' in record.read_text()


def orphan(vss: FakeVss, volume: FakeVolume, content: str | None = None) -> UUID:
    """The record of a dead process, and its set."""
    with Snapshot("C:", persistent=True) as s:
        pass
    folder = Path(vss.home, "vsssnap", "vss")
    record = (folder / f"{s.id}.kept").rename(folder / f"{s.id}.taking")
    if content is not None:
        record.write_text(content)
    return UUID(s.id)


def test_somebody_who_attaches_to_an_orphan_keeps_it(fake_vss: FakeVss, volume: FakeVolume) -> None:
    set_id = orphan(fake_vss, volume)
    Snapshot.attach(str(set_id)).close()
    assert purge() == []
    assert names(fake_vss) == [".kept"]
    assert len(fake_vss.shadows) == 1
    Snapshot.attach(str(set_id), own=True).close()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"volumes": ["\\\\\\\\?\\\\Volume{other}\\\\"]}',
        '{"volumes": 3}',
        "[" * 100000,
        '{"pid": "x"}',
    ],
)
def test_a_record_that_is_not_of_these_shadow_copies_is_not_believed(
    fake_vss: FakeVss, volume: FakeVolume, content: str
) -> None:
    orphan(fake_vss, volume, content)
    assert [one.owned for one in list_snapshots()] == [False]
    assert purge() == purge_orphans() == []
    assert len(fake_vss.shadows) == 1


def test_records_of_sets_that_are_gone_are_removed(fake_vss: FakeVss, volume: FakeVolume) -> None:
    orphan(fake_vss, volume)
    fake_vss.shadows.clear()
    assert names(fake_vss) == [".taking"]
    assert list_snapshots() == []
    assert names(fake_vss) == []


def test_a_record_that_is_just_being_made_is_left_alone(fake_vss: FakeVss, volume: FakeVolume) -> None:
    folder = Path(fake_vss.home, "vsssnap", "vss")
    folder.mkdir(parents=True)
    record = folder / f"{uuid.uuid4()}.taking"
    record.touch()
    assert list_snapshots() == []
    assert record.exists()
    os.utime(record, (1, 1))
    assert list_snapshots() == []
    assert not record.exists(), "nobody is at it any more"


def test_one_that_cannot_be_deleted_stops_no_other(fake_vss: FakeVss, volume: FakeVolume) -> None:
    first, second = orphan(fake_vss, volume), orphan(fake_vss, volume)
    stays = next(shadow for shadow in fake_vss.shadows.values() if shadow.set_id == first)
    stays.kept = True
    with pytest.raises(SnapshotError, match="PROVIDER_VETO"):
        purge_orphans()
    assert {shadow.set_id for shadow in fake_vss.shadows.values()} == {first}
    assert second != first
    assert names(fake_vss) == [".taking"], "the next purge tries again"
    stays.kept = False
    assert len(purge_orphans()) == 1


def test_shadow_copies_that_could_not_be_deleted_are_an_orphan(fake_vss: FakeVss, volume: FakeVolume) -> None:
    fake_vss.faults.fail("SaveAsXML", 0x8004231F)
    fake_vss.faults.fail("DeleteSnapshots", 0x80042306, times=2)
    with pytest.raises(SnapshotError):
        Snapshot("C:", persistent=True).create()
    assert len(fake_vss.shadows) == 1
    assert len(purge()) == 1
    assert not fake_vss.shadows


def test_without_a_journal_only_what_ends_by_itself_is_taken(
    fake_vss: FakeVss, volume: FakeVolume, caplog: pytest.LogCaptureFixture
) -> None:
    del fake_vss.environment["LOCALAPPDATA"]
    with Snapshot("C:"):
        assert "not in the journal" in caplog.text
    with pytest.raises(SnapshotError, match="put on record"):
        Snapshot("C:", persistent=True).create()
    assert not fake_vss.shadows
    assert "IVssBackupComponents::AbortBackup" in fake_vss.calls
    assert list_snapshots() == []


def test_who_is_not_elevated_is_told_so(fake_vss: FakeVss) -> None:
    fake_vss.elevated = False
    with pytest.raises(SnapshotPermissionError):
        purge_orphans()
    with pytest.raises(UsageError):
        purge_orphans(timeout=0)
