"""Loop devices, and logical volumes on them: which parts of which file they show.

Source: <linux/loop.h> (struct loop_info64), Documentation/ABI/testing/sysfs-block-loop.
"""

from __future__ import annotations

import os
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest

import fcntl  # noqa: E402 - there is none on Windows

from vsssnap._posix import ioctls, mapped, topology  # noqa: E402 - likewise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOOP_MAJOR = 7  # Documentation/admin-guide/devices.txt
_INFO = struct.Struct("@QQQQQIIII64s64s32s2Q")  # struct loop_info64


@dataclass(frozen=True, slots=True)
class Loop:
    """What a loop device, a partition of one, or a logical volume on such shows.

    Attributes:
        backing: Path of its backing file.
        pieces: What it shows of that file, one behind the other: first byte and length.
        sector_size: Logical sector size, bytes.
    """

    backing: str
    pieces: tuple[tuple[int, int], ...]
    sector_size: int

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(length for _, length in self.pieces)


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
    if mapped.is_mapped(rdev):
        return _behind(path, rdev)
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
    return Loop(name, ((offset + start, size),), sector_size)


def _behind(path: str, rdev: int) -> Loop:
    """A device of device-mapper whose ranges lie on loop devices of one file."""
    try:
        ranges = mapped.linear(rdev)
    except mapped.NoTableError as exc:
        raise NoLoopError(f"{path} is on no loop device that can be told: {exc}") from None
    found: dict[int, Loop] = {}
    pieces: list[tuple[int, int]] = []
    for each in ranges:
        name = f"/dev/{topology.system_name(each.rdev).replace('!', '/')}"
        if each.rdev not in found:
            found[each.rdev] = find(name, each.rdev)
        pieces += _cut(found[each.rdev].pieces, each.offset, each.length)
    backings = {loop.backing for loop in found.values()}
    if len(backings) > 1:
        raise NoLoopError(f"{path} lies in several files, {' and '.join(sorted(backings))}")
    return Loop(backings.pop(), tuple(pieces), max(loop.sector_size for loop in found.values()))


def _cut(pieces: Sequence[tuple[int, int]], offset: int, length: int) -> Iterator[tuple[int, int]]:
    """A range of what pieces show, as pieces."""
    for start, size in pieces:
        first, last = max(0, offset), min(size, offset + length)
        if first < last:
            yield start + first, last - first
        offset -= size
