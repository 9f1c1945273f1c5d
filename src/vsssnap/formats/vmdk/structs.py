"""Structures of VMDK images.

Sources: "Virtual Disk Format 5.0" (VMware Technical Note, 2011), sections "Hosted Sparse Extents"
and "Stream-Optimized Compressed Sparse Extents"; for the space-efficient sparse extents of ESXi,
which VMware never described, what QEMU's documentation and others' readers agree on.
All integers are little-endian, places are in sectors of 512 bytes from the start of the file.
"""

from __future__ import annotations

from typing import Annotated, Final

from vsssnap._record import U8, U16, U32, U64, Record

SECTOR: Final = 512
NO_PARENT: Final = 0xFFFF_FFFF  # a parentCID
DESCRIPTOR_MARK: Final = b"# Disk DescriptorFile"
MAX_DESCRIPTOR: Final = 1 << 20  # bytes; 64 TiB in parts of 2 GiB have 32768 lines of some 30 bytes

# Hosted sparse extents.
MAGIC: Final = b"KDMV"
OLD_MAGIC: Final = b"COWD"  # sparse extents of ESX 3 and before
VERSIONS: Final = (1, 2, 3)
NEWLINES: Final = b"\n \r\n"  # shows a file that was transferred as text
GD_AT_END: Final = 0xFFFF_FFFF_FFFF_FFFF  # the place of the directory is in the footer
TABLE_ENTRIES: Final = 512  # of a grain table, in all that is written; fewer are read

CHECK_NEWLINES: Final = 1 << 0
REDUNDANT: Final = 1 << 1
ZEROED_GRAINS: Final = 1 << 2  # an entry of 1 is a grain of zeros that hides the parent's
COMPRESSED: Final = 1 << 16
MARKERS: Final = 1 << 17
INCOMPATIBLE: Final = 0xFFFF_0000  # flags that a reader must know
DEFLATE: Final = 1

END_OF_STREAM: Final = 0
GRAIN_TABLE: Final = 1
GRAIN_DIRECTORY: Final = 2
FOOTER: Final = 3
GRAIN_MARKER: Final = 12  # bytes in front of a compressed grain

# Space-efficient sparse extents.
SE_MAGIC: Final = 0xCAFEBABE
SE_VOLATILE_MAGIC: Final = 0xCAFECAFE
SE_VERSION: Final = 0x0000_0002_0000_0001
SE_TABLE_TYPE: Final = 0x1000_0000  # of a directory entry's upper half: a table is there
SE_UNALLOCATED: Final = 0  # types of a table entry: its upper four bits
SE_UNMAPPED: Final = 1
SE_ZERO: Final = 2
SE_ALLOCATED: Final = 3


class SparseHeader(Record, size=79, byteorder="<"):
    """Header of a hosted sparse extent, and footer of a stream; zero padded to a sector."""

    magic: Annotated[bytes, "4s"]  # MAGIC
    version: U32  # one of VERSIONS
    flags: U32
    capacity: U64  # sectors of the volume
    grain_size: U64  # sectors, a power of two above 8
    descriptor_offset: U64  # sector, or 0 if there is none
    descriptor_size: U64  # sectors
    table_entries: U32  # of a grain table
    redundant_offset: U64  # sector of the second grain directory
    directory_offset: U64  # sector of the first, or GD_AT_END
    overhead: U64  # sectors in front of the first grain
    unclean: U8  # 1: in use, or the machine died
    newlines: Annotated[bytes, "4s"]  # NEWLINES
    compression: U16  # 0 or DEFLATE


class Marker(Record, size=16, byteorder="<"):
    """In front of everything in a stream; a grain's is 12 bytes, followed by its data."""

    value: U64  # a grain: its first sector in the volume; else the sectors that follow
    size: U32  # a grain: bytes of its data; else 0
    kind: U32  # END_OF_STREAM, GRAIN_TABLE, GRAIN_DIRECTORY, FOOTER; a grain has none


class SeHeader(Record, size=208, byteorder="<"):
    """Constant header of a space-efficient sparse extent; zero padded to a sector."""

    magic: U64  # SE_MAGIC
    version: U64  # SE_VERSION
    capacity: U64  # sectors of the volume
    grain_size: U64  # sectors, 8
    table_size: U64  # sectors, 64
    flags: U64  # 0
    reserved_1: U64
    reserved_2: U64
    reserved_3: U64
    reserved_4: U64
    volatile_offset: U64
    volatile_size: U64
    journal_header_offset: U64
    journal_header_size: U64
    journal_offset: U64
    journal_size: U64
    directory_offset: U64
    directory_size: U64
    tables_offset: U64
    tables_size: U64
    bitmap_offset: U64
    bitmap_size: U64
    back_map_offset: U64
    back_map_size: U64
    grains_offset: U64
    grains_size: U64


class SeVolatile(Record, size=32, byteorder="<"):
    """Volatile header of a space-efficient sparse extent; zero padded to a sector."""

    magic: U64  # SE_VOLATILE_MAGIC
    free_table: U64
    next_transaction: U64
    replay_journal: U64  # 1: what the journal holds has not reached its place
