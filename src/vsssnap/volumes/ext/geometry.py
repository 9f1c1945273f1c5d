"""The super block, and where it puts the group descriptors and their copies."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from vsssnap.errors import CorruptImageError
from vsssnap.volumes.ext import structs
from vsssnap.volumes.ext.checksums import chained
from vsssnap.volumes.ext.structs import GroupDescriptor, SuperBlock

_LARGEST_BLOCK = 64 << 10
_FEWEST_BLOCKS = 256  # in a group; mke2fs makes none smaller


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes in bytes; block and group numbers as on disk."""

    block_size: int
    ratio: int  # blocks a cluster; 1 without BIGALLOC
    first_block: int  # of group 0: 1 with blocks of 1 KiB, else 0
    blocks: int
    clusters_per_group: int
    inode_table_blocks: int  # of one group
    descriptor_size: int
    reserved_gdt_blocks: int
    meta_from: int  # descriptor blocks from this one on lie in their own groups
    backups: tuple[int, int] | None  # groups with copies, with SPARSE_SUPER2
    sparse: bool
    seed: int  # of the checksums, with METADATA_CSUM
    uuid: UUID
    compat: int
    incompat: int
    ro_compat: int

    @property
    def blocks_per_group(self) -> int:
        """Blocks of every group but the last."""
        return self.clusters_per_group * self.ratio

    @property
    def groups(self) -> int:
        """How many there are."""
        return -(-(self.blocks - self.first_block) // self.blocks_per_group)

    @property
    def descriptors_per_block(self) -> int:
        """How many fit."""
        return self.block_size // self.descriptor_size

    def group_start(self, group: int) -> int:
        """Its first block."""
        return self.first_block + group * self.blocks_per_group

    def has_super(self, group: int) -> bool:
        """Whether it begins with a copy of the super block."""
        if group == 0:
            return True
        if self.backups is not None:
            return group in self.backups
        if group == 1 or not self.sparse:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))

    def descriptor_at(self, group: int) -> int:
        """Byte offset of a group's descriptor."""
        index, within = divmod(group, self.descriptors_per_block)
        if index < self.meta_from:
            block = structs.SUPER_AT // self.block_size + 1 + index
        else:
            first = index * self.descriptors_per_block
            block = self.group_start(first) + self.has_super(first)
            # With blocks of 1 KiB that count from 0 the super block is the second of them.
            if first == 0 and self.block_size == structs.SUPER_AT and self.first_block == 0:
                block += 1
        return block * self.block_size + within * self.descriptor_size

    def leading_blocks(self, group: int) -> int:
        """Blocks at the start of a group that hold copies of super block and descriptors."""
        index = group // self.descriptors_per_block
        copies = int(self.has_super(group))
        if index < self.meta_from:
            if copies:
                total = -(-self.groups // self.descriptors_per_block)
                copies += min(self.meta_from, total) + self.reserved_gdt_blocks
            return copies
        first = index * self.descriptors_per_block
        last = first + self.descriptors_per_block - 1
        return copies + (group in (first, first + 1, last))


def _is_power(value: int, base: int) -> bool:
    power = base
    while power < value:
        power *= base
    return power == value


def read(raw: bytes) -> tuple[Geometry, SuperBlock]:
    """Take apart the super block.

    Args:
        raw: Its 1024 bytes.

    Raises:
        CorruptImageError: it fails its checksum, or a number is none that can be.
    """
    sb = SuperBlock.unpack(raw)
    compat, incompat, ro_compat = (
        (sb.feature_compat, sb.feature_incompat, sb.feature_ro_compat) if sb.revision else (0, 0, 0)
    )
    unknown = (incompat & ~structs.KNOWN_INCOMPAT, ro_compat & ~structs.KNOWN_RO_COMPAT)
    if any(unknown):
        raise bad(f"features 0x{unknown[0]:x} and 0x{unknown[1]:x} are not known")
    checked = bool(ro_compat & structs.METADATA_CSUM)
    if checked and chained(0xFFFF_FFFF, raw[: structs.CHECKSUM]) != _u32(raw, structs.CHECKSUM):
        raise bad("it fails its checksum")
    if sb.log_block_size > 6 or sb.log_cluster_size > 30:
        raise bad(
            f"blocks of 1 << {10 + sb.log_block_size} bytes, clusters of 1 << {10 + sb.log_cluster_size}"
        )
    size = 1024 << sb.log_block_size
    bigalloc = bool(ro_compat & structs.BIGALLOC)
    shift = sb.log_cluster_size - sb.log_block_size if bigalloc else 0
    if shift < 0 or size > _LARGEST_BLOCK or size << shift > 1 << 30:
        raise bad(f"clusters of 1 << {10 + sb.log_cluster_size} bytes, blocks of {size}")
    blocks, descriptor = sb.blocks_count_lo, GroupDescriptor.SIZE
    if incompat & structs.BIT64:
        blocks |= sb.blocks_count_hi << 32
        descriptor = sb.desc_size
    per_group = sb.clusters_per_group if bigalloc else sb.blocks_per_group
    if (
        descriptor not in (32, 64, 128, 256, 512, 1024)
        or not 0 < per_group <= 8 * size
        or sb.blocks_per_group < _FEWEST_BLOCKS
        or per_group << shift != sb.blocks_per_group
        or sb.first_data_block > 1
        or not sb.first_data_block < blocks < 1 << 48
    ):
        raise bad(
            f"{blocks} blocks, {sb.blocks_per_group} a group of {per_group} clusters, "
            f"descriptors of {descriptor} bytes"
        )
    inode_size = sb.inode_size if sb.revision else 128
    table = -(-sb.inodes_per_group * inode_size // size)
    if not 0 < table < sb.blocks_per_group:
        raise bad(f"{sb.inodes_per_group} inodes of {inode_size} bytes a group")
    if checked:
        seeded = bool(incompat & structs.CSUM_SEED)
        seed = _u32(raw, structs.CHECKSUM_SEED) if seeded else chained(0xFFFF_FFFF, sb.uuid)
    else:
        seed = 0
    sparse2 = bool(compat & structs.SPARSE_SUPER2)
    at = structs.BACKUP_GROUPS
    found = Geometry(
        block_size=size,
        ratio=1 << shift,
        first_block=sb.first_data_block,
        blocks=blocks,
        clusters_per_group=per_group,
        inode_table_blocks=table,
        descriptor_size=descriptor,
        reserved_gdt_blocks=sb.reserved_gdt_blocks,
        meta_from=sb.first_meta_bg if incompat & structs.META_BG else 1 << 32,
        backups=(_u32(raw, at), _u32(raw, at + 4)) if sparse2 else None,
        sparse=bool(ro_compat & structs.SPARSE_SUPER),
        seed=seed,
        uuid=UUID(bytes=sb.uuid),
        compat=compat,
        incompat=incompat,
        ro_compat=ro_compat,
    )
    if found.groups > 1 << 32 or found.groups * sb.inodes_per_group != sb.inodes_count:
        raise bad(f"{sb.inodes_count} inodes in {found.groups} groups of {sb.inodes_per_group}")
    return found, sb


def _u32(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 4], "little")


def bad(what: str) -> CorruptImageError:
    """An error of the super block."""
    return CorruptImageError(f"ext: super block: {what}", structure="super block", offset=structs.SUPER_AT)
