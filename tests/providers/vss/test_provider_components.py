"""Component mode through the public interface, on a fake machine that keeps to the documentation.

The fixture checks after every test that nothing is left, that no component was added that must not
be, and that each that was added was told what became of it.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from vsssnap import Consistency, Snapshot, open_image, save_image
from vsssnap.errors import DeviceReadError, SnapshotError, SnapshotPermissionError, UsageError
from vsssnap.formats.qcow2 import Qcow2Options
from vsssnap.formats.vhdx import VhdxOptions
from vsssnap.testing.fake_vss import FakeComponent, FakeFile, FakeFiles, FakeVss, FakeWriter
from vsssnap.testing.fake_vss.requester import FakeBackupComponents
from vsssnap.vss import (
    BackupKind,
    ComponentSelection,
    ComponentSelector,
    VssOptions,
    list_components,
)

ALL = VssOptions(components=ComponentSelection())
CODE = 0x800423F4


@pytest.fixture
def sql(fake_vss: FakeVss) -> FakeWriter:
    fake_vss.add_volume("C:\\")
    fake_vss.add_volume("D:\\", "C:\\mounted\\")
    fake_vss.add_writer("Idle Writer")
    return fake_vss.add_writer(
        "SqlServerWriter",
        components=(
            FakeComponent("shop", "SERVER", files=(FakeFiles("%SystemRoot%\\sql", "shop.*"),)),
            FakeComponent(
                "logs", "SERVER\\shop", selectable=False, files=(FakeFiles("C:\\logs", recursive=True),)
            ),
            FakeComponent("archive", "SERVER", files=(FakeFiles("C:\\mounted\\sql", "archive.*"),)),
            FakeComponent("moved", "SERVER", files=(FakeFiles("D:\\sql", alternate="C:\\spool"),)),
        ),
    )


def without(name: str) -> VssOptions:
    return VssOptions(components=ComponentSelection(exclude=[ComponentSelector(writer=name)]))


def added(fake_vss: FakeVss) -> list[tuple[str, bool | None]]:
    """What the last requester's document held, and what was told of it."""
    return [(one.path, one.succeeded) for one in fake_vss.requesters[-1].document]


def test_components_on_the_volumes_are_named_and_told_of_their_success(
    fake_vss: FakeVss, sql: FakeWriter
) -> None:
    with Snapshot("C:", options=ALL) as s:
        assert s.consistency is Consistency.APPLICATION
        assert [report.name for report in s.writers] == ["SqlServerWriter"]
    assert added(fake_vss) == [("server\\shop", True), ("server\\moved", True)]
    calls = [call.split("::")[-1] for call in fake_vss.calls]
    assert calls.index("AddComponent") < calls.index("StartSnapshotSet")
    assert calls.index("SetBackupSucceeded") < calls.index("BackupComplete")


def test_what_files_not_to_snapshot_takes_of_a_component_is_told(
    fake_vss: FakeVss, sql: FakeWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SystemRoot", r"C:\Windows")
    key = r"SYSTEM\CurrentControlSet\Control\BackupRestore\FilesNotToSnapshot"
    fake_vss.registry[key] = {"x": [r"C:\*.tmp /s", r"C:\Windows\sql\shop.mdf"]}
    fake_vss.volumes[0].files = {
        "\\logs\\2026\\a.tmp": FakeFile(((2, 1),)),
        "\\logs\\kept.log": FakeFile(((3, 1),)),
        "\\logs2\\b.tmp": FakeFile(((4, 1),)),
        "\\Windows\\SQL\\Shop.mdf": FakeFile(((5, 1),)),
        "\\Windows\\SQL\\below\\shop.tmp": FakeFile(((6, 1),)),
    }
    writer = "SqlServerWriter: SERVER\\shop"
    expected = [
        rf"{writer}\logs is without \logs\2026\a.tmp (FilesNotToSnapshot: C:\*.tmp /s).",
        rf"{writer} is without \Windows\sql\Shop.mdf (FilesNotToSnapshot: C:\Windows\sql\shop.mdf).",
    ]
    with Snapshot("C:", options=ALL) as s:
        with s.open() as disk:
            assert [note for note in disk.metadata.notes if "FilesNotToSnapshot" in note] == expected
        with s.open(exclude=()) as disk:
            assert not any("FilesNotToSnapshot" in note for note in disk.metadata.notes)
    with Snapshot("C:") as s, s.open() as disk:  # no component is backed up
        assert not any("FilesNotToSnapshot" in note for note in disk.metadata.notes)


def test_a_mounted_folder_is_another_volume(fake_vss: FakeVss, sql: FakeWriter) -> None:
    with Snapshot("C:", "D:", options=ALL):
        pass
    assert [path for path, _ in added(fake_vss)] == ["server\\shop", "server\\archive", "server\\moved"]


def test_writers_without_a_chosen_component_get_no_events(fake_vss: FakeVss, sql: FakeWriter) -> None:
    idle = fake_vss.writers[0]
    idle.fails_at, idle.code = "freeze", CODE
    with Snapshot("C:", require=Consistency.APPLICATION, options=ALL):
        pass
    assert idle.events == ["identify", "backup_shutdown"]
    assert sql.events[-2:] == ["backup_complete", "backup_shutdown"]


def test_a_chosen_writer_that_fails_fails_the_snapshot(fake_vss: FakeVss, sql: FakeWriter) -> None:
    sql.fails_at, sql.code = "freeze", CODE
    with pytest.raises(SnapshotError, match="SqlServerWriter"):
        Snapshot("C:", require=Consistency.APPLICATION, options=ALL).create()
    assert [succeeded for _, succeeded in added(fake_vss)] == [None, None], "after a failure nothing is told"


def test_a_chosen_writer_that_is_gone_counts_as_failed(fake_vss: FakeVss, sql: FakeWriter) -> None:
    def end() -> None:
        gathered = fake_vss.requesters[-1].writers
        assert gathered is not None
        gathered.remove(sql)

    fake_vss.on_instant = end
    with Snapshot("C:", options=ALL) as s:
        assert s.consistency is Consistency.FILESYSTEM
        assert [(report.name, report.state) for report in s.writers] == [("SqlServerWriter", "UNKNOWN")]


def test_a_body_that_raises_tells_of_no_success(fake_vss: FakeVss, sql: FakeWriter) -> None:
    with pytest.raises(ZeroDivisionError), Snapshot("C:", options=ALL):
        raise ZeroDivisionError
    assert [succeeded for _, succeeded in added(fake_vss)] == [None, None]
    assert "IVssBackupComponents::AbortBackup" in fake_vss.calls
    assert "IVssBackupComponents::BackupComplete" not in fake_vss.calls


def test_what_could_not_be_read_is_told_as_failed(fake_vss: FakeVss, sql: FakeWriter) -> None:
    fake_vss.bad_sectors(8192, 512)
    with Snapshot("C:", "D:", options=ALL) as s, pytest.raises(DeviceReadError):
        s.open("D:").pread(512, 8192)
    assert added(fake_vss) == [
        ("server\\shop", True),
        ("server\\archive", False),
        ("server\\moved", True),
    ]


@pytest.mark.parametrize("kind", list(BackupKind))
def test_component_mode_and_the_kind_of_backup_are_said(
    fake_vss: FakeVss, sql: FakeWriter, kind: BackupKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, int]] = []
    real = FakeBackupComponents.SetBackupState

    def watched(self: FakeBackupComponents, select: bool, bootable: bool, given: int, partial: bool) -> int:
        seen.append((bool(select), given))
        return real(self, select, bootable, given, partial)

    monkeypatch.setattr(FakeBackupComponents, "SetBackupState", watched)
    with Snapshot("C:", options=VssOptions(components=ComponentSelection(kind=kind))):
        pass
    with Snapshot("C:"):
        pass
    numbers = {"copy": 5, "full": 1, "incremental": 2, "differential": 3, "log": 4}  # vss.h
    assert seen == [(True, numbers[kind.value]), (False, 5)]


def test_documents_are_kept_with_the_image_whatever_its_format(
    fake_vss: FakeVss, sql: FakeWriter, tmp_path: Path
) -> None:
    with Snapshot("C:", options=ALL) as s:
        save_image(s.open(), tmp_path / "c.vsnap")
        save_image(s.open(), tmp_path / "c.raw")
        save_image(s.open(), tmp_path / "c.vhdx", options=VhdxOptions(sidecar=True))
        save_image(s.open(), tmp_path / "c.qcow2", options=Qcow2Options(sidecar=True))
    for suffix in ("vsnap", "raw", "vhdx", "qcow2"):
        with open_image(tmp_path / f"c.{suffix}") as image:
            documents = image.metadata.documents
        known = {one.instance_id: one for one in fake_vss.writers}
        assert {documents[f"vss/writers/{key}.xml"].decode() for key in known} == {
            one.document for one in known.values()
        }
        root = ET.fromstring(documents["vss/backup-components.xml"])  # noqa: S314 - of this test
        assert root.get("selectComponents") == "yes"
        assert [one.get("componentName") for one in root.iter("COMPONENT")] == ["shop", "moved"]
        chosen = {one["path"]: one["state"] for one in json.loads(documents["vss/components.json"])}
        assert chosen == {
            "SERVER\\shop": "explicit",
            "SERVER\\shop\\logs": "implicit",
            "SERVER\\archive": "left out",
            "SERVER\\moved": "explicit",
        }


def test_what_is_needed_and_not_there_stands_in_the_metadata(fake_vss: FakeVss, sql: FakeWriter) -> None:
    needs = ((sql.writer_id, "SERVER", "archive"),)
    fake_vss.add_writer(
        "Shop", components=(FakeComponent("shop", files=(FakeFiles("C:\\shop"),), needs=needs),)
    )
    with Snapshot("C:", options=ALL) as s:
        assert any("depends on SERVER\\archive" in note for note in s.open().metadata.notes)


def test_only_what_is_included_is_named(fake_vss: FakeVss, sql: FakeWriter) -> None:
    chosen = ComponentSelection(include=[ComponentSelector(writer="SqlServerWriter", path="server\\SHOP")])
    with Snapshot("C:", options=VssOptions(components=chosen)):
        pass
    assert added(fake_vss) == [("server\\shop", True)]


def test_something_that_is_not_there_leaves_nothing(fake_vss: FakeVss, sql: FakeWriter) -> None:
    chosen = ComponentSelection(include=[ComponentSelector(writer="SqlServerWriter", path="nothing")])
    with pytest.raises(UsageError, match="archive"):
        Snapshot("C:", options=VssOptions(components=chosen)).create()
    with pytest.raises(SnapshotError, match="no component"):
        Snapshot("D:", options=without("SqlServerWriter")).create()
    assert "IVssBackupComponents::StartSnapshotSet" not in fake_vss.calls


@pytest.mark.parametrize(
    "step", ["GetFileCounts", "GetComponent", "GetComponentInfo", "GetFile", "GetPath", "GetRecursive"]
)
def test_a_writer_whose_components_cannot_be_read_is_left_out(
    fake_vss: FakeVss, sql: FakeWriter, step: str
) -> None:
    fake_vss.add_writer("Other", components=(FakeComponent("x", files=(FakeFiles("C:\\x"),)),))
    # Every writer is asked for its counts; only those with components for more.
    fake_vss.faults.fail(step, 0x80042310, skip=1 if step == "GetFileCounts" else 0)
    with Snapshot("C:", options=ALL) as s:
        assert any("documents cannot be read" in note for note in s.open().metadata.notes)
    assert added(fake_vss) == [("x", True)]
    assert not fake_vss.faults.unused()


def test_a_failure_of_adding_needs_no_abort(fake_vss: FakeVss, sql: FakeWriter) -> None:
    fake_vss.faults.fail("AddComponent", 0x80070005)
    with pytest.raises(SnapshotPermissionError):
        Snapshot("C:", options=ALL).create()
    assert "IVssBackupComponents::AbortBackup" not in fake_vss.calls


def test_a_failure_of_telling_takes_nothing_back(
    fake_vss: FakeVss, sql: FakeWriter, caplog: pytest.LogCaptureFixture
) -> None:
    fake_vss.faults.fail("SetBackupSucceeded", 0x80042302)
    with Snapshot("C:", options=ALL):
        pass
    assert "SetBackupSucceeded" in caplog.text
    assert "IVssBackupComponents::BackupComplete" not in fake_vss.calls


def test_components_without_writers_are_refused_at_once() -> None:
    with pytest.raises(UsageError, match="writers=False"):
        VssOptions(writers=False, components=ComponentSelection())
    with pytest.raises(UsageError):
        VssOptions(components="all")  # type: ignore[arg-type]


def test_components_are_listed_for_who_chooses(fake_vss: FakeVss, sql: FakeWriter) -> None:
    found = list_components()
    assert [(one.writer, one.path, one.selectable, one.volumes) for one in found] == [
        ("SqlServerWriter", "SERVER\\shop", True, ("C:\\",)),
        ("SqlServerWriter", "SERVER\\shop\\logs", False, ("C:\\",)),
        ("SqlServerWriter", "SERVER\\archive", True, ("D:\\, C:\\mounted\\",)),
        ("SqlServerWriter", "SERVER\\moved", True, ("C:\\",)),
    ]
    assert found[0].files == ("%SystemRoot%\\sql\\shop.*",)
    assert found[3].files == ("C:\\spool\\*",)
    fake_vss.elevated = False
    with pytest.raises(SnapshotPermissionError):
        list_components()
