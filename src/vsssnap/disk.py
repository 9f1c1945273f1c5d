"""Whole disks: one of several readers, one around a volume, and one with ids of its own."""

from __future__ import annotations

import enum
import json
from typing import TYPE_CHECKING, TypedDict
from uuid import UUID, uuid4

from vsssnap._units import MIB, round_up
from vsssnap.blocks.concat import ConcatReader
from vsssnap.blocks.extent import Extent, ExtentKind, overlay
from vsssnap.blocks.reader import BlockReader, as_reader
from vsssnap.blocks.window import WindowReader
from vsssnap.errors import CorruptImageError, ImageError, UsageError
from vsssnap.volumes.composing import pieces
from vsssnap.volumes.detect import filesystem
from vsssnap.volumes.partitions import Partitions
from vsssnap.volumes.partitions.building import new_ids, one_partition
from vsssnap.volumes.partitions.names import BASIC_DATA, LINUX_DATA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vsssnap.blocks.reader import SupportsPread
    from vsssnap.metadata import ImageMetadata
    from vsssnap.volumes.partitions import Partition

__all__ = ["DiskReader", "Uncovered", "as_disk", "from_disk", "new_disk_id"]

_ALIGNED = MIB  # where the partition of a wrapped volume begins, and what its disk is rounded to
_WRAPPED = "wrapped-volume.json"  # the attachment that says where the volume is
_OF_WINDOWS = frozenset({"ntfs", "exfat", "fat12", "fat16", "fat32"})


class Uncovered(enum.StrEnum):
    """What a `DiskReader` does about a partition that it is given no reader for."""

    READ = "read"
    """Read it from the disk as it is: of a disk in use not as it was at the others' instant."""
    LEAVE_OUT = "leave-out"
    """It is EXCLUDED, and reads as zeros."""


class _Where(TypedDict):
    """The attachment of a wrapped volume."""

    offset: int
    length: int
    disk: str


class DiskReader(ConcatReader):
    """A disk whose partitions come from readers of their own, such as snapshots of its volumes.

    ::

        with Snapshot("/boot", "/srv") as s, open_device("/dev/sda") as disk:
            save_image(DiskReader(disk, {1: s.open("/boot"), 2: s.open("/srv")}), "server.vsnap")

    The partition table and what lies between the partitions (boot loaders) come from the disk.  A
    reader may be shorter than its partition; the rest comes from the disk too.
    """

    def __init__(
        self,
        disk: SupportsPread,
        volumes: Mapping[int, SupportsPread],
        /,
        *,
        uncovered: Uncovered | None = None,
        owned: bool = False,
        metadata: ImageMetadata | None = None,
    ) -> None:
        """Compose a disk.

        Args:
            disk: The whole disk.
            volumes: Readers by partition number.
            uncovered: What to do about partitions that are not in ``volumes``; None refuses them.
            owned: Whether closing this closes the readers.
            metadata: By default that of ``disk``.

        Raises:
            UnknownFormatError: the disk has no partition table.
            CorruptImageError: no copy of the table is good, or a partition ends behind the disk.
            UsageError: there is no such partition, a reader is larger than its partition, partitions
                overlap, or one has no reader and ``uncovered`` is not named.
        """
        base = as_reader(disk)
        table = Partitions(base)
        for number in volumes:
            if table[number].extended:
                raise UsageError(f"partition {number} only contains others", hint="give readers for those")
        parts: list[tuple[Partition, BlockReader]] = []
        left_out = []
        for partition in table:
            if partition.number in volumes:
                parts.append((partition, as_reader(volumes[partition.number])))
            elif partition.extended or uncovered is Uncovered.READ:
                continue  # it is part of what lies between the others
            elif uncovered is None:
                raise UsageError(
                    f"partition {partition.number} has no reader",
                    hint="give it one, or say uncovered=Uncovered.READ or Uncovered.LEAVE_OUT",
                )
            else:
                parts.append((partition, _Plain(b"", partition.length, kind=ExtentKind.EXCLUDED)))
                left_out.append(f"partition {partition.number}")
        said = metadata if metadata is not None else base.metadata
        super().__init__(pieces(base, parts), metadata=said.replace(exclusions=(*said.exclusions, *left_out)))
        self.sector_size = table.sector_size
        self._base = base
        self._closes = owned

    def _confirm(self) -> None:
        self._base.confirm()
        super()._confirm()

    def _release(self) -> None:
        if self._closes:
            for part in (*self._parts, self._base):
                part.close()


class _Plain(BlockReader):
    """Some bytes, and after them a range of zeros of one kind."""

    def __init__(self, content: bytes, size: int, *, kind: ExtentKind = ExtentKind.ZERO) -> None:
        super().__init__(size)
        self._content = content
        self._kind = kind

    def _read(self, length: int, offset: int) -> bytes:
        return self._content[offset : offset + length].ljust(length, b"\0")

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        data = max(0, min(len(self._content) - offset, length))
        if data:
            yield Extent(offset, data)
        if data < length:
            yield Extent(offset + data, length - data, self._kind)


class _Patched(BlockReader):
    """A reader with other bytes in some places."""

    def __init__(
        self, source: BlockReader, patches: Sequence[tuple[int, bytes]], metadata: ImageMetadata
    ) -> None:
        super().__init__(source.size, sector_size=source.sector_size, metadata=metadata)
        self._source = source
        self._patches = sorted(patches)

    @property
    def origins(self) -> tuple[str, ...]:
        return self._source.origins

    def _read_into(self, view: memoryview, offset: int) -> None:
        self._source.preadinto(view, offset)
        for at, content in self._patches:
            first, last = max(at, offset), min(at + len(content), offset + len(view))
            if first < last:
                view[first - offset : last - offset] = content[first - at : last - at]

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        patched = (
            Extent(max(at, offset), min(at + len(content), offset + length) - max(at, offset))
            for at, content in self._patches
            if at < offset + length and at + len(content) > offset
        )
        return overlay(self._source.extents(offset, length), patched)

    def _confirm(self) -> None:
        self._source.confirm()


def as_disk(
    volume: SupportsPread,
    /,
    *,
    disk_id: UUID | None = None,
    partition_id: UUID | None = None,
    name: str = "",
    owned: bool = False,
) -> BlockReader:
    """A volume as the only partition of a GPT disk, which systems can mount.

    The partition begins at 1 MiB, and its type is the one that its file system lives in.  The
    metadata say that the volume was wrapped; `from_disk` takes it out again.

    Args:
        volume: The volume.
        disk_id: GUID of the disk; a new one by default.
        partition_id: GUID of the partition; a new one by default.
        name: Name of the partition, up to 36 characters.
        owned: Whether closing the disk closes ``volume``.

    Raises:
        UsageError: the name is too long.
        DeviceReadError: the volume cannot be read.
    """
    reader = as_reader(volume)
    if len(name.encode("utf-16-le")) > 72:
        raise UsageError(f"the name {name!r} has more than 36 characters")
    sector = 4096 if reader.sector_size == 4096 else 512
    found = filesystem(reader)
    kind = LINUX_DATA if found is not None and found.name not in _OF_WINDOWS else BASIC_DATA
    length = max(sector, round_up(reader.size, sector))
    size = round_up(_ALIGNED + length, _ALIGNED) + _ALIGNED
    disk_id = disk_id or uuid4()
    head, tail = one_partition(
        size,
        sector,
        offset=_ALIGNED,
        length=length,
        kind=kind,
        name=name,
        disk_id=disk_id,
        partition_id=partition_id or uuid4(),
    )
    said = _encoded(_Where(offset=_ALIGNED, length=reader.size, disk=str(disk_id)))
    metadata = reader.metadata.replace(
        notes=(*reader.metadata.notes, "the volume was wrapped into a disk with one partition"),
        documents={**reader.metadata.documents, _WRAPPED: said},
    )
    gap = _Plain(b"", size - len(tail) - _ALIGNED - reader.size)
    parts = [_Plain(head, _ALIGNED), reader, gap, _Plain(tail, len(tail))]
    disk = ConcatReader(parts, owned=owned, metadata=metadata)
    disk.sector_size = sector
    return disk


def from_disk(disk: SupportsPread, /) -> BlockReader:
    """The volume that `as_disk` wrapped, or the disk itself if none was.

    Args:
        disk: An image of it; it stays open when what is returned is closed.

    Raises:
        CorruptImageError: the metadata speak of a volume that is not where they say.
    """
    reader = as_reader(disk)
    if _WRAPPED not in reader.metadata.documents:
        return reader
    where = _wrapped(reader)
    said = unwrapped(reader.metadata)
    return WindowReader(reader, where["offset"], where["length"], metadata=said)


def unwrapped(metadata: ImageMetadata) -> ImageMetadata:
    """A disk's metadata as those of a volume in it: they speak of no disk around it."""
    documents = {name: data for name, data in metadata.documents.items() if name != _WRAPPED}
    return metadata.replace(documents=documents)


def new_disk_id(disk: SupportsPread, /) -> BlockReader:
    """The disk with ids of its own, for a copy that is to meet its original on one machine.

    Windows takes a disk offline whose id it has already, or gives it a new one; then what starts it
    no longer finds it.  Under GPT the disk and all its partitions get new GUIDs, under MBR the disk a
    new signature.  What refers to the old ones (boot loaders, ``fstab``) has to be told.

    Args:
        disk: The whole disk; closing what is returned leaves it open.

    Raises:
        UnknownFormatError: it has no partition table.
        CorruptImageError: a copy of the table is damaged; repair it first.
    """
    reader = as_reader(disk)
    patches = new_ids(reader, Partitions(reader))
    said = reader.metadata
    said = said.replace(notes=(*said.notes, "the disk has new ids"))
    changed = _Patched(reader, patches, said)
    if _WRAPPED in said.documents:
        where = _wrapped(reader)
        wrapped = _Where(
            offset=where["offset"], length=where["length"], disk=str(Partitions(changed).disk_id)
        )
        changed.metadata = said.replace(documents={**said.documents, _WRAPPED: _encoded(wrapped)})
    return changed


def _encoded(values: _Where) -> bytes:
    return json.dumps(values, sort_keys=True).encode()


def _wrapped(disk: BlockReader) -> _Where:
    """What the metadata say of the volume in a disk, if that is so.

    Raises:
        CorruptImageError: it is not.
    """
    try:
        values = json.loads(disk.metadata.documents[_WRAPPED])
        where = _Where(
            offset=int(values["offset"]), length=int(values["length"]), disk=str(UUID(values["disk"]))
        )
        table = Partitions(disk)
    except (ImageError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as exc:
        raise _misplaced(str(exc)) from None
    if str(table.disk_id) != where["disk"] or len(table) != 1 or table[1].offset != where["offset"]:
        raise _misplaced("the partition table has other numbers")
    if not 0 <= where["length"] <= table[1].length or table[1].end > disk.size:
        raise _misplaced(f"{where['length']} bytes are more than there are")
    return where


def _misplaced(why: str) -> CorruptImageError:
    return CorruptImageError(
        f"the volume in the disk is not where the metadata say: {why}",
        structure=_WRAPPED,
        hint="open the partition by its number",
    )
