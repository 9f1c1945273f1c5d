"""Structures of ext2, ext3 and ext4.

Source: the Linux kernel's "ext4 Data Structures and Algorithms" (Documentation/filesystems/ext4),
sections 4.1 (super block), 4.2 (group descriptors) and 3.2 (layout).  All integers are little-endian.
"""

from __future__ import annotations

from typing import Annotated

from vsssnap._record import U8, U16, U32, U64, Bytes16, Record

_Bytes64 = Annotated[bytes, "64s"]

SUPER_AT = 1024
SUPER_SIZE = 1024
MAGIC = 0xEF53

# s_state
VALID, ERRORS = 1, 2

# s_feature_compat
HAS_JOURNAL, SPARSE_SUPER2 = 0x4, 0x200

# s_feature_incompat
FILETYPE, RECOVER, JOURNAL_DEV, META_BG = 0x2, 0x4, 0x8, 0x10
EXTENTS, BIT64, FLEX_BG = 0x40, 0x80, 0x200
KNOWN_INCOMPAT = (
    FILETYPE
    | RECOVER
    | META_BG
    | EXTENTS
    | BIT64
    | 0x100  # MMP: one block guards against two mounts
    | FLEX_BG
    | 0x400  # EA_INODE
    | 0x2000  # CSUM_SEED
    | 0x4000  # LARGEDIR
    | 0x8000  # INLINE_DATA
    | 0x10000  # ENCRYPT
    | 0x20000  # CASEFOLD
)
CSUM_SEED = 0x2000

# s_feature_ro_compat
SPARSE_SUPER, GDT_CSUM, BIGALLOC, METADATA_CSUM = 0x1, 0x10, 0x200, 0x400
KNOWN_RO_COMPAT = (
    SPARSE_SUPER
    | 0x2  # LARGE_FILE
    | 0x8  # HUGE_FILE
    | GDT_CSUM
    | 0x20  # DIR_NLINK
    | 0x40  # EXTRA_ISIZE
    | 0x100  # QUOTA
    | BIGALLOC
    | METADATA_CSUM
    | 0x1000  # READONLY
    | 0x2000  # PROJECT
    | 0x8000  # VERITY
    | 0x10000  # ORPHAN_PRESENT
)
# What ext3 has; anything else makes it ext4.
EXT3_INCOMPAT, EXT3_RO_COMPAT = FILETYPE | RECOVER | META_BG, SPARSE_SUPER | 0x2 | 0x4

# bg_flags
BLOCK_UNINIT = 2


class SuperBlock(Record, size=384, byteorder="<"):
    """The super block at byte 1024, as far as it says where the blocks are."""

    inodes_count: U32
    blocks_count_lo: U32
    reserved_blocks_lo: U32
    free_blocks_lo: U32
    free_inodes: U32
    first_data_block: U32
    log_block_size: U32  # 1024 << it, bytes
    log_cluster_size: U32
    blocks_per_group: U32
    clusters_per_group: U32
    inodes_per_group: U32
    mtime: U32
    wtime: U32
    mount_count: U16
    max_mount_count: U16
    magic: U16
    state: U16
    errors: U16
    minor_revision: U16
    last_check: U32
    check_interval: U32
    creator_os: U32
    revision: U32  # 0: no features, inodes of 128 bytes
    reserved_ids: U32
    first_inode: U32
    inode_size: U16
    block_group: U16
    feature_compat: U32
    feature_incompat: U32
    feature_ro_compat: U32
    uuid: Bytes16
    volume_name: Bytes16
    last_mounted: _Bytes64
    algorithm_bitmap: U32
    preallocation: U16
    reserved_gdt_blocks: U16
    journal_uuid: Bytes16
    journal_inode: U32
    journal_device: U32
    last_orphan: U32
    hash_seed: Bytes16
    hash_version: U8
    journal_backup_type: U8
    desc_size: U16  # bytes of a group descriptor, with 64BIT
    mount_options: U32
    first_meta_bg: U32
    mkfs_time: U32
    journal_blocks: Annotated[bytes, "68s"]
    blocks_count_hi: U32
    reserved_blocks_hi: U32
    free_blocks_hi: U32
    min_extra_isize: U16
    want_extra_isize: U16
    flags: U32
    raid_stride: U16
    mmp_interval: U16
    mmp_block: U64
    raid_stripe_width: U32
    log_groups_per_flex: U8
    checksum_type: U8
    encryption_level: U8
    reserved: U8
    kbytes_written: U64


class GroupDescriptor(Record, size=32, byteorder="<"):
    """A group; with 64BIT a `GroupDescriptorHigh` follows."""

    block_bitmap_lo: U32
    inode_bitmap_lo: U32
    inode_table_lo: U32
    free_blocks_lo: U16
    free_inodes_lo: U16
    used_dirs_lo: U16
    flags: U16
    exclude_bitmap_lo: U32
    block_bitmap_csum_lo: U16
    inode_bitmap_csum_lo: U16
    unused_inodes_lo: U16
    checksum: U16


class GroupDescriptorHigh(Record, size=32, byteorder="<"):
    """The upper halves."""

    block_bitmap_hi: U32
    inode_bitmap_hi: U32
    inode_table_hi: U32
    free_blocks_hi: U16
    free_inodes_hi: U16
    used_dirs_hi: U16
    unused_inodes_hi: U16
    exclude_bitmap_hi: U32
    block_bitmap_csum_hi: U16
    inode_bitmap_csum_hi: U16
    reserved: U32


# Offsets of what lies behind `SuperBlock`.
BACKUP_GROUPS = 0x24C  # two group numbers, with SPARSE_SUPER2
CHECKSUM_SEED = 0x270
CHECKSUM = 0x3FC
