"""Positional reads and writes of devices, several at once and none through a cache.

Sources: "Synchronous and Asynchronous I/O", "File Buffering" (FILE_FLAG_NO_BUFFERING: offset and
length are multiples of the sector size, the address of its physical one), GetOverlappedResult;
Windows SDK documentation.

A call that Windows has not ended goes on writing into its memory.  So whatever ends a read here
(a bad sector, Ctrl-C) first cancels every call that it has begun, and waits for that.  A device that
does not answer one call within `slots.ANSWER` is not asked again.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Self

from vsssnap._win32._ffi import ffi
from vsssnap._win32.blocking import answered
from vsssnap._win32.com import wide
from vsssnap._win32.constants import (
    FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_NO_BUFFERING,
    FILE_FLAG_OPEN_REPARSE_POINT,
    FILE_FLAG_OVERLAPPED,
    FILE_READ_ATTRIBUTES,
    FILE_SHARE_DELETE,
    FILE_SHARE_READ,
    FILE_SHARE_WRITE,
    GENERIC_READ,
    GENERIC_WRITE,
    OPEN_EXISTING,
    Control,
    Win32Error,
)
from vsssnap._win32.handles import INVALID_HANDLE, Handle, WindowsCallError
from vsssnap._win32.slots import PAGE, PIECE, Slot, reap, stop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vsssnap._win32.dll import System
    from vsssnap._win32.protocols import CData

DEPTH = 4
"""Pieces of one range that are under way at once; every thread has as many."""


class OverlappedFile:
    """An open volume, disk or shadow copy.  Any thread may call, several at once, until `close`.

    No lock is held while Windows reads or writes.

    Attributes:
        path: As it was opened.
    """

    def __init__(
        self, system: System, path: str, *, writable: bool = False, facts_only: bool = False
    ) -> None:
        """Open it.

        Args:
            system: The libraries.
            path: Without a backslash at its end, which would mean its root folder.
            writable: Whether also for writing.
            facts_only: Whether neither, but a file that may be asked where it lies.

        Raises:
            WindowsCallError: it cannot be opened.
        """
        self._system = system
        self.path = path
        access = GENERIC_READ | GENERIC_WRITE if writable else GENERIC_READ
        share, flags = FILE_SHARE_READ | FILE_SHARE_WRITE, FILE_FLAG_NO_BUFFERING
        if facts_only:
            access, share = FILE_READ_ATTRIBUTES, share | FILE_SHARE_DELETE
            flags = FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT
        kernel32, name, call = system.kernel32, wide(path), f"CreateFileW({path})"

        def opened() -> CData:
            return kernel32.CreateFileW(
                name, access, share, ffi.NULL, OPEN_EXISTING, flags | FILE_FLAG_OVERLAPPED, ffi.NULL
            )

        reap()
        value, code = answered(system, call, opened, lambda value: Handle(system, value).close())
        if value == INVALID_HANDLE:
            raise WindowsCallError(call, code)
        self._handle = Handle(system, value)
        self._silent = threading.Event()
        self._slots: deque[Slot] = deque()
        self._edges = threading.Lock()  # a sector that is written in part is read before

    def close(self) -> None:
        """Let it go; no call is running by then.  Idempotent."""
        self._handle.close()
        while self._slots:
            self._slots.pop().close()

    def _slot(self) -> Slot:
        if self._silent.is_set():
            raise WindowsCallError(f"{self.path}, which did not answer before", Win32Error.ERROR_TIMEOUT)
        try:
            return self._slots.pop()
        except IndexError:
            return Slot(self._system, self._handle, self._silent)

    def _put_back(self, slots: Sequence[Slot], memory: object) -> bool:
        """Have calls ended that still run; whether nothing of ``memory`` is in use any more."""
        ended = stop(slots, memory)
        self._slots += [slot for slot in slots if not slot.running]
        return ended

    def control(
        self,
        code: Control,
        *,
        source: CData = ffi.NULL,
        out: CData = ffi.NULL,
        out_size: int = 0,
        partial: bool = False,
    ) -> int:
        """DeviceIoControl; bytes that it gave.

        Args:
            code: What to do.
            source: Pointer to the input.
            out: Pointer to room for the output.
            out_size: Bytes of the room; by default those of what ``out`` points to.
            partial: Whether ERROR_MORE_DATA is success.

        Raises:
            WindowsCallError: it failed.
        """
        source_size = ffi.sizeof(ffi.typeof(source).item) if source else 0
        if out and not out_size:
            out_size = ffi.sizeof(ffi.typeof(out).item)
        slot = self._slot()
        try:
            slot.control(code, source, source_size, out, out_size)
            return slot.end(partial=partial)
        finally:
            self._put_back([slot], (source, out))

    def flush(self) -> None:
        """Wait until what was written is on the disk.

        Raises:
            WindowsCallError: it is not.
        """
        kernel32, handle = self._system.kernel32, self._handle.value
        ok, code = answered(self._system, "FlushFileBuffers", lambda: kernel32.FlushFileBuffers(handle))
        if not ok:
            raise WindowsCallError("FlushFileBuffers", code)

    # Reading.

    def read_into(self, view: memoryview, offset: int, sector_size: int) -> None:
        """Fill ``view`` (writable bytes) from any offset; all of it lies on the device.

        Raises:
            WindowsCallError: a part of it cannot be read; ``view`` then holds no valid bytes.
        """
        with _Pinned(view) as pinned:
            self._fill(pinned, len(view), offset, sector_size)

    def _fill(self, pinned: _Pinned, length: int, offset: int, sector_size: int) -> None:
        target = pinned.start()
        straight = _is_aligned(target, length, offset, sector_size)
        running: deque[tuple[Slot, int, int, int]] = deque()
        at = 0
        try:
            while at < length or running:
                if at < length and len(running) < DEPTH:
                    slot = self._slot()
                    skip = (offset + at) % sector_size
                    count = min(PIECE - skip, length - at)
                    running.append((slot, at, skip, count))
                    memory = target + at if straight else slot.room()
                    slot.read(memory, _whole(skip + count, sector_size), offset + at - skip)
                    at += count
                    continue
                slot, start, skip, count = running[0]
                memory = target + start if straight else slot.room()
                self._end_read(slot, memory, _whole(skip + count, sector_size), offset + start - skip)
                if not straight:
                    ffi.memmove(target + start, memory + skip, count)
                running.popleft()
                self._slots.append(slot)
        finally:
            pinned.free = False  # should an interrupt end the next line
            pinned.free = self._put_back([slot for slot, *_ in running], pinned.memory)

    def _end_read(self, slot: Slot, memory: CData, length: int, offset: int) -> None:
        """Wait for a read, and go on where it ended early."""
        done = slot.end()
        while done < length:
            slot.read(memory + done, length - done, offset + done)
            more = slot.end()
            if not more:
                raise WindowsCallError("ReadFile", Win32Error.ERROR_HANDLE_EOF)
            done += more

    # Writing.

    def write(self, data: memoryview, offset: int, sector_size: int) -> None:
        """Write bytes anywhere; all of them lie on the device.

        A sector that is written in part is read before: such writes wait for one another.

        Raises:
            WindowsCallError: some of it cannot be written.
        """
        with _Pinned(data) as pinned:
            source = pinned.start()
            first, end = offset, offset + len(data)
            head = min(-first % sector_size, len(data))
            tail = end % sector_size if end - end % sector_size >= first + head else 0
            if head:
                self._write_part(source, head, first, sector_size)
            if len(data) - head - tail:
                self._put(pinned, head, len(data) - head - tail, first + head, sector_size)
            if tail:
                self._write_part(source + len(data) - tail, tail, end - tail, sector_size)

    def _write_part(self, source: CData, length: int, offset: int, sector_size: int) -> None:
        """Write a part of one sector."""
        skip = offset % sector_size
        with self._edges:
            slot = self._slot()  # not before: who has waited may find a device that does not answer
            try:
                room = slot.room()
                slot.read(room, sector_size, offset - skip)
                self._end_read(slot, room, sector_size, offset - skip)
                ffi.memmove(room + skip, source, length)
                slot.write(room, sector_size, offset - skip)
                _all_written(slot.end(), sector_size)
            finally:
                self._put_back([slot], None)

    def _put(self, pinned: _Pinned, skip: int, length: int, offset: int, sector_size: int) -> None:
        source = pinned.start() + skip
        straight = _is_aligned(source, length, offset, sector_size)
        running: deque[tuple[Slot, int]] = deque()
        at = 0
        try:
            while at < length or running:
                if at < length and len(running) < DEPTH:
                    slot = self._slot()
                    count = min(PIECE, length - at)
                    running.append((slot, count))
                    memory = source + at
                    if not straight:
                        memory = slot.room()
                        ffi.memmove(memory, source + at, count)
                    slot.write(memory, count, offset + at)
                    at += count
                    continue
                slot, count = running[0]
                _all_written(slot.end(), count)
                running.popleft()
                self._slots.append(slot)
        finally:
            pinned.free = False  # should an interrupt end the next line
            pinned.free = self._put_back([slot for slot, _ in running], pinned.memory)


class _Pinned:
    """Memory of the caller's that Windows reads or writes; also released when a traceback refers to it.

    Where a call runs on in it that nobody could stop, only `slots` has it in the end: the collector must
    not find it in a traceback, for it tears a memoryview down before what holds it (CPython 3.11).
    """

    def __init__(self, view: memoryview) -> None:
        # A view of its own: the caller may let his go.
        self.memory = ffi.from_buffer("char[]", memoryview(view))
        self.free = True

    def start(self) -> CData:
        """A pointer to it that does not hold it."""
        return ffi.cast("char *", self.memory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        memory, self.memory = self.memory, None
        if self.free:
            ffi.release(memory)


def _is_aligned(memory: CData, length: int, offset: int, sector_size: int) -> bool:
    address = int(ffi.cast("uintptr_t", memory))
    return not (address % PAGE or offset % sector_size or length % sector_size)


def _whole(length: int, sector_size: int) -> int:
    return -(-length // sector_size) * sector_size


def _all_written(done: int, length: int) -> None:
    if done != length:
        raise WindowsCallError("WriteFile", Win32Error.ERROR_DISK_FULL)
