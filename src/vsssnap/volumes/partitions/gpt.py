"""The GUID partition table: two copies of a header and an array of entries.

Each copy has its checksums; one good copy is enough, and what is wrong with the other is said.
Source: UEFI Specification 2.10, section 5.3.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from vsssnap._units import is_power_of_two
from vsssnap.errors import CorruptImageError
from vsssnap.volumes.partitions.partition import Partition
from vsssnap.volumes.partitions.structs import GPT_REVISION, GPT_SIGNATURE, GptEntry, GptHeader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.blocks.reader import BlockReader

SECTOR_SIZES = (512, 4096, 1024, 2048)

_MAX_ARRAY = 4 << 20  # bytes; 16 KiB is what every tool makes
_CRC_AT = GptHeader.OFFSETS["header_crc32"]


@dataclass(frozen=True)
class Copy:
    """A copy of the table that passed its checks."""

    header: GptHeader
    entries: bytes
    sector_size: int

    def same(self, other: Copy) -> bool:
        """Whether another copy says the same."""
        mine, theirs = self.header, other.header
        return self.entries == other.entries and (
            (mine.disk_guid, mine.size_of_partition_entry, mine.first_usable_lba, mine.last_usable_lba)
            == (
                theirs.disk_guid,
                theirs.size_of_partition_entry,
                theirs.first_usable_lba,
                theirs.last_usable_lba,
            )
        )

    def partitions(self, disk: BlockReader, notes: list[str]) -> Iterator[Partition]:
        """The used entries; ones that say nothing sensible become a note."""
        step = self.header.size_of_partition_entry
        for number, at in enumerate(range(0, len(self.entries), step), 1):
            entry = GptEntry.unpack(self.entries, at)
            if not any(entry.partition_type_guid):
                continue
            if not entry.starting_lba <= entry.ending_lba < 2**63 // self.sector_size:
                notes.append(
                    f"partition {number} is left out: sectors {entry.starting_lba} to {entry.ending_lba}"
                )
                continue
            yield Partition(
                number=number,
                offset=entry.starting_lba * self.sector_size,
                length=(entry.ending_lba - entry.starting_lba + 1) * self.sector_size,
                type=UUID(bytes_le=entry.partition_type_guid),
                name=entry.partition_name.decode("utf-16-le", "replace").split("\0", 1)[0],
                id=UUID(bytes_le=entry.unique_partition_guid),
                attributes=entry.attributes,
                disk=disk,
            )


def signed(disk: BlockReader, sector_size: int, lba: int) -> bool:
    """Whether a header seems to be at an address; its checks may still fail."""
    return disk.pread(len(GPT_SIGNATURE), lba * sector_size) == GPT_SIGNATURE


def read_copy(disk: BlockReader, sector_size: int, lba: int) -> Copy:
    """Read a copy and check all that can be checked.

    Raises:
        CorruptImageError: it is no good.
    """
    at = lba * sector_size
    sector = disk.pread(sector_size, at)
    header = GptHeader.unpack(sector)
    if header.signature != GPT_SIGNATURE or header.revision != GPT_REVISION:
        raise _bad(f"signature {header.signature!r}, revision 0x{header.revision:08x}", at)
    if not GptHeader.SIZE <= header.header_size <= sector_size:
        raise _bad(f"header of {header.header_size} bytes in a sector of {sector_size}", at)
    blank = sector[:_CRC_AT] + bytes(4) + sector[_CRC_AT + 4 : header.header_size]
    if zlib.crc32(blank) != header.header_crc32:
        raise _bad("the header fails its checksum", at)
    if header.my_lba != lba:
        raise _bad(f"the header says it is in sector {header.my_lba}, not {lba}", at)
    return Copy(header, _array(disk, header, sector_size), sector_size)


def _array(disk: BlockReader, header: GptHeader, sector_size: int) -> bytes:
    step, count = header.size_of_partition_entry, header.number_of_partition_entries
    if step < GptEntry.SIZE or not is_power_of_two(step) or step * count > _MAX_ARRAY:
        raise _bad(f"{count} entries of {step} bytes", header.my_lba * sector_size)
    at = header.partition_entry_lba * sector_size
    if at > disk.size - step * count:
        raise _bad(
            f"{step * count} bytes of entries at {at}, the disk ends at {disk.size}",
            header.my_lba * sector_size,
        )
    entries = disk.pread(step * count, at)
    if zlib.crc32(entries) != header.partition_entry_array_crc32:
        raise CorruptImageError(
            f"the GPT entries at byte {at} fail their checksum", structure="GPT entries", offset=at
        )
    return entries


def _bad(what: str, at: int) -> CorruptImageError:
    return CorruptImageError(f"no good GPT header at byte {at}: {what}", structure="GPT header", offset=at)


def find(disk: BlockReader, sector_sizes: tuple[int, ...], notes: list[str], *, guarded: bool) -> Copy | None:
    """The table, from its first copy or else the last; None if there is no trace of one.

    Without a record that guards it the last copy alone is no table: whoever makes a file system on
    a whole disk leaves the copy at its end.

    Raises:
        CorruptImageError: there is one, and neither copy is good.
    """
    first: CorruptImageError | None = None
    for size in sector_sizes:
        if disk.size >= 2 * size and signed(disk, size, 1):
            try:
                primary = read_copy(disk, size, 1)
            except CorruptImageError as exc:
                first = first or exc
                continue
            _compare(disk, primary, notes)
            return primary
    for size in sector_sizes if guarded or first is not None else ():
        last = disk.size // size - 1
        if last < 2 or not signed(disk, size, last):
            continue
        try:
            backup = read_copy(disk, size, last)
        except CorruptImageError as exc:
            first = first or exc
            continue
        notes.append(f"the backup GPT is used: {first.message if first else 'there is no first one'}")
        return backup
    if first is not None:
        raise first
    return None


def _compare(disk: BlockReader, primary: Copy, notes: list[str]) -> None:
    """Say what is wrong with the backup copy."""
    lba, size = primary.header.alternate_lba, primary.sector_size
    if (lba + 1) * size > disk.size:
        notes.append(f"the backup GPT in sector {lba} is behind the end of the disk: it is cut short")
        return
    try:
        backup = read_copy(disk, size, lba)
    except CorruptImageError as exc:
        notes.append(f"the backup GPT is damaged: {exc.message}")
        return
    if lba != disk.size // size - 1:
        notes.append(f"the backup GPT in sector {lba} is not at the end of the disk, which has grown")
    if not backup.same(primary):
        notes.append("the two copies of the GPT differ; the first one is used")
