"""Shadow copies one by one, and the protection of volumes, through the public interface."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest

from vsssnap import Snapshot, vss
from vsssnap._win32.constants import ProtectionFault
from vsssnap.errors import (
    ProviderUnavailableError,
    SnapshotError,
    SnapshotPermissionError,
    UsageError,
)
from vsssnap.testing.fake_vss import FakeStorage, FakeVss


@pytest.fixture
def set_id(fake_vss: FakeVss) -> str:
    """Of persistent shadow copies of C: and D:."""
    fake_vss.add_volume("C:\\")
    fake_vss.add_volume("D:\\")
    with Snapshot("C:", "D:", persistent=True) as s:
        return s.id


def test_shadow_copies_are_listed_and_deleted_one_by_one(fake_vss: FakeVss, set_id: str) -> None:
    found = vss.list_shadow_copies()
    assert [(one.volume, one.set_id, one.persistent, one.client_accessible) for one in found] == [
        ("C:\\", set_id, True, False),
        ("D:\\", set_id, True, False),
    ]
    assert vss.list_shadow_copies("d:") == found[1:]
    assert found[0].device.startswith("\\\\?\\GLOBALROOT\\Device\\HarddiskVolumeShadowCopy")
    vss.delete_shadow_copy(found[0].id)
    assert vss.list_shadow_copies() == found[1:]
    with pytest.raises(ProviderUnavailableError, match="no such volume or shadow copy"):
        vss.delete_shadow_copy(found[0].id)


def test_a_shadow_copy_is_exposed_and_taken_back(fake_vss: FakeVss, set_id: str) -> None:
    shadow = vss.list_shadow_copies("C:")[0].id
    assert vss.expose_shadow_copy(shadow, at="X:\\") == "X:"
    assert vss.list_shadow_copies("C:")[0].exposed == "X:"
    vss.unexpose_shadow_copy(shadow)
    assert vss.list_shadow_copies("C:")[0].exposed == ""
    with pytest.raises(ProviderUnavailableError):
        vss.unexpose_shadow_copy(shadow)
    assert vss.expose_shadow_copy(shadow, share="old", folder="\\data") == "old"
    assert [one.shared for one in fake_vss.shadows.values()] == ["\\data", None]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"at": "X:", "share": "old"},
        {"at": "X:", "folder": "\\data"},
        {"at": ""},
        {"at": 5},
        {"share": "a\0b"},
        {"share": 5},
        {"share": "old", "folder": 5},
    ],
)
def test_an_exposure_that_is_wrong_in_itself_is_refused(
    fake_vss: FakeVss, set_id: str, arguments: dict[str, object]
) -> None:
    calls = len(fake_vss.calls)
    with pytest.raises(UsageError):
        vss.expose_shadow_copy(uuid4(), **arguments)  # type: ignore[arg-type]
    assert len(fake_vss.calls) == calls


def test_a_place_that_is_taken_is_an_error(fake_vss: FakeVss, set_id: str) -> None:
    with pytest.raises(SnapshotError, match="C:"):
        vss.expose_shadow_copy(vss.list_shadow_copies("C:")[0].id, at="C:")


def test_an_old_windows_cannot_unexpose(fake_vss: FakeVss, set_id: str) -> None:
    fake_vss.hides.add("IVssBackupComponentsEx2")
    with pytest.raises(ProviderUnavailableError, match="Vista"):
        vss.unexpose_shadow_copy(vss.list_shadow_copies()[0].id)


@pytest.mark.parametrize("wrong", ["no id", None, 7])
def test_what_is_no_id_is_refused(wrong: object) -> None:
    for act in (vss.delete_shadow_copy, vss.unexpose_shadow_copy):
        with pytest.raises(UsageError, match="no id"):
            act(wrong)  # type: ignore[arg-type]


def test_a_set_is_deleted_past_one_that_cannot_be(fake_vss: FakeVss, set_id: str) -> None:
    first, second = fake_vss.shadows.values()
    first.kept = True
    with pytest.raises(SnapshotError, match="PROVIDER_VETO") as caught:
        Snapshot.attach(set_id, provider="vss", own=True).close()
    assert str(first.id) in str(caught.value)
    assert list(fake_vss.shadows.values()) == [first], "the other one is gone"
    del second
    first.kept = False
    Snapshot.attach(set_id, provider="vss", own=True).close()
    assert not fake_vss.shadows


# Protection.


def test_how_a_volume_is_protected_is_told_and_decided(fake_vss: FakeVss) -> None:
    volume = fake_vss.add_volume("C:\\", storage=FakeStorage())
    assert vss.volume_protection("C:") == vss.VolumeProtection(
        level=vss.ProtectionLevel.VOLUME, offline=False, fault="", status="", unused_storage=False
    )
    vss.protect_volume("C:", vss.ProtectionLevel.SHADOW_COPIES)
    volume.fault, volume.unused_storage = ProtectionFault.VSS_PROTECTION_FAULT_DIFF_AREA_FULL, True
    assert vss.volume_protection("C:") == vss.VolumeProtection(
        level=vss.ProtectionLevel.SHADOW_COPIES,
        offline=True,
        fault="DIFF_AREA_FULL",
        status="VSS_E_INSUFFICIENT_STORAGE",
        unused_storage=True,
    )
    vss.clear_protection_fault("C:")
    vss.delete_unused_shadow_storage("C:")
    assert vss.volume_protection("C:") == vss.VolumeProtection(
        level=vss.ProtectionLevel.SHADOW_COPIES, offline=False, fault="", status="", unused_storage=False
    )


def test_the_least_shadow_storage_is_what_is_taken(fake_vss: FakeVss) -> None:
    fake_vss.add_volume("C:\\")
    least = vss.least_shadow_storage()
    vss.resize_shadow_storage("C:", maximum=least)
    with pytest.raises(SnapshotError):
        vss.resize_shadow_storage("C:", maximum=least - 1)


def test_a_windows_that_is_no_server_says_so(fake_vss: FakeVss) -> None:
    fake_vss.add_volume("C:\\")
    fake_vss.hides |= {"IVssDifferentialSoftwareSnapshotMgmt3", "IVssSnapshotMgmt2"}
    asked: tuple[Callable[[], object], ...] = (
        lambda: vss.volume_protection("C:"),
        lambda: vss.protect_volume("C:", vss.ProtectionLevel.VOLUME),
        lambda: vss.clear_protection_fault("C:"),
        lambda: vss.delete_unused_shadow_storage("C:"),
        vss.least_shadow_storage,
    )
    for ask in asked:
        with pytest.raises(ProviderUnavailableError, match="Server"):
            ask()


@pytest.mark.parametrize(
    "step",
    ["SetVolumeProtectLevel", "GetVolumeProtectLevel", "ClearVolumeProtectFault", "DeleteUnusedDiffAreas"],
)
def test_a_provider_without_protection_says_so(fake_vss: FakeVss, step: str) -> None:
    fake_vss.add_volume("C:\\")
    fake_vss.faults.fail(step, 0x80004001)
    asked: dict[str, Callable[[], object]] = {
        "SetVolumeProtectLevel": lambda: vss.protect_volume("C:", vss.ProtectionLevel.VOLUME),
        "GetVolumeProtectLevel": lambda: vss.volume_protection("C:"),
        "ClearVolumeProtectFault": lambda: vss.clear_protection_fault("C:"),
        "DeleteUnusedDiffAreas": lambda: vss.delete_unused_shadow_storage("C:"),
    }
    with pytest.raises(ProviderUnavailableError, match="does not have the operation"):
        asked[step]()
    fake_vss.server = False  # a Windows for clients answers so by itself
    with pytest.raises(ProviderUnavailableError, match="does not have the operation"):
        asked[step]()


def test_a_level_that_is_none_is_refused(fake_vss: FakeVss) -> None:
    with pytest.raises(UsageError):
        vss.protect_volume("C:", 1)  # type: ignore[arg-type]


@pytest.mark.posix("this is Windows")
def test_where_there_is_no_windows_all_of_it_says_so() -> None:
    asked: tuple[Callable[[], object], ...] = (
        vss.list_shadow_copies,
        vss.list_components,
        lambda: vss.volume_protection("C:"),
        lambda: vss.expose_shadow_copy(uuid4(), at="X:"),
        vss.WriterRestore("<x/>").__enter__,
    )
    for ask in asked:
        with pytest.raises(ProviderUnavailableError, match="part of Windows"):
            ask()


def test_who_is_not_elevated_is_told_so(fake_vss: FakeVss) -> None:
    fake_vss.elevated = False
    with pytest.raises(SnapshotPermissionError):
        vss.list_shadow_copies()
    with pytest.raises(SnapshotPermissionError):
        vss.least_shadow_storage()
