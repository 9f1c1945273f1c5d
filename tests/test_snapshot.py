"""The life of a `Snapshot`, on a provider in memory that can be made to fail."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from vsssnap import Consistency, Snapshot, SnapshotEvent, _deadline, list_snapshots, purge, save_image
from vsssnap._deadline import Deadline
from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import (
    CancelledError,
    ClosedError,
    ConsistencyError,
    DeviceReadError,
    ProviderUnavailableError,
    QuiesceError,
    SnapshotBusyError,
    SnapshotError,
    SnapshotLostError,
    SnapshotTimeoutError,
    UsageError,
)
from vsssnap.providers import Offer, Provider, SnapshotRequest, SnapshotVolume, Taken
from vsssnap.quiesce import claiming, run_commands
from vsssnap.testing.memory import MemoryProvider, MemoryVolume, installed
from vsssnap.volumes import UnusedPolicy
from waiting import Late, until


class Logged(MemoryProvider):
    """Writes down what is asked of it; a step named in ``broken`` raises that."""

    name = "logged"
    calls: list[str] = []  # noqa: RUF012 - emptied by the fixture
    broken: dict[str, list[BaseException]] = {}  # noqa: RUF012 - as above

    def step(self, name: str) -> None:
        self.calls.append(name)
        if waiting := self.broken.get(name):
            raise waiting.pop(0)

    def prepare(self, request: SnapshotRequest, deadline: Deadline, /) -> None:
        self.step("prepare")
        super().prepare(request, deadline)

    def take(self, deadline: Deadline, /) -> Taken:
        self.step("take")
        return super().take(deadline)

    def open(self, volume: SnapshotVolume, /) -> BlockReader:
        self.step("open")
        return super().open(volume)

    def release(self, deadline: Deadline, /) -> None:
        self.step("release")
        super().release(deadline)


@pytest.fixture(autouse=True)
def provider() -> Iterator[type[Logged]]:
    Logged.calls.clear()
    Logged.broken.clear()
    with installed(Logged):
        yield Logged
    Logged.machine.clear()


@pytest.fixture
def volume() -> MemoryVolume:
    return MemoryVolume(b"before" * 1000, name="vol")


def break_(step: str, *errors: BaseException) -> None:
    Logged.broken[step] = list(errors)


class Manager:
    def __init__(self, log: list[str], claims: Consistency | None = None) -> None:
        self.log = log
        self.claims = claims

    def __enter__(self) -> None:
        self.log.append("quiet")

    def __exit__(self, *exc: object) -> None:
        self.log.append("resume")


# What it is for.


def test_a_reader_sees_the_volume_as_it_was(volume: MemoryVolume) -> None:
    with Snapshot(volume) as s, s.open() as disk:
        volume.pwrite(b"after!", 0)
        assert disk.pread(6, 0) == b"before"
        assert volume.pread(6, 0) == b"after!"
        assert disk.size == 6000


def test_the_facts_of_a_snapshot(volume: MemoryVolume) -> None:
    with Snapshot("vol") as s:
        assert s.provider == "logged"
        assert s.consistency is Consistency.CRASH
        assert s.created.tzinfo is not None
        assert list(s.volumes) == ["vol"]
        assert s.volumes["vol"].size == 6000
        assert s.writers == ()
        identity = s.id
    assert s.id == identity, "facts outlive the snapshot"


def test_the_metadata_of_a_reader_says_where_it_comes_from(volume: MemoryVolume) -> None:
    with Snapshot("vol") as s:
        said = s.open().metadata
        assert (said.volume, said.device, said.provider) == ("vol", "vol", "logged")
        assert (said.snapshot_id, said.created, said.consistency) == (s.id, s.created, Consistency.CRASH)


def test_the_constructor_touches_nothing() -> None:
    Snapshot("no-such-volume")
    assert Logged.calls == []


def test_several_volumes_keep_the_callers_spelling_and_order() -> None:
    b, a = MemoryVolume(b"b" * 10, name="b"), MemoryVolume(b"a" * 10, name="a")
    with Snapshot(b, "a") as s:
        assert list(s.volumes) == ["b", "a"]
        assert s.open("a").pread(1, 0) == b"a"
        assert s.open(b).pread(1, 0) == b"b"
        with pytest.raises(UsageError, match="has several volumes: b, a"):
            s.open()
        with pytest.raises(UsageError, match="no volume 'c'"):
            s.open("c")
    assert a.size == 10


def test_one_volume_named_twice_is_one(volume: MemoryVolume) -> None:
    with Snapshot("vol", "vol", volume) as s:
        assert list(s.volumes) == ["vol"]
        s.open()


@pytest.mark.parametrize("bad", ["", "a\0b", 7, None])
def test_what_is_no_volume_is_refused_at_once(bad: object) -> None:
    with pytest.raises(UsageError, match="is no volume"):
        Snapshot(bad)


@pytest.mark.parametrize(
    "kwargs",
    [{"timeout": 0}, {"timeout": float("nan")}, {"require": 9}, {"quiesce": [3]}, {"options": object()}],
)
def test_wrong_arguments_are_refused_at_once(kwargs: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Snapshot("vol", **kwargs)  # type: ignore[arg-type]  # wrong on purpose


# Consistency.


def test_nothing_is_degraded_silently(volume: MemoryVolume) -> None:
    with pytest.raises(ConsistencyError) as caught:
        Snapshot("vol", provider="logged", require=Consistency.APPLICATION).create()
    assert (caught.value.wanted, caught.value.offered) == ("APPLICATION", "CRASH")
    assert caught.value.reasons == {"logged": "offers CRASH"}
    assert Logged.calls == []


def test_without_a_provider_every_one_says_why(tmp_path: Path) -> None:
    with pytest.raises(ProviderUnavailableError) as caught:
        Snapshot(str(tmp_path / "nothing")).create()
    assert {"logged", "cow", "reflink"} <= set(caught.value.reasons)
    assert all(caught.value.reasons.values())
    assert "no MemoryVolume" in caught.value.reasons["logged"]
    assert "no MemoryVolume" not in str(caught.value)  # it is for other volumes


def test_unanimous_claims_make_it_application_consistent(volume: MemoryVolume) -> None:
    log: list[str] = []
    sure = Manager(log, Consistency.APPLICATION)
    with Snapshot("vol", require=Consistency.APPLICATION, quiesce=[sure]) as s:
        assert s.consistency is Consistency.APPLICATION
    with pytest.raises(ConsistencyError):
        Snapshot("vol", require=Consistency.APPLICATION, quiesce=[sure, Manager(log)]).create()


def test_a_provider_that_reaches_less_than_it_offered_is_undone(volume: MemoryVolume) -> None:
    class Boaster(Logged):
        name = "boaster"

        def probe(self, request: SnapshotRequest, /) -> Offer:
            return Offer(Consistency.FILESYSTEM)

    with installed(Boaster), pytest.raises(ConsistencyError, match="only CRASH was reached"):
        Snapshot("vol", provider="boaster", require=Consistency.FILESYSTEM).create()
    assert Logged.calls == ["prepare", "take", "release"]


# Quiescing.


def test_applications_are_quiet_for_the_instant_alone(volume: MemoryVolume) -> None:
    order = Logged.calls
    with Snapshot("vol", quiesce=[Manager(order)]) as s:
        s.open()
    assert order == ["prepare", "quiet", "take", "resume", "open", "release"]


def test_applications_resume_when_the_instant_fails(volume: MemoryVolume) -> None:
    break_("take", SnapshotError("no"))
    with pytest.raises(SnapshotError, match="no"):
        Snapshot("vol", quiesce=[Manager(Logged.calls)]).create()
    assert Logged.calls == ["prepare", "quiet", "take", "resume", "release"]


def test_applications_run_between_two_tries(volume: MemoryVolume) -> None:
    break_("take", SnapshotBusyError("another snapshot is being taken"))
    with Snapshot("vol", quiesce=[Manager(Logged.calls)], timeout=60) as s:
        assert s.consistency is Consistency.CRASH
    assert Logged.calls == [
        *("prepare", "quiet", "take", "resume", "release"),
        *("prepare", "quiet", "take", "resume", "release"),
    ]


def test_a_manager_that_does_not_let_go_ends_the_snapshot(volume: MemoryVolume) -> None:
    class Stuck(Manager):
        def __exit__(self, *exc: object) -> None:
            raise LookupError("the service does not start")

    with pytest.raises(QuiesceError, match="does not start"):
        Snapshot("vol", quiesce=[Stuck([])]).create()
    assert Logged.calls == ["prepare", "take", "release"]


# Failing.


@pytest.mark.parametrize("step", ["prepare", "take"])
@pytest.mark.parametrize("error", [SnapshotError("no"), KeyboardInterrupt(), ZeroDivisionError()])
def test_a_failed_step_is_undone_and_its_error_raised(
    volume: MemoryVolume, step: str, error: BaseException
) -> None:
    break_(step, error)
    snapshot = Snapshot("vol")
    with pytest.raises(type(error)):
        snapshot.create()
    assert Logged.calls[-1] == "release"
    assert Logged.calls.count("release") == 1
    with pytest.raises(ClosedError):
        snapshot.open()


def test_a_failure_while_undoing_is_a_note_on_the_first_error(volume: MemoryVolume) -> None:
    break_("take", SnapshotError("first"))
    break_("release", SnapshotError("second"))
    with pytest.raises(SnapshotError, match="first") as caught:
        Snapshot("vol").create()
    assert any("second" in note for note in caught.value.__notes__)


def test_a_volume_that_stays_busy_is_given_up_in_time(
    volume: MemoryVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_("take", *(SnapshotBusyError("busy") for _ in range(100)))
    monkeypatch.setattr(_deadline, "time", Late(lambda: Logged.calls.count("take") == 2))
    with pytest.raises(SnapshotBusyError, match="busy") as caught:
        Snapshot("vol").create()
    assert Logged.calls.count("take") == 2
    assert caught.value.retryable
    assert Logged.calls.count("prepare") == Logged.calls.count("release")


def test_the_budget_ends_a_slow_step(volume: MemoryVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = threading.Event()

    class Slow(Logged):
        name = "slow"

        def prepare(self, request: SnapshotRequest, deadline: Deadline, /) -> None:
            super().prepare(request, deadline)
            inside.set()
            deadline.sleep(100, "prepare slowly")

    monkeypatch.setattr(_deadline, "time", Late(inside.is_set))
    with installed(Slow), pytest.raises(SnapshotTimeoutError, match="prepare slowly: not done within 50 s"):
        Snapshot("vol", provider="slow", timeout=50).create()
    assert Logged.calls == ["prepare", "release"]


def test_cancel_from_another_thread_ends_create(volume: MemoryVolume) -> None:
    break_("take", *(SnapshotBusyError("busy") for _ in range(100)))
    snapshot = Snapshot("vol", timeout=600)
    threading.Timer(0.1, snapshot.cancel).start()
    with pytest.raises(CancelledError):
        snapshot.create()
    assert Logged.calls.count("prepare") == Logged.calls.count("release")


@pytest.mark.parametrize("step", ["prepare", "take"])
def test_closing_from_another_thread_ends_create(volume: MemoryVolume, step: str) -> None:
    inside = threading.Event()

    class Slow(Logged):
        name = "slow"

        def wait(self, name: str, deadline: Deadline) -> None:
            if name == step:
                inside.set()
                deadline.sleep(60, f"{name} slowly")

        def prepare(self, request: SnapshotRequest, deadline: Deadline, /) -> None:
            super().prepare(request, deadline)
            self.wait("prepare", deadline)

        def take(self, deadline: Deadline, /) -> Taken:
            taken = super().take(deadline)
            self.wait("take", deadline)
            return taken

    raised: list[BaseException] = []

    def create() -> None:
        try:
            snapshot.create()
        except CancelledError as exc:
            raised.append(exc)

    with installed(Slow):
        snapshot = Snapshot("vol", provider="slow")
        creating = threading.Thread(target=create)
        creating.start()
        assert inside.wait(60)
        snapshot.close()
        assert Logged.calls.count("release") == 1, "it is given back when close returns"
        creating.join(60)
    assert len(raised) == 1
    assert Logged.calls.count("release") == 1


def test_cancel_ends_a_quiesce_command(volume: MemoryVolume) -> None:
    snapshot = Snapshot(
        "vol",
        quiesce=[run_commands(before=["sleep", "60"], timeout=60)],
        on_event=lambda event: (
            threading.Timer(0.1, snapshot.cancel).start() if event.step == "quiesce" else None
        ),
    )
    with pytest.raises(CancelledError):
        snapshot.create()
    assert Logged.calls == ["prepare", "release"]


STEPS = ["probe", "prepare", "quiesce", "take", "resume", "ready"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_event_callback_that_raises_ends_create_and_leaves_nothing(
    volume: MemoryVolume, step: str, error: type[BaseException]
) -> None:
    def on_event(event: SnapshotEvent) -> None:
        if event.step == step:
            raise error

    log: list[str] = []
    snapshot = Snapshot("vol", quiesce=[Manager(log)], on_event=on_event)
    with pytest.raises(error):
        snapshot.create()
    assert Logged.calls.count("release") == (0 if step == "probe" else 1)
    assert log.count("quiet") == log.count("resume")
    with pytest.raises(ClosedError):
        snapshot.open()


def test_cancel_before_create_counts(volume: MemoryVolume) -> None:
    snapshot = Snapshot("vol")
    snapshot.cancel()
    with pytest.raises(CancelledError):
        snapshot.create()
    assert Logged.calls == []


def test_a_snapshot_is_created_once(volume: MemoryVolume) -> None:
    snapshot = Snapshot("vol")
    snapshot.create()
    with pytest.raises(UsageError, match="the snapshot is live"):
        snapshot.create()
    snapshot.close()
    with pytest.raises(UsageError, match="the snapshot is closed"):
        snapshot.create()
    with pytest.raises(ClosedError), snapshot:
        pass


def test_create_then_with_closes_it(volume: MemoryVolume) -> None:
    snapshot = Snapshot("vol")
    snapshot.create()
    with snapshot as same:
        assert same is snapshot
    assert Logged.calls[-1] == "release"


# Closing.


def test_closing_twice_releases_once(volume: MemoryVolume) -> None:
    with Snapshot("vol") as s:
        pass
    s.close()
    assert Logged.calls.count("release") == 1


def test_closing_closes_the_readers(volume: MemoryVolume) -> None:
    with Snapshot("vol") as s:
        disk = s.open()
        view = disk.window(0, 10)
        extents = disk.extents()
    with pytest.raises(ClosedError):
        disk.pread(1, 0)
    with pytest.raises(ClosedError):
        view.pread(1, 0)
    with pytest.raises(ClosedError):
        next(extents)


def test_the_error_of_the_body_is_not_masked_by_closing(volume: MemoryVolume) -> None:
    break_("release", SnapshotError("will not go"))
    with pytest.raises(ZeroDivisionError) as caught, Snapshot("vol"):
        raise ZeroDivisionError
    assert any("will not go" in note for note in caught.value.__notes__)


def test_a_failed_release_is_raised_when_nothing_else_is(volume: MemoryVolume) -> None:
    break_("release", SnapshotError("will not go"))
    with pytest.raises(SnapshotError, match="will not go"), Snapshot("vol"):
        pass


def test_closing_waits_for_a_running_read(volume: MemoryVolume) -> None:
    inside, go = threading.Event(), threading.Event()

    class Slow(Logged):
        name = "slow"

        def open(self, volume: SnapshotVolume, /) -> BlockReader:
            inner = super().open(volume)
            read = inner._read

            def waiting(length: int, offset: int) -> bytes:
                inside.set()
                assert go.wait(60)
                return read(length, offset)

            inner._read = waiting  # type: ignore[method-assign]
            return inner

    got: list[bytes] = []
    with installed(Slow):
        snapshot = Snapshot("vol", provider="slow")
        snapshot.create()
        disk = snapshot.open(unused=UnusedPolicy.READ, exclude=())
        reading = threading.Thread(target=lambda: got.append(disk.pread(6, 0)))
        reading.start()
        assert inside.wait(60)
        closing = threading.Thread(target=snapshot.close)
        closing.start()
        time.sleep(0.05)
        assert "release" not in Logged.calls
        go.set()
        reading.join()
        closing.join()
    assert got == [b"before"]
    assert Logged.calls[-1] == "release"


# Lifetime.


def test_a_snapshot_of_nothing_is_a_plain_error() -> None:
    with pytest.raises(TypeError, match="volume"):
        Snapshot()  # type: ignore[call-arg]
    gc.collect()  # an exception in __del__ would be a warning, and so an error here


def test_a_forgotten_snapshot_is_a_resource_warning_and_released(volume: MemoryVolume) -> None:
    snapshot = Snapshot("vol")
    snapshot.create()
    with pytest.warns(ResourceWarning, match="forgotten <Snapshot of vol: live>"):
        del snapshot  # CPython collects it here, by its count of references
    assert Logged.calls[-1] == "release"


def test_a_reader_keeps_a_forgotten_snapshot_alive(volume: MemoryVolume) -> None:
    snapshot = Snapshot("vol")
    snapshot.create()
    disk = snapshot.open()
    with pytest.warns(ResourceWarning):
        del snapshot
    volume.pwrite(b"after!", 0)
    assert disk.pread(6, 0) == b"before"
    assert "release" not in Logged.calls
    del disk
    gc.collect()
    assert Logged.calls[-1] == "release"


SCRIPT = """
import os, sys
from vsssnap import Snapshot
from vsssnap.testing.memory import MemoryProvider, MemoryVolume, installed
class Loud(MemoryProvider):
    name = "loud"
    def release(self, deadline, /):
        print("released by", "parent" if os.getpid() == PARENT else "child", flush=True)
        super().release(deadline)
PARENT = os.getpid()
volume = MemoryVolume(b"x" * 100, name="vol")
with installed(Loud):
    s = Snapshot("vol", provider="loud")
    s.create()
    disk = s.open()
"""


def run_script(more: str, *, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT + more],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == status, done.stderr
    return done.stdout


def test_the_interpreters_exit_releases() -> None:
    assert run_script("") == "released by parent\n"


def test_an_unhandled_exception_releases() -> None:
    assert run_script("raise ZeroDivisionError\n", status=1) == "released by parent\n"


INTERRUPTED = """
import os, sys, threading, time
from vsssnap import Snapshot, save_image
from vsssnap.testing.memory import MemoryProvider, MemoryVolume, installed
PHASE, FOLDER = sys.argv[1:]
def phase(name):
    print(name, flush=True)
    if name == PHASE:
        for _ in range(600):
            time.sleep(0.1)
class Loud(MemoryProvider):
    name = "loud"
    def probe(self, request, /):
        phase("probe")
        return super().probe(request)
    def prepare(self, request, deadline, /):
        super().prepare(request, deadline)
        phase("prepare")
    def take(self, deadline, /):
        taken = super().take(deadline)
        phase("take")
        return taken
    def release(self, deadline, /):
        super().release(deadline)
        print("released", flush=True)
class Manager:
    def __enter__(self):
        print("quiet", flush=True)
        phase("quiesce")
    def __exit__(self, *exc):
        print("resumed", flush=True)
volume = MemoryVolume(b"x" * 100_000, name="vol")
with installed(Loud):
    with Snapshot("vol", provider="loud", quiesce=[Manager()]) as s:
        save_image(s.open(), FOLDER + "/a.raw", progress=lambda seen: phase("save") if seen.done else None)
        phase("saved")
"""


@pytest.mark.parametrize("step", ["probe", "prepare", "quiesce", "take", "save", "saved"])
def test_ctrl_c_in_any_phase_gives_everything_back(tmp_path: Path, step: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, step, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        said: list[str] = []
        for line in process.stdout:
            said.append(line.strip())
            if said[-1] == step:
                process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGINT, errors
    assert "KeyboardInterrupt" in errors
    assert said.count("released") == (0 if step == "probe" else 1)
    assert said.count("resumed") == said.count("quiet") - (step == "quiesce")  # it was not entered then
    assert sorted(os.listdir(tmp_path)) == (["a.raw", "a.raw.vsssnap"] if step == "saved" else [])


def test_a_forked_child_reads_and_releases_nothing() -> None:
    more = (
        "pid = os.fork()\n"
        "if not pid:\n"
        "    print(disk.pread(1, 0).decode(), flush=True)\n"
        "    s.close()\n"
        "    sys.exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "print('child is gone', flush=True)\n"
        "s.close()\n"
    )
    assert run_script(more) == "x\nchild is gone\nreleased by parent\n"


def test_a_snapshot_and_its_readers_refuse_to_be_copied(volume: MemoryVolume) -> None:
    with Snapshot("vol") as s, s.open() as disk:
        for thing in (s, disk):
            with pytest.raises(UsageError, match="cannot be pickled or copied"):
                pickle.dumps(thing)
            with pytest.raises(UsageError, match="cannot be pickled or copied"):
                copy.copy(thing)


def test_snapshot_is_final() -> None:
    with pytest.raises(TypeError, match="final"):
        type("Mine", (Snapshot,), {})


# A lost snapshot.


def test_a_lost_snapshot_stays_lost(volume: MemoryVolume) -> None:
    with Snapshot("vol") as s:
        disk = s.open()
        volume.lose_snapshots()
        with pytest.raises(SnapshotLostError):
            disk.confirm()
        for call in (lambda: disk.pread(1, 0), disk.confirm, s.open, lambda: disk.preadinto(bytearray(1), 0)):
            with pytest.raises(SnapshotLostError):
                call()


def test_a_lost_snapshot_leaves_no_image(volume: MemoryVolume, tmp_path: Path) -> None:
    with Snapshot("vol") as s, pytest.raises(SnapshotLostError):
        save_image(s.open(), tmp_path / "a.raw", progress=lambda _: volume.lose_snapshots())
    assert list(tmp_path.iterdir()) == []


def test_a_read_error_first_asks_whether_the_snapshot_still_exists(volume: MemoryVolume) -> None:
    class Failing(Logged):
        name = "failing"

        def open(self, volume: SnapshotVolume, /) -> BlockReader:
            inner = super().open(volume)

            def read(length: int, offset: int) -> bytes:
                raise DeviceReadError("input/output error", offset=offset, length=length)

            inner._read = read  # type: ignore[method-assign]
            return inner

    with installed(Failing), Snapshot("vol", provider="failing") as s:
        disk = s.open()
        with pytest.raises(DeviceReadError):
            disk.pread(1, 0)
        volume.lose_snapshots()
        with pytest.raises(SnapshotLostError):
            disk.pread(1, 0)


# Persistent ones.


def test_a_persistent_snapshot_is_found_again(volume: MemoryVolume) -> None:
    with Snapshot("vol", persistent=True) as s:
        identity = s.id
    volume.pwrite(b"after!", 0)
    with Snapshot.attach(identity) as again:
        assert again.open().pread(6, 0) == b"before"
        assert again.id == identity
    assert [record.snapshot_id for record in list_snapshots()] == [identity]
    with Snapshot.attach(identity, provider="logged", own=True):
        pass
    assert list_snapshots() == []


def test_an_unknown_id_is_an_error() -> None:
    with pytest.raises(SnapshotError, match="there is no snapshot 'none'"):
        Snapshot.attach("none")
    with pytest.raises(ProviderUnavailableError):
        Snapshot.attach("none", provider="logged")


def test_purge_removes_what_killed_runs_left(volume: MemoryVolume) -> None:
    with Snapshot("vol", persistent=True) as s:
        pass
    assert [record.snapshot_id for record in purge()] == [s.id]
    assert purge() == []


# The rest.


def test_events_tell_the_steps(volume: MemoryVolume) -> None:
    seen: list[SnapshotEvent] = []
    with Snapshot(
        "vol", quiesce=[claiming(Manager([]), claims=Consistency.APPLICATION)], on_event=seen.append
    ):
        pass
    steps = ["probe", "prepare", "quiesce", "take", "resume", "ready", "release"]
    assert [event.step for event in seen] == steps
    assert all(event.seconds >= 0 for event in seen)


def test_many_threads_read_one_snapshot(volume: MemoryVolume) -> None:
    wrong: list[bytes] = []

    def read(disk: BlockReader) -> None:
        got = (disk.pread(6, offset) for offset in range(0, 6000, 6))
        wrong.extend(piece for piece in got if piece != b"before")

    with Snapshot("vol") as s:
        threads = [threading.Thread(target=read, args=(s.open(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for n in range(0, 6000, 3):
            volume.pwrite(b"!!!", n)
        for thread in threads:
            thread.join()
    assert wrong == []


def test_asyncio_uses_it_in_threads(volume: MemoryVolume, tmp_path: Path) -> None:
    async def backup() -> int:
        snapshot = Snapshot("vol")
        await asyncio.to_thread(snapshot.create)
        try:
            reader = await asyncio.to_thread(snapshot.open)
            report = await asyncio.to_thread(save_image, reader, tmp_path / "a.raw")
        finally:
            await asyncio.to_thread(snapshot.close)
        return report.size

    assert asyncio.run(backup()) == 6000


def test_a_cancelled_task_leaves_no_snapshot(volume: MemoryVolume) -> None:
    """As in docs/guide.md: the task is cancelled while create() runs in its thread."""
    inside, go = threading.Event(), threading.Event()

    class Slow(Logged):
        name = "slow"

        def prepare(self, request: SnapshotRequest, deadline: Deadline, /) -> None:
            super().prepare(request, deadline)
            inside.set()
            deadline.sleep(60, "prepare slowly")

    async def backup() -> None:
        snapshot = Snapshot("vol", provider="slow")
        try:
            await asyncio.to_thread(snapshot.create)
        finally:
            snapshot.cancel()
            await asyncio.to_thread(snapshot.close)

    async def main() -> None:
        task = asyncio.create_task(backup())
        await asyncio.to_thread(inside.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with installed(Slow):
        asyncio.run(main())
    go.set()
    assert Logged.calls == ["prepare", "release"]


def test_a_task_that_is_cancelled_while_it_saves_leaves_no_image(
    volume: MemoryVolume, tmp_path: Path
) -> None:
    saving, reading, go = threading.Event(), threading.Event(), threading.Event()

    class Held(Logged):
        name = "held"

        def open(self, volume: SnapshotVolume, /) -> BlockReader:
            inner = super().open(volume)
            read = inner._read

            def waiting(length: int, offset: int) -> bytes:
                if saving.is_set():
                    reading.set()
                    assert go.wait(60)
                return read(length, offset)

            inner._read = waiting  # type: ignore[method-assign]
            return inner

    async def backup(snapshot: Snapshot) -> None:
        try:
            await asyncio.to_thread(snapshot.create)
            reader = await asyncio.to_thread(snapshot.open)  # looks for a file system
            saving.set()
            await asyncio.to_thread(save_image, reader, tmp_path / "a.raw")
        finally:
            snapshot.cancel()
            await asyncio.to_thread(snapshot.close)

    async def main() -> None:
        task = asyncio.create_task(backup(Snapshot("vol", provider="held")))
        await asyncio.to_thread(reading.wait, 60)
        task.cancel()
        await asyncio.sleep(0.05)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    with installed(Held):
        asyncio.run(main())  # waits for the thread that saved
    assert Logged.calls[-1] == "release"
    assert list(tmp_path.iterdir()) == []


def test_options_choose_their_provider(volume: MemoryVolume) -> None:
    class Options:
        pass

    class Choosy(Logged):
        name = "choosy"
        options_type: ClassVar[type | None] = Options

    with installed(Choosy), Snapshot("vol", options=Options()) as s:
        assert s.provider == "choosy"
    with installed(Choosy), pytest.raises(ProviderUnavailableError, match="does not take Options"):
        Snapshot("vol", provider="logged", options=Options()).create()


def test_a_provider_that_is_asked_by_name_must_exist(volume: MemoryVolume) -> None:
    with pytest.raises(UsageError, match="there is no snapshot provider 'zap'"):
        Snapshot("vol", provider="zap").create()


def test_a_thousand_snapshots_leave_nothing(volume: MemoryVolume) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before, threads = descriptors(), threading.active_count()
    for _ in range(1000):
        with Snapshot("vol") as s:
            s.open().pread(10, 0)
    gc.collect()
    assert descriptors() == before
    assert until(lambda: threading.active_count() <= threads)
    assert Logged.calls.count("release") == 1000
    assert isinstance(Logged(), Provider)
