"""Backups of components that continue others, through the public interface, on a fake machine."""

from __future__ import annotations

from typing import Any

import pytest

from vsssnap import Snapshot
from vsssnap._win32.com import wide
from vsssnap._win32.constants import BackupSchema
from vsssnap._win32.protocols import CData
from vsssnap.errors import SnapshotError, UsageError
from vsssnap.testing.fake_vss import FakeComponent, FakeFiles, FakeVss, FakeWriter
from vsssnap.vss import BackupKind, ComponentSelection, ComponentSelector, VssOptions

BOTH = BackupSchema.VSS_BS_INCREMENTAL | BackupSchema.VSS_BS_DIFFERENTIAL


@pytest.fixture
def sql(fake_vss: FakeVss) -> FakeWriter:
    """A writer that knows incremental backups, of components of which one leaves no stamp."""
    fake_vss.add_volume("C:\\")
    files = (FakeFiles("C:\\data"),)
    return fake_vss.add_writer(
        "Sql",
        schema=BOTH,
        components=(
            FakeComponent("shop", "SERVER", files=files, stamp="0:1"),
            FakeComponent("logs", "SERVER\\shop", files=files),
            FakeComponent("new", "SERVER", files=files),
        ),
    )


def backup(
    **selection: Any,  # noqa: ANN401 - fields of ComponentSelection
) -> tuple[bytes, list[str]]:
    """A backup of components: its document, and what it notes."""
    with Snapshot("C:", options=VssOptions(components=ComponentSelection(**selection))) as s:
        metadata = s.open().metadata
    return metadata.documents["vss/backup-components.xml"], list(metadata.notes)


def told(vss: FakeVss) -> dict[str, tuple[str, str]]:
    """What the last requester was told of each component: stamp and options."""
    return {one.path: (one.previous_stamp, one.backup_options) for one in vss.requesters[-1].document}


def last(vss: FakeVss) -> FakeVss:
    """The machine without the requesters that only read a document."""
    vss.requesters[:] = [one for one in vss.requesters if one.purpose == "backup"]
    return vss


@pytest.mark.parametrize("kind", [BackupKind.INCREMENTAL, BackupKind.DIFFERENTIAL])
def test_a_backup_gets_the_stamps_of_the_one_before(
    fake_vss: FakeVss, sql: FakeWriter, kind: BackupKind
) -> None:
    seen: list[str] = []

    def on_component(event: str, this: CData) -> None:
        if event == "prepare_backup":
            saved = last(fake_vss).requesters[-1].document
            seen.extend(one.previous_stamp for one in saved if one.path == "server\\shop")

    full, notes = backup(kind=BackupKind.FULL)
    assert not [note for note in notes if "stamp" in note]
    sql.on_component = on_component
    _, notes = backup(kind=kind, based_on=full)
    assert set(seen) == {"0:1"}  # before PrepareForBackup, so that the writer sees it
    assert told(last(fake_vss)) == {"server\\shop": ("0:1", ""), "server\\new": ("", "")}
    assert "Sql: SERVER\\new has no stamp of the backup that this one continues." in notes


def test_a_stamp_goes_to_the_writer_though_it_was_restarted(fake_vss: FakeVss, sql: FakeWriter) -> None:
    full, _ = backup(kind=BackupKind.FULL)
    fake_vss.writers[0] = FakeWriter(
        "Sql", writer_id=sql.writer_id, schema=BOTH, components=sql.components[:1]
    )
    backup(kind=BackupKind.INCREMENTAL, based_on=full.decode())
    assert told(last(fake_vss)) == {"server\\shop": ("0:1", "")}


def test_a_writer_that_does_not_know_the_kind_is_noted(fake_vss: FakeVss, sql: FakeWriter) -> None:
    _, notes = backup(kind=BackupKind.LOG)
    assert "Sql does not know log backups." in notes
    assert "Sql does not know incremental backups." not in backup(kind=BackupKind.INCREMENTAL)[1]
    sql.schema = BackupSchema.VSS_BS_COPY
    full, _ = backup(kind=BackupKind.FULL)
    _, notes = backup(kind=BackupKind.DIFFERENTIAL, based_on=full)
    assert "Sql does not know differential backups." in notes
    assert not [note for note in notes if "has no stamp" in note]  # for this is why


def test_options_go_to_what_was_included(fake_vss: FakeVss, sql: FakeWriter) -> None:
    every = ComponentSelector(writer="Sql", options="all")
    shop = ComponentSelector(writer="sql", path="SERVER\\shop", options="one")
    backup(include=(every, shop))
    assert told(fake_vss) == {"server\\shop": ("", "one"), "server\\new": ("", "all")}


def test_options_that_nobody_would_get_are_refused(fake_vss: FakeVss, sql: FakeWriter) -> None:
    part = ComponentSelector(writer="Sql", path="SERVER\\shop\\logs", options="x")
    backup(include=(part,))  # by itself it is named
    assert told(fake_vss) == {"server\\shop\\logs": ("", "x")}
    whole = ComponentSelector(writer="Sql", path="SERVER\\shop")
    with pytest.raises(UsageError, match="is a part of what is included"):
        backup(include=(whole, part))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": BackupKind.FULL, "based_on": b"x"},
        {"based_on": "x"},
        {"kind": BackupKind.INCREMENTAL, "based_on": 3},
        {"kind": BackupKind.INCREMENTAL, "based_on": b"\xff"},
        {"exclude": (ComponentSelector(writer="Sql", options="x"),)},
    ],
)
def test_nonsense_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ComponentSelection(**wrong)


@pytest.mark.parametrize("wrong", [3, None, "a\0b"])
def test_options_that_are_none_are_refused(wrong: str) -> None:
    with pytest.raises(UsageError):
        ComponentSelector(writer="Sql", options=wrong)


def test_a_document_that_is_none_ends_the_backup(fake_vss: FakeVss, sql: FakeWriter) -> None:
    with pytest.raises(SnapshotError) as caught:
        backup(kind=BackupKind.INCREMENTAL, based_on="<other/>")
    assert caught.value.code == 0x80042311
    assert "freeze" not in sql.events


@pytest.mark.parametrize(
    "step",
    [
        "InitializeForRestore",
        "GetBackupStamp",
        "SetPreviousBackupStamp",
        "SetBackupOptions",
        "GetBackupSchema",
    ],
)
def test_a_failure_of_each_step_leaves_nothing(fake_vss: FakeVss, sql: FakeWriter, step: str) -> None:
    full, _ = backup(kind=BackupKind.FULL)
    every = ComponentSelector(writer="Sql", options="all")
    fake_vss.faults.fail(step, 0x80042311)
    if step == "GetBackupSchema":  # as if the document of this one writer could not be read
        with pytest.raises(UsageError, match="no VSS writer"):
            backup(kind=BackupKind.INCREMENTAL, based_on=full, include=(every,))
        return
    with pytest.raises(SnapshotError) as caught:
        backup(kind=BackupKind.INCREMENTAL, based_on=full, include=(every,))
    assert caught.value.code == 0x80042311


def test_a_writer_sets_its_own_stamp(fake_vss: FakeVss, sql: FakeWriter) -> None:
    def on_component(event: str, this: CData) -> None:
        if event == "post_snapshot":
            this.lpVtbl.SetBackupStamp(this, wide("its own"))

    sql.on_component = on_component
    full, _ = backup(kind=BackupKind.FULL)
    sql.on_component = None
    backup(kind=BackupKind.INCREMENTAL, based_on=full)
    assert told(last(fake_vss))["server\\shop"] == ("its own", "")
