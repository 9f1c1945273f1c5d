"""Structures of partition tables.

Sources: "UEFI Specification" 2.10, section 5 (the master boot record is 5.2.1, the GUID partition
table 5.3); extended partitions are described there no more: IBM's "Personal Computer DOS 3.30
Technical Reference", which every system still follows.  All integers are little-endian; addresses
count logical sectors.
"""

from __future__ import annotations

from typing import Annotated

from vsssnap._record import U8, U16, U32, U64, Bytes8, Bytes16, Record

_Bytes3 = Annotated[bytes, "3s"]
_Bytes72 = Annotated[bytes, "72s"]
_Bytes440 = Annotated[bytes, "440s"]

MBR_SIGNATURE = 0xAA55
GPT_SIGNATURE = b"EFI PART"
GPT_REVISION = 0x0001_0000


class MasterBootRecord(Record, size=446, byteorder="<"):
    """Sector 0 up to the four entries at 446; the signature is at 510."""

    boot_code: _Bytes440
    disk_signature: U32  # Windows' name of the disk
    reserved: U16


class MbrEntry(Record, size=16, byteorder="<"):
    """One of the four entries of a master or extended boot record."""

    boot_indicator: U8  # 0x80: the one to boot from; else 0
    starting_chs: _Bytes3
    os_type: U8  # 0: the entry is empty
    ending_chs: _Bytes3
    starting_lba: U32  # in an extended boot record relative to it, or to the first of them
    size_in_lba: U32


class GptHeader(Record, size=92, byteorder="<"):
    """Sector 1 and the last sector of the disk; the rest of the sector is zero."""

    signature: Bytes8  # b"EFI PART"
    revision: U32  # 0x0001_0000
    header_size: U32  # bytes, 92 up to a sector
    header_crc32: U32  # over header_size bytes, this field as zero
    reserved: U32
    my_lba: U64
    alternate_lba: U64  # of the other copy
    first_usable_lba: U64
    last_usable_lba: U64
    disk_guid: Bytes16
    partition_entry_lba: U64
    number_of_partition_entries: U32
    size_of_partition_entry: U32  # bytes, 128 * 2**n
    partition_entry_array_crc32: U32


class GptEntry(Record, size=128, byteorder="<"):
    """One partition; all zero if unused."""

    partition_type_guid: Bytes16
    unique_partition_guid: Bytes16
    starting_lba: U64
    ending_lba: U64  # the last sector, not the one after it
    attributes: U64
    partition_name: _Bytes72  # UTF-16, zero padded
