"""One disk of several readers, and one with ids of its own."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from vsssnap.blocks.concat import ConcatReader
from vsssnap.blocks.extent import Extent, ExtentKind, overlay
from vsssnap.blocks.plain import PlainReader
from vsssnap.blocks.reader import BlockReader, as_reader
from vsssnap.errors import UsageError
from vsssnap.volumes.composing import pieces
from vsssnap.volumes.partitions import Partitions
from vsssnap.volumes.partitions.building import new_ids
from vsssnap.volumes.wrapping import described, mark, wrapping_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vsssnap.blocks.reader import SupportsPread
    from vsssnap.metadata import ImageMetadata
    from vsssnap.volumes.partitions import Partition

__all__ = ["DiskReader", "Uncovered", "new_disk_id"]


class Uncovered(enum.StrEnum):
    """What a `DiskReader` does about a partition that it is given no reader for."""

    READ = "read"
    """Read it from the disk as it is: of a disk in use not as it was at the others' instant."""
    LEAVE_OUT = "leave-out"
    """It is EXCLUDED, and reads as zeros."""


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
                parts.append((partition, PlainReader(b"", partition.length, kind=ExtentKind.EXCLUDED)))
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
    table, where = Partitions(reader), wrapping_of(reader)
    disk_id, only = uuid4(), None
    if where is not None and where.partition is not None and isinstance(table.disk_id, UUID):
        # A partition id that says that this is a wrapped volume goes on saying it.
        marked = where.partition.id == mark(table.disk_id, where.length)
        only = mark(disk_id, where.length) if marked else None
    patches = new_ids(reader, table, disk_id=disk_id, only=only)
    said = reader.metadata.replace(notes=(*reader.metadata.notes, "the disk has new ids"))
    if where is not None:
        said = described(said, dataclasses.replace(where, disk_id=disk_id))
    return _Patched(reader, patches, said)
