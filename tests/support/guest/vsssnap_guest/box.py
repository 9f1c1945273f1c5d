"""The format ``box``: a header, the volume as it is, then the metadata."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from vsssnap import Extent, ImageMetadata
from vsssnap.errors import CorruptImageError, UsageError
from vsssnap.formats import (
    ImageFormat,
    ImageReader,
    ImageWriter,
    Probe,
    ResolveParent,
    Storage,
    options_of,
)

MAGIC = b"BOXIMAGE"
HEADER = struct.Struct("<8sQQ")  # magic, bytes of the volume, bytes of the metadata behind it
DATA = 4096  # where the volume begins


@dataclass(frozen=True, slots=True)
class BoxOptions:
    """How a box is made."""

    label: str = ""  # kept as a note of the metadata


class BoxReader(ImageReader):
    """Sees only ranges that are not empty and inside the volume, on any thread."""

    format = "box"

    def __init__(self, storage: Storage, size: int, metadata: ImageMetadata) -> None:
        super().__init__(size, metadata=metadata)
        self._storage = storage

    def _read(self, length: int, offset: int) -> bytes:
        return self._storage.pread(length, DATA + offset)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        for found in self._storage.extents(DATA + offset, length):  # ZERO where the file has holes
            yield Extent(found.offset - DATA, found.length, found.kind)

    def _release(self) -> None:
        self._storage.close()


class BoxWriter(ImageWriter):
    """Takes blocks in any order (the default), so `store` runs on several threads at once."""

    def __init__(self, storage: Storage, size: int, options: BoxOptions) -> None:
        self.size = size
        self._storage = storage
        self._options = options
        self._lost: dict[str, int] = {}
        storage.truncate(DATA + size)

    def encode(self, data: memoryview, offset: int, /) -> tuple[memoryview, int]:
        return data, offset

    def store(self, encoded: tuple[memoryview, int], /) -> None:
        data, offset = encoded
        self._storage.pwrite(data, DATA + offset)

    def mark(self, extent: Extent, /) -> None:
        """A box cannot say what a hole is: it counts what it flattens."""
        if extent.kind != "zero":
            self._lost[extent.kind] = self._lost.get(extent.kind, 0) + extent.length

    def finish(self, metadata: ImageMetadata, /) -> None:
        """The header makes the image complete, so it is written when all else is safe."""
        if self._options.label:
            metadata = metadata.replace(notes=(*metadata.notes, self._options.label))
        text = metadata.encode()
        self._storage.pwrite(text, DATA + self.size)
        self._storage.flush()
        self._storage.pwrite(HEADER.pack(MAGIC, self.size, len(text)), 0)
        self._storage.flush()

    def close(self) -> None:
        self._storage.close()

    def flattened(self) -> Mapping[str, int]:
        return self._lost


class BoxFormat(ImageFormat):
    """What the entry point names."""

    api = 1  # of the contract this was written for: a literal, never FORMAT_API
    name = "box"
    suffixes: ClassVar[tuple[str, ...]] = (".box",)
    options_type: ClassVar[type] = BoxOptions
    features = frozenset({"holes", "metadata"})

    def probe(self, seen: Probe, /) -> int:
        return 90 if seen.head.startswith(MAGIC) else 0

    def open(
        self, storage: Storage, /, *, resolve_parent: ResolveParent | None = None, recover: bool = False
    ) -> BoxReader:
        try:
            size, metadata = parse(storage)
        except BaseException:
            storage.close()  # it is the reader's from the call on, also if there will be none
            raise
        return BoxReader(storage, size, metadata)

    def create(
        self,
        storage: Storage,
        size: int,
        /,
        *,
        options: object = None,
        parent: ImageReader | None = None,
    ) -> BoxWriter:
        try:
            chosen = options_of(BoxOptions, options, self.name)
            refuse(storage, size, parent)
            return BoxWriter(storage, size, chosen)
        except BaseException:
            storage.close()
            raise


def parse(storage: Storage) -> tuple[int, ImageMetadata]:
    """Size and metadata; every number is held against the file before it is used."""
    if storage.size < DATA:
        raise CorruptImageError(
            f"{storage.name} has {storage.size} bytes, a header has {DATA}",
            path=storage.name,
            structure="header",
            offset=0,
        )
    magic, size, length = HEADER.unpack(storage.pread(HEADER.size, 0))
    if magic != MAGIC or DATA + size + length != storage.size:
        raise CorruptImageError(
            f"{storage.name} is incomplete or no box: its header speaks of {size} and {length} bytes,"
            f" the file has {storage.size}",
            path=storage.name,
            structure="header",
            offset=0,
            hint="save it again",
        )
    try:
        return size, ImageMetadata.decode(storage.pread(length, DATA + size))
    except CorruptImageError as exc:
        exc.at(storage.name, DATA + size)
        raise


def refuse(storage: Storage, size: int, parent: ImageReader | None) -> None:
    """What a box cannot be."""
    if size < 0:
        raise UsageError(f"a volume of {size} bytes cannot be")
    if parent is not None:
        raise UsageError("a box has no parent", hint="save it without parent=")
    if not storage.seekable:
        raise UsageError(f"{storage.name} cannot seek, a box needs a file")
