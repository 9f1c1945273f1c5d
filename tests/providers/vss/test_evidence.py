"""What comes with a shadow copy that was lost."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from vsssnap import Snapshot
from vsssnap._win32 import event_log
from vsssnap.errors import ProviderUnavailableError, SnapshotLostError
from vsssnap.testing.fake_vss import FakeEvent, FakeStorage, FakeVolume, FakeVss


@pytest.fixture
def volume(fake_vss: FakeVss) -> FakeVolume:
    return fake_vss.add_volume("C:\\", size=1 << 20, data=b"C")


def test_a_lost_shadow_copy_comes_with_what_windows_noted(fake_vss: FakeVss, volume: FakeVolume) -> None:
    volume.storage = FakeStorage(maximum=512 << 20, allocated=512 << 20, used=511 << 20)
    taken = datetime.now(UTC)
    with Snapshot("C:") as s, s.open() as disk:
        later = taken + timedelta(minutes=1)
        fake_vss.events += [
            FakeEvent(36, ("", "C:", "C:"), taken - timedelta(days=1)),
            FakeEvent(7, ("\\Device\\Harddisk0",), later, provider="disk", source=""),
            FakeEvent(24, ("C:", "D:"), later, provider="volsnap", source=""),
            FakeEvent(36, ("", "C: & <D:>"), later + timedelta(seconds=1)),
            FakeEvent(99, (), later + timedelta(seconds=2)),
        ]
        fake_vss.lose(volume)
        for _ in range(2):  # it stays lost, and Windows is asked once
            with pytest.raises(SnapshotLostError, match=r"C:\\ is gone.*\[GetSnapshotProperties") as caught:
                disk.pread(4096, 0)
            assert [note.split(" at ")[0] for note in caught.value.__notes__[:3]] == [
                "event 99 of volsnap",
                "event 36 of volsnap",
                "event 24 of volsnap",
            ]
            unknown, limit, room, storage = caught.value.__notes__
            assert unknown.endswith(f" at {later + timedelta(seconds=2):%Y-%m-%dT%H:%M:%S.%f}Z")
            assert limit.endswith("its limit (C: & <D:>)")
            assert room.endswith("(C:, D:)")
            assert "511 MiB used" in storage
            assert "512 MiB at most" in storage


def test_only_the_last_events_are_told(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with Snapshot("C:") as s, s.open() as disk:
        now = datetime.now(UTC)
        fake_vss.events += [FakeEvent(number, (), now + timedelta(seconds=number)) for number in range(1, 9)]
        fake_vss.events.append(FakeEvent(9, ("x" * 40_000,), now + timedelta(seconds=9)))  # has no room
        fake_vss.lose(volume)
        with pytest.raises(SnapshotLostError) as caught:
            disk.confirm()
    numbers = [note.split()[1] for note in caught.value.__notes__ if note.startswith("event")]
    assert numbers == ["8", "7", "6", "5", "4"]


@pytest.mark.parametrize(("call", "code"), [("EvtQuery", 5), ("EvtNext", 1722)])
def test_a_log_that_cannot_be_read_leaves_the_loss_as_it_is(
    fake_vss: FakeVss, volume: FakeVolume, call: str, code: int
) -> None:
    with Snapshot("C:") as s, s.open() as disk:
        fake_vss.faults.fail(call, code)
        fake_vss.events.append(FakeEvent(25))
        fake_vss.lose(volume)
        with pytest.raises(SnapshotLostError, match="gone") as caught:
            disk.confirm()
    assert fake_vss.faults.unused() == []
    assert not any(note.startswith("event") for note in caught.value.__notes__)


def test_a_log_that_does_not_answer_is_not_waited_for(
    fake_vss: FakeVss, volume: FakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = threading.Event()
    monkeypatch.setattr(event_log, "_PATIENCE", 0.05)
    monkeypatch.setattr(fake_vss.wevtapi, "EvtQuery", lambda *_: answer.wait(120) and 0)
    started = time.monotonic()
    try:
        with Snapshot("C:") as s, s.open() as disk:
            fake_vss.lose(volume)
            with pytest.raises(SnapshotLostError, match="gone"):
                disk.confirm()
        assert time.monotonic() - started < 60
    finally:
        answer.set()


def test_a_windows_without_an_event_log_loses_it_all_the_same(
    fake_vss: FakeVss, volume: FakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: object) -> None:
        raise ProviderUnavailableError("wevtapi.dll cannot be loaded")

    monkeypatch.setattr(FakeVss, "wevtapi", property(missing), raising=False)
    with Snapshot("C:") as s, s.open() as disk:
        fake_vss.lose(volume)
        with pytest.raises(SnapshotLostError, match="gone"):
            disk.confirm()
