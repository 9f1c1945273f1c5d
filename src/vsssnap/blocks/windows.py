"""Opening what a name stands for on Windows: volumes, disks, shadow copies, and files.

To be written, a volume is locked and dismounted first, and a disk with every volume on it.  That
fails while a file of them is open: what is in use is refused, and nothing was touched.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from typing import TYPE_CHECKING

from vsssnap._files import Opened
from vsssnap._win32 import targets, volumes
from vsssnap._win32.constants import Win32Error
from vsssnap._win32.device_names import device_path, is_disk
from vsssnap._win32.devices import RawDevice
from vsssnap._win32.handles import WindowsCallError
from vsssnap._win32.privileges import is_elevated
from vsssnap.blocks.windows_device import HeldDevice, WindowsReader, WindowsWriter, WritableWindows
from vsssnap.errors import (
    DeviceReadError,
    SnapshotBusyError,
    SnapshotPermissionError,
    TargetError,
    TargetRefusedError,
    UsageError,
)
from vsssnap.metadata import ImageMetadata

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vsssnap._win32.dll import System

__all__ = ["measure", "open_file", "open_path", "open_target", "open_writable", "refuse_origin"]

_log = logging.getLogger("vsssnap.device")

_MOST_SECTOR = 4096  # bytes; memory is aligned to no more
_FILE_SECTOR = 512
_ELEVATE = "run elevated (Run as administrator)"
_NAME_ONE = r"name a volume (\\.\E:) or a disk (\\.\PhysicalDrive1)"
_SILENT = "look at the System event log; the disk, its cable or its driver hangs"
_MISSING = (Win32Error.ERROR_FILE_NOT_FOUND, Win32Error.ERROR_PATH_NOT_FOUND)
_NOT_DONE = (Win32Error.ERROR_INVALID_FUNCTION, Win32Error.ERROR_NOT_SUPPORTED)


def measure(device: RawDevice) -> tuple[int, int, bool]:
    """How large a device is.

    Reads behind the file system, to the end of the partition, are allowed first.

    Returns:
        Bytes, bytes of a sector, and whether the copy of the boot sector is among them that NTFS keeps
        behind its last cluster; of no NTFS always true.

    Raises:
        WindowsCallError: it does not say.
    """
    extended = device.extend()
    ntfs = device.ntfs()
    size = device.length()
    if ntfs is None:
        return size, device.sector_size(), True
    sector_size = ntfs.sector_size
    end = ntfs.sectors * sector_size
    if end < size and not (extended and _is_readable(device, size - sector_size, sector_size)):
        size = end
    return size, sector_size, _has_boot_sector(device, end, size, sector_size)


def _sector(device: RawDevice, offset: int, sector_size: int) -> bytes:
    found = bytearray(sector_size)
    with memoryview(found) as view:
        device.read_into(view, offset, sector_size)
    return bytes(found)


def _is_readable(device: RawDevice, offset: int, sector_size: int) -> bool:
    """Whether a sector can be read; a device may allow it and not do it."""
    try:
        _sector(device, offset, sector_size)
    except WindowsCallError as exc:
        _log.info("%s: its last sector cannot be read: %s", device.path, exc)
        return False
    return True


def _has_boot_sector(device: RawDevice, end: int, size: int, sector_size: int) -> bool:
    """Whether a boot sector of NTFS lies behind the file system, or at the end of the partition."""
    try:
        for offset in sorted({end, size - sector_size}):
            if end <= offset < size:
                sector = _sector(device, offset, sector_size)
                if sector[3:11] == b"NTFS    " and sector[510:512] == b"\x55\xaa":
                    return True
    except WindowsCallError as exc:
        _log.info("%s: what lies behind its file system cannot be read: %s", device.path, exc)
    return False


def open_path(system: System, name: str) -> WindowsReader:
    """Open a device for reading, as it is.

    Raises:
        DeviceReadError: there is none, it is no volume or disk, has no medium, or cannot be opened.
        SnapshotPermissionError: the process may not.
        SnapshotBusyError: somebody holds it alone.
    """
    device = None
    try:
        device = RawDevice(system, _path(name))
        size, sector_size, tail = measure(device)
        _check(name, size, sector_size)
    except BaseException as exc:
        if device is not None:
            device.close()
        if isinstance(exc, WindowsCallError):
            raise _unopened(system, name, exc, opened=device is not None) from exc
        raise
    notes = () if tail else (f"{name} is without its backup boot sector (tail_captured=False).",)
    metadata = ImageMetadata(volume=name, device=device.path, notes=notes)
    return WindowsReader(device, size, sector_size, metadata=metadata)


def _path(name: str) -> str:
    path = device_path(name)
    if path is None:
        raise UsageError(f"{name!r} is no device")
    return path


def _check(name: str, size: int, sector_size: int) -> None:
    if not size:
        raise DeviceReadError(f"{name} has 0 bytes", code=errno.ENODEV, hint="put a medium in")
    if not 512 <= sector_size <= _MOST_SECTOR or sector_size & (sector_size - 1):
        raise DeviceReadError(
            f"{name} has sectors of {sector_size} bytes", hint="sectors of 512 to 4096 bytes can be read"
        )


def _may_all(system: System) -> bool:
    """Whether the process is an administrator's, so that a refusal has another reason."""
    try:
        return is_elevated(system)
    except WindowsCallError:
        return False


def _unopened(
    system: System, name: str, exc: WindowsCallError, *, opened: bool
) -> DeviceReadError | SnapshotPermissionError | SnapshotBusyError:
    call, code = exc.call, exc.code
    denied = code == Win32Error.ERROR_ACCESS_DENIED
    if denied and not _may_all(system):
        return SnapshotPermissionError(
            f"{name} may not be read by this process", call=call, code=code, hint=_ELEVATE
        )
    if denied or code == Win32Error.ERROR_SHARING_VIOLATION:  # a locked volume denies access
        return SnapshotBusyError(
            f"{name} is held by another program", call=call, code=code, hint="end it, or wait"
        )
    if code in _MISSING:
        return DeviceReadError(f"there is no {name}", call=call, code=code, hint="check the name")
    if code == Win32Error.ERROR_NOT_READY:
        return DeviceReadError(f"{name} has no medium", call=call, code=code, hint="put one in")
    if code == Win32Error.ERROR_TIMEOUT:
        return DeviceReadError(f"{name} does not answer ({exc})", call=call, code=code, hint=_SILENT)
    what = "is no volume or disk: it does not say how large it is" if opened else "cannot be opened"
    hint = _NAME_ONE if opened else "look at the System event log"
    return DeviceReadError(f"{name} {what} ({exc})", call=call, code=code, hint=hint)


def open_target(system: System, name: str) -> WindowsWriter:
    """Open a volume or disk to be written, and keep everybody else from it.

    Raises:
        TargetRefusedError: it, or a volume on the disk, is in use, read-only, or no volume or disk.
        TargetError: it cannot be opened.
        SnapshotPermissionError: the process may not.
    """
    return WindowsWriter(*_held(system, name))


def open_writable(system: System, name: str) -> WritableWindows:
    """Open a volume or disk to be read and written; raises as `open_target`."""
    return WritableWindows(*_held(system, name))


def _held(system: System, name: str) -> tuple[HeldDevice, str, int, int]:
    path = _path(name)
    opened: list[RawDevice] = []
    what = name
    try:
        opened.append(device := RawDevice(system, path, writable=True))
        targets.check_writable(device)
        if is_disk(path):
            for what in targets.volumes_on(system, targets.number(device)[1]):
                opened.append(RawDevice(system, what, writable=True))
                targets.lock(opened[-1])
        else:
            targets.lock(device)
        what = name
        device.extend()
        size, sector_size = device.length(), device.sector_size()
        _check(name, size, sector_size)
    except BaseException as exc:
        for device in opened:
            device.close()
        if isinstance(exc, WindowsCallError):
            raise _refused(system, name, what, exc) from exc
        if isinstance(exc, DeviceReadError):
            raise TargetRefusedError(exc.message, path=name, code=exc.code, hint=exc.hint) from None
        raise

    def updated() -> None:
        try:
            targets.update_partitions(device)
        except WindowsCallError as exc:
            _log.warning("%s: Windows does not read its partitions again: %s", name, exc)

    held = HeldDevice(device, opened[1:], updated if is_disk(path) else None)
    return held, name, size, sector_size


def _refused(
    system: System, name: str, what: str, exc: WindowsCallError
) -> TargetError | SnapshotPermissionError:
    which = name if what == name else f"{name} holds the volume {what}, which"
    call, code = exc.call, exc.code
    if code == Win32Error.ERROR_WRITE_PROTECT:
        hint = "look at its write protection, and diskpart's attributes"
        return TargetRefusedError(f"{name} is read-only", path=name, call=call, code=code, hint=hint)
    if code in _NOT_DONE:
        why = f"{name} is no volume or disk ({exc})"
        return TargetRefusedError(why, path=name, call=call, code=code, hint=_NAME_ONE)
    if code == Win32Error.ERROR_TIMEOUT:
        why = f"{which} does not answer ({exc})"
        return TargetError(why, path=name, call=call, code=code, hint=_SILENT)
    if code == Win32Error.ERROR_SHARING_VIOLATION or call.endswith(("LOCK_VOLUME)", "DISMOUNT_VOLUME)")):
        why = f"{which} is in use: it cannot be locked ({exc})"
        hint = "close the programs that have files of it open, or choose another"
        return TargetRefusedError(why, path=name, call=call, code=code, hint=hint)
    if code == Win32Error.ERROR_ACCESS_DENIED and _may_all(system):
        why = f"{which} cannot be written: another program has locked it, or it is a shadow copy"
        return TargetRefusedError(why, path=name, call=call, code=code, hint="end that program")
    if code == Win32Error.ERROR_ACCESS_DENIED:
        why = f"{which} may not be written by this process"
        return SnapshotPermissionError(why, call=call, code=code, hint=_ELEVATE)
    if code in _MISSING:
        return TargetError(f"there is no {name}", path=name, call=call, code=code, hint="check the name")
    why = f"{which} cannot be opened: {exc}"
    return TargetError(why, path=name, call=call, code=code, hint="look at the System event log")


def refuse_origin(system: System, name: str, origins: Iterable[str]) -> None:
    """Refuse a target that is read from, or that holds what is read.

    Raises:
        TargetRefusedError: it is one of ``origins``, or the disk of one.
    """
    names, number = _identity(system, _path(name))
    for origin in origins:
        path = device_path(origin)
        if path is None:
            continue  # a file: the volume that holds it cannot be locked while it is open
        others, other = _identity(system, path)
        same = bool(names & others)
        if number is not None and other is not None:
            # Partition 0 is the whole disk, which holds every other.
            same = same or number == other or (number[:2] == other[:2] and 0 in (number[2], other[2]))
        if same:
            raise TargetRefusedError(
                f"{name} is what is being read", path=name, hint="restore to another device"
            )


def _identity(system: System, path: str) -> tuple[set[str], tuple[int, int, int] | None]:
    """What two paths of one device have in common: a name, or the number of the device."""
    names = {path.lower()}
    with contextlib.suppress(WindowsCallError):  # a disk has no volume's name
        drive = path[4:] if path.endswith(":") else path
        names.add(volumes.volume_guid_path(system, drive).lower())
    try:
        device = RawDevice(system, path)
    except WindowsCallError:
        return names, None
    try:
        return names, targets.number(device)
    except WindowsCallError:
        return names, None  # a volume on several disks, or a shadow copy
    finally:
        device.close()


def open_file(name: str, *, writable: bool) -> Opened:
    """Open a regular file in place of a device.

    Raises:
        DeviceReadError, TargetRefusedError: there is none, or it is none; the latter to be written.
        SnapshotPermissionError: the process may not.
    """

    def no(why: str, code: int | None, hint: str) -> DeviceReadError | TargetRefusedError:
        if writable:
            return TargetRefusedError(why, path=name, call="open", code=code, hint=hint)
        return DeviceReadError(why, call="open", code=code, hint=hint)

    flags = (os.O_RDWR if writable else os.O_RDONLY) | getattr(os, "O_BINARY", 0)
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):
            raise no(f"{name} is not a block device or a regular file", None, "name a device or a file")
        fd = os.open(name, flags | getattr(os, "O_NOINHERIT", 0))
    except FileNotFoundError as exc:
        raise no(f"there is no {name}", exc.errno, "check the name") from exc
    except PermissionError as exc:
        verb = "written" if writable else "read"
        raise SnapshotPermissionError(
            f"{name} may not be {verb} by this user, or is open elsewhere",
            call="open",
            code=exc.errno,
            hint="look at its permissions, and who has it open",
        ) from exc
    except (DeviceReadError, TargetRefusedError):
        raise
    except (OSError, ValueError) as exc:
        raise no(f"{name} cannot be opened: {exc}", getattr(exc, "errno", None), "check the name") from exc
    found = os.fstat(fd)
    return Opened(fd, "file", found.st_size, _FILE_SECTOR, name, ("file", found.st_dev, found.st_ino))
