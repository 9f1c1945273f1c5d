"""Positional reads and writes of devices, several at once and none through a cache.

Sources: "Synchronous and Asynchronous I/O", "File Buffering" (FILE_FLAG_NO_BUFFERING: offset and
length are multiples of the sector size, the address of its physical one), GetOverlappedResult;
Windows SDK documentation.

A call that Windows has not ended goes on writing into its memory.  So whatever ends a read here
(a bad sector, Ctrl-C) first waits for every call that it has begun.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from vsssnap._win32._ffi import ffi
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
    MEM_COMMIT,
    MEM_RELEASE,
    MEM_RESERVE,
    OPEN_EXISTING,
    PAGE_READWRITE,
    Control,
    Win32Error,
)
from vsssnap._win32.handles import INVALID_HANDLE, Handle, WindowsCallError, last

if TYPE_CHECKING:
    from vsssnap._win32.dll import System
    from vsssnap._win32.protocols import CData

PIECE = 256 << 10
"""Bytes of one call: a longer range is cut into such pieces."""
DEPTH = 4
"""Pieces of one range that are under way at once; every thread has as many."""
PAGE = 4096
"""Bytes: what addresses are aligned to; no physical sector is larger."""


class Slot:
    """One call at a time: its OVERLAPPED and event, and memory that is aligned."""

    def __init__(self, system: System, handle: Handle) -> None:
        self._system = system
        self._handle = handle
        event = system.kernel32.CreateEventW(ffi.NULL, 1, 0, ffi.NULL)
        if not event:
            raise last(system, "CreateEventW")
        self._event = Handle(system, event)
        self._over = ffi.new("OVERLAPPED *")
        self._done = ffi.new("DWORD *")
        self._room: CData = ffi.NULL
        self._running = False
        self._call = ""
        self._code = 0

    def _at(self, call: str, offset: int) -> CData:
        """The OVERLAPPED of a call that begins now."""
        ffi.memmove(self._over, bytes(ffi.sizeof("OVERLAPPED")), ffi.sizeof("OVERLAPPED"))
        self._over.Offset = offset & 0xFFFFFFFF
        self._over.OffsetHigh = offset >> 32
        self._over.hEvent = self._event.value
        self._done[0] = 0
        self._call, self._code = call, 0
        self._running = True  # before it begins: an interrupt right behind the call must find it
        return self._over

    def _begun(self, ok: int) -> None:
        self._code = 0 if ok else self._system.last_error()
        self._running = self._code == Win32Error.ERROR_IO_PENDING

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
            WindowsCallError: it failed.
        """
        code = self._wait()
        if code and not (partial and code == Win32Error.ERROR_MORE_DATA):
            raise WindowsCallError(self._call, code)
        return int(self._done[0] or self._over.InternalHigh)  # the latter where it ended at once

    def drain(self) -> None:
        """Wait for a call whose result nobody wants, if one runs."""
        if self._running:
            self._wait()

    def _wait(self) -> int:
        if self._running:
            ok = self._system.kernel32.GetOverlappedResult(self._handle.value, self._over, self._done, 1)
            self._code = 0 if ok else self._system.last_error()
            self._running = False
        return self._code

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
        value = system.kernel32.CreateFileW(
            wide(path), access, share, ffi.NULL, OPEN_EXISTING, flags | FILE_FLAG_OVERLAPPED, ffi.NULL
        )
        if value == INVALID_HANDLE:
            raise last(system, f"CreateFileW({path})")
        self._handle = Handle(system, value)
        self._slots: deque[Slot] = deque()
        self._edges = threading.Lock()  # a sector that is written in part is read before

    def close(self) -> None:
        """Let it go; no call is running by then.  Idempotent."""
        self._handle.close()
        while self._slots:
            self._slots.pop().close()

    def _slot(self) -> Slot:
        try:
            return self._slots.pop()
        except IndexError:
            return Slot(self._system, self._handle)

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
            slot.drain()
            self._slots.append(slot)

    def flush(self) -> None:
        """Wait until what was written is on the disk.

        Raises:
            WindowsCallError: it is not.
        """
        if not self._system.kernel32.FlushFileBuffers(self._handle.value):
            raise last(self._system, "FlushFileBuffers")

    # Reading.

    def read_into(self, view: memoryview, offset: int, sector_size: int) -> None:
        """Fill ``view`` (writable bytes) from any offset; all of it lies on the device.

        Raises:
            WindowsCallError: a part of it cannot be read; ``view`` then holds no valid bytes.
        """
        with ffi.from_buffer("char[]", view) as target:  # released also when a traceback refers to it
            self._fill(target, len(view), offset, sector_size)

    def _fill(self, target: CData, length: int, offset: int, sector_size: int) -> None:
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
            for slot, *_ in running:
                slot.drain()
                self._slots.append(slot)

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
        with ffi.from_buffer("char[]", data) as source:
            first, end = offset, offset + len(data)
            head = min(-first % sector_size, len(data))
            tail = end % sector_size if end - end % sector_size >= first + head else 0
            if head:
                self._write_part(source, head, first, sector_size)
            if len(data) - head - tail:
                self._put(source + head, len(data) - head - tail, first + head, sector_size)
            if tail:
                self._write_part(source + len(data) - tail, tail, end - tail, sector_size)

    def _write_part(self, source: CData, length: int, offset: int, sector_size: int) -> None:
        """Write a part of one sector."""
        skip = offset % sector_size
        slot = self._slot()
        try:
            with self._edges:
                room = slot.room()
                slot.read(room, sector_size, offset - skip)
                self._end_read(slot, room, sector_size, offset - skip)
                ffi.memmove(room + skip, source, length)
                slot.write(room, sector_size, offset - skip)
                _all_written(slot.end(), sector_size)
        finally:
            slot.drain()
            self._slots.append(slot)

    def _put(self, source: CData, length: int, offset: int, sector_size: int) -> None:
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
            for slot, _ in running:
                slot.drain()
                self._slots.append(slot)


def _is_aligned(memory: CData, length: int, offset: int, sector_size: int) -> bool:
    address = int(ffi.cast("uintptr_t", memory))
    return not (address % PAGE or offset % sector_size or length % sector_size)


def _whole(length: int, sector_size: int) -> int:
    return -(-length // sector_size) * sector_size


def _all_written(done: int, length: int) -> None:
    if done != length:
        raise WindowsCallError("WriteFile", Win32Error.ERROR_DISK_FULL)
