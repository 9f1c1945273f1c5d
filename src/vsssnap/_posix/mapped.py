"""The table of a device of device-mapper: which ranges of which devices it shows.

Source: <linux/dm-ioctl.h> (struct dm_ioctl, struct dm_target_spec, DM_TABLE_STATUS),
Documentation/admin-guide/device-mapper/linear.rst.
"""

from __future__ import annotations

import os
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest

import fcntl  # noqa: E402 - there is none on Windows

from vsssnap._posix import topology  # noqa: E402 - likewise

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTROL = "/dev/mapper/control"
_SECTOR: Final = 512
_HEADER = struct.Struct("@3I2I I i 2I I Q 128s 129s 7s")  # struct dm_ioctl
_TARGET = struct.Struct("@2Q i I 16s")  # struct dm_target_spec; its parameters follow as text
_TABLE: Final = 1 << 4  # DM_STATUS_TABLE_FLAG: the table, not the state
_FULL: Final = 1 << 8  # DM_BUFFER_FULL_FLAG
_TABLE_STATUS: Final = 3 << 30 | _HEADER.size << 16 | 0xFD << 8 | 12  # _IOWR(DM_IOCTL, 12, struct dm_ioctl)
_LARGEST: Final = 1 << 24  # bytes; a volume of thousands of segments takes a few hundred KiB


@dataclass(frozen=True, slots=True)
class Range:
    """A range of a mapped device that is a range of another one.

    Attributes:
        start: First byte in the mapped device.
        length: Bytes.
        rdev: Number of the device that it lies on.
        offset: First byte there.
    """

    start: int
    length: int
    rdev: int
    offset: int


class NoTableError(Exception):
    """It is no device whose ranges simply lie on others; the message says why."""


def is_mapped(rdev: int) -> bool:
    """Whether a device is one of device-mapper."""
    return (topology.sysfs(rdev) / "dm").is_dir()


def linear(rdev: int) -> tuple[Range, ...]:
    """The ranges of a device all of whose table is linear, ascending and gap-free.

    Raises:
        NoTableError: something in it is of another kind.
        OSError: device-mapper does not answer.
    """
    ranges = []
    at = 0
    for start, length, kind, parameters in _targets(rdev):
        if kind != "linear":
            raise NoTableError(f"a part of it is {kind}, not linear")
        try:
            device, offset = parameters.split()
            major, minor = device.split(":")
            found = Range(start, length, os.makedev(int(major), int(minor)), int(offset) * _SECTOR)
        except ValueError:
            raise NoTableError(f"its table has {parameters[:80]!r}") from None
        if start != at:
            raise NoTableError(f"its table has a gap at byte {at}")
        at += length
        ranges.append(found)
    if not ranges:
        raise NoTableError("its table is empty")
    return tuple(ranges)


def _targets(rdev: int) -> Iterator[tuple[int, int, str, str]]:
    """What the table has: first byte, length, kind, parameters."""
    fd = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = 1 << 14
        while True:
            answer = bytearray(size)
            _HEADER.pack_into(
                answer, 0, 4, 0, 0, size, _HEADER.size, 0, 0, _TABLE, 0, 0, _encoded(rdev), b"", b"", b""
            )
            fcntl.ioctl(fd, _TABLE_STATUS, answer)
            fields = _HEADER.unpack_from(answer)
            if not fields[7] & _FULL or size >= _LARGEST:
                break
            size *= 4
    finally:
        os.close(fd)
    yield from parse(bytes(answer[fields[4] :]), fields[5])


def parse(data: bytes, count: int) -> Iterator[tuple[int, int, str, str]]:
    """The targets in an answer of the kernel.

    Args:
        data: What follows the header.
        count: How many there are.

    Raises:
        NoTableError: there are fewer.
    """
    at = 0
    for _ in range(count):
        if at + _TARGET.size > len(data):
            raise NoTableError("its table is longer than device-mapper tells")
        start, length, _, following, kind = _TARGET.unpack_from(data, at)
        text = at + _TARGET.size
        end = data.find(b"\0", text)
        parameters = data[text : end if end >= 0 else len(data)].decode("utf-8", "replace")
        yield start * _SECTOR, length * _SECTOR, _word(kind), parameters
        at = following


def _word(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("ascii", "replace")


def _encoded(rdev: int) -> int:
    """A number in the kernel's own form, huge_encode_dev() of <linux/kdev_t.h>."""
    major, minor = os.major(rdev), os.minor(rdev)
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
