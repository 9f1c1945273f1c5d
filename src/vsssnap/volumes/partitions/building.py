"""Write partition tables: a GPT for one partition, and new ids for a disk that has a table.

Source: UEFI Specification 2.10, sections 5.2.3 (protective MBR) and 5.3.
"""

from __future__ import annotations

import dataclasses
import os
import zlib
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from vsssnap.errors import CorruptImageError
from vsssnap.volumes.partitions import gpt
from vsssnap.volumes.partitions.names import PROTECTIVE
from vsssnap.volumes.partitions.structs import (
    GPT_REVISION,
    GPT_SIGNATURE,
    MBR_SIGNATURE,
    GptEntry,
    GptHeader,
    MasterBootRecord,
    MbrEntry,
)
from vsssnap.volumes.partitions.table import Scheme

if TYPE_CHECKING:
    from vsssnap.blocks.reader import BlockReader
    from vsssnap.volumes.partitions.table import Partitions

_ENTRIES = 128
_ARRAY = _ENTRIES * GptEntry.SIZE
_NO_CHS = b"\xfe\xff\xff"  # beyond what cylinders, heads and sectors can name


def one_partition(
    size: int,
    sector_size: int,
    *,
    offset: int,
    length: int,
    kind: UUID,
    name: str,
    disk_id: UUID,
    partition_id: UUID,
) -> tuple[bytes, bytes]:
    """A GPT with one partition: what the disk begins with, and what it ends with.

    Args:
        size: Bytes of the disk.
        sector_size: 512 or 4096.
        offset: First byte of the partition; it and ``length`` are whole sectors.
        length: Bytes of it.
        kind: Its type.
        name: Its name, up to 36 characters.
        disk_id: GUID of the disk.
        partition_id: GUID of the partition.
    """
    last = size // sector_size - 1
    array_sectors = -(-_ARRAY // sector_size)
    entry = GptEntry(
        partition_type_guid=kind.bytes_le,
        unique_partition_guid=partition_id.bytes_le,
        starting_lba=offset // sector_size,
        ending_lba=(offset + length) // sector_size - 1,
        attributes=0,
        partition_name=name.encode("utf-16-le")[:72].ljust(72, b"\0"),
    )
    entries = entry.pack().ljust(_ARRAY, b"\0")
    primary = GptHeader(
        signature=GPT_SIGNATURE,
        revision=GPT_REVISION,
        header_size=GptHeader.SIZE,
        header_crc32=0,
        reserved=0,
        my_lba=1,
        alternate_lba=last,
        first_usable_lba=2 + array_sectors,
        last_usable_lba=last - array_sectors - 1,
        disk_guid=disk_id.bytes_le,
        partition_entry_lba=2,
        number_of_partition_entries=_ENTRIES,
        size_of_partition_entry=GptEntry.SIZE,
        partition_entry_array_crc32=zlib.crc32(entries),
    )
    backup = dataclasses.replace(
        primary, my_lba=last, alternate_lba=1, partition_entry_lba=last - array_sectors
    )
    guard = MbrEntry(
        boot_indicator=0,
        starting_chs=b"\0\2\0",
        os_type=PROTECTIVE,
        ending_chs=_NO_CHS,
        starting_lba=1,
        size_in_lba=min(last, 0xFFFF_FFFF),
    )
    mbr = MasterBootRecord(boot_code=bytes(440), disk_signature=0, reserved=0).pack()
    mbr += guard.pack() + bytes(48) + MBR_SIGNATURE.to_bytes(2, "little")
    array = entries.ljust(array_sectors * sector_size, b"\0")
    head = mbr.ljust(sector_size, b"\0") + _sealed(primary).ljust(sector_size, b"\0") + array
    return head, array + _sealed(backup).ljust(sector_size, b"\0")


def _sealed(header: GptHeader, rest: bytes = b"") -> bytes:
    """A header with its checksum, which covers ``rest`` too."""
    blank = dataclasses.replace(header, header_crc32=0)
    return dataclasses.replace(blank, header_crc32=zlib.crc32(blank.pack() + rest)).pack() + rest


def new_ids(
    disk: BlockReader, table: Partitions, *, disk_id: UUID, only: UUID | None = None
) -> list[tuple[int, bytes]]:
    """What to write where (byte offset, bytes) for a disk to have ids of its own.

    Under GPT the disk and every partition get a new GUID, in both copies; under MBR, and in the
    record beside a GPT that has a signature, the disk gets a new signature.

    Args:
        disk: The disk.
        table: Its table.
        disk_id: The new GUID of a GPT disk.
        only: That of the only partition; by default new ones are made.

    Raises:
        CorruptImageError: a copy of the GPT is damaged.
    """
    place = MasterBootRecord.OFFSETS["disk_signature"]
    patches = []
    if table.scheme is Scheme.MBR or any(disk.pread(4, place)):
        patches.append((place, (int.from_bytes(os.urandom(4), "little") or 1).to_bytes(4, "little")))
    if table.scheme is Scheme.GPT:
        patches += _new_guids(disk, table.sector_size, disk_id, only)
    return patches


def _new_guids(
    disk: BlockReader, sector_size: int, disk_id: UUID, only: UUID | None
) -> list[tuple[int, bytes]]:
    first = gpt.read_copy(disk, sector_size, 1)
    last = first.header.alternate_lba
    if last >= disk.size // sector_size:
        raise CorruptImageError(
            f"the backup GPT in sector {last} is behind the end of the disk", structure="GPT header"
        )
    ids = dict[bytes, bytes]()
    patches = []
    for copy in (first, gpt.read_copy(disk, sector_size, last)):
        entries, step = bytearray(copy.entries), copy.header.size_of_partition_entry
        for at in range(0, len(entries), step):
            if any(entries[at : at + 16]):
                old = bytes(entries[at + 16 : at + 32])
                entries[at + 16 : at + 32] = ids.setdefault(old, (only or uuid4()).bytes_le)
        header = dataclasses.replace(
            copy.header, disk_guid=disk_id.bytes_le, partition_entry_array_crc32=zlib.crc32(entries)
        )
        at = header.my_lba * sector_size
        rest = disk.pread(header.header_size - GptHeader.SIZE, at + GptHeader.SIZE)
        patches += [(header.partition_entry_lba * sector_size, bytes(entries)), (at, _sealed(header, rest))]
    return patches
