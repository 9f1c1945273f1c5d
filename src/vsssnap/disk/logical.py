"""The logical volumes on the partitions of a disk: what stands for each, and the partition put together.

A partition under LVM is composed (docs/decisions/0032-lvm.md): of its logical volumes, each from its own
snapshot; of LVM's metadata, which only LVM's commands change; and of extents that no volume has.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vsssnap.blocks.concat import ConcatReader
from vsssnap.blocks.device import open_path
from vsssnap.blocks.extent import ExtentKind
from vsssnap.blocks.plain import PlainReader
from vsssnap.disk.composed import Uncovered
from vsssnap.errors import SourceChangedError
from vsssnap.volumes.lvm.composing import origins, pieces, why_not
from vsssnap.volumes.lvm.finding import grouped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vsssnap._placed import MappedVolume
    from vsssnap.blocks.reader import BlockReader
    from vsssnap.volumes.lvm import LogicalVolume, VolumeGroup
    from vsssnap.volumes.policy import UnusedPolicy


_TRY_AGAIN: Final = "let LVM's commands come to their end, and try again"


@dataclass
class LogicalVolumes:
    """What is known of the logical volumes on a disk; volumes are named ``group/volume``.

    Attributes:
        devices: The device of each partition that is a physical volume.
        mounted: The device of each volume that a snapshot is to be taken of.
        idle: The device of each that nobody uses.
        inactive: Those that the system does not show, so that nobody can use them.
        reasons: Why no snapshot can stand for the others; also for partitions whose metadata cannot be
            read, by number.
        origins: Volumes with snapshots of LVM, which read through them: also what is free now.
        changes: Which change of each group, by its id, all this is of.
    """

    devices: dict[int, str] = field(default_factory=dict)
    mounted: dict[str, str] = field(default_factory=dict)
    idle: dict[str, str] = field(default_factory=dict)
    inactive: set[str] = field(default_factory=set)
    reasons: dict[int | str, str] = field(default_factory=dict)
    origins: set[str] = field(default_factory=set)
    changes: dict[str, int] = field(default_factory=dict)

    def open(
        self,
        number: int,
        readers: Mapping[str, BlockReader],
        unused: UnusedPolicy,
        policy: Uncovered | None,
    ) -> BlockReader:
        """A partition, put together.

        Args:
            number: Of the partition; `WHOLE` for a disk without a table.
            readers: The snapshots of the volumes; those of its group are closed with the partition.
            unused: What becomes of extents that no volume has.
            policy: What becomes of volumes that have no reader.

        Raises:
            SourceChangedError: LVM changed the group since it was looked at.
            VssSnapError: see `open_path` and `VolumeGroup`.
        """
        with contextlib.ExitStack() as stack:
            opened = {each: stack.enter_context(open_path(path)) for each, path in self.devices.items()}
            found = grouped(opened)[number]
            if found.group is None:
                raise SourceChangedError(
                    f"partition {number} is no physical volume of LVM any more", hint=_TRY_AGAIN
                )
            group = found.group
            if self.changes.get(group.id) != group.seqno:
                # A volume that was made or renamed since has no snapshot, and would be read as it is.
                raise SourceChangedError(
                    f"LVM changed the volume group {group.name} since the snapshot was taken", hint=_TRY_AGAIN
                )
            parts = {
                each.name: readers[f"{group.name}/{each.name}"]
                for each in group.volumes.values()
                if f"{group.name}/{each.name}" in readers
            }
            if policy is Uncovered.LEAVE_OUT:
                parts |= {
                    each.name: PlainReader(b"", each.size, kind=ExtentKind.EXCLUDED)
                    for each in group.volumes.values()
                    if f"{group.name}/{each.name}" in self.reasons
                }
            place = next(each for each in group.physical.values() if each.id == found.id)
            listed = pieces(group, place, opened[number], parts, unused)
            owned = [*opened.values(), *parts.values()]
            reader = PhysicalReader(listed, group, list(opened.values()), frozenset(self.inactive), owned)
            stack.pop_all()
        return reader


class PhysicalReader(ConcatReader):
    """A physical volume of several readers."""

    def __init__(
        self,
        parts: list[BlockReader],
        group: VolumeGroup,
        partitions: list[BlockReader],
        inactive: frozenset[str],
        owned: list[BlockReader],
    ) -> None:
        """Put it together.

        Args:
            parts: One behind the other.
            group: As its description was read.
            partitions: From which it was.
            inactive: Volumes that are not to become active.
            owned: Closed with this.
        """
        super().__init__(parts)
        self._beneath = owned
        self._group = group
        self._partitions = partitions
        self._inactive = inactive

    def _confirm(self) -> None:
        super()._confirm()
        changed = _changed(self._group, self._partitions, self._inactive)
        if changed:
            raise SourceChangedError(changed, hint=_TRY_AGAIN)

    def _release(self) -> None:
        with contextlib.ExitStack() as stack:
            for each in self._beneath:
                stack.callback(each.close)


def _changed(group: VolumeGroup, partitions: list[BlockReader], inactive: frozenset[str]) -> str:
    """What LVM did to a group since its description was read, or ""."""
    now = [found.group for found in grouped(dict(enumerate(partitions))).values() if found.group is not None]
    same = next((each for each in now if each.id == group.id), None)
    if same is None or same.seqno != group.seqno:
        return f"LVM changed the volume group {group.name} while it was read"
    active = _mapped()
    for each in group.volumes.values():
        if f"{group.name}/{each.name}" in inactive and _shown(group, each, active):
            return f"the logical volume {group.name}/{each.name} was activated while it was read"
    return ""


def find(devices: Mapping[int, str]) -> LogicalVolumes:
    """What is known of the logical volumes on partitions.

    Args:
        devices: The devices of partitions under LVM, by number.
    """
    result = LogicalVolumes()
    if not devices:
        return result
    with contextlib.ExitStack() as stack:
        opened: dict[int, BlockReader] = {}
        for number, path in devices.items():
            opened[number] = stack.enter_context(open_path(path))
        found = grouped(opened)
    active = _mapped()
    ids = frozenset(each.id for each in found.values())
    groups: dict[str, VolumeGroup] = {}
    named = Counter({each.group.id: each.group.name for each in found.values() if each.group}.values())
    for number, each in found.items():
        if each.group is None:
            result.reasons[number] = f"is under LVM, and its metadata cannot be read: {each.problem}"
        elif named[each.group.name] > 1:
            result.reasons[number] = (
                f"is under LVM, and several groups on the disk are called {each.group.name} (vgrename helps)"
            )
        elif unknown := _unknown(each.group, ids, active):
            result.reasons[number] = f"is under LVM, and {unknown}"
        else:
            result.devices[number] = devices[number]
            groups[each.group.id] = each.group
    for group in groups.values():
        result.changes[group.id] = group.seqno
        result.origins |= {f"{group.name}/{each}" for each in origins(group)}
        _sort(group, ids, active, result)
    return result


def _unknown(group: VolumeGroup, ids: frozenset[str], active: Mapping[str, MappedVolume]) -> str:
    """An active volume that lies on the disk in a way that is not read; the end of a sentence, or "".

    Such is what pvmove(8) moves; its extents may be any.
    """
    here = _here(group, ids)
    for volume in group.volumes.values():
        kind = next((segment.type for segment in volume.segments if segment.uses & here), None)
        if kind is not None and _shown(group, volume, active):
            return f"it is not known where {group.name}/{volume.name}, of type {kind}, lies on it"
    return ""


def _here(group: VolumeGroup, ids: frozenset[str]) -> frozenset[str]:
    """Names of the physical volumes of a group that have these ids."""
    return frozenset(place.name for place in group.physical.values() if place.id in ids)


def _sort(
    group: VolumeGroup, ids: frozenset[str], active: Mapping[str, MappedVolume], result: LogicalVolumes
) -> None:
    """Say of each volume of a group that lies on the disk what can stand for it."""
    here = _here(group, ids)
    for volume in group.volumes.values():
        if not any(name in here for segment in volume.segments for name, _ in segment.stripes):
            continue
        name = f"{group.name}/{volume.name}"
        shown = _shown(group, volume, active)
        if not shown and group.shared:
            result.reasons[name] = "is not active here, but its group is shared with hosts where it may be"
        elif not shown:
            result.inactive.add(name)
        elif reason := why_not(group, volume, here) or shown.reason:
            result.reasons[name] = reason
        elif shown.idle and group.shared:
            result.reasons[name] = "is not in use here, but its group is shared with hosts where it may be"
        elif shown.idle:
            result.idle[name] = shown.name
        else:
            result.mounted[name] = shown.name


def _shown(
    group: VolumeGroup, volume: LogicalVolume, active: Mapping[str, MappedVolume]
) -> MappedVolume | None:
    """The device of a volume, or of a part of it if there is only that; None if it is not active."""
    identifier = (group.id + volume.id).replace("-", "")
    return active.get(identifier) or next(
        (each for key, each in active.items() if key.startswith(f"{identifier}-")), None
    )


if sys.platform == "win32":

    def _mapped() -> dict[str, MappedVolume]:
        return {}

else:

    def _mapped() -> dict[str, MappedVolume]:
        from vsssnap._posix import disks  # system modules that an import of the library does not need

        return disks.mapped_volumes()
