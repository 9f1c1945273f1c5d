"""Read leases: to be told when somebody opens a file for writing.

Source: fcntl(2), "Leases" and "Managing signals"; Linux fs/locks.c and fs/fcntl.c.

The system makes whoever wants to write wait until the holder lets go (at most
/proc/sys/fs/lease-break-time, usually 45 s) and tells the holder by a signal, SIGIO by
default, which ends a process that does not expect it.  In a library no signal may ever reach
the host's code.  So every lease is owned by a thread of ours: the signal is SIGURG, which is
ignored by default, goes to that one thread, and is blocked there and waited for.  The thread
lets go at once, and the lease counts as broken.
"""

from __future__ import annotations

import errno
import os
import signal
import struct
import sys
import threading

from vsssnap.errors import ProviderUnavailableError, SnapshotBusyError, SnapshotError, SnapshotPermissionError

assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest

import fcntl  # noqa: E402 - there is none on Windows

__all__ = ["ReadLeases", "is_written", "why_no_lease"]

_SIGNAL = signal.SIGURG
_LOOK = 1.0  # seconds between looks at the leases without a signal

# <asm-generic/fcntl.h>: struct f_owner_ex { int type; pid_t pid; }
_F_SETOWN_EX = 15
_F_OWNER_TID = 0


class ReadLeases:
    """Read leases on open files, and the thread that lets them go when a writer comes.

    Made and closed in the same process.  Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[int, str] = {}
        self._broken: list[str] = []
        self._stop = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="vsssnap-leases", daemon=True)
        self._thread.start()
        self._ready.wait()  # until the signal is blocked there

    def add(self, fd: int, path: str) -> None:
        """Take a lease on a file.

        Args:
            fd: Open for reading only; stays open until `close`.
            path: Its name, for messages.

        Raises:
            SnapshotBusyError: somebody has it open for writing.
            ProviderUnavailableError: this user or file system cannot.
        """
        with self._lock:
            try:
                _lease(fd, self._thread.native_id or 0)
            except OSError as exc:
                raise _refused(path, exc) from exc
            self._held[fd] = path

    def broken(self) -> tuple[str, ...]:
        """The files that somebody opened for writing, or cut, since `add`."""
        self._look()
        with self._lock:
            return tuple(self._broken)

    def close(self) -> None:
        """Let every lease go and end the thread; the files stay open.  Idempotent."""
        with self._lock:
            # Woken before it is told to stop: a thread that has ended must not be sent a signal.
            if not self._stop and self._thread.is_alive():
                signal.pthread_kill(self._thread.ident or 0, _SIGNAL)
            self._stop = True
            for fd in self._held:
                _unlease(fd)
            self._held.clear()
        self._thread.join()

    def _watch(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {_SIGNAL})
        self._ready.set()
        while not self._stop:
            # Signals of one number are not counted, so each one means: look at all of them.
            signal.sigtimedwait({_SIGNAL}, _LOOK)
            self._look()

    def _look(self) -> None:
        with self._lock:
            # While a break is under way this gives what the lease is to become.
            gone = [fd for fd in self._held if fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK]
            for fd in gone:
                _unlease(fd)
                self._broken.append(self._held.pop(fd))


def _lease(fd: int, thread_id: int) -> None:
    fcntl.fcntl(fd, fcntl.F_SETSIG, _SIGNAL)
    fcntl.fcntl(fd, _F_SETOWN_EX, struct.pack("ii", _F_OWNER_TID, thread_id))
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)


def _unlease(fd: int) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as exc:
        if exc.errno != errno.EAGAIN:  # the system took it away: the time to break it was up
            raise


def _refused(path: str, exc: OSError) -> SnapshotError:
    call, code = "fcntl(F_SETLEASE)", exc.errno
    if code == errno.EAGAIN:
        return SnapshotBusyError(
            f"{path} is open for writing", call=call, code=code, hint="end what writes it (lsof or fuser)"
        )
    if code in (errno.EACCES, errno.EPERM):
        return SnapshotPermissionError(
            f"{path}: only its owner, or a process with CAP_LEASE, can take a lease on it",
            call=call,
            code=code,
            hint="run as its owner or as root",
        )
    reason = "its file system knows no leases"
    return ProviderUnavailableError(
        f"no lease on {path}: {os.strerror(code or 0)}",
        call=call,
        code=code,
        reasons={"static": f"{path}: {reason}"},
        hint="copy it to a local file",
    )


def why_no_lease(fd: int, path: str) -> str:
    """Why there can be no lease on a file now, or "".

    A lease is taken and let go again; a writer who comes in between waits for microseconds.

    Raises:
        SnapshotPermissionError: this process may not take one.
    """
    held = ReadLeases()
    try:
        held.add(fd, path)
    except ProviderUnavailableError as exc:
        return exc.reasons["static"]
    except SnapshotBusyError as exc:
        return exc.message
    finally:
        held.close()
    return ""


def is_written(path: str) -> bool:
    """Whether a program, a virtual machine or a loop device has a regular file open for writing.

    False where that cannot be told: another user's file, a file system without leases.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    held = ReadLeases()
    try:
        held.add(fd, path)
    except ProviderUnavailableError:
        return False
    except SnapshotBusyError:
        return True
    finally:
        held.close()
        os.close(fd)
    return False
