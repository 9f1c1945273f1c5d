"""A whole disk at one instant: its volumes are found, snapshotted together, and put in their places."""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from vsssnap._arguments import path_text
from vsssnap._deadline import Deadline
from vsssnap._win32.device_names import device_path, is_disk
from vsssnap.blocks.device import open_path
from vsssnap.blocks.target import windows_system
from vsssnap.consistency import Consistency, level_of
from vsssnap.disk.composed import DiskReader, Uncovered
from vsssnap.disk.logical import LogicalVolumes, find
from vsssnap.disk.naming import in_order, named
from vsssnap.disk.owners import elsewhere
from vsssnap.errors import (
    ClosedError,
    ConsistencyError,
    ProviderUnavailableError,
    SnapshotBusyError,
    UsageError,
)
from vsssnap.snapshot import Snapshot
from vsssnap.volumes.lvm.finding import WHOLE
from vsssnap.volumes.lvm.label import has_label
from vsssnap.volumes.partitions import Partitions
from vsssnap.volumes.policy import DEFAULT_EXCLUSIONS, Exclusion, UnusedPolicy

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Mapping, Sequence
    from types import TracebackType

    from vsssnap._placed import PlacedVolume
    from vsssnap.blocks.reader import BlockReader
    from vsssnap.metadata import ImageMetadata
    from vsssnap.quiesce import QuiesceManager
    from vsssnap.volumes.partitions import Partition

_BUSY_FOR = 60.0  # seconds that a partition which nobody seems to use may be held by somebody

_POLICIES = (
    "image by itself what lies on top of such a partition; or say uncovered=Uncovered.READ to read such"
    " partitions as they are, or Uncovered.LEAVE_OUT"
)


class DiskSnapshot:
    """A disk in use with all its volumes as they were at one instant.

    ::

        with DiskSnapshot("/dev/sda") as s:
            save_image(s.open(), "server.vhdx")

    Partitions that are mounted are snapshotted together.  Those that nobody uses are read as they are,
    held and watched by the provider ``static``, so that a write to one is an error and never a torn
    image.  Of a partition under LVM the logical volumes are taken so, each by itself; LVM's own
    metadata are read, and a change of them meanwhile is an error.  All others (swap, what is under RAID
    or encryption, file systems and logical volumes that span disks, thin volumes) are refused with the
    reason, unless ``uncovered`` says what becomes of them.  The partition table and the gaps between
    partitions are read from the disk.

    On Windows all volumes are snapshotted together; those in several pieces are refused, and so are those
    that VSS does not copy (FAT, or no file system).  A partition without a volume is read as it is.

    Use from one thread, but for `cancel` and the readers.

    Attributes:
        volumes: The volume that stands for each partition, by number, and for each logical volume, by
            ``"group/volume"``; known once it is created.
        uncovered: Why none stands for the others.
        snapshot: The snapshot of the mounted ones; None if no partition is.
    """

    volumes: Mapping[int | str, str]
    uncovered: Mapping[int | str, str]
    snapshot: Snapshot | None

    def __init__(
        self,
        disk: str | os.PathLike[str],
        /,
        *,
        provider: str | None = None,
        require: Consistency = Consistency.CRASH,
        quiesce: Sequence[QuiesceManager] = (),
        timeout: float = 600.0,
        options: object = None,
        uncovered: Uncovered | None = None,
    ) -> None:
        r"""Describe it; nothing is touched.

        Args:
            disk: A block device with a partition table, or one that is under LVM itself; on Windows
                such as ``\\.\PhysicalDrive0``.
            provider: See `Snapshot`, as for all below.
            require: The least consistency of the mounted volumes.
            quiesce: Entered for the instant.
            timeout: Seconds for `create`.
            options: A provider's options.
            uncovered: What becomes of partitions and logical volumes that no snapshot stands for; None
                refuses them.

        Raises:
            UsageError: an argument is wrong in itself.
        """
        self._path = path_text(disk)
        self._require = level_of(require)
        try:
            self._policy = Uncovered(uncovered) if uncovered is not None else None
        except ValueError:
            raise UsageError(
                f"uncovered is {uncovered!r}", hint="use a member of vsssnap.Uncovered"
            ) from None
        self._given = {
            "provider": provider,
            "require": require,
            "quiesce": quiesce,
            "options": options,
        }
        self._timeout = Deadline(timeout).seconds
        self._stack: contextlib.ExitStack | None = None
        self._watched: dict[int | str, Snapshot] = {}
        self._logical = LogicalVolumes()
        self._readers: weakref.WeakSet[BlockReader] = weakref.WeakSet()
        self._unowned: set[int] = set()  # partitions in which the system has no volume
        self._cancelled = threading.Event()
        self._creating: Snapshot | None = None
        self.volumes = self.uncovered = MappingProxyType({})
        self.snapshot = None

    def create(self) -> None:
        """Find the volumes and take the snapshot; what ``with`` does.

        Raises:
            UsageError: a partition has no volume and ``uncovered`` is not named, or the disk is a
                partition or a file.
            UnknownFormatError: it has no partition table.
            CorruptImageError: the table is damaged.
            SnapshotTimeoutError: not within ``timeout``.
            CancelledError: `cancel` was called.
            SnapshotError: see `Snapshot.create`.
        """
        if self._stack is not None:
            raise UsageError("the disk is taken already", hint="make a new DiskSnapshot")
        with contextlib.ExitStack() as stack:
            self._create(stack)
            stack.callback(self._close_readers)  # before the snapshots are given back
            self._stack = stack.pop_all()

    def _create(self, stack: contextlib.ExitStack) -> None:
        deadline = Deadline(self._timeout, cancelled=self._cancelled)
        placed = volumes_on(self._path)
        whole = any(one.logical and not one.offset for one in placed)
        with open_path(self._path) as base:
            still = not placed and has_label(base)  # under LVM, and none of its volumes is active
            table = [] if whole or still else [each for each in Partitions(base) if not each.extended]
        reasons: dict[int | str, str] = {}
        mounted: dict[int | str, str] = {}
        idle: dict[int | str, str] = {WHOLE: self._path} if still else {}
        under_lvm: dict[int, str] = {}
        self._watched, self._unowned = {}, set()
        for partition in table:
            found = _volume_of(partition, placed)
            if isinstance(found, str):
                reasons[partition.number] = found
            elif found.logical:
                under_lvm[partition.number] = found.name
            elif not found.idle:
                mounted[partition.number] = found.name
            elif not found.name:
                self._unowned.add(partition.number)
            else:
                idle[partition.number] = found.name
        for key in _refused(self._path, mounted, self._given["options"]):
            reasons[key] = f"is {mounted.pop(key)}, which no VSS provider can snapshot"
        self._logical = find({WHOLE: self._path} if whole else under_lvm)
        reasons |= elsewhere(idle, deadline) | self._logical.reasons
        idle = {key: name for key, name in idle.items() if key not in reasons}
        mounted.update(self._logical.mounted)
        for key, name in (idle | self._logical.idle).items():
            watched = self._watch(name, deadline, stack)
            if isinstance(watched, Snapshot):
                self._watched[key] = watched
            else:
                reasons[key] = watched
        self._logical.reasons = reasons
        if reasons and self._policy is None:
            said = "; ".join(
                f"{named(key)} {reason}" for key, reason in sorted(reasons.items(), key=in_order)
            )
            raise UsageError(f"{self._path}: no snapshot can stand for all of it: {said}", hint=_POLICIES)
        if WHOLE in reasons and self._policy is Uncovered.LEAVE_OUT:
            raise UsageError(
                f"{self._path}: nothing would be left of it: it {reasons[WHOLE]}",
                hint="say uncovered=Uncovered.READ to read it as it is",
            )
        self.uncovered = MappingProxyType(reasons)
        watched_ones = {key: next(iter(each.volumes)) for key, each in self._watched.items()}
        self.volumes = MappingProxyType(dict(sorted({**mounted, **watched_ones}.items(), key=in_order)))
        self._mounted = mounted
        deadline.check(f"take a snapshot of {self._path}")
        if mounted:
            left = max(0.001, deadline.left())
            self.snapshot = Snapshot(*mounted.values(), timeout=left, **self._given)  # type: ignore[arg-type]  # its own arguments
            self._enter(self.snapshot, stack)
        elif self._require > Consistency.CRASH:
            raise ConsistencyError(
                f"{self._path}: no partition is mounted, so nothing can be flushed",
                wanted=self._require.name,
                offered=Consistency.CRASH.name,
                hint="lower require=",
            )

    def _watch(self, name: str, deadline: Deadline, stack: contextlib.ExitStack) -> Snapshot | str:
        """Hold a partition that nobody uses; or why that cannot be."""
        deadline.check(f"watch {name}")
        one = Snapshot(name, provider="static", timeout=max(0.001, min(_BUSY_FOR, deadline.left())))
        try:
            return self._enter(one, stack)
        except (ProviderUnavailableError, SnapshotBusyError) as exc:
            reasons = getattr(exc, "reasons", {})
            return f"cannot be held: {reasons.get('static') or exc.message}"

    def _enter(self, one: Snapshot, stack: contextlib.ExitStack) -> Snapshot:
        """Create a snapshot that `cancel` reaches."""
        self._creating = one
        if self._cancelled.is_set():
            one.cancel()
        return stack.enter_context(one)

    def close(self) -> None:
        """Close the readers and give the snapshot back.  Idempotent; see `Snapshot.close`."""
        self.__exit__(None, None, None)

    def _close_readers(self) -> None:
        with contextlib.ExitStack() as stack:  # closes them all, also if one fails
            for each in list(self._readers):
                stack.callback(each.close)

    def cancel(self) -> None:
        """Make a `create` that runs in another thread, or comes later, raise CancelledError."""
        self._cancelled.set()
        if self._creating is not None:
            self._creating.cancel()

    def __enter__(self) -> Self:
        self.create()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.__exit__(kind, value, trace)

    def open(
        self,
        *,
        unused: UnusedPolicy = UnusedPolicy.ZERO,
        exclude: Collection[Exclusion] = DEFAULT_EXCLUSIONS,
    ) -> BlockReader:
        """A reader of the whole disk; any number.

        Args:
            unused: See `Snapshot.open`, for every partition.
            exclude: See `Snapshot.open`.

        Raises:
            ClosedError: it is not created, or closed.
            SnapshotLostError: the snapshot no longer exists.
        """
        if self._stack is None:
            raise ClosedError("the disk is not taken", hint="open readers inside the with block")
        with contextlib.ExitStack() as stack:
            base = stack.enter_context(open_path(self._path))
            taken: dict[int | str, BlockReader] = {}
            for key, name in self.volumes.items():
                one = self._watched.get(key) or self.snapshot
                assert one is not None  # noqa: S101 - `volumes` names what one of them has
                wanted = (unused, exclude)
                if key in self._logical.origins and self._policy is not Uncovered.LEAVE_OUT:
                    wanted = (UnusedPolicy.READ, ())
                taken[key] = stack.enter_context(one.open(name, unused=wanted[0], exclude=wanted[1]))
            said = self._described(taken, base.metadata)
            readers = {key: reader for key, reader in taken.items() if isinstance(key, int)}
            logical = {key: reader for key, reader in taken.items() if isinstance(key, str)}
            for number in self._logical.devices:
                part = self._logical.open(number, logical, unused, self._policy)
                readers[number] = stack.enter_context(part)
            disk: BlockReader
            if WHOLE in self.uncovered:  # read as it is, for nothing else could be left out
                disk = base
                disk.metadata = said
            elif WHOLE in readers:
                base.close()
                disk = readers[WHOLE]
                disk.metadata = said
            else:
                table = Partitions(base)
                readers |= {number: table[number].open() for number in self._unowned}
                disk = DiskReader(base, readers, uncovered=self._policy, owned=True, metadata=said)
            self._readers.add(disk)
            stack.pop_all()
        return disk

    def _described(self, readers: Mapping[int | str, BlockReader], base: ImageMetadata) -> ImageMetadata:
        """What the parts say, as said by the whole."""
        notes, exclusions = list(base.notes), list(base.exclusions)
        for key, reader in readers.items():
            notes += [f"{named(key)}: {note}" for note in reader.metadata.notes]
            exclusions += [f"{named(key)}: {path}" for path in reader.metadata.exclusions]
        if self._policy is Uncovered.READ:
            notes += [f"{named(key)} was read as it is: it {why}" for key, why in self.uncovered.items()]
        elif self._policy is Uncovered.LEAVE_OUT:
            exclusions += [named(key) for key in self.uncovered if isinstance(key, str)]
        first = next(iter(self._mounted), None)
        said = readers[first].metadata if first is not None else base
        return said.replace(
            volume=self._path,
            device=self._path,
            filesystem="",
            notes=tuple(notes),
            exclusions=tuple(exclusions),
        )

    def __repr__(self) -> str:
        return f"<DiskSnapshot of {self._path}: {'live' if self._stack is not None else 'not taken'}>"


def _volume_of(partition: Partition, placed: Sequence[PlacedVolume]) -> PlacedVolume | str:
    """The volume that a snapshot of stands for a partition, or why there is none."""
    found = [one for one in placed if one.offset < partition.end and partition.offset < one.end]
    if not found:
        return "is not known to the system"
    for one in found:
        if one.reason:
            return one.reason
        if one.offset != partition.offset or one.length > partition.length:
            return f"is not what the system has there, {one.name} of {one.length} bytes at {one.offset}"
    if len(found) > 1:
        return f"holds several volumes, {' and '.join(one.name for one in found)}"
    return found[0]


def _refused(path: str, mounted: Mapping[int | str, str], options: object) -> list[int | str]:
    """Which partitions of Windows VSS does not copy: those with FAT, which machines start from."""
    if (system := windows_system(path)) is None:
        return []
    from vsssnap.providers.vss.offering import refusals  # only Windows needs it

    keys = {name: key for key, name in mounted.items()}
    return [keys[name] for name in refusals(system, list(keys), options)]


def volumes_on(path: str) -> list[PlacedVolume]:
    """The volumes of the system on a disk.

    Raises:
        UsageError: it is no disk.
        SnapshotError: the system does not say.
    """
    if (system := windows_system(path)) is not None:
        from vsssnap._win32 import disks as windows  # only such names need it

        if (name := device_path(path)) is None or not is_disk(name):
            raise UsageError(f"{path} is no disk", hint=r"name it like \\.\PhysicalDrive0")
        return windows.volumes_on(system, name)
    return _volumes_on(path)


if sys.platform == "win32":

    def _volumes_on(path: str) -> list[PlacedVolume]:
        raise UsageError(f"{path} is no disk", hint=r"name it like \\.\PhysicalDrive0")

else:

    def _volumes_on(path: str) -> list[PlacedVolume]:
        from vsssnap._posix import disks  # system modules that an import of the library does not need

        return disks.volumes_on(path)
