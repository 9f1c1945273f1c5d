"""Components, restores and exposed shadow copies of the fake; each test names its page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import pytest

from vsssnap._deadline import Deadline
from vsssnap._win32 import com
from vsssnap._win32._ffi import ffi
from vsssnap._win32.backup_components import BackupComponents
from vsssnap._win32.com import Reference, guid, wide
from vsssnap._win32.constants import BackupType, FileRestoreStatus, SnapshotContext
from vsssnap._win32.hresult import HResult
from vsssnap._win32.operations import wait
from vsssnap._win32.restore_components import RestoreComponents, SavedComponent
from vsssnap._win32.shadow_copies import ShadowCopies
from vsssnap._win32.writer_metadata import Component, WriterMetadata
from vsssnap.errors import SnapshotError
from vsssnap.testing.fake_vss import FakeComponent, FakeFiles, FakeVss, FakeWriter

BAD, ABSENT, INVALID = HResult.VSS_E_BAD_STATE, HResult.VSS_E_OBJECT_NOT_FOUND, HResult.E_INVALIDARG
DEADLINE = Deadline(600)


@pytest.fixture
def vss() -> Iterator[FakeVss]:
    """A machine in an apartment of this thread."""
    machine = FakeVss()
    machine.add_volume("C:\\")
    files = (FakeFiles("C:\\data"),)
    machine.add_writer(
        "Writer",
        components=(
            FakeComponent("set", files=files),
            FakeComponent("part", "set", selectable=False, files=files),
            FakeComponent("choice", "set", files=files),
        ),
        mappings=(FakeFiles("C:\\data", alternate="C:\\b"),),
    )
    machine.add_writer("Other", components=(FakeComponent("one", files=files),))
    com.enter_apartment(machine)
    yield machine
    com.leave_apartment(machine)
    machine.close()


def code_of(call: Callable[[], object]) -> int:
    try:
        result = call()
    except SnapshotError as exc:
        return -1 if exc.code is None else exc.code
    if isinstance(result, Reference):
        result.release()
    return HResult.S_OK


def check(vss: FakeVss) -> None:
    """That nothing is left but the apartment of this thread."""
    com.leave_apartment(vss)
    try:
        vss.check()
    finally:
        com.enter_apartment(vss)


class Backup:
    """A backup in component mode, on its way."""

    def __init__(self, vss: FakeVss, *, select: bool = True) -> None:
        self.it = BackupComponents(vss)
        self.it.initialize_for_backup()
        self.it.set_backup_state(select_components=select, bootable=False, kind=BackupType.VSS_BT_COPY)
        wait(self.it.gather_writer_metadata(), DEADLINE, "gather")
        self.writers = self.it.writer_metadata(components=True)

    def one(self, path: str, writer: int = 0) -> tuple[WriterMetadata, Component]:
        found = next(
            known
            for known in self.writers[writer].components
            if "\\".join(filter(None, (known.logical_path, known.name))) == path
        )
        return self.writers[writer], found

    def take(self) -> None:
        self.it.start_snapshot_set()
        self.it.add_to_snapshot_set("C:\\")
        wait(self.it.prepare_for_backup(), DEADLINE, "prepare")
        wait(self.it.do_snapshot_set(), DEADLINE, "do")

    def complete(self) -> None:
        wait(self.it.backup_complete(), DEADLINE, "complete")


# The backup.


def test_components_are_added_before_the_instant_and_once(vss: FakeVss) -> None:
    # AddComponent: VSS_E_OBJECT_ALREADY_EXISTS; "before calling DoSnapshotSet".
    backup = Backup(vss)
    assert code_of(lambda: backup.it.add_component(*backup.one("set"))) == HResult.S_OK
    assert code_of(lambda: backup.it.add_component(*backup.one("set"))) == HResult.VSS_E_OBJECT_ALREADY_EXISTS
    backup.take()
    assert code_of(lambda: backup.it.add_component(*backup.one("one", 1))) == BAD
    backup.it.set_backup_succeeded(*backup.one("set"), True)
    backup.complete()
    backup.it.release()
    check(vss)


def test_components_are_added_after_the_writers_were_gathered(vss: FakeVss) -> None:
    # AddComponent, remarks: after InitializeForBackup and GatherWriterMetadata.
    first = Backup(vss)
    it = BackupComponents(vss)
    it.initialize_for_backup()
    assert code_of(lambda: it.add_component(*first.one("set"))) == BAD
    it.release()
    first.it.release()


@pytest.mark.parametrize(
    ("paths", "what"),
    [
        (("set\\part",), "cannot be selected"),  # "should never be explicitly added"
        (("set", "set\\choice"), "is included by set"),  # "should never be explicitly included"
        (("set\\choice", "set"), "includes set"),
    ],
)
def test_what_should_never_be_added_is_noted(vss: FakeVss, paths: tuple[str, ...], what: str) -> None:
    backup = Backup(vss)
    for path in paths:
        backup.it.add_component(*backup.one(path))
    backup.it.release()
    with pytest.raises(AssertionError, match=what):
        check(vss)


def test_a_component_that_nobody_has_is_noted(vss: FakeVss) -> None:
    backup = Backup(vss)
    writer, component = backup.one("set")
    backup.it.add_component(writer, Component(kind=component.kind, logical_path="", name="nothing"))
    backup.it.release()
    with pytest.raises(AssertionError, match="no writer has a component nothing"):
        check(vss)


def test_success_is_told_between_the_instant_and_the_end(vss: FakeVss) -> None:
    # SetBackupSucceeded: "prior to calling BackupComplete"; "do not call if DoSnapshotSet failed".
    backup = Backup(vss)
    backup.it.add_component(*backup.one("set"))
    assert code_of(lambda: backup.it.set_backup_succeeded(*backup.one("set"), True)) == BAD
    backup.take()
    assert code_of(lambda: backup.it.set_backup_succeeded(*backup.one("one", 1), True)) == ABSENT
    backup.it.set_backup_succeeded(*backup.one("set"), True)
    backup.complete()
    assert code_of(lambda: backup.it.set_backup_succeeded(*backup.one("set"), False)) == BAD
    backup.it.release()
    check(vss)


def test_an_end_without_a_word_of_success_is_noted(vss: FakeVss) -> None:
    # SetBackupSucceeded: "a well-behaved backup application must call".
    backup = Backup(vss)
    backup.it.add_component(*backup.one("set"))
    backup.take()
    backup.complete()
    backup.it.release()
    with pytest.raises(AssertionError, match="call SetBackupSucceeded for set"):
        check(vss)


def test_components_outside_of_component_mode_are_noted(vss: FakeVss) -> None:
    # AddComponent: "has meaning only if the backup operation takes place in component mode".
    backup = Backup(vss, select=False)
    backup.it.add_component(*backup.one("set"))
    backup.take()
    backup.it.abort_backup()
    backup.it.release()
    with pytest.raises(AssertionError, match="only in component mode"):
        check(vss)


def test_in_component_mode_only_writers_with_a_component_get_events(vss: FakeVss) -> None:
    backup = Backup(vss)
    backup.it.add_component(*backup.one("set"))
    backup.take()
    backup.it.abort_backup()
    backup.it.release()
    assert "freeze" in vss.writers[0].events
    assert vss.writers[1].events == ["identify", "backup_shutdown"]


def test_a_writer_that_fails_to_identify_itself_is_not_there(vss: FakeVss) -> None:
    # "Determining Writer Status": its metadata is in no list, and it has no status.
    vss.writers[0].fails_at, vss.writers[0].code = "identify", HResult.VSS_E_WRITERERROR_NONRETRYABLE
    backup = Backup(vss)
    assert [writer.name for writer in backup.writers] == ["Other"]
    backup.it.release()


def test_a_component_info_that_is_not_given_back_is_seen(vss: FakeVss) -> None:
    # IVssWMComponent::GetComponentInfo: "the caller is responsible for freeing".
    it = BackupComponents(vss)
    it.initialize_for_backup()
    wait(it.gather_writer_metadata(), DEADLINE, "gather")
    this = vss.requesters[-1]
    out, instance = ffi.new("IVssExamineWriterMetadata **"), ffi.new("VSS_ID *")
    assert this.GetWriterMetadata(0, instance, out) == HResult.S_OK
    component, info = ffi.new("IVssWMComponent **"), ffi.new("const VSS_COMPONENTINFO **")
    assert out[0].lpVtbl.GetComponent(out[0], 0, component) == 0
    assert component[0].lpVtbl.GetComponentInfo(component[0], info) == 0
    assert vss.ledger.outstanding()["VSS_COMPONENTINFO"] == 1
    component[0].lpVtbl.FreeComponentInfo(component[0], info[0])
    component[0].lpVtbl.Release(component[0])
    out[0].lpVtbl.Release(out[0])
    it.free()
    it.release()
    check(vss)


# The restore.


def document(vss: FakeVss) -> str:
    backup = Backup(vss)
    backup.it.add_component(*backup.one("set"))
    backup.it.add_component(*backup.one("one", 1))
    backup.take()
    backup.it.set_backup_succeeded(*backup.one("set"), True)
    backup.it.set_backup_succeeded(*backup.one("one", 1), False)
    text = backup.it.save_as_xml()
    backup.complete()
    backup.it.release()
    for writer in vss.writers:
        writer.events.clear()
    return text


class Restore:
    """A restore, on its way."""

    def __init__(self, vss: FakeVss) -> None:
        text = document(vss)
        self.it = RestoreComponents(vss)
        self.it.initialize_for_restore(text)
        self.saved = self.it.saved_components()

    def gather(self) -> Restore:
        wait(self.it.gather_writer_metadata(), DEADLINE, "gather")
        self.it.free()
        return self

    def begin(self) -> None:
        wait(self.it.pre_restore(), DEADLINE, "pre")

    def end(self) -> None:
        wait(self.it.post_restore(), DEADLINE, "post")


def test_a_document_comes_back_as_it_was(vss: FakeVss) -> None:
    restore = Restore(vss)
    assert [(one.name, one.succeeded, one.writer_id) for one in restore.saved] == [
        ("set", True, vss.writers[0].writer_id),
        ("one", False, vss.writers[1].writer_id),
    ]
    restore.it.release()
    check(vss)


LACKING = "<WRITER_COMPONENTS><COMPONENT/></WRITER_COMPONENTS>"
NO_DOCUMENTS = ("", "<a/>", "no document", f"<BACKUP_COMPONENTS>{LACKING}</BACKUP_COMPONENTS>")


@pytest.mark.parametrize("text", NO_DOCUMENTS)
def test_what_is_no_document_is_refused(vss: FakeVss, text: str) -> None:
    it = RestoreComponents(vss)
    assert code_of(lambda: it.initialize_for_restore(text)) == HResult.VSS_E_INVALID_XML_DOCUMENT
    it.release()
    check(vss)


def test_a_restore_is_no_backup_and_a_backup_is_no_restore(vss: FakeVss) -> None:
    restore = Restore(vss).gather()
    it = restore.it
    assert vss.requesters[-1].SetBackupState(True, False, BackupType.VSS_BT_COPY, False) == BAD
    assert code_of(it.start_snapshot_set) == BAD
    assert code_of(it.initialize_for_backup) == BAD
    it.release()
    backup = Backup(vss)
    this = vss.requesters[-1]
    assert this.PreRestore(ffi.new("IVssAsync **")) == BAD
    assert this.InitializeForRestore(wide("<x/>")) == BAD
    backup.it.release()
    check(vss)


def test_the_order_of_a_restore(vss: FakeVss) -> None:
    restore = Restore(vss)
    it, one = restore.it, restore.saved[0]
    selected = lambda: it.set_selected_for_restore(one, True)  # noqa: E731 - said once, called thrice
    status = lambda: it.set_file_restore_status(one, FileRestoreStatus.VSS_RS_ALL)  # noqa: E731 - likewise
    assert code_of(selected) == BAD, "writers were not gathered"
    assert code_of(it.pre_restore) == BAD
    restore.gather()
    assert code_of(selected) == HResult.S_OK
    assert code_of(lambda: it.set_restore_options(one, "move=yes")) == HResult.S_OK
    assert code_of(status) == BAD, "between PreRestore and PostRestore"
    assert code_of(it.post_restore) == BAD
    restore.begin()
    assert code_of(selected) == BAD, "before PreRestore"
    assert code_of(it.pre_restore) == BAD
    assert code_of(status) == HResult.S_OK
    restore.end()
    assert code_of(status) == BAD
    assert code_of(it.post_restore) == BAD
    it.release()
    check(vss)
    assert vss.writers[0].events == ["identify", "pre_restore", "post_restore", "backup_shutdown"]
    assert vss.writers[1].events == ["identify", "backup_shutdown"], "none of its components was selected"


def test_a_component_that_is_not_there_cannot_be_selected(vss: FakeVss) -> None:
    # SetSelectedForRestore: VSS_E_OBJECT_NOT_FOUND, also if "a live instance of the writer is not running".
    restore = Restore(vss)
    vss.writers.pop(1)
    restore.gather()
    known = restore.saved[0]
    unknown = SavedComponent(
        writer_id=known.writer_id, instance_id=uuid4(), kind=known.kind, logical_path="", name="nothing"
    )
    assert code_of(lambda: restore.it.set_selected_for_restore(unknown, True)) == ABSENT
    assert code_of(lambda: restore.it.set_selected_for_restore(restore.saved[1], True)) == ABSENT
    restore.it.release()


def test_a_restore_that_is_dropped_in_the_middle_is_noted(vss: FakeVss) -> None:
    # "Overview of Restore Clean up and Termination": not released until writers have finished.
    restore = Restore(vss).gather()
    restore.begin()
    restore.it.release()
    with pytest.raises(AssertionError, match="call PostRestore first"):
        check(vss)


def test_what_was_got_before_an_event_is_spoilt_by_it(vss: FakeVss) -> None:
    # GetWriterComponents, remarks.
    restore = Restore(vss).gather()
    out, count = ffi.new("IVssWriterComponentsExt **"), ffi.new("UINT *")
    assert vss.requesters[-1].GetWriterComponents(0, out) == HResult.S_OK
    restore.begin()
    them = ffi.addressof(out[0][0], "components")
    them.lpVtbl.GetComponentCount(them, count)
    unknown = ffi.addressof(out[0][0], "unknown")
    unknown.lpVtbl.Release(unknown)
    restore.end()
    restore.it.release()
    with pytest.raises(AssertionError, match="spoilt"):
        check(vss)


def test_writers_alone_set_what_is_theirs(vss: FakeVss) -> None:
    restore = Restore(vss)
    out, component = ffi.new("IVssWriterComponentsExt **"), ffi.new("IVssComponent **")
    assert vss.requesters[-1].GetWriterComponents(0, out) == HResult.S_OK
    them = ffi.addressof(out[0][0], "components")
    assert them.lpVtbl.GetComponent(them, 0, component) == 0
    this = component[0]
    assert this.lpVtbl.SetBackupMetadata(this, wide("x")) & 0xFFFFFFFF == BAD
    assert this.lpVtbl.SetRestoreTarget(this, 2) & 0xFFFFFFFF == BAD
    count = ffi.new("UINT *", 7)
    assert this.lpVtbl.GetPartialFileCount(this, count) == 0
    assert count[0] == 0
    this.lpVtbl.Release(this)
    unknown = ffi.addressof(out[0][0], "unknown")
    unknown.lpVtbl.Release(unknown)
    restore.it.release()
    check(vss)


@pytest.mark.parametrize(
    ("slot", "rest", "getter"),
    [
        ("SetAdditionalRestores", (True,), "more_restores"),
        ("SetAuthoritativeRestore", (True,), "authoritative"),
        ("SetRollForward", (3, wide("yesterday")), "roll_forward"),
        ("SetRestoreName", (wide("new"),), "restore_name"),
        ("AddRestoreSubcomponent", (wide("set"), wide("part"), False), "subcomponents"),
        ("AddNewTarget", (wide("C:\\data"), wide("*"), False, wide("C:\\b")), "new_targets"),
        ("AddAlternativeLocationMapping", (wide("C:\\data"), wide("*"), False, wide("C:\\b")), "mappings"),
    ],
)
def test_what_a_restore_tells_is_kept_for_the_writer(
    vss: FakeVss, slot: str, rest: tuple[object, ...], getter: str
) -> None:
    restore = Restore(vss).gather()
    this = vss.requesters[-1]
    writer, name = guid(vss.writers[0].writer_id), wide("set")
    assert getattr(this, slot)(writer, 2, ffi.NULL, wide("nothing"), *rest) == ABSENT
    assert getattr(this, slot)(writer, 2, ffi.NULL, name, *rest) == HResult.S_OK
    assert getattr(this.document[0], getter)
    restore.begin()
    restore.end()
    assert getattr(this, slot)(writer, 2, ffi.NULL, name, *rest) == BAD
    restore.it.release()
    check(vss)


def test_a_component_gives_back_what_was_told_of_it(vss: FakeVss) -> None:
    restore = Restore(vss).gather()
    this, writer, name = vss.requesters[-1], guid(vss.writers[0].writer_id), wide("set")
    moved = (wide("C:\\data"), wide("*"), False, wide("C:\\b"))
    assert this.AddNewTarget(writer, 2, ffi.NULL, name, *moved) == HResult.S_OK
    assert this.SetRollForward(writer, 2, ffi.NULL, name, 3, ffi.NULL) == INVALID, (
        "a partial one needs a point"
    )
    assert this.SetRangesFilePath(writer, 2, ffi.NULL, name, 0, wide("C:\\ranges")) == INVALID
    out, component = ffi.new("IVssWriterComponentsExt **"), ffi.new("IVssComponent **")
    this.GetWriterComponents(0, out)
    them = ffi.addressof(out[0][0], "components")
    assert them.lpVtbl.GetComponent(them, 0, component) == 0
    files, text = ffi.new("IVssWMFiledesc **"), ffi.new("BSTR *")
    assert component[0].lpVtbl.GetNewTarget(component[0], 0, files) == 0
    assert files[0].lpVtbl.GetAlternateLocation(files[0], text) == 0
    assert com.take_bstr(vss, text) == "C:\\b"
    files[0].lpVtbl.Release(files[0])
    assert component[0].lpVtbl.GetNewTarget(component[0], 1, files) & 0xFFFFFFFF == ABSENT
    component[0].lpVtbl.Release(component[0])
    unknown = ffi.addressof(out[0][0], "unknown")
    unknown.lpVtbl.Release(unknown)
    restore.it.release()
    check(vss)


def test_writers_are_left_out_by_instance_or_all_but_some_classes(vss: FakeVss) -> None:
    # DisableWriterInstances, EnableWriterClasses: before GatherWriterMetadata.
    for slot, value, left in (
        ("DisableWriterInstances", vss.writers[0].instance_id, ["Other"]),
        ("EnableWriterClasses", vss.writers[0].writer_id, ["Writer"]),
    ):
        it = BackupComponents(vss)
        it.initialize_for_backup()
        assert getattr(vss.requesters[-1], slot)(guid(value), 1) == HResult.S_OK
        wait(it.gather_writer_metadata(), DEADLINE, "gather")
        assert [writer.name for writer in it.writer_metadata()] == left
        it.release()
    check(vss)


# Shadow copies.


def kept(vss: FakeVss, context: SnapshotContext) -> UUID:
    it = BackupComponents(vss)
    it.initialize_for_backup()
    it.set_context(context)
    it.start_snapshot_set()
    shadow = it.add_to_snapshot_set("C:\\")
    wait(it.do_snapshot_set(), DEADLINE, "do")
    it.release()
    return shadow


def administer(vss: FakeVss) -> ShadowCopies:
    it = ShadowCopies(vss)
    it.initialize_for_backup()
    it.set_context(SnapshotContext.VSS_CTX_ALL)
    return it


def test_a_persistent_shadow_copy_is_exposed_once_and_taken_back_once(vss: FakeVss) -> None:
    shadow = kept(vss, SnapshotContext.VSS_CTX_NAS_ROLLBACK)
    it = administer(vss)
    assert it.expose(shadow, "X:") == "X:"
    (found,) = it.snapshots()
    assert found.exposed == "X:"
    assert found.attributes & 0x100000
    assert code_of(lambda: it.expose(shadow, "Y:")) == INVALID
    it.unexpose(shadow)
    assert code_of(lambda: it.unexpose(shadow)) == ABSENT
    assert it.expose(shadow, "share", folder="\\data") == "share"
    assert it.snapshots()[0].attributes & 0x200000
    it.release()
    check(vss)


@pytest.mark.parametrize("name", ["C:", "", "X:\\"])
def test_a_name_that_cannot_be_had_is_refused(vss: FakeVss, name: str) -> None:
    shadow = kept(vss, SnapshotContext.VSS_CTX_NAS_ROLLBACK)
    it = administer(vss)
    assert code_of(lambda: it.expose(shadow, name)) == INVALID
    it.release()


def test_only_rollback_contexts_are_exposed_locally(vss: FakeVss) -> None:
    # "Exposing and Surfacing Shadow Copied Volumes".
    shadow = kept(vss, SnapshotContext.VSS_CTX_CLIENT_ACCESSIBLE)
    it = administer(vss)
    assert code_of(lambda: it.expose(shadow, "X:")) == INVALID
    assert code_of(lambda: it.expose(uuid4(), "X:")) == ABSENT
    it.release()


def test_deleting_stops_at_the_first_that_stays(vss: FakeVss) -> None:
    # DeleteSnapshots: pNondeletedSnapshotID.
    shadow = kept(vss, SnapshotContext.VSS_CTX_NAS_ROLLBACK)
    vss.shadows[shadow].kept = True
    it = administer(vss)
    assert code_of(lambda: it.delete(shadow)) == HResult.VSS_E_PROVIDER_VETO
    assert code_of(lambda: it.delete(uuid4(), whole_set=True)) == ABSENT
    vss.shadows[shadow].kept = False
    it.delete(shadow)
    assert not vss.shadows
    it.release()


def test_a_writer_knows_all_its_events() -> None:
    writer = FakeWriter("W", fails_at="pre_restore", code=HResult.VSS_E_WRITERERROR_TIMEOUT)
    for event in ("identify", "pre_restore", "post_restore"):
        writer.on(event)
    assert (writer.state.name, writer.events) == ("VSS_WS_FAILED_AT_PRE_RESTORE", ["identify", "pre_restore"])
