"""Which volumes of Windows lie on a disk, and which of them a shadow copy can stand for.

A volume in one piece is a partition.  One in several (spanned, striped, mirrored; Storage Spaces) is
not what is in any of them.  A partition without a volume, such as the one that Microsoft reserves, is
used by nobody.

Sources: IOCTL_DISK_GET_DRIVE_LAYOUT_EX, IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS,
IOCTL_STORAGE_GET_DEVICE_NUMBER, FindFirstVolumeW; Windows SDK documentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap._placed import PlacedVolume
from vsssnap._win32 import targets, volumes
from vsssnap._win32._ffi import ffi
from vsssnap._win32.codes import Control
from vsssnap._win32.devices import RawDevice
from vsssnap._win32.handles import WindowsCallError
from vsssnap.errors import SnapshotError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap._win32.dll import System

_PARTITIONS = 512  # of a disk; GPT has 128 as a rule


def volumes_on(system: System, path: str) -> list[PlacedVolume]:
    r"""The volumes of a disk, and its partitions without one, by offset.

    Args:
        system: The libraries.
        path: The disk, such as ``\\.\PhysicalDrive0``.

    Raises:
        SnapshotError: Windows does not say what is on it.
    """
    try:
        device = RawDevice(system, path)
        try:
            number = targets.number(device)[1]
            layout = list(_layout(device))
        finally:
            device.close()
        placed = [one for name in targets.volumes(system) for one in _placed(system, name, number)]
    except WindowsCallError as exc:
        raise SnapshotError(
            f"{path}: Windows does not say what is on it: {exc}",
            call=exc.call,
            code=exc.code,
            hint="run elevated, and name a disk",
        ) from exc
    for offset, length in layout:
        if not any(one.offset < offset + length and offset < one.end for one in placed):
            placed.append(PlacedVolume(offset=offset, length=length, name="", idle=True))
    return sorted(placed, key=lambda one: one.offset)


def _placed(system: System, name: str, number: int) -> Iterator[PlacedVolume]:
    """The pieces of a volume that lie on one disk."""
    try:
        device = RawDevice(system, name.rstrip("\\"))
    except WindowsCallError:
        return  # no medium
    try:
        pieces = targets.extents(device)
    except WindowsCallError:
        return  # an optical drive has none
    finally:
        device.close()
    reason = ""
    if len(pieces) > 1:
        disks = ", ".join(str(each) for each in sorted({disk for disk, _, _ in pieces}))
        reason = f"is a piece of {name}, which lies in {len(pieces)} pieces on the disks {disks}"
    elif not volumes.filesystem(system, name):
        reason = f"is {name}, which has no file system that Windows knows"
    for disk, offset, length in pieces:
        if disk == number:
            yield PlacedVolume(offset=offset, length=length, name=name, reason=reason)


def _layout(device: RawDevice) -> Iterator[tuple[int, int]]:
    """First byte and length of the partitions that Windows knows of a disk."""
    head = ffi.offsetof("DRIVE_LAYOUT_INFORMATION_EX", "PartitionEntry")
    size = head + _PARTITIONS * ffi.sizeof("PARTITION_INFORMATION_EX")
    room = ffi.new("char[]", size)
    device.control(Control.IOCTL_DISK_GET_DRIVE_LAYOUT_EX, out=room, out_size=size)
    found = ffi.cast("DRIVE_LAYOUT_INFORMATION_EX *", room)
    first = ffi.cast("PARTITION_INFORMATION_EX *", ffi.addressof(found, "PartitionEntry"))
    for index in range(min(int(found.PartitionCount), _PARTITIONS)):
        entry = first[index]
        if entry.PartitionNumber and entry.PartitionLength > 0:  # an MBR has empty slots, too
            yield int(entry.StartingOffset), int(entry.PartitionLength)
