"""What the log says of shadow storage while a shadow copy is read."""

from __future__ import annotations

import math

import pytest

from vsssnap import Snapshot
from vsssnap.providers.vss import storage_watch
from vsssnap.testing.fake_vss import FakeStorage, FakeVolume, FakeVss

MIB = 1 << 20


@pytest.fixture
def volume(fake_vss: FakeVss) -> FakeVolume:
    return fake_vss.add_volume("C:\\", size=MIB, storage=FakeStorage(maximum=400 * MIB, used=MIB))


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of how much was warned."""
    texts = [record.getMessage() for record in caplog.records if "limit of its shadow" in record.getMessage()]
    return [text.split(": ", 1)[1].split(" of ", 1)[0] for text in texts]


def test_storage_that_fills_up_is_warned_of_once_at_each_part(
    fake_vss: FakeVss, volume: FakeVolume, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage_watch, "_PAUSE", 0.0)
    with Snapshot("C:") as s, s.open() as disk:
        for used, said in ((300, []), (330, ["82 %"]), (340, ["82 %"]), (396, ["82 %", "99 %"])):
            volume.storage = FakeStorage(maximum=400 * MIB, used=used * MIB)
            disk.pread(4096, 0)
            disk.confirm()  # VSS is asked one thing after the other
            assert warned(caplog) == said
        volume.storage = FakeStorage(maximum=-1, used=1 << 40)
        disk.pread(4096, 0)
        disk.confirm()
    assert len(warned(caplog)) == 2


def test_it_is_asked_for_every_ten_seconds_and_not_before(
    fake_vss: FakeVss, volume: FakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert storage_watch._PAUSE == 10
    monkeypatch.setattr(storage_watch, "_PAUSE", 1000.0)
    with Snapshot("C:") as s, s.open() as disk:
        for _ in range(3):
            disk.pread(4096, 0)
        disk.confirm()
    assert not [call for call in fake_vss.calls if call.endswith("QueryDiffAreasForVolume")]


def test_storage_that_cannot_be_asked_for_stops_nobody(
    fake_vss: FakeVss, volume: FakeVolume, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage_watch, "_PAUSE", 0.0)
    volume.storage = FakeStorage(maximum=400 * MIB, used=399 * MIB)
    fake_vss.faults.fail("CoCreateInstance", 0x80042302, times=math.inf)
    caplog.set_level("INFO", "vsssnap.vss")
    with Snapshot("C:") as s, s.open() as disk:
        disk.pread(4096, 0)
        disk.confirm()
    assert "shadow storage is not looked at" in caplog.text
    assert warned(caplog) == []
