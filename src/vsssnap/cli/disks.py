"""``vsssnap save`` of a whole disk whose volumes are in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vsssnap._win32.device_names import device_path, is_disk
from vsssnap.cli import interrupts
from vsssnap.cli.common import is_block_device
from vsssnap.errors import DeviceReadError, ImageError, SnapshotError, UsageError

if TYPE_CHECKING:
    import contextlib

    from vsssnap.blocks.reader import BlockReader
    from vsssnap.cli.output import Output
    from vsssnap.cli.views import Wanted
    from vsssnap.snapshot import Snapshot


def in_use(path: str) -> bool:
    """Whether a source is a disk with a partition that somebody uses: no snapshot takes it as one."""
    if not (is_block_device(path) or is_disk(device_path(path) or "")):
        return False
    from vsssnap.disk.snapshot import volumes_on

    try:
        return any(not volume.idle for volume in volumes_on(path))
    except (SnapshotError, DeviceReadError, ImageError, UsageError):  # a partition, or no disk at all
        return False


def used(path: str) -> list[str]:
    """The names of the volumes on a disk that somebody uses, logical ones too.

    Raises:
        UsageError: it is no disk.
        SnapshotError: the system does not say.
        DeviceReadError: a partition cannot be read.
    """
    from vsssnap.disk.logical import find
    from vsssnap.disk.snapshot import volumes_on

    found = [volume for volume in volumes_on(path) if not volume.idle]
    logical = find({number: volume.name for number, volume in enumerate(found) if volume.logical})
    return [*(volume.name for volume in found if not volume.logical), *logical.mounted.values()]


def opened(
    out: Output,
    stack: contextlib.ExitStack,
    path: str,
    given: dict[str, Any],
    view: Wanted,
    options: Any,  # noqa: ANN401
) -> tuple[BlockReader, Snapshot | None]:
    """Take the volumes of a disk apart; the disk as a reader, and the snapshot of what is mounted.

    Args:
        out: Where it is told.
        stack: Owns what is opened.
        path: The disk.
        given: The arguments of ``save``.
        view: What is left out.
        options: Further arguments of `DiskSnapshot`.
    """
    from vsssnap import DiskSnapshot, Uncovered
    from vsssnap.disk.naming import named

    policy = Uncovered(given["uncovered"]) if given["uncovered"] else None
    disk = DiskSnapshot(path, uncovered=policy, **options)
    stack.enter_context(interrupts.deferred(disk.cancel))
    stack.enter_context(disk)
    interrupts.check()
    snapshot = disk.snapshot
    names = ", ".join(disk.volumes.values())
    taken = f" by {snapshot.provider}, {snapshot.consistency.name.lower()} consistent" if snapshot else ""
    out.say(f"snapshot of {names or 'nothing'}{taken}")
    for key, why in disk.uncovered.items():
        done = "is left out" if policy is Uncovered.LEAVE_OUT else "is read as it is, and may be torn"
        out.warn(f"{named(key)} {done}: it {why}")
    return stack.enter_context(disk.open(unused=view.unused, exclude=view.exclude)), snapshot
