"""A volume as the only partition of a disk, and back again.

Disk images are mounted as disks: a volume that lies in one without a partition table is found by no
system.  So the volume gets a GPT around it, and what it was can be had back.  By two marks: the
metadata of the image say where the volume is, where the image has metadata; and the table says it
itself, for the id of the partition follows from that of the disk and the size of the volume.  So an
image without metadata is known too, also when another program wrote it in another format.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4, uuid5

from vsssnap._units import MIB, round_up, whole
from vsssnap.blocks.concat import ConcatReader
from vsssnap.blocks.plain import PlainReader
from vsssnap.blocks.reader import BlockReader, as_reader
from vsssnap.blocks.window import WindowReader
from vsssnap.errors import CorruptImageError, DeviceReadError, ImageError, UnknownFormatError, UsageError
from vsssnap.volumes.detect import filesystem
from vsssnap.volumes.partitions import Partition, Partitions
from vsssnap.volumes.partitions.building import one_partition
from vsssnap.volumes.partitions.names import BASIC_DATA, LINUX_DATA
from vsssnap.volumes.signatures import has_table, others

if TYPE_CHECKING:
    from vsssnap.blocks.reader import SupportsPread
    from vsssnap.metadata import ImageMetadata

__all__ = ["Wrapping", "as_disk", "described", "from_disk", "is_volume", "unwrapped", "wrapping_of"]

OFFSET: Final = MIB
"""Where the partition of a wrapped volume begins; its disk is a multiple of it."""

SECTOR_SIZES: Final = (512, 4096)

_ATTACHED: Final = "wrapped-volume.json"  # the attachment that says where the volume is
_NOTE: Final = "the volume was wrapped into a disk with one partition"
_OF_WINDOWS: Final = frozenset({"ntfs", "exfat", "fat12", "fat16", "fat32", "ReFS", "BitLocker"})


@dataclass(frozen=True, slots=True)
class Wrapping:
    """The disk around a wrapped volume.

    Attributes:
        offset: First byte of the volume.
        length: Bytes of the volume; the partition may be larger by less than a sector.
        disk_id: GUID of the disk.
        partition: The partition; None of a disk that is not there.
        sector_size: Bytes that the table counts in.
    """

    offset: int
    length: int
    disk_id: UUID
    partition: Partition | None = None
    sector_size: int = 512

    def encoded(self) -> bytes:
        """As an attachment of the metadata."""
        values = {"offset": self.offset, "length": self.length, "disk": str(self.disk_id)}
        return json.dumps(values, sort_keys=True).encode()


def mark(disk_id: UUID, length: int) -> UUID:
    """The partition id by which a disk is known as one around a volume of ``length`` bytes."""
    return uuid5(disk_id, f"a volume of {length} bytes")


def as_disk(
    volume: SupportsPread,
    /,
    *,
    disk_id: UUID | None = None,
    partition_id: UUID | None = None,
    name: str = "",
    sector_size: int | None = None,
    owned: bool = False,
) -> BlockReader:
    """A volume as the only partition of a GPT disk, which systems can mount.

    The partition begins at 1 MiB, and its type is the one that its file system lives in.  The
    metadata say that the volume was wrapped; `from_disk` takes it out again.

    Args:
        volume: The volume.
        disk_id: GUID of the disk; a new one by default.
        partition_id: GUID of the partition; by default one that follows from ``disk_id`` and the
            size of the volume, by which `from_disk` knows the disk also without its metadata.
        name: Name of the partition, up to 36 characters.
        sector_size: What the disk counts in, 512 or 4096 bytes; by default as the volume.
        owned: Whether closing the disk closes ``volume``.

    Raises:
        UsageError: the name is too long or no text, or there is no such sector size.
    """
    reader = as_reader(volume)
    try:
        long = len(name.encode("utf-16-le")) > 72
    except UnicodeEncodeError:  # lone surrogates
        raise UsageError(f"the name {name!r} is no text") from None
    if long:
        raise UsageError(f"the name {name!r} has more than 36 characters")
    sector = (4096 if reader.sector_size == 4096 else 512) if sector_size is None else sector_size
    if whole(sector, "sector_size") not in SECTOR_SIZES:
        raise UsageError(f"sector_size is {sector}", hint="disks have sectors of 512 or 4096 bytes")
    disk_id = disk_id or uuid4()
    where = Wrapping(OFFSET, reader.size, disk_id)
    length = max(sector, round_up(reader.size, sector))
    size = round_up(OFFSET + length, OFFSET) + OFFSET
    head, tail = one_partition(
        size,
        sector,
        offset=OFFSET,
        length=length,
        kind=_kind(reader),
        name=name,
        disk_id=disk_id,
        partition_id=partition_id or mark(disk_id, reader.size),
    )
    gap = PlainReader(b"", size - len(tail) - OFFSET - reader.size)
    parts = [PlainReader(head, OFFSET), reader, gap, PlainReader(tail, len(tail))]
    disk = ConcatReader(parts, metadata=described(reader.metadata, where), owned=owned)
    disk.sector_size = sector
    return disk


def _kind(volume: BlockReader) -> UUID:
    """The partition type for what a volume holds."""
    try:
        found = filesystem(volume)
        names = [found.name] if found is not None else list(others(volume))
    except DeviceReadError:  # a failing disk is imaged all the same
        names = []
    return LINUX_DATA if names and names[0] not in _OF_WINDOWS else BASIC_DATA


def described(metadata: ImageMetadata, where: Wrapping) -> ImageMetadata:
    """The metadata of a volume as those of the disk around it."""
    notes = metadata.notes if _NOTE in metadata.notes else (*metadata.notes, _NOTE)
    documents = {**metadata.documents, _ATTACHED: where.encoded()}
    return metadata.replace(notes=notes, documents=documents)


def unwrapped(metadata: ImageMetadata) -> ImageMetadata:
    """A disk's metadata as those of a volume in it: they speak of no disk around it."""
    documents = {name: data for name, data in metadata.documents.items() if name != _ATTACHED}
    return metadata.replace(
        documents=documents, notes=tuple(note for note in metadata.notes if note != _NOTE)
    )


def from_disk(disk: SupportsPread, /) -> BlockReader:
    """The volume that `as_disk` wrapped, or the disk itself if none was.

    Args:
        disk: An image of it; it stays open when what is returned is closed.

    Raises:
        CorruptImageError: the metadata speak of a volume that is not where they say.
        DeviceReadError: the partition table cannot be read.
    """
    reader = as_reader(disk)
    where = wrapping_of(reader)
    if where is None:
        return reader
    return WindowReader(reader, where.offset, where.length, metadata=unwrapped(reader.metadata))


def wrapping_of(disk: BlockReader) -> Wrapping | None:
    """The disk around a wrapped volume; None if it is another disk, or a volume.

    Raises:
        CorruptImageError, DeviceReadError: see `from_disk`.
    """
    if _ATTACHED in disk.metadata.documents:
        return _as_said(disk)
    try:
        table = Partitions(disk)
    except (UnknownFormatError, CorruptImageError):
        return None
    only = next(iter(table), None)
    if len(table) != 1 or only is None or not isinstance(table.disk_id, UUID) or only.offset != OFFSET:
        return None
    # The volume may end inside of the last sector; one without a byte has a sector all the same.
    for length in range(only.length, max(-1, only.length - table.sector_size - 1), -1):
        if mark(table.disk_id, length) == only.id and only.end <= disk.size:
            return Wrapping(OFFSET, length, table.disk_id, only, table.sector_size)
    return None


def _as_said(disk: BlockReader) -> Wrapping:
    """The disk as its metadata have it.

    Raises:
        CorruptImageError: it is another one.
    """
    try:
        values = json.loads(disk.metadata.documents[_ATTACHED])
        offset, length, disk_id = int(values["offset"]), int(values["length"]), UUID(values["disk"])
        table = Partitions(disk)
    except (ImageError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as exc:
        raise _misplaced(str(exc)) from None
    only = next(iter(table), None)
    if table.disk_id != disk_id or len(table) != 1 or only is None or only.offset != offset:
        raise _misplaced("the partition table has other numbers")
    if not 0 <= length <= only.length or only.end > disk.size:
        raise _misplaced(f"{length} bytes are more than there are")
    return Wrapping(offset, length, disk_id, only, table.sector_size)


def _misplaced(why: str) -> CorruptImageError:
    return CorruptImageError(
        f"the volume in the disk is not where the metadata say: {why}",
        structure=_ATTACHED,
        hint="open the partition by its number",
    )


def is_volume(reader: BlockReader) -> bool:
    """Whether a reader shows a volume and no disk.

    What begins with a partition table is a disk.  Else it is a volume if it comes from a snapshot,
    which is taken of volumes, or if it holds what lies on volumes.

    Args:
        reader: Any reader.

    Raises:
        DeviceReadError: it cannot be read where that must be looked up.
    """
    if has_table(reader):
        return False
    if reader.metadata.provider or filesystem(reader) is not None:
        return True
    return next(others(reader), None) is not None
