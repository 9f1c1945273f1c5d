"""Structures of QCOW2 images, versions 2 and 3.

Source: QEMU, docs/interop/qcow2.txt; the section is named at each record.  All integers are
big-endian; sizes and offsets are bytes.  Tables (L1, L2, refcounts, bitmaps) are no records.
"""

from __future__ import annotations

from typing import Annotated, Final

from vsssnap._record import U8, U16, U32, U64, Bytes8, Bytes16, Record

Bytes4 = Annotated[bytes, "4s"]

MAGIC: Final = b"QFI\xfb"
SECTOR: Final = 512

MIN_CLUSTER_BITS: Final = 9
MAX_CLUSTER_BITS: Final = 21  # qemu's own limit
MIN_EXTENDED_BITS: Final = 14
MAX_REFCOUNT_ORDER: Final = 6
MAX_L1: Final = 32 << 20  # bytes; qemu's own limit, and so are the next ones
MAX_REFCOUNT_TABLE: Final = 8 << 20  # bytes
MAX_NAME: Final = 1023  # bytes of a backing file's name
MAX_SNAPSHOTS: Final = 65536
MAX_SNAPSHOT_TABLE: Final = 64 << 20  # bytes
MAX_SNAPSHOT_EXTRA: Final = 1024  # bytes an entry
MAX_BITMAPS: Final = 65535
MAX_BITMAP_DIRECTORY: Final = 80 << 20  # bytes: as many as there may be, each with its longest name

# Header, crypt_method.
AES: Final = 1
LUKS: Final = 2

# Header, incompatible_features.
DIRTY: Final = 1 << 0
CORRUPT: Final = 1 << 1
DATA_FILE: Final = 1 << 2
COMPRESSION_TYPE: Final = 1 << 3
EXTENDED_L2: Final = 1 << 4
KNOWN_INCOMPATIBLE: Final = DIRTY | CORRUPT | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2
# autoclear_features
BITMAPS: Final = 1 << 0
RAW_DATA_FILE: Final = 1 << 1

FEATURE_NAMES: Final = (
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
)
"""Section "Feature name table": type of feature, bit, name."""

# Header, compression_type.
ZLIB: Final = 0
ZSTD: Final = 1
COMPRESSION_NAMES: Final = {ZLIB: "zlib", ZSTD: "zstd"}

# Section "Header extensions".
END: Final = 0
EXT_BACKING_FORMAT: Final = 0xE279_2ACA
EXT_FEATURE_NAMES: Final = 0x6803_F857
EXT_BITMAPS: Final = 0x2385_2875
EXT_DATA_FILE: Final = 0x4441_5441
EXT_ORIGIN: Final = 0x7673_7371  # our own, "vssq"; others ignore and keep what they do not know

# Section "Cluster mapping".
COPIED: Final = 1 << 63
COMPRESSED: Final = 1 << 62
ZERO: Final = 1
HOST_MASK: Final = 0x00FF_FFFF_FFFF_FE00  # bits 9-55
L1_RESERVED: Final = 0x7F00_0000_0000_01FF
L2_RESERVED: Final = 0x3F00_0000_0000_01FE  # of a standard cluster; bit 0 is ZERO
BITMAP_RESERVED: Final = 0xFF00_0000_0000_01FE
SUBCLUSTERS: Final = 32
ALL_SUBCLUSTERS: Final = 0xFFFF_FFFF

# Section "Bitmap directory", flags.
IN_USE: Final = 1 << 0
AUTO: Final = 1 << 1
EXTRA_COMPATIBLE: Final = 1 << 2
DIRTY_TRACKING: Final = 1  # the only type


class Header(Record, size=72, byteorder=">"):
    """Section "Header": what versions 2 and 3 have in common."""

    magic: Bytes4
    version: U32
    backing_file_offset: U64  # 0 without a backing file
    backing_file_size: U32
    cluster_bits: U32
    size: U64  # of the virtual disk
    crypt_method: U32
    l1_size: U32  # entries
    l1_table_offset: U64
    refcount_table_offset: U64
    refcount_table_clusters: U32
    nb_snapshots: U32
    snapshots_offset: U64


class HeaderV3(Record, size=32, byteorder=">"):
    """Section "Header": bytes 72 to 103, of version 3."""

    incompatible_features: U64
    compatible_features: U64
    autoclear_features: U64
    refcount_order: U32  # a refcount has 1 << order bits
    header_length: U32  # from the magic on; at least 104


HEADER_V3: Final = Header.SIZE + HeaderV3.SIZE
COMPRESSION_AT: Final = 104  # one byte, present if header_length is above 104


class ExtensionHead(Record, size=8, byteorder=">"):
    """Section "Header extensions"; the data follows, padded to a multiple of 8."""

    type: U32
    length: U32


class FeatureName(Record, size=48, byteorder=">"):
    """Section "Feature name table"."""

    kind: U8  # 0 incompatible, 1 compatible, 2 autoclear
    bit: U8
    name: Annotated[bytes, "46s"]  # padded with zeros


class BitmapsHead(Record, size=24, byteorder=">"):
    """Section "Bitmaps extension"."""

    nb_bitmaps: U32
    reserved: U32
    directory_size: U64
    directory_offset: U64


class SnapshotHead(Record, size=40, byteorder=">"):
    """Section "Snapshots"; extra data, id and name follow, padded to a multiple of 8."""

    l1_table_offset: U64
    l1_size: U32  # entries
    id_size: U16
    name_size: U16
    seconds: U32  # since the Epoch
    nanoseconds: U32
    vm_clock: U64  # nanoseconds that the guest had run
    vm_state_size: U32  # superseded by the extra data's
    extra_size: U32


class SnapshotExtra(Record, size=16, byteorder=">"):
    """Section "Snapshots": the extra data that is defined; version 3 always has it."""

    vm_state_size: U64
    disk_size: U64


class BitmapHead(Record, size=24, byteorder=">"):
    """Section "Bitmap directory"; extra data and name follow, padded to a multiple of 8."""

    table_offset: U64
    table_size: U32  # entries
    flags: U32
    type: U8
    granularity_bits: U8
    name_size: U16
    extra_size: U32


class Origin(Record, size=48, byteorder=">"):
    """Our own header extension (docs/formats/qcow2.md, "Identity"); the parent's identity follows."""

    version: U32  # 1
    flags: U32  # 0
    identity: Bytes16  # a UUID of the image
    name_check: Bytes8  # BLAKE2b-64 of the backing file's name when this was written
    parent_size: U64  # of the parent's volume
    parent_length: U32  # bytes of text behind this: "format:identity" of the parent, or none
    reserved: U32
