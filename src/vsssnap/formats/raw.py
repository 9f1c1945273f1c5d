"""Raw images: the volume's bytes and nothing else, with holes where it is zero.

A raw file has room for neither checksums, states nor metadata, and no magic.  They go to the
side-car (`vsssnap.formats.sidecar`), which is written along unless that is declined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from vsssnap._units import MIB, whole
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import UsageError
from vsssnap.formats._storages import owning, require_empty
from vsssnap.formats._zero import data_runs
from vsssnap.formats.base import (
    Depth,
    ImageFormat,
    ImageReader,
    ImageWriter,
    Probe,
    ResolveParent,
    WriteOrder,
    options_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vsssnap.formats.sidecar import SidecarReader
    from vsssnap.formats.storage import Storage
    from vsssnap.metadata import ImageMetadata

__all__ = ["RawFormat", "RawOptions", "RawReader", "RawStream", "RawWriter", "check_inside"]

_ZEROS: Final = bytes(MIB)
_UNSAID: Final = frozenset({ExtentKind.HOLE, ExtentKind.EXCLUDED, ExtentKind.UNREADABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class RawOptions:
    """How a raw image is made.

    Attributes:
        preallocate: Reserve the space of the whole volume first, so that a full disk is an error
            before anything is copied; by default zeros take no space.
        sidecar: Whether checksums, states and metadata are kept in ``<image>.vsssnap``; without
            it they are lost.
    """

    preallocate: bool = False
    sidecar: bool = True


class RawReader(ImageReader):
    """A raw image; its size is the file's, unless that was cut short and `lengthen` says by how much."""

    format = "raw"
    plain = True

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage.size)
        self._storage = storage

        self._there = self.size

    def lengthen(self, size: int) -> None:
        """Take the file for the begin of an image of ``size`` bytes; the rest is zero.

        Only for who attaches a side-car then, by which zeros that were saved are told from what is lost.
        """
        self.size = max(self.size, size)

    def attach(self, sidecar: SidecarReader) -> None:
        """See `ImageReader`."""
        super().attach(sidecar)
        if self._guard is not None and self.size > self._there:
            self._guard.lost = ExtentKind.UNREADABLE
            self._there -= self._there % sidecar.block_size  # of a part of a block nobody can tell

    def _read(self, length: int, offset: int) -> bytes:
        there = max(0, min(length, self._there - offset))
        data = self._storage.pread(there, offset) if there else b""
        return data if there == length else data.ljust(length, b"\0")

    def _read_into(self, view: memoryview, offset: int) -> None:
        there = max(0, min(len(view), self._there - offset))
        if there:
            self._storage.preadinto(view[:there], offset)
        if there < len(view):
            view[there:] = bytes(len(view) - there)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        there = max(0, min(length, self._there - offset))
        if there:
            yield from self._storage.extents(offset, there)
        if there < length:
            yield Extent(offset + there, length - there, ExtentKind.ZERO)

    def _release(self) -> None:
        self._storage.close()

    def info(self) -> Mapping[str, Any]:
        """See `ImageReader`."""
        return {"stored_size": self._storage.size, "complete": True, "features": []}

    def depths(self) -> tuple[Depth, ...]:
        """A raw file has nothing to hold it against but its side-car."""
        return (Depth.STRUCTURE,)


class RawWriter(ImageWriter):
    """Writes a file in any order from several threads; zeros are left out.

    The file is all zero from the start, as long as the volume.  A unit that is written again
    (by hand: `copy_blocks` writes each once) gets its zeros too, so the last write always counts;
    ``_touched`` has one byte for each unit: 1 MiB of memory for a disk of 1 TiB.
    """

    write_order = WriteOrder.ANY

    def __init__(self, storage: Storage, size: int, options: RawOptions) -> None:
        self._storage = storage
        self.size = size
        self._touched = bytearray(-(-size // self.unit))
        self._unsaid = dict.fromkeys(_UNSAID, 0)
        if options.preallocate:
            storage.allocate(size)
        else:
            storage.make_sparse()
            storage.truncate(size)

    def encode(self, data: memoryview, offset: int, /) -> tuple[memoryview, int, list[tuple[int, int]]]:
        """Find the zeros."""
        check_inside(len(data), offset, self.size)
        return data, offset, list(data_runs(data))

    def store(self, encoded: tuple[memoryview, int, list[tuple[int, int]]], /) -> None:
        """Write what is not zero."""
        data, offset, runs = encoded
        first, last = offset // self.unit, -(-(offset + len(data)) // self.unit)
        if self._touched.find(1, first, last) >= 0:
            runs = [(0, len(data))]
        elif runs:
            self._touched[first:last] = b"\1" * (last - first)
        for start, end in runs:
            self._storage.pwrite(data[start:end], offset + start)

    def mark(self, extent: Extent, /) -> None:
        """Count what a raw file cannot say; zeros are there already, unless it was written."""
        check_inside(extent.length, extent.offset, self.size)
        if extent.kind in _UNSAID:
            self._unsaid[extent.kind] += extent.length
        unit = self.unit
        last = -(-extent.end // unit)
        touched = self._touched.find(1, extent.offset // unit, last)
        while touched >= 0:
            at, end = max(extent.offset, touched * unit), min(extent.end, (touched + 1) * unit)
            self._storage.pwrite(memoryview(_ZEROS)[: end - at], at)
            touched = self._touched.find(1, touched + 1, last)

    def finish(self, metadata: ImageMetadata, /) -> None:
        """Flush; a raw file has no complete mark and no room for ``metadata``."""
        self._storage.flush()

    def close(self) -> None:
        """See `ImageWriter`."""
        self._storage.close()

    def flattened(self) -> Mapping[str, int]:
        """See `ImageWriter`."""
        return {str(kind): count for kind, count in sorted(self._unsaid.items()) if count}


class RawStream(ImageWriter):
    """Writes every byte in order, zeros too: a pipe has no holes."""

    write_order = WriteOrder.ASCENDING

    def __init__(self, storage: Storage, size: int) -> None:
        self._storage = storage
        self.size = size
        self._at = 0
        self._unsaid = dict.fromkeys(_UNSAID, 0)

    def encode(self, data: memoryview, offset: int, /) -> tuple[memoryview, int]:
        """Nothing to prepare."""
        check_inside(len(data), offset, self.size)
        return data, offset

    def store(self, encoded: tuple[memoryview, int], /) -> None:
        """Write zeros up to the block, then the block."""
        data, offset = encoded
        if offset < self._at:
            raise UsageError(
                f"{self._storage.name} got a block at {offset} after byte {self._at}",
                hint="write a stream by rising offset",
            )
        self._fill(offset)
        self._storage.append([data])
        self._at += len(data)

    def mark(self, extent: Extent, /) -> None:
        """Count what a raw stream cannot say; the next `store` or `finish` writes the zeros."""
        check_inside(extent.length, extent.offset, self.size)
        if extent.kind in _UNSAID:
            self._unsaid[extent.kind] += extent.length

    def _fill(self, end: int) -> None:
        while self._at < end:
            piece = memoryview(_ZEROS)[: end - self._at]
            self._storage.append([piece])
            self._at += len(piece)

    def finish(self, metadata: ImageMetadata, /) -> None:
        """Write zeros up to the end."""
        self._fill(self.size)
        self._storage.flush()

    def close(self) -> None:
        """See `ImageWriter`."""
        self._storage.close()

    def flattened(self) -> Mapping[str, int]:
        """See `ImageWriter`."""
        return {str(kind): count for kind, count in sorted(self._unsaid.items()) if count}


class RawFormat(ImageFormat):
    """The ``raw`` driver."""

    name = "raw"
    # Not .img: so are many QCOW2 images called, and a raw one must never be taken for them.
    suffixes: ClassVar[tuple[str, ...]] = (".raw", ".dd")
    options_type: ClassVar[type] = RawOptions
    features = frozenset({"holes", "streaming"})

    def probe(self, seen: Probe, /) -> int:
        """By name alone: any bytes are a raw image."""
        return 10 if seen.name.lower().endswith(self.suffixes) else 0

    def wants_sidecar(self, options: object, /) -> bool:
        """By option."""
        return options_of(RawOptions, options, self.name).sidecar

    def open(
        self, storage: Storage, /, *, resolve_parent: ResolveParent | None = None, recover: bool = False
    ) -> RawReader:
        """See `ImageFormat`; any file can be opened."""
        return RawReader(storage)

    def create(
        self,
        storage: Storage,
        size: int,
        /,
        *,
        options: object = None,
        parent: ImageReader | None = None,
    ) -> ImageWriter:
        """See `ImageFormat`.

        Raises:
            UsageError: a parent is given, ``storage`` is not empty, or a pipe is to be preallocated.
            TargetError: there is no room.
        """
        with owning(storage):
            return self._begin(storage, whole(size, "size"), options, parent)

    def _begin(self, storage: Storage, size: int, options: object, parent: ImageReader | None) -> ImageWriter:
        chosen = options_of(RawOptions, options, self.name)
        if parent is not None:
            raise UsageError(
                "a raw image has no parent", hint='choose a format with parents, such as "vsnap"'
            )
        require_empty(storage)
        if storage.seekable:
            return RawWriter(storage, size, chosen)
        if chosen.preallocate:
            raise UsageError(f"{storage.name} cannot be preallocated", hint="write to a file")
        return RawStream(storage, size)


def check_inside(length: int, offset: int, size: int) -> None:
    """Refuse a range that is not inside the volume.

    Raises:
        UsageError: it is not.
    """
    if offset < 0 or offset + length > size:
        raise UsageError(f"{length} bytes at {offset} are not inside a volume of {size} bytes")
