"""Structures of VHDX images.

Source: [MS-VHDX] "Virtual Hard Disk v2 (VHDX) File Format", version 8.0 (Microsoft, 2024-04-23);
sections are given with each structure.  All integers are little-endian; a GUID lies on disk as
`uuid.UUID.bytes_le` has it.
"""

from __future__ import annotations

from typing import Annotated, Final
from uuid import UUID

from vsssnap._record import U16, U32, U64, Bytes8, Bytes16, Record
from vsssnap._units import KIB, MIB

Bytes4 = Annotated[bytes, "4s"]

# The header section, 2.2: five slots of 64 KiB, the rest of the first MiB is reserved.
SLOT: Final = 64 * KIB
IDENTIFIER: Final = b"vhdxfile"  # 2.2.1, at offset 0
CREATOR_SIZE: Final = 512  # bytes of UTF-16 behind it
HEADERS: Final = (1 * SLOT, 2 * SLOT)  # 2.2.2
HEADER_SIZE: Final = 4 * KIB  # what a header's checksum covers
REGION_TABLES: Final = (3 * SLOT, 4 * SLOT)  # 2.2.3
REGION_TABLE_SIZE: Final = SLOT  # what a region table's checksum covers
MAX_ENTRIES: Final = 2047  # of a region table, and of the metadata table
HEADER_SECTION: Final = MIB  # nothing else lies below

HEADER_MAGIC: Final = b"head"
REGION_MAGIC: Final = b"regi"
METADATA_MAGIC: Final = b"metadata"
LOG_ENTRY_MAGIC: Final = b"loge"
ZERO_MAGIC: Final = b"zero"
DATA_MAGIC: Final = b"desc"
SECTOR_MAGIC: Final = b"data"

CHECKSUM_AT: Final = 4  # where headers, region tables and log entries keep their CRC-32C

BAT_REGION: Final = UUID("2DC27766-F623-4200-9D64-115E9BFD4A08")
METADATA_REGION: Final = UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E")

# Metadata items, 2.6.2.
FILE_PARAMETERS: Final = UUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
DISK_SIZE: Final = UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
DISK_ID: Final = UUID("BECA12AB-B2E6-4523-93EF-C309E000C746")
LOGICAL_SECTOR: Final = UUID("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
PHYSICAL_SECTOR: Final = UUID("CDA348C7-445D-4471-9CC9-E9885251C556")
PARENT_LOCATOR: Final = UUID("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")
VHDX_LOCATOR: Final = UUID("B04AEFB7-D19E-4A81-B789-25B8E9445913")  # 2.6.2.6.3

METADATA_TABLE_SIZE: Final = 64 * KIB  # items begin behind it
MAX_ITEM: Final = MIB  # bytes of one metadata item
MAX_USER_ITEMS: Final = 1024
IS_USER: Final = 1  # flags of a metadata table entry
IS_VIRTUAL_DISK: Final = 2
IS_REQUIRED: Final = 4

LEAVE_ALLOCATED: Final = 1  # flags of the file parameters: a fixed disk
HAS_PARENT: Final = 2

MIN_BLOCK: Final = MIB
MAX_BLOCK: Final = 256 * MIB
MAX_DISK: Final = 64 << 40  # bytes, 2.6.2.2
MAX_FILE: Final = 128 << 40  # bytes that a file of such a disk never reaches
SECTOR_SIZES: Final = (512, 4096)
CHUNK_SECTORS: Final = 1 << 23  # sectors that one sector bitmap block tells about, 2.4
BITMAP_BLOCK: Final = MIB  # bytes of a sector bitmap block

# Payload states of the BAT, 2.5.1.1; 4 and 5 are reserved.  A sector bitmap block has 0 or 6 alone.
NOT_PRESENT: Final = 0
UNDEFINED: Final = 1
ZERO: Final = 2
UNMAPPED: Final = 3
FULLY_PRESENT: Final = 6
PARTIALLY_PRESENT: Final = 7
STATE_MASK: Final = 0x7
RESERVED_MASK: Final = 0xF_FFF8  # bits 3 to 19
OFFSET_MASK: Final = ~0xF_FFFF & 0xFFFF_FFFF_FFFF_FFFF  # MiB, from bit 20 on: so masked it is bytes

LOG_SECTOR: Final = 4 * KIB  # 2.3.1
FIRST_DESCRIPTORS: Final = 126  # in the sector of the entry's header; 128 in those behind it
MORE_DESCRIPTORS: Final = 128


class Header(Record, size=80, byteorder="<"):
    """2.2.2; zeros up to 4 KiB."""

    signature: Bytes4  # b"head"
    checksum: U32  # CRC-32C of 4 KiB, this field as zero
    sequence: U64  # the valid header with the greater one is current
    file_write_guid: Bytes16  # of the file's bytes
    data_write_guid: Bytes16  # of what the disk's user sees: what a child records
    log_guid: Bytes16  # zero: the log is empty
    log_version: U16  # 0
    version: U16  # 1
    log_length: U32  # bytes, a multiple of 1 MiB
    log_offset: U64  # bytes, a multiple of 1 MiB


class RegionHeader(Record, size=16, byteorder="<"):
    """2.2.3.1; the checksum covers 64 KiB."""

    signature: Bytes4  # b"regi"
    checksum: U32  # CRC-32C, this field as zero
    count: U32  # entries, up to 2047
    reserved: U32


class RegionEntry(Record, size=32, byteorder="<"):
    """2.2.3.2."""

    guid: Bytes16
    offset: U64  # bytes, a multiple of 1 MiB, at least 1 MiB
    length: U32  # bytes, a multiple of 1 MiB
    required: U32  # 1: who does not know it must not open the file


class LogEntryHeader(Record, size=64, byteorder="<"):
    """2.3.1.1."""

    signature: Bytes4  # b"loge"
    checksum: U32  # CRC-32C of the whole entry, this field as zero
    length: U32  # bytes, a multiple of 4 KiB
    tail: U32  # offset in the log of the sequence's first entry
    sequence: U64  # above zero
    descriptors: U32
    reserved: U32
    log_guid: Bytes16  # the header's
    flushed_file_offset: U64  # the file has at least so many bytes, else it was truncated
    last_file_offset: U64  # all structures lie below


class Descriptor(Record, size=32, byteorder="<"):
    """2.3.1.2 and 2.3.1.3: zeros to write, or a data sector."""

    signature: Bytes4  # b"zero" or b"desc"
    trailing: Bytes4  # data: the last 4 bytes of the sector; zero: reserved
    leading: Bytes8  # data: its first 8 bytes; zero: how many bytes, a multiple of 4 KiB
    offset: U64  # in the file, a multiple of 4 KiB
    sequence: U64  # the entry's


class MetadataHeader(Record, size=32, byteorder="<"):
    """2.6.1.1."""

    signature: Bytes8  # b"metadata"
    reserved: U16
    count: U16  # entries, up to 2047
    reserved2: Annotated[bytes, "20s"]


class MetadataEntry(Record, size=32, byteorder="<"):
    """2.6.1.2."""

    item: Bytes16
    offset: U32  # from the region's begin, at least 64 KiB; 0 if the length is
    length: U32  # bytes, up to 1 MiB
    flags: U32  # IsUser, IsVirtualDisk, IsRequired
    reserved: U32


class LocatorHeader(Record, size=20, byteorder="<"):
    """2.6.2.6.1."""

    kind: Bytes16
    reserved: U16
    count: U16


class LocatorEntry(Record, size=12, byteorder="<"):
    """2.6.2.6.2; offsets from the item's begin, texts are UTF-16 without a NUL."""

    key_offset: U32
    value_offset: U32
    key_length: U16  # bytes
    value_length: U16
