"""Volumes that are reverted and shadow copies that are broken, through the public interface.

The fixture checks after every test that nothing is left.
"""

from __future__ import annotations

import math
from uuid import uuid4

import pytest

from vsssnap import Snapshot, _deadline, open_device, vss
from vsssnap.errors import (
    ProviderUnavailableError,
    SnapshotBusyError,
    SnapshotError,
    SnapshotPermissionError,
    SnapshotTimeoutError,
    UsageError,
)
from vsssnap.testing.fake_vss import FakeComponent, FakeFiles, FakeVolume, FakeVss
from vsssnap.vss import break_shadow_copy_set, list_shadow_copies, revert_to_shadow_copy, wait_for_revert
from waiting import Late

VETO = 0x80042306


@pytest.fixture
def volume(fake_vss: FakeVss) -> FakeVolume:
    """D:, of which there is a lasting shadow copy from before something else was written."""
    fake_vss.add_volume("C:\\")
    made = fake_vss.add_volume("D:\\", data=b"before")
    with Snapshot("D:", persistent=True):
        pass
    made.pwrite(b"after ", 0)
    return made


def shadow(root: str = "D:") -> str:
    return list_shadow_copies(root)[0].id


# Revert.


def test_a_volume_is_put_back(fake_vss: FakeVss, volume: FakeVolume) -> None:
    fake_vss.faults.delay("QueryRevertStatus", 0.3)
    revert_to_shadow_copy(shadow())
    assert bytes(volume.data[:6]) == b"before"
    assert len(list_shadow_copies("D:")) == 1  # it is still there
    wait_for_revert("D:")  # nothing is waited for


def test_a_revert_goes_on_when_the_time_is_over(
    fake_vss: FakeVss, volume: FakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vss.faults.delay("QueryRevertStatus", math.inf)
    copy = shadow()
    with monkeypatch.context() as patch:
        clock = Late(lambda: any(call.endswith("::QueryRevertStatus") for call in fake_vss.calls))
        patch.setattr(_deadline, "time", clock)
        with pytest.raises(SnapshotTimeoutError, match="QueryRevertStatus") as caught:
            revert_to_shadow_copy(copy)
    assert any("wait_for_revert" in note for note in caught.value.__notes__)
    assert volume.reverting is not None
    assert not any(call == "IVssAsync::Cancel" for call in fake_vss.calls)
    with pytest.raises(SnapshotBusyError) as again:
        revert_to_shadow_copy(shadow())
    assert again.value.code == 0x80042325
    with pytest.raises(SnapshotTimeoutError):
        wait_for_revert("D:", timeout=0.3)
    fake_vss.faults._delays.clear()
    wait_for_revert("D:")
    assert bytes(volume.data[:6]) == b"before"


def test_a_volume_in_use_is_reverted_by_force_alone(fake_vss: FakeVss, volume: FakeVolume) -> None:
    volume.in_use = True
    with pytest.raises(SnapshotBusyError, match=r"D:\\: files of the volume are open.*dismount=True"):
        revert_to_shadow_copy(shadow())
    assert bytes(volume.data[:6]) == b"after "
    revert_to_shadow_copy(shadow(), dismount=True)
    assert bytes(volume.data[:6]) == b"before"


def test_what_cannot_be_reverted_says_why(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with Snapshot("C:", persistent=True):
        pass
    with pytest.raises(ProviderUnavailableError, match=r"C:\\: VSS does not revert this volume"):
        revert_to_shadow_copy(shadow("C:"))
    with Snapshot("D:") as s, pytest.raises(ProviderUnavailableError, match=r"Snapshot\(persistent=True\)"):
        revert_to_shadow_copy(next(one.id for one in list_shadow_copies() if one.set_id == s.id))
    with pytest.raises(ProviderUnavailableError, match="no such volume or shadow copy"):
        revert_to_shadow_copy(uuid4())
    fake_vss.server = False
    with pytest.raises(ProviderUnavailableError, match=r"does not revert volumes.*restore_image") as caught:
        revert_to_shadow_copy(shadow())
    assert caught.value.code == 0x80004001
    assert bytes(volume.data[:6]) == b"after "


def test_an_application_that_must_not_be_reverted_blocks_it(fake_vss: FakeVss, volume: FakeVolume) -> None:
    component = FakeComponent("database", files=(FakeFiles("D:\\sql"),))
    writer = fake_vss.add_writer("Cluster", components=(component,), blocks_revert=True)
    with pytest.raises(ProviderUnavailableError, match="WritersBlockingRevert"):
        revert_to_shadow_copy(shadow(), dismount=True)
    assert not [call for call in fake_vss.calls if call.endswith("RevertToSnapshot")]
    writer.components = (FakeComponent("database", files=(FakeFiles("C:\\sql"),)),)
    revert_to_shadow_copy(shadow())
    assert bytes(volume.data[:6]) == b"before"


def test_a_library_that_cannot_say_what_blocks_is_of_an_old_windows(
    fake_vss: FakeVss, volume: FakeVolume
) -> None:
    del fake_vss.vssapi.ShouldBlockRevertInternal
    revert_to_shadow_copy(shadow())
    assert bytes(volume.data[:6]) == b"before"


def test_a_revert_that_fails_says_so(fake_vss: FakeVss, volume: FakeVolume) -> None:
    fake_vss.faults.fail("QueryRevertStatus", 0x80042326, where="async")
    with pytest.raises(SnapshotError, match="VSS_E_REVERT_VOLUME_LOST"):
        revert_to_shadow_copy(shadow())
    fake_vss.faults.fail("QueryRevertStatus", 0x80004001)
    with pytest.raises(ProviderUnavailableError, match="does not revert volumes"):
        wait_for_revert("D:")


@pytest.mark.parametrize(
    "step", ["InitializeForBackup", "GetSnapshotProperties", "ShouldBlockRevert", "RevertToSnapshot"]
)
def test_a_failure_of_each_step_leaves_nothing(fake_vss: FakeVss, volume: FakeVolume, step: str) -> None:
    wanted = shadow()
    fake_vss.faults.fail(step, 0x80042302)
    with pytest.raises(SnapshotError) as caught:
        revert_to_shadow_copy(wanted)
    assert caught.value.code == 0x80042302
    assert volume.reverting is None


# Break.


@pytest.fixture
def set_id(fake_vss: FakeVss) -> str:
    """Of a lasting shadow copy of a volume in a disk array."""
    array = fake_vss.add_provider("Array")
    volume = fake_vss.add_volume("E:\\", data=b"before", provider=array.id)
    with Snapshot("E:", persistent=True) as s:
        volume.pwrite(b"after ", 0)
        return s.id


def test_a_set_becomes_volumes(fake_vss: FakeVss, set_id: str) -> None:
    before = [one.device for one in list_shadow_copies()]
    assert break_shadow_copy_set(set_id) == before
    assert list_shadow_copies() == []
    made = fake_vss.volumes[-1]
    assert (made.device, made.readonly) == (before[0], True)
    with open_device(before[0]) as device:
        assert device.pread(6, 0) == b"before"
    with pytest.raises(ProviderUnavailableError, match=f"shadow copy set {set_id}"):
        break_shadow_copy_set(set_id)


def test_a_broken_set_is_nobodys_any_more(fake_vss: FakeVss, set_id: str) -> None:
    break_shadow_copy_set(set_id, writable=True)
    assert vss.purge_orphans() == []
    assert not fake_vss.volumes[-1].readonly


@pytest.mark.parametrize("old", [False, True])
def test_how_a_set_is_broken_is_told(fake_vss: FakeVss, set_id: str, old: bool) -> None:
    if old:
        fake_vss.hides.add("IVssBackupComponentsEx2")
        with pytest.raises(ProviderUnavailableError, match="in one way only"):
            break_shadow_copy_set(set_id, hidden=True)
        break_shadow_copy_set(set_id)
        assert fake_vss.volumes[-1].device
    else:
        break_shadow_copy_set(set_id, hidden=True)
        assert not fake_vss.volumes[-1].device
    assert list_shadow_copies() == []


def test_the_identity_of_disks_that_are_there_cannot_be_had(fake_vss: FakeVss, set_id: str) -> None:
    with pytest.raises(SnapshotError, match="take the original disks away"):
        break_shadow_copy_set(set_id, original_identity=True)
    original = fake_vss.volumes.pop()
    break_shadow_copy_set(set_id, original_identity=True)
    assert fake_vss.volumes[-1].id == original.id


def test_software_copies_stay(fake_vss: FakeVss, volume: FakeVolume) -> None:
    (copy,) = list_shadow_copies()
    with pytest.raises(ProviderUnavailableError, match="software provider") as caught:
        break_shadow_copy_set(copy.set_id)
    assert (caught.value.code, caught.value.retryable) == (VETO, False)
    assert list_shadow_copies() == [copy]


def test_an_array_that_does_not_answer_is_waited_for_until_the_timeout(
    fake_vss: FakeVss, set_id: str
) -> None:
    fake_vss.faults.delay("BreakSnapshotSetEx", math.inf)
    with pytest.raises(SnapshotTimeoutError):
        break_shadow_copy_set(set_id, timeout=0.3)
    assert len(list_shadow_copies()) == 1


# Both.


def test_nonsense_is_refused_before_vss_is_called(fake_vss: FakeVss) -> None:
    for wrong in ("x", 3, None):
        with pytest.raises(UsageError):
            revert_to_shadow_copy(wrong)  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            break_shadow_copy_set(wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        revert_to_shadow_copy(uuid4(), dismount="yes")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        break_shadow_copy_set(uuid4(), hidden=1)  # type: ignore[arg-type]
    assert fake_vss.calls == []


def test_who_is_not_elevated_is_told_so(fake_vss: FakeVss) -> None:
    fake_vss.add_volume("D:\\")
    fake_vss.elevated = False
    for call in (
        lambda: revert_to_shadow_copy(uuid4()),
        lambda: break_shadow_copy_set(uuid4()),
        lambda: wait_for_revert("D:"),
    ):
        with pytest.raises(SnapshotPermissionError):
            call()
