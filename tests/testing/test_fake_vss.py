"""The fake refuses what Microsoft's documentation forbids; each test names the page."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vsssnap._deadline import Deadline
from vsssnap._win32 import com, dll
from vsssnap._win32._ffi import ffi
from vsssnap._win32.backup_components import BackupComponents
from vsssnap._win32.constants import BackupType, SnapshotContext, WriterState
from vsssnap._win32.hresult import HResult
from vsssnap._win32.operations import wait
from vsssnap.errors import SnapshotError
from vsssnap.testing.fake_vss import FakeVss, FakeWriter

BAD = HResult.VSS_E_BAD_STATE


@pytest.fixture
def vss() -> Iterator[FakeVss]:
    """A machine that nobody checks, in an apartment of this thread."""
    machine = FakeVss()
    machine.add_volume("C:\\")
    machine.add_volume("D:\\", supported=False)
    machine.add_writer("Writer")
    com.enter_apartment(machine)
    yield machine
    com.leave_apartment(machine)
    machine.close()


class Backup:
    """One requester, moved to a stage of its life."""

    def __init__(self, vss: FakeVss) -> None:
        self.vss = vss
        self.it = BackupComponents(vss)
        self.deadline = Deadline(10)

    def to(self, stage: str, *, writers: bool = True) -> Backup:
        for name in ("initialize", "state", "gather", "start", "add", "prepare", "do"):
            if writers or name not in ("gather", "prepare"):
                getattr(self, name)()
            elif name == "gather":
                pass
            if name == "initialize" and not writers:
                self.it.set_context(SnapshotContext.VSS_CTX_FILE_SHARE_BACKUP)
            if name == stage:
                break
        return self

    def initialize(self) -> None:
        self.it.initialize_for_backup()

    def state(self) -> None:
        self.it.set_backup_state(select_components=False, bootable=False, kind=BackupType.VSS_BT_COPY)

    def gather(self) -> None:
        wait(self.it.gather_writer_metadata(), self.deadline, "gather")

    def start(self) -> None:
        self.it.start_snapshot_set()

    def add(self) -> None:
        self.it.add_to_snapshot_set("C:\\")

    def prepare(self) -> None:
        wait(self.it.prepare_for_backup(), self.deadline, "prepare")

    def do(self) -> None:
        wait(self.it.do_snapshot_set(), self.deadline, "do")

    def complete(self) -> None:
        wait(self.it.backup_complete(), self.deadline, "complete")


def code_of(call: Callable[[], Any]) -> int:
    try:
        result = call()
    except SnapshotError as exc:
        return -1 if exc.code is None else exc.code
    if isinstance(result, com.Reference):
        result.release()
    return HResult.S_OK


CALLS: dict[str, Callable[[Backup], Any]] = {
    "state": Backup.state,
    "context": lambda b: b.it.set_context(SnapshotContext.VSS_CTX_FILE_SHARE_BACKUP),
    "gather": lambda b: b.it.gather_writer_metadata(),
    "metadata": lambda b: b.it.writer_metadata(),
    "start": Backup.start,
    "add": Backup.add,
    "prepare": lambda b: b.it.prepare_for_backup(),
    "do": lambda b: b.it.do_snapshot_set(),
    "status": lambda b: b.it.writer_status(),
    "complete": lambda b: b.it.backup_complete(),
    "xml": lambda b: b.it.save_as_xml(),
    "abort": lambda b: b.it.abort_backup(),
}


@pytest.mark.parametrize("call", sorted(set(CALLS) - {"initialize"}))
def test_nothing_goes_before_initialize(vss: FakeVss, call: str) -> None:
    # Every page: "The backup components object is not initialized".
    backup = Backup(vss)
    assert code_of(lambda: CALLS[call](backup)) == BAD
    backup.it.release()


@pytest.mark.parametrize(
    ("stage", "call"),
    [
        ("initialize", "initialize"),  # InitializeForBackup
        ("gather", "context"),  # SetContext: prior to calling most VSS functions
        ("gather", "gather"),  # GatherWriterMetadata: only once during the lifetime
        ("state", "metadata"),  # GetWriterMetadata: after the gathering
        ("start", "start"),  # StartSnapshotSet
        ("gather", "add"),  # AddToSnapshotSet: within the correct sequence
        ("gather", "prepare"),  # StartSnapshotSet: before PrepareForBackup
        ("prepare", "start"),  # the same
        ("prepare", "state"),  # SetBackupState: prior to PrepareForBackup
        ("prepare", "prepare"),
        ("prepare", "add"),
        ("gather", "do"),  # DoSnapshotSet: the prerequisite calls have not been made
        ("add", "do"),  # with writers PrepareForBackup is one of them
        ("do", "do"),
        ("prepare", "complete"),  # BackupComplete: not without a DoSnapshotSet that succeeded
        ("add", "xml"),  # SaveAsXML: never prior to PrepareForBackup
        ("do", "status"),  # GetWriterStatus: GatherWriterStatus first
    ],
)
def test_calls_out_of_order_are_a_bad_state(vss: FakeVss, stage: str, call: str) -> None:
    backup = Backup(vss).to(stage)
    run = CALLS.get(call, Backup.initialize)
    assert code_of(lambda: run(backup)) == BAD
    backup.it.free()
    backup.it.abort_backup()
    backup.it.release()


@pytest.mark.parametrize("call", ["prepare", "complete"])
def test_without_writers_their_calls_are_errors(vss: FakeVss, call: str) -> None:
    # "Shadow Copies without Writer Participation": an error will be returned.
    backup = Backup(vss).to("do" if call == "complete" else "add", writers=False)
    assert code_of(lambda: CALLS[call](backup)) == BAD
    backup.it.abort_backup()
    backup.it.release()


def test_with_writers_gathering_is_a_prerequisite(vss: FakeVss) -> None:
    # "Shadow Copies with Writer Participation": an error will be returned.
    backup = Backup(vss)
    for step in (backup.initialize, backup.state, backup.start, backup.add, backup.prepare):
        step()
    assert code_of(lambda: CALLS["do"](backup)) == BAD
    backup.it.abort_backup()
    backup.it.release()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("C:", HResult.VSS_E_OBJECT_NOT_FOUND),  # must include a trailing backslash
        ("Q:\\", HResult.VSS_E_OBJECT_NOT_FOUND),
        ("D:\\", HResult.VSS_E_VOLUME_NOT_SUPPORTED),
        ("C:\\", HResult.VSS_E_OBJECT_ALREADY_EXISTS),
    ],
)
def test_volumes_that_cannot_be_added(vss: FakeVss, name: str, code: HResult) -> None:
    backup = Backup(vss).to("add")
    assert code_of(lambda: backup.it.add_to_snapshot_set(name)) == code
    backup.it.free()
    backup.it.abort_backup()
    backup.it.release()


def test_one_set_at_a_time_is_created_on_a_machine(vss: FakeVss) -> None:
    # StartSnapshotSet, "State Transitions in Shadow Copy Providers": until DoSnapshotSet returns.
    first, second = Backup(vss).to("prepare"), Backup(vss).to("gather")
    assert code_of(second.start) == HResult.VSS_E_SNAPSHOT_SET_IN_PROGRESS
    first.do()
    assert code_of(second.start) == HResult.S_OK
    for backup in (first, second):
        backup.it.free()
        backup.it.abort_backup()
        backup.it.release()


def test_auto_release_ends_with_the_last_reference(vss: FakeVss) -> None:
    backup = Backup(vss).to("do")
    backup.it.free()
    backup.complete()
    assert len(vss.shadows) == 1
    backup.it.release()
    assert not vss.shadows
    vss.ledger.add("apartments", -1)  # this thread's own
    vss.check()
    vss.ledger.add("apartments")


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("start", "call AbortBackup first"),
        ("prepare", "call AbortBackup first"),
        ("gather", "without FreeWriterMetadata"),
    ],
)
def test_leaving_without_a_word_is_noted(vss: FakeVss, stage: str, said: str) -> None:
    backup = Backup(vss).to(stage)
    backup.it.release()
    assert any(said in violation for violation in vss.ledger.violations)


def test_releasing_what_is_pending_jams_the_machine(vss: FakeVss) -> None:
    vss.faults.delay("DoSnapshotSet")
    backup = Backup(vss).to("prepare")
    backup.it.do_snapshot_set().release()
    backup.it.free()
    backup.it.abort_backup()
    backup.it.release()
    assert vss.jammed
    assert code_of(Backup(vss).to("gather").start) == HResult.VSS_E_SNAPSHOT_SET_IN_PROGRESS


def test_a_leaked_reference_is_counted(vss: FakeVss) -> None:
    backup = Backup(vss).to("initialize")
    with pytest.raises(AssertionError, match="references not given back"):
        vss.check()
    backup.it.release()


def test_a_leaked_string_is_counted(vss: FakeVss) -> None:
    backup = Backup(vss).to("do")
    slot = ffi.new("BSTR *")
    pointer = backup.it._reference.pointer
    pointer.lpVtbl.SaveAsXML(pointer, slot)
    with pytest.raises(AssertionError, match="1 BSTR not given back"):
        vss.check()
    vss.oleaut32.SysFreeString(slot[0])
    vss.oleaut32.SysFreeString(slot[0])
    assert "though none is out there" in vss.ledger.violations[-1]


def test_an_object_that_was_released_is_not_called_again(vss: FakeVss) -> None:
    backup = Backup(vss)
    pointer = backup.it._reference.pointer
    backup.it.release()
    assert pointer.lpVtbl.AbortBackup(pointer) == -2147418113  # E_UNEXPECTED
    assert "was called on an object that was released" in vss.ledger.violations[-1]


def test_a_thread_in_no_apartment_is_noted(vss: FakeVss) -> None:
    thread = threading.Thread(target=lambda: BackupComponents(vss).release())
    thread.start()
    thread.join()
    assert any("in no apartment" in violation for violation in vss.ledger.violations)


def test_com_security_is_set_once(vss: FakeVss) -> None:
    assert com.initialize_security(vss) == HResult.S_OK
    assert com.initialize_security(vss) == HResult.RPC_E_TOO_LATE


def test_an_unaligned_read_is_refused(vss: FakeVss) -> None:
    # "File Buffering": multiples of the sector size, and an aligned address.
    from vsssnap._win32.devices import RawDevice
    from vsssnap._win32.handles import WindowsCallError

    backup = Backup(vss).to("do")
    device = RawDevice(vss, next(iter(vss.shadows.values())).device)
    memory = ffi.new("char[]", 8192)
    slot = device._slot()
    for address, length in ((memory + 1, 512), (slot.room(), 100)):
        slot.read(address, length, 0)
        with pytest.raises(WindowsCallError, match="ERROR_INVALID_PARAMETER"):
            slot.end()
    assert len(vss.ledger.violations) == 2
    slot.close()
    device.close()
    backup.it.free()
    backup.it.abort_backup()
    backup.it.release()


def test_writers_go_through_their_events(vss: FakeVss) -> None:
    backup = Backup(vss).to("do")
    writer = vss.writers[0]
    assert writer.state is WriterState.VSS_WS_WAITING_FOR_BACKUP_COMPLETE
    assert writer.events == [
        "identify",
        "prepare_backup",
        "prepare_snapshot",
        "freeze",
        "thaw",
        "post_snapshot",
    ]
    backup.complete()
    backup.it.free()
    backup.it.release()
    assert writer.events[-2:] == ["backup_complete", "backup_shutdown"]


def test_a_failed_writer_gets_no_more_events_and_recovers_for_the_next_backup() -> None:
    writer = FakeWriter("W", fails_at="freeze", code=HResult.VSS_E_WRITERERROR_TIMEOUT, times=1)
    for event in ("identify", "prepare_snapshot", "freeze", "thaw"):
        writer.on(event)
    assert writer.state is WriterState.VSS_WS_FAILED_AT_FREEZE
    writer.on("identify")
    assert writer.state is WriterState.VSS_WS_FAILED_AT_FREEZE, "anybody may ask, and that changes nothing"
    writer.on("prepare_backup")
    assert (writer.state, writer.failure) == (WriterState.VSS_WS_STABLE, 0)


def test_a_fault_that_never_happens_is_told(vss: FakeVss) -> None:
    vss.faults.fail("DoSnapshotSet", HResult.E_UNEXPECTED, where="async", times=math.inf)
    assert vss.faults.unused() == ["DoSnapshotSet (async)"]


def test_an_interface_that_is_not_there_is_refused(vss: FakeVss) -> None:
    backup = Backup(vss)
    assert backup.it._reference.query("IVssAsync") is None
    found = backup.it._reference.query("IVssBackupComponentsEx2")
    assert found is not None
    found.release()
    backup.it.release()
    assert not vss.ledger.violations


def test_the_fixture_of_the_plugin_lends_a_machine(fake_vss: FakeVss) -> None:
    assert dll.current() is fake_vss


def test_the_plugin_checks_when_a_test_ends(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_leaks(fake_vss):
            fake_vss.ledger.add("references")

        def test_is_clean(fake_vss):
            assert fake_vss.writers == []
    """)
    result = pytester.runpytest_inprocess("-p", "vsssnap.testing.plugin", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*1 references not given back*"])
