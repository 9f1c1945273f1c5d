"""What is mounted, swapped on or stacked on a device.

Source: proc(5), /proc/[pid]/mountinfo and /proc/swaps; Linux
Documentation/filesystems/proc.rst (mnt_id in /proc/[pid]/fdinfo) and
Documentation/ABI/testing/sysfs-block (holders), sysfs-fs-btrfs (devices).

Everything is of this process's mount namespace: a device that is mounted in another one
shows no mount here.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from vsssnap.errors import SnapshotError

assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest

__all__ = [
    "Mount",
    "Swap",
    "containing",
    "holders",
    "members",
    "mount_id",
    "of_device",
    "read",
    "swap_devices",
]

_MOUNTINFO = "/proc/self/mountinfo"
_SWAPS = "/proc/swaps"
_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo.

    Attributes:
        mount_id: Unique among the mounts that exist now.
        parent_id: The mount that this one lies in.
        device: st_dev of its files as (major, minor); anonymous for btrfs, overlay, FUSE, NFS.
        root: Which folder of the file system is mounted; "/" unless it is a bind mount or subvolume.
        mount_point: Where; a later mount at the same place hides it.
        filesystem: Its type (``"ext4"``, ``"fuse.sshfs"``).
        source: What the file system calls its source, often a device; "" if it has none.
        options: Of the mount (``"rw"``, ``"nosuid"``).
        super_options: Of the file system.
    """

    mount_id: int
    parent_id: int
    device: tuple[int, int]
    root: str
    mount_point: str
    filesystem: str
    source: str
    options: tuple[str, ...] = ()
    super_options: tuple[str, ...] = ()

    @property
    def rdev(self) -> int:
        """`device` in the form of ``st_dev`` and ``st_rdev``."""
        return os.makedev(*self.device)


@dataclass(frozen=True, slots=True)
class Swap:
    """One line of /proc/swaps.

    Attributes:
        path: The device or file.
        kind: ``"partition"`` for any device, or ``"file"``.
    """

    path: str
    kind: str


def read() -> tuple[Mount, ...]:
    """All mounts, in the order they were made."""
    return parse(_contents(_MOUNTINFO))


def parse(text: bytes) -> tuple[Mount, ...]:
    """Read the contents of a mountinfo file.

    Raises:
        SnapshotError: a line does not have the documented form.
    """
    return tuple(_mount(line, number) for number, line in enumerate(text.splitlines(), 1) if line)


def _mount(line: bytes, number: int) -> Mount:
    # "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue": any
    # number of optional fields before the hyphen.  The source may be empty (two spaces).
    try:
        front, _, back = line.partition(b" - ")
        ids = front.split(b" ")
        kind, source, super_options = back.split(b" ", 2)
        major, minor = ids[2].split(b":")
        return Mount(
            int(ids[0]),
            int(ids[1]),
            (int(major), int(minor)),
            _text(ids[3]),
            _text(ids[4]),
            _text(kind),
            _text(source),
            tuple(_text(option) for option in ids[5].split(b",")),
            tuple(_text(option) for option in super_options.split(b",")),
        )
    except (ValueError, IndexError) as exc:
        raise SnapshotError(
            f"{_MOUNTINFO} line {number} is not in the form of proc(5): {line[:200]!r}",
            hint="report it with the kernel's version",
        ) from exc


def of_device(rdev: int, mounts: tuple[Mount, ...] | None = None) -> tuple[Mount, ...]:
    """The mounts of the file system that lies on a block device, hidden ones too.

    Args:
        rdev: The device's ``st_rdev``.
        mounts: What `read` gave; by default it is asked now.
    """
    mounts = read() if mounts is None else mounts
    found = [mount for mount in mounts if mount.rdev == rdev]
    # btrfs mounts carry an anonymous number, and their source names one of several devices.
    same: set[int] | None = None
    for mount in mounts:
        if mount.rdev == rdev or not mount.source.startswith("/"):
            continue
        if mount.device[0] == 0 and mount.filesystem in ("btrfs", "bcachefs"):
            same = members(rdev) | {rdev} if same is None else same
            source = mount.source.split(":")[0] if mount.filesystem == "bcachefs" else mount.source
            if _rdev(source) in same:
                found.append(mount)
    return tuple(found)


def members(rdev: int) -> set[int]:
    """All devices of the mounted btrfs that a device is a member of; none if it is of no such one."""
    try:
        name = os.path.basename(os.readlink(f"/sys/dev/block/{os.major(rdev)}:{os.minor(rdev)}"))
        # Each member is a link to /sys/class/block/NAME, whose "dev" holds the number.
        for devices in Path("/sys/fs/btrfs").glob("*/devices"):
            if (devices / name).exists():
                numbers = [(member / "dev").read_text().strip().split(":") for member in devices.iterdir()]
                return {os.makedev(int(major), int(minor)) for major, minor in numbers}
    except (OSError, ValueError):
        pass  # it went away meanwhile, or there is no sysfs: the source alone decides
    return set()


def _rdev(path: str) -> int | None:
    try:
        return os.stat(path).st_rdev
    except OSError:
        return None


def containing(path: str | int, mounts: tuple[Mount, ...] | None = None) -> Mount:
    """The mount that a path, or an open file, lies in.

    It is the kernel that resolves the path, so symbolic links, bind mounts and stacked
    mounts come out right.

    Raises:
        SnapshotError: the path cannot be reached, or its mount is not in this namespace.
    """
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC) if isinstance(path, str) else path
    except OSError as exc:
        raise SnapshotError(
            f"{path}: {exc.strerror}", call="open", code=exc.errno, hint="name something that exists"
        ) from exc
    except ValueError as exc:  # a null byte
        raise SnapshotError(f"{path!r} is no path: {exc}", hint="name something that exists") from exc
    try:
        number = mount_id(fd)
    finally:
        if isinstance(path, str):
            os.close(fd)
    for mount in read() if mounts is None else mounts:
        if mount.mount_id == number:
            return mount
    raise SnapshotError(
        f"{path}: its mount {number} is not among this process's mounts",
        hint="run in the mount namespace of the volume",
    )


def mount_id(fd: int) -> int:
    """The id of the mount through which a descriptor was opened."""
    for line in _contents(f"/proc/self/fdinfo/{fd}").splitlines():
        name, _, value = line.partition(b":")
        if name == b"mnt_id":
            return int(value)
    raise SnapshotError(
        f"/proc/self/fdinfo/{fd} has no mnt_id", hint="Linux 3.15 or later with /proc is needed"
    )


def swap_devices() -> tuple[Swap, ...]:
    """What is being swapped to; a path may end in "(deleted)"."""
    found = []
    for line in _contents(_SWAPS).splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 2:
            found.append(Swap(_text(fields[0]), _text(fields[1])))
    return tuple(found)


def holders(rdev: int) -> tuple[str, ...]:
    """Names of the kernel devices stacked on a block device or its partitions (``"dm-0"``)."""
    top = Path(f"/sys/dev/block/{os.major(rdev)}:{os.minor(rdev)}")
    try:
        places = [top / "holders", *(part.parent / "holders" for part in top.glob("*/partition"))]
        return tuple(sorted({entry.name for place in places if place.is_dir() for entry in place.iterdir()}))
    except OSError as exc:
        raise SnapshotError(
            f"{top}: {exc.strerror}", call="readdir", code=exc.errno, hint="is sysfs mounted on /sys?"
        ) from exc


def _text(field: bytes) -> str:
    """A field with the kernel's octal escapes undone (space, tab, newline, backslash, #)."""
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field))


def _contents(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise SnapshotError(
            f"{path}: {exc.strerror}", call="read", code=exc.errno, hint="mount /proc"
        ) from exc
