"""Writing a side-car, alone or along with an image."""

from __future__ import annotations

import math
import threading
import uuid
from typing import TYPE_CHECKING, Any

import xxhash

from vsssnap._units import is_power_of_two, whole
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import ClosedError, UsageError
from vsssnap.formats._zero import is_zero
from vsssnap.formats.base import ImageWriter
from vsssnap.formats.sidecar import structs
from vsssnap.formats.sidecar.states import KINDS, StateLog
from vsssnap.formats.sidecar.structs import NO_DIGEST, PAGE, STATE, Footer, Geometry, Header
from vsssnap.formats.sidecar.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vsssnap.formats.storage import Storage
    from vsssnap.metadata import ImageMetadata


class SidecarWriter:
    """Writes one side-car file.

    `digests`, `put`, `record` and `state` are for any thread; blocks come in any order and each
    is recorded once its bytes are final (the last record of a block counts).  A block that is
    never recorded is all zero.  Until `finish` returns the file is incomplete and says so.

    Attributes:
        size: Bytes of the volume.
        block_size: Bytes of the blocks that have a checksum each.
        identity: The file's UUID.
    """

    def __init__(
        self,
        storage: Storage,
        size: int,
        format: str = "",
        *,
        block_size: int = structs.BLOCK_SIZE,
        identity: uuid.UUID | None = None,
    ) -> None:
        """Begin a side-car in an empty storage, which the writer owns from then on.

        Args:
            storage: Seekable and readable.
            size: Bytes of the volume.
            format: Name of the image's format.
            block_size: A power of two from 4 KiB to 16 MiB.
            identity: A UUID of one's own for bytes that can be repeated; random by default.

        Raises:
            UsageError: an argument is outside its range, or the storage cannot seek.
            TargetError: the target is full or failing.
        """
        try:
            self._begin(storage, size, format, block_size, identity)
        except BaseException:
            storage.close()
            raise

    def _begin(
        self, storage: Storage, size: int, name: str, block_size: int, identity: uuid.UUID | None
    ) -> None:
        self._storage = storage
        self.size = whole(size, "size")
        self.block_size = whole(block_size, "block_size", least=structs.MIN_BLOCK, most=structs.MAX_BLOCK)
        if not is_power_of_two(block_size):
            raise UsageError(f"block_size is {block_size}, no power of two")
        encoded = name.encode("utf-8")
        if len(encoded) > structs.MAX_NAME:
            raise UsageError(f"format name {name!r} has {len(encoded)} bytes, above {structs.MAX_NAME}")
        if not storage.seekable:
            raise UsageError(f"{storage.name} cannot seek, a side-car needs a file")
        if storage.size:
            raise UsageError(f"{storage.name} is not empty: it has {storage.size} bytes")
        self.identity = identity if identity is not None else uuid.uuid4()
        self._geometry = Geometry(self.size, self.block_size)
        self._table = Table(storage, self.identity.bytes, self._geometry)
        self._states = StateLog()
        self._lock = threading.Lock()
        self._finished = False
        self._closed = False
        header = Header(
            magic=structs.HEADER_MAGIC,
            version=structs.VERSION,
            block_size=self.block_size,
            incompatible=0,
            compatible=0,
            volume_size=self.size,
            identity=self.identity.bytes,
            format=encoded.ljust(structs.MAX_NAME, b"\0"),
        )
        storage.make_sparse()  # most of a big table is never written
        storage.pwrite(structs.sealed(header, self.identity.bytes, 0), 0)
        storage.truncate(self._geometry.states_at)

    def digests(self, offset: int, data: memoryview) -> bytes:
        """The entries of whole blocks, for `put`; keeps nothing.

        Args:
            offset: Where the first block begins in the volume.
            data: Whole blocks; only the volume's last may be short.

        Raises:
            UsageError: it does not begin and end between blocks of the volume.
        """
        step = self.block_size
        end = offset + len(data)
        if offset < 0 or offset % step or end > self.size or (end % step and end != self.size):
            raise UsageError(
                f"{len(data)} bytes at {offset} are no whole blocks of {step} bytes"
                f" in a volume of {self.size}",
                hint="write aligned blocks; only the last may be short",
            )
        if not data:
            return b""
        if len(data) <= step:
            return NO_DIGEST if is_zero(data) else xxhash.xxh3_128_digest(data)
        pieces = (data[at : at + step] for at in range(0, len(data), step))
        return b"".join(NO_DIGEST if is_zero(piece) else xxhash.xxh3_128_digest(piece) for piece in pieces)

    def put(self, offset: int, digests: bytes) -> None:
        """Keep what `digests` gave for ``offset``.

        Raises:
            TargetError: the target is full or failing.
        """
        with self._lock:
            self._require_open()
            if digests:
                self._table.put(offset // self.block_size, digests)

    def record(self, offset: int, data: memoryview) -> None:
        """`digests` and `put` in one call."""
        self.put(offset, self.digests(offset, data))

    def state(self, extent: Extent) -> None:
        """Keep that a range is HOLE, EXCLUDED or UNREADABLE; others say nothing here.

        Where such ranges overlap, UNREADABLE wins over EXCLUDED, and that over HOLE.

        Raises:
            UsageError: it is not inside the volume.
        """
        if extent.offset < 0 or extent.length < 0 or extent.end > self.size:
            raise UsageError(f"{extent} is not inside a volume of {self.size} bytes")
        if extent.kind not in KINDS or not extent.length:
            return
        with self._lock:
            self._require_open()
            self._states.add(extent)

    def finish(self, metadata: ImageMetadata) -> None:
        """Write what is left, flush, write the footer, flush; the image must be safe by then.

        Raises:
            UsageError: the metadata cannot be encoded.
            TargetError: the target is full or failing.
        """
        text = metadata.encode()
        with self._lock:
            self._require_open()
            self._finished = True
            self._table.flush()
            identity, at = self.identity.bytes, self._geometry.states_at
            hasher = xxhash.xxh3_128(seed=structs.seed(identity, at))
            count = 0
            for piece in self._states.pieces():
                self._storage.pwrite(piece, at)
                hasher.update(piece)
                at += len(piece)
                count += len(piece) // STATE
            self._storage.pwrite(text, at)
            text_sum = structs.checksum(text, identity, at)
            at += len(text)
            self._storage.flush()
            # Complete is what has a footer, so everything it speaks of must be there before.
            footer = Footer(
                magic=structs.FOOTER_MAGIC,
                identity=identity,
                file_length=at + PAGE,
                page_count=self._table.page_count,
                state_count=count,
                metadata_length=len(text),
                page_sum=self._table.page_sum.to_bytes(16, "big"),
                states_checksum=hasher.digest(),
                metadata_checksum=text_sum,
            )
            self._storage.pwrite(structs.sealed(footer, identity, at), at)
            self._storage.flush()

    def close(self) -> None:
        """Let the storage go; without `finish` the side-car stays incomplete.  Idempotent."""
        with self._lock:
            self._closed = True
        self._storage.close()

    def _require_open(self) -> None:
        if self._closed or self._finished:
            raise ClosedError(
                f"{self._storage.name}: the side-car is {'closed' if self._closed else 'finished'}"
            )


def with_sidecar(writer: ImageWriter, sidecar: SidecarWriter) -> ImageWriter:
    """A writer that keeps checksums, states and metadata of what passes through it.

    Its ``unit`` is one that both take; blocks must be aligned to the side-car's also when written
    by hand, and a range is marked before, not after, a block that it shares is stored.

    Args:
        writer: Writes the image; closed with the result.
        sidecar: Of the same size; closed with the result.

    Raises:
        UsageError: their sizes differ.
    """
    if writer.size != sidecar.size:
        raise UsageError(f"the image has {writer.size} bytes, its side-car is for {sidecar.size}")
    return _SidecarImageWriter(writer, sidecar)


class _SidecarImageWriter(ImageWriter):
    """See `with_sidecar`."""

    def __init__(self, writer: ImageWriter, sidecar: SidecarWriter) -> None:
        self._writer = writer
        self._sidecar = sidecar
        self.size = writer.size
        self.unit = math.lcm(writer.unit, sidecar.block_size)
        self.write_order = writer.write_order
        self.keeps_data = writer.keeps_data

    def encode(self, data: memoryview, offset: int, /) -> tuple[int, bytes, list[Any]]:
        # Digests first: they leave the block in the cache for whatever the format does with it.
        digests = self._sidecar.digests(offset, data)
        step = self._writer.unit
        if len(data) <= step:
            return offset, digests, [self._writer.encode(data, offset)]
        pieces = range(0, len(data), step)
        return offset, digests, [self._writer.encode(data[at : at + step], offset + at) for at in pieces]

    def store(self, encoded: tuple[int, bytes, list[Any]], /) -> None:
        offset, digests, pieces = encoded
        for piece in pieces:
            self._writer.store(piece)
        self._sidecar.put(offset, digests)

    def mark(self, extent: Extent, /) -> None:
        self._writer.mark(extent)
        self._sidecar.state(extent)

    def finish(self, metadata: ImageMetadata, /) -> None:
        self._writer.finish(metadata)
        self._sidecar.finish(metadata)

    def close(self) -> None:
        try:
            self._writer.close()
        finally:
            self._sidecar.close()

    def changed(self) -> int | None:
        return self._writer.changed()

    def flattened(self) -> Mapping[str, int]:
        kept = {ExtentKind(kind) for kind in KINDS}
        return {kind: count for kind, count in self._writer.flattened().items() if kind not in kept}
