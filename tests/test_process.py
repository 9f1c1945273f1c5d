"""Commands and services."""

from __future__ import annotations

import errno
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from vsssnap import _process
from vsssnap._deadline import Deadline
from vsssnap.errors import CancelledError, QuiesceError, SnapshotTimeoutError, UsageError
from waiting import until

PYTHON = [sys.executable, "-c"]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


def wait_gone(pid: int) -> bool:
    return until(lambda: not alive(pid))


def test_a_command_gives_its_status_and_output() -> None:
    finished = _process.run([*PYTHON, "print('hello'); raise SystemExit(3)"], Deadline(30), "greet")
    assert finished == _process.Finished(3, "hello\n")


def test_a_failed_command_says_what_it_wrote() -> None:
    with pytest.raises(QuiesceError, match=r"greet: .* ended with status 3: no such thing") as caught:
        _process.run_checked(
            [*PYTHON, "import sys; print('no such thing', file=sys.stderr); sys.exit(3)"],
            Deadline(30),
            "greet",
        )
    assert caught.value.code == 3


def test_a_killed_command_names_its_signal() -> None:
    with pytest.raises(QuiesceError, match="ended with signal 9"):
        _process.run_checked([*PYTHON, "import os; os.kill(os.getpid(), 9)"], Deadline(30), "die")


def test_a_missing_program_is_named() -> None:
    with pytest.raises(QuiesceError, match="no-such-program-here cannot be started") as caught:
        _process.run(["no-such-program-here"], Deadline(5), "try")
    assert "PATH" in caught.value.hint


@pytest.mark.parametrize("command", [[], "sync"])
def test_what_is_no_command_is_refused(command: list[str]) -> None:
    with pytest.raises(UsageError):
        _process.run(command, Deadline(5), "try")


def test_a_late_command_is_killed_with_all_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    child = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(note)!r}, 'w').write(str(p.pid))\n"
        "time.sleep(600)\n"
    )
    done = threading.Event()
    deadline = Deadline(60)

    def cancel_when_started() -> None:
        while not (note.exists() and note.read_text()):
            time.sleep(0.02)
        deadline._end = time.monotonic()
        done.set()

    threading.Thread(target=cancel_when_started).start()
    with pytest.raises(SnapshotTimeoutError, match="sleep: not done"):
        _process.run([*PYTHON, child], deadline, "sleep")
    assert done.wait(60)
    assert wait_gone(int(note.read_text()))


def test_a_command_that_ignores_sigterm_is_killed_all_the_same() -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    deadline = Deadline(60)
    timer = threading.Timer(0.5, deadline.cancel)
    timer.start()
    with pytest.raises(CancelledError):
        _process.run([*PYTHON, code], deadline, "stubborn")
    timer.join()


def test_ctrl_c_does_not_reach_a_command() -> None:
    """The command is in a process group of its own; the snapshot decides when it ends."""
    finished = _process.run([*PYTHON, "import os; print(os.getpgid(0) == os.getpid())"], Deadline(30), "ask")
    assert finished.output == "True\n"


def test_a_grandchild_that_keeps_the_output_open_blocks_nothing() -> None:
    code = "import subprocess,sys; subprocess.Popen([sys.executable,'-c','import time;time.sleep(60)'])"
    started = time.monotonic()
    assert _process.run([*PYTHON, code], Deadline(30), "leave one behind").code == 0
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a\0b"])
def test_what_is_no_service_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no service name"):
        _process.Service(name)


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose service manager is a script with one service, ``db``."""
    state = tmp_path / "state"
    state.write_text("active")
    tool = tmp_path / "systemctl"
    tool.write_text(
        f"#!{sys.executable}\n"
        "import sys, pathlib\n"
        f"state = pathlib.Path({str(state)!r})\n"
        "verb, name = sys.argv[1], sys.argv[-1]\n"
        "if verb == 'show':\n"
        "    print('LoadState=' + ('loaded' if name == 'db' else 'not-found'))\n"
        "    print('ActiveState=' + state.read_text())\n"
        "elif verb == 'stop': state.write_text('inactive')\n"
        "elif verb == 'start': state.write_text('active')\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(_process, "_systemd", lambda: True)
    return state


def test_a_service_is_stopped_and_started(services: Path) -> None:
    service = _process.Service("db")
    assert service.running(Deadline(30))
    service.stop(Deadline(30))
    assert services.read_text() == "inactive"
    assert not service.running(Deadline(30))
    service.start(Deadline(30))
    assert service.running(Deadline(30))


def test_an_unknown_service_is_named(services: Path) -> None:
    with pytest.raises(QuiesceError, match="there is no service web"):
        _process.Service("web").running(Deadline(30))


def test_signals_are_as_the_tests_found_them() -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_no_room_for_output_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(QuiesceError, match="greet: there is no room for the output of true") as caught:
        _process.run(["true"], Deadline(30), "greet")
    assert (caught.value.code, caught.value.hint) == (
        errno.ENOENT,
        "make room in the folder for temporary files, or set TMPDIR",
    )


@pytest.mark.posix("signals of POSIX")
def test_a_command_that_may_not_be_killed_is_late_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pids = []

    def refused(pid: int, number: int) -> None:  # as of a program of another user, such as sudo
        pids.append(pid)
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "killpg", refused)
    with pytest.raises(SnapshotTimeoutError, match="nap: not done within"):
        _process.run([*PYTHON, "import time; time.sleep(1.5)"], Deadline(0.2), "nap")
    assert len(pids) == 2
