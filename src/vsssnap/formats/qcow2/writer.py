"""Writing QCOW2 images, version 3.

Clusters are handed out under a lock that is held for some table entries; data is written outside
of it.  The file's first sector, which makes it an image, is written last of all.

Source: QEMU, docs/interop/qcow2.txt.
"""

from __future__ import annotations

import threading
from array import array
from typing import TYPE_CHECKING, Any, Final

from vsssnap._units import MIB
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import UsageError
from vsssnap.formats._zero import PIECE, is_zero
from vsssnap.formats.base import ImageWriter, WriteOrder
from vsssnap.formats.qcow2 import structs
from vsssnap.formats.qcow2.allocation import Allocator
from vsssnap.formats.qcow2.header import Layout, build
from vsssnap.formats.qcow2.mapwriter import MapWriter
from vsssnap.formats.qcow2.options import KINDS
from vsssnap.formats.qcow2.packing import pack
from vsssnap.formats.qcow2.structs import COMPRESSED, COPIED, HOST_MASK, SECTOR, ZERO, Header, HeaderV3

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vsssnap.formats.base import ImageReader
    from vsssnap.formats.qcow2.header import Lineage
    from vsssnap.formats.qcow2.options import Qcow2Options
    from vsssnap.formats.storage import Storage
    from vsssnap.metadata import ImageMetadata

_ZEROS: Final = bytes(PIECE)
_UNSAID: Final = frozenset({ExtentKind.HOLE, ExtentKind.EXCLUDED, ExtentKind.UNREADABLE})

# What becomes of a cluster.
_STORE: Final = 0
_SHOW: Final = 1  # as in the parent, which has data there
_CLEAR: Final = 2  # zero, and the parent has data there
_NOTHING: Final = 3  # zero, and so it is without a word

_Run = tuple[int, int, int]
"""What, and the bytes from and to of the block."""


class Qcow2Writer(ImageWriter):
    """Writes clusters as they are, in any order and from several threads; zeros are left out.

    A block that is written again (by hand: `copy_blocks` writes each once) goes to the clusters that
    it has, so the last write always counts.
    """

    def __init__(
        self,
        storage: Storage,
        size: int,
        options: Qcow2Options,
        parent: ImageReader | None,
        lineage: Lineage,
        backing: tuple[str, str],
    ) -> None:
        """Begin in an empty storage.

        Args:
            storage: Seekable and readable.
            size: Bytes of the volume.
            options: Checked against the size.
            parent: What is behind it.
            lineage: What the header says of both.
            backing: The parent's name and format, as qemu calls it.
        """
        self.size = size
        self.unit = max(MIB, options.cluster_size)
        self._storage = storage
        self._options = options
        self._parent = parent
        self._lineage = lineage
        self._backing = backing
        self._cluster = options.cluster_size
        self._unsaid = dict.fromkeys(_UNSAID, 0)
        self._lock = threading.Lock()
        self._allocator = Allocator(storage, self._cluster)
        self._allocator.take(1)  # the header's
        self._map = MapWriter(storage, self._allocator, self._cluster, size, self._begin_table)

    # Any thread.

    def encode(self, data: memoryview, offset: int, /) -> Any:  # noqa: ANN401 - opaque
        """Find what is zero, and what the parent has already."""
        return data, offset, self._classify(data, offset)

    def _classify(self, data: memoryview, offset: int) -> list[_Run]:
        """What becomes of each cluster of a block; neighbours are joined."""
        self._check(len(data), offset)
        behind, shown = self._behind(len(data), offset)
        small = self._cluster <= PIECE
        begins = _ZEROS.startswith
        runs: list[_Run] = []
        last, first = -1, 0
        for at in range(0, len(data), self._cluster):
            piece = data[at : at + self._cluster]
            if behind is not None and behind.startswith(piece, at):
                what = _SHOW
            elif begins(piece) if small else is_zero(piece):
                what = _CLEAR if shown else _NOTHING
            else:
                what = _STORE
            if what != last:
                if at:
                    runs.append((last, first, at))
                last, first = what, at
        if len(data):
            runs.append((last, first, len(data)))
        return runs

    def _behind(self, length: int, offset: int) -> tuple[bytes | None, bool]:
        """The parent's bytes of a range, if it has any to compare with; whether it has more than zeros."""
        if self._parent is None:
            return None, False
        kinds = {extent.kind for extent in self._parent.extents(offset, length)}
        if ExtentKind.UNREADABLE in kinds:
            return None, True
        if ExtentKind.DATA not in kinds:
            return None, False
        return self._parent.pread(length, offset).ljust(length, b"\0"), True

    def _check(self, length: int, offset: int) -> None:
        if offset < 0 or offset + length > self.size:
            raise UsageError(f"{length} bytes at {offset} are not inside a volume of {self.size} bytes")
        if offset % self._cluster or (length % self._cluster and offset + length != self.size):
            raise UsageError(
                f"{length} bytes at {offset} are no whole clusters of {self._cluster}",
                hint="write aligned blocks of the writer's unit",
            )

    # Storing.

    def store(self, encoded: Any, /) -> None:  # noqa: ANN401 - opaque
        """Write what is not zero and not the parent's."""
        data, offset, runs = encoded
        writes: list[tuple[int, int, int]] = []  # where, and the bytes from and to of the block
        with self._lock:
            for what, first, last in runs:
                if what == _STORE:
                    self._place(offset, first, last, writes)
                else:
                    self._settle(what, offset, first, last, writes)
        for place, first, last in writes:
            self._storage.pwrite(data[first:last], place)

    def _place(self, offset: int, first: int, last: int, writes: list[tuple[int, int, int]]) -> None:
        """Give clusters to a range of a block; those that it has stay its own."""
        size = self._cluster
        low, high = (offset + first) // size, -(-(offset + last) // size)
        for base, table, start, stop in self._map.spans(low, high, make=True):
            if max(table[start:stop]) <= ZERO:
                pieces: Sequence[tuple[int, int]] = [(start, stop)]
            else:
                pieces = [(index, index + 1) for index in range(start, stop)]
            for begin, end in pieces:
                host = table[begin] & HOST_MASK
                if not host:
                    host = self._allocator.take(end - begin)
                    table[begin:end] = array(
                        "Q", range(host | COPIED, (host | COPIED) + (end - begin) * size, size)
                    )
                at = (base + begin) * size - offset
                writes.append((host, at, min(at + (end - begin) * size, last)))

    def _settle(
        self, what: int, offset: int, first: int, last: int, writes: list[tuple[int, int, int]]
    ) -> None:
        """Let a range be zero or the parent's; clusters that it has from before get its bytes."""
        size = self._cluster
        value = ZERO if what == _CLEAR else 0
        low, high = (offset + first) // size, -(-(offset + last) // size)
        # A new table says already what is zero.
        for base, table, start, stop in self._map.spans(low, high, make=what == _SHOW):
            if max(table[start:stop]) <= ZERO:
                table[start:stop] = array("Q", [value]) * (stop - start)
                continue
            for index in range(start, stop):
                host = table[index] & HOST_MASK
                if host:
                    at = (base + index) * size - offset
                    writes.append((host, at, min(at + size, last)))
                else:
                    table[index] = value

    def _begin_table(self, table: array[int], first: int) -> None:
        """Zeros, also where the parent has data."""
        if self._parent is None:
            return
        size = self._cluster
        base = first * size
        length = min(len(table) * size, self.size - base)
        for extent in self._parent.extents(base, length):
            if not extent.reads_as_zero:
                low, high = (extent.offset - base) // size, -(-(extent.end - base) // size)
                table[low:high] = array("Q", [ZERO]) * (high - low)

    # Marks.

    def mark(self, extent: Extent, /) -> None:
        """Count what QCOW2 cannot say; the range is zero already, unless it was written."""
        if extent.offset < 0 or extent.end > self.size:
            raise UsageError(
                f"{extent.length} bytes at {extent.offset} are not inside a volume of {self.size} bytes"
            )
        with self._lock:
            if extent.kind in _UNSAID:
                self._unsaid[extent.kind] += extent.length
            writes, torn = self._erase(extent)
        for place, length in writes:
            for at in range(0, length, PIECE):
                self._storage.pwrite(_ZEROS[: min(PIECE, length - at)], place + at)
        for index in torn:
            self._cut(extent, index)

    def _erase(self, extent: Extent) -> tuple[list[tuple[int, int]], list[int]]:
        """Let a range that may have been written be zero.

        Returns:
            Where zeros are to be written, and the parent's clusters of which only a part is zero.
        """
        size = self._cluster
        writes: list[tuple[int, int]] = []
        torn: list[int] = []
        low, high = extent.offset // size, -(-extent.end // size)
        for base, table, start, stop in self._map.spans(low, high, make=False):
            if self._parent is None and not max(table[start:stop]):
                continue
            for index in range(start, stop):
                at = (base + index) * size
                first, last = max(at, extent.offset), min(at + size, extent.end)
                host = table[index] & HOST_MASK
                if host:
                    writes.append((host + first - at, last - first))
                elif self._parent is not None and not table[index]:
                    if last - first == min(size, self.size - at):
                        table[index] = ZERO
                    else:
                        torn.append(base + index)
        return writes, torn

    def _cut(self, extent: Extent, index: int) -> None:
        """Store a cluster of the parent's with zeros in a part of it."""
        assert self._parent is not None  # noqa: S101 - only its clusters are torn
        at = index * self._cluster
        length = min(self._cluster, self.size - at)
        data = bytearray(self._parent.pread(length, at).ljust(length, b"\0"))
        first, last = max(at, extent.offset) - at, min(at + length, extent.end) - at
        data[first:last] = bytes(last - first)
        self.pwrite(memoryview(data), at)

    def flattened(self) -> Mapping[str, int]:
        """See `ImageWriter`."""
        return {str(kind): count for kind, count in sorted(self._unsaid.items()) if count}

    # The end.

    def finish(self, metadata: ImageMetadata, /) -> None:
        """Write the tables, flush, and then the header; there is no room for ``metadata``."""
        if self._parent is not None:
            self._cover(self._parent)
        self._map.finish(COPIED)
        table, clusters, end = self._allocator.finish()
        self._storage.truncate(end)
        name, kind = self._backing
        packed = self._options.compression != "none"
        compression = KINDS[self._options.compression] if packed else structs.ZLIB
        layout = Layout(
            Header(
                structs.MAGIC,
                3,
                0,
                0,
                self._cluster.bit_length() - 1,
                self.size,
                0,
                len(self._map.l1),
                self._map.l1_offset,
                table,
                clusters,
                0,
                0,
            ),
            HeaderV3(structs.COMPRESSION_TYPE if compression else 0, 0, 0, 4, structs.HEADER_V3 + 8),
            compression,
            name,
            kind,
            lineage=self._lineage,
        )
        header = build(layout)
        # A sector is written whole or not at all; what the first one refers to must be there before.
        rest = header[SECTOR:].rstrip(b"\0")
        if rest:
            self._storage.pwrite(rest, SECTOR)
        self._storage.flush()
        self._storage.pwrite(header[:SECTOR], 0)
        self._storage.flush()

    def _cover(self, parent: ImageReader) -> None:
        """Make the tables of what was never touched and where the parent has data: it is zero here."""
        each = self._map.per_table * self._cluster
        at = 0
        for extent in parent.extents(0, self.size):
            if not extent.reads_as_zero and extent.end > at:
                first = max(at, extent.offset) // self._cluster
                for _ in self._map.spans(first, -(-extent.end // self._cluster), make=True):
                    pass
                at = -(-extent.end // each) * each

    def close(self) -> None:
        """See `ImageWriter`."""
        self._storage.close()


class Qcow2Packer(Qcow2Writer):
    """Writes compressed clusters one behind the other, by rising offset."""

    write_order = WriteOrder.ASCENDING

    def __init__(self, *args: Any) -> None:  # noqa: ANN401 - `Qcow2Writer`'s own
        super().__init__(*args)
        self._kind = KINDS[self._options.compression]
        self._level = 1 if self._options.level is None else self._options.level
        self._at = 0

    def encode(self, data: memoryview, offset: int, /) -> Any:  # noqa: ANN401 - opaque
        """Compress what is neither zero nor the parent's."""
        size = self._cluster
        runs = self._classify(data, offset)
        pieces: list[tuple[int, bytes | memoryview, bool]] = []
        for what, first, last in runs:
            if what != _STORE:
                continue
            for at in range(first, last, size):
                plain = data[at : min(at + size, last)]
                full = plain if len(plain) == size else memoryview(bytes(plain).ljust(size, b"\0"))
                packed = pack(full, self._kind, self._level)
                # Below 3 % it is not worth decompressing at every read.
                smaller = len(packed) < size - (size >> 5)
                pieces.append(((offset + at) // size, packed if smaller else plain, smaller))
        return offset, len(data), runs, pieces

    def store(self, encoded: Any, /) -> None:  # noqa: ANN401 - opaque
        """Put clusters behind those before them."""
        offset, length, runs, pieces = encoded
        self._ascend(offset)
        self._at = offset + length
        for what, first, last in runs:
            if what != _STORE:
                self._settle(what, offset, first, last, [])
        parts: list[bytes | memoryview] = []
        start = at = 0
        for index, payload, packed in pieces:
            for _, table, low, _ in self._map.spans(index, index + 1, make=True):
                place = self._allocator.pack(len(payload)) if packed else self._allocator.take(1)
                table[low] = self._entry(place, len(payload)) if packed else place | COPIED
                if place != at:
                    self._write(parts, start)
                    parts, start = [], place
                parts.append(payload)
                at = place + len(payload)
        self._write(parts, start)

    def _entry(self, place: int, length: int) -> int:
        """Section "Compressed Clusters Descriptor"."""
        shift = 62 - (self._cluster.bit_length() - 1 - 8)
        sectors = (place + length - 1) // SECTOR - place // SECTOR
        return COMPRESSED | sectors << shift | place

    def _write(self, parts: list[bytes | memoryview], place: int) -> None:
        if parts:
            self._storage.pwrite(b"".join(parts) if len(parts) > 1 else parts[0], place)

    def mark(self, extent: Extent, /) -> None:
        """Count what QCOW2 cannot say; what is not stored is zero."""
        self._ascend(extent.offset)
        super().mark(extent)

    def _ascend(self, offset: int) -> None:
        if offset < self._at:
            raise UsageError(
                f"{self._storage.name} got bytes at {offset} after byte {self._at}",
                hint="write a compressed image by rising offset",
            )
