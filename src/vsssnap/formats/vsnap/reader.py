"""Reading `.vsnap` images.

Source: docs/formats/vsnap.md, section 11.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from vsssnap._units import MIB
from vsssnap.blocks.extent import Extent, ExtentKind, coalesce, overlay
from vsssnap.formats.base import Depth, ImageReader
from vsssnap.formats.vsnap.codec import DIGEST_NAMES
from vsssnap.formats.vsnap.marks import KIND_OF
from vsssnap.formats.vsnap.plain import PlainBytes
from vsssnap.formats.vsnap.states import run_list

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vsssnap.formats._cache import ByteCache
    from vsssnap.formats.base import Finding
    from vsssnap.formats.vsnap.chain import Chain
    from vsssnap.formats.vsnap.layout import Footer
    from vsssnap.formats.vsnap.tree import Index
    from vsssnap.metadata import ImageMetadata

CACHE_SIZE = 64 * MIB


class VsnapReader(ImageReader):
    """An image of one file, or the last of a chain; any number of threads at once.

    Attributes:
        chain: Its files.
        geometry: Its sizes.
        tree: Its index.
        image_id: Of its file.
        content_root: Of its content.
        footer: The footer it was opened by; None for one that is being recovered.
    """

    format: ClassVar[str] = "vsnap"

    def __init__(
        self,
        chain: Chain,
        index: Index,
        cache: ByteCache,
        *,
        footer: Footer | None,
        content_root: bytes,
        metadata: ImageMetadata,
        lost: Sequence[str] = (),
    ) -> None:
        geometry = chain.own.geometry
        super().__init__(geometry.size, sector_size=geometry.header.sector_size, metadata=metadata)
        self.chain = chain
        self.geometry = geometry
        self.tree = index
        self.image_id = chain.own.image_id
        self.content_root = content_root
        self.footer = footer
        self.path = chain.own.storage.name
        self._plain = PlainBytes(chain, cache)
        self._lost = lost

    # Reading.

    def _read_into(self, view: memoryview, offset: int) -> None:
        size = self.geometry.chunk_size
        done = 0
        while done < len(view):
            chunk, within = divmod(offset + done, size)
            count = min(size - within, len(view) - done)
            self._plain.fill(view[done : done + count], chunk, within, self.tree.entry(chunk), strict=True)
            done += count

    def _read(self, length: int, offset: int) -> bytes:
        chunk, within = divmod(offset, self.geometry.chunk_size)
        if within + length <= self.geometry.chunk_size:
            found = self._plain.part(chunk, within, length, self.tree.entry(chunk))
            if found is not None:
                return found
        return super()._read(length, offset)

    def read_chunk(self, chunk: int) -> bytearray:
        """A whole chunk with zeros for what is unreadable.

        Raises:
            CorruptImageError: it is damaged.
        """
        with self._gate:
            data = bytearray(self.geometry.length(chunk))
            self._plain.fill(memoryview(data), chunk, 0, self.tree.entry(chunk), strict=False)
            return data

    # States.

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        return coalesce(self._pieces(offset, offset + length))

    def _pieces(self, first: int, end: int) -> Iterator[Extent]:
        size, cell = self.geometry.chunk_size, self.geometry.cell_size
        for chunk, count, entry in self.tree.walk(first // size, -(-end // size)):
            base = chunk * size
            stop = min(base + count * size, self.size)
            if entry.flat is not None:
                found: Iterator[Extent] = iter((Extent(base, stop - base, KIND_OF[entry.flat]),))
            else:
                found = _cells(base, stop, cell, entry.states.codes(self.geometry.cells(chunk)))
                if entry.states.unreadable:
                    holes = (Extent(base + at, n, ExtentKind.UNREADABLE) for at, n in entry.states.unreadable)
                    found = overlay(found, holes)
            for extent in found:
                low, high = max(extent.offset, first), min(extent.end, end)
                if low < high:
                    yield Extent(low, high - low, extent.kind)

    # Facts.

    @property
    def origins(self) -> tuple[str, ...]:
        """The image's file and those of its ancestors that are open."""
        return self.chain.paths()

    def require_parents(self) -> None:
        """See `ImageReader`; those of which nothing is used may be missing."""
        self.chain.require()

    def info(self) -> Mapping[str, Any]:
        """See `ImageReader`."""
        header = self.geometry.header
        states = dict.fromkeys((kind.value for kind in ExtentKind), 0)
        for extent in self.extents():
            states[extent.kind.value] += extent.length
        body = self.footer.body if self.footer is not None else None
        names = self.footer.names if self.footer is not None else {}
        return {
            "stored_size": self.chain.own.size,
            "complete": body is not None,
            "identity": self.content_root.hex() if any(self.content_root) else "",
            "image_id": self.image_id.hex(),
            "format_version": header.format,
            "size": self.size,
            "sector_size": header.sector_size,
            "chunk_size": header.chunk_size,
            "cell_size": header.cell_size,
            "segment_size": header.segment_size,
            "digest": DIGEST_NAMES[header.digest],
            "states": states,
            "plain_bytes": body.plain_bytes if body else None,
            "payload_bytes": body.outer_bytes if body else None,
            "ratio": round(body.plain_bytes / body.outer_bytes, 3) if body and body.outer_bytes else None,
            "parents": [
                {"image_id": entry.image_id.hex(), "identity": entry.content_root.hex(), "name": entry.name}
                for entry in reversed(self.chain.entries)
            ],
            "features": [name for _, name in sorted(names.items())],
            "damage": list(self._lost),
        }

    def depths(self) -> tuple[Depth, ...]:
        """See `ImageReader`; an index that was rebuilt has nothing of its own to hold the content against."""
        if self.footer is None:
            return (Depth.STRUCTURE, Depth.STORED)
        return (Depth.STRUCTURE, Depth.STORED, Depth.CONTENT)

    def verify(self, depth: Depth, progress: Callable[[int], None]) -> Iterator[Finding]:
        """See `ImageReader`."""
        from vsssnap.formats.vsnap.verify import verify  # reads readers; needed by few

        return verify(self, depth, progress)

    def _release(self) -> None:
        self._plain.forget()
        self.chain.close()


def _cells(base: int, stop: int, size: int, codes: bytearray) -> Iterator[Extent]:
    at = base
    for code, count in run_list(codes):
        yield Extent(at, min(count * size, stop - at), KIND_OF[code])
        at += count * size
