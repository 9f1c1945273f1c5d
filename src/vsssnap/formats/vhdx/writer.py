"""Writing fixed and dynamic VHDX images.

A fixed disk has a place for each block from the start; a dynamic one gets places in the order in
which blocks are first written.  Only that happens under a lock: the bytes go to disjoint places
and are written by several threads at once.  Zeros are left to the file, which is all zero until
something is written.

A block without a place becomes ZERO in the BAT, so that it is zero by the specification (a
NOT_PRESENT one is merely not defined there), or UNMAPPED where it was marked as a HOLE as a whole.
"""

from __future__ import annotations

import sys
import threading
from array import array
from typing import TYPE_CHECKING, ClassVar, Final

from vsssnap._units import MIB
from vsssnap.blocks.extent import ExtentKind
from vsssnap.errors import UsageError
from vsssnap.formats._zero import data_runs
from vsssnap.formats.base import ImageWriter, WriteOrder
from vsssnap.formats.vhdx import structs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vsssnap.blocks.extent import Extent
    from vsssnap.formats.storage import Storage
    from vsssnap.formats.vhdx.building import Head
    from vsssnap.metadata import ImageMetadata

_ZEROS: Final = memoryview(bytes(MIB))
_UNSAID: Final = (ExtentKind.HOLE, ExtentKind.EXCLUDED, ExtentKind.UNREADABLE)
_GROUP: Final = 4096  # blocks whose places are kept, and whose entries are written, together


class BlockPlaces:
    """Where each payload block lies in a new file.  Thread-safe."""

    def __init__(self, head: Head, *, fixed: bool) -> None:
        self._size = head.geometry.block_size
        self._lock = threading.Lock()
        self._fixed = head.payload if fixed else 0
        self.end = head.payload + (head.geometry.blocks * self._size if fixed else 0)
        # In MiB, by groups of blocks, which a sparse disk has few of.
        self._groups: dict[int, array[int]] = {}

    def get(self, block: int) -> int:
        """First byte of a block in the file; 0 if it has no place."""
        if self._fixed:
            return self._fixed + block * self._size
        group = self._groups.get(block // _GROUP)
        return group[block % _GROUP] * MIB if group is not None else 0

    def take(self, block: int) -> int:
        """The same, after giving it a place."""
        place = self.get(block)
        if place:
            return place
        with self._lock:
            group = self._groups.setdefault(block // _GROUP, array("I", bytes(_GROUP * 4)))
            if not group[block % _GROUP]:
                group[block % _GROUP] = self.end // MIB
                self.end += self._size
            return group[block % _GROUP] * MIB

    def reserve(self, length: int) -> int:
        """A place for something else."""
        with self._lock:
            place = self.end
            self.end += length
            return place

    def any(self, first: int, last: int) -> bool:
        """Whether any of some blocks has a place."""
        if self._fixed:
            return True
        for number in range(first // _GROUP, -(-last // _GROUP)):
            group = self._groups.get(number)
            base = number * _GROUP
            if group is not None and any(group[max(first - base, 0) : min(last - base, _GROUP)]):
                return True
        return False


class VhdxWriter(ImageWriter):
    """Writes a fixed or dynamic image.

    ``_touched`` has one byte for each unit of 1 MiB, 1 if anything was written into it; what is
    untouched is zero, in the file too.  With ``_holes``, a byte for each block, this is what the
    memory of a writer grows by: 1 MiB for a TiB, and 4 bytes for each block that has data.
    """

    write_order = WriteOrder.ANY
    unit = MIB
    blank: ClassVar[int] = structs.ZERO  # the state of a block of which nobody spoke

    def __init__(
        self, storage: Storage, head: Head, *, fixed: bool = False, preallocate: bool = False
    ) -> None:
        self._storage = storage
        self._head = head
        self._geometry = head.geometry
        self.size = head.geometry.size
        self._places = BlockPlaces(head, fixed=fixed)
        self._touched = bytearray(-(-self.size // self.unit))
        self._holes = bytearray(0 if fixed else head.geometry.blocks)
        self._unsaid = dict.fromkeys(_UNSAID, 0)
        if preallocate:
            storage.allocate(self._places.end)

    def _check(self, length: int, offset: int) -> None:
        if offset < 0 or offset + length > self.size:
            raise UsageError(f"{length} bytes at {offset} are not inside a volume of {self.size} bytes")

    def encode(self, data: memoryview, offset: int, /) -> tuple[memoryview, int, list[tuple[int, int]]]:
        """Find the zeros."""
        self._check(len(data), offset)
        return data, offset, list(data_runs(data))

    def store(self, encoded: tuple[memoryview, int, list[tuple[int, int]]], /) -> None:
        """Write what is not zero."""
        data, offset, runs = encoded
        self._no_hole(offset, offset + len(data))
        first, last = offset // self.unit, -(-(offset + len(data)) // self.unit)
        if self._touched.find(1, first, last) >= 0:
            runs = [(0, len(data))]
        elif runs:
            self._touched[first:last] = b"\1" * (last - first)
        for start, end in runs:
            self._put(data[start:end], offset + start)

    def _put(self, data: memoryview, offset: int) -> None:
        """Write bytes into their blocks, which get places."""
        size = self._geometry.block_size
        while data:
            block, inside = divmod(offset, size)
            part = data[: size - inside]
            self._storage.pwrite(part, self._places.take(block) + inside)
            data = data[len(part) :]
            offset += len(part)

    def mark(self, extent: Extent, /) -> None:
        """Keep a HOLE where it covers blocks as a whole, count what a VHDX cannot say.

        Zeros are there already, unless something was written.
        """
        self._check(extent.length, extent.offset)
        self._count(extent)
        for at, end in self._written(extent.offset, extent.end):
            self._put(_ZEROS[: end - at], at)

    def _written(self, offset: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of a range that lie in touched units."""
        last = -(-end // self.unit)
        unit = self._touched.find(1, offset // self.unit, last)
        while unit >= 0:
            yield max(offset, unit * self.unit), min(end, (unit + 1) * self.unit)
            unit = self._touched.find(1, unit + 1, last)

    def _count(self, extent: Extent) -> None:
        size = self._geometry.block_size
        kept = 0
        self._no_hole(extent.offset, extent.end)
        if self._holes and extent.kind is ExtentKind.HOLE:
            first = -(-extent.offset // size)
            last = self._geometry.blocks if extent.end == self.size else extent.end // size
            if first < last and not self._places.any(first, last):
                self._holes[first:last] = b"\1" * (last - first)
                kept = min(last * size, self.size) - first * size
        if extent.kind in self._unsaid:
            self._unsaid[extent.kind] += extent.length - kept

    def _no_hole(self, offset: int, end: int) -> None:
        """Blocks that were marked as holes and are now spoken of otherwise, if only in part, are none."""
        if self._holes:
            first, last = offset // self._geometry.block_size, -(-end // self._geometry.block_size)
            self._holes[first:last] = bytes(last - first)

    def finish(self, metadata: ImageMetadata, /) -> None:
        """Write the head, then BAT and headers as `Head.complete` does; ``metadata`` has no room."""
        self._settle()
        self._storage.truncate(self._places.end)
        self._head.write(self._storage)
        self._head.complete(self._storage, self._bat())

    def _settle(self) -> None:
        """What has to be done before the BAT is known."""

    def _bat(self) -> Iterator[bytes]:
        """All entries of the BAT in order: a chunk's payload blocks, then its sector bitmap."""
        geometry = self._geometry
        for start in range(0, geometry.blocks, geometry.ratio):
            stop = min(start + geometry.ratio, geometry.blocks)
            for first in range(start, stop, _GROUP):
                yield self._entries(first, min(first + _GROUP, stop))
            if geometry.bitmap_entry_of(start) < geometry.entries:
                yield bytes((start + geometry.ratio - stop) * 8)
                yield self._bitmap_entry(start // geometry.ratio).to_bytes(8, "little")

    def _entries(self, first: int, last: int) -> bytes:
        if not self._places.any(first, last) and not self._has_states(first, last):
            return self.blank.to_bytes(8, "little") * (last - first)
        entries = array("Q", [self._entry(block) for block in range(first, last)])
        if sys.byteorder == "big":
            entries.byteswap()
        return entries.tobytes()

    def _has_states(self, first: int, last: int) -> bool:
        """Whether any of some blocks without places is anything but ZERO."""
        return self._holes.find(1, first, last) >= 0

    def _entry(self, block: int) -> int:
        place = self._places.get(block)
        if place:
            return place | structs.FULLY_PRESENT
        return structs.UNMAPPED if self._holes[block] else structs.ZERO

    def _bitmap_entry(self, chunk: int) -> int:
        """Of a chunk's sector bitmap block; 0 for none."""
        return 0

    def close(self) -> None:
        """See `ImageWriter`."""
        self._storage.close()

    def flattened(self) -> Mapping[str, int]:
        """See `ImageWriter`."""
        return {str(kind): count for kind, count in sorted(self._unsaid.items()) if count}
