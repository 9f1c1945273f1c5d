"""The partition table of a disk, whichever kind it is."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING
from uuid import UUID

from vsssnap._units import is_power_of_two, whole
from vsssnap.blocks.reader import as_reader
from vsssnap.errors import CorruptImageError, UnknownFormatError, UsageError
from vsssnap.volumes.partitions import gpt, mbr
from vsssnap.volumes.partitions.names import PROTECTIVE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.blocks.reader import BlockReader, SupportsPread
    from vsssnap.volumes.partitions.partition import Partition


class Scheme(enum.StrEnum):
    """Kinds of partition tables."""

    GPT = "gpt"
    MBR = "mbr"


class Partitions:
    """The partitions of a disk, by number.

    ::

        with open_image("disk.raw") as disk:
            volume = Partitions(disk)[2].open()

    Iteration gives the partitions by rising number; ``len`` and ``in`` (a number) work too.  The
    table is read once, by the constructor; what is wrong with it and can be borne is in ``notes``.

    A GPT counts where the master boot record guards it, or is no record at all; one good copy of
    the two is enough.  Entries beside the guarding one (a hybrid MBR) are in ``hybrid``.

    Attributes:
        scheme: The kind of table.
        sector_size: Bytes; what the table counts in.
        disk_id: The disk's GUID under GPT, its 32 bit signature under MBR.
        hybrid: Partitions of the MBR beside a GPT; empty if it is a plain one.
        notes: What is wrong with the table, a sentence each.
    """

    scheme: Scheme
    sector_size: int
    disk_id: UUID | int
    hybrid: tuple[Partition, ...]
    notes: tuple[str, ...]

    def __init__(self, disk: SupportsPread, *, sector_size: int | None = None) -> None:
        """Read the table.

        Args:
            disk: The whole disk; it stays the caller's, and partitions read through it.
            sector_size: Bytes; by default that with which a GPT is found, else the reader's.

        Raises:
            UnknownFormatError: there is no partition table; a volume without one is such a disk.
            CorruptImageError: there is one, and no copy of it is good.
            DeviceReadError: the disk cannot be read.
        """
        reader = as_reader(disk)
        if sector_size is not None:
            sector_size = whole(sector_size, "sector_size", least=512, most=1 << 16)
            if not is_power_of_two(sector_size):
                raise UsageError(f"sector_size is {sector_size}, no power of two")
            sizes: tuple[int, ...] = (sector_size,)
        else:
            sizes = tuple(dict.fromkeys((max(512, reader.sector_size), *gpt.SECTOR_SIZES)))
        notes: list[str] = []
        found = self._read(reader, sizes, notes)
        self._by_number = {partition.number: partition for partition in found}
        self._overlaps(notes)
        self.notes = tuple(notes)

    def _read(self, reader: BlockReader, sizes: tuple[int, ...], notes: list[str]) -> list[Partition]:
        record = mbr.read(reader)
        if record is not None and not record.plausible(reader.size // sizes[0]):
            raise _none("sector 0 is a boot sector without one")
        self.hybrid = ()
        if record is None or record.protective:
            copy = gpt.find(reader, sizes, notes, guarded=record is not None)
            if copy is not None:
                if record is None:
                    notes.append("no master boot record guards the GPT")
                else:
                    beside = mbr.partitions(record, reader, copy.sector_size, notes)
                    self.hybrid = tuple(each for each in beside if each.type != PROTECTIVE)
                self.scheme, self.sector_size = Scheme.GPT, copy.sector_size
                self.disk_id = UUID(bytes_le=copy.header.disk_guid)
                return list(copy.partitions(reader, notes))
            if record is not None:
                raise CorruptImageError(
                    "the master boot record guards a GPT, and neither copy of it is there",
                    structure="GPT header",
                    offset=sizes[0],
                )
        if record is None:
            raise _none("sector 0 has no signature")
        self.scheme, self.sector_size = Scheme.MBR, sizes[0]
        self.disk_id = record.disk_signature
        return list(mbr.partitions(record, reader, sizes[0], notes))

    def _overlaps(self, notes: list[str]) -> None:
        last: Partition | None = None
        for each in sorted(self, key=lambda partition: partition.offset):
            if each.extended:
                continue
            if last is not None and each.offset < last.end:
                notes.append(f"partitions {last.number} and {each.number} overlap")
            if last is None or each.end > last.end:
                last = each

    def __getitem__(self, number: int) -> Partition:
        """The partition of a number.

        Raises:
            UsageError: there is none.
        """
        found = self._by_number.get(whole(number, "number", least=1))
        if found is None:
            known = ", ".join(map(str, self._by_number)) or "none at all"
            raise UsageError(f"the disk has no partition {number}", hint=f"it has {known}")
        return found

    def __iter__(self) -> Iterator[Partition]:
        return iter(sorted(self._by_number.values(), key=lambda partition: partition.number))

    def __len__(self) -> int:
        return len(self._by_number)

    def __contains__(self, number: object) -> bool:
        return number in self._by_number

    def __repr__(self) -> str:
        return f"<Partitions: {self.scheme}, {len(self)} of them>"


def _none(why: str) -> UnknownFormatError:
    return UnknownFormatError(f"there is no partition table: {why}", hint="read it as one volume")
