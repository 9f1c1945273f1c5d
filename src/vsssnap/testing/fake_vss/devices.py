"""Shadow copies, volumes and disks as devices, as strict as raw volumes are.

Rules: "File Buffering", CreateFileW ("Physical Disks and Volumes"), FSCTL_ALLOW_EXTENDED_DASD_IO,
FSCTL_GET_VOLUME_BITMAP; Windows SDK documentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import (
    FILE_FLAG_NO_BUFFERING,
    FILE_FLAG_OVERLAPPED,
    FILE_READ_ATTRIBUTES,
    FILE_SHARE_READ,
    FILE_SHARE_WRITE,
    GENERIC_READ,
    GENERIC_WRITE,
    Control,
    Win32Error,
)
from vsssnap._win32.handles import INVALID_HANDLE
from vsssnap.testing.fake_vss import layouts
from vsssnap.testing.fake_vss.files import OpenFile, find_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vsssnap.testing.fake_vss.machine import Machine
    from vsssnap.testing.fake_vss.parts import FakeDisk, FakeShadow, FakeVolume
    from vsssnap.testing.fake_vss.pending import Pending

CData = Any
PHYSICAL_SECTOR = 4096
"""Bytes that addresses for unbuffered reads must be aligned to."""
_CONTROLS = {int(member): member.name for member in Control}
_BITMAP_STEP = 8  # clusters that a starting cluster is rounded down to


class OpenDevice:
    """A handle of a shadow copy, a volume or a disk."""

    def __init__(
        self,
        shadow: FakeShadow | None = None,
        volume: FakeVolume | None = None,
        disk: FakeDisk | None = None,
        *,
        writable: bool = False,
    ) -> None:
        self.shadow = shadow
        self.volume = shadow.volume if shadow is not None else volume
        self.disk = disk
        self.writable = writable
        self.extended = self.holds = self.stale = False

    @property
    def lost(self) -> bool:
        """Whether the device is gone."""
        return self.stale or (self.shadow is not None and self.shadow.lost)

    @property
    def size(self) -> int:
        """Bytes of the device."""
        owner = self.disk or self.shadow or self.volume
        return len(owner.data) if owner is not None else 0

    @property
    def sector_size(self) -> int:
        """Bytes."""
        owner = self.disk or self.volume
        return owner.sector_size if owner is not None else 512

    @property
    def end(self) -> int:
        """Where reads end."""
        if self.volume is None or self.extended or self.holds:
            return self.size
        return self.volume.sectors * self.volume.sector_size

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the device."""
        if self.shadow is not None:
            return self.shadow.read(offset, length)
        owner = self.disk or self.volume
        return bytes(owner.data[offset : offset + length]) if owner is not None else b""


class Devices:
    """The part of kernel32 that opens, reads and writes devices."""

    def __init__(self, machine: Machine, pending: Pending) -> None:
        self._machine = machine
        self._pending = pending

    def CreateFileW(
        self, name: CData, access: int, share: int, security: CData, how: int, flags: int, template: CData
    ) -> CData:
        """A device by its name; with a backslash at its end it would be a folder."""
        del security, how, template
        machine, path = self._machine, str(ffi.string(name))
        writable = bool(access & GENERIC_WRITE)
        code = self._pending.refusal("CreateFileW")
        file = find_file(machine, path) if code is None else None
        if file is not None:
            if access != FILE_READ_ATTRIBUTES:
                machine.ledger.forbid(
                    f"{path} was opened for {access:#x}: a file of a shadow copy may be in use"
                )
            return machine.handle("file", file)
        found = self._find(path, writable=writable) if code is None else None
        if found is None:
            machine.set_error(Win32Error.ERROR_FILE_NOT_FOUND if code is None else code)
            return INVALID_HANDLE
        wanted = FILE_FLAG_NO_BUFFERING | FILE_FLAG_OVERLAPPED
        if flags & wanted != wanted or share != FILE_SHARE_READ | FILE_SHARE_WRITE:
            machine.ledger.forbid(f"{path} was opened with flags {flags:#x}, shared {share:#x}")
        locked = found.shadow is None and found.volume is not None and found.volume.locked
        if not access & GENERIC_READ or (writable and found.shadow is not None) or not machine.elevated:
            machine.set_error(Win32Error.ERROR_ACCESS_DENIED)
            return INVALID_HANDLE
        if locked:
            machine.set_error(Win32Error.ERROR_ACCESS_DENIED)
            return INVALID_HANDLE
        return machine.handle("device", found)

    def _find(self, path: str, *, writable: bool) -> OpenDevice | None:
        machine, lower = self._machine, path.lower()
        for shadow in machine.shadows.values():
            if shadow.device == path and not shadow.lost:
                return OpenDevice(shadow, writable=writable)
        for volume in machine.volumes:
            drives = [rf"\\.\{root[:2]}".lower() for root in volume.roots if len(root) == 3]
            if lower in (volume.guid_path.rstrip("\\").lower(), volume.device.lower(), *drives):
                return OpenDevice(volume=volume, writable=writable)
        for disk in machine.disks:
            if lower == rf"\\.\physicaldrive{disk.number}":
                return OpenDevice(disk=disk, writable=writable)
        return None

    def CloseHandle(self, handle: CData) -> int:
        """Any handle of the kernel."""
        if self._pending.has_event(handle):
            self._machine.ledger.forbid("an event was closed while its call was under way")
        found = self._machine.handle_of(handle)
        if isinstance(found, OpenDevice) and found.holds and found.volume is not None:
            found.volume.locked = False
        return self._machine.close_handle(handle, "token", "event", "device", "file", "thread")

    def CreateEventW(self, security: CData, manual: int, initial: int, name: CData) -> CData:
        """An event for overlapped calls."""
        del security, initial, name
        if not manual:
            self._machine.ledger.forbid("an event for overlapped calls should be reset by hand")
        return self._machine.handle("event")

    def ReadFile(self, handle: CData, buffer: CData, length: int, done: CData, over: CData) -> int:
        """Unbuffered: offset and length in sectors, the address in physical ones."""
        del done
        found = self._machine.opened(handle, "device")
        if not isinstance(found, OpenDevice):
            return self._machine.refuse(Win32Error.ERROR_INVALID_HANDLE)
        offset = over.Offset | over.OffsetHigh << 32
        aligned = int(ffi.cast("uintptr_t", buffer)) % PHYSICAL_SECTOR == 0
        if offset % found.sector_size or length % found.sector_size or not aligned or not length:
            self._machine.ledger.forbid(f"ReadFile of {length} bytes at {offset}: not aligned")
            return self._pending.complete(over, Win32Error.ERROR_INVALID_PARAMETER, 0)
        code = self._machine.read_error(found.shadow, offset, length)
        code = Win32Error.ERROR_DEV_NOT_EXIST if found.stale else code
        if code:
            return self._pending.complete(over, code, 0)
        if offset >= found.end:
            return self._pending.complete(over, Win32Error.ERROR_INVALID_PARAMETER, 0)
        data = found.read(offset, min(length, found.end - offset, self._machine.most_read))
        ffi.memmove(buffer, data, len(data))
        self._pending.count(over)
        self._pending.complete(over, 0, len(data))
        self._pending.delay(over, "ReadFile")
        return 0

    def WriteFile(self, handle: CData, buffer: CData, length: int, done: CData, over: CData) -> int:
        """Unbuffered, as reads; sectors of a mounted file system are refused."""
        del done
        found = self._machine.opened(handle, "device")
        if not isinstance(found, OpenDevice) or not found.writable:
            return self._machine.refuse(Win32Error.ERROR_ACCESS_DENIED)
        offset = over.Offset | over.OffsetHigh << 32
        aligned = int(ffi.cast("uintptr_t", buffer)) % PHYSICAL_SECTOR == 0
        if offset % found.sector_size or length % found.sector_size or not aligned or not length:
            self._machine.ledger.forbid(f"WriteFile of {length} bytes at {offset}: not aligned")
            return self._pending.complete(over, Win32Error.ERROR_INVALID_PARAMETER, 0)
        code = self._machine.faults.code("WriteFile", "call")
        if code is None and self._is_mounted(found, offset, length):
            code = Win32Error.ERROR_ACCESS_DENIED
        if code is None and offset + length > found.size:
            code = Win32Error.ERROR_INVALID_PARAMETER
        owner = found.disk or found.volume
        if code is not None or owner is None:
            return self._pending.complete(over, code or Win32Error.ERROR_INVALID_FUNCTION, 0)
        owner.data[offset : offset + length] = bytes(ffi.buffer(ffi.cast("char *", buffer), length))
        self._pending.complete(over, 0, length)
        self._pending.delay(over, "WriteFile")
        return 0

    def _is_mounted(self, found: OpenDevice, offset: int, length: int) -> bool:
        """Whether a write goes to a file system that is not held."""
        if found.volume is not None:
            return not found.holds
        return any(
            found.disk is not None
            and volume.disk[0] == found.disk.number
            and not volume.locked
            and offset < volume.disk[1] + len(volume.data)
            and volume.disk[1] < offset + length
            for volume in self._machine.volumes
        )

    def _is_open_elsewhere(self, found: OpenDevice) -> bool:
        """Whether somebody else has the volume open, who may be the caller himself."""
        return any(
            isinstance(other, OpenDevice)
            and other is not found
            and other.shadow is None
            and other.volume is found.volume
            for other in self._machine.all_opened("device")
        )

    def FlushFileBuffers(self, handle: CData) -> int:
        """What was written is kept."""
        code = self._pending.refusal("FlushFileBuffers")
        if not isinstance(self._machine.opened(handle, "device"), OpenDevice):
            return self._machine.refuse(Win32Error.ERROR_INVALID_HANDLE)
        return 1 if code is None else self._machine.refuse(code)

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
        begun = self._control(handle, code, source, source_size, out, out_size, over)
        if code in _CONTROLS:
            self._pending.delay(over, _CONTROLS[code])
        return begun

    def _control(
        self,
        handle: CData,
        code: int,
        source: CData,
        source_size: int,
        out: CData,
        out_size: int,
        over: CData,
    ) -> int:
        file = self._machine.handle_of(handle)
        if isinstance(file, OpenFile):
            return self._pending.complete(over, *file.pointers(code, source, out, out_size))
        found = self._machine.opened(handle, "device")
        if not isinstance(found, OpenDevice):
            return self._machine.refuse(Win32Error.ERROR_INVALID_HANDLE)
        if code not in _CONTROLS:
            return self._pending.complete(over, Win32Error.ERROR_INVALID_FUNCTION, 0)
        failure = self._machine.faults.code(_CONTROLS[code], "call")
        if failure is not None:
            return self._pending.complete(over, failure, 0)
        if found.lost:
            return self._pending.complete(over, Win32Error.ERROR_DEV_NOT_EXIST, 0)
        if code == Control.FSCTL_GET_VOLUME_BITMAP:
            return self._bitmap(found, source, source_size, out, out_size, over)
        if code == Control.IOCTL_DISK_GET_DRIVE_LAYOUT_EX and found.disk is not None:
            return self._pending.complete(
                over, *layouts.layout(self._machine.volumes, found.disk, out, out_size)
            )
        if code == Control.IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS and found.volume is not None:
            return self._pending.complete(over, *layouts.extents(found.volume, out, out_size))
        return self._fact(found, code, out, out_size, over)

    def _fact(self, found: OpenDevice, code: int, out: CData, out_size: int, over: CData) -> int:
        volume, disk = found.volume, found.disk
        if code == Control.IOCTL_DISK_UPDATE_PROPERTIES and disk is not None:
            disk.updated += 1
            return self._pending.complete(over, 0, 0)
        if code == Control.IOCTL_DISK_IS_WRITABLE:
            readonly = volume is not None and volume.readonly
            return self._pending.complete(over, Win32Error.ERROR_WRITE_PROTECT if readonly else 0, 0)
        if volume is None and Control(code).name.startswith("FSCTL"):
            return self._pending.complete(over, Win32Error.ERROR_INVALID_FUNCTION, 0)
        if code == Control.FSCTL_ALLOW_EXTENDED_DASD_IO:
            found.extended = True
            return self._pending.complete(over, 0, 0)
        if volume is not None and code in (Control.FSCTL_LOCK_VOLUME, Control.FSCTL_DISMOUNT_VOLUME):
            if volume.in_use or volume.locked != found.holds or self._is_open_elsewhere(found):
                return self._pending.complete(over, Win32Error.ERROR_ACCESS_DENIED, 0)
            volume.locked = found.holds = True
            return self._pending.complete(over, 0, 0)
        if code == Control.FSCTL_GET_NTFS_VOLUME_DATA and (volume is None or volume.filesystem != "NTFS"):
            return self._pending.complete(over, Win32Error.ERROR_INVALID_PARAMETER, 0)
        if code == Control.FSCTL_GET_RETRIEVAL_POINTER_BASE and (volume is None or not volume.has_bitmap):
            return self._pending.complete(over, Win32Error.ERROR_INVALID_FUNCTION, 0)
        table = self._values(found)
        if code not in table:
            return self._pending.complete(over, Win32Error.ERROR_INVALID_FUNCTION, 0)
        kind, values = table[Control(code)]
        if out_size < ffi.sizeof(kind):
            return self._pending.complete(over, Win32Error.ERROR_INSUFFICIENT_BUFFER, 0)
        made = ffi.cast(f"{kind} *", out)
        for field, value in values.items():
            setattr(made, field, value)
        return self._pending.complete(over, 0, ffi.sizeof(kind))

    def _values(self, found: OpenDevice) -> dict[Control, tuple[str, dict[str, Any]]]:
        """What may be asked of a device, as structures."""
        table: dict[Control, tuple[str, dict[str, Any]]] = {
            Control.IOCTL_DISK_GET_LENGTH_INFO: ("GET_LENGTH_INFORMATION", {"Length": found.size}),
            Control.IOCTL_DISK_GET_DRIVE_GEOMETRY: ("DISK_GEOMETRY", {"BytesPerSector": found.sector_size}),
        }
        volume = found.volume
        if found.shadow is None:
            number, partition = (
                (volume.disk[0], 1 + self._machine.volumes.index(volume))
                if volume is not None
                else (found.disk.number if found.disk is not None else 0, 0)
            )
            facts = {"DeviceType": 7, "DeviceNumber": number, "PartitionNumber": partition}
            table[Control.IOCTL_STORAGE_GET_DEVICE_NUMBER] = ("STORAGE_DEVICE_NUMBER", facts)
        if volume is not None:
            table |= {
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
            }
        return table

    def _bitmap(
        self, found: OpenDevice, source: CData, source_size: int, out: CData, out_size: int, over: CData
    ) -> int:
        """Bits from a cluster on; what does not fit is ERROR_MORE_DATA."""
        volume, free = found.volume, found.shadow.free if found.shadow is not None else ()
        if volume is None:
            return self._pending.complete(over, Win32Error.ERROR_INVALID_FUNCTION, 0)
        first = ffi.cast("STARTING_LCN_INPUT_BUFFER *", source).StartingLcn if source_size >= 8 else -1
        head = ffi.offsetof("VOLUME_BITMAP_BUFFER", "Buffer")
        if not volume.has_bitmap or not 0 <= first < volume.clusters or out_size <= head:
            return self._pending.complete(over, Win32Error.ERROR_INVALID_PARAMETER, 0)
        first -= first % _BITMAP_STEP
        rest = volume.clusters - first
        room = 8 * min(out_size - head, self._machine.most_bitmap)
        given = _used(first, min(rest, room), free)
        made = ffi.cast("VOLUME_BITMAP_BUFFER *", out)
        made.StartingLcn, made.BitmapSize = first, rest
        ffi.memmove(ffi.cast("char *", out) + head, given, len(given))
        code = Win32Error.ERROR_MORE_DATA if rest > room else 0
        return self._pending.complete(over, code, head + len(given))


def _used(first: int, count: int, free: Iterable[tuple[int, int]]) -> bytes:
    """A bit for each cluster from ``first`` on, the lowest of each byte first; 1 is in use."""
    bits = (1 << count) - 1
    for start, length in free:
        begin, end = max(start, first) - first, min(start + length, first + count) - first
        if begin < end:
            bits &= ~(((1 << end - begin) - 1) << begin)
    return bits.to_bytes(-(-count // 8), "little")
