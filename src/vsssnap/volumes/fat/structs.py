"""Structures of FAT and exFAT.

Sources: Microsoft's "FAT: General Overview of On-Disk Format" 1.03 (2000-12-06), sections "Boot
Sector and BPB" and "FAT Data Structure", and "exFAT file system specification" 1.00 (2019), sections
3.1 (main boot sector), 3.4 (boot checksum), 4.1 (FAT) and 7.1 (allocation bitmap).  All integers are
little-endian.
"""

from __future__ import annotations

from typing import Annotated

from vsssnap._record import U8, U16, U32, U64, Bytes8, Record

_Bytes3 = Annotated[bytes, "3s"]
_Bytes11 = Annotated[bytes, "11s"]
_Bytes12 = Annotated[bytes, "12s"]


class BootSector(Record, size=36, byteorder="<"):
    """What all FATs begin with."""

    jump: _Bytes3
    oem_name: Bytes8
    bytes_per_sector: U16
    sectors_per_cluster: U8
    reserved_sectors: U16
    fats: U8
    root_entries: U16  # 0 with FAT32
    total_sectors_16: U16
    media: U8
    fat_sectors_16: U16  # 0 with FAT32
    sectors_per_track: U16
    heads: U16
    hidden_sectors: U32
    total_sectors_32: U32


class Tail16(Record, size=26, byteorder="<"):
    """Goes on at 36 with FAT12 and FAT16."""

    drive: U8
    state: U8  # 1: in use or not closed
    signature: U8  # 0x29: the three fields below are there
    serial: U32
    label: _Bytes11
    type: Bytes8


class Tail32(Record, size=54, byteorder="<"):
    """Goes on at 36 with FAT32."""

    fat_sectors: U32
    flags: U16  # 0x80: only the FAT of the low four bits is kept up
    version: U16
    root_cluster: U32
    info_sector: U16
    backup_sector: U16
    reserved: _Bytes12
    drive: U8
    state: U8
    signature: U8
    serial: U32
    label: _Bytes11
    type: Bytes8


class ExfatBootSector(Record, size=120, byteorder="<"):
    """The main boot sector of exFAT."""

    jump: _Bytes3
    name: Bytes8  # b"EXFAT   "
    zeros: Annotated[bytes, "53s"]
    partition_offset: U64
    volume_length: U64  # sectors
    fat_offset: U32
    fat_length: U32
    heap_offset: U32
    cluster_count: U32
    root_cluster: U32
    serial: U32
    revision: U16
    flags: U16  # 1: the second FAT is the active one; 2: dirty; 4: the medium failed
    sector_shift: U8
    cluster_shift: U8  # sectors
    fats: U8
    drive: U8
    percent: U8
    reserved: Annotated[bytes, "7s"]


class ExfatBitmapEntry(Record, size=32, byteorder="<"):
    """The directory entry of type 0x81 in the root."""

    type: U8
    flags: U8
    reserved: Annotated[bytes, "18s"]
    first_cluster: U32
    length: U64  # bytes
