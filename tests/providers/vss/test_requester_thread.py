"""Where a requester runs, what it says of itself, and what it asks for when nothing is asked of it."""

from __future__ import annotations

import json
import logging
import threading

import pytest

from vsssnap import Snapshot
from vsssnap._win32 import dll, privileges
from vsssnap.errors import ProviderUnavailableError
from vsssnap.testing.fake_vss import FakeVss
from vsssnap.testing.fake_vss.requester import FakeBackupComponents
from vsssnap.vss import VssOptions


@pytest.fixture
def vss(fake_vss: FakeVss) -> FakeVss:
    fake_vss.add_volume("C:\\")
    fake_vss.add_writer("Writer")
    return fake_vss


def test_one_thread_in_the_multithreaded_apartment_owns_every_object(
    vss: FakeVss, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[int, int]] = set()
    real = vss.check_apartment

    def watched(name: str) -> None:
        real(name)
        seen.add((threading.get_ident(), vss.apartments[threading.get_ident()][0]))

    monkeypatch.setattr(vss, "check_apartment", watched)
    with Snapshot("C:") as s:
        s.open().confirm()
    ((thread, apartment),) = seen
    assert thread != threading.get_ident(), "the caller's threads are left alone"
    assert apartment == 0, "COINIT_MULTITHREADED"


def test_logs_and_threads_say_whose_they_are(vss: FakeVss, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "vsssnap.vss")
    with Snapshot("C:"):
        set_id = str(next(iter(vss.shadows.values())).set_id)
        assert any(set_id in thread.name for thread in threading.enumerate())
    steps = [record.getMessage() for record in caplog.records if set_id in record.getMessage()]
    for step in ("add_volumes", "prepare_writers", "ask_writers", "do_snapshot_set", "backup_complete"):
        assert any(f"{step}: 0." in text for text in steps), "each step, and how long it took"


def test_a_step_that_fails_is_logged_with_its_code(vss: FakeVss, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "vsssnap.vss")
    vss.faults.fail("AddToSnapshotSet", 0x8004230C)
    with pytest.raises(ProviderUnavailableError):
        Snapshot("C:").create()
    assert "add_volumes failed after" in caplog.text
    assert "VSS_E_VOLUME_NOT_SUPPORTED" in caplog.text


@pytest.mark.parametrize(("writers", "context"), [(True, 0x0), (False, 0x10)])
def test_by_default_it_is_a_copy_of_whole_volumes_that_ends_with_the_process(
    vss: FakeVss, writers: bool, context: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[tuple[bool, int, bool]] = []
    real = FakeBackupComponents.SetBackupState

    def watched(self: FakeBackupComponents, select: bool, bootable: bool, kind: int, partial: bool) -> int:
        states.append((bool(select), kind, bool(partial)))
        return real(self, select, bootable, kind, partial)

    monkeypatch.setattr(FakeBackupComponents, "SetBackupState", watched)
    with Snapshot("C:", options=VssOptions(writers=writers)):
        assert [shadow.context for shadow in vss.shadows.values()] == [context]
    assert states == [(False, 5, False)], "no components, VSS_BT_COPY, no parts of files"
    assert vss.requesters[-1].document == []


def test_a_right_that_the_account_lacks_is_told_and_stops_nobody(
    vss: FakeVss, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "vsssnap.vss")
    asked: list[str] = []

    def enable(system: dll.System, name: str) -> bool:
        asked.append(name)
        return False

    monkeypatch.setattr(privileges, "enable", enable)
    with Snapshot("C:") as s, s.open() as reader:
        pass
    assert asked == ["SeBackupPrivilege"]
    assert "does not have SeBackupPrivilege" in caplog.text
    assert any("does not have SeBackupPrivilege" in note for note in reader.metadata.notes)
    (shadow,) = json.loads(reader.metadata.documents["vss/shadow-copies.json"])
    assert shadow["backup_privilege"] is False


def test_a_right_that_cannot_be_switched_on_is_told_with_its_code(
    vss: FakeVss, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vss.advapi32, "AdjustTokenPrivileges", lambda *_: vss.refuse(5))
    with Snapshot("C:") as s, s.open() as reader:
        pass
    assert any(
        "SeBackupPrivilege cannot be enabled: AdjustTokenPrivileges: ERROR_ACCESS_DENIED" in note
        for note in reader.metadata.notes
    )


def test_a_right_that_is_on_is_in_the_metadata_and_no_matter_for_notes(vss: FakeVss) -> None:
    with Snapshot("C:") as s, s.open() as reader:
        pass
    (shadow,) = json.loads(reader.metadata.documents["vss/shadow-copies.json"])
    assert shadow["backup_privilege"] is True
    assert not any("SeBackupPrivilege" in note for note in reader.metadata.notes)


def test_a_library_without_the_export_is_named(vss: FakeVss) -> None:
    del vss.vssapi.CreateVssBackupComponentsInternal
    with pytest.raises(ProviderUnavailableError, match="CreateVssBackupComponentsInternal") as caught:
        Snapshot("C:").create()
    assert "sfc" in caught.value.hint


def test_a_library_that_cannot_be_loaded_is_named() -> None:
    with pytest.raises(ProviderUnavailableError, match="cannot be loaded"):
        dll._open("no_such_library_at_all.dll")


def test_closing_once_more_does_nothing(vss: FakeVss) -> None:
    snapshot = Snapshot("C:")
    snapshot.create()
    for _ in range(3):
        snapshot.close()
    assert sum(call.endswith("::BackupComplete") for call in vss.calls) == 1
