"""Subprocesses and services of the system, with a time budget and without a shell."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap.errors import QuiesceError, UsageError

if TYPE_CHECKING:
    import subprocess

    from vsssnap._deadline import Deadline

_TICK = 0.05  # seconds between two looks at a running command
_OUTPUT = 2000  # characters of a failed command's output that its error shows


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended.

    Attributes:
        code: Its exit status; negative for a signal.
        output: The end of what it wrote to its standard output and error, at most 64 KiB.
    """

    code: int
    output: str


def run(command: Sequence[str], deadline: Deadline, step: str) -> Finished:
    """Run a command to its end.

    It gets a session (process group) of its own, so that Ctrl-C reaches this process alone and
    so that everything it started ends with it when the time is up.

    Args:
        command: Program and arguments; the program is looked for in PATH.
        deadline: When it is killed.
        step: What it does, in the caller's words; begins messages.

    Raises:
        QuiesceError: it cannot be started.
        SnapshotTimeoutError: it did not end in time; it was killed.
        CancelledError: the operation was cancelled; it was killed.
    """
    if not command or isinstance(command, str):
        raise UsageError(
            f"{step}: {command!r} is no command", hint='pass a list such as ["systemctl", "stop", "db"]'
        )
    # Only commands need these, and they cost a tenth of the library's import.
    import subprocess
    import tempfile

    with contextlib.ExitStack() as stack:
        try:
            # A file, not a pipe: a grandchild that keeps it open can then neither block nor fill it.
            output = stack.enter_context(tempfile.TemporaryFile())
        except OSError as exc:
            raise QuiesceError(
                f"{step}: there is no room for the output of {command[0]}: {exc}",
                call="open",
                code=exc.errno,
                hint="make room in the folder for temporary files, or set TMPDIR",
            ) from exc
        try:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as exc:
            raise QuiesceError(
                f"{step}: {command[0]} cannot be started: {exc}",
                call=command[0],
                code=getattr(exc, "errno", None),
                hint="check the name and PATH",
            ) from exc
        try:
            while process.poll() is None:
                deadline.check(step)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(min(_TICK, max(deadline.left(), 0.001)))
        finally:
            if process.poll() is None:
                _kill(process)
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - 65536))
        return Finished(process.returncode, output.read().decode("utf-8", "replace"))


def run_checked(command: Sequence[str], deadline: Deadline, step: str, *, hint: str = "") -> Finished:
    """`run`, and an exit status other than 0 is a QuiesceError; ``hint`` says what to do then."""
    finished = run(command, deadline, step)
    if finished.code:
        ended = f"signal {-finished.code}" if finished.code < 0 else f"status {finished.code}"
        tail = finished.output.strip()[-_OUTPUT:]
        raise QuiesceError(
            f"{step}: {' '.join(command)} ended with {ended}" + (f": {tail}" if tail else ""),
            call=command[0],
            code=finished.code,
            hint=hint,
        )
    return finished


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a command and all it started, as far as this user may; never waits for long."""
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
        until = time.monotonic() + 1
        while process.poll() is None and time.monotonic() < until:
            time.sleep(_TICK)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    from subprocess import TimeoutExpired

    with contextlib.suppress(TimeoutExpired):
        process.wait(5)


class Service:
    """A service of systemd, or of the Windows service control manager.

    On a system with neither, the classic ``service`` command.
    """

    def __init__(self, name: str) -> None:
        if not name or name.startswith("-") or "/" in name or "\0" in name:
            raise UsageError(f"{name!r} is no service name")
        self.name = name

    def running(self, deadline: Deadline) -> bool:
        """Whether it runs.

        Raises:
            QuiesceError: there is no such service.
        """
        step = f"ask for service {self.name}"
        if sys.platform == "win32":
            finished = run_checked(["sc.exe", "query", self.name], deadline, step)
            return "RUNNING" in finished.output or "START_PENDING" in finished.output
        else:  # noqa: RET505 - so that a type checker for Windows sees no dead code
            return (
                self._running_systemd(deadline, step) if _systemd() else self._running_classic(deadline, step)
            )

    def _running_systemd(self, deadline: Deadline, step: str) -> bool:
        shown = run_checked(
            ["systemctl", "show", "--property=LoadState,ActiveState", "--", self.name], deadline, step
        )
        state = dict(line.split("=", 1) for line in shown.output.splitlines() if "=" in line)
        if state.get("LoadState") == "not-found":
            raise QuiesceError(f"there is no service {self.name}", call="systemctl", hint="check its name")
        return state.get("ActiveState") in ("active", "activating", "reloading")

    def _running_classic(self, deadline: Deadline, step: str) -> bool:
        if not os.path.exists(f"/etc/init.d/{self.name}"):
            raise QuiesceError(f"there is no service {self.name}", call="service", hint="check its name")
        # LSB Core, "Init Script Actions": status is 0 while it runs, 1 to 3 when it does not.
        return run([_classic(), self.name, "status"], deadline, step).code == 0

    def stop(self, deadline: Deadline) -> None:
        """Stop it and wait until it is stopped."""
        self._order("stop", deadline)
        while self.running(deadline):
            deadline.sleep(0.1, f"stop service {self.name}")

    def start(self, deadline: Deadline) -> None:
        """Start it."""
        self._order("start", deadline)

    def _order(self, order: str, deadline: Deadline) -> None:
        step = f"{order} service {self.name}"
        if sys.platform == "win32":
            command = ["sc.exe", order, self.name]
        elif _systemd():
            command = ["systemctl", order, "--", self.name]
        else:
            command = [_classic(), self.name, order]
        run_checked(command, deadline, step)


def _systemd() -> bool:
    # sd_booted(3): the directory exists exactly where systemd is the service manager.
    return os.path.isdir("/run/systemd/system")


def _classic() -> str:
    import shutil

    return shutil.which("service") or "/usr/sbin/service"
