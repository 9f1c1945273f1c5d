"""Loop devices: which part of which file they show.

Source: <linux/loop.h> (struct loop_info64), Documentation/ABI/testing/sysfs-block-loop.
"""

from __future__ import annotations

import os
import struct
import sys
from dataclasses import dataclass

assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest

import fcntl  # noqa: E402 - there is none on Windows

from vsssnap._posix import ioctls, topology  # noqa: E402 - likewise

LOOP_MAJOR = 7  # Documentation/admin-guide/devices.txt
_INFO = struct.Struct("@QQQQQIIII64s64s32s2Q")  # struct loop_info64


@dataclass(frozen=True, slots=True)
class Loop:
    """What a loop device, or a partition of one, shows.

    Attributes:
        backing: Path of its backing file.
        offset: First byte in that file.
        size: Bytes.
        sector_size: Logical sector size, bytes.
    """

    backing: str
    offset: int
    size: int
    sector_size: int


class NoLoopError(Exception):
    """It is no loop device whose file can be found; the message says why."""


def find(path: str, rdev: int) -> Loop:
    """Look a loop device up.

    Args:
        path: A name of the device.
        rdev: Its number.

    Raises:
        NoLoopError: it is none, or its backing file has no name here.
        OSError: it cannot be opened.
    """
    disk = topology.disk_of(rdev) or rdev
    if os.major(disk) != LOOP_MAJOR:
        raise NoLoopError(f"{path} is on no loop device, so there is no file to clone")
    start = 0
    if disk != rdev:
        start = int((topology.sysfs(rdev) / "start").read_text(encoding="ascii")) * 512
    try:
        backing = (topology.sysfs(disk) / "loop" / "backing_file").read_bytes().rstrip(b"\n")
    except FileNotFoundError:
        raise NoLoopError(f"{path} has no backing file: the loop device is not attached") from None
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        device, inode, _, offset, *_ = _INFO.unpack(
            fcntl.ioctl(fd, ioctls.LOOP_GET_STATUS64, bytes(_INFO.size))
        )
        size = ioctls.get_u64(fd, ioctls.BLKGETSIZE64)
        sector_size = ioctls.get_int(fd, ioctls.BLKSSZGET)
    finally:
        os.close(fd)
    name = os.fsdecode(backing)
    try:
        found = os.stat(name)
    except OSError:
        raise NoLoopError(f"the file behind {path}, {name}, is deleted or not visible here") from None
    if (found.st_dev, found.st_ino) != (device, inode):
        raise NoLoopError(
            f"{name} is not the file behind {path}: it was replaced, or lies in another mount namespace"
        )
    return Loop(name, offset + start, size, sector_size)
