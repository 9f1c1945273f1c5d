"""Shadow copies as devices, as strict as raw volumes are.

Rules: "File Buffering", CreateFileW ("Physical Disks and Volumes"), FSCTL_ALLOW_EXTENDED_DASD_IO,
FSCTL_GET_VOLUME_BITMAP; Windows SDK documentation.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import (
    FILE_FLAG_NO_BUFFERING,
    FILE_FLAG_OVERLAPPED,
    GENERIC_READ,
    Control,
    Win32Error,
)
from vsssnap._win32.handles import INVALID_HANDLE

if TYPE_CHECKING:
    from vsssnap.testing.fake_vss.machine import Machine
    from vsssnap.testing.fake_vss.parts import FakeShadow

CData = Any
PHYSICAL_SECTOR = 4096
"""Bytes that addresses for unbuffered reads must be aligned to."""
_PATIENCE = 10.0  # seconds that a read waits for others to gather
_BITMAP_STEP = 8  # clusters that a starting cluster is rounded down to


class OpenDevice:
    """A handle of a shadow copy."""

    def __init__(self, shadow: FakeShadow) -> None:
        self.shadow = shadow
        self.extended = False


class Devices:
    """The part of kernel32 that opens and reads devices."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._results: dict[int, tuple[int, int]] = {}  # address of the OVERLAPPED: error, bytes
        self._events: dict[int, int] = {}  # event of a call that is under way: address of its OVERLAPPED
        self._reading: set[int] = set()  # addresses of the OVERLAPPEDs of reads that are under way
        self._changed = threading.Condition()

    def CreateFileW(
        self, name: CData, access: int, share: int, security: CData, how: int, flags: int, template: CData
    ) -> CData:
        """A shadow copy by its device name; with a backslash at its end it would be a folder."""
        del share, security, how, template
        path = str(ffi.string(name))
        code = self._machine.faults.code("CreateFileW", "call")
        for shadow in self._machine.shadows.values():
            if shadow.device == path and not shadow.lost and code is None:
                if access != GENERIC_READ:
                    self._machine.set_error(Win32Error.ERROR_ACCESS_DENIED)
                    return INVALID_HANDLE
                wanted = FILE_FLAG_NO_BUFFERING | FILE_FLAG_OVERLAPPED
                if flags & wanted != wanted:
                    self._machine.ledger.forbid(f"{path} was opened with flags {flags:#x}")
                return self._machine.handle("device", OpenDevice(shadow))
        self._machine.set_error(Win32Error.ERROR_FILE_NOT_FOUND if code is None else code)
        return INVALID_HANDLE

    def CloseHandle(self, handle: CData) -> int:
        """Any handle of the kernel."""
        if int(ffi.cast("uintptr_t", handle)) in self._events:
            self._machine.ledger.forbid("an event was closed while its call was under way")
        return self._machine.close_handle(handle, "token", "event", "device")

    def CreateEventW(self, security: CData, manual: int, initial: int, name: CData) -> CData:
        """An event for overlapped calls."""
        del security, initial, name
        if not manual:
            self._machine.ledger.forbid("an event for overlapped calls should be reset by hand")
        return self._machine.handle("event")

    def _complete(self, over: CData, code: int, count: int) -> int:
        """End an overlapped call as Windows does: later, by GetOverlappedResult."""
        if not over or not over.hEvent:
            self._machine.ledger.forbid("an overlapped call needs an OVERLAPPED with an event")
            return self._machine.refuse(Win32Error.ERROR_INVALID_PARAMETER)
        place = int(ffi.cast("uintptr_t", over))
        self._results[place] = (code, count)
        self._events[int(ffi.cast("uintptr_t", over.hEvent))] = place
        self._machine.set_error(Win32Error.ERROR_IO_PENDING)
        return 0

    def GetOverlappedResult(self, handle: CData, over: CData, done: CData, wait: int) -> int:
        """How an overlapped call ended."""
        del handle, wait
        place, machine = int(ffi.cast("uintptr_t", over)), self._machine
        if place in self._reading:
            with self._changed:
                self._changed.wait_for(lambda: machine.most_reads >= machine.gathered_reads, _PATIENCE)
                self._reading.discard(place)
        self._events.pop(int(ffi.cast("uintptr_t", over.hEvent)), None)
        code, done[0] = self._results.pop(place, (Win32Error.ERROR_INVALID_PARAMETER, 0))
        return machine.refuse(code) if code else 1

    def _count(self, over: CData) -> None:
        """A read is under way."""
        with self._changed:
            self._reading.add(int(ffi.cast("uintptr_t", over)))
            self._machine.most_reads = max(self._machine.most_reads, len(self._reading))
            self._changed.notify_all()

    def ReadFile(self, handle: CData, buffer: CData, length: int, done: CData, over: CData) -> int:
        """Unbuffered: offset and length in sectors, the address in physical ones."""
        del done
        found = self._machine.opened(handle, "device")
        if not isinstance(found, OpenDevice):
            return self._machine.refuse(Win32Error.ERROR_INVALID_HANDLE)
        offset = over.Offset | over.OffsetHigh << 32
        shadow, volume = found.shadow, found.shadow.volume
        aligned = int(ffi.cast("uintptr_t", buffer)) % PHYSICAL_SECTOR == 0
        if offset % volume.sector_size or length % volume.sector_size or not aligned or not length:
            self._machine.ledger.forbid(f"ReadFile of {length} bytes at {offset}: not aligned")
            return self._complete(over, Win32Error.ERROR_INVALID_PARAMETER, 0)
        code = self._machine.read_error(shadow, offset, length)
        if code:
            return self._complete(over, code, 0)
        end = len(shadow.data) if found.extended else volume.sectors * volume.sector_size
        if offset >= end:
            return self._complete(over, Win32Error.ERROR_INVALID_PARAMETER, 0)
        data = shadow.read(offset, min(length, end - offset, self._machine.most_read))
        ffi.memmove(buffer, data, len(data))
        self._count(over)
        return self._complete(over, 0, len(data))

    def DeviceIoControl(
        self,
        handle: CData,
        code: int,
        source: CData,
        source_size: int,
        out: CData,
        out_size: int,
        done: CData,
        over: CData,
    ) -> int:
        """What may be asked of a volume."""
        del done
        found = self._machine.opened(handle, "device")
        if not isinstance(found, OpenDevice):
            return self._machine.refuse(Win32Error.ERROR_INVALID_HANDLE)
        try:
            name = Control(code).name
        except ValueError:
            return self._complete(over, Win32Error.ERROR_INVALID_FUNCTION, 0)
        failure = self._machine.faults.code(name, "call")
        if failure is not None:
            return self._complete(over, failure, 0)
        if found.shadow.lost:
            return self._complete(over, Win32Error.ERROR_DEV_NOT_EXIST, 0)
        if code == Control.FSCTL_GET_VOLUME_BITMAP:
            return self._bitmap(found, source, source_size, out, out_size, over)
        return self._fact(found, code, out, out_size, over)

    def _fact(self, found: OpenDevice, code: int, out: CData, out_size: int, over: CData) -> int:
        volume = found.shadow.volume
        if code == Control.FSCTL_ALLOW_EXTENDED_DASD_IO:
            found.extended = True
            return self._complete(over, 0, 0)
        if code == Control.FSCTL_GET_NTFS_VOLUME_DATA and volume.filesystem != "NTFS":
            return self._complete(over, Win32Error.ERROR_INVALID_PARAMETER, 0)
        if code == Control.FSCTL_GET_RETRIEVAL_POINTER_BASE and not volume.has_bitmap:
            return self._complete(over, Win32Error.ERROR_INVALID_FUNCTION, 0)
        kind, values = {
            Control.IOCTL_DISK_GET_LENGTH_INFO: (
                "GET_LENGTH_INFORMATION",
                {"Length": len(found.shadow.data)},
            ),
            Control.IOCTL_DISK_GET_DRIVE_GEOMETRY: ("DISK_GEOMETRY", {"BytesPerSector": volume.sector_size}),
            Control.FSCTL_GET_RETRIEVAL_POINTER_BASE: (
                "RETRIEVAL_POINTER_BASE",
                {"FileAreaOffset": volume.base // volume.sector_size},
            ),
            Control.FSCTL_GET_NTFS_VOLUME_DATA: (
                "NTFS_VOLUME_DATA_BUFFER",
                {
                    "NumberSectors": volume.sectors,
                    "TotalClusters": volume.clusters,
                    "BytesPerSector": volume.sector_size,
                    "BytesPerCluster": volume.cluster_size,
                },
            ),
        }[Control(code)]
        if out_size < ffi.sizeof(kind):
            return self._complete(over, Win32Error.ERROR_INSUFFICIENT_BUFFER, 0)
        made = ffi.cast(f"{kind} *", out)
        for field, value in values.items():
            setattr(made, field, value)
        return self._complete(over, 0, ffi.sizeof(kind))

    def _bitmap(
        self, found: OpenDevice, source: CData, source_size: int, out: CData, out_size: int, over: CData
    ) -> int:
        """Bits from a cluster on; what does not fit is ERROR_MORE_DATA."""
        volume = found.shadow.volume
        first = ffi.cast("STARTING_LCN_INPUT_BUFFER *", source).StartingLcn if source_size >= 8 else -1
        head = ffi.offsetof("VOLUME_BITMAP_BUFFER", "Buffer")
        if not volume.has_bitmap or not 0 <= first < volume.clusters or out_size <= head:
            return self._complete(over, Win32Error.ERROR_INVALID_PARAMETER, 0)
        first -= first % _BITMAP_STEP
        rest = volume.clusters - first
        bits = bytearray(-(-rest // 8))
        for index in range(rest):
            if not any(start <= first + index < start + count for start, count in found.shadow.free):
                bits[index // 8] |= 1 << index % 8
        given = bits[: min(len(bits), out_size - head, self._machine.most_bitmap)]
        made = ffi.cast("VOLUME_BITMAP_BUFFER *", out)
        made.StartingLcn, made.BitmapSize = first, rest
        ffi.memmove(ffi.cast("char *", out) + head, bytes(given), len(given))
        code = Win32Error.ERROR_MORE_DATA if len(given) < len(bits) else 0
        return self._complete(over, code, head + len(given))


class Memory:
    """The part of kernel32 that gives pages."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def VirtualAlloc(self, address: CData, size: int, kind: int, protect: int) -> CData:
        """Zeroed pages."""
        del address, kind, protect
        memory = ffi.new("char[]", size + 65536)
        start = -(-int(ffi.cast("uintptr_t", memory)) // 65536) * 65536
        self._machine.ledger.lend("pages", start, memory)
        return ffi.cast("void *", start)

    def VirtualFree(self, address: CData, size: int, kind: int) -> int:
        """All pages of one VirtualAlloc."""
        if size or kind != 0x8000:
            self._machine.ledger.forbid("VirtualFree: MEM_RELEASE takes size 0")
        self._machine.ledger.take_back("pages", int(ffi.cast("uintptr_t", address)))
        return 1
