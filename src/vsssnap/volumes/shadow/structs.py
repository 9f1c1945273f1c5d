"""Structures of the shadow copies that Windows keeps on a volume.

Source: "Volume Shadow Snapshot (VSS) format" (libyal project, 2011-2024), sections "Volume header",
"Catalog" and "Store"; checked against volumes written by Windows Server 2003 to 2019.  Microsoft
publishes no specification.  All integers are little-endian, GUIDs have their first three fields
swapped, times are FILETIME.  Offsets are bytes from the start of the volume and multiples of 16 KiB.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

from vsssnap._record import U32, U64, Bytes16, Record

BLOCK: Final = 0x4000
"""Bytes of every metadata block, and of every block that is copied before it is overwritten."""
BLOCK_BITS: Final = 14
HEADER_OFFSET: Final = 0x1E00
"""Where the volume header lies, inside the boot file of the file system."""
NODE_SIZE: Final = 0x80
"""Bytes of the padded header of a metadata block; its content follows."""
IDENTIFIER: Final = bytes.fromhex("6b87083876c1484eb7ae04046e6cc752")
"""First bytes of every metadata block: {3808876b-c176-4e48-b7ae-04046e6cc752}."""
VERSIONS: Final = frozenset({1, 2})
SECTOR: Final = 512
"""Bytes that one bit of an overlay's bitmap stands for."""

ENTRY_SIZE: Final = 128
"""Bytes of a slot in a catalog block."""
BITMAP_BYTES: Final = BLOCK - NODE_SIZE
"""Bytes of bitmap in a metadata block; one bit a block of the volume, lowest bit first."""

DESCRIPTOR: Final = struct.Struct("<QQQII")
"""original offset, relative offset, offset of the copy, flags, bitmap of 512-byte sectors."""
FORWARDER: Final = 0x1  # the file system moved the block: the relative offset is where to
OVERLAY: Final = 0x2  # sectors written to the shadow copy itself
NOT_USED: Final = 0x4


class RecordType(enum.IntEnum):
    """What a metadata block holds."""

    VOLUME_HEADER = 1
    CATALOG = 2
    BLOCK_LIST = 3
    STORE_HEADER = 4
    RANGE_LIST = 5
    BITMAP = 6


class EntryType(enum.IntEnum):
    """What a slot of the catalog holds."""

    EMPTY = 0
    FREE = 1
    SNAPSHOT = 2
    LOCATION = 3


class ShadowFlags(enum.IntFlag):
    """Flags of a store in the catalog; bits without a name are kept."""

    REVERT_PENDING = 0x1
    WRITTEN = 0x40
    COPY_CACHE = 0x80
    OFFLINE = 0x100
    """Deleted by its user, and kept because older shadow copies need it."""
    UNUSED_READS_ZERO = 0x400
    """Windows gives zeros for unused blocks; so it is with scoped shadow copies."""


class ShadowAttributes(enum.IntFlag):
    """VSS_VOLUME_SNAPSHOT_ATTRIBUTES (vss.h); bits without a name are kept."""

    PERSISTENT = 0x1
    NO_AUTORECOVERY = 0x2
    CLIENT_ACCESSIBLE = 0x4
    NO_AUTO_RELEASE = 0x8
    NO_WRITERS = 0x10
    TRANSPORTABLE = 0x20
    NOT_SURFACED = 0x40
    NOT_TRANSACTED = 0x80
    HARDWARE_ASSISTED = 0x10000
    DIFFERENTIAL = 0x20000
    PLEX = 0x40000
    IMPORTED = 0x80000
    EXPOSED_LOCALLY = 0x100000
    EXPOSED_REMOTELY = 0x200000
    AUTORECOVER = 0x400000
    ROLLBACK_RECOVERY = 0x800000
    DELAYED_POSTSNAPSHOT = 0x1000000
    TXF_RECOVERY = 0x2000000
    FILE_SHARE = 0x4000000


class NodeHeader(Record, size=48, byteorder="<"):
    """What every metadata block begins with."""

    identifier: Bytes16  # IDENTIFIER
    version: U32  # 1, or 2
    record_type: U32  # RecordType
    relative_offset: U64  # bytes, in the file that holds the block
    own_offset: U64  # bytes, on the volume that holds the block
    next_offset: U64  # of the next block of the chain; 0 ends it


class VolumeHeader(Record, size=80, byteorder="<"):
    """What follows the node header at HEADER_OFFSET."""

    catalog_offset: U64  # of the first catalog block; 0: there are no shadow copies
    maximum_size: U64  # bytes of the shadow storage; 0: no bound
    volume_id: Bytes16  # GUID
    storage_id: Bytes16  # GUID of the volume that holds the shadow storage
    flags: U64
    free_space_precopy: U64  # percent
    hot_block_precopy: U64  # percent
    hot_block_days: U32
    protection_flags: U32


class SnapshotEntry(Record, size=64, byteorder="<"):
    """Slot of type 2: a shadow copy; it lies in the catalog of the volume that was copied."""

    entry_type: U32  # EntryType.SNAPSHOT
    priority: U32  # in the lowest byte
    volume_size: U64  # bytes of the volume then, its last sector included
    store_id: Bytes16  # GUID
    stack_position: U64  # 1 for the oldest, the next newer has one more
    flags: U64  # ShadowFlags
    created: U64  # FILETIME
    unknown: U64


class LocationEntry(Record, size=88, byteorder="<"):
    """Slot of type 3: where a store lies; it is in the catalog of the storage volume."""

    entry_type: U32  # EntryType.LOCATION
    priority: U32
    block_list: U64  # offset of its first block, as are the following
    store_id: Bytes16  # GUID, that of a SnapshotEntry
    store_header: U64
    range_list: U64
    bitmap: U64  # blocks that were not worth protecting
    file_reference: U64  # of the file that holds the store: record in 48 bits, sequence in 16
    allocated_size: U64  # bytes; 0 before Windows 10
    previous_bitmap: U64  # blocks that older shadow copies do not need; 0: none
    unknown: U64


class StoreInformation(Record, size=64, byteorder="<"):
    """What follows the header of a store header block, before two strings."""

    kind: Bytes16  # GUID
    copy_id: Bytes16  # GUID
    set_id: Bytes16  # GUID
    context: U32  # VSS_CTX_*
    snapshot_count: U32  # in the set
    attributes: U32  # ShadowAttributes
    reserved: U32
