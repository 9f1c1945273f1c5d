"""Binary structures of LVM2: label, physical volume header, header of a metadata area.

Sources: "LVM format specification" of the libvslvm project (documentation/Logical Volume Manager (LVM)
format.asciidoc), sections "Physical volume label" and "The metadata area"; pvcreate(8), vgcfgbackup(8).
That the checksum starts at 0xF597A6CF and is not inverted is how the sectors of pvcreate(8) add up.
All integers are little-endian; sectors have 512 bytes, whatever the disk has.
"""

from __future__ import annotations

import zlib
from typing import Final

from vsssnap._record import U32, U64, Bytes8, Bytes16, Bytes32, Record

SECTOR: Final = 512
LABEL_SECTORS: Final = 4  # the label is in one of the first four
LABEL_ID: Final = b"LABELONE"
LABEL_TYPE: Final = b"LVM2 001"
METADATA_MAGIC: Final = b" LVM2 x[5A%r0N*>"
METADATA_VERSION: Final = 1
METADATA_HEADER: Final = 512  # bytes that the header takes; the text goes round behind it

_CRC_START: Final = 0xF597_A6CF


class LabelHeader(Record, size=32, byteorder="<"):
    """What a label sector begins with."""

    signature: Bytes8  # b"LABELONE"
    sector_number: U64  # where it is
    checksum: U32  # from the next field to the end of the sector
    header_offset: U32  # of the physical volume header, from the beginning of the sector
    type: Bytes8  # b"LVM2 001"


class VolumeHeader(Record, size=40, byteorder="<"):
    """The physical volume; two lists of areas follow it, of data and of metadata, each ended by zeros."""

    identifier: Bytes32
    device_size: U64  # bytes


class Area(Record, size=16, byteorder="<"):
    """A place on the physical volume."""

    offset: U64  # bytes
    size: U64  # bytes; 0 in the data area: up to the end


class MetadataHeader(Record, size=40, byteorder="<"):
    """What a metadata area begins with; four slots follow it, the first of them in force."""

    checksum: U32  # over the rest of the 512 bytes
    magic: Bytes16
    version: U32
    offset: U64  # of the area on the physical volume, bytes
    size: U64  # of the area, bytes


class Slot(Record, size=24, byteorder="<"):
    """Where in the area a text lies; all zero if there is none."""

    offset: U64  # from the beginning of the area; a text that would pass the end goes on behind the header
    size: U64  # bytes
    checksum: U32  # of the text
    flags: U32  # bit 0: not to be used


IGNORED: Final = 1
"""The flag of a slot whose area was taken out of use."""


def crc(data: bytes | bytearray | memoryview) -> int:
    """The checksum of LVM2: CRC-32 with a start of its own, and not inverted."""
    return zlib.crc32(data, _CRC_START ^ 0xFFFF_FFFF) ^ 0xFFFF_FFFF
