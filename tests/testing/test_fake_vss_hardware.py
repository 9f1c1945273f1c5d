"""Shadow copies of disk arrays in the fake: imported, broken, written back; and volumes that are reverted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from vsssnap._deadline import Deadline
from vsssnap._win32 import com
from vsssnap._win32._ffi import ffi
from vsssnap._win32.backup_components import BackupComponents
from vsssnap._win32.com import guid, uuid_of, wide
from vsssnap._win32.constants import (
    BackupType,
    DriveType,
    HardwareOptions,
    ProviderType,
    RecoveryOptions,
    SnapshotAttributes,
    SnapshotContext,
)
from vsssnap._win32.guids import GUID_NULL, SYSTEM_PROVIDER
from vsssnap._win32.hresult import HResult, unsigned
from vsssnap._win32.management import providers
from vsssnap._win32.operations import wait
from vsssnap._win32.restore_components import RestoreComponents
from vsssnap.errors import ProviderUnavailableError
from vsssnap.testing.fake_vss import FakeProvider, FakeShadow, FakeVolume, FakeVss
from vsssnap.testing.fake_vss.requester import FakeBackupComponents

BAD, ABSENT, INVALID = HResult.VSS_E_BAD_STATE, HResult.VSS_E_OBJECT_NOT_FOUND, HResult.E_INVALIDARG
DEADLINE = Deadline(60)
TRANSPORTABLE = SnapshotAttributes.VSS_VOLSNAP_ATTR_TRANSPORTABLE
FILE_SHARE = SnapshotContext.VSS_CTX_FILE_SHARE_BACKUP
KEPT = SnapshotContext.VSS_CTX_NAS_ROLLBACK


@pytest.fixture
def machines() -> Iterator[Callable[[], FakeVss]]:
    """Machines with a plain volume C:, and E: of an array; this thread is in the apartment of each."""
    made: list[FakeVss] = []

    def make() -> FakeVss:
        machine = FakeVss()
        machine.add_volume("C:\\", data=b"plain")
        array = machine.add_provider("Array")
        machine.add_volume("E:\\", data=b"before", provider=array.id, disk=(7, 1 << 20))
        com.enter_apartment(machine)
        made.append(machine)
        return machine

    yield make
    for machine in made:
        com.leave_apartment(machine)
        machine.check()
        machine.close()


@pytest.fixture
def vss(machines: Callable[[], FakeVss]) -> FakeVss:
    return machines()


def array_of(vss: FakeVss) -> FakeProvider:
    return vss.providers[-1]


def named(vss: FakeVss, root: str) -> FakeVolume:
    found = vss.volume(root)
    assert found is not None
    return found


def slot(vss: FakeVss, name: str, *arguments: Any) -> int:
    """Call a slot of the newest requester through its vtable."""
    this = vss.requesters[-1]._structure
    return unsigned(getattr(this.lpVtbl, name)(this, *arguments))


def finished(vss: FakeVss, name: str, *arguments: Any) -> int:
    """Call a slot that begins an operation; what became of it."""
    out, result = ffi.new("IVssAsync **"), ffi.new("HRESULT *")
    assert slot(vss, name, *arguments, out) == HResult.S_OK
    with com.Reference(out[0]) as operation:
        this = operation.pointer
        this.lpVtbl.Wait(this, 1000)
        assert this.lpVtbl.QueryStatus(this, result, ffi.NULL) == HResult.S_OK
    return unsigned(result[0])


class Backup:
    """A requester that has made a shadow copy of one volume, without writers."""

    def __init__(self, vss: FakeVss, root: str, context: int, provider: UUID = GUID_NULL) -> None:
        self.it = BackupComponents(vss)
        self.it.initialize_for_backup()
        self.it.set_context(context)
        self.it.set_backup_state(select_components=False, bootable=False, kind=BackupType.VSS_BT_COPY)
        self.set_id = self.it.start_snapshot_set()
        try:
            self.shadow_id = self.it.add_to_snapshot_set(root, provider)
            wait(self.it.do_snapshot_set(), DEADLINE, "DoSnapshotSet")
        except BaseException:
            self.it.abort_backup()
            self.it.release()
            raise
        self.document = self.it.save_as_xml()

    def copy(self, vss: FakeVss) -> FakeShadow:
        return vss.shadows[self.shadow_id]


def requester(vss: FakeVss) -> BackupComponents:
    it = BackupComponents(vss)
    it.initialize_for_backup()
    return it


def importing(vss: FakeVss, document: str) -> BackupComponents:
    it = BackupComponents(vss)
    text = vss.bstr(document)
    assert slot(vss, "InitializeForBackup", text) == HResult.S_OK
    vss.oleaut32.SysFreeString(text)
    return it


def drop(vss: FakeVss) -> None:
    """Delete what a test has kept on purpose."""
    for shadow in list(vss.shadows.values()):
        vss.drop(shadow)


# Providers.


def test_a_provider_of_hardware_copies_the_volumes_that_are_its_own(vss: FakeVss) -> None:
    named(vss, "E:\\").free = ((1, 1),)
    backup = Backup(vss, "E:\\", FILE_SHARE)
    named(vss, "E:\\").pwrite(b"since", 4096)
    assert backup.copy(vss).read(4096, 5) == bytes(5)  # a whole copy, with what is free
    found = backup.it.snapshot(backup.shadow_id)
    assert found.provider_id == array_of(vss).id
    assert found.attributes & SnapshotAttributes.VSS_VOLSNAP_ATTR_HARDWARE_ASSISTED
    assert not found.attributes & SnapshotAttributes.VSS_VOLSNAP_ATTR_DIFFERENTIAL
    backup.it.release()
    plain = Backup(vss, "E:\\", FILE_SHARE, SYSTEM_PROVIDER)  # somebody may insist on software
    assert plain.copy(vss).read(4096, 5) == b"since"
    assert plain.it.snapshot(plain.shadow_id).provider_id == SYSTEM_PROVIDER
    plain.it.release()
    it = requester(vss)
    assert it.is_volume_supported("E:\\", array_of(vss).id)
    assert not it.is_volume_supported("C:\\", array_of(vss).id)
    it.release()
    with pytest.raises(ProviderUnavailableError) as caught:
        Backup(vss, "C:\\", FILE_SHARE, array_of(vss).id)
    assert caught.value.code == HResult.VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER
    assert [(one.name, one.kind) for one in providers(vss)][1] == ("Array", ProviderType.VSS_PROV_HARDWARE)


# Import.


def test_a_transportable_copy_is_there_for_who_imports_it(machines: Callable[[], FakeVss]) -> None:
    one, two = machines(), machines()
    two.providers = one.providers  # both reach the same array
    backup = Backup(one, "E:\\", FILE_SHARE | TRANSPORTABLE)
    named(one, "E:\\").pwrite(b"after ", 0)
    assert not one.shadows
    assert list(one.luns) == [backup.shadow_id]
    backup.it.release()
    assert list(one.luns) == [backup.shadow_id]  # it is not this machine's to delete

    two.luns.update(one.luns)
    it = importing(two, backup.document)
    assert finished(two, "ImportSnapshots") == HResult.VSS_S_ASYNC_FINISHED
    found = it.snapshot(backup.shadow_id)
    assert found.attributes & SnapshotAttributes.VSS_VOLSNAP_ATTR_IMPORTED
    assert two.shadows[backup.shadow_id].read(0, 6) == b"before"
    assert slot(two, "ImportSnapshots", ffi.new("IVssAsync **")) == BAD  # once
    it.release()
    assert not two.shadows  # an auto-release one goes with the requester that imported it


def test_what_cannot_be_imported_is_told(machines: Callable[[], FakeVss]) -> None:
    one, two = machines(), machines()
    kept = Backup(one, "E:\\", FILE_SHARE)
    away = Backup(one, "E:\\", FILE_SHARE | TRANSPORTABLE)
    for document, code in (
        (kept.document, HResult.VSS_E_NONTRANSPORTABLE_BCD),
        (away.document, HResult.VSS_E_NO_SNAPSHOTS_IMPORTED),
    ):
        it = importing(two, document)
        assert finished(two, "ImportSnapshots") == code
        it.release()
    both = away.document.replace(
        "<SNAPSHOT_DESCRIPTION",
        f'<SNAPSHOT_DESCRIPTION snapshotId="{UUID(int=1)}" snapshotSetId="{away.set_id}" '
        f'providerId="{array_of(one).id}" transportable="yes"/><SNAPSHOT_DESCRIPTION',
    )
    two.luns.update(one.luns)
    it = importing(two, both)
    assert finished(two, "ImportSnapshots") == HResult.VSS_S_SOME_SNAPSHOTS_NOT_IMPORTED
    it.release()
    kept.it.release()
    away.it.release()


def test_an_import_needs_the_document_and_a_server(machines: Callable[[], FakeVss]) -> None:
    one, out = machines(), ffi.new("IVssAsync **")
    away = Backup(one, "E:\\", FILE_SHARE | TRANSPORTABLE)
    it = requester(one)
    assert slot(one, "ImportSnapshots", out) == BAD
    it.release()
    it = importing(one, away.document)
    assert slot(one, "ImportSnapshots", ffi.NULL) == INVALID
    one.server = False
    assert slot(one, "ImportSnapshots", out) == HResult.E_NOTIMPL
    it.release()
    it = BackupComponents(one)
    text = one.bstr("no document")
    assert slot(one, "InitializeForBackup", text) == HResult.VSS_E_INVALID_XML_DOCUMENT
    one.oleaut32.SysFreeString(text)
    it.release()
    away.it.release()


def test_transportable_copies_are_of_hardware_and_of_servers(vss: FakeVss) -> None:
    with pytest.raises(ProviderUnavailableError) as caught:
        Backup(vss, "C:\\", FILE_SHARE | TRANSPORTABLE)
    assert caught.value.code == HResult.VSS_E_VOLUME_NOT_SUPPORTED
    vss.server = False
    it = requester(vss)
    assert slot(vss, "SetContext", FILE_SHARE | TRANSPORTABLE) == HResult.VSS_E_UNSUPPORTED_CONTEXT
    it.release()


# Break.


def test_a_broken_set_is_a_volume_under_its_old_name(vss: FakeVss) -> None:
    backup = Backup(vss, "E:\\", FILE_SHARE)
    device = backup.it.snapshot(backup.shadow_id).device
    named(vss, "E:\\").pwrite(b"after ", 0)
    it = requester(vss)
    assert slot(vss, "BreakSnapshotSet", guid(backup.set_id)[0]) == HResult.S_OK
    assert not vss.shadows
    made = vss.volumes[-1]
    assert (made.device, bytes(made.data[:6]), made.readonly) == (device, b"before", True)
    assert slot(vss, "BreakSnapshotSet", guid(backup.set_id)[0]) == ABSENT
    it.release()
    backup.it.release()  # ends no shadow copy any more
    assert vss.volumes[-1] is made


@pytest.mark.parametrize(
    ("flags", "left", "writable"),
    [
        (0, True, False),
        (HardwareOptions.VSS_BREAKEX_FLAG_MAKE_READ_WRITE, True, True),
        (HardwareOptions.VSS_BREAKEX_FLAG_MASK_LUNS, False, False),
        (HardwareOptions.VSS_BREAKEX_FLAG_REVERT_IDENTITY_NONE, True, False),
    ],
)
def test_flags_say_what_becomes_of_a_broken_set(vss: FakeVss, flags: int, left: bool, writable: bool) -> None:
    backup = Backup(vss, "E:\\", FILE_SHARE)
    before = len(vss.volumes)
    assert finished(vss, "BreakSnapshotSetEx", guid(backup.set_id)[0], flags) == HResult.VSS_S_ASYNC_FINISHED
    assert len(vss.volumes) == before + left
    assert vss.volumes[-1].readonly == (left and not writable)
    backup.it.release()


def test_an_identity_comes_back_only_where_the_original_is_not(vss: FakeVss) -> None:
    flag = HardwareOptions.VSS_BREAKEX_FLAG_REVERT_IDENTITY_ALL
    backup = Backup(vss, "E:\\", FILE_SHARE)
    set_id = guid(backup.set_id)[0]
    assert finished(vss, "BreakSnapshotSetEx", set_id, flag) == HResult.VSS_E_BREAK_REVERT_ID_FAILED
    original = named(vss, "E:\\")
    vss.volumes.remove(original)
    assert finished(vss, "BreakSnapshotSetEx", set_id, flag) == HResult.VSS_S_ASYNC_FINISHED
    assert vss.volumes[-1].id == original.id
    backup.it.release()


def test_software_copies_cannot_be_broken(vss: FakeVss) -> None:
    backup = Backup(vss, "C:\\", FILE_SHARE)
    set_id, out = guid(backup.set_id)[0], ffi.new("IVssAsync **")
    assert slot(vss, "BreakSnapshotSet", set_id) == HResult.VSS_E_PROVIDER_VETO
    assert slot(vss, "BreakSnapshotSetEx", set_id, 0, out) == HResult.VSS_E_PROVIDER_VETO
    assert slot(vss, "BreakSnapshotSet", guid(GUID_NULL)[0]) == INVALID
    backup.it.release()
    hard = Backup(vss, "E:\\", FILE_SHARE)
    both = HardwareOptions.VSS_BREAKEX_FLAG_REVERT_IDENTITY_ALL | 0x8
    for flags in (both, 0x100, 0x10):
        assert slot(vss, "BreakSnapshotSetEx", guid(hard.set_id)[0], flags, out) == INVALID
    assert slot(vss, "BreakSnapshotSetEx", guid(hard.set_id)[0], 0, ffi.NULL) == INVALID
    hard.it.release()
    it = BackupComponents(vss)
    assert slot(vss, "BreakSnapshotSet", set_id) == BAD
    it.release()


# Revert.


def persistent(vss: FakeVss, root: str) -> UUID:
    backup = Backup(vss, root, KEPT)
    backup.it.release()
    return backup.shadow_id


def test_a_volume_is_put_back_while_nobody_can_stop_it(vss: FakeVss) -> None:
    volume = vss.add_volume("D:\\", data=b"before")
    shadow_id = persistent(vss, "D:\\")
    volume.pwrite(b"after ", 0)
    vss.faults.delay("QueryRevertStatus", 0.05)
    it = requester(vss)
    assert slot(vss, "RevertToSnapshot", guid(shadow_id)[0], 0) == HResult.S_OK
    assert slot(vss, "RevertToSnapshot", guid(shadow_id)[0], 0) == HResult.VSS_E_REVERT_IN_PROGRESS
    out, result = ffi.new("IVssAsync **"), ffi.new("HRESULT *")
    assert slot(vss, "QueryRevertStatus", wide("D:\\"), out) == HResult.S_OK
    with com.Reference(out[0]) as operation:
        this = operation.pointer
        assert this.lpVtbl.Cancel(this) == HResult.S_OK
        this.lpVtbl.QueryStatus(this, result, ffi.NULL)
        assert unsigned(result[0]) == HResult.VSS_S_ASYNC_PENDING
    assert not vss.jammed  # letting go of a revert is no offence
    assert finished(vss, "QueryRevertStatus", wide("D:\\")) == HResult.VSS_S_ASYNC_FINISHED
    assert bytes(volume.data[:6]) == b"before"
    assert finished(vss, "QueryRevertStatus", wide("D:\\")) == HResult.VSS_S_ASYNC_FINISHED  # nothing runs
    it.release()
    drop(vss)


def test_what_cannot_be_reverted_is_refused(vss: FakeVss) -> None:
    volume = vss.add_volume("D:\\")
    shadow_id, system, hard = (persistent(vss, root) for root in ("D:\\", "C:\\", "E:\\"))
    passing = Backup(vss, "D:\\", FILE_SHARE)
    it = requester(vss)

    def revert(wanted: UUID, force: bool = False) -> int:
        return slot(vss, "RevertToSnapshot", guid(wanted)[0], force)

    assert revert(UUID(int=1)) == ABSENT
    assert revert(passing.shadow_id) == HResult.VSS_E_UNSUPPORTED_CONTEXT
    assert revert(system) == HResult.VSS_E_VOLUME_NOT_SUPPORTED
    assert revert(hard) == HResult.E_NOTIMPL
    volume.in_use = True
    assert revert(shadow_id) == HResult.VSS_E_VOLUME_IN_USE
    vss.server = False
    assert revert(shadow_id) == HResult.E_NOTIMPL
    vss.server = True
    assert revert(shadow_id, force=True) == HResult.S_OK
    assert slot(vss, "QueryRevertStatus", wide("X:\\"), ffi.new("IVssAsync **")) == ABSENT
    assert slot(vss, "QueryRevertStatus", wide("D:\\"), ffi.NULL) == HResult.E_POINTER
    it.release()
    passing.it.release()
    it = BackupComponents(vss)
    assert slot(vss, "QueryRevertStatus", wide("D:\\"), ffi.new("IVssAsync **")) == BAD
    it.release()
    drop(vss)


# Writing back by hardware.


def restoring(vss: FakeVss, document: str) -> RestoreComponents:
    it = RestoreComponents(vss)
    it.initialize_for_restore(document)
    return it


def test_hardware_writes_a_copy_back(vss: FakeVss) -> None:
    backup = Backup(vss, "E:\\", FILE_SHARE)
    volume = named(vss, "E:\\")
    volume.pwrite(b"after ", 0)
    it, given = restoring(vss, backup.document), guid(backup.shadow_id)[0]
    assert slot(vss, "RecoverSet", 0, ffi.new("IVssAsync **")) == BAD  # nothing was added
    assert slot(vss, "AddSnapshotToRecoverySet", given, 1, ffi.NULL) == INVALID
    assert slot(vss, "AddSnapshotToRecoverySet", guid(UUID(int=9))[0], 0, ffi.NULL) == (
        HResult.VSS_E_SNAPSHOT_NOT_IN_SET
    )
    assert slot(vss, "AddSnapshotToRecoverySet", given, 0, wide("C:\\")) == HResult.VSS_E_VOLUME_NOT_SUPPORTED
    assert slot(vss, "AddSnapshotToRecoverySet", given, 0, ffi.NULL) == HResult.S_OK
    neighbour = vss.add_volume("F:\\", provider=array_of(vss).id, disk=(7, 4 << 20))
    out = ffi.new("IVssAsync **")
    assert slot(vss, "RecoverSet", 0, out) == HResult.VSS_E_UNSELECTED_VOLUME
    assert slot(vss, "RecoverSet", 1, out) == INVALID
    anyway = RecoveryOptions.VSS_RECOVERY_NO_VOLUME_CHECK
    assert finished(vss, "RecoverSet", anyway) == HResult.VSS_S_ASYNC_FINISHED
    assert bytes(volume.data[:6]) == b"before"
    assert not any(neighbour.data)
    it.release()
    backup.it.release()


def test_what_hardware_cannot_write_back_is_refused(vss: FakeVss) -> None:
    backup = Backup(vss, "E:\\", FILE_SHARE)
    given, out = guid(backup.shadow_id)[0], ffi.new("IVssAsync **")
    it = requester(vss)
    assert slot(vss, "AddSnapshotToRecoverySet", given, 0, ffi.NULL) == BAD  # this is no restore
    assert slot(vss, "RecoverSet", 0, out) == BAD
    it.release()
    it, array = restoring(vss, backup.document), array_of(vss)
    vss.providers[-1] = FakeProvider(name="Old", id=array.id, resyncs=False)
    assert slot(vss, "AddSnapshotToRecoverySet", given, 0, ffi.NULL) == HResult.VSS_E_LEGACY_PROVIDER
    del vss.providers[-1]
    assert slot(vss, "AddSnapshotToRecoverySet", given, 0, ffi.NULL) == BAD
    vss.providers.append(array)
    vss.server = False
    assert slot(vss, "AddSnapshotToRecoverySet", given, 0, ffi.NULL) == HResult.E_NOTIMPL
    assert slot(vss, "RecoverSet", 0, out) == HResult.E_NOTIMPL
    vss.server = True
    vss.drop(vss.shadows[backup.shadow_id])
    assert slot(vss, "AddSnapshotToRecoverySet", given, 0, ffi.NULL) == ABSENT
    it.release()
    backup.it.release()


def test_one_array_writes_back_for_one_at_a_time(vss: FakeVss) -> None:
    vss.faults.delay("RecoverSet", math.inf)
    backup = Backup(vss, "E:\\", FILE_SHARE)
    first, given = restoring(vss, backup.document), guid(backup.shadow_id)[0]
    out = ffi.new("IVssAsync **")
    assert slot(vss, "AddSnapshotToRecoverySet", given, 0, ffi.NULL) == HResult.S_OK
    assert slot(vss, "RecoverSet", 0, out) == HResult.S_OK
    second = restoring(vss, backup.document)
    assert slot(vss, "AddSnapshotToRecoverySet", given, 0, ffi.NULL) == HResult.S_OK
    assert slot(vss, "RecoverSet", 0, ffi.new("IVssAsync **")) == HResult.VSS_E_RESYNC_IN_PROGRESS
    with com.Reference(out[0]) as operation:
        operation.pointer.lpVtbl.Cancel(operation.pointer)
    first.release()
    vss.faults._delays.clear()
    assert finished(vss, "RecoverSet", 0) == HResult.VSS_S_ASYNC_FINISHED  # the other has gone
    for it in (second, backup.it):
        it.release()


def test_a_software_provider_copies_no_volume_of_its_own(vss: FakeVss) -> None:
    software = vss.add_provider("Filter", kind=ProviderType.VSS_PROV_SOFTWARE)
    named(vss, "C:\\").provider = software.id
    backup = Backup(vss, "C:\\", FILE_SHARE)
    assert backup.it.snapshot(backup.shadow_id).provider_id == SYSTEM_PROVIDER
    backup.it.release()


# Names.


def test_a_path_is_taken_apart_for_add_to_snapshot_set(vss: FakeVss) -> None:
    vss.add_volume("C:\\mnt\\data\\")
    vss.add_volume("\\\\server\\share\\", drive_type=DriveType.DRIVE_REMOTE)
    it = requester(vss)
    root, prefix = ffi.new("VSS_PWSZ *"), ffi.new("VSS_PWSZ *")

    def parts(path: str) -> tuple[str, str]:
        assert slot(vss, "GetRootAndLogicalPrefixPaths", wide(path), root, prefix, 0) == HResult.S_OK
        return com.take_text(vss, root[0]), com.take_text(vss, prefix[0])

    assert parts("C:\\folder\\file") == ("C:\\", named(vss, "C:\\").guid_path)
    assert parts("C:\\mnt\\data") == ("C:\\mnt\\data\\", named(vss, "C:\\mnt\\data\\").guid_path)
    assert parts("\\\\server\\share\\x") == ("\\\\server\\share\\", "\\\\server\\share\\")
    assert slot(vss, "GetRootAndLogicalPrefixPaths", wide("X:\\"), root, prefix, 0) == ABSENT
    assert slot(vss, "GetRootAndLogicalPrefixPaths", ffi.NULL, root, prefix, 0) == INVALID
    it.release()


def test_the_widest_interface_is_there_unless_it_is_hidden(vss: FakeVss) -> None:
    it = requester(vss)
    assert isinstance(vss.requesters[-1], FakeBackupComponents)
    found = it._reference.query("IVssBackupComponentsEx4")
    assert found is not None
    out = ffi.new("VSS_ID *")
    assert found.pointer.lpVtbl.GetSessionId(found.pointer, out) == HResult.S_OK
    assert uuid_of(out) == vss.requesters[-1].session_id
    found.release()
    vss.hides.add("IVssBackupComponentsEx4")
    assert it._reference.query("IVssBackupComponentsEx4") is None
    it.release()
