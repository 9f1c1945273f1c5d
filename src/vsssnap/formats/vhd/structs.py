"""Structures of VHD images.

Source: "Virtual Hard Disk Image Format Specification" 1.0 (Microsoft, 2006-10-11), sections
"Hard Disk Footer Format", "Dynamic Disk Header Format", "Block Allocation Table and Data Blocks".
All integers are big-endian, text is UTF-16BE in the header and UTF-16LE in parent locators,
a sector is 512 bytes.
"""

from __future__ import annotations

from typing import Annotated, Final

from vsssnap._record import U8, U16, U32, U64, Bytes8, Bytes16, Record

SECTOR: Final = 512
FOOTER_COOKIE: Final = b"conectix"
HEADER_COOKIE: Final = b"cxsparse"
FOOTER_SIZE: Final = 512
OLD_FOOTER_SIZE: Final = 511  # bytes; Virtual PC before 2004 left out the last one
HEADER_SIZE: Final = 1024

VERSION: Final = 0x0001_0000  # of footer and header: major, minor; another major is another format
FEATURES: Final = 0x0000_0002  # a reserved bit that is always set
NO_OFFSET: Final = 0xFFFF_FFFF_FFFF_FFFF
UNUSED: Final = 0xFFFF_FFFF  # a BAT entry of a block that is not in the file

FIXED: Final = 2
DYNAMIC: Final = 3
DIFFERENCING: Final = 4
KINDS: Final = {FIXED: "fixed", DYNAMIC: "dynamic", DIFFERENCING: "differencing"}

EPOCH: Final = 946_684_800  # Unix time of time stamp 0, 2000-01-01 00:00 UTC

MAX_SIZE: Final = 2040 << 30  # bytes of a volume, "Overview"
MAX_ENTRIES: Final = 1 << 22  # of a BAT: 2048 GiB in the smallest blocks that programs make

RELATIVE: Final = b"W2ru"  # platform codes of parent locators
ABSOLUTE: Final = b"W2ku"
LOCATORS: Final = 8

Bytes4 = Annotated[bytes, "4s"]


class Footer(Record, size=85, byteorder=">"):
    """Hard disk footer: the last sector of every image, and the first one of all that are not fixed.

    Zero padded to a sector on disk.
    """

    cookie: Bytes8  # FOOTER_COOKIE
    features: U32  # FEATURES
    version: U32  # VERSION
    data_offset: U64  # bytes to the dynamic header; NO_OFFSET in a fixed disk
    time_stamp: U32  # seconds since EPOCH
    creator: Bytes4  # decides which of the sizes counts, see `geometry`
    creator_version: U32
    creator_host: Bytes4  # b"Wi2k" or b"Mac "
    original_size: U64  # bytes when it was made
    current_size: U64  # bytes
    cylinders: U16
    heads: U8
    sectors: U8  # a track
    disk_type: U32  # a key of KINDS
    checksum: U32  # ones' complement of the sum of the bytes, this field as zero
    identity: Bytes16
    saved_state: U8  # 1: of a suspended machine


class Header(Record, size=1024, byteorder=">"):
    """Dynamic disk header."""

    cookie: Bytes8  # HEADER_COOKIE
    data_offset: U64  # NO_OFFSET
    table_offset: U64  # bytes to the BAT
    version: U32  # VERSION
    max_entries: U32  # of the BAT, at least one a block
    block_size: U32  # bytes, a power of two, without its bitmap
    checksum: U32  # as in the footer
    parent_identity: Bytes16
    parent_time_stamp: U32  # when the parent was last changed, seconds since EPOCH
    reserved_1: U32
    parent_name: Annotated[bytes, "512s"]  # UTF-16BE
    locators: Annotated[bytes, "192s"]  # LOCATORS of Locator
    reserved_2: Annotated[bytes, "256s"]


class Locator(Record, size=24, byteorder=">"):
    """Parent locator: where one platform finds the parent."""

    platform: Bytes4  # RELATIVE, ABSOLUTE, others
    data_space: U32  # room for the text: sectors by the text of the specification, bytes in practice
    data_length: U32  # bytes
    reserved: U32
    data_offset: U64  # bytes


def checksum(data: bytes, at: int) -> int:
    """The checksum of a footer or header whose ``checksum`` lies at ``at``."""
    return ~(sum(data) - sum(data[at : at + 4])) & 0xFFFF_FFFF
