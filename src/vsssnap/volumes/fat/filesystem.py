"""FAT12, FAT16 and FAT32 as a `FileSystem`: an entry of the table that is not zero is a used cluster."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vsssnap._units import is_power_of_two
from vsssnap.errors import CorruptImageError
from vsssnap.volumes import _runs
from vsssnap.volumes.base import FileSystem
from vsssnap.volumes.fat.structs import BootSector, Tail16, Tail32

if TYPE_CHECKING:
    from vsssnap.blocks.reader import BlockReader

_SECTORS = (512, 1024, 2048, 4096)
_MEDIA = frozenset({0xF0, *range(0xF8, 0x100)})
_MOST_FAT12, _MOST_FAT16, _MOST_FAT32 = 4084, 65524, 0x0FFF_FFF5
_CLOSED = {16: 0x8000, 32: 0x0800_0000}  # bits of entry 1
_NIBBLE = bytes(value & 0x0F for value in range(256))
_BAD16 = re.compile(b"\xf7\xff", re.DOTALL)
_BAD32 = re.compile(b"\xf7\xff\xff[" + re.escape(bytes(range(0x0F, 0x100, 0x10))) + b"]", re.DOTALL)


def probe(volume: BlockReader) -> FileSystem | None:
    """The FAT of a volume; None if it has none."""
    head = volume.pread(512, 0)
    if len(head) < 512 or head[510:] != b"\x55\xaa" or head[0] not in (0xEB, 0xE9):
        return None
    boot = BootSector.unpack(head)
    if (
        boot.bytes_per_sector not in _SECTORS
        or not is_power_of_two(boot.sectors_per_cluster)
        or not boot.reserved_sectors
        or boot.fats not in (1, 2)
        or boot.media not in _MEDIA
        or (boot.fat_sectors_16 == 0) != (boot.root_entries == 0)
    ):
        return None
    return Fat(volume, head, boot)


class Fat(FileSystem):
    """A volume with a BIOS parameter block.

    A cluster is used if any copy of the table has it so; bad ones count as free.  The map is not
    trusted if the volume is marked as in use, or the numbers of its boot sector do not fit together.
    """

    name = "fat32"
    _page_blocks = 1 << 16

    def __init__(self, volume: BlockReader, head: bytes, boot: BootSector) -> None:
        super().__init__(volume)
        try:
            self._read(head, boot)
        except CorruptImageError as exc:
            self.doubt = str(exc)

    def _read(self, head: bytes, boot: BootSector) -> None:
        sector, per_cluster = boot.bytes_per_sector, boot.sectors_per_cluster
        large = boot.fat_sectors_16 == 0
        tail32 = Tail32.unpack(head, BootSector.SIZE) if large else None
        tail = tail32 if tail32 is not None else Tail16.unpack(head, BootSector.SIZE)
        fat_sectors = tail32.fat_sectors if tail32 is not None else boot.fat_sectors_16
        total = boot.total_sectors_16 or boot.total_sectors_32
        first = boot.reserved_sectors + boot.fats * fat_sectors + -(-boot.root_entries * 32 // sector)
        clusters = (total - first) // per_cluster
        if clusters < 1 or not fat_sectors:
            raise _bad(f"{total} sectors, of which {first} are no clusters", 19)
        self._bits = 32 if large else 12 if clusters <= _MOST_FAT12 else 16
        self.name = f"fat{self._bits}"
        most = _MOST_FAT32 if large else _MOST_FAT16
        needed = -(-(clusters + 2) * self._bits // (8 * sector))
        # A table that is far too long belongs to other clusters than these.
        if clusters > most or not needed <= fat_sectors <= needed * 3 // 2 + 16:
            raise _bad(f"{clusters} clusters, {fat_sectors} sectors for a table that needs {needed}", 22)
        self.block_size = sector * per_cluster
        self._base = first * sector
        self._blocks = clusters
        self.size = self._base + clusters * self.block_size
        if tail.signature == 0x29:
            self.serial = f"{tail.serial >> 16:04X}-{tail.serial & 0xFFFF:04X}"
            label = tail.label.decode("cp437").rstrip()
            self.label = "" if label == "NO NAME" else label
        if total * sector > self.volume.size:
            raise _bad(f"{total * sector} bytes on a volume of {self.volume.size}", 32)
        self._fat_size = fat_sectors * sector
        self._fats = [boot.reserved_sectors * sector + index * self._fat_size for index in range(boot.fats)]
        first_entries = self.volume.pread(8, self._fats[0])
        if first_entries[0] != boot.media:
            raise _bad(f"the table begins with 0x{first_entries[0]:02x}, not 0x{boot.media:02x}", 21)
        if tail32 is not None:
            self._check_large(head, tail32, sector)
        if tail.state & 1 or not self._closed(first_entries):
            self.dirty = True
            self.doubt = "it is marked as in use: it was not unmounted"

    def _closed(self, first_entries: bytes) -> bool:
        width = self._bits // 8
        if self._bits == 12:
            return True
        return bool(int.from_bytes(first_entries[width : 2 * width], "little") & _CLOSED[self._bits])

    def _check_large(self, head: bytes, tail: Tail32, sector: int) -> None:
        if tail.version:
            raise _bad(f"version 0x{tail.version:04x}", 42)
        if not 2 <= tail.root_cluster < self._blocks + 2:
            raise _bad(f"the root directory in cluster {tail.root_cluster}", 44)
        root = tail.root_cluster - 2
        if any(not used for _, _, used in self._page(root, 1).between(0, 1)):
            raise _bad(f"cluster {tail.root_cluster} of the root directory is free", 44)
        if tail.backup_sector not in (0, 0xFFFF):
            copy = self.volume.pread(64, tail.backup_sector * sector)
            if copy[3:64] != head[3:64]:
                raise _bad(f"it differs from its copy in sector {tail.backup_sector}", 3)

    def _page(self, first: int, count: int) -> _runs.Runs:
        marks = 0
        for at in self._fats:
            marks |= int.from_bytes(self._marks(at, first + 2, count), "little")
        return _runs.of_bytes(marks.to_bytes(count, "little"), count)

    def _marks(self, at: int, entry: int, count: int) -> bytes:
        """One byte for each of ``count`` entries from number ``entry``: zero if free or bad."""
        if self._bits == 12:
            return self._marks12(at, entry, count)
        width = self._bits // 8
        data = self.volume.pread(count * width, at + entry * width)
        data += b"\xff" * (count * width - len(data))
        if self._bits == 32:
            # The highest four bits are none of the entry's.
            joined = int.from_bytes(data[3::4].translate(_NIBBLE), "little")
            parts = [data[0::4], data[1::4], data[2::4]]
            pattern = _BAD32
        else:
            joined, parts, pattern = 0, [data[0::2], data[1::2]], _BAD16
        for part in parts:
            joined |= int.from_bytes(part, "little")
        marks = bytearray(joined.to_bytes(count, "little"))
        for found in pattern.finditer(data):
            if found.start() % width == 0:
                marks[found.start() // width] = 0
        return bytes(marks)

    def _marks12(self, at: int, entry: int, count: int) -> bytes:
        start = entry * 3 // 2
        data = self.volume.pread((entry + count) * 3 // 2 + 2 - start, at + start)
        data += b"\xff" * 2
        marks = bytearray(count)
        for index in range(count):
            place = (entry + index) * 3 // 2 - start
            value = data[place] | data[place + 1] << 8
            value = value >> 4 if (entry + index) & 1 else value & 0xFFF
            marks[index] = value not in (0, 0xFF7)
        return bytes(marks)


def _bad(what: str, at: int) -> CorruptImageError:
    return CorruptImageError(f"FAT: boot sector: {what}", structure="boot sector", offset=at)
