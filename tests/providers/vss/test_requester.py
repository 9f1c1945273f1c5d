"""What is called when a step fails: each row of the table, against a VSS that keeps to the documentation.

The fixture checks after every test that no reference, string, handle, page or shadow copy is left,
and that nothing forbidden was done: no BackupComplete after a failure, no Release without AbortBackup
where one is due, no release of a pending operation.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from uuid import UUID

import pytest

from vsssnap import Consistency, Snapshot, SnapshotEvent, _deadline, _held, _retries
from vsssnap._win32 import failures
from vsssnap.errors import (
    CancelledError,
    InsufficientStorageError,
    ProviderUnavailableError,
    SnapshotBusyError,
    SnapshotError,
    SnapshotPermissionError,
    SnapshotTimeoutError,
    UsageError,
    WriterFailedError,
)
from vsssnap.providers import Provider
from vsssnap.quiesce import claiming
from vsssnap.testing.fake_vss import FakeVss
from vsssnap.vss import ComSecurity, StepTimeouts, VssOptions
from waiting import Late

BAD_STATE = 0x80042301
UNEXPECTED = 0x80042302
PROVIDER_VETO = 0x80042306
NOT_FOUND = 0x80042308
HOLD_WRITES = 0x80042314
IN_PROGRESS = 0x80042316
NO_STORAGE = 0x8004231F
RETRYABLE = 0x800423F3
NONRETRYABLE = 0x800423F4
DENIED = 0x80070005


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait milliseconds where the library waits for the machine to calm down."""
    monkeypatch.setattr(failures, "RETRY_PAUSE", 0.01)
    monkeypatch.setattr(_retries, "_FIRST", 0.01)


@pytest.fixture
def vss(fake_vss: FakeVss) -> FakeVss:
    fake_vss.add_volume("C:\\")
    fake_vss.add_writer("System Writer")
    fake_vss.add_writer("SqlServerWriter")
    return fake_vss


def called(vss: FakeVss, method: str) -> int:
    return sum(call.endswith(f"::{method}") for call in vss.calls)


def late_at(vss: FakeVss, monkeypatch: pytest.MonkeyPatch, method: str, times: int = 1) -> None:
    """Have all limits be over once a method was called so often."""
    monkeypatch.setattr(_deadline, "time", Late(lambda: called(vss, method) >= times))


def fails(vss: FakeVss, **arguments: object) -> SnapshotError:
    """Take a snapshot that must fail."""
    snapshot = Snapshot("C:", **arguments)  # type: ignore[arg-type]
    with pytest.raises(SnapshotError) as caught:
        snapshot.create()
    assert not vss.shadows
    return caught.value


# Before StartSnapshotSet: Release is enough.


@pytest.mark.parametrize(
    ("step", "where"),
    [
        ("CreateVssBackupComponents", "call"),
        ("InitializeForBackup", "call"),
        ("SetBackupState", "call"),
        ("GatherWriterMetadata", "call"),
        ("GatherWriterMetadata", "async"),
        ("GatherWriterMetadata", "wait"),
        ("GetWriterMetadataCount", "call"),
    ],
)
def test_a_failure_before_the_set_needs_no_abort(vss: FakeVss, step: str, where: str) -> None:
    vss.faults.fail(step, DENIED, where=where)  # type: ignore[arg-type]
    error = fails(vss)
    assert isinstance(error, SnapshotPermissionError)
    assert error.code == DENIED
    assert called(vss, "AbortBackup") == 0
    assert not vss.faults.unused()


def test_a_context_that_is_refused_is_named(vss: FakeVss) -> None:
    vss.faults.fail("SetContext", 0x8004231B)
    error = fails(vss, options=VssOptions(writers=False))
    assert isinstance(error, ProviderUnavailableError)
    assert called(vss, "AbortBackup") == 0


def test_start_that_fails_otherwise_is_not_aborted(vss: FakeVss) -> None:
    vss.faults.fail("StartSnapshotSet", BAD_STATE)
    assert fails(vss).code == BAD_STATE
    assert called(vss, "AbortBackup") == 0


# A busy set is retried on the same object.


def test_a_busy_set_is_tried_again_on_the_same_object(vss: FakeVss) -> None:
    vss.faults.fail("StartSnapshotSet", IN_PROGRESS, times=2)
    with Snapshot("C:") as s:
        assert s.consistency is Consistency.APPLICATION
    assert called(vss, "StartSnapshotSet") == 3
    assert vss.calls.count("CreateVssBackupComponents") == 1


def test_another_program_that_never_ends_is_busy_at_the_deadline(
    vss: FakeVss, monkeypatch: pytest.MonkeyPatch
) -> None:
    late_at(vss, monkeypatch, "StartSnapshotSet", 3)
    with vss.busy():
        error = fails(vss)
    assert isinstance(error, SnapshotBusyError)
    assert "another program" in str(error)
    assert any("tried" in note for note in error.__notes__)


def test_another_program_that_ends_lets_us_go_on(vss: FakeVss) -> None:
    inside, seen = vss.busy(), threading.Event()
    inside.__enter__()

    def leave() -> None:
        while called(vss, "StartSnapshotSet") < 2:
            time.sleep(0.01)
        seen.set()
        inside.__exit__(None, None, None)

    other = threading.Thread(target=leave)
    other.start()
    with Snapshot("C:", timeout=30):
        assert seen.is_set()
    other.join()


# After StartSnapshotSet: AbortBackup, then Release.

AFTER_START = [
    ("IsVolumeSupported", "call"),
    ("AddToSnapshotSet", "call"),
    ("PrepareForBackup", "call"),
    ("PrepareForBackup", "async"),
    ("PrepareForBackup", "wait"),
    ("GatherWriterStatus", "call"),
    ("GatherWriterStatus", "async"),
    ("GetWriterStatusCount", "call"),
    ("DoSnapshotSet", "call"),
    ("DoSnapshotSet", "async"),
    ("DoSnapshotSet", "wait"),
    ("GetSnapshotProperties", "call"),
    ("SaveAsXML", "call"),
]


@pytest.mark.parametrize(("step", "where"), AFTER_START)
def test_a_failure_after_the_set_was_started_is_aborted(vss: FakeVss, step: str, where: str) -> None:
    # SaveAsXML of the metadata comes first, and is not the one meant.
    vss.faults.fail(step, NO_STORAGE, where=where, skip=2 if step == "SaveAsXML" else 0)  # type: ignore[arg-type]
    error = fails(vss)
    assert isinstance(error, InsufficientStorageError)
    assert error.code == NO_STORAGE
    assert called(vss, "AbortBackup") == 1
    assert called(vss, "BackupComplete") == 0
    assert not vss.faults.unused()


@pytest.mark.parametrize("silent", [True, False])
def test_what_wait_says_is_not_the_outcome(vss: FakeVss, silent: bool) -> None:
    # IVssAsync::Wait may return S_OK for an operation that failed; QueryStatus tells.
    vss.faults.delay("DoSnapshotSet", 0.05)
    vss.faults.fail("DoSnapshotSet", NO_STORAGE, where="async", silent=silent)
    assert fails(vss).code == NO_STORAGE


def test_a_volume_that_no_provider_copies_is_named(vss: FakeVss) -> None:
    vss.add_volume("E:\\", supported=False)
    with pytest.raises(ProviderUnavailableError, match=r"E:\\: no VSS provider") as caught:
        Snapshot("C:", "E:", provider="vss").create()
    assert caught.value.code == 0x8004230C
    assert called(vss, "AbortBackup") == 1


@pytest.mark.parametrize("order", [("C:", "V:"), ("V:", "C:")])
def test_a_volume_in_a_virtual_disk_is_not_of_one_instant_with_its_host(
    vss: FakeVss, order: tuple[str, str]
) -> None:
    inner = vss.add_volume("V:\\", host=vss.volumes[0])
    expected = rf"^{order[1]}\\: a volume in a virtual disk and .* cannot be in one set"
    with pytest.raises(ProviderUnavailableError, match=expected) as caught:
        Snapshot(*order, provider="vss").create()
    assert (caught.value.code, caught.value.retryable) == (0x8004232C, False)
    assert "one after the other" in caught.value.hint
    assert called(vss, "AbortBackup") == 1
    inner.pwrite(b"at its own instant", 0)
    for volume in order:  # what the hint says
        with Snapshot(volume, provider="vss") as s, s.open() as disk:
            assert disk.pread(18, 0) == (b"at its own instant" if volume == "V:" else bytes(18))


@pytest.mark.parametrize("step", ["IsVolumeSupported", "AddToSnapshotSet"])
def test_a_volume_that_fails_is_named_as_people_know_it(vss: FakeVss, step: str) -> None:
    vss.add_volume("D:\\")
    vss.faults.fail(step, NOT_FOUND, skip=1)
    with pytest.raises(SnapshotError, match=r"^D:\\: there is no such volume"):
        Snapshot("C:", "D:", provider="vss").create()


def test_an_abort_that_fails_is_a_note_on_the_first_error(vss: FakeVss) -> None:
    vss.faults.fail("AddToSnapshotSet", NO_STORAGE)
    vss.faults.fail("AbortBackup", UNEXPECTED)
    error = fails(vss)
    assert error.code == NO_STORAGE
    assert any("VSS_E_UNEXPECTED" in note for note in error.__notes__)
    # That VSS was not told is the fault's doing, not ours.
    vss.ledger.violations.clear()


# What passes is tried again, with a new object.


@pytest.mark.parametrize("code", [HOLD_WRITES, PROVIDER_VETO, 0x80042313, 0x8004230F])
def test_what_passes_is_tried_again_with_a_new_object(vss: FakeVss, code: int) -> None:
    vss.faults.fail("DoSnapshotSet", code, where="async")
    events: list[SnapshotEvent] = []
    with Snapshot("C:", on_event=events.append):
        assert vss.calls.count("CreateVssBackupComponents") == 2
    assert called(vss, "AbortBackup") == 1
    assert [event.step for event in events].count("busy") == 1


def test_it_is_tried_again_three_times_and_no_more(vss: FakeVss) -> None:
    vss.faults.fail("DoSnapshotSet", HOLD_WRITES, where="async", times=math.inf)
    error = fails(vss)
    assert error.code == HOLD_WRITES
    assert vss.calls.count("CreateVssBackupComponents") == 4
    assert any("tried 4 times" in note for note in error.__notes__)


def test_a_service_that_hiccups_is_asked_once_more(vss: FakeVss) -> None:
    vss.faults.fail("InitializeForBackup", UNEXPECTED, times=math.inf)
    assert fails(vss).code == UNEXPECTED
    assert vss.calls.count("CreateVssBackupComponents") == 2


def test_what_does_not_pass_is_not_tried_again(vss: FakeVss) -> None:
    vss.faults.fail("DoSnapshotSet", NO_STORAGE, where="async", times=math.inf)
    fails(vss)
    assert vss.calls.count("CreateVssBackupComponents") == 1


# Writers.


def test_a_writer_that_is_not_needed_is_reported(vss: FakeVss) -> None:
    vss.writers[1].fails_at, vss.writers[1].code = "freeze", NONRETRYABLE
    vss.writers[1].message = "log is full"
    with Snapshot("C:") as s:
        assert s.consistency is Consistency.FILESYSTEM
        report = next(found for found in s.writers if found.name == "SqlServerWriter")
        assert (report.state, report.code) == ("FAILED_AT_FREEZE", NONRETRYABLE)
        assert "log is full" in report.message
        assert any("SqlServerWriter" in note for note in s.open().metadata.notes)
    assert called(vss, "BackupComplete") == 1


@pytest.mark.parametrize("event", ["prepare_backup", "prepare_snapshot", "freeze", "thaw", "post_snapshot"])
def test_a_writer_that_is_needed_fails_the_snapshot(vss: FakeVss, event: str) -> None:
    vss.writers[1].fails_at, vss.writers[1].code = event, NONRETRYABLE
    error = fails(vss, require=Consistency.APPLICATION)
    assert isinstance(error, WriterFailedError)
    assert error.writer == "SqlServerWriter"
    assert error.state == f"FAILED_AT_{event.upper()}"
    assert error.code == NONRETRYABLE
    assert called(vss, "AbortBackup") == 1
    assert "abort" in vss.writers[0].events
    assert vss.calls.count("CreateVssBackupComponents") == 1


def test_a_writer_that_fails_for_the_moment_gets_a_new_object(vss: FakeVss) -> None:
    writer = vss.writers[1]
    writer.fails_at, writer.code, writer.times = "freeze", RETRYABLE, 2
    with Snapshot("C:", require=Consistency.APPLICATION) as s:
        assert s.consistency is Consistency.APPLICATION
    assert vss.calls.count("CreateVssBackupComponents") == 3
    assert called(vss, "AbortBackup") == 2


def test_a_writer_that_is_not_needed_is_not_tried_again(vss: FakeVss) -> None:
    vss.writers[1].fails_at, vss.writers[1].code = "freeze", RETRYABLE
    with Snapshot("C:"):
        assert vss.calls.count("CreateVssBackupComponents") == 1


@pytest.mark.parametrize("step", ["GetWriterMetadata", "GetIdentity"])
def test_a_writer_whose_document_cannot_be_read_stops_nobody(vss: FakeVss, step: str) -> None:
    vss.faults.fail(step, 0x80042310)
    with Snapshot("C:", require=Consistency.APPLICATION) as s:
        documents = s.open().metadata.documents
    assert [name for name in documents if name.startswith("vss/writers/")] == [
        f"vss/writers/{vss.writers[1].instance_id}.xml"
    ]


def test_a_writer_that_cannot_be_asked_counts_as_failed(vss: FakeVss) -> None:
    vss.faults.fail("GetWriterStatusEx", UNEXPECTED, times=4)
    with Snapshot("C:") as s:
        assert s.consistency is Consistency.FILESYSTEM
        assert {(report.state, report.code) for report in s.writers} == {("UNKNOWN", UNEXPECTED)}
    vss.faults.fail("GetWriterStatusEx", UNEXPECTED, times=math.inf)
    assert isinstance(fails(vss, require=Consistency.APPLICATION), WriterFailedError)


def test_quiesce_managers_stand_in_for_writers(vss: FakeVss) -> None:
    vss.writers[1].fails_at, vss.writers[1].code = "freeze", NONRETRYABLE
    manager = claiming(nullcontext(), claims=Consistency.APPLICATION)
    with Snapshot("C:", require=Consistency.APPLICATION, quiesce=[manager]) as s:
        assert s.consistency is Consistency.APPLICATION


def test_an_old_windows_reports_without_the_application(vss: FakeVss) -> None:
    vss.hides.add("IVssBackupComponentsEx3")
    vss.writers[1].fails_at, vss.writers[1].code = "freeze", NONRETRYABLE
    with Snapshot("C:") as s:
        assert {report.name for report in s.writers} == {"System Writer", "SqlServerWriter"}
    assert called(vss, "GetWriterStatusEx") == 0


@pytest.mark.parametrize("by", ["name", "id", "text"])
def test_an_excluded_writer_gets_no_events(vss: FakeVss, by: str) -> None:
    writer = vss.writers[1]
    spellings: dict[str, str | UUID] = {
        "name": "sqlserverwriter",
        "id": writer.writer_id,
        "text": str(writer.writer_id),
    }
    options = VssOptions(exclude_writers=(spellings[by],))
    writer.fails_at, writer.code = "freeze", NONRETRYABLE
    with Snapshot("C:", require=Consistency.APPLICATION, options=options) as s:
        assert [report.name for report in s.writers] == ["System Writer"]
    assert set(writer.events) <= {"identify", "backup_shutdown"}


def test_excluding_a_writer_that_is_not_there_names_those_that_are(vss: FakeVss) -> None:
    with pytest.raises(ValueError, match="System Writer"):
        Snapshot("C:", options=VssOptions(exclude_writers=("NoSuchWriter",))).create()
    assert not vss.shadows


def test_without_writers_none_is_asked(vss: FakeVss) -> None:
    with Snapshot("C:", options=VssOptions(writers=False)) as s:
        assert s.consistency is Consistency.FILESYSTEM
        assert s.writers == ()
    for forbidden in ("GatherWriterMetadata", "PrepareForBackup", "GatherWriterStatus", "BackupComplete"):
        assert called(vss, forbidden) == 0
    assert called(vss, "SetContext") == 1
    assert called(vss, "AbortBackup") == 0, "it ended well: a lasting shadow copy must not be aborted"


def test_a_body_that_raises_aborts_also_without_writers(vss: FakeVss) -> None:
    with pytest.raises(ZeroDivisionError), Snapshot("C:", options=VssOptions(writers=False)):
        raise ZeroDivisionError
    assert called(vss, "AbortBackup") == 1


# What is told of it.

BEGUN = ["create", "initialize", "set_context", "set_backup_state"]


@pytest.mark.parametrize("writers", [True, False])
def test_every_step_is_told_with_its_code_and_duration(vss: FakeVss, writers: bool) -> None:
    events: list[SnapshotEvent] = []
    here: set[int] = set()

    def told(event: SnapshotEvent) -> None:
        events.append(event)
        here.add(threading.get_ident())

    vss.faults.delay("DoSnapshotSet", 0.2)
    with Snapshot("C:", options=VssOptions(writers=writers), on_event=told):
        pass
    gathering = ["exclude_writers", "gather_writers", "add_components"] if writers else []
    asking = ["ask_writers"] if writers else []
    assert [event.step.removeprefix("vss.") for event in events] == [
        *("probe", "prepare", *BEGUN, *gathering, "start_set", "add_volumes"),
        *(["prepare_writers"] if writers else []),
        *(*asking, "take", "do_snapshot_set", *asking, "read_properties"),
        *(["save_document"] if writers else []),
        *("ready", "release"),
        *(["tell_components", "backup_complete", "ask_writers"] if writers else []),
    ]
    steps = [event for event in events if event.step.startswith("vss.")]
    assert {event.code for event in steps} == {0}
    assert all(event.lasted is None for event in events if event not in steps)
    (instant,) = (event for event in steps if event.step == "vss.do_snapshot_set")
    assert instant.lasted is not None
    # The clock of Windows goes in steps (GetTickCount64).
    assert 0.2 - time.get_clock_info("monotonic").resolution <= instant.lasted < 30
    assert here == {threading.get_ident()}


def test_a_step_that_fails_is_told_with_its_code(vss: FakeVss) -> None:
    vss.faults.fail("DoSnapshotSet", NO_STORAGE, where="async")
    events: list[SnapshotEvent] = []
    fails(vss, on_event=events.append)
    assert (events[-1].step, events[-1].code) == ("vss.do_snapshot_set", NO_STORAGE)
    assert "no room" in events[-1].detail


def test_what_is_told_is_told_outside_the_instant(vss: FakeVss) -> None:
    order: list[str] = []

    @contextmanager
    def quiet() -> Iterator[None]:
        order.append("stopped")
        yield
        order.append("started")

    with Snapshot("C:", quiesce=[quiet()], on_event=lambda event: order.append(event.step)):
        pass
    assert order.index("stopped") < order.index("started") < order.index("vss.do_snapshot_set")
    assert not any(step.startswith("vss.") for step in order[order.index("stopped") : order.index("started")])


def test_applications_are_quiet_for_the_instant_alone(vss: FakeVss) -> None:
    seen: list[str] = []

    @contextmanager
    def quiet() -> Iterator[None]:
        yield
        seen.extend(vss.calls)

    with Snapshot("C:", quiesce=[quiet()]):
        pass
    names = [call.rpartition("::")[2] for call in vss.calls]
    instant = names.index("DoSnapshotSet")
    assert set(names[instant + 1 : len(seen)]) <= {"Wait", "QueryStatus"}
    assert instant < len(seen) <= names.index("GatherWriterStatus", instant)


@pytest.mark.parametrize("step", ["vss.start_set", "vss.do_snapshot_set", "vss.backup_complete"])
def test_a_listener_that_raises_leaves_nothing(vss: FakeVss, step: str) -> None:
    def told(event: SnapshotEvent) -> None:
        if event.step == step:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Snapshot("C:", on_event=told):
        pass
    assert not vss.shadows


# Time and cancelling.


@pytest.mark.parametrize(
    "step", ["GatherWriterMetadata", "PrepareForBackup", "GatherWriterStatus", "DoSnapshotSet"]
)
def test_a_step_that_hangs_is_stopped_at_the_deadline(
    vss: FakeVss, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    vss.faults.delay(step)
    late_at(vss, monkeypatch, step)
    error = fails(vss)
    assert isinstance(error, SnapshotTimeoutError)
    assert step in str(error)
    assert called(vss, "Cancel") == 1


STEPS = {
    "gather_writers": "GatherWriterMetadata",
    "prepare_writers": "PrepareForBackup",
    "ask_writers": "GatherWriterStatus",
    "do_snapshot_set": "DoSnapshotSet",
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_ends_at_its_own_timeout(vss: FakeVss, name: str) -> None:
    vss.faults.delay(STEPS[name])
    started = time.monotonic()
    error = fails(vss, options=VssOptions(timeouts=StepTimeouts(**{name: 0.3})))
    assert time.monotonic() - started < 200, "and not the 600 s of the whole"
    assert isinstance(error, SnapshotTimeoutError)
    assert f"{STEPS[name]}: not done within 0.3 s" in str(error)
    assert error.hint == f"raise timeouts=StepTimeouts({name}=) or find what blocks it"
    assert called(vss, "Cancel") == 1
    aborted = called(vss, "AbortBackup")
    assert aborted == (name != "gather_writers")


def test_the_end_of_a_backup_has_its_own_timeout(vss: FakeVss, caplog: pytest.LogCaptureFixture) -> None:
    vss.faults.delay("BackupComplete")
    started = time.monotonic()
    with Snapshot("C:", options=VssOptions(timeouts=StepTimeouts(backup_complete=0.3))):
        pass  # the copies are made: a late end is told, and takes nothing back
    assert time.monotonic() - started < 200, "and not the 600 s that it has by default"
    assert "BackupComplete: not done within 0.3 s" in caplog.text
    assert called(vss, "AbortBackup") == 1


def test_writers_have_their_own_time_for_the_end_of_a_backup(
    vss: FakeVss, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_held, "_RELEASE_BUDGET", 0.2)  # for giving back what a snapshot holds
    monkeypatch.setattr(Provider, "completing", 0.2)
    vss.faults.delay("BackupComplete", 1.0)
    with Snapshot("C:"):
        pass
    assert called(vss, "AbortBackup") == 0


def test_the_timeout_of_a_step_is_within_that_of_the_whole(
    vss: FakeVss, monkeypatch: pytest.MonkeyPatch
) -> None:
    vss.faults.delay("DoSnapshotSet")
    late_at(vss, monkeypatch, "DoSnapshotSet")
    options = VssOptions(timeouts=StepTimeouts(do_snapshot_set=math.inf))
    error = fails(vss, options=options, timeout=150)
    assert "not done within 150 s" in str(error)
    assert error.hint == "raise timeout= or find what blocks it"


@pytest.mark.parametrize("seconds", [0, -1, math.nan, "10", None, True])
def test_a_timeout_that_is_none_is_refused(seconds: object) -> None:
    with pytest.raises(UsageError, match="ask_writers"):
        StepTimeouts(ask_writers=seconds)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="timeouts"):
        VssOptions(timeouts=seconds)  # type: ignore[arg-type]


def test_a_step_that_ends_late_is_waited_for_before_it_is_aborted(
    vss: FakeVss, monkeypatch: pytest.MonkeyPatch
) -> None:
    vss.faults.delay("DoSnapshotSet", deaf=0.6)
    late_at(vss, monkeypatch, "DoSnapshotSet")
    error = fails(vss)
    assert isinstance(error, SnapshotTimeoutError)
    cancel = vss.calls.index("IVssAsync::Cancel")
    abort = vss.calls.index("IVssBackupComponents::AbortBackup")
    assert vss.calls[cancel:abort].count("IVssAsync::QueryStatus") > 1, "it was drained"


@pytest.mark.parametrize("step", ["GatherWriterMetadata", "DoSnapshotSet"])
def test_cancel_comes_through_at_once(vss: FakeVss, step: str) -> None:
    vss.faults.delay(step)
    snapshot = Snapshot("C:", timeout=100)
    done: list[float] = []

    def cancel() -> None:
        while called(vss, step) == 0:
            time.sleep(0.01)
        done.append(time.monotonic())
        snapshot.cancel()

    other = threading.Thread(target=cancel)
    other.start()
    with pytest.raises(CancelledError):
        snapshot.create()
    other.join()
    assert not vss.shadows
    assert called(vss, "Cancel") == 1


def test_cancel_while_waiting_for_another_program(vss: FakeVss) -> None:
    snapshot = Snapshot("C:", timeout=100)
    threading.Timer(0.2, snapshot.cancel).start()
    with vss.busy(), pytest.raises(CancelledError):
        snapshot.create()
    assert called(vss, "AbortBackup") == 0


# After the instant.


def test_a_body_that_raises_aborts(vss: FakeVss) -> None:
    with pytest.raises(ZeroDivisionError), Snapshot("C:"):
        raise ZeroDivisionError
    assert called(vss, "AbortBackup") == 1
    assert called(vss, "BackupComplete") == 0
    assert not vss.shadows
    assert vss.writers[0].events[-2:] == ["abort", "backup_shutdown"]


def test_a_body_that_ends_completes(vss: FakeVss) -> None:
    with Snapshot("C:") as s:
        assert {report.state for report in s.writers} == {"WAITING_FOR_BACKUP_COMPLETE"}
    assert called(vss, "BackupComplete") == 1
    assert called(vss, "AbortBackup") == 0
    assert {report.state for report in s.writers} == {"STABLE"}
    assert vss.writers[0].events[-2:] == ["backup_complete", "backup_shutdown"]


@pytest.mark.parametrize("where", ["call", "async"])
def test_an_end_that_fails_takes_nothing_back(
    vss: FakeVss, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    vss.faults.fail("BackupComplete", 0x80042315, where=where)  # type: ignore[arg-type]
    with Snapshot("C:"):
        pass
    assert "BackupComplete" in caplog.text
    assert not vss.shadows


def test_a_writer_that_fails_at_the_end_is_reported(vss: FakeVss) -> None:
    vss.writers[1].fails_at, vss.writers[1].code = "backup_complete", NONRETRYABLE
    with Snapshot("C:", require=Consistency.APPLICATION) as s:
        pass
    assert s.consistency is Consistency.APPLICATION
    assert {report.state for report in s.writers} == {"STABLE", "FAILED_AT_BACKUP_COMPLETE"}


def test_a_forgotten_snapshot_is_aborted(vss: FakeVss) -> None:
    snapshot = Snapshot("C:")
    snapshot.create()
    with pytest.warns(ResourceWarning, match="forgotten"):
        del snapshot
    assert called(vss, "AbortBackup") == 1
    assert not vss.shadows


# COM security.


def test_com_security_that_somebody_set_is_fine(vss: FakeVss) -> None:
    vss.security_set = True
    with Snapshot("C:") as s:
        assert s.consistency is Consistency.APPLICATION


def test_com_security_that_cannot_be_set_is_an_error_only_if_required(vss: FakeVss) -> None:
    vss.faults.fail("CoInitializeSecurity", DENIED, times=2)
    with Snapshot("C:"):
        pass
    error = fails(vss, options=VssOptions(com_security=ComSecurity.REQUIRE))
    assert error.call == "CoInitializeSecurity"
    with Snapshot("C:", options=VssOptions(com_security=ComSecurity.NEVER)):
        assert not vss.security_set
