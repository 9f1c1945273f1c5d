"""The volume groups that lie on one disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vsssnap.errors import DeviceReadError, ImageError, UsageError
from vsssnap.volumes.lvm.group import VolumeGroup
from vsssnap.volumes.lvm.label import has_label, read_label
from vsssnap.volumes.partitions import Partitions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vsssnap.blocks.reader import BlockReader
    from vsssnap.volumes.lvm.layout import LogicalVolume

WHOLE: Final = 0
"""In the place of a partition's number: the disk itself, without a table, is the physical volume."""


@dataclass(frozen=True)
class Physical:
    """A partition that is a physical volume.

    Attributes:
        id: Its UUID; "" if its label is damaged.
        group: Its group; None if that is not known.
        problem: Why not.
    """

    id: str
    group: VolumeGroup | None = None
    problem: ImageError | DeviceReadError | UsageError | None = None


def physical_volumes(disk: BlockReader) -> dict[int, Physical]:
    """The physical volumes on a disk, by partition; `WHOLE` for a disk without a table.

    Those of one group are put together, so that volumes over several partitions can be opened.

    Raises:
        DeviceReadError: the disk cannot be read where its table is.
    """
    return grouped(dict(_candidates(disk)))


def grouped(readers: Mapping[int, BlockReader]) -> dict[int, Physical]:
    """Physical volumes by partition, those of one group put together.

    Args:
        readers: What is in the partitions.
    """
    labels: dict[int, str] = {}
    found: dict[int, Physical] = {}
    for number, volume in readers.items():
        try:
            labels[number] = read_label(volume).id
        except (ImageError, DeviceReadError) as exc:
            found[number] = Physical("", problem=exc)
    alone: dict[int, VolumeGroup] = {}
    for number, identifier in labels.items():
        try:
            alone[number] = VolumeGroup(readers[number])
        except (ImageError, DeviceReadError, UsageError) as exc:
            found[number] = Physical(identifier, problem=exc)
    todo = dict(labels)
    newest: dict[str, VolumeGroup] = {}
    # One that was away while its group took it out tells an old story: the latest is heard first.
    for number in sorted(alone, key=lambda each: -alone[each].seqno):
        if number not in todo:
            continue
        told = alone[number]
        if told.id in newest:
            found[number] = Physical(labels[number], problem=_outdated(labels[number], newest[told.id]))
            continue
        newest[told.id] = told
        ids = {place.id for place in told.physical.values()}
        members = [each for each in todo if todo[each] in ids and alone.get(each, told).id == told.id]
        try:
            group = VolumeGroup(*(readers[each] for each in members))
        except (ImageError, DeviceReadError, UsageError) as exc:
            found |= {each: Physical(labels[each], problem=exc) for each in members}
        else:
            found |= {each: Physical(labels[each], group) for each in members}
        for each in members:
            del todo[each]
    return dict(sorted(found.items()))


def _outdated(identifier: str, group: VolumeGroup) -> UsageError:
    return UsageError(
        f"the physical volume {identifier} is no longer in the group {group.name}, which it says it is in:"
        f" change {group.seqno} of the group does not know it",
        hint="its logical volumes are on the others of the group; vgck --updatemetadata clears it",
    )


def _candidates(disk: BlockReader) -> Iterator[tuple[int, BlockReader]]:
    """Partitions with a label, or the disk itself."""
    try:
        table = Partitions(disk)
    except ImageError:  # none, or a damaged one
        table = None
    if table is None or not len(table):
        if has_label(disk):
            yield WHOLE, disk
        return
    for partition in table:
        if not partition.extended:
            try:
                volume = partition.open()
                if has_label(volume):
                    yield partition.number, volume
            except (ImageError, DeviceReadError):  # what cannot be read holds no volume to be found
                continue


def find_volume(disk: BlockReader, name: str, partition: int | None = None) -> LogicalVolume:
    """A logical volume on a disk.

    Args:
        disk: The disk.
        name: ``"volume"`` or ``"group/volume"``.
        partition: One that it has to lie on.

    Raises:
        UsageError: there is none, or several.
        ImageError: the only physical volumes there are damaged.
        DeviceReadError: the disk cannot be read.
    """
    found = physical_volumes(disk)
    if partition is not None:
        found = {number: each for number, each in found.items() if number == partition}
    groups = {each.group.id: each.group for each in found.values() if each.group is not None}
    problem = next((each.problem for each in found.values() if each.problem is not None), None)
    if not groups and problem is not None:
        raise problem
    group, _, volume = name.rpartition("/")
    matching = [
        each[volume] for each in groups.values() if volume in each and (not group or each.name == group)
    ]
    if len(matching) == 1:
        return matching[0]
    known = ", ".join(f"{each.name}/{volume.name}" for each in groups.values() for volume in each)
    many = "several logical volumes" if matching else "no logical volume"
    hint = f"there is {known or 'none at all'}"
    if problem is not None:
        hint += f"; and of another physical volume: {problem.message}"
    raise UsageError(f"there is {many} {name!r}", hint=hint)
