"""What lies where on the disks of a fake machine.

Rules: IOCTL_DISK_GET_DRIVE_LAYOUT_EX, IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS; Windows SDK documentation.
Both give the error of a call and the bytes that it wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vsssnap._win32._ffi import ffi
from vsssnap._win32.codes import Win32Error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vsssnap.testing.fake_vss.parts import FakeDisk, FakeVolume

CData = Any


def layout(volumes: Sequence[FakeVolume], disk: FakeDisk, out: CData, out_size: int) -> tuple[int, int]:
    """The partitions of a disk; all of them or none."""
    own = ((volume.disk[1], len(volume.data)) for volume in volumes if volume.disk[0] == disk.number)
    found = disk.partitions or tuple(own)
    head = ffi.offsetof("DRIVE_LAYOUT_INFORMATION_EX", "PartitionEntry")
    need = head + len(found) * ffi.sizeof("PARTITION_INFORMATION_EX")
    if out_size < need:
        return Win32Error.ERROR_INSUFFICIENT_BUFFER, 0
    made = ffi.cast("DRIVE_LAYOUT_INFORMATION_EX *", out)
    made.PartitionStyle, made.PartitionCount = 1, len(found)
    entries = ffi.cast("PARTITION_INFORMATION_EX *", ffi.cast("char *", out) + head)
    for index, (offset, length) in enumerate(found):
        entry = entries[index]
        entry.PartitionStyle, entry.PartitionNumber = 1, index + 1
        entry.StartingOffset, entry.PartitionLength = offset, length
    return 0, need


def extents(volume: FakeVolume, out: CData, out_size: int) -> tuple[int, int]:
    """Where a volume lies; what does not fit is ERROR_MORE_DATA."""
    pieces = ((*volume.disk, len(volume.data)), *volume.more)
    head = ffi.offsetof("VOLUME_DISK_EXTENTS", "Extents")
    room = max(0, out_size - head) // ffi.sizeof("DISK_EXTENT")
    if not room:
        return Win32Error.ERROR_INSUFFICIENT_BUFFER, 0
    ffi.cast("VOLUME_DISK_EXTENTS *", out).NumberOfDiskExtents = len(pieces)
    places = ffi.cast("DISK_EXTENT *", ffi.cast("char *", out) + head)
    for index, (number, offset, length) in enumerate(pieces[:room]):
        places[index].DiskNumber = number
        places[index].StartingOffset, places[index].ExtentLength = offset, length
    count = min(room, len(pieces))
    code = Win32Error.ERROR_MORE_DATA if count < len(pieces) else 0
    return code, head + count * ffi.sizeof("DISK_EXTENT")
