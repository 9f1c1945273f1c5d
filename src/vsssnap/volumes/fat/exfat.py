"""exFAT as a `FileSystem`: its map is the allocation bitmap, a file that the root directory names."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from vsssnap.blocks.extent import Extent
from vsssnap.errors import CorruptImageError
from vsssnap.volumes import _runs
from vsssnap.volumes.base import FileSystem
from vsssnap.volumes.fat.structs import ExfatBitmapEntry, ExfatBootSector

if TYPE_CHECKING:
    from vsssnap.blocks.reader import BlockReader

_DIRTY = 2
_SECOND_FAT = 1
_MAX_ROOT = 256 << 10  # bytes of the root directory that are searched; the bitmap is always near its start
_ENTRY = 32
_END, _BITMAP, _LABEL = 0x00, 0x81, 0x83
_UNSUMMED = (106, 107, 112)  # flags and percentage change without a new checksum


def probe(volume: BlockReader) -> FileSystem | None:
    """The exFAT of a volume; None if it has none."""
    head = volume.pread(512, 0)
    return Exfat(volume, head) if head[3:11] == b"EXFAT   " and head[510:] == b"\x55\xaa" else None


class Exfat(FileSystem):
    """A volume with the boot sector of exFAT.

    The map is not trusted if the volume is marked dirty, its boot checksum fails, it has two FATs
    (TexFAT), or a structure on the way to the bitmap is damaged.
    """

    name = "exfat"

    def __init__(self, volume: BlockReader, head: bytes) -> None:
        super().__init__(volume)
        try:
            boot = ExfatBootSector.unpack(head)
            self._read_boot(boot)
            self._read_root(boot.root_cluster)
            self.dirty = bool(boot.flags & _DIRTY)
            if self.dirty:
                self.doubt = "it is marked dirty: it was not unmounted"
        except CorruptImageError as exc:
            self.doubt = str(exc)

    def _read_boot(self, boot: ExfatBootSector) -> None:
        if not (9 <= boot.sector_shift <= 12 and boot.cluster_shift <= 25 - boot.sector_shift):
            raise _bad(f"sectors of 1 << {boot.sector_shift}, clusters of 1 << {boot.cluster_shift} of them")
        sector = 1 << boot.sector_shift
        self._check_sum(sector)
        if boot.fats != 1 or boot.flags & _SECOND_FAT:
            raise _bad(f"{boot.fats} tables, flags 0x{boot.flags:x}: TexFAT is not known")
        self.block_size = sector << boot.cluster_shift
        self.serial = f"{boot.serial >> 16:04X}-{boot.serial & 0xFFFF:04X}"
        self._base = boot.heap_offset * sector
        self._blocks = boot.cluster_count
        self.size = self._base + self._blocks * self.block_size
        length = boot.volume_length * sector
        if not 1 <= boot.cluster_count <= 0xFFFF_FFF5 or self.size > length:
            raise _bad(f"{boot.cluster_count} clusters on {length} bytes")
        if length > self.volume.size:
            raise _bad(f"{length} bytes on a volume of {self.volume.size}")
        self._fat_at = boot.fat_offset * sector
        if boot.fat_length * sector < (boot.cluster_count + 2) * 4:
            raise _bad(f"{boot.fat_length} sectors for the table of {boot.cluster_count} clusters")

    def _check_sum(self, sector: int) -> None:
        """The sum over the first eleven sectors fills the twelfth."""
        region = self.volume.pread(12 * sector, 0)
        total = 0
        for at, byte in enumerate(region[: 11 * sector]):
            if at not in _UNSUMMED:
                total = ((total >> 1 | total << 31) & 0xFFFF_FFFF) + byte & 0xFFFF_FFFF
        if region[11 * sector :] != total.to_bytes(4, "little") * (sector // 4):
            raise _bad("the boot checksum fails")

    def _chain(self, first: int, size: int, what: str) -> array[int]:
        """The clusters of a file of ``size`` bytes; shorter if the chain ends before."""
        clusters = array("I")
        page_at, page = -1, b""
        for _ in range(-(-size // self.block_size)):
            if not 2 <= first < self._blocks + 2:
                break
            clusters.append(first)
            at = first * 4 & ~0xFFFF
            if at != page_at:
                page_at, page = at, self.volume.pread(1 << 16, self._fat_at + at)
            first = int.from_bytes(page[first * 4 - at : first * 4 - at + 4], "little")
        if not clusters:
            raise _bad(f"{what} in cluster {first}")
        return clusters

    def _read_root(self, first: int) -> None:
        chain = self._chain(first, _MAX_ROOT, "the root directory")
        self._bitmap = array("I")
        root = b"".join(self._cluster(number) for number in chain)[:_MAX_ROOT]
        for at in range(0, len(root) - _ENTRY + 1, _ENTRY):
            kind = root[at]
            if kind == _END:
                break
            if kind == _LABEL:
                self.label = root[at + 2 : at + 2 + 2 * min(root[at + 1], 11)].decode("utf-16-le", "replace")
            elif kind == _BITMAP:
                self._read_bitmap(ExfatBitmapEntry.unpack(root, at))
        if not self._bitmap:
            raise _bad("the root directory names no allocation bitmap")
        used = [chain[0], *self._bitmap]
        places = [Extent(self._base + (number - 2) * self.block_size, self.block_size) for number in used]
        if any(True for each in places for _ in self._free(each.offset, each.end)):
            raise _bad("the allocation bitmap calls its own clusters free")

    def _read_bitmap(self, entry: ExfatBitmapEntry) -> None:
        size = -(-self._blocks // 8)
        if self._bitmap or entry.flags & 1 or entry.length < size:
            raise _bad(f"an allocation bitmap of {entry.length} bytes for {self._blocks} clusters")
        self._bitmap = self._chain(entry.first_cluster, size, "the allocation bitmap")
        if len(self._bitmap) * self.block_size < size:
            raise _bad("the chain of the allocation bitmap ends too early")

    def _cluster(self, number: int) -> bytes:
        """What is searched of a cluster of the root directory."""
        return self.volume.pread(min(self.block_size, _MAX_ROOT), self._base + (number - 2) * self.block_size)

    def _page(self, first: int, count: int) -> _runs.Runs:
        at, end = first // 8, -(-(first + count) // 8)
        parts = []
        while at < end:
            index, within = divmod(at, self.block_size)
            take = min(end - at, self.block_size - within)
            place = self._base + (self._bitmap[index] - 2) * self.block_size + within
            part = self.volume.pread(take, place)
            parts.append(part + b"\xff" * (take - len(part)))
            at += take
        return _runs.of_bits(b"".join(parts), count)


def _bad(what: str) -> CorruptImageError:
    return CorruptImageError(f"exFAT: {what}", structure="exFAT", offset=0)
