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
from vsssnap.formats.base import ImageWriter
from vsssnap.formats.qcow2 import structs
from vsssnap.formats.qcow2.allocation import Allocator
from vsssnap.formats.qcow2.header import Layout, build
from vsssnap.formats.qcow2.mapwriter import MapWriter
from vsssnap.formats.qcow2.options import KINDS
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
STORE: Final = 0
_SHOW: Final = 1  # as it is behind: as in the parent, or zero where it has nothing
_CLEAR: Final = 2  # zero, and the parent has data there

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
        self._stored = 0  # bytes of data, before compression
        self._lineage = lineage
        self._backing = backing
        self._cluster = options.cluster_size
        self._unsaid = dict.fromkeys(_UNSAID, 0)
        self._torn: dict[int, list[tuple[int, int]]] = {}  # parts that are zero, by cluster
        self._lock = threading.Lock()
        self._allocator = Allocator(storage, self._cluster)
        self._allocator.take(1)  # the header's
        self._map = MapWriter(storage, self._allocator, self._cluster, size)

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
                what = _CLEAR if shown else _SHOW
            else:
                what = STORE
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
            self._whole(offset, len(data))
            for what, first, last in runs:
                if what == STORE:
                    self._place(offset, first, last, writes)
                else:
                    self._settle(what, offset, first, last, writes)
            self._stored += sum(last - first for _, first, last in writes)
        for place, first, last in writes:
            self._storage.pwrite(data[first:last], place)

    def _whole(self, offset: int, length: int) -> None:
        """What is known of parts of these clusters is in the block that is stored."""
        if self._torn:
            for index in range(offset // self._cluster, -(-(offset + length) // self._cluster)):
                self._torn.pop(index, None)

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
        for base, table, start, stop in self._map.spans(low, high, make=what == _CLEAR):
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

    # Marks.

    def mark(self, extent: Extent, /) -> None:
        """Count what QCOW2 cannot say, and let the range be zero."""
        if extent.offset < 0 or extent.end > self.size:
            raise UsageError(
                f"{extent.length} bytes at {extent.offset} are not inside a volume of {self.size} bytes"
            )
        with self._lock:
            if extent.kind in _UNSAID:
                self._unsaid[extent.kind] += extent.length
            writes = self._erase(extent)
        for place, length in writes:
            for at in range(0, length, PIECE):
                self._storage.pwrite(_ZEROS[: min(PIECE, length - at)], place + at)
        if self._parent is not None:
            self._hide(self._parent, extent)

    def _erase(self, extent: Extent) -> list[tuple[int, int]]:
        """Where clusters that were stored get zeros: offsets in the file, and bytes."""
        size = self._cluster
        writes: list[tuple[int, int]] = []
        low, high = extent.offset // size, -(-extent.end // size)
        for base, table, start, stop in self._map.spans(low, high, make=False):
            if max(table[start:stop]) <= ZERO:
                continue
            for index in range(start, stop):
                host = table[index] & HOST_MASK
                if host:
                    at = (base + index) * size
                    first, last = max(at, extent.offset), min(at + size, extent.end)
                    writes.append((host + first - at, last - first))
        return writes

    def _hide(self, parent: ImageReader, extent: Extent) -> None:
        """Let nothing of the parent show through a range.

        A cluster of which only a part is named waits for the rest of it, for a block that holds it,
        or for `finish`.
        """
        size = self._cluster
        full = range(-(-extent.offset // size), extent.end // size + (extent.end == self.size))
        edges = {extent.offset // size, (extent.end - 1) // size}
        for shown in parent.extents(extent.offset, extent.length):
            if shown.reads_as_zero:
                continue
            low, high = shown.offset // size, -(-shown.end // size)
            with self._lock:
                if max(low, full.start) < min(high, full.stop):
                    self._clear(max(low, full.start), min(high, full.stop))
                for index in edges:
                    if low <= index < high and index not in full:
                        self._tear(index, extent)

    def _clear(self, low: int, high: int) -> None:
        for _, table, start, stop in self._map.spans(low, high, make=True):
            for index in range(start, stop):
                if not table[index] & (HOST_MASK | COMPRESSED):
                    table[index] = ZERO

    def _tear(self, index: int, extent: Extent) -> None:
        """Remember the part of a cluster that is zero; once it is all of it, say so."""
        for _, table, start, _ in self._map.spans(index, index + 1, make=False):
            if table[start]:
                return  # stored before, so `_erase` had it, or zero as a whole
        at, end = index * self._cluster, min((index + 1) * self._cluster, self.size)
        parts = sorted([*self._torn.pop(index, ()), (max(at, extent.offset), min(end, extent.end))])
        joined = [parts[0]]
        for first, last in parts[1:]:
            if first <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
            else:
                joined.append((first, last))
        if joined == [(at, end)]:
            self._clear(index, index + 1)
        else:
            self._torn[index] = joined

    def _mend(self, parent: ImageReader) -> None:
        """Store the parent's clusters of which only a part is zero."""
        for index, parts in sorted(self._torn.items()):
            at = index * self._cluster
            length = min(self._cluster, self.size - at)
            data = bytearray(parent.pread(length, at).ljust(length, b"\0"))
            for first, last in parts:
                data[first - at : last - at] = bytes(last - first)
            self.pwrite(memoryview(data), at)

    def changed(self) -> int | None:
        """See `ImageWriter`."""
        return self._stored if self._parent is not None else None

    def flattened(self) -> Mapping[str, int]:
        """See `ImageWriter`."""
        return {str(kind): count for kind, count in sorted(self._unsaid.items()) if count}

    # The end.

    def finish(self, metadata: ImageMetadata, /) -> None:
        """Write the tables, flush, and then the header; there is no room for ``metadata``."""
        if self._parent is not None:
            self._mend(self._parent)
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

    def close(self) -> None:
        """See `ImageWriter`."""
        self._storage.close()
