"""Structures of NTFS.

Sources: the Linux-NTFS project's "NTFS Documentation" (Russon, Fledel), sections "Concepts", "Files"
and "Attributes", and Microsoft's "[MS-FSCC]" 2.1 and "Boot Sector" in the Windows 2000 Resource Kit,
chapter 17.  All integers are little-endian.
"""

from __future__ import annotations

from typing import Annotated

from vsssnap._record import U8, U16, U32, U64, Bytes8, Record

_Bytes3 = Annotated[bytes, "3s"]
_Bytes4 = Annotated[bytes, "4s"]
_Bytes7 = Annotated[bytes, "7s"]
_I8 = Annotated[int, "b"]

# Attribute types.
ATTRIBUTE_LIST = 0x20
FILE_NAME = 0x30
VOLUME_NAME = 0x60
VOLUME_INFORMATION = 0x70
DATA = 0x80
INDEX_ROOT = 0x90
INDEX_ALLOCATION = 0xA0
END = 0xFFFF_FFFF

# Records of the master file table with a fixed number.
MFT, LOGFILE, VOLUME, ROOT, BITMAP, BADCLUS = 0, 2, 3, 5, 6, 8

STRIDE = 512
"""Bytes that one fix-up guards, whatever the sector size."""


class BootSector(Record, size=84, byteorder="<"):
    """The first bytes of the volume, and of its copy in the sector after the last cluster."""

    jump: _Bytes3
    oem_id: Bytes8  # b"NTFS    "
    bytes_per_sector: U16
    sectors_per_cluster: U8  # above 128: two to the power of 256 minus it
    reserved: _Bytes7
    media_descriptor: U8
    unused: Annotated[bytes, "18s"]
    total_sectors: U64  # without the copy of the boot sector
    mft_lcn: U64
    mftmirr_lcn: U64
    clusters_per_record: _I8  # negative: two to the power of minus it, bytes
    reserved2: _Bytes3
    clusters_per_index: _I8  # in the same way
    reserved3: _Bytes3
    serial: U64
    checksum: U32


class FileRecord(Record, size=48, byteorder="<"):
    """A record of the master file table."""

    magic: _Bytes4  # b"FILE"
    usa_offset: U16
    usa_count: U16  # one for the number, one for each stride
    lsn: U64
    sequence: U16
    link_count: U16
    first_attribute: U16
    flags: U16  # 1: in use; 2: directory
    bytes_in_use: U32
    bytes_allocated: U32
    base_record: U64  # file reference, or 0 if this is the base
    next_attribute_id: U16
    reserved: U16
    record_number: U32


class Attribute(Record, size=16, byteorder="<"):
    """What every attribute begins with."""

    type: U32
    length: U32
    non_resident: U8
    name_length: U8  # characters
    name_offset: U16
    flags: U16  # 1: compressed; 0x4000: encrypted; 0x8000: sparse
    id: U16


class Resident(Record, size=8, byteorder="<"):
    """Goes on at 16 if the value is in the record."""

    value_length: U32
    value_offset: U16
    indexed: U16


class NonResident(Record, size=48, byteorder="<"):
    """Goes on at 16 if the value is in clusters."""

    first_vcn: U64
    last_vcn: U64
    runs_offset: U16
    compression_unit: U16
    reserved: U32
    allocated_size: U64  # in the first fragment alone, as the two below
    data_size: U64
    initialized_size: U64


class ListEntry(Record, size=26, byteorder="<"):
    """Where one fragment of an attribute is described."""

    type: U32
    length: U16
    name_length: U8
    name_offset: U8
    first_vcn: U64
    reference: U64
    id: U16


class IndexRoot(Record, size=16, byteorder="<"):
    """The value of $INDEX_ROOT up to its `IndexHeader`."""

    type: U32  # 0x30: by $FILE_NAME
    collation: U32
    index_size: U32  # bytes of a block of $INDEX_ALLOCATION
    clusters_per_index: U8
    padding: _Bytes3


class IndexBlock(Record, size=24, byteorder="<"):
    """A block of $INDEX_ALLOCATION up to its `IndexHeader`."""

    magic: _Bytes4  # b"INDX"
    usa_offset: U16
    usa_count: U16
    lsn: U64
    vcn: U64


class IndexHeader(Record, size=16, byteorder="<"):
    """Offsets count from this header."""

    entries_offset: U32
    index_length: U32
    allocated_size: U32
    flags: U32  # 1: there are blocks below


class IndexEntry(Record, size=16, byteorder="<"):
    """An entry; its key follows, and the VCN of the block below is its last eight bytes."""

    reference: U64
    length: U16
    key_length: U16
    flags: U16  # 1: a block below; 2: the last entry, without a key
    reserved: U16


class RestartPage(Record, size=30, byteorder="<"):
    """The first two pages of $LogFile."""

    magic: _Bytes4  # b"RSTR"
    usa_offset: U16
    usa_count: U16
    chkdsk_lsn: U64
    system_page_size: U32
    log_page_size: U32
    restart_offset: U16
    minor_version: U16
    major_version: U16


class RestartArea(Record, size=16, byteorder="<"):
    """At `RestartPage.restart_offset`."""

    current_lsn: U64
    log_clients: U16
    client_free_list: U16
    client_in_use_list: U16  # 0xFFFF: nobody has the log open
    flags: U16  # 2: the volume was closed
