"""Volumes and disks that are written below their file systems.

Since Windows Vista the system refuses writes to sectors that a mounted file system has
("Changes to the file system and to the storage stack to restrict direct disk access and direct volume
access").  So a volume is locked, which only works while nobody has a file of it open, and dismounted;
of a disk, every volume on it.  The lock ends with the handle.

Sources: FSCTL_LOCK_VOLUME, FSCTL_DISMOUNT_VOLUME, IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS,
IOCTL_STORAGE_GET_DEVICE_NUMBER, FindFirstVolumeW; Windows SDK documentation.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from vsssnap._win32._ffi import ffi
from vsssnap._win32.blocking import answered
from vsssnap._win32.constants import Control, Win32Error
from vsssnap._win32.devices import RawDevice
from vsssnap._win32.handles import INVALID_HANDLE, WindowsCallError, last

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap._win32.dll import System

_TRIES = 10
_PAUSE = 0.2  # seconds: programs that only look at a new volume are gone by then
_NAME = 64  # UTF-16 units of a volume GUID path, and more
_SIGNATURE = slice(3, 11)  # bytes of a volume that BitLocker has
_EXTENTS = 256  # pieces of disks in one volume


def lock(device: RawDevice) -> None:
    """Lock a volume and dismount its file system, until the device is closed.

    Raises:
        WindowsCallError: it is in use.
    """
    for left in reversed(range(_TRIES)):
        try:
            device.control(Control.FSCTL_LOCK_VOLUME)
            break
        except WindowsCallError as exc:
            if not left or exc.code != Win32Error.ERROR_ACCESS_DENIED:
                raise
            time.sleep(_PAUSE)
    device.control(Control.FSCTL_DISMOUNT_VOLUME)


def check_writable(device: RawDevice) -> None:
    """Raise WindowsCallError if a device is read-only; some do not say."""
    try:
        device.control(Control.IOCTL_DISK_IS_WRITABLE)
    except WindowsCallError as exc:
        if exc.code == Win32Error.ERROR_WRITE_PROTECT:
            raise


def update_partitions(device: RawDevice) -> None:
    """Have Windows read a disk's partition table again.

    Raises:
        WindowsCallError: it does not.
    """
    device.control(Control.IOCTL_DISK_UPDATE_PROPERTIES)


def number(device: RawDevice) -> tuple[int, int, int]:
    """What a device is on this machine: its type, number and partition, which is 0 for a whole disk.

    Raises:
        WindowsCallError: it has no number, as a volume on several disks.
    """
    out = ffi.new("STORAGE_DEVICE_NUMBER *")
    device.control(Control.IOCTL_STORAGE_GET_DEVICE_NUMBER, out=out)
    return int(out.DeviceType), int(out.DeviceNumber), int(out.PartitionNumber)


def volumes_on(system: System, disk: int) -> Iterator[str]:
    """The volumes that lie on a disk, wholly or in part, each as the path of its device.

    Raises:
        WindowsCallError: Windows does not list its volumes.
    """
    for name in volumes(system):
        path = name.rstrip("\\")
        try:
            device = RawDevice(system, path)
        except WindowsCallError:
            continue  # no medium
        try:
            pieces = extents(device)
        except WindowsCallError:
            continue  # an optical drive has no extents
        finally:
            device.close()  # before anybody hears of it: what is open twice cannot be locked
        if any(disk == found for found, _, _ in pieces):
            yield path


def volumes(system: System) -> list[str]:
    """All volumes by their GUID paths, each with a backslash at its end.

    Raises:
        WindowsCallError: Windows does not list them.
    """
    found, _ = answered(system, "FindFirstVolumeW", lambda: _listed(system))
    if isinstance(found, WindowsCallError):
        raise found
    return found


def _listed(system: System) -> list[str] | WindowsCallError:
    """In a thread of its own, which may not raise."""
    out = ffi.new("WCHAR[]", _NAME)
    search = system.kernel32.FindFirstVolumeW(out, _NAME)
    if search == INVALID_HANDLE:
        failure = last(system, "FindFirstVolumeW")
        return [] if failure.code == Win32Error.ERROR_NO_MORE_FILES else failure
    found = [str(ffi.string(out))]
    while system.kernel32.FindNextVolumeW(search, out, _NAME):
        found.append(str(ffi.string(out)))
    failure = last(system, "FindNextVolumeW")
    system.kernel32.FindVolumeClose(search)
    return found if failure.code == Win32Error.ERROR_NO_MORE_FILES else failure


def is_encrypted(system: System, volume: str) -> bool | None:
    """Whether BitLocker encrypts a volume: what the disk has where the volume begins says so.

    Windows gives the volume decrypted; a volume of BitLocker To Go (FAT) is not told.

    Source: libbde, "BitLocker Drive Encryption (BDE) format", volume header: the signature at byte 3.

    Args:
        system: The libraries.
        volume: A GUID path with a backslash at its end.

    Returns:
        None if it lies on no disk that can be read.
    """
    try:
        with contextlib.closing(RawDevice(system, volume.rstrip("\\"))) as device:
            number, offset, _ = extents(device)[0]
        with contextlib.closing(RawDevice(system, rf"\\.\PhysicalDrive{number}")) as disk:
            first = bytearray(_SIGNATURE.stop)
            disk.read_into(memoryview(first), offset, disk.sector_size())
    except (WindowsCallError, IndexError):
        return None
    return first[_SIGNATURE] == b"-FVE-FS-"


def extents(device: RawDevice) -> list[tuple[int, int, int]]:
    """Where a volume lies: number of the disk, first byte and length of each piece.

    Raises:
        WindowsCallError: it lies on no disk.
    """
    size = ffi.sizeof("VOLUME_DISK_EXTENTS") + (_EXTENTS - 1) * ffi.sizeof("DISK_EXTENT")
    room = ffi.new("char[]", size)
    device.control(Control.IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS, out=room, out_size=size, partial=True)
    found = ffi.cast("VOLUME_DISK_EXTENTS *", room)
    count = min(int(found.NumberOfDiskExtents), _EXTENTS)
    first = ffi.cast("DISK_EXTENT *", ffi.addressof(found, "Extents"))
    pieces = (first[index] for index in range(count))
    return [(int(each.DiskNumber), int(each.StartingOffset), int(each.ExtentLength)) for each in pieces]
