"""Looking after VSS, through the public interface, on a fake machine."""

from __future__ import annotations

import pytest

from vsssnap import Snapshot, vss
from vsssnap.errors import (
    InsufficientStorageError,
    ProviderUnavailableError,
    SnapshotError,
    SnapshotPermissionError,
    SnapshotTimeoutError,
    UsageError,
)
from vsssnap.testing.fake_vss import FakeStorage, FakeVss

MIB = 1 << 20


def test_writers_are_listed_with_how_they_are(fake_vss: FakeVss) -> None:
    fake_vss.add_volume("C:\\")
    fake_vss.add_writer("System Writer")
    fake_vss.add_writer("ASR Writer", fails_at="freeze", code=0x800423F3)
    with Snapshot("C:"):
        pass
    assert [(report.name, report.state) for report in vss.list_writers()] == [
        ("ASR Writer", "FAILED_AT_FREEZE"),
        ("System Writer", "STABLE"),
    ]


def test_a_writer_that_does_not_answer_is_waited_for_until_the_timeout(fake_vss: FakeVss) -> None:
    fake_vss.faults.delay("GatherWriterMetadata")
    with pytest.raises(SnapshotTimeoutError):
        vss.list_writers(timeout=0.5)


def test_providers_are_listed(fake_vss: FakeVss) -> None:
    assert [(item.id, item.kind, item.version) for item in vss.list_providers()] == [
        ("b5946137-7b9f-4925-af80-51abd60b20d5", "system", "1.0.0.7")
    ]


def test_shadow_storage_is_told_for_one_volume_and_for_all(fake_vss: FakeVss) -> None:
    c = fake_vss.add_volume("C:\\", storage=FakeStorage(512 * MIB, 64 * MIB, 3))
    fake_vss.add_volume("D:\\", storage=FakeStorage(on=c))
    fake_vss.add_volume("E:\\")
    found = vss.shadow_storage()
    assert [(item.volume, item.storage, item.maximum) for item in found] == [
        ("C:\\", "C:\\", 512 * MIB),
        ("D:\\", "C:\\", None),
    ]
    assert vss.shadow_storage("c:") == found[:1]
    assert (found[0].allocated, found[0].used) == (64 * MIB, 3)
    assert vss.shadow_storage("E:") == []


@pytest.mark.parametrize("made_by_a_resize", [True, False], ids=["Windows 7", "Windows Vista"])
def test_shadow_storage_is_made_and_resized(fake_vss: FakeVss, made_by_a_resize: bool) -> None:
    fake_vss.makes_storage = made_by_a_resize
    fake_vss.add_volume("C:\\")
    fake_vss.add_volume("D:\\")
    vss.resize_shadow_storage("C:", maximum=400 * MIB, storage="D:")
    assert [(item.storage, item.maximum) for item in vss.shadow_storage("C:")] == [("D:\\", 400 * MIB)]
    assert ("IVssDifferentialSoftwareSnapshotMgmt::AddDiffArea" in fake_vss.calls) is not made_by_a_resize
    vss.resize_shadow_storage("C:", maximum=None)  # where it is
    assert [(item.storage, item.maximum) for item in vss.shadow_storage("C:")] == [("D:\\", None)]
    vss.resize_shadow_storage("D:", maximum=None)
    assert [(item.storage, item.maximum) for item in vss.shadow_storage("D:")] == [("D:\\", None)]


def test_shadow_storage_is_in_one_place(fake_vss: FakeVss) -> None:
    fake_vss.add_volume("C:\\", storage=FakeStorage())
    fake_vss.add_volume("D:\\")
    with pytest.raises(InsufficientStorageError, match=r"C:\\ has shadow storage on C:\\") as caught:
        vss.resize_shadow_storage("C:", maximum=400 * MIB, storage="D:")
    assert caught.value.code == 0x8004231E


def test_shadow_storage_that_cannot_be_made_is_told(fake_vss: FakeVss) -> None:
    fake_vss.makes_storage = False
    fake_vss.add_volume("C:\\")
    fake_vss.add_volume("D:\\", filesystem="FAT32")
    with pytest.raises(ProviderUnavailableError) as caught:
        vss.resize_shadow_storage("C:", maximum=400 * MIB, storage="D:")
    assert (caught.value.code, caught.value.call) == (0x8004230C, "AddDiffArea")
    fake_vss.server = False  # Windows Vista cannot at all
    with pytest.raises(SnapshotError, match="does not have the operation"):
        vss.resize_shadow_storage("C:", maximum=400 * MIB)


def test_too_little_shadow_storage_is_refused(fake_vss: FakeVss) -> None:
    fake_vss.add_volume("C:\\")
    with pytest.raises(InsufficientStorageError):
        vss.resize_shadow_storage("C:", maximum=MIB)
    with pytest.raises(UsageError):
        vss.resize_shadow_storage("C:", maximum=0)
    with pytest.raises(ProviderUnavailableError):
        vss.resize_shadow_storage("Q:", maximum=400 * MIB)


def test_who_is_not_elevated_is_told_so(fake_vss: FakeVss) -> None:
    fake_vss.elevated = False
    for ask in (vss.list_writers, vss.list_providers, vss.shadow_storage):
        with pytest.raises(SnapshotPermissionError):
            ask()


@pytest.mark.parametrize("step", ["CoCreateInstance", "QueryDiffAreasForVolume", "Next"])
def test_a_failure_leaves_nothing(fake_vss: FakeVss, step: str) -> None:
    fake_vss.add_volume("C:\\", storage=FakeStorage())
    fake_vss.faults.fail(step, 0x80042302)
    with pytest.raises(SnapshotError) as caught:
        vss.shadow_storage()
    assert caught.value.code == 0x80042302


def test_a_volume_that_can_have_no_shadow_storage_is_passed_by(fake_vss: FakeVss) -> None:
    for root in ("C:\\", "D:\\", "E:\\"):
        fake_vss.add_volume(root, storage=FakeStorage())
    fake_vss.faults.fail("QueryDiffAreasForVolume", 0x8004230C, skip=1)
    assert {item.volume for item in vss.shadow_storage()} == {"C:\\", "E:\\"}
    assert not fake_vss.faults.unused()


def test_volumes_that_cannot_be_listed_are_said_so(fake_vss: FakeVss) -> None:
    fake_vss.faults.fail("FindFirstVolumeW", 5)
    with pytest.raises(SnapshotError, match="cannot be listed: FindFirstVolumeW: ERROR_ACCESS_DENIED"):
        vss.shadow_storage()


def test_a_windows_without_shadow_storage_says_so(fake_vss: FakeVss) -> None:
    fake_vss.hides.add("IVssDifferentialSoftwareSnapshotMgmt2")
    with pytest.raises(SnapshotError):
        vss.shadow_storage()
