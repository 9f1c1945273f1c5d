"""What is in an image, as a tree: partitions, LVM, and file systems and shadow copies in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vsssnap._units import format_size
from vsssnap.cli import logical, shadow
from vsssnap.errors import (
    ImageError,
    ImageNotFoundError,
    ParentMismatchError,
    UnknownFormatError,
    VssSnapError,
)

if TYPE_CHECKING:
    from vsssnap.blocks.reader import BlockReader
    from vsssnap.volumes import FileSystem, Partition, Partitions

# What is wrong is another file, and to be said of the image as a whole.
_ELSEWHERE = (ImageNotFoundError, ParentMismatchError)


def contents(reader: BlockReader) -> dict[str, Any]:
    """What is found; parts that cannot be read have an ``error``.

    A disk has ``partitions``, a volume a ``filesystem`` or a ``physical_volume`` of LVM; nothing is
    found in others.

    Raises:
        ImageNotFoundError, ParentMismatchError: an image behind this one is missing.
    """
    from vsssnap.volumes import Partitions

    try:
        table = Partitions(reader)
    except UnknownFormatError:
        return _bare(reader)
    except _ELSEWHERE:
        raise
    except VssSnapError as exc:
        # Damaged tables are worth a word; so is the file system of a volume that looks like a disk.
        return _bare(reader) or {"error": str(exc)}
    return _disk(reader, table) if len(table) else _bare(reader) or _disk(reader, table)


def _bare(reader: BlockReader) -> dict[str, Any]:
    """What is on a volume, or on a disk without a table."""
    return {**_volume(reader), **_physical(reader).get(0, {})}


def _physical(reader: BlockReader) -> dict[int, dict[str, Any]]:
    """What LVM has there, by partition."""
    try:
        return logical.contents(reader, _in_volume)
    except _ELSEWHERE:
        raise
    except VssSnapError:  # what cannot be read is told where it is
        return {}


def _disk(reader: BlockReader, table: Partitions) -> dict[str, Any]:
    physical = _physical(reader)
    return {
        "table": table.scheme,
        "sector_size": table.sector_size,
        "disk_id": table.disk_id if not isinstance(table.disk_id, int) else f"0x{table.disk_id:08x}",
        "hybrid": bool(table.hybrid),
        "notes": table.notes,
        "partitions": [
            {**_partition(partition), **physical.get(partition.number, {})} for partition in table
        ],
    }


def _partition(partition: Partition) -> dict[str, Any]:
    kind = partition.type
    values: dict[str, Any] = {
        "number": partition.number,
        "offset": partition.offset,
        "length": partition.length,
        "type": f"0x{kind:02x}" if isinstance(kind, int) else kind,
        "type_name": partition.type_name,
        "name": partition.name,
        "id": partition.id,
    }
    if not partition.extended:
        try:
            volume = partition.open()
        except ImageError as exc:
            values["error"] = str(exc)
        else:
            values |= _in_volume(volume)
    return values


def _in_volume(volume: BlockReader) -> dict[str, Any]:
    """A file system, and the shadow copies in it."""
    values = _volume(volume)
    if values.get("filesystem", {}).get("name") == "ntfs":
        values |= shadow.contents(volume)
    return values


def _volume(reader: BlockReader) -> dict[str, Any]:
    from vsssnap.volumes import filesystem

    try:
        found = filesystem(reader)
    except _ELSEWHERE:
        raise
    except VssSnapError as exc:
        return {"error": str(exc)}
    return {"filesystem": _filesystem(found)} if found is not None else {}


def _filesystem(found: FileSystem) -> dict[str, Any]:
    return {
        "name": found.name,
        "label": found.label,
        "serial": found.serial,
        "size": found.size,
        "block_size": found.block_size,
        "dirty": found.dirty,
        "doubt": found.doubt,
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The tree for people."""
    if "partitions" not in found:
        yield from _described(found)
        return
    yield f"{found['table']} disk {found['disk_id']}, sectors of {found['sector_size']} bytes" + (
        ", with an MBR of its own beside it" if found["hybrid"] else ""
    )
    for note in found["notes"]:
        yield f"│  {note}"
    parts = found["partitions"]
    for part in parts:
        last = part is parts[-1]
        words = [
            f"partition {part['number']}",
            f"{format_size(part['length'])} at {format_size(part['offset'])}",
            part["type_name"] or str(part["type"]),
        ]
        yield ("└─ " if last else "├─ ") + ", ".join(words) + (f' "{part["name"]}"' if part["name"] else "")
        for line in _described(part):
            yield ("   " if last else "│  ") + ("" if line.startswith(" ") else "└─ ") + line


def _described(found: dict[str, Any]) -> Iterator[str]:
    if "physical_volume" in found:
        yield from logical.lines(found["physical_volume"], _described)
    if "error" in found:
        yield found["error"]
    if "filesystem" in found:
        fs = found["filesystem"]
        label = f' "{fs["label"]}"' if fs["label"] else ""
        serial = f" {fs['serial']}" if fs["serial"] else ""
        yield f"{fs['name']}{label}{serial}, {format_size(fs['size'])}" + (
            f", every block counts: {fs['doubt']}" if fs["doubt"] else ""
        )
    for problem in found.get("shadow_problems", ()):
        yield f"its shadow copies: {problem}"
    for copy in found.get("shadow_copies", ()):
        taken = "at an unknown time" if copy["created"] is None else f"{copy['created']:%Y-%m-%d %H:%M:%S %Z}"
        unreadable = "" if copy["readable"] else ", unreadable"
        yield f"shadow copy {copy['number']}, {taken}, {copy['copy_id'] or copy['store_id']}{unreadable}"
