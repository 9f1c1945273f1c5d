"""Overlapped calls, one at a time in each slot, and what becomes of one that is never answered.

A call that Windows has not ended goes on writing into its memory.  One that is late is cancelled; where
the driver ignores that, too, its memory is kept until it ends, for good if need be, and its caller goes on.

Sources: "Synchronous and Asynchronous I/O", WaitForSingleObject, GetOverlappedResult, CancelIoEx; Windows
SDK documentation.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import (
    MEM_COMMIT,
    MEM_RELEASE,
    MEM_RESERVE,
    PAGE_READWRITE,
    WAIT_TIMEOUT,
    Control,
    Win32Error,
)
from vsssnap._win32.handles import Handle, WindowsCallError, last

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vsssnap._win32.dll import System
    from vsssnap._win32.protocols import CData

PIECE = 256 << 10
"""Bytes of one call: a longer range is cut into such pieces."""
PAGE = 4096
"""Bytes: what addresses are aligned to; no physical sector is larger."""
ANSWER = 300.0
"""Seconds that a device has to answer one call: drivers try for minutes, and then say so."""
SLICE = 0.2
"""Seconds: the longest that Ctrl-C is not seen."""
GIVE_UP = 0.2
"""Seconds that calls have to end once they are cancelled."""

_unanswered: list[tuple[Slot, object]] = []  # what still runs, and the memory that it has
_lock = threading.Lock()


class Slot:
    """One call at a time: its OVERLAPPED and event, and memory that is aligned."""

    def __init__(self, system: System, handle: Handle, silent: threading.Event) -> None:
        """Make its event.

        Args:
            system: The libraries.
            handle: What is called.
            silent: Set when a call is not answered.
        """
        self._system = system
        self._handle = handle
        self._silent = silent
        event = system.kernel32.CreateEventW(ffi.NULL, 1, 0, ffi.NULL)
        if not event:
            raise last(system, "CreateEventW")
        self._event = Handle(system, event)
        self._over = ffi.new("OVERLAPPED *")
        self._done = ffi.new("DWORD *")
        self._room: CData = ffi.NULL
        self._call = ""
        self._code = 0
        self.running = False

    def _at(self, call: str, offset: int) -> CData:
        """The OVERLAPPED of a call that begins now."""
        ffi.memmove(self._over, bytes(ffi.sizeof("OVERLAPPED")), ffi.sizeof("OVERLAPPED"))
        self._over.Offset = offset & 0xFFFFFFFF
        self._over.OffsetHigh = offset >> 32
        self._over.hEvent = self._event.value
        self._done[0] = 0
        self._call, self._code = call, 0
        self.running = True  # before it begins: an interrupt right behind the call must find it
        return self._over

    def _begun(self, ok: int) -> None:
        self._code = 0 if ok else self._system.last_error()
        self.running = self._code == Win32Error.ERROR_IO_PENDING

    def read(self, memory: CData, length: int, offset: int) -> None:
        """Begin to read sectors."""
        over = self._at("ReadFile", offset)
        self._begun(self._system.kernel32.ReadFile(self._handle.value, memory, length, self._done, over))

    def write(self, memory: CData, length: int, offset: int) -> None:
        """Begin to write sectors."""
        over = self._at("WriteFile", offset)
        self._begun(self._system.kernel32.WriteFile(self._handle.value, memory, length, self._done, over))

    def control(self, code: Control, source: CData, source_size: int, out: CData, out_size: int) -> None:
        """Begin a DeviceIoControl."""
        over = self._at(f"DeviceIoControl({code.name})", 0)
        self._begun(
            self._system.kernel32.DeviceIoControl(
                self._handle.value, code, source, source_size, out, out_size, self._done, over
            )
        )

    def end(self, *, partial: bool = False) -> int:
        """Wait for the call; bytes that it moved.

        Args:
            partial: Whether ERROR_MORE_DATA is success.

        Raises:
            WindowsCallError: it failed; ERROR_TIMEOUT if it was not answered, and runs on.
        """
        if not self.has_ended(ANSWER):
            self._silent.set()
            raise WindowsCallError(self._call, Win32Error.ERROR_TIMEOUT)
        if self._code and not (partial and self._code == Win32Error.ERROR_MORE_DATA):
            raise WindowsCallError(self._call, self._code)
        return int(self._done[0] or self._over.InternalHigh)  # the latter where it ended at once

    def has_ended(self, seconds: float) -> bool:
        """Wait until the call has ended, or for so long."""
        kernel32, until = self._system.kernel32, time.monotonic() + seconds
        while self.running:
            left = max(0.0, until - time.monotonic())
            waited = kernel32.WaitForSingleObject(self._event.value, int(min(SLICE, left) * 1000))
            if waited != WAIT_TIMEOUT:
                ok = kernel32.GetOverlappedResult(self._handle.value, self._over, self._done, 0)
                self._code = 0 if ok else self._system.last_error()
                self.running = self._code == Win32Error.ERROR_IO_INCOMPLETE
            if self.running and not left:
                return False
        return True

    def has_signalled(self) -> bool:
        """Whether the call has ended, though its file may be closed by now."""
        return self._system.kernel32.WaitForSingleObject(self._event.value, 0) != WAIT_TIMEOUT

    def cancel(self) -> None:
        """Ask the driver to end the call."""
        self._system.kernel32.CancelIoEx(self._handle.value, self._over)

    def room(self) -> CData:
        """``PIECE`` bytes of page-aligned memory and a page more, for both ends."""
        if not self._room:
            size = PIECE + PAGE
            kernel32 = self._system.kernel32
            self._room = kernel32.VirtualAlloc(ffi.NULL, size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE)
            if not self._room:
                raise MemoryError(f"VirtualAlloc: no {size} bytes")
        return self._room

    def close(self) -> None:
        """Give back what it has."""
        self._event.close()
        room, self._room = self._room, ffi.NULL
        if room:
            self._system.kernel32.VirtualFree(room, 0, MEM_RELEASE)


def stop(slots: Sequence[Slot], memory: object) -> bool:
    """Cancel what still runs and wait for that; whether all has ended.

    Args:
        slots: All that have used ``memory``.
        memory: Kept for as long as one of them runs.
    """
    running = [slot for slot in slots if slot.running]
    if not running:
        return True
    mine = [(slot, memory) for slot in running]
    with _lock:  # first: an interrupt from here on frees nothing that is still written to
        _unanswered.extend(mine)
    for slot in running:
        slot.cancel()
    until = time.monotonic() + GIVE_UP
    for slot in running:
        slot.has_ended(until - time.monotonic())
    with _lock:
        for each in mine:
            if not each[0].running:
                _unanswered.remove(each)
    return not any(slot.running for slot in running)


def reap() -> None:
    """Let go of what ran on when it was stopped, and has ended since."""
    if not _unanswered:
        return
    with _lock:
        known, _unanswered[:] = list(_unanswered), []
        for each in known:
            if each[0].has_signalled():
                each[0].close()
            else:
                _unanswered.append(each)
