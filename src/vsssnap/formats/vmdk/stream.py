"""Writing stream-optimized VMDK images: compressed grains, appended, also to a pipe.

Source: "Virtual Disk Format 5.0", "Stream-Optimized Compressed Sparse Extents".  The order in the
file is: header, descriptor, grains by rising place in the volume; behind the grains of each table
that table; at the end the directory, the footer and the end marker.  Each has a marker in front.
Grains that are all zero are left out.  Only the footer says where the directory lies, and is the
complete mark.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from typing import TYPE_CHECKING, Final

from vsssnap._units import MIB, TIB, round_up
from vsssnap.blocks.extent import ExtentKind
from vsssnap.errors import UsageError
from vsssnap.formats._zero import is_zero
from vsssnap.formats.base import ImageWriter, WriteOrder
from vsssnap.formats.raw import check_inside
from vsssnap.formats.vmdk import descriptor, structs
from vsssnap.formats.vmdk.structs import GD_AT_END, SECTOR, TABLE_ENTRIES, Marker, SparseHeader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vsssnap.blocks.extent import Extent
    from vsssnap.formats.storage import Storage
    from vsssnap.formats.vmdk.options import VmdkOptions
    from vsssnap.metadata import ImageMetadata

MAX_SIZE: Final = 62 * TIB  # bytes: the largest disk of vSphere
DESCRIPTOR_SECTORS: Final = 20  # room of the descriptor, as VMware's and QEMU's writers have it
UNSAID: Final = frozenset({ExtentKind.HOLE, ExtentKind.EXCLUDED, ExtentKind.UNREADABLE})
_MOST_SECTORS: Final = 1 << 32  # of the file: what an entry of a table can name
_FLAGS: Final = structs.CHECK_NEWLINES | structs.COMPRESSED | structs.MARKERS

Encoded = tuple[int, int, list[tuple[int, list[bytes | memoryview]]]]


def check_size(size: int, most: int, kind: str) -> None:
    """Hold a size against the format.

    Raises:
        UsageError: it is 0, no whole sectors, or too large.
    """
    if not size or size % SECTOR or size > most:
        raise UsageError(
            f"a {kind} VMDK cannot hold {size} bytes: it takes 512 to {most}, whole sectors of 512 bytes",
            hint="choose vhdx, qcow2 or vsnap" if size > most else "choose vsnap or raw",
        )


def pack_entries(entries: array[int]) -> bytes:
    """A table as it lies in the file: little-endian, whole sectors."""
    if sys.byteorder == "big":
        entries = array("I", entries)
        entries.byteswap()
    data = entries.tobytes()
    return data.ljust(round_up(len(data), SECTOR), b"\0")


class StreamWriter(ImageWriter):
    """Writes a streamOptimized image by rising offset."""

    write_order = WriteOrder.ASCENDING

    def __init__(self, storage: Storage, size: int, options: VmdkOptions) -> None:
        """Begin an image with its header and descriptor."""
        check_size(size, MAX_SIZE, "streamOptimized")
        self._storage = storage
        self.size = size
        self._grain = options.grain_size
        self.unit = max(MIB, self._grain)
        self._level = options.level
        self._span = self._grain * TABLE_ENTRIES
        self._directory = array("I", bytes(4 * -(-size // self._span)))
        self._table = array("I", bytes(4 * TABLE_ENTRIES))
        self._open = -1  # number of the table that has entries
        self._at = 0
        self._unsaid = dict.fromkeys(UNSAID, 0)
        self._overhead = 64 << 10  # bytes in front of the first grain, as VMware's writers leave
        name = storage.name.replace("\\", "/").rpartition("/")[2]
        text = descriptor.make("streamOptimized", options.content_id(), name, size, options.adapter)
        head = self._header(GD_AT_END) + text.ljust(DESCRIPTOR_SECTORS * SECTOR, b"\0")
        storage.append([head.ljust(self._overhead, b"\0")])

    def _header(self, directory: int) -> bytes:
        return (
            SparseHeader(
                magic=structs.MAGIC,
                version=3,
                flags=_FLAGS,
                capacity=self.size // SECTOR,
                grain_size=self._grain // SECTOR,
                descriptor_offset=1,
                descriptor_size=DESCRIPTOR_SECTORS,
                table_entries=TABLE_ENTRIES,
                redundant_offset=0,
                directory_offset=directory,
                overhead=self._overhead // SECTOR,
                unclean=0,
                newlines=structs.NEWLINES,
                compression=structs.DEFLATE,
            )
            .pack()
            .ljust(SECTOR, b"\0")
        )

    def encode(self, data: memoryview, offset: int, /) -> Encoded:
        """Compress the grains that are not zero, each with its marker and padding."""
        check_inside(len(data), offset, self.size)
        end = offset + len(data)
        if offset % self._grain or (end % self._grain and end != self.size):
            raise UsageError(
                f"{len(data)} bytes at {offset} are no whole grains of {self._grain} bytes",
                hint="write whole grains",
            )
        grains: list[tuple[int, list[bytes | memoryview]]] = []
        for low in range(0, len(data), self._grain):
            piece = data[low : low + self._grain]
            if is_zero(piece):
                continue
            packer = zlib.compressobj(self._level)
            packed = packer.compress(piece)
            if len(piece) < self._grain:  # the volume's last grain; all readers take a whole one
                packed += packer.compress(bytes(self._grain - len(piece)))
            packed += packer.flush()
            place = (offset + low) // SECTOR
            head = place.to_bytes(8, "little") + len(packed).to_bytes(4, "little")
            padding = bytes(-(len(head) + len(packed)) % SECTOR)
            grains.append(((offset + low) // self._grain, [head, packed, padding]))
        return offset, end, grains

    def store(self, encoded: Encoded, /) -> None:
        """Append grains; between two tables the first of them."""
        offset, end, grains = encoded
        if offset < self._at:
            raise UsageError(
                f"{self._storage.name} got a block at {offset} after byte {self._at}",
                hint="write a stream by rising offset",
            )
        self._at = end
        parts: list[bytes | memoryview] = []
        base = self._storage.size
        for grain, pieces in grains:
            number, index = divmod(grain, TABLE_ENTRIES)
            if number != self._open:
                if parts:
                    self._storage.append(parts)
                    parts = []
                self._close_table()
                self._open = number
                base = self._storage.size
            sector = base // SECTOR
            if sector >= _MOST_SECTORS:
                raise UsageError(
                    f"{self._storage.name}: the grain at {grain * self._grain} would lie behind 2 TiB",
                    hint="a VMDK of compressed grains cannot be larger; choose vsnap, or smaller disks",
                )
            self._table[index] = sector
            parts += pieces
            base += sum(map(len, pieces))
        if parts:
            self._storage.append(parts)

    def _close_table(self) -> None:
        """Write the table whose grains were all written."""
        if self._open < 0:
            return
        data = pack_entries(self._table)
        at = self._storage.append([_marker(structs.GRAIN_TABLE, len(data)), data])
        self._directory[self._open] = at // SECTOR + 1
        self._table = array("I", bytes(4 * TABLE_ENTRIES))
        self._open = -1

    def mark(self, extent: Extent, /) -> None:
        """Count what a VMDK cannot say; what is not stored is zero."""
        check_inside(extent.length, extent.offset, self.size)
        if extent.kind in UNSAID:
            self._unsaid[extent.kind] += extent.length

    def finish(self, metadata: ImageMetadata, /) -> None:
        """See `ImageWriter`: the last table and the directory, then the footer."""
        self._close_table()
        data = pack_entries(self._directory)
        at = self._storage.append([_marker(structs.GRAIN_DIRECTORY, len(data)), data])
        self._storage.flush()
        footer = self._header(at // SECTOR + 1)
        self._storage.append([_marker(structs.FOOTER, SECTOR), footer, _marker(structs.END_OF_STREAM, 0)])
        self._storage.flush()

    def close(self) -> None:
        """See `ImageWriter`."""
        self._storage.close()

    def flattened(self) -> Mapping[str, int]:
        """See `ImageWriter`."""
        return {str(kind): count for kind, count in sorted(self._unsaid.items()) if count}


def _marker(kind: int, length: int) -> bytes:
    return Marker(length // SECTOR, 0, kind).pack().ljust(SECTOR, b"\0")
