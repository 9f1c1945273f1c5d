"""What writers of the fake say of themselves, and what they leave in a requester's document."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from vsssnap._deadline import Deadline
from vsssnap._win32 import com
from vsssnap._win32._ffi import ffi
from vsssnap._win32.backup_components import BackupComponents
from vsssnap._win32.com import take_bstr, uuid_of, wide
from vsssnap._win32.constants import BackupSchema, BackupType, ComponentType, RestoreMethod, RestoreTarget
from vsssnap._win32.hresult import HResult, unsigned
from vsssnap._win32.operations import wait
from vsssnap._win32.restore_components import RestoreComponents
from vsssnap.testing.fake_vss import FakeComponent, FakeFiles, FakeVss, FakeWriter
from vsssnap.testing.fake_vss.leaving import lengths
from vsssnap.testing.fake_vss.metadata import FakeMetadata

BAD, ABSENT, INVALID = HResult.VSS_E_BAD_STATE, HResult.VSS_E_OBJECT_NOT_FOUND, HResult.E_INVALIDARG
DEADLINE = Deadline(60)


@pytest.fixture
def vss() -> Iterator[FakeVss]:
    """A machine with one writer of one component; everything is given back when a test ends."""
    machine = FakeVss()
    machine.add_volume("C:\\")
    machine.add_writer("Writer", components=(FakeComponent("one", files=(FakeFiles("C:\\data"),)),))
    com.enter_apartment(machine)
    yield machine
    com.leave_apartment(machine)
    machine.check()
    machine.close()


def code(this: Any, slot: str, *arguments: Any) -> int:
    return unsigned(getattr(this.lpVtbl, slot)(this, *arguments))


def text(vss: FakeVss, this: Any, slot: str) -> str | None:
    """A string that a getter gives, None for none."""
    out = ffi.new("BSTR *")
    result = code(this, slot, out)
    found = take_bstr(vss, out)
    assert result == (HResult.S_OK if found else HResult.S_FALSE)
    return found or None


# What a writer says of itself.


WRITER = FakeWriter(
    "A & B",
    instance_name="second",
    version=(2, 7),
    schema=BackupSchema.VSS_BS_INCREMENTAL | BackupSchema.VSS_BS_TIMESTAMPED,
    restore_method=RestoreMethod.VSS_RME_RESTORE_TO_ALTERNATE_LOCATION,
    reboot=True,
    components=(
        FakeComponent(
            "db",
            "SERVER",
            selectable=False,
            kind=ComponentType.VSS_CT_DATABASE,
            files=(FakeFiles("C:\\db", "*.mdf", recursive=True),),
            needs=((UUID(int=4), "", "log"),),
        ),
        FakeComponent("files", files=(FakeFiles("%SystemRoot%"),)),
    ),
    mappings=(FakeFiles("C:\\db", "*.mdf", recursive=True, alternate="D:\\other"),),
    excludes=(FakeFiles("C:\\db", "*.tmp"),),
    not_in_snapshot=(FakeFiles("C:\\db", "*.cache"),),
)


def everything(vss: FakeVss, this: Any) -> dict[str, Any]:
    """What IVssExamineWriterMetadataEx2 tells."""
    ids, texts = [ffi.new("VSS_ID *") for _ in range(2)], [ffi.new("BSTR *") for _ in range(2)]
    numbers = [ffi.new("VSS_USAGE_TYPE *") for _ in range(2)]
    assert code(this, "GetIdentityEx", *ids, *texts, *numbers) == HResult.S_OK
    told: dict[str, Any] = {"ids": [uuid_of(one) for one in ids]}
    told["names"] = [take_bstr(vss, one) for one in texts]
    version = ffi.new("DWORD *"), ffi.new("DWORD *")
    assert code(this, "GetVersion", *version) == HResult.S_OK
    told["version"] = (version[0][0], version[1][0])
    schema = ffi.new("DWORD *")
    assert code(this, "GetBackupSchema", schema) == HResult.S_OK
    told["schema"] = schema[0]
    method, after = ffi.new("VSS_RESTOREMETHOD_ENUM *"), ffi.new("VSS_WRITERRESTORE_ENUM *")
    reboot, count = ffi.new("bool *"), ffi.new("UINT *")
    assert code(this, "GetRestoreMethod", method, *texts, after, reboot, count) == HResult.S_OK
    told["restore"] = (method[0], after[0], reboot[0], count[0])
    counts = [ffi.new("UINT *") for _ in range(3)]
    assert code(this, "GetFileCounts", *counts) == HResult.S_OK
    told["counts"] = [one[0] for one in counts]
    left = ffi.new("UINT *")
    assert code(this, "GetExcludeFromSnapshotCount", left) == HResult.S_OK
    for slot, number in (
        ("GetExcludeFile", counts[1][0]),
        ("GetAlternateLocationMapping", count[0]),
        ("GetExcludeFromSnapshotFile", left[0]),
        ("GetIncludeFile", 0),
    ):
        told[slot] = [files(vss, this, slot, index) for index in range(number)]
        assert code(this, slot, number, ffi.new("IVssWMFiledesc **")) == ABSENT
    told["components"] = [component(vss, this, index) for index in range(counts[2][0])]
    return told


def files(vss: FakeVss, this: Any, slot: str, index: int) -> tuple[Any, ...]:
    out, recursive = ffi.new("IVssWMFiledesc **"), ffi.new("bool *")
    assert code(this, slot, index, out) == HResult.S_OK
    with com.Reference(out[0]) as reference:
        it = reference.pointer
        assert code(it, "GetRecursive", recursive) == HResult.S_OK
        told = [text(vss, it, slot) for slot in ("GetPath", "GetFilespec", "GetAlternateLocation")]
    return (*told, recursive[0])


def component(vss: FakeVss, this: Any, index: int) -> tuple[Any, ...]:
    out, info = ffi.new("IVssWMComponent **"), ffi.new("VSS_COMPONENTINFO **")
    assert code(this, "GetComponent", index, out) == HResult.S_OK
    with com.Reference(out[0]) as reference:
        it = reference.pointer
        assert code(it, "GetComponentInfo", info) == HResult.S_OK
        known = info[0]
        name, path = (com.text_of_bstr(vss, one) for one in (known.bstrComponentName, known.bstrLogicalPath))
        told = (known.type, name, path, known.bSelectable, known.cDependencies)
        of = "GetDatabaseFile" if known.cDatabases else "GetFile"
        listed = [files(vss, it, of, one) for one in range(known.cDatabases + known.cFileCount)]
        assert code(it, "FreeComponentInfo", known) == HResult.S_OK
        assert code(it, "FreeComponentInfo", ffi.NULL) == INVALID
    return (*told, listed)


def test_a_document_that_was_saved_tells_the_same_when_it_is_loaded(vss: FakeVss) -> None:
    saved, loaded = FakeMetadata(vss, WRITER), FakeMetadata(vss, vss.writers[0])
    before = everything(vss, saved.pointer)
    assert before["names"] == ["A & B", "second"]
    assert before["version"] == (2, 7)
    assert before["GetAlternateLocationMapping"] == [("C:\\db", "*.mdf", "D:\\other", True)]
    assert before["GetExcludeFromSnapshotFile"] == [("C:\\db", "*.cache", None, False)]
    assert before["counts"] == [0, 1, 2]
    assert before["restore"] == (4, 3, True, 1)
    out = ffi.new("BSTR *")
    assert code(saved.pointer, "SaveAsXML", out) == HResult.S_OK
    assert everything(vss, loaded.pointer) != before
    assert code(loaded.pointer, "LoadFromXML", out[0]) == HResult.S_OK
    take_bstr(vss, out)
    assert everything(vss, loaded.pointer) == before
    saved.end()
    loaded.end()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, INVALID),
        ("no XML", HResult.S_FALSE),
        ("<OTHER/>", HResult.VSS_E_INVALID_XML_DOCUMENT),
        ('<WRITER_METADATA xmlns="x-schema:#VssWriterMetadata"/>', HResult.VSS_E_INVALID_XML_DOCUMENT),
    ],
)
def test_what_is_no_document_of_a_writer_is_not_loaded(
    vss: FakeVss, given: str | None, expected: int
) -> None:
    made = FakeMetadata(vss, vss.writers[0])
    slot = ffi.new("BSTR *", ffi.NULL if given is None else vss.bstr(given))
    assert code(made.pointer, "LoadFromXML", slot[0]) == expected
    take_bstr(vss, slot)
    assert everything(vss, made.pointer)["names"][0] == "Writer"
    made.end()


def test_the_wider_interface_comes_from_get_writer_metadata_ex(vss: FakeVss) -> None:
    it = BackupComponents(vss)
    it.initialize_for_backup()
    wider = it._reference.query("IVssBackupComponentsEx")
    assert wider is not None
    out, instance = ffi.new("IVssExamineWriterMetadataEx **"), ffi.new("VSS_ID *")
    with wider:
        assert code(wider.pointer, "GetWriterMetadataEx", 0, instance, out) == BAD
        wait(it.gather_writer_metadata(), DEADLINE, "gather")
        assert code(wider.pointer, "GetWriterMetadataEx", 1, instance, out) == ABSENT
        assert code(wider.pointer, "GetWriterMetadataEx", 0, instance, out) == HResult.S_OK
    with com.Reference(out[0]) as reference:
        assert everything(vss, ffi.cast("IVssExamineWriterMetadataEx2 *", reference.pointer))["ids"] == [
            vss.writers[0].instance_id,
            vss.writers[0].writer_id,
        ]
    it.free()
    it.release()


# What a writer leaves in the document.


def backup(vss: FakeVss) -> str:
    """A backup in component mode; the document as it is after DoSnapshotSet."""
    it = BackupComponents(vss)
    it.initialize_for_backup()
    it.set_backup_state(select_components=True, bootable=False, kind=BackupType.VSS_BT_COPY)
    wait(it.gather_writer_metadata(), DEADLINE, "gather")
    (writer,) = it.writer_metadata(components=True)
    it.add_component(writer, writer.components[0])
    it.start_snapshot_set()
    it.add_to_snapshot_set("C:\\")
    wait(it.prepare_for_backup(), DEADLINE, "prepare")
    wait(it.do_snapshot_set(), DEADLINE, "do")
    document = it.save_as_xml()
    it.set_backup_succeeded(writer, writer.components[0], True)
    wait(it.backup_complete(), DEADLINE, "complete")
    it.release()
    return document


def restore(vss: FakeVss, document: str, look: Callable[[Any], None] = lambda this: None) -> None:
    """A restore; ``look`` is given the component after PreRestore."""
    it = RestoreComponents(vss)
    it.initialize_for_restore(document)
    wait(it.gather_writer_metadata(), DEADLINE, "gather")
    it.free()
    it.set_selected_for_restore(it.saved_components()[0], True)
    wait(it.pre_restore(), DEADLINE, "pre")
    out, one = ffi.new("IVssWriterComponentsExt **"), ffi.new("IVssComponent **")
    this = it._this()
    assert code(this, "GetWriterComponents", 0, out) == HResult.S_OK
    with com.Reference(ffi.addressof(out[0][0], "unknown")):
        them = ffi.addressof(out[0][0], "components")
        assert code(them, "GetComponent", 0, one) == HResult.S_OK
        with com.Reference(one[0]) as reference, reference.query("IVssComponentEx2") or reference as wider:
            look(wider.pointer)
    wait(it.post_restore(), DEADLINE, "post")
    it.release()


SETTERS: dict[str, tuple[tuple[Any, ...], set[str]]] = {
    "SetBackupMetadata": ((wide("x"),), {"prepare_backup", "post_snapshot"}),
    "SetBackupStamp": ((wide("x"),), {"prepare_backup", "post_snapshot"}),
    "AddPartialFile": (
        (wide("C:\\data"), wide("a.mdf"), wide("0:4096, 0x2000:512"), ffi.NULL),
        {"prepare_backup", "post_snapshot"},
    ),
    "AddDifferencedFilesByLastModifyTime": (
        (wide("C:\\data"), wide("*.log"), True, ffi.new("FILETIME *", (5, 1))[0]),
        {"prepare_backup", "post_snapshot"},
    ),
    "SetPrepareForBackupFailureMsg": ((wide("x"),), {"prepare_backup"}),
    "SetPostSnapshotFailureMsg": ((wide("x"),), {"post_snapshot"}),
    "SetRestoreMetadata": ((wide("x"),), {"pre_restore"}),
    "SetRestoreTarget": ((3,), {"pre_restore", "post_restore"}),
    "AddDirectedTarget": (
        (wide("C:\\data"), wide("a"), wide("0:8"), wide("C:\\new"), wide("b"), wide("64:8")),
        {"pre_restore", "post_restore"},
    ),
    "SetPreRestoreFailureMsg": ((wide("x"),), {"pre_restore"}),
    "SetPostRestoreFailureMsg": ((wide("x"),), {"post_restore"}),
    "SetFailure": (
        (0, 0, ffi.NULL, 0),
        {"prepare_backup", "post_snapshot", "backup_complete", "pre_restore", "post_restore"},
    ),
}


@pytest.mark.parametrize("slot", SETTERS)
def test_a_writer_says_each_thing_at_its_events(vss: FakeVss, slot: str) -> None:
    arguments, allowed = SETTERS[slot]
    answers: dict[str, int] = {}

    def on_component(event: str, this: Any) -> None:
        answers[event] = code(this, slot, *arguments)

    vss.writers[0].on_component = on_component
    restore(vss, backup(vss))
    assert set(answers) == {
        "prepare_backup",
        "post_snapshot",
        "backup_complete",
        "pre_restore",
        "post_restore",
    }
    assert {event for event, answer in answers.items() if answer == HResult.S_OK} == allowed
    assert {answer for event, answer in answers.items() if event not in allowed} <= {BAD}


def test_what_a_writer_leaves_in_a_backup_is_there_in_the_restore(vss: FakeVss) -> None:
    def on_component(event: str, this: Any) -> None:
        if event == "post_snapshot":
            assert code(this, "SetBackupStamp", wide("stamp 7")) == HResult.S_OK
            assert code(this, "SetBackupMetadata", wide("meta")) == HResult.S_OK
            partial = wide("C:\\data"), wide("a.mdf"), wide("0:4096"), wide("mine")
            assert code(this, "AddPartialFile", *partial) == HResult.S_OK
        elif event == "pre_restore":
            assert text(vss, this, "GetBackupStamp") == "stamp 7"
            assert code(this, "SetRestoreTarget", RestoreTarget.VSS_RT_DIRECTED) == HResult.S_OK
            assert code(this, "SetRestoreMetadata", wide("once")) == HResult.S_OK
            again = code(this, "SetRestoreMetadata", wide("twice"))
            assert again == HResult.VSS_E_OBJECT_ALREADY_EXISTS
            directed = [wide(one) for one in ("C:\\data", "a", "0:8", "C:\\new", "b", "64:8")]
            assert code(this, "AddDirectedTarget", *directed) == HResult.S_OK
            failure = HResult.VSS_E_WRITERERROR_RETRYABLE - (1 << 32)
            assert code(this, "SetFailure", failure, 5, wide("half of it"), 0) == HResult.S_OK

    vss.writers[0].on_component = on_component

    def look(this: Any) -> None:
        assert text(vss, this, "GetBackupMetadata") == "meta"
        assert text(vss, this, "GetRestoreMetadata") == "once"
        target, count = ffi.new("VSS_RESTORE_TARGET *"), ffi.new("UINT *")
        assert code(this, "GetRestoreTarget", target) == HResult.S_OK
        assert target[0] == RestoreTarget.VSS_RT_DIRECTED
        for counted, slot, expected in (
            ("GetPartialFileCount", "GetPartialFile", ["C:\\data", "a.mdf", "0:4096", "mine"]),
            ("GetDirectedTargetCount", "GetDirectedTarget", ["C:\\data", "a", "0:8", "C:\\new", "b", "64:8"]),
        ):
            assert code(this, counted, count) == HResult.S_OK
            assert count[0] == 1
            texts = [ffi.new("BSTR *") for _ in expected]
            assert code(this, slot, 0, *texts) == HResult.S_OK
            assert [take_bstr(vss, one) for one in texts] == expected
            assert code(this, slot, 1, *texts) == ABSENT
        failed, application, message = ffi.new("HRESULT *"), ffi.new("HRESULT *"), ffi.new("BSTR *")
        assert code(this, "GetFailure", failed, application, message, ffi.NULL) == HResult.S_OK
        assert unsigned(failed[0]) == HResult.VSS_E_WRITERERROR_RETRYABLE
        assert (application[0], take_bstr(vss, message)) == (5, "half of it")

    restore(vss, backup(vss), look)


def test_differenced_files_are_told_with_their_time(vss: FakeVss) -> None:
    seen: list[tuple[str, str, int, tuple[int, int]]] = []

    def on_component(event: str, this: Any) -> None:
        arguments = SETTERS["AddDifferencedFilesByLastModifyTime"][0]
        if event == "prepare_backup":
            assert code(this, "AddDifferencedFilesByLastModifyTime", *arguments) == HResult.S_OK
        elif event == "post_snapshot":
            path, spec, lsn = (ffi.new("BSTR *") for _ in range(3))
            recursive, time = ffi.new("BOOL *"), ffi.new("FILETIME *")
            assert code(this, "GetDifferencedFile", 1, path, spec, recursive, lsn, time) == ABSENT
            assert code(this, "GetDifferencedFile", 0, path, spec, recursive, lsn, time) == HResult.S_OK
            assert not lsn[0]
            when = (time.dwLowDateTime, time.dwHighDateTime)
            seen.append((take_bstr(vss, path), take_bstr(vss, spec), recursive[0], when))

    vss.writers[0].on_component = on_component
    backup(vss)
    assert seen == [("C:\\data", "*.log", 1, (5, 1))]


@pytest.mark.parametrize(
    ("event", "slot", "arguments"),
    [
        ("post_snapshot", "AddPartialFile", ("C:\\data", "*.mdf", "0:1", "")),
        ("post_snapshot", "AddPartialFile", ("C:\\data", "a.mdf", "all of it", "")),
        ("pre_restore", "AddDirectedTarget", ("C:\\a", "a", "0:8", "C:\\b", "b", "0:9")),
        ("pre_restore", "AddDirectedTarget", ("C:\\a", "a", "0:8", "C:\\b", "b", "0:4, 8:4")),
        ("pre_restore", "AddDirectedTarget", ("C:\\a", "a", "0:8", "C:\\b", "?", "0:8")),
    ],
)
def test_what_a_writer_cannot_say_is_refused(
    vss: FakeVss, event: str, slot: str, arguments: tuple[str, ...]
) -> None:
    answers: list[int] = []

    def on_component(at: str, this: Any) -> None:
        if at == event:
            answers.append(code(this, slot, *map(wide, arguments)))
            answers.append(code(this, "SetRestoreTarget", 0) if at == "pre_restore" else INVALID)
            answers.append(code(this, "SetFailure", -1, 0, ffi.NULL, 0))

    vss.writers[0].on_component = on_component
    restore(vss, backup(vss))
    assert answers == [INVALID, INVALID, INVALID]


def test_a_stamp_is_left_in_the_document(vss: FakeVss) -> None:
    vss.writers[0].components = (FakeComponent("one", files=(FakeFiles("C:\\data"),), stamp="2026-11-26"),)
    found: list[str | None] = []
    restore(vss, backup(vss), lambda this: found.append(text(vss, this, "GetBackupStamp")))
    assert found == ["2026-11-26"]


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [("0:8", [8]), ("0x10:0x20, 64:1", [32, 1]), ("", None), ("8", None), ("1:2:3", None), ("-1:2", None)],
)
def test_ranges_are_decimal_or_hexadecimal(ranges: str, expected: list[int] | None) -> None:
    assert lengths(ranges) == expected
