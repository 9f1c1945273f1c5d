"""Writers' metadata documents that an image keeps, read by VSS, on a fake machine."""

from __future__ import annotations

import pytest

from vsssnap import Snapshot
from vsssnap._win32.constants import ComponentType
from vsssnap._win32.constants import RestoreMethod as Method
from vsssnap._win32.constants import WriterRestore as Called
from vsssnap.errors import ProviderUnavailableError, SnapshotError, SnapshotPermissionError, UsageError
from vsssnap.testing.fake_vss import FakeComponent, FakeFiles, FakeVss
from vsssnap.vss import (
    AlternateLocation,
    ComponentSelection,
    DocumentedComponent,
    FileSet,
    RestoreMethod,
    VssOptions,
    WriterDocument,
    WriterRestore,
    read_writer_document,
)


@pytest.fixture
def document(fake_vss: FakeVss) -> bytes:
    """As an image keeps it, of a writer that is not there any more."""
    fake_vss.add_volume("C:\\")
    writer = fake_vss.add_writer(
        "Sql",
        restore_method=Method.VSS_RME_STOP_RESTORE_START,
        called_after=Called.VSS_WRE_IF_REPLACE_FAILS,
        service="MSSQL",
        procedure="C:\\read me.txt",
        reboot=True,
        mappings=(FakeFiles("C:\\db", "*.mdf", recursive=True, alternate="D:\\away"),),
        excludes=(FakeFiles("C:\\db", "*.tmp"),),
        components=(
            FakeComponent(
                "shop",
                "SERVER",
                kind=ComponentType.VSS_CT_DATABASE,
                selectable_for_restore=True,
                files=(FakeFiles("C:\\db", "*.mdf", recursive=True), FakeFiles("C:\\log")),
            ),
        ),
    )
    with Snapshot("C:") as s:
        documents = s.open().metadata.documents
    fake_vss.writers.clear()
    return documents[f"vss/writers/{writer.instance_id}.xml"]


def test_what_a_writer_said_is_told(fake_vss: FakeVss, document: bytes) -> None:
    found = read_writer_document(document)
    data = FileSet(path="C:\\db", spec="*.mdf", recursive=True)
    assert found == WriterDocument(
        name="Sql",
        writer_id=found.writer_id,
        instance_id=found.instance_id,
        components=(
            DocumentedComponent(
                path="SERVER\\shop",
                caption="",
                selectable=True,
                selectable_for_restore=True,
                files=(data, FileSet(path="C:\\log")),
            ),
        ),
        method=RestoreMethod.STOP_RESTORE_START,
        takes_part="if replace fails",
        service="MSSQL",
        instructions="C:\\read me.txt",
        reboot=True,
        alternate_locations=(AlternateLocation(files=data, to="D:\\away"),),
        excluded=(FileSet(path="C:\\db", spec="*.tmp"),),
    )
    assert f"{found.instance_id}" in document.decode()
    assert read_writer_document(document.decode()) == found


@pytest.mark.parametrize("method", [one for one in Method if one])
def test_every_method_has_a_name(fake_vss: FakeVss, document: bytes, method: Method) -> None:
    changed = document.decode().replace("VSS_RME_STOP_RESTORE_START", method.name)
    assert read_writer_document(changed).method.value == method


@pytest.mark.parametrize("text", ["", "no XML", "<BACKUP_COMPONENTS/>", "\ud800"])
def test_what_is_no_document_is_refused(fake_vss: FakeVss, text: str) -> None:
    with pytest.raises(SnapshotError) as caught:
        read_writer_document(text)
    assert caught.value.code == 0x80042311


def test_what_is_no_text_is_refused(fake_vss: FakeVss) -> None:
    for wrong in (b"\xff", 3, None):
        with pytest.raises(UsageError):
            read_writer_document(wrong)  # type: ignore[arg-type]
    assert fake_vss.calls == []


@pytest.mark.parametrize(
    "step",
    [
        "CreateVssExamineWriterMetadata",
        "GetRestoreMethod",
        "GetFileCounts",
        "GetAlternateLocationMapping",
        "GetExcludeFile",
        "GetIdentity",
        "GetComponent",
        "GetComponentInfo",
        "GetPath",
        "GetRecursive",
    ],
)
def test_a_failure_of_each_step_leaves_nothing(fake_vss: FakeVss, document: bytes, step: str) -> None:
    fake_vss.faults.fail(step, 0x80042302)
    with pytest.raises(SnapshotError) as caught:
        read_writer_document(document)
    assert caught.value.code == 0x80042302


def test_who_may_not_and_who_cannot_are_told(fake_vss: FakeVss, document: bytes) -> None:
    fake_vss.elevated = False
    with pytest.raises(SnapshotPermissionError):
        read_writer_document(document)
    del fake_vss.vssapi.CreateVssExamineWriterMetadataInternal
    with pytest.raises(ProviderUnavailableError, match="CreateVssExamineWriterMetadataInternal"):
        read_writer_document(document)


@pytest.mark.posix("this is Windows")
def test_where_there_is_no_windows_it_says_so() -> None:
    with pytest.raises(ProviderUnavailableError):
        read_writer_document("<x/>")


def test_a_restore_takes_the_files_of_a_document(fake_vss: FakeVss) -> None:
    """What is read is what `WriterRestore` takes: the file sets match to the letter."""
    fake_vss.add_volume("C:\\")
    files = (FakeFiles("%SystemRoot%\\db", "*.mdf", recursive=True),)
    fake_vss.add_writer("Sql", components=(FakeComponent("shop", files=files),))
    with Snapshot("C:", options=VssOptions(components=ComponentSelection())) as s:
        documents = s.open().metadata.documents
    (name,) = (one for one in documents if one.startswith("vss/writers/"))
    (component,) = read_writer_document(documents[name]).components
    with WriterRestore(documents["vss/backup-components.xml"]) as restore:
        restore.select(restore.components[0])
        restore.redirect(restore.components[0], component.files[0], "C:\\elsewhere")
        restore.begin()
