"""ext2, ext3 and ext4 as a `FileSystem`: its map is the block bitmaps of its groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.errors import CorruptImageError
from vsssnap.volumes import _runs
from vsssnap.volumes.base import FileSystem
from vsssnap.volumes.ext import structs
from vsssnap.volumes.ext.checksums import chained, crc16
from vsssnap.volumes.ext.geometry import bad, read
from vsssnap.volumes.ext.structs import GroupDescriptor, GroupDescriptorHigh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.blocks.reader import BlockReader

_MAGIC_AT = 56
_CHECKSUM_AT = GroupDescriptor.OFFSETS["checksum"]


def probe(volume: BlockReader) -> FileSystem | None:
    """The ext2, ext3 or ext4 of a volume; None if it has none."""
    raw = volume.pread(structs.SUPER_SIZE, structs.SUPER_AT)
    magic = int.from_bytes(raw[_MAGIC_AT : _MAGIC_AT + 2], "little")
    return Ext(volume, raw) if len(raw) == structs.SUPER_SIZE and magic == structs.MAGIC else None


class Ext(FileSystem):
    """A volume with an ext super block.

    The map is not trusted if the journal needs recovery (what it holds may include newer bitmaps;
    freezing the file system empties it), the file system was not unmounted or has errors, or a
    feature is not known.  A group whose descriptor or bitmap fails a check counts as used.
    """

    name = "ext2"

    def __init__(self, volume: BlockReader, raw: bytes) -> None:
        super().__init__(volume)
        try:
            self._geometry, sb = read(raw)
        except CorruptImageError as exc:
            self.doubt = str(exc)
            return
        geometry = self._geometry
        self.name = _name(geometry.compat, geometry.incompat, geometry.ro_compat)
        self.label = sb.volume_name.split(b"\0", 1)[0].decode("utf-8", "replace")
        self.serial = str(geometry.uuid)
        self.size = geometry.blocks * geometry.block_size
        self.block_size = geometry.block_size * geometry.ratio
        self._base = geometry.first_block * geometry.block_size
        self._blocks = -(-(geometry.blocks - geometry.first_block) // geometry.ratio)
        self._page_blocks = geometry.clusters_per_group
        recover = bool(geometry.incompat & structs.RECOVER)
        self.dirty = recover or sb.state & (structs.VALID | structs.ERRORS) != structs.VALID
        if geometry.incompat & structs.JOURNAL_DEV:
            self.doubt = "it is the journal of another file system"
        elif recover:
            self.doubt = "its journal needs recovery: the volume was in use, and not frozen"
        elif self.dirty:
            self.doubt = "it was not unmounted, or has errors: it needs e2fsck"
        elif self.size > volume.size:
            self.doubt = str(bad(f"{self.size} bytes on a volume of {volume.size}"))

    def _page(self, first: int, count: int) -> _runs.Runs:
        """A group; all of it is used if anything about it is not as it must be."""
        geometry = self._geometry
        group = first // self._page_blocks
        raw = self.volume.pread(geometry.descriptor_size, geometry.descriptor_at(group))
        if len(raw) < geometry.descriptor_size or not self._sound(group, raw):
            return _runs.all_used(count)
        low = GroupDescriptor.unpack(raw)
        high = GroupDescriptorHigh.unpack(raw, 32) if len(raw) >= 64 else None
        bitmap = low.block_bitmap_lo | (high.block_bitmap_hi << 32 if high else 0)
        free = low.free_blocks_lo | (high.free_blocks_hi << 16 if high else 0)
        inodes = low.inode_bitmap_lo | (high.inode_bitmap_hi << 32 if high else 0)
        table = low.inode_table_lo | (high.inode_table_hi << 32 if high else 0)
        own = list(self._own(group, (bitmap, 1), (inodes, 1), (table, geometry.inode_table_blocks)))
        summed = bool(geometry.ro_compat & (structs.GDT_CSUM | structs.METADATA_CSUM))
        if summed and low.flags & structs.BLOCK_UNINIT:
            # Nothing was ever allocated in it, so there is no bitmap: only what it begins with is used.
            marks = bytearray(count)
            for start, stop in own:
                marks[start : min(stop, count)] = b"\1" * (min(stop, count) - start)
            return _runs.of_bytes(bytes(marks), count)
        if not 0 < bitmap < geometry.blocks:
            return _runs.all_used(count)
        bits = self.volume.pread(geometry.block_size, bitmap * geometry.block_size)
        if len(bits) < geometry.block_size:
            return _runs.all_used(count)
        if geometry.ro_compat & structs.METADATA_CSUM:
            wanted = low.block_bitmap_csum_lo | (high.block_bitmap_csum_hi << 16 if high else 0)
            found = chained(geometry.seed, bits[: geometry.clusters_per_group // 8])
            if found & (0xFFFF_FFFF if high else 0xFFFF) != wanted:
                return _runs.all_used(count)
        runs = _runs.of_bits(bits, count)
        # What no checksum guards in ext2 and ext3: it must count as many as the descriptor, and have itself.
        if sum(stop - start for start, stop, used in runs.between(0, count) if not used) != free or any(
            not used for start, stop in own for _, _, used in runs.between(start, min(stop, count))
        ):
            return _runs.all_used(count)
        return runs

    def _sound(self, group: int, raw: bytes) -> bool:
        """Whether a descriptor passes the checksum that it has."""
        geometry, number = self._geometry, group.to_bytes(4, "little")
        stored = int.from_bytes(raw[_CHECKSUM_AT : _CHECKSUM_AT + 2], "little")
        head, tail = raw[:_CHECKSUM_AT], raw[_CHECKSUM_AT + 2 :]
        if geometry.ro_compat & structs.METADATA_CSUM:
            found = chained(chained(geometry.seed, number), head + bytes(2) + tail) & 0xFFFF
        elif geometry.ro_compat & structs.GDT_CSUM:
            found = crc16(crc16(crc16(0xFFFF, geometry.uuid.bytes), number), head + tail)
        else:
            return True
        return found == stored

    def _own(self, group: int, *places: tuple[int, int]) -> Iterator[tuple[int, int]]:
        """Clusters of a group that hold metadata, counted from its first: from, to."""
        geometry = self._geometry
        start, per_group, ratio = geometry.group_start(group), geometry.blocks_per_group, geometry.ratio
        leading = geometry.leading_blocks(group)
        if group == 0 and geometry.first_block == 0 and geometry.block_size == structs.SUPER_AT:
            leading += 1  # the block before the super block
        if leading:
            yield 0, min(-(-leading // ratio), self._page_blocks)
        for block, count in places:
            first, last = max(block - start, 0), min(block + count - start, per_group)
            if first < last:
                yield first // ratio, -(-last // ratio)


def _name(compat: int, incompat: int, ro_compat: int) -> str:
    if incompat & ~structs.EXT3_INCOMPAT or ro_compat & ~structs.EXT3_RO_COMPAT:
        return "ext4"
    return "ext3" if compat & structs.HAS_JOURNAL else "ext2"
