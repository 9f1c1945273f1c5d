"""Calls that Windows only has in a form that blocks: opening a device, flushing it, asking what is on it.

A device that does not answer would hold the calling thread, and Ctrl-C with it.  So they are made by a
thread of their own, which is told to give up (CancelSynchronousIo) and left behind if it cannot.  That
thread is also told to let calls fail where Windows would ask somebody for a medium, and wait for that.

Sources: CancelSynchronousIo, "Canceling Pending I/O Operations", SetThreadErrorMode; Windows SDK
documentation.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from vsssnap._win32 import slots
from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import SEM_FAILCRITICALERRORS, THREAD_TERMINATE, Win32Error
from vsssnap._win32.handles import WindowsCallError

if TYPE_CHECKING:
    from vsssnap._win32.dll import System

Result = TypeVar("Result")


class _Call(threading.Thread, Generic[Result]):
    """A thread that makes one call."""

    def __init__(
        self, system: System, name: str, call: Callable[[], Result], undo: Callable[[Result], object]
    ) -> None:
        super().__init__(name=f"vsssnap {name}", daemon=True)
        self._system, self._call, self._undo = system, call, undo
        self._lock = threading.Lock()
        self._left = False
        self.results: list[tuple[Result, int]] = []
        self.failed: BaseException | None = None

    def run(self) -> None:
        try:
            self._system.kernel32.SetThreadErrorMode(SEM_FAILCRITICALERRORS, ffi.NULL)
            result = self._call()
            code = self._system.last_error()
        except BaseException as exc:  # no memory, say; it is raised again where the call came from
            self.failed = exc
            return
        with self._lock:
            if not self._left:
                self.results.append((result, code))
                return
        self._undo(result)

    def give_up(self) -> None:
        """Have the call end, and nobody get what it gives."""
        if self.is_alive():
            kernel32 = self._system.kernel32
            thread = kernel32.OpenThread(THREAD_TERMINATE, 0, self.native_id or 0)
            if thread != ffi.NULL:
                kernel32.CancelSynchronousIo(thread)
                kernel32.CloseHandle(thread)
            self.join(slots.GIVE_UP)
        with self._lock:
            self._left = True
        for result, _ in self.results:
            self._undo(result)


def answered(
    system: System,
    name: str,
    call: Callable[[], Result],
    undo: Callable[[Result], object] = lambda result: None,
    *,
    seconds: float | None = None,
) -> tuple[Result, int]:
    """What a call gives, and its GetLastError.

    Args:
        system: The libraries.
        name: Of the call.
        call: Makes it.
        undo: Called with what it gives if nobody waits for that any more.
        seconds: How long to wait; `slots.ANSWER` by default.

    Raises:
        WindowsCallError: ERROR_TIMEOUT if it was not answered by then; ERROR_NO_SYSTEM_RESOURCES if there is
            no thread to be had, and it was not made.
    """
    thread = _Call(system, name, call, undo)
    until = time.monotonic() + (slots.ANSWER if seconds is None else seconds)
    try:
        try:
            thread.start()
        except RuntimeError as exc:  # "can't start new thread", or the interpreter is ending
            raise WindowsCallError(name, Win32Error.ERROR_NO_SYSTEM_RESOURCES) from exc
        while thread.is_alive() and time.monotonic() < until:
            thread.join(slots.SLICE)
    except BaseException:
        thread.give_up()
        raise
    if thread.is_alive():
        thread.give_up()
        raise WindowsCallError(name, Win32Error.ERROR_TIMEOUT)
    if thread.failed is not None:
        raise thread.failed
    return thread.results[0]
