"""The master boot record and the chain of extended boot records.

The links of the chain are relative to the extended partition, the logical partitions to the
record that describes them.  The chain is followed as Linux does: to the end, to a record seen
before, or to a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap.volumes.partitions.names import EXTENDED, PROTECTIVE
from vsssnap.volumes.partitions.partition import Partition
from vsssnap.volumes.partitions.structs import MBR_SIGNATURE, MasterBootRecord, MbrEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.blocks.reader import BlockReader

_ENTRIES = 446
_MAX_LOGICAL = 256  # Linux has no more minor numbers for a disk


@dataclass(frozen=True)
class Mbr:
    """Sector 0 with its signature."""

    disk_signature: int
    entries: tuple[MbrEntry, ...]
    volume_like: bool  # it is the boot sector of a file system, whatever its entries seem to say

    @property
    def protective(self) -> bool:
        """Whether it guards a GPT."""
        return any(entry.os_type == PROTECTIVE for entry in self.entries)

    def plausible(self, sectors: int) -> bool:
        """Whether the entries can be a table of a disk of so many sectors."""
        if any(entry.boot_indicator & 0x7F for entry in self.entries):
            return False
        used = [entry for entry in self.entries if entry.os_type]
        return not self.volume_like or (
            bool(used)
            and all(
                entry.starting_lba and entry.size_in_lba and entry.starting_lba < sectors for entry in used
            )
        )


def read(disk: BlockReader) -> Mbr | None:
    """The master boot record, or None if sector 0 has no signature."""
    sector = disk.pread(512, 0)
    entries = _entries(sector)
    if entries is None:
        return None
    # File systems begin with a sector of the same signature: code, and names where only they have them.
    boot = sector[3:11] in (b"NTFS    ", b"EXFAT   ", b"-FVE-FS-", b"ReFS\0\0\0\0")
    fat = sector[54:57] == b"FAT" or sector[82:85] == b"FAT"
    return Mbr(MasterBootRecord.unpack(sector).disk_signature, entries, boot or fat)


def _entries(sector: bytes) -> tuple[MbrEntry, ...] | None:
    if len(sector) < 512 or int.from_bytes(sector[510:512], "little") != MBR_SIGNATURE:
        return None
    return tuple(MbrEntry.unpack(sector, _ENTRIES + at) for at in range(0, 64, MbrEntry.SIZE))


def partitions(mbr: Mbr, disk: BlockReader, sector_size: int, notes: list[str]) -> Iterator[Partition]:
    """The primary partitions by slot, then the logical ones from number 5."""
    for number, entry in enumerate(mbr.entries, 1):
        if entry.os_type and entry.size_in_lba:
            yield _partition(number, entry.starting_lba, entry, disk, sector_size)
    number = 5
    for entry in mbr.entries:
        if entry.os_type not in EXTENDED or not entry.size_in_lba:
            continue
        for start, logical in _chain(entry, disk, sector_size, notes):
            if number >= 5 + _MAX_LOGICAL:
                notes.append(f"there are more than {_MAX_LOGICAL} logical partitions")
                return
            yield _partition(number, start, logical, disk, sector_size)
            number += 1


def _partition(number: int, start: int, entry: MbrEntry, disk: BlockReader, sector_size: int) -> Partition:
    return Partition(
        number=number,
        offset=start * sector_size,
        length=entry.size_in_lba * sector_size,
        type=entry.os_type,
        attributes=entry.boot_indicator,
        disk=disk,
    )


def _chain(
    extended: MbrEntry, disk: BlockReader, sector_size: int, notes: list[str]
) -> Iterator[tuple[int, MbrEntry]]:
    """The logical partitions of an extended one: first sector and entry."""
    base, end = extended.starting_lba, extended.starting_lba + extended.size_in_lba
    here: int | None = base
    seen: set[int] = set()
    while here is not None:
        if here in seen or len(seen) >= 2 * _MAX_LOGICAL:
            notes.append(f"the extended boot records go in a circle at sector {here}")
            return
        seen.add(here)
        entries = _entries(disk.pread(512, here * sector_size))
        if entries is None:
            notes.append(f"there is no extended boot record in sector {here}; what follows it is not found")
            return
        following = None
        for entry in entries:
            if not entry.os_type or not entry.size_in_lba:
                continue
            if entry.os_type in EXTENDED:
                following = base + entry.starting_lba if following is None else following
            elif entry.starting_lba and here + entry.starting_lba + entry.size_in_lba <= end:
                yield here + entry.starting_lba, entry
            else:
                notes.append(
                    f"a logical partition of sector {here} lies outside the extended one and is left out"
                )
        here = following
