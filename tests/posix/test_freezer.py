"""Freezing ends, whatever happens to whoever asked for it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loops import file_system
from requirements import require_lab
from vsssnap._deadline import Deadline
from vsssnap._posix.freezer import Action, Freezer, Target
from vsssnap._posix.ioctls import FIFREEZE, FITHAW
from vsssnap.errors import SnapshotBusyError, SnapshotError, SnapshotTimeoutError

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

MIB = 1 << 20
LONG = 600.0  # seconds: no test waits for it


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    require_lab("mkfs.ext4", file_systems=("ext4",))
    with file_system("ext4", tmp_path, 32 * MIB) as (point, _):
        yield point


@pytest.fixture
def folder(volume: Path) -> Iterator[int]:
    fd = os.open(volume, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


class Heartbeat:
    """Writes to a file system all the time, and so tells whether it is frozen without touching that."""

    def __init__(self, volume: Path) -> None:
        self.path = volume / "beat"
        self.beats = 0
        self.stopped = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.stopped:
            self.path.write_bytes(b"x")
            self.beats += 1
            time.sleep(0.01)

    def wait_frozen(self) -> None:
        """Return when nothing got through for half a second."""
        last, since = self.beats, time.monotonic()
        until = since + 60
        while time.monotonic() - since < 0.5:
            assert time.monotonic() < until, "it is never frozen"
            time.sleep(0.02)
            if self.beats != last:
                last, since = self.beats, time.monotonic()

    def wait_thawed(self) -> None:
        """Return when writes get through again."""
        last, until = self.beats, time.monotonic() + 60
        while self.beats < last + 3:
            assert time.monotonic() < until, "it stays frozen"
            time.sleep(0.02)

    def stop(self) -> None:
        self.stopped = True
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.fixture
def beat(volume: Path, folder: int) -> Iterator[Heartbeat]:
    """Made for every test that freezes, so that each shows that nothing stays frozen."""
    heartbeat = Heartbeat(volume)
    yield heartbeat
    try:
        if not heartbeat.stopped:
            heartbeat.wait_thawed()
    finally:
        with contextlib.suppress(OSError):
            fcntl.ioctl(folder, FITHAW, 0)  # so that a failed test does not stop the next one
        heartbeat.stop()


def fds() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def test_the_instant_is_between_freeze_and_thaw(volume: Path, folder: int, beat: Heartbeat) -> None:
    before = time.time_ns()
    freezer = Freezer([Target(folder, str(volume))], [])
    freezer.start(Deadline(60), flush=[folder])
    try:
        freezer.flush(Deadline(60))
        instant = freezer.run(Deadline(60))
    finally:
        freezer.close()
    assert before <= instant.nanoseconds <= time.time_ns()
    assert instant.failed is None


def test_an_action_that_fails_is_reported_and_everything_thawed(
    volume: Path, folder: int, beat: Heartbeat
) -> None:
    freezer = Freezer([Target(folder, str(volume))], [Action(folder, 0x1234, 0)])
    freezer.start(Deadline(60))
    try:
        instant = freezer.run(Deadline(60))
    finally:
        freezer.close()
    assert instant.failed == 0
    assert instant.code == 25  # ENOTTY


def test_what_somebody_else_has_frozen_is_busy(volume: Path, folder: int, beat: Heartbeat) -> None:
    fcntl.ioctl(folder, FIFREEZE, 0)
    try:
        freezer = Freezer([Target(folder, str(volume))], [])
        freezer.start(Deadline(60))
        with pytest.raises(SnapshotBusyError):
            freezer.run(Deadline(60))
        freezer.close()
        beat.wait_frozen()  # it stays the other's
    finally:
        fcntl.ioctl(folder, FITHAW, 0)


def test_what_cannot_be_frozen_is_named() -> None:
    fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        freezer = Freezer([Target(fd, "/proc")], [])
        freezer.start(Deadline(60))
        with pytest.raises(SnapshotError, match="/proc"):
            freezer.run(Deadline(60))
        freezer.close()
    finally:
        os.close(fd)


def block_the_instant(volume: Path, folder: int) -> Action:
    """An action that a frozen file system blocks: changing a file's flags on it."""
    fd = os.open(volume / "flags", os.O_CREAT | os.O_RDWR)
    set_flags = 0x40086602  # FS_IOC_SETFLAGS, <linux/fs.h>
    return Action(fd, set_flags, struct.pack("i", 0x80000), (fd,))


def test_the_timer_thaws_although_the_instant_hangs(volume: Path, folder: int, beat: Heartbeat) -> None:
    action = block_the_instant(volume, folder)
    freezer = Freezer([Target(folder, str(volume))], [action], limit=1.0)
    freezer.start(Deadline(60))
    with pytest.raises(SnapshotTimeoutError):
        freezer.run(Deadline(60))
    freezer.close()
    os.close(action.fd)


def test_a_deadline_ends_a_hanging_instant(volume: Path, folder: int, beat: Heartbeat) -> None:
    action = block_the_instant(volume, folder)
    freezer = Freezer([Target(folder, str(volume))], [action], limit=LONG)
    freezer.start(Deadline(60))
    with pytest.raises(SnapshotTimeoutError):
        freezer.run(Deadline(1.0))
    freezer.close()
    os.close(action.fd)


def test_a_killed_helper_leaves_nothing_frozen(volume: Path, folder: int, beat: Heartbeat) -> None:
    action = block_the_instant(volume, folder)
    freezer = Freezer([Target(folder, str(volume))], [action], limit=LONG)
    freezer.start(Deadline(60))
    process = freezer._process
    assert process is not None

    def kill() -> None:
        beat.wait_frozen()
        process.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(SnapshotError):
        freezer.run(Deadline(60))
    freezer.close()
    killer.join()
    os.close(action.fd)


SCRIPT = """
import os, struct, sys
from vsssnap._deadline import Deadline
from vsssnap._posix.freezer import Action, Freezer, Target
folder = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
fd = os.open(sys.argv[1] + "/flags", os.O_CREAT | os.O_RDWR)
action = Action(fd, 0x40086602, struct.pack("i", 0x80000), (fd,))
freezer = Freezer([Target(folder, sys.argv[1])], [action], limit=600)
freezer.start(Deadline(600))
print("ready", flush=True)
freezer.run(Deadline(600))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_parent_that_dies_leaves_nothing_frozen(volume: Path, beat: Heartbeat, number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(volume)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        beat.wait_frozen()
        process.send_signal(number)
        process.wait(60)


def test_nothing_is_left_of_many_instants(volume: Path, folder: int, beat: Heartbeat) -> None:
    beat.stop()  # it opens files too
    before = fds()
    for _ in range(10):
        freezer = Freezer([Target(folder, str(volume))], [])
        freezer.start(Deadline(60))
        freezer.run(Deadline(60))
        freezer.close()
        freezer.close()
    assert fds() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # no child, so no zombie either


def test_the_helper_is_in_a_session_of_its_own(volume: Path, folder: int, beat: Heartbeat) -> None:
    """So Ctrl-C in the terminal does not reach it."""
    freezer = Freezer([Target(folder, str(volume))], [])
    freezer.start(Deadline(60))
    try:
        assert freezer._process is not None
        assert os.getsid(freezer._process.pid) != os.getsid(0)
    finally:
        freezer.close()
