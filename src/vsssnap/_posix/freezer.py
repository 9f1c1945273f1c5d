"""Freeze file systems for an instant, so that they are thawed whatever happens.

A frozen file system stops every writer on it; one that stays frozen stops the machine.  So
the process that asks does not freeze.  A helper started beforehand does (`_freezer_helper`
says how it watches), and three parties can thaw, each when the one before it failed:

1. the helper's worker, after the instant;
2. the helper's watcher, when this process is gone or the time limit is over, also while the
   worker hangs in a call that the freeze blocks;
3. this process, when the helper is gone (killed, out of memory) or does not answer.

What no program can undo is SIGKILL to both within the instant: ``fsfreeze --unfreeze
MOUNTPOINT`` then does.

The instant is a list of ioctls on descriptors, so it suits clones (FICLONE) as well as
device-mapper requests.  The helper inherits the descriptors; they stay the caller's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vsssnap.errors import SnapshotError, SnapshotTimeoutError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vsssnap._deadline import Deadline

assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest

from vsssnap._posix._freezer_errors import not_thawed, refused  # noqa: E402 - likewise
from vsssnap._posix.ioctls import FIFREEZE, FITHAW  # noqa: E402 - likewise

__all__ = ["LIMIT", "Action", "Freezer", "Instant", "Target"]

LIMIT = 10.0
"""Seconds that file systems stay frozen at most, as Windows does for a shadow copy."""

_SLICE = 0.1  # seconds between two looks at the deadline and the helper
_GRACE = 1.0  # seconds that the helper's own timer gets to act before this process does
_START = 30.0  # seconds for an interpreter to start, also on a busy machine
_END = 5.0  # seconds for the helper to end by itself
_HELPER = Path(__file__).with_name("_freezer_helper.py")

# Helpers that could not be ended (stuck in the kernel); they end with the call they are in.
_stuck: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class Target:
    """A file system to freeze.

    Attributes:
        fd: Any descriptor on it.
        name: Its mount point, for messages.
    """

    fd: int
    name: str


@dataclass(frozen=True, slots=True)
class Action:
    """An ioctl of the instant.

    Attributes:
        fd: Its descriptor.
        request: Its number.
        argument: A whole number or descriptor, or the contents of a buffer.
        fds: Further descriptors that the argument names, for the helper to inherit.
    """

    fd: int
    request: int
    argument: int | bytes
    fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Instant:
    """What became of it.

    Attributes:
        nanoseconds: CLOCK_REALTIME between the last freeze and the first action.
        seconds: From the first freeze to the last thaw.
        failed: Index of the action that failed, or None; those behind it were not tried.
        code: Its errno, or 0.
    """

    nanoseconds: int
    seconds: float
    failed: int | None = None
    code: int = 0


class Freezer:
    """One instant.  ``start``, ``flush``, ``run`` once each, ``close`` always; one thread."""

    def __init__(self, targets: Sequence[Target], actions: Sequence[Action], *, limit: float = LIMIT) -> None:
        """Describe the instant; nothing is started.

        Args:
            targets: Frozen in this order, thawed in reverse; may be empty.
            actions: Done in this order while all are frozen, up to the first that fails.
            limit: Seconds after which the file systems are thawed, and the instant has failed.
        """
        self._targets = tuple(targets)
        self._actions = tuple(actions)
        self._limit = limit
        self._process: subprocess.Popen[bytes] | None = None
        self._pending = b""
        self._open: set[int] = set()  # targets that the helper may have frozen and not thawed

    def start(self, deadline: Deadline, *, flush: Sequence[int] = ()) -> None:
        """Start the helper and wait until it is ready.

        Args:
            deadline: Ends the wait.
            flush: Descriptors whose file systems `flush` writes back.

        Raises:
            SnapshotError: it cannot be started.
        """
        step = "start the freezer"
        deadline.check(step)
        if not sys.executable or getattr(sys, "frozen", False):
            raise SnapshotError(
                f"the freezer needs a Python interpreter to run in, and sys.executable is {sys.executable!r}",
                call=step,
                hint="set sys.executable to one",
            )
        for stuck in [process for process in _stuck if process.poll() is not None]:
            _stuck.remove(stuck)
        lines = [f"ioctls {FIFREEZE} {FITHAW}"]
        lines += [f"sync {fd}" for fd in flush]
        lines += [f"freeze {target.fd}" for target in self._targets]
        inherited = {*flush, *(target.fd for target in self._targets)}
        for action in self._actions:
            argument = action.argument
            words = f"i {argument}" if isinstance(argument, int) else f"b {argument.hex()}"
            lines.append(f"act {action.fd} {action.request} {words}")
            inherited |= {action.fd, *action.fds}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", os.fspath(_HELPER), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                cwd="/",
                pass_fds=sorted(inherited),
                start_new_session=True,  # Ctrl-C in the terminal is not for it
            )
        except (OSError, ValueError) as exc:
            code = exc.errno if isinstance(exc, OSError) else None
            raise SnapshotError(
                f"the freezer cannot be started with {sys.executable}: {exc}",
                call=step,
                code=code,
                hint="sys.executable must be a Python interpreter, and all descriptors open",
            ) from exc
        try:
            self._send("\n".join([*lines, "end"]), step)
            self._expect("ready", deadline, step, time.monotonic() + _START)
        except BaseException:
            self.close()
            raise

    def flush(self, deadline: Deadline) -> None:
        """Write back the file systems given to `start`, so that they are frozen only for a moment.

        Raises:
            SnapshotError: writing back failed.
        """
        step = "flush file systems"
        try:
            self._send("flush", step)
            (code,) = self._expect("flushed", deadline, step)
        except BaseException:
            self.close()
            raise
        if code:
            raise SnapshotError(
                f"{self._names()}: cannot be written back: {os.strerror(code)}",
                call="syncfs",
                code=code,
                hint="look for errors of the device in the kernel's log",
            )

    def run(self, deadline: Deadline) -> Instant:
        """Freeze, act, thaw.

        Returns:
            The instant.  An action that failed is for the caller to judge; nothing is frozen.

        Raises:
            SnapshotBusyError: somebody else has frozen one of the file systems.
            SnapshotPermissionError: the right to freeze is missing.
            SnapshotTimeoutError: the deadline or the limit was over; nothing is frozen.
            SnapshotError: a file system cannot be frozen, was thawed by somebody else, or the
                helper was killed; nothing is frozen, and what was done in the instant is void.
        """
        step = "freeze file systems" if self._targets else "take the instant"
        limit = self._limit if self._targets else 0.0
        until = time.monotonic() + limit + _GRACE if limit else None
        try:
            self._send(f"go {limit}", step)
            return self._follow(deadline, step, until)
        except BaseException:
            self.close()
            raise

    def _follow(self, deadline: Deadline, step: str, until: float | None) -> Instant:
        failed: int | None = None
        code = 0
        problem: SnapshotError | None = None
        while True:
            word, *numbers = self._line(deadline, step, until)
            if word == "freezing":
                self._open.add(numbers[0])
            elif word == "frozen" and numbers[1]:
                self._open.discard(numbers[0])
                problem = refused(self._targets[numbers[0]].name, numbers[1])
            elif word == "acted" and numbers[1]:
                failed, code = numbers
            elif word == "thawed":
                if not numbers[1] or numbers[1] == errno.EINVAL:  # EINVAL: it is not frozen
                    self._open.discard(numbers[0])
                if numbers[1]:
                    problem = problem or not_thawed(self._targets[numbers[0]].name, numbers[1])
            elif word == "done":
                nanoseconds, microseconds, expired = numbers
                if problem is not None:
                    raise problem
                if expired:
                    raise SnapshotTimeoutError(
                        f"{self._names()}: the instant took longer than {self._limit:g} s;"
                        " the file systems were thawed",
                        call=step,
                        hint="find what blocks the device, or take the snapshot when it is less busy",
                    )
                return Instant(nanoseconds, microseconds / 1e6, failed, code)

    def close(self) -> None:
        """Thaw what may be frozen, and end the helper.  Idempotent; bounded to a few seconds."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None  # noqa: S101 - made with a pipe
        assert process.stdout is not None  # noqa: S101 - made with a pipe
        with contextlib.suppress(OSError):
            process.stdin.close()  # the helper thaws and ends
        until = time.monotonic() + _END
        while process.poll() is None and not _dead(process.pid) and time.monotonic() < until:
            # A helper that has its watcher alive is the better one to thaw: give it a moment.
            if self._open and time.monotonic() > until - _END + _GRACE:
                break
            time.sleep(0.01)
        self._thaw()
        if process.poll() is None:
            process.kill()
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                _stuck.append(process)
        process.stdout.close()

    def _thaw(self) -> None:
        """Thaw in place of the helper; it may have done so, which is then what FITHAW says."""
        for index in sorted(self._open, reverse=True):
            # A thread, as FITHAW waits for a freeze that is under way; its own descriptor, as
            # the caller may close his meanwhile.
            fd = os.dup(self._targets[index].fd)
            thread = threading.Thread(target=_thaw_and_close, args=(fd,), daemon=True)
            thread.start()
            thread.join(_END)
        self._open.clear()

    def _names(self) -> str:
        return ", ".join(target.name for target in self._targets) or "the volume"

    def _send(self, text: str, step: str) -> None:
        process = self._process
        if process is None or process.stdin is None:
            raise SnapshotError("the freezer is not running", call=step, hint="start it first")
        data = text.encode() + b"\n"
        try:
            while data:
                data = data[process.stdin.write(data) or 0 :]
        except OSError as exc:
            raise self._gone(step) from exc

    def _expect(self, word: str, deadline: Deadline, step: str, until: float | None = None) -> list[int]:
        found, *numbers = self._line(deadline, step, until)
        if found != word:
            raise SnapshotError(f"the freezer answered {found!r} instead of {word!r}", call=step)
        return numbers

    def _line(self, deadline: Deadline, step: str, until: float | None) -> tuple[str, *tuple[int, ...]]:
        """The next report of the helper, in slices that look at everything that can go wrong."""
        process = self._process
        assert process is not None  # noqa: S101 - _send came first
        assert process.stdout is not None  # noqa: S101 - made with a pipe
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        while b"\n" not in self._pending:
            deadline.check(step)
            if until is not None and time.monotonic() >= until:
                raise SnapshotTimeoutError(
                    f"{self._names()}: the freezer does not answer; what it froze was thawed in its place",
                    call=step,
                    hint="try again when the machine is less busy",
                )
            slice_ = min(_SLICE, max(deadline.left(), 0.001))
            if poll.poll(slice_ * 1000):
                data = os.read(process.stdout.fileno(), 4096)
                if not data:
                    raise self._gone(step)
                self._pending += data
            elif _dead(process.pid):
                # A thread stuck in a call keeps the pipe of a killed helper open.
                raise self._gone(step)
        line, _, self._pending = self._pending.partition(b"\n")
        word, *numbers = line.decode("utf-8", "replace").split()
        if word == "failed":
            raise SnapshotError(f"the freezer failed: {' '.join(numbers)}", call=step)
        return (word, *map(int, numbers))

    def _gone(self, step: str) -> SnapshotError:
        process = self._process
        code = None
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(_SLICE)
        if code is None:
            ended = "was killed"
        elif code < 0:
            ended = f"was ended by {signal.Signals(-code).name}"
        else:
            ended = f"ended with status {code}"
        return SnapshotError(
            f"the freezer's helper process {ended}; what it froze was thawed",
            call=step,
            hint="try again, and find out who ended it",
        )


def _dead(pid: int) -> bool:
    """Whether the main thread of an unreaped child has ended, be others still stuck."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return True
    return stat.rpartition(b")")[2].split()[:1] in ([b"Z"], [b"X"])


def _thaw_and_close(fd: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, FITHAW, 0)
    os.close(fd)
