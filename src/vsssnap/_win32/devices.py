"""Volumes and shadow copies as devices: size, sectors, used clusters, unbuffered reads.

Sources: "File Buffering" (FILE_FLAG_NO_BUFFERING: offset and length are multiples of the sector
size, the address of its physical one), FSCTL_ALLOW_EXTENDED_DASD_IO (reads may go up to the end of
the partition, behind the file system), FSCTL_GET_VOLUME_BITMAP (LCN 0 of NTFS is the first byte of
the volume; a full buffer is ERROR_MORE_DATA); Windows SDK documentation.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap._win32._ffi import ffi
from vsssnap._win32.com import wide
from vsssnap._win32.constants import (
    FILE_FLAG_NO_BUFFERING,
    FILE_FLAG_OVERLAPPED,
    FILE_SHARE_READ,
    FILE_SHARE_WRITE,
    GENERIC_READ,
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

ROOM = 1 << 20
"""Bytes of a buffer of our own, and of the longest read into it."""
PAGE = 4096
"""Bytes: what addresses are aligned to; no physical sector is larger."""
_LONGEST = 16 << 20  # bytes a ReadFile straight into the caller's memory
BITMAP_PAGE = 64 << 10
"""Bytes of a volume bitmap that are asked for at once."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """How NTFS divides a volume.

    Attributes:
        size: Bytes of a cluster.
        count: Clusters from the first byte of the volume.
        sectors: Sectors of the file system; the backup boot sector lies behind them.
        sector_size: Bytes.
    """

    size: int
    count: int
    sectors: int
    sector_size: int


class _Slot:
    """What one call at a time needs: an event, and memory that is aligned."""

    def __init__(self, system: System) -> None:
        self._system = system
        event = system.kernel32.CreateEventW(ffi.NULL, 1, 0, ffi.NULL)
        if not event:
            raise last(system, "CreateEventW")
        self._event = Handle(system, event)
        self.overlapped = ffi.new("OVERLAPPED *")
        self.done = ffi.new("DWORD *")
        self._room: CData = ffi.NULL

    def at(self, offset: int) -> CData:
        """The OVERLAPPED for a call at an offset."""
        ffi.memmove(self.overlapped, bytes(ffi.sizeof("OVERLAPPED")), ffi.sizeof("OVERLAPPED"))
        self.overlapped.Offset = offset & 0xFFFFFFFF
        self.overlapped.OffsetHigh = offset >> 32
        self.overlapped.hEvent = self._event.value
        self.done[0] = 0
        return self.overlapped

    def room(self) -> CData:
        """``ROOM`` bytes of page-aligned memory, zeroed when they are new."""
        if not self._room:
            kernel32 = self._system.kernel32
            self._room = kernel32.VirtualAlloc(ffi.NULL, ROOM, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE)
            if not self._room:
                raise MemoryError(f"VirtualAlloc: no {ROOM} bytes")
        return self._room

    def close(self) -> None:
        self._event.close()
        room, self._room = self._room, ffi.NULL
        if room:
            self._system.kernel32.VirtualFree(room, 0, MEM_RELEASE)


class RawDevice:
    """An open volume or shadow copy.  Any thread may call, several at once, until `close`."""

    def __init__(self, system: System, path: str) -> None:
        """Open it for reading.

        Args:
            system: The libraries.
            path: Without a backslash at its end, which would mean its root folder.

        Raises:
            WindowsCallError: it cannot be opened.
        """
        self._system = system
        self.path = path
        value = system.kernel32.CreateFileW(
            wide(path),
            GENERIC_READ,
            FILE_SHARE_READ | FILE_SHARE_WRITE,
            ffi.NULL,
            OPEN_EXISTING,
            FILE_FLAG_NO_BUFFERING | FILE_FLAG_OVERLAPPED,
            ffi.NULL,
        )
        if value == INVALID_HANDLE:
            raise last(system, f"CreateFileW({path})")
        self._handle = Handle(system, value)
        self._slots: deque[_Slot] = deque()

    def close(self) -> None:
        """Let the device go; no call is running by then.  Idempotent."""
        self._handle.close()
        while self._slots:
            self._slots.pop().close()

    def _slot(self) -> _Slot:
        try:
            return self._slots.pop()
        except IndexError:
            return _Slot(self._system)

    # Facts.

    def extend(self) -> bool:
        """Allow reads behind the file system, to the end of the partition; before the first read.

        Returns:
            Whether the device does so.
        """
        try:
            self._control(Control.FSCTL_ALLOW_EXTENDED_DASD_IO)
        except WindowsCallError:
            return False
        return True

    def length(self) -> int:
        """Bytes.

        Raises:
            WindowsCallError: the device does not say.
        """
        out = ffi.new("GET_LENGTH_INFORMATION *")
        self._control(Control.IOCTL_DISK_GET_LENGTH_INFO, out=out)
        return int(out.Length)

    def sector_size(self) -> int:
        """Bytes of a logical sector.

        Raises:
            WindowsCallError: the device does not say.
        """
        out = ffi.new("DISK_GEOMETRY *")
        self._control(Control.IOCTL_DISK_GET_DRIVE_GEOMETRY, out=out)
        return int(out.BytesPerSector)

    def clusters(self) -> Clusters | None:
        """How NTFS divides it, or None if it holds another file system."""
        out = ffi.new("NTFS_VOLUME_DATA_BUFFER *")
        try:
            self._control(Control.FSCTL_GET_NTFS_VOLUME_DATA, out=out)
        except WindowsCallError:
            return None
        return Clusters(
            size=out.BytesPerCluster,
            count=out.TotalClusters,
            sectors=out.NumberSectors,
            sector_size=out.BytesPerSector,
        )

    def bitmap(self, first: int) -> tuple[int, int, bytes]:
        """A part of the volume bitmap, `BITMAP_PAGE` bytes at most.

        Args:
            first: The first cluster wanted.

        Returns:
            The cluster of the first bit (at or before ``first``), how many bits follow, and the bits,
            the lowest of each byte first; 1 is a cluster in use.

        Raises:
            WindowsCallError: the volume has none.
        """
        start = ffi.new("STARTING_LCN_INPUT_BUFFER *")
        start.StartingLcn = first
        head = ffi.offsetof("VOLUME_BITMAP_BUFFER", "Buffer")
        room = ffi.new("char[]", head + BITMAP_PAGE)
        done = self._control(
            Control.FSCTL_GET_VOLUME_BITMAP, source=start, out=room, partial=True, out_size=len(room)
        )
        found = ffi.cast("VOLUME_BITMAP_BUFFER *", room)
        given = max(0, min(done - head, BITMAP_PAGE))
        count = max(0, min(int(found.BitmapSize), given * 8))
        return int(found.StartingLcn), count, bytes(ffi.buffer(room, head + given)[head:])

    def _control(
        self,
        code: Control,
        *,
        source: CData = ffi.NULL,
        out: CData = ffi.NULL,
        out_size: int = 0,
        partial: bool = False,
    ) -> int:
        """DeviceIoControl; bytes that it gave.  ``partial`` takes ERROR_MORE_DATA for success."""
        slot = self._slot()
        kernel32 = self._system.kernel32
        try:
            over = slot.at(0)
            source_size = ffi.sizeof(ffi.typeof(source).item) if source else 0
            if out and not out_size:
                out_size = ffi.sizeof(ffi.typeof(out).item)
            ok = kernel32.DeviceIoControl(
                self._handle.value, code, source, source_size, out, out_size, slot.done, over
            )
            self._finish(slot, bool(ok), f"DeviceIoControl({code.name})", partial=partial)
            return int(slot.done[0] or over.InternalHigh)  # the latter where it ended at once
        finally:
            self._slots.append(slot)

    def _finish(self, slot: _Slot, ok: bool, call: str, *, partial: bool = False) -> None:
        """Wait for a call that is under way; raise if it failed."""
        code = 0 if ok else self._system.last_error()
        if code == Win32Error.ERROR_IO_PENDING:
            ok = bool(
                self._system.kernel32.GetOverlappedResult(self._handle.value, slot.overlapped, slot.done, 1)
            )
            code = 0 if ok else self._system.last_error()
        if code and not (partial and code == Win32Error.ERROR_MORE_DATA):
            raise WindowsCallError(call, code)

    # Reading.

    def read_into(self, view: memoryview, offset: int, sector_size: int) -> None:
        """Fill ``view`` (writable bytes) from any offset; all of it lies on the device.

        Raises:
            WindowsCallError: a part of it cannot be read; ``view`` then holds no valid bytes.
        """
        slot = self._slot()
        try:
            with ffi.from_buffer("char[]", view) as target:  # released also when a traceback refers to it
                self._fill(slot, target, len(view), offset, sector_size)
        finally:
            self._slots.append(slot)

    def _fill(self, slot: _Slot, target: CData, length: int, offset: int, sector_size: int) -> None:
        address = int(ffi.cast("uintptr_t", target))
        if not (address % PAGE or offset % sector_size or length % sector_size):
            for at in range(0, length, _LONGEST):
                self._read(slot, target + at, min(_LONGEST, length - at), offset + at)
            return
        room = slot.room()
        at = 0
        while at < length:
            skip = (offset + at) % sector_size
            count = min(ROOM - skip, length - at)
            whole = -(-(skip + count) // sector_size) * sector_size
            self._read(slot, room, whole, offset + at - skip)
            ffi.memmove(target + at, room + skip, count)
            at += count

    def _read(self, slot: _Slot, target: CData, length: int, offset: int) -> None:
        at = 0
        while at < length:
            over = slot.at(offset + at)
            ok = self._system.kernel32.ReadFile(self._handle.value, target + at, length - at, slot.done, over)
            self._finish(slot, bool(ok), "ReadFile")
            if not slot.done[0]:
                raise WindowsCallError("ReadFile", Win32Error.ERROR_HANDLE_EOF)
            at += slot.done[0]
