"""Which volumes of the system lie on a disk, and which of them a snapshot can stand for.

A partition whose file system is mounted is such a volume.  What lies under another block device
(RAID, encryption) is not: the snapshot of an encrypted volume holds the volume, and not what is in the
partition.  Of a partition under LVM the logical volumes are such volumes.

Source: Linux Documentation/ABI/stable/sysfs-block (partition, start, size, in sectors of 512 bytes
whatever the disk has), testing/sysfs-block (holders, slaves), testing/sysfs-block-dm (name, uuid).
The UUID of a logical volume's device is "LVM-" and the UUIDs of group and volume, as dmsetup(8) shows it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path

assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest

from vsssnap._placed import MappedVolume, PlacedVolume  # noqa: E402 - only readable on Linux
from vsssnap._posix import mounts, topology  # noqa: E402 - likewise
from vsssnap.errors import DeviceReadError, UsageError  # noqa: E402 - after the above

__all__ = ["mapped_volumes", "volumes_of", "volumes_on"]

_SECTOR = 512
CLASS_BLOCK = Path("/sys/class/block")

# What the UUID of a device-mapper device begins with: which program made it.
_MAPPED = {
    "LVM": "the logical volume",
    "CRYPT": "the encrypted volume",
    "mpath": "the multipath device",
    "part": "the partition",
    "DMRAID": "the RAID",
}


def volumes_on(path: str) -> list[PlacedVolume]:
    """The partitions of a disk that the kernel knows, by offset.

    Args:
        path: A block device.

    Raises:
        UsageError: it is a partition, not a disk.
        DeviceReadError: there is no such device.
    """
    try:
        found = os.stat(path)
    except OSError as exc:
        raise DeviceReadError(
            f"{path}: {exc.strerror}", call="stat", code=exc.errno, hint="name a disk"
        ) from exc
    if not stat.S_ISBLK(found.st_mode):
        raise UsageError(
            f"{path} is no block device",
            hint="a Snapshot of a file takes all of it at once",
        )
    disk = topology.disk_of(found.st_rdev)
    if disk is not None:
        name = topology.system_name(disk).replace("!", "/")
        raise UsageError(f"{path} is a partition of /dev/{name}", hint=f"name the disk, /dev/{name}")
    return volumes_of(found.st_rdev)


def volumes_of(rdev: int) -> list[PlacedVolume]:
    """`volumes_on` for a disk by its number; a disk without partitions that is under LVM is one itself."""
    table = mounts.read()
    numbers = topology.partitions(rdev)
    if not numbers and _under_lvm(rdev):
        return [_placed(rdev, table)]
    return sorted((_placed(number, table) for number in numbers), key=lambda volume: volume.offset)


def _placed(rdev: int, table: tuple[mounts.Mount, ...]) -> PlacedVolume:
    here = topology.sysfs(rdev)
    name = f"/dev/{topology.system_name(rdev).replace('!', '/')}"
    try:
        # A disk has no start of its own.
        offset = int((here / "start").read_text()) * _SECTOR if (here / "partition").exists() else 0
        length = int((here / "size").read_text()) * _SECTOR
    except (OSError, ValueError) as exc:
        raise DeviceReadError(f"{name} went away: {exc}", hint="try again") from exc
    mounted = mounts.of_device(rdev, table)
    if not mounted and _under_lvm(rdev):
        return PlacedVolume(offset=offset, length=length, name=name, logical=True)
    reason = _shared(rdev, mounted) if mounted else _in_use(rdev)
    return PlacedVolume(offset=offset, length=length, name=name, idle=not (mounted or reason), reason=reason)


def _under_lvm(rdev: int) -> bool:
    """Whether logical volumes lie on a device, and nothing else does."""
    held = mounts.holders(rdev)
    return bool(held) and all(_mapped_id(CLASS_BLOCK / name) for name in held)


def mapped_volumes() -> dict[str, MappedVolume]:
    """The logical volumes that the system shows, by id."""
    table = mounts.read()
    found: dict[str, MappedVolume] = {}
    for folder in sorted(CLASS_BLOCK.glob("dm-*")):
        identifier, rdev = _mapped_id(folder), topology.number_of(folder)
        if identifier and rdev is not None:
            mounted = mounts.of_device(rdev, table)
            reason = _shared(rdev, mounted) if mounted else _in_use(rdev)
            found[identifier] = MappedVolume(
                id=identifier,
                name=_mapped_name(folder, rdev),
                idle=not (mounted or reason),
                reason=reason,
            )
    return found


def _mapped_id(folder: Path) -> str:
    """The ids of group and volume of a device that LVM made; "" of any other."""
    try:
        maker, _, identifier = _said(folder / "dm" / "uuid").partition("-")
    except OSError:
        return ""
    return identifier if maker == "LVM" else ""


def _said(file: Path) -> str:
    """A line of sysfs; whoever made a device could name it in any coding."""
    return os.fsdecode(file.read_bytes()).strip()


def _mapped_name(folder: Path, rdev: int) -> str:
    """The path of a mapped device, by its name if there is such a node."""
    with contextlib.suppress(OSError, ValueError):
        path = f"/dev/mapper/{_said(folder / 'dm' / 'name')}"
        if os.stat(path).st_rdev == rdev:
            return path
    return f"/dev/{folder.name}"


def _shared(rdev: int, mounted: tuple[mounts.Mount, ...]) -> str:
    """Why the file system on a partition is more than the partition; "" if it is not."""
    members = mounts.members(rdev)
    if len(members) > 1:
        names = ", ".join(sorted(topology.system_name(member) for member in members))
        return f"is a part of the {mounted[0].filesystem} at {mounted[0].mount_point}, which spans {names}"
    return ""


def _in_use(rdev: int) -> str:
    """Who uses a partition that is not mounted."""
    held = mounts.holders(rdev)
    if not held:
        return topology.shown_as(rdev)
    shown = [_holder(CLASS_BLOCK / name) for name in held]
    return f"is under {' and '.join(shown)}, whose snapshot is not what is below it"


def _holder(folder: Path) -> str:
    """A device on top of a partition, in words; whether it spans others too."""
    spans = ""
    try:
        below = sorted(entry.name for entry in (folder / "slaves").iterdir())
        if len(below) > 1:
            spans = f", which spans {', '.join(below)}"
    except OSError:
        pass
    kind, name = "", f"/dev/{folder.name.replace('!', '/')}"
    try:
        kind = _said(folder / "dm" / "uuid").partition("-")[0]
        called = _said(folder / "dm" / "name")
        name = f"/dev/mapper/{called}" if called else name
    except OSError:
        kind = "md" if (folder / "md").is_dir() else ""
    word = "the RAID" if kind == "md" else _MAPPED.get(kind, "the device")
    return f"{word} {name}{spans}"
