"""How block devices lie on and in one another, and who uses them.

Devices are named by number, in the form of ``st_rdev``.

Source: Linux Documentation/ABI/stable/sysfs-block (partitions, holders) and
testing/sysfs-block-loop.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path

assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest

from vsssnap._posix import mounts  # noqa: E402 - only readable on Linux

__all__ = [
    "beneath",
    "disk_of",
    "flush_neighbours",
    "number_of",
    "partitions",
    "shown_as",
    "sysfs",
    "system_name",
    "usage",
]


def system_name(rdev: int) -> str:
    """The kernel's name of a block device (``"sda1"``), or its numbers if there is none."""
    try:
        return os.path.basename(os.readlink(sysfs(rdev)))
    except OSError:
        return f"{os.major(rdev)}:{os.minor(rdev)}"


def sysfs(rdev: int) -> Path:
    """The folder of sysfs about a block device."""
    return Path(f"/sys/dev/block/{os.major(rdev)}:{os.minor(rdev)}")


def number_of(folder: Path) -> int | None:
    """The device number that a folder of sysfs is about."""
    try:
        major, minor = (folder / "dev").read_text().split(":")
        return os.makedev(int(major), int(minor))
    except (OSError, ValueError):
        return None


def partitions(rdev: int) -> tuple[int, ...]:
    """The partitions of a disk."""
    numbers = (number_of(mark.parent) for mark in sorted(sysfs(rdev).glob("*/partition")))
    return tuple(number for number in numbers if number is not None)


def disk_of(rdev: int) -> int | None:
    """The disk that a partition is on; None for anything else."""
    here = sysfs(rdev)
    return number_of(here.resolve().parent) if (here / "partition").exists() else None


def beneath(found: os.stat_result) -> set[tuple[int, ...]]:
    """What changes when a block device or file is written: itself, and all it lies on.

    Args:
        found: What `os.stat` says of it.

    Returns:
        A device as ``(st_rdev,)``, a file as ``(st_dev, st_ino)``: the disk of a partition, the file
        behind a loop device, the devices under one of device-mapper or md, and what those lie on.
    """
    if not stat.S_ISBLK(found.st_mode):
        return {(found.st_dev, found.st_ino)}
    known: set[tuple[int, ...]] = set()
    todo = [found.st_rdev]
    while todo:
        number = todo.pop()
        if (number,) in known:
            continue
        known.add((number,))
        todo += [disk] if (disk := disk_of(number)) is not None else []
        todo += [slave for entry in sysfs(number).glob("slaves/*") if (slave := number_of(entry)) is not None]
        with contextlib.suppress(OSError, ValueError):  # no loop device, or its file has no name here
            name = os.fsdecode((sysfs(number) / "loop" / "backing_file").read_bytes().rstrip(b"\n"))
            backing = os.stat(name)
            if stat.S_ISBLK(backing.st_mode):
                todo.append(backing.st_rdev)
            else:
                known.add((backing.st_dev, backing.st_ino))
    return known


def usage(found: os.stat_result) -> str:
    """Who uses a block device, one of its partitions, or a file as a disk.

    Args:
        found: What `os.stat` says of it.

    Returns:
        The end of a sentence, or "" if nobody does.
    """
    if not stat.S_ISBLK(found.st_mode):
        return shown_as(found)
    table = mounts.read()
    for number in (found.st_rdev, *partitions(found.st_rdev)):
        has = "" if number == found.st_rdev else f"has a partition, {system_name(number)}, that "
        if mounted := mounts.of_device(number, table):
            return f"{has}is mounted at {mounted[0].mount_point}"
        if reason := shown_as(number):
            return has + reason
    if held := mounts.holders(found.st_rdev):
        return f"is part of {', '.join(held)}"
    return ""


def shown_as(what: os.stat_result | int) -> str:
    """Swap and loop devices on a file or a block device; O_EXCL knows nothing of the latter.

    Args:
        what: What `os.stat` says of a file, or the number of a device.

    Returns:
        The end of a sentence, or "" if it is neither.
    """
    if any(_is(swap.path, what) for swap in mounts.swap_devices()):
        return "is used as swap"
    for entry in sorted(Path("/sys/block").glob("loop*/loop/backing_file")):
        with contextlib.suppress(OSError):
            if _is(os.fsdecode(entry.read_bytes().rstrip(b"\n")), what):
                return f"is what /dev/{entry.parent.parent.name} shows"
    return ""


def _is(path: str, what: os.stat_result | int) -> bool:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return False
    if isinstance(what, int):
        return stat.S_ISBLK(found.st_mode) and found.st_rdev == what
    return os.path.samestat(found, what)


def flush_neighbours(rdev: int) -> None:
    """Write out what was written to a disk through its partitions, or to a partition through its disk.

    Each of them has a cache of its own in the kernel.
    """
    disk = disk_of(rdev)
    for number in partitions(rdev) if disk is None else (disk,):
        with contextlib.suppress(OSError):  # no node, or gone: what is not open has nothing cached
            fd = os.open(f"/dev/{system_name(number).replace('!', '/')}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if os.fstat(fd).st_rdev == number:
                    os.fsync(fd)
            finally:
                os.close(fd)
