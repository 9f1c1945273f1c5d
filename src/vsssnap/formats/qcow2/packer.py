"""Writing QCOW2 images with compressed clusters.

Source: QEMU, docs/interop/qcow2.txt, section "Compressed Clusters Descriptor".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vsssnap.errors import UsageError
from vsssnap.formats.base import WriteOrder
from vsssnap.formats.qcow2.options import KINDS
from vsssnap.formats.qcow2.packing import pack
from vsssnap.formats.qcow2.structs import COMPRESSED, COPIED, SECTOR
from vsssnap.formats.qcow2.writer import STORE, Qcow2Writer

if TYPE_CHECKING:
    from vsssnap.blocks.extent import Extent
    from vsssnap.formats.base import ImageReader


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
            if what != STORE:
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
        self._whole(offset, length)
        for what, first, last in runs:
            if what != STORE:
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

    def _mend(self, parent: ImageReader) -> None:
        self._at = 0
        super()._mend(parent)

    def mark(self, extent: Extent, /) -> None:
        """Count what QCOW2 cannot say, and let the range be zero."""
        self._ascend(extent.offset)
        super().mark(extent)

    def _ascend(self, offset: int) -> None:
        if offset < self._at:
            raise UsageError(
                f"{self._storage.name} got bytes at {offset} after byte {self._at}",
                hint="write a compressed image by rising offset",
            )
