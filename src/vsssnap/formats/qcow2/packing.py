"""Compressed clusters, one at a time and on any thread.

Source: QEMU, docs/interop/qcow2.txt, section "Compressed Clusters Descriptor".  Deflate
streams have no header and a window of 4 KiB, which is all that qemu decodes; readers take any.
Compressors and decompressors must not be shared by threads: each thread has its own.
"""

from __future__ import annotations

import threading
import zlib
from typing import TYPE_CHECKING, Final

import zstandard

from vsssnap.formats._cache import ByteCache
from vsssnap.formats.qcow2.header import corrupt
from vsssnap.formats.qcow2.mapping import packed_range
from vsssnap.formats.qcow2.structs import ZSTD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vsssnap.formats.storage import Storage

_THREAD = threading.local()
_WINDOW: Final = -12  # bits of the deflate window, raw
_ANY_WINDOW: Final = -15
_MAX_ZSTD_WINDOW: Final = 8 << 20  # RFC 8878, 3.1.1.1.2: what decoders should take
_KEPT: Final = 32 << 20  # bytes of decoded clusters
_GATHERED: Final = 4 << 20  # most bytes of neighbours that are read at once


def pack(data: memoryview, kind: int, level: int) -> bytes:
    """One cluster, compressed."""
    if kind == ZSTD:
        compressors = _THREAD.__dict__.setdefault("compressors", {})
        compressor = compressors.get(level)
        if compressor is None:
            compressor = compressors[level] = zstandard.ZstdCompressor(level=level, write_checksum=False)
        packed: bytes = compressor.compress(data)
        return packed
    return zlib.compress(data, level, _WINDOW)


def unpack(data: bytes | memoryview, kind: int, size: int) -> bytes:
    """A cluster of ``size`` bytes; what follows its stream in ``data`` is not looked at.

    Raises:
        ValueError: it is no such stream, or gives another number of bytes.
    """
    if kind != ZSTD:
        try:
            plain = zlib.decompressobj(_ANY_WINDOW).decompress(data, size)
        except zlib.error as exc:
            raise ValueError(str(exc)) from None
    else:
        try:
            # Before anything is allocated: the frame says how long it will be, or nothing (2**64 - 1 or 0).
            told = zstandard.get_frame_parameters(data).content_size
            if size < told < (1 << 64) - 1:
                raise ValueError(f"a frame of {told} bytes")
            decompressor = getattr(_THREAD, "decompressor", None)
            if decompressor is None:
                decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW)
                _THREAD.decompressor = decompressor
            plain = decompressor.decompress(data, max_output_size=size)
        except zstandard.ZstdError as exc:
            raise ValueError(str(exc)) from None
    if len(plain) != size:
        raise ValueError(f"it gives {len(plain)} bytes, not {size}")
    return plain


class PackedClusters:
    """Reads compressed clusters of one file; any thread."""

    def __init__(self, storage: Storage, cluster_bits: int, kind: int) -> None:
        self._storage = storage
        self._bits = cluster_bits
        self._kind = kind
        self.cache = ByteCache(_KEPT)

    def decoded(
        self, clusters: Sequence[tuple[int, int]], offset: int, length: int
    ) -> Iterator[tuple[int, bytes]]:
        """Clusters that overlap a range of the virtual disk, decoded, in their order.

        Args:
            clusters: ``(offset in the disk, L2 entry)``, ascending.
            offset: Where the range begins in the disk.
            length: Its bytes.

        Yields:
            ``(offset in the disk, bytes)``, each a whole cluster.

        Raises:
            CorruptImageError: one lies outside the file or does not decode.
        """
        size = 1 << self._bits
        waiting: list[tuple[int, int, int]] = []  # where in the disk, where in the file, most bytes
        for at, entry in clusters:
            place, most = self._range(entry)
            partial = at < offset or at + size > offset + length
            if waiting and (
                partial or not waiting[0][1] <= place <= place + most <= waiting[0][1] + _GATHERED
            ):
                yield from self._together(waiting)
                waiting = []
            if partial:
                yield at, self._kept(entry, place, most)
            else:
                waiting.append((at, place, most))
        if waiting:
            yield from self._together(waiting)

    def _kept(self, entry: int, place: int, most: int) -> bytes:
        """A cluster of which only a part is wanted: the rest may be next."""
        plain: bytes | None = self.cache.get(entry)
        if plain is None:
            plain = self._decoded(self._storage.pread(most, place), place)
            self.cache.put(entry, plain, len(plain) + 200)
        return plain

    def _together(self, waiting: list[tuple[int, int, int]]) -> Iterator[tuple[int, bytes]]:
        """Read clusters that lie close to each other at once."""
        first = waiting[0][1]
        end = max(place + most for _, place, most in waiting)
        data: memoryview | None = None
        # Else most of what lies between is not wanted.
        if end - first <= 2 * sum(most for _, _, most in waiting):
            data = memoryview(self._storage.pread(end - first, first))
        for at, place, most in waiting:
            piece = self._storage.pread(most, place) if data is None else data[place - first :][:most]
            yield at, self._decoded(piece, place)

    def _range(self, entry: int) -> tuple[int, int]:
        place, length = packed_range(entry, self._bits)
        if place >= self._storage.size:
            raise self._broken(f"lies behind the end, {self._storage.size}", place)
        # The last sector of a file may be short.
        return place, min(length, self._storage.size - place)

    def _decoded(self, data: bytes | memoryview, place: int) -> bytes:
        try:
            return unpack(data, self._kind, 1 << self._bits)
        except ValueError as exc:
            raise self._broken(f"cannot be decoded: {exc}", place) from None

    def _broken(self, why: str, place: int) -> Exception:
        return corrupt(self._storage, f"the compressed cluster at {place} {why}", "compressed cluster", place)
