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
    return fake_vss.add_volume("C:\\", size=MIB, storage=FakeStorage(maximum=400 * MIB, used=100 * MIB))


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of how much was warned."""
    texts = [record.getMessage() for record in caplog.records]
    return [text.split(" takes ")[1].split(" of ")[0] for text in texts if "limit of shadow storage" in text]


def test_a_shadow_copy_that_takes_much_is_warned_of_once_at_each_part(
    fake_vss: FakeVss, volume: FakeVolume, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage_watch, "_PAUSE", 0.0)
    with Snapshot("C:") as s, s.open() as disk:
        for used, said in (
            (100, []),
            (398, []),
            (200, []),  # older ones were deleted
            (232, ["82 %"]),
            (250, ["82 %"]),
            (290, ["82 %", "97 %"]),
            (390, ["82 %", "97 %"]),
        ):
            volume.storage = FakeStorage(maximum=400 * MIB, used=used * MIB)
            disk.pread(4096, 0)
            disk.confirm()  # VSS is asked one thing after the other
            assert warned(caplog) == said


def test_full_storage_without_a_limit_or_of_older_ones_is_nothing_to_warn_of(
    fake_vss: FakeVss, volume: FakeVolume, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage_watch, "_PAUSE", 0.0)
    with Snapshot("C:") as s, s.open() as disk:
        for storage in (
            FakeStorage(maximum=400 * MIB, used=100 * MIB),
            FakeStorage(maximum=-1, used=101 * MIB),
            FakeStorage(maximum=-1, used=1 << 40),
            FakeStorage(maximum=1 << 50, used=(1 << 40) + 1),
        ):
            volume.storage = storage
            disk.pread(4096, 0)
            disk.confirm()
    assert warned(caplog) == []


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
