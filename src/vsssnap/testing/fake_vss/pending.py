"""Calls of devices that are under way, how they end, and how they are waited for.

Rules: "Synchronous and Asynchronous I/O", GetOverlappedResult, WaitForSingleObject, CancelIoEx,
CancelSynchronousIo, SetThreadErrorMode; Windows SDK documentation.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import SEM_FAILCRITICALERRORS, WAIT_TIMEOUT, Win32Error

if TYPE_CHECKING:
    from vsssnap.testing.fake_vss.machine import Machine

CData = Any
_PATIENCE = 10.0  # seconds that a read waits for others to gather


@dataclass(slots=True)
class _Call:
    """One that has begun."""

    code: int
    count: int
    ready: float  # a moment of time.monotonic
    deaf: float | None  # seconds that it goes on once it was cancelled

    def cancel(self) -> None:
        now = time.monotonic()
        if self.ready <= now:
            return
        if self.deaf is None:
            self.code, self.count, self.ready = Win32Error.ERROR_OPERATION_ABORTED, 0, now
        else:
            self.ready = min(self.ready, now + self.deaf)


class Pending:
    """The part of kernel32 that waits for calls and cancels them."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._calls: dict[int, _Call] = {}  # by the address of the OVERLAPPED
        self._events: dict[int, int] = {}  # event of a call that is under way: address of its OVERLAPPED
        self._reading: set[int] = set()  # addresses of the OVERLAPPEDs of reads that are under way
        self._held: dict[int, _Call] = {}  # calls that block, by their threads
        self._modes = threading.local()  # of threads
        self._changed = threading.Condition()

    def has_event(self, handle: CData) -> bool:
        """Whether a handle is the event of a call that is under way."""
        call = self._calls.get(self._events.get(int(ffi.cast("uintptr_t", handle)), 0))
        return call is not None and call.ready > time.monotonic()

    def complete(self, over: CData, code: int, count: int) -> int:
        """End an overlapped call as Windows does: later, by its event."""
        if not over or not over.hEvent:
            self._machine.ledger.forbid("an overlapped call needs an OVERLAPPED with an event")
            return self._machine.refuse(Win32Error.ERROR_INVALID_PARAMETER)
        place = int(ffi.cast("uintptr_t", over))
        with self._changed:
            self._calls[place] = _Call(code, count, time.monotonic(), None)
            self._events[int(ffi.cast("uintptr_t", over.hEvent))] = place
        self._machine.set_error(Win32Error.ERROR_IO_PENDING)
        return 0

    def delay(self, over: CData, name: str) -> None:
        """Have a call take its time that has just begun."""
        plan = self._machine.faults.plan(name)
        with self._changed:
            call = self._calls.get(int(ffi.cast("uintptr_t", over)))
            if call is not None:
                call.ready += plan.seconds
                call.deaf = plan.deaf
                call.code = call.code if plan.code is None else plan.code

    def count(self, over: CData) -> None:
        """A read is under way."""
        with self._changed:
            self._reading.add(int(ffi.cast("uintptr_t", over)))
            self._machine.most_reads = max(self._machine.most_reads, len(self._reading))
            self._changed.notify_all()

    def WaitForSingleObject(self, handle: CData, milliseconds: int) -> int:
        """Wait for the event of a call."""
        machine = self._machine
        if milliseconds == 0xFFFF_FFFF:
            machine.ledger.forbid("a device was waited for without a limit")
        until = time.monotonic() + milliseconds / 1000
        with self._changed:
            place = self._events.get(int(ffi.cast("uintptr_t", handle)))
            if place in self._reading:
                self._changed.wait_for(lambda: machine.most_reads >= machine.gathered_reads, _PATIENCE)
                self._reading.discard(place)
            while place is not None and (call := self._calls.get(place)) is not None:
                now = time.monotonic()
                if call.ready <= now:
                    break
                if until <= now:
                    return WAIT_TIMEOUT
                self._changed.wait(min(call.ready, until) - now)
        return 0

    def GetOverlappedResult(self, handle: CData, over: CData, done: CData, wait: int) -> int:
        """How an overlapped call ended."""
        del handle
        place, machine = int(ffi.cast("uintptr_t", over)), self._machine
        if wait:
            machine.ledger.forbid("a device was waited for without a limit")
        with self._changed:
            call = self._calls.get(place)
            if call is not None and call.ready > time.monotonic():
                return machine.refuse(Win32Error.ERROR_IO_INCOMPLETE)
            self._calls.pop(place, None)
            self._events.pop(int(ffi.cast("uintptr_t", over.hEvent)), None)
        if call is None:
            return machine.refuse(Win32Error.ERROR_INVALID_PARAMETER)
        done[0] = call.count
        return machine.refuse(call.code) if call.code else 1

    def CancelIoEx(self, handle: CData, over: CData) -> int:
        """Have one call end, if what has it listens."""
        del handle
        with self._changed:
            call = self._calls.get(int(ffi.cast("uintptr_t", over)))
            if call is None:
                return self._machine.refuse(Win32Error.ERROR_NOT_FOUND)
            call.cancel()
            self._changed.notify_all()
        return 1

    # Calls that block.

    def _hold(self, name: str) -> int:
        """Go on for as long as a call takes; what it ends as, 0 if nothing is against it."""
        thread = threading.get_native_id()
        with self._changed:  # so that whoever has seen it begin can cancel it
            plan = self._machine.faults.plan(name)
            call = _Call(plan.code or 0, 0, time.monotonic() + plan.seconds, plan.deaf)
            self._held[thread] = call
            while (left := call.ready - time.monotonic()) > 0:
                self._changed.wait(min(left, _PATIENCE))
            del self._held[thread]
        return call.code

    def refusal(self, name: str) -> int | None:
        """What a call fails with that blocks, after its time; None if nothing is against it."""
        if not getattr(self._modes, "mode", 0) & SEM_FAILCRITICALERRORS:
            self._machine.ledger.forbid(f"{name} may ask people for a medium, and wait for them")
        return self._hold(name) or self._machine.faults.code(name, "call")

    def SetThreadErrorMode(self, mode: int, old: CData) -> int:
        """Whether calls of the thread ask people for what is missing, or fail."""
        if old:
            old[0] = getattr(self._modes, "mode", 0)
        self._modes.mode = mode
        return 1

    def OpenThread(self, access: int, inherited: int, thread: int) -> CData:
        """A handle of a thread of this process."""
        del access, inherited
        return self._machine.handle("thread", thread)

    def CancelSynchronousIo(self, thread: CData) -> int:
        """Have the call end that a thread is in."""
        found = self._machine.opened(thread, "thread")
        with self._changed:
            call = self._held.get(found) if isinstance(found, int) else None
            if call is None:
                return self._machine.refuse(Win32Error.ERROR_NOT_FOUND)
            call.cancel()
            self._changed.notify_all()
        return 1
