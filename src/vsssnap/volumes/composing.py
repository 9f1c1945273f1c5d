"""A disk as pieces: its own table and gaps, and readers of its partitions between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.blocks.window import WindowReader
from vsssnap.errors import CorruptImageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vsssnap.blocks.reader import BlockReader
    from vsssnap.volumes.partitions import Partition


def pieces(disk: BlockReader, parts: Iterable[tuple[Partition, BlockReader]]) -> list[BlockReader]:
    """What to read one behind the other for a disk with other readers in the place of partitions.

    Args:
        disk: The whole disk.
        parts: Partitions with their readers, none larger than its partition; what such a reader
            lacks comes from the disk.

    Raises:
        UsageError: a reader is larger than its partition, or partitions overlap.
        CorruptImageError: a partition ends behind the disk.
    """
    result: list[BlockReader] = []
    at = 0
    for partition, reader in sorted(parts, key=lambda each: each[0].offset):
        number = partition.number
        if partition.end > disk.size:
            raise CorruptImageError(
                f"partition {number} ends at byte {partition.end}, the disk at {disk.size}",
                structure="partition table",
                offset=partition.offset,
            )
        if reader.size > partition.length:
            raise UsageError(
                f"the reader of partition {number} has {reader.size} bytes, it has {partition.length}"
            )
        if partition.offset < at:
            raise UsageError(f"partition {number} overlaps the one before it")
        result += [WindowReader(disk, at, partition.offset - at), reader]
        at = partition.offset + reader.size
    result.append(WindowReader(disk, at, disk.size - at))
    return result
