"""When a volume is saved as a disk, and how an increment of such an image is one too."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING
from uuid import uuid4

from vsssnap._arguments import path_text
from vsssnap.blocks.extent import Extent
from vsssnap.errors import DeviceReadError, UsageError
from vsssnap.formats import registry
from vsssnap.formats.storage import Storage
from vsssnap.volumes.wrapping import OFFSET, Wrapping, as_disk, described, is_volume, wrapping_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from vsssnap.blocks.reader import BlockReader
    from vsssnap.formats.base import ImageReader
    from vsssnap.metadata import ImageMetadata


def wrapping_for(
    reader: BlockReader,
    target: str | os.PathLike[str] | Storage,
    format: str | None,
    options: object,
    parent: ImageReader | None,
    wrap: bool | None,
) -> Wrapping | None:
    """The disk to put around a source; None for none.  The arguments are those of `save_image`."""
    if wrap is False or (isinstance(target, Storage) and format is None):
        return None
    driver = registry.by_name(format) if format is not None else registry.by_suffix(path_text(target))
    sector = driver.disk_sector_size(options)
    if wrap is None and (sector is None or not _looks_like_volume(reader)):
        return None
    around = wrapping_of(parent) if parent is not None else None
    if around is not None or (parent is not None and wrap is None):
        return around
    if sector is None:
        sector = 4096 if reader.sector_size == 4096 else 512
    return Wrapping(OFFSET, reader.size, uuid4(), sector_size=sector)


def _looks_like_volume(reader: BlockReader) -> bool:
    try:
        return is_volume(reader)
    except DeviceReadError:
        # The copy itself will tell, or keep what can be read.
        return bool(reader.metadata.provider)


def wrapped(volume: BlockReader, where: Wrapping, metadata: ImageMetadata | None) -> BlockReader:
    """A volume in a disk: a new one, or one just like that around an older state of the volume.

    Args:
        volume: The volume.
        where: What `wrapping_for` gave.
        metadata: In place of those of the volume.

    Raises:
        UsageError: the older state had another size.
    """
    if where.length != volume.size:
        raise UsageError(
            f"the volume has {volume.size} bytes, that in the parent {where.length}",
            hint="it was resized: save a full image",
        )
    before = where.partition
    disk = as_disk(
        volume,
        disk_id=where.disk_id,
        partition_id=before.id if before is not None else None,
        name=before.name if before is not None else "",
        sector_size=where.sector_size,
    )
    if metadata is not None:
        disk.metadata = described(metadata, where)
    return disk


def moved(changes: Iterable[Extent], volume_size: int, disk: BlockReader) -> Iterator[Extent]:
    """The changes of a volume as those of the disk around it, whose tables are written in any case.

    Raises:
        UsageError: one of them leaves the volume.
    """
    end = OFFSET + volume_size
    return chain(
        (Extent(0, OFFSET),),
        (_moved(change, volume_size) for change in changes),
        (Extent(end, disk.size - end),),
    )


def _moved(change: Extent, volume_size: int) -> Extent:
    if change.offset < 0 or change.end > volume_size:
        raise UsageError(
            f"changes: {change.length} bytes at {change.offset} are not in a volume of {volume_size}",
            hint="give ascending ranges inside the volume",
        )
    return Extent(change.offset + OFFSET, change.length, change.kind)
