"""What LVM has on a disk, for ``vsssnap info``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from vsssnap._units import format_size
from vsssnap.errors import ImageError, UsageError

if TYPE_CHECKING:
    from vsssnap.blocks.reader import BlockReader
    from vsssnap.volumes import LogicalVolume


def contents(
    disk: BlockReader, describe: Callable[[BlockReader], dict[str, Any]]
) -> dict[int, dict[str, Any]]:
    """The ``physical_volume`` of each partition that is one; 0 stands for the disk itself.

    The logical volumes of a group are told with the first of its partitions.

    Args:
        disk: The disk.
        describe: What is in a volume.
    """
    from vsssnap.volumes.lvm.finding import physical_volumes

    result: dict[int, dict[str, Any]] = {}
    told: set[str] = set()
    for number, found in physical_volumes(disk).items():
        values: dict[str, Any] = {"id": found.id}
        if found.problem is not None:
            values["error"] = str(found.problem)
        if found.group is not None:
            values |= {"group": found.group.name, "group_id": found.group.id, "notes": found.group.notes}
            if found.group.id not in told:
                told.add(found.group.id)
                values["volumes"] = [_volume(each, describe) for each in found.group]
        result[number] = {"physical_volume": values}
    return result


def _volume(volume: LogicalVolume, describe: Callable[[BlockReader], dict[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": volume.name,
        "id": volume.id,
        "size": volume.size,
        "types": volume.types,
    }
    try:
        return values | describe(volume.open())
    except (ImageError, UsageError) as exc:
        return {**values, "error": str(exc)}


def lines(found: dict[str, Any], describe: Callable[[dict[str, Any]], Iterator[str]]) -> Iterator[str]:
    """A physical volume for people.

    Args:
        found: Of `contents`.
        describe: Lines about what is in a volume.
    """
    if "group" not in found:
        yield f"LVM physical volume: {found['error']}"
        return
    yield f"LVM physical volume of the group {found['group']}" + (
        "" if "volumes" in found else ", whose logical volumes are shown above"
    )
    for note in found["notes"]:
        yield f"   {note}"
    for volume in found.get("volumes", ()):
        types = f", {' and '.join(volume['types'])}" if volume["types"] != ("linear",) else ""
        yield f"   └─ logical volume {volume['name']}, {format_size(volume['size'])}{types}"
        for line in describe(volume):
            yield f"      └─ {line}" if not line.startswith(" ") else f"      {line}"
