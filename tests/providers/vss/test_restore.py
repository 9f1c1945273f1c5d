"""Restoring with writers, through the public interface, on a fake machine.

The fixture checks after every test that nothing is left, and that writers that were told of the
beginning of a restore were told of its end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsssnap import Snapshot, _deadline
from vsssnap._win32 import constants
from vsssnap._win32.com import wide
from vsssnap._win32.protocols import CData
from vsssnap._win32.restore_components import Directed, SavedComponent
from vsssnap.errors import (
    ClosedError,
    ProviderUnavailableError,
    SnapshotError,
    SnapshotPermissionError,
    SnapshotTimeoutError,
    UsageError,
    WriterFailedError,
)
from vsssnap.providers.vss.restorable import placement
from vsssnap.testing.fake_vss import FakeComponent, FakeFiles, FakeVss
from vsssnap.vss import (
    ComponentSelection,
    DirectedFile,
    FileSet,
    RestorableComponent,
    RestoreStatus,
    RestoreTarget,
    VssOptions,
    WriterRestore,
)
from waiting import Late, until

FAILED = 0x800423F4


@pytest.fixture
def document(fake_vss: FakeVss) -> bytes:
    """Of a backup of two writers."""
    fake_vss.add_volume("C:\\")
    files = (FakeFiles("C:\\data"),)
    fake_vss.add_writer("Sql", components=(FakeComponent("shop", "SERVER", files=files),))
    both = (FakeComponent("box", files=files), FakeComponent("log", files=files))
    mapping = FakeFiles("C:\\data", alternate="D:\\away")
    fake_vss.add_writer("Mail", components=both, mappings=(mapping,))
    with Snapshot("C:", options=VssOptions(components=ComponentSelection())) as s:
        documents = dict(s.open().metadata.documents)
    for writer in fake_vss.writers:
        writer.events.clear()
    fake_vss.calls.clear()
    return documents["vss/backup-components.xml"]


def restore_all(document: bytes, *, begin: bool = True, failing: bool = False) -> None:
    """Restore everything, and fail in the middle if told so."""
    with WriterRestore(document) as restore:
        restore.select(*restore.components, options="x")
        if begin:
            restore.begin()
        if failing:
            raise ZeroDivisionError


def restore_with_everything(document: bytes) -> None:
    """A restore in which every call is made that can be."""
    data = FileSet(path="C:\\data")
    with WriterRestore(document) as restore:
        first, *others = restore.components
        restore.select(*others, options="x", more=True)
        restore.select_part(first, "SERVER\\shop\\logs")
        restore.redirect(first, data, "D:\\new")
        restore.begin()
        restore.restored_elsewhere(others[0], data, "D:\\away")


def called(vss: FakeVss, method: str) -> int:
    return sum(call.endswith(f"::{method}") for call in vss.calls)


def test_a_writer_that_cannot_be_asked_has_failed(fake_vss: FakeVss, document: bytes) -> None:
    fake_vss.faults.fail("GetWriterStatusEx", 0x80042301, times=2)
    with pytest.raises(WriterFailedError):
        restore_all(document)
    assert called(fake_vss, "PostRestore") == 1
    with WriterRestore(document) as restore:  # the other writer, which is not asked for, may keep silent
        restore.select(restore.components[0])
        fake_vss.faults.fail("GetWriterStatusEx", 0x80042301, skip=1)
        restore.begin()


def test_writers_prepare_for_a_restore_and_take_over(fake_vss: FakeVss, document: bytes) -> None:
    sql, mail = fake_vss.writers
    with WriterRestore(document) as restore:
        assert [(one.path, one.running) for one in restore.components] == [
            ("SERVER\\shop", True),
            ("box", True),
            ("log", True),
        ]
        shop = restore.components[0]
        assert shop.writer_id == str(sql.writer_id)
        restore.select(shop, options="with move")
        restore.begin()
        assert sql.events == ["identify", "pre_restore"]
        assert [report.state for report in restore.writers] == ["STABLE"]
        restore.report(shop, RestoreStatus.ALL)
        restore.finish()
        saved = fake_vss.requesters[-1].document[0]
        assert (saved.restore_options, saved.status.name) == ("with move", "VSS_RS_ALL")
    assert sql.events == ["identify", "pre_restore", "post_restore", "backup_shutdown"]
    assert mail.events == ["identify", "backup_shutdown"], "nothing of it is restored"
    assert called(fake_vss, "PostRestore") == 1


def test_leaving_the_block_finishes(fake_vss: FakeVss, document: bytes) -> None:
    with WriterRestore(document.decode()) as restore:
        restore.select(*restore.components)
        restore.begin()
        for one in restore.components[:2]:
            restore.report(one, RestoreStatus.ALL)
    states = [one.status.name for one in fake_vss.requesters[-1].document]
    assert states == ["VSS_RS_ALL", "VSS_RS_ALL", "VSS_RS_FAILED"], "of which nothing was said"
    assert called(fake_vss, "PostRestore") == 1


def test_a_body_that_raises_tells_writers_of_the_failure(fake_vss: FakeVss, document: bytes) -> None:
    with pytest.raises(ZeroDivisionError):
        restore_all(document, failing=True)
    assert fake_vss.requesters[-1].document[0].status.name == "VSS_RS_FAILED"
    assert fake_vss.writers[0].events[-2:] == ["post_restore", "backup_shutdown"]


def test_a_body_that_raises_before_the_beginning_tells_nobody(fake_vss: FakeVss, document: bytes) -> None:
    with pytest.raises(ZeroDivisionError):
        restore_all(document, begin=False, failing=True)
    assert called(fake_vss, "PreRestore") == called(fake_vss, "PostRestore") == 0


def test_a_writer_that_does_not_run_cannot_be_selected(fake_vss: FakeVss, document: bytes) -> None:
    fake_vss.writers.pop(0)
    with WriterRestore(document) as restore:
        assert [one.running for one in restore.components] == [False, True, True]
        with pytest.raises(ProviderUnavailableError):
            restore.select(restore.components[0])
        restore.select(restore.components[1])


@pytest.mark.parametrize(("event", "step"), [("pre_restore", "begin"), ("post_restore", "finish")])
def test_a_writer_that_fails_is_named_with_what_it_said(
    fake_vss: FakeVss, document: bytes, event: str, step: str
) -> None:
    sql = fake_vss.writers[0]
    sql.fails_at, sql.code, sql.message = event, FAILED, "the database is open"
    with WriterRestore(document) as restore:
        restore.select(*restore.components)
        if step == "finish":
            restore.begin()
        with pytest.raises(WriterFailedError, match="Sql") as caught:
            getattr(restore, step)()
        assert "shop: the database is open" in caught.value.__notes__
        assert {report.name: report.state for report in restore.writers}[
            "Sql"
        ] == f"FAILED_AT_{event.upper()}"
    assert called(fake_vss, "PostRestore") == 1, "the other writer waits for it"


def test_a_writer_that_is_not_concerned_may_be_in_any_state(fake_vss: FakeVss, document: bytes) -> None:
    mail = fake_vss.writers[1]
    for event in ("prepare_backup", "freeze"):
        mail.fails_at, mail.code = "freeze", FAILED
        mail.on(event)
    with WriterRestore(document) as restore:
        restore.select(restore.components[0])
        restore.begin()


@pytest.mark.parametrize(
    ("call", "where"),
    [
        ("CreateVssBackupComponents", "call"),
        ("InitializeForRestore", "call"),
        ("GatherWriterMetadata", "call"),
        ("GatherWriterMetadata", "async"),
        ("GetWriterComponentsCount", "call"),
        ("GetWriterComponents", "call"),
        ("GetWriterInfo", "call"),
        ("GetComponent", "call"),
        ("GetLogicalPath", "call"),
        ("GetPreRestoreFailureMsg", "call"),
        ("SetSelectedForRestore", "call"),
        ("SetRestoreOptions", "call"),
        ("SetAdditionalRestores", "call"),
        ("AddRestoreSubcomponent", "call"),
        ("AddNewTarget", "call"),
        ("AddAlternativeLocationMapping", "call"),
        ("PreRestore", "call"),
        ("PreRestore", "async"),
        ("GatherWriterStatus", "call"),
        ("SetFileRestoreStatus", "call"),
        ("PostRestore", "call"),
        ("PostRestore", "async"),
    ],
)
def test_a_failure_of_each_step_leaves_nothing(
    fake_vss: FakeVss, document: bytes, call: str, where: str
) -> None:
    fake_vss.faults.fail(call, 0x80070005, where=where)  # type: ignore[arg-type]
    with pytest.raises(SnapshotPermissionError) as caught:
        restore_with_everything(document)
    assert caught.value.code == 0x80070005
    assert not fake_vss.faults.unused()
    begun = called(fake_vss, "PreRestore") and (call, where) != ("PreRestore", "call")
    assert called(fake_vss, "PostRestore") == bool(begun)
    if call == "PostRestore":  # that writers were not told is the fault's doing
        fake_vss.ledger.violations.clear()


def test_a_document_that_is_none_is_refused(fake_vss: FakeVss) -> None:
    with pytest.raises(SnapshotError, match="INVALID_XML"), WriterRestore(b"<something/>"):
        raise AssertionError("it was taken")
    for wrong in (b"\xff\xfe", None, 3.5, 7):
        with pytest.raises(UsageError):
            WriterRestore(wrong)  # type: ignore[arg-type]


def test_steps_out_of_order_are_refused_before_vss_is_called(fake_vss: FakeVss, document: bytes) -> None:
    restore = WriterRestore(document)
    with pytest.raises(UsageError, match="with block"):
        _ = restore.components
    with restore:
        one, other = restore.components[:2]
        refused: list[Callable[[], object]] = [
            restore.begin,
            restore.finish,
            lambda: restore.report(one, RestoreStatus.ALL),
            lambda: restore.select("shop"),  # type: ignore[arg-type]
            lambda: restore.select(one, options=3),  # type: ignore[arg-type]
            lambda: restore.select(one, options="a\0b"),
        ]
        for call in refused:
            with pytest.raises(UsageError):
                call()
        restore.select(one)
        with pytest.raises(UsageError):
            restore.report(one, RestoreStatus.ALL)
        restore.begin()
        refused = [
            restore.begin,
            lambda: restore.select(other),
            lambda: restore.report(other, RestoreStatus.ALL),
            lambda: restore.report(one, 2),  # type: ignore[arg-type]
        ]
        for call in refused:
            with pytest.raises(UsageError):
                call()
        restore.finish()
        with pytest.raises(UsageError):
            restore.finish()
        with pytest.raises(UsageError):
            restore.report(one, RestoreStatus.ALL)
    with pytest.raises(UsageError, match="once"):
        restore.__enter__()
    with pytest.raises((ClosedError, UsageError)):
        restore.select(one)


def test_a_writer_that_does_not_answer_is_waited_for_until_the_timeout(
    fake_vss: FakeVss, document: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vss.faults.delay("PreRestore")
    monkeypatch.setattr(_deadline, "time", Late(lambda: called(fake_vss, "PreRestore") > 0))
    with WriterRestore(document) as restore:
        restore.select(restore.components[0])
        with pytest.raises(SnapshotTimeoutError):
            restore.begin()
    assert called(fake_vss, "Cancel") == 1
    assert called(fake_vss, "PostRestore") == 1


def test_a_forgotten_restore_is_ended(fake_vss: FakeVss, document: bytes) -> None:
    restore = WriterRestore(document)
    restore.__enter__()
    restore.select(restore.components[0])
    restore.begin()
    del restore
    assert fake_vss.writers[0].events[-2:] == ["post_restore", "backup_shutdown"]


def test_restores_one_after_the_other_leave_nothing(fake_vss: FakeVss, document: bytes) -> None:
    threads = threading.active_count()
    for _ in range(20):
        with WriterRestore(document) as restore:
            restore.select(*restore.components)
            restore.begin()
    fake_vss.check()
    assert until(lambda: threading.active_count() <= threads)


# Where files go.


DATA = FileSet(path="C:\\data")


def one_of(restore: WriterRestore, path: str) -> RestorableComponent:
    return next(one for one in restore.components if one.path == path)


def test_files_are_redirected_before_writers_are_told(fake_vss: FakeVss, document: bytes) -> None:
    seen: list[list[tuple[str, str, bool, str]]] = []

    def on_component(event: str, this: CData) -> None:
        del this
        if event == "pre_restore":
            seen.append(fake_vss.requesters[-1].document[1].new_targets)

    fake_vss.writers[1].on_component = on_component
    with WriterRestore(document) as restore:
        box = one_of(restore, "box")
        with pytest.raises(UsageError, match="select it first"):
            restore.redirect(box, DATA, "D:\\new")
        restore.select(box)
        restore.redirect(box, DATA, "D:\\new")
        for wrong in (FileSet(path="C:\\other"), FileSet(path="C:\\data", recursive=True)):
            with pytest.raises(ProviderUnavailableError, match="has no files") as caught:
                restore.redirect(box, wrong, "D:\\new")
            assert caught.value.call == "AddNewTarget"
        restore.begin()
        with pytest.raises(UsageError, match="select before begin"):
            restore.redirect(box, DATA, "D:\\new")
    assert seen[0] == [("C:\\data", "*", False, "D:\\new")]


def test_alternate_locations_are_told_when_files_are_there(fake_vss: FakeVss, document: bytes) -> None:
    fake_vss.writers[0].mappings = (FakeFiles("C:\\data", alternate="D:\\away"),)
    with WriterRestore(document) as restore:
        shop = one_of(restore, "SERVER\\shop")
        restore.select(shop)
        with pytest.raises(UsageError, match="between begin and finish"):
            restore.restored_elsewhere(shop, DATA, "D:\\away")
        restore.begin()
        with pytest.raises(UsageError):
            restore.restored_elsewhere(one_of(restore, "box"), DATA, "D:\\away")
        restore.restored_elsewhere(shop, DATA, "D:\\away")
        with pytest.raises(ProviderUnavailableError, match="has no files"):
            restore.restored_elsewhere(shop, FileSet(path="C:\\other"), "D:\\away")
        restore.finish()
        with pytest.raises(UsageError):
            restore.restored_elsewhere(shop, DATA, "D:\\away")
    assert fake_vss.requesters[-1].document[0].mappings == [("C:\\data", "*", False, "D:\\away")]


def test_a_writer_says_where_it_wants_its_files(fake_vss: FakeVss, document: bytes) -> None:
    def on_component(event: str, this: CData) -> None:
        if event == "pre_restore":
            this.lpVtbl.SetRestoreTarget(this, 3)
            moved = ("C:\\data", "a.mdf", "0:0x1000, 8192:512", "D:\\new", "b.mdf", "512:4096,0:512")
            assert this.lpVtbl.AddDirectedTarget(this, *map(wide, moved)) == 0

    fake_vss.writers[0].on_component = on_component
    with WriterRestore(document) as restore:
        shop, box = one_of(restore, "SERVER\\shop"), one_of(restore, "box")
        restore.select(shop, box)
        with pytest.raises(UsageError, match="when the restore has begun"):
            restore.placement(shop)
        restore.begin()
        found = restore.placement(shop)
        assert found.target is RestoreTarget.DIRECTED
        assert found.directed == (
            DirectedFile(
                path="C:\\data",
                name="a.mdf",
                ranges=((0, 4096), (8192, 512)),
                to_path="D:\\new",
                to_name="b.mdf",
                to_ranges=((512, 4096), (0, 512)),
            ),
        )
        assert restore.placement(box).target is RestoreTarget.ORIGINAL
        with pytest.raises(UsageError):
            restore.placement(one_of(restore, "log"))


@pytest.mark.parametrize(
    "ranges", [("0:8", "0:9"), ("0:8", "0:4,4:4"), ("all", "all"), ("", ""), ("-1:8", "0:8"), ("0:²", "0:2")]
)
def test_a_writer_that_says_nonsense_is_told_on(
    fake_vss: FakeVss, document: bytes, ranges: tuple[str, str]
) -> None:
    def on_component(event: str, this: CData) -> None:
        del this
        if event == "pre_restore":
            saved = fake_vss.requesters[-1].document[0]
            saved.directed.append(("C:\\data", "a", ranges[0], "C:\\data", "b", ranges[1]))

    fake_vss.writers[0].on_component = on_component
    with WriterRestore(document) as restore:
        shop = one_of(restore, "SERVER\\shop")
        restore.select(shop)
        restore.begin()
        with pytest.raises(SnapshotError, match="its writer wants"):
            restore.placement(shop)


def test_a_part_of_a_component_is_restored(fake_vss: FakeVss, document: bytes) -> None:
    with WriterRestore(document) as restore:
        shop = one_of(restore, "SERVER\\shop")
        restore.select_part(shop, "SERVER\\shop\\logs")
        restore.select_part(shop, "SERVER\\shop\\index")
        with pytest.raises(UsageError, match="are selected"):
            restore.select(shop)
        restore.begin()
        restore.report(shop, RestoreStatus.ALL)
    saved = fake_vss.requesters[-1].document[0]
    assert saved.subcomponents == [("SERVER\\shop", "logs", False), ("SERVER\\shop", "index", False)]
    assert not saved.selected
    assert fake_vss.writers[0].events == ["identify", "pre_restore", "post_restore", "backup_shutdown"]
    assert fake_vss.writers[1].events == ["identify", "backup_shutdown"]


def test_a_part_of_what_is_selected_is_no_choice(fake_vss: FakeVss, document: bytes) -> None:
    with WriterRestore(document) as restore:
        shop = one_of(restore, "SERVER\\shop")
        restore.select(shop, more=True)
        with pytest.raises(UsageError, match="is selected whole"):
            restore.select_part(shop, "SERVER\\shop\\logs")
        for wrong in ("", "a\0", 3):
            with pytest.raises(UsageError):
                restore.select_part(one_of(restore, "box"), wrong)  # type: ignore[arg-type]
    assert fake_vss.requesters[-1].document[0].more_restores


@pytest.mark.parametrize("wrong", ["", "a\0", 3, None])
def test_places_that_are_none_are_refused(fake_vss: FakeVss, document: bytes, wrong: str) -> None:
    with WriterRestore(document) as restore:
        restore.select(one_of(restore, "box"))
        with pytest.raises(UsageError):
            restore.redirect(one_of(restore, "box"), FileSet(path=wrong), "D:\\")
        with pytest.raises(UsageError):
            restore.redirect(one_of(restore, "box"), DATA, wrong)
        with pytest.raises(UsageError):
            restore.redirect(one_of(restore, "box"), "C:\\data", "D:\\")  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            restore.select(one_of(restore, "log"), more=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("step", ["GetRestoreTarget", "GetDirectedTargetCount", "GetDirectedTarget"])
def test_a_placement_that_cannot_be_read_is_told(fake_vss: FakeVss, document: bytes, step: str) -> None:
    def on_component(event: str, this: CData) -> None:
        if event == "pre_restore":
            moved = ("C:\\data", "a.mdf", "0:8", "D:\\new", "b.mdf", "0:8")
            this.lpVtbl.AddDirectedTarget(this, *map(wide, moved))

    fake_vss.writers[0].on_component = on_component
    with WriterRestore(document) as restore:
        restore.select(one_of(restore, "SERVER\\shop"))
        restore.begin()
        fake_vss.faults.fail(step, 0x80042311)
        with pytest.raises(SnapshotError) as caught:
            restore.placement(one_of(restore, "SERVER\\shop"))
        assert caught.value.code == 0x80042311
        assert restore.placement(one_of(restore, "SERVER\\shop")).directed


@given(st.text() | st.from_regex(r"(0x)?[0-9a-f]{1,20}:[0-9]{1,25}(, ?[0-9]+:[0-9]+)*", fullmatch=True))
def test_any_text_is_ranges_or_is_not(text: str) -> None:
    saved = SavedComponent(
        writer_id=UUID(int=1),
        instance_id=UUID(int=2),
        kind=constants.ComponentType.VSS_CT_FILEGROUP,
        logical_path="",
        name="one",
        target=constants.RestoreTarget.VSS_RT_DIRECTED,
        directed=(Directed("C:\\", "a", text, "C:\\", "b", text),),
    )
    try:
        found = placement(saved).directed[0]
    except SnapshotError:
        return
    for offset, length in found.ranges:
        assert 0 <= offset < 1 << 64
        assert 0 <= length < 1 << 64
