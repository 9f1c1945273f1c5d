"""A physical volume put together: its own metadata and what no volume has, and readers of logical volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.blocks.extent import ExtentKind
from vsssnap.blocks.plain import PlainReader
from vsssnap.blocks.window import WindowReader
from vsssnap.errors import CorruptImageError, SourceChangedError
from vsssnap.volumes.lvm.layout import LINEAR
from vsssnap.volumes.policy import UnusedPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vsssnap.blocks.reader import BlockReader
    from vsssnap.volumes.lvm.group import VolumeGroup
    from vsssnap.volumes.lvm.layout import LogicalVolume, PhysicalVolume


def pieces(
    group: VolumeGroup,
    place: PhysicalVolume,
    volume: BlockReader,
    readers: Mapping[str, BlockReader],
    unused: UnusedPolicy,
) -> list[BlockReader]:
    """What to read one behind the other for a physical volume with other readers for logical ones.

    Args:
        group: Its group.
        place: Which of its physical volumes it is.
        volume: What is on it.
        readers: Readers by the name of the logical volume, all of whose segments are linear.
        unused: What becomes of extents that no logical volume has.

    Raises:
        SourceChangedError: a reader has another size than its logical volume.
        CorruptImageError: extents belong to two logical volumes, or are behind the end.
    """
    parts: list[tuple[int, int, BlockReader | None]] = []
    for each in group.volumes.values():
        reader = readers.get(each.name)
        if reader is not None and reader.size != each.size:
            raise SourceChangedError(
                f"the logical volume {group.name}/{each.name} has {reader.size} bytes, and {each.size} in"
                " the description of its group",
                hint="it was resized meanwhile; try again",
            )
        for offset, length, at in _on(each, place):
            parts.append((offset, length, None if reader is None else WindowReader(reader, at, length)))
    result: list[BlockReader] = []
    known = unused is UnusedPolicy.ZERO and all_known(group)
    at = 0
    for offset, length, window in sorted(parts, key=lambda part: part[0]):
        if offset < at or offset + length > volume.size:
            raise CorruptImageError(
                f"an extent at byte {offset} of the physical volume {place.id} "
                + ("belongs to two logical volumes" if offset < at else "is behind its end"),
                structure="LVM metadata",
                offset=offset,
                hint="vgcfgrestore(8) writes an older description",
            )
        result += _free(volume, place, at, offset, known=known)
        result.append(window if window is not None else WindowReader(volume, offset, length))
        at = offset + length
    result += _free(volume, place, at, volume.size, known=known)
    return result


def _on(volume: LogicalVolume, place: PhysicalVolume) -> Iterator[tuple[int, int, int]]:
    """Where a logical volume lies on a physical one: offset there, length, offset in the logical one.

    Of a striped segment the last is none that a window could be made of.
    """
    for segment in volume.segments:
        for name, offset in segment.stripes:
            if name == place.name:
                yield offset, segment.length // len(segment.stripes), segment.offset


def _free(
    volume: BlockReader, place: PhysicalVolume, offset: int, end: int, *, known: bool
) -> Iterator[BlockReader]:
    """What lies between the logical volumes: metadata before and behind the extents, and free extents."""
    first, last = max(offset, place.start), min(end, place.end)
    if not known or first >= last:
        first = last = end
    if offset < first:
        yield WindowReader(volume, offset, first - offset)
    if first < last:
        yield PlainReader(b"", last - first, kind=ExtentKind.HOLE)
    if last < end:
        yield WindowReader(volume, last, end - last)


def all_known(group: VolumeGroup) -> bool:
    """Whether it is known of every extent of a group if a logical volume has it."""
    return not any(
        group.physical.keys() & segment.uses
        for volume in group.volumes.values()
        for segment in volume.segments
    )


def origins(group: VolumeGroup) -> frozenset[str]:
    """Names of logical volumes with snapshots of LVM.

    A snapshot holds only what was overwritten since, and is read through its origin: also what was in
    use then and is free now.
    """
    uses = [
        segment.uses
        for volume in group.volumes.values()
        for segment in volume.segments
        if segment.type == "snapshot"
    ]
    return frozenset(group.volumes) & frozenset().union(*uses)


def why_not(group: VolumeGroup, volume: LogicalVolume, here: frozenset[str]) -> str:
    """Why a snapshot of a logical volume cannot stand for its extents; the end of a sentence, or "".

    Args:
        group: Its group.
        volume: One that lies on a physical volume itself.
        here: Names of the physical volumes on the disk.
    """
    if volume.doubt:
        return volume.doubt
    parent = next(
        (
            (each.name, segment.type)
            for each in group.volumes.values()
            for segment in each.segments
            if volume.name in segment.uses and segment.type != "snapshot"  # which leaves its origin as it is
        ),
        None,
    )
    if parent is not None:
        return f"is a part of {group.name}/{parent[0]}, of type {parent[1]}"
    other = next((kind for kind in volume.types if kind != LINEAR), None)
    if other is not None:
        return f"is of type {other}"
    away = sorted({name for segment in volume.segments for name, _ in segment.stripes if name not in here})
    if away:
        places = ", ".join(group.physical[name].device or group.physical[name].id for name in away)
        return f"spans disks: it lies also on {places}"
    return "" if volume.visible else "is hidden, a part of something else"
