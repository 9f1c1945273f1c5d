"""Read leases: a writer is noticed, let in at once, and no signal reaches the host program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vsssnap._posix.leases import ReadLeases, why_no_lease
from vsssnap.errors import ProviderUnavailableError, SnapshotBusyError

# Less than the 45 s for which the kernel would keep a writer waiting, and far more than is needed.
PATIENCE = 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


@pytest.fixture
def fd(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def leases(fd: int) -> Iterator[ReadLeases]:
    held = ReadLeases()
    yield held
    held.close()


def in_another_process(code: str, path: Path) -> None:
    subprocess.run([sys.executable, "-c", f"import os\n{code}", path], check=True, timeout=PATIENCE)


WRITER = "open(os.sys.argv[1], 'r+b').close()"


def test_untouched_file_keeps_its_lease(leases: ReadLeases, fd: int) -> None:
    leases.add(fd, "file")
    assert leases.broken() == ()


def test_reader_breaks_no_lease(leases: ReadLeases, fd: int, path: Path) -> None:
    leases.add(fd, "file")
    in_another_process("open(os.sys.argv[1], 'rb').read()", path)
    assert leases.broken() == ()


def test_writer_is_let_in_and_noticed(leases: ReadLeases, fd: int, path: Path) -> None:
    leases.add(fd, "file")
    in_another_process(WRITER, path)
    assert leases.broken() == ("file",)


def test_writer_in_this_process_is_let_in_and_noticed(leases: ReadLeases, fd: int, path: Path) -> None:
    leases.add(fd, "file")
    path.open("r+b").close()
    assert leases.broken() == ("file",)


def test_cutting_the_file_by_name_is_noticed(leases: ReadLeases, fd: int, path: Path) -> None:
    leases.add(fd, "file")
    in_another_process("os.truncate(os.sys.argv[1], 3)", path)
    assert leases.broken() == ("file",)


def test_every_one_of_several_broken_leases_is_noticed(leases: ReadLeases, tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(20)]
    for each in paths:
        each.touch()
    fds = [os.open(each, os.O_RDONLY) for each in paths]
    try:
        for number, each in zip(fds, paths, strict=True):
            leases.add(number, each.name)
        writers = [threading.Thread(target=each.write_bytes, args=(b"x",)) for each in paths]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(PATIENCE)
        assert sorted(leases.broken(), key=int) == [each.name for each in paths]
    finally:
        leases.close()
        for number in fds:
            os.close(number)


def test_file_that_is_open_for_writing_gets_no_lease(leases: ReadLeases, fd: int, path: Path) -> None:
    with path.open("r+b"), pytest.raises(SnapshotBusyError, match=r"file is open for writing.*error 11"):
        leases.add(fd, "file")


def test_what_is_no_file_gets_no_lease(leases: ReadLeases) -> None:
    read, write = os.pipe()
    try:
        with pytest.raises(ProviderUnavailableError, match="no lease on pipe"):
            leases.add(read, "pipe")
    finally:
        os.close(read)
        os.close(write)


def test_closing_lets_the_lease_go_without_breaking_it(fd: int, path: Path) -> None:
    held = ReadLeases()
    held.add(fd, "file")
    held.close()
    in_another_process(WRITER, path)
    assert held.broken() == ()


def test_closing_ends_the_thread() -> None:
    ReadLeases().close()
    assert not [thread for thread in threading.enumerate() if thread.name == "vsssnap-leases"]


def test_trying_a_lease_leaves_none(fd: int, path: Path) -> None:
    assert why_no_lease(fd, "file") == ""
    in_another_process(WRITER, path)


def test_no_signal_reaches_the_host_program(path: Path) -> None:
    # In a process of its own: SIGIO's default would end it, and every handler counts.
    program = """
import os, signal, subprocess, sys
from vsssnap._posix.leases import ReadLeases
seen = []
for number in (signal.SIGIO, signal.SIGURG):
    signal.signal(number, lambda number, frame: seen.append(number))
held = ReadLeases()
fd = os.open(sys.argv[1], os.O_RDONLY)
held.add(fd, "file")
writer = "import sys; open(sys.argv[1], 'r+b').close()"
subprocess.run([sys.executable, "-c", writer, sys.argv[1]], check=True)
assert held.broken() == ("file",), held.broken()
held.close()
assert not seen, seen
"""
    subprocess.run([sys.executable, "-c", program, path], check=True, timeout=PATIENCE)


def test_broken_lease_does_not_end_a_program_without_handlers(path: Path) -> None:
    program = """
import os, subprocess, sys
from vsssnap._posix.leases import ReadLeases
held = ReadLeases()
fd = os.open(sys.argv[1], os.O_RDONLY)
held.add(fd, "file")
writer = "import sys; open(sys.argv[1], 'r+b').close()"
subprocess.run([sys.executable, "-c", writer, sys.argv[1]], check=True)
held.close()
"""
    subprocess.run([sys.executable, "-c", program, path], check=True, timeout=PATIENCE)


def test_no_thread_that_may_have_ended_is_sent_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    held = ReadLeases()
    told: list[tuple[bool, bool]] = []
    kill = signal.pthread_kill

    def look(thread: int, number: int) -> None:
        told.append((held._thread.is_alive(), held._stop))
        kill(thread, number)

    monkeypatch.setattr(signal, "pthread_kill", look)
    held.close()
    held.close()
    assert told == [(True, False)], "after it is told to stop it may be gone at any moment"
    assert not held._thread.is_alive()
