"""Reading a side-car."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Self

import xxhash

from vsssnap._units import MIB
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import CorruptImageError, UnsupportedFeatureError, UsageError, VssSnapError
from vsssnap.formats._zero import is_zero
from vsssnap.formats.base import Finding
from vsssnap.formats.sidecar import structs
from vsssnap.formats.sidecar.states import States
from vsssnap.formats.sidecar.structs import (
    DIGEST,
    ENTRIES,
    NO_DIGEST,
    PAGE,
    STATE,
    SUM_AT,
    Footer,
    Geometry,
    Header,
)
from vsssnap.metadata import MAX_ENCODED, ImageMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vsssnap.formats.storage import Storage

_OPEN_PAGES: Final = 64
_PIECE: Final = MIB // STATE * STATE  # bytes of states that are read at once


class SidecarReader:
    """A complete side-car.  Thread-safe.

    Opening checks everything but the table, which is as large as 64 MiB for each TiB of data;
    its pages are checked when they are used, and all of them by `verify`.

    Attributes:
        size: Bytes of the volume.
        block_size: Bytes of the blocks that have a checksum each; the last may be shorter.
        format: Name of the image's format.
        identity: The file's UUID.
        states: The ranges that are HOLE, EXCLUDED or UNREADABLE.
        metadata: What was known of the image's source.
    """

    def __init__(self, storage: Storage, header: Header, footer: Footer) -> None:
        """Use `open`."""
        self._storage = storage
        self._footer = footer
        self._geometry = Geometry(header.volume_size, header.block_size)
        self._lock = threading.Lock()
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        self.size = header.volume_size
        self.block_size = header.block_size
        self.format = _name(header)
        self.identity = uuid.UUID(bytes=header.identity)
        self.states = States()
        self.metadata = ImageMetadata()

    @classmethod
    def open(cls, storage: Storage) -> Self:
        """Open a side-car; the reader owns ``storage`` from then on, also if this raises.

        Raises:
            CorruptImageError: it is damaged, incomplete or no side-car.
            UnsupportedFeatureError: it uses what this version does not know.
            DeviceReadError: it cannot be read.
        """
        try:
            header = _header(storage)
            reader = cls(storage, header, _footer(storage, header))
            reader._load()
        except CorruptImageError as exc:
            storage.close()
            exc.at(storage.name)
            raise
        except BaseException:
            storage.close()
            raise
        return reader

    def _load(self) -> None:
        """Read states and metadata; their lengths were held against the file's."""
        identity, start = self.identity.bytes, self._geometry.states_at
        length = self._footer.state_count * STATE
        hasher = xxhash.xxh3_128(seed=structs.seed(identity, start))
        for at in range(0, length, _PIECE):
            piece = self._storage.pread(min(_PIECE, length - at), start + at)
            hasher.update(piece)
            try:
                self.states.load(piece, self.size)
            except CorruptImageError as exc:
                exc.structure = "side-car states"
                exc.at("", start + at)
                raise
        if hasher.digest() != self._footer.states_checksum:
            raise _corrupt("states fail their checksum", "states", start)
        at = start + length
        text = self._storage.pread(self._footer.metadata_length, at)
        if structs.checksum(text, identity, at) != self._footer.metadata_checksum:
            raise _corrupt("metadata fails its checksum", "metadata", at)
        try:
            self.metadata = ImageMetadata.decode(text)
        except CorruptImageError as exc:
            exc.structure = "side-car metadata"
            exc.at("", at)
            raise

    def require(self, size: int, format: str) -> None:
        """Return if this is the side-car of an image of this size and format.

        Raises:
            CorruptImageError: it is of another image.
        """
        if self.size != size or self.format not in ("", format):
            hint = "it belongs to another image; move it away"
            if self.format == format == "raw" and size < self.size:
                hint = "the image was cut short: read what is left with recover=True; or " + hint
            raise CorruptImageError(
                f"{self._storage.name} is of a {self.format or 'plain'} image of {self.size} bytes,"
                f" the image beside it is {format} of {size} bytes",
                path=self._storage.name,
                structure="side-car header",
                offset=0,
                hint=hint,
            )

    def blocks_of(self, offset: int, length: int) -> Iterator[tuple[int, int, bytes]]:
        """The blocks of a range and what is expected of them.

        Args:
            offset: A multiple of ``block_size`` inside the volume.
            length: Up to the end of a block, or of the volume.

        Yields:
            ``(offset, length, checksum)``; the checksum is 16 zero bytes for a block of zeros.

        Raises:
            CorruptImageError: a page of the table is damaged.
            UsageError: ``offset`` is no multiple of ``block_size``.
        """
        if offset % self.block_size:
            raise UsageError(f"offset {offset} is no multiple of {self.block_size}")
        for at in range(offset, min(self.size, offset + length), self.block_size):
            page, entry = divmod(at // self.block_size, ENTRIES)
            digest = self._page(page)[entry * DIGEST : (entry + 1) * DIGEST]
            yield at, min(self.block_size, self.size - at), digest

    def verify_block(self, offset: int, data: memoryview) -> bool:
        """Whether a block is what it was when the image was made.

        Args:
            offset: Its first byte in the volume.
            data: The whole block; zeros for what is UNREADABLE.

        Raises:
            CorruptImageError: the page of the table that tells is damaged.
            UsageError: ``data`` is no whole block.
        """
        expected = next(self.blocks_of(offset, self.block_size), None)
        if expected is None or len(data) != expected[1]:
            raise UsageError(f"{len(data)} bytes at {offset} are no block of this side-car")
        return matches(data, expected[2])

    def fill(self, view: memoryview, offset: int, read: Callable[[memoryview, int], object]) -> None:
        """Fill ``view`` as it was when the checksums were made: zeros for what was UNREADABLE.

        Args:
            view: A part of the volume.
            offset: Its first byte.
            read: Fills a view from an offset of the image; what it raises is raised.
        """
        at, end = offset, offset + len(view)
        for lost in self.states.unreadable(offset, len(view)):
            first, last = max(lost.offset, offset), min(lost.end, end)
            if first > at:
                read(view[at - offset : first - offset], at)
            view[first - offset : last - offset] = bytes(last - first)
            at = last
        if end > at:
            read(view[at - offset :], at)

    def expected(self) -> Iterator[tuple[int, int, bytes]]:
        """All blocks that are not all zero, ascending, as `blocks_of` gives them.

        Raises:
            CorruptImageError: a page of the table is damaged.
        """
        for extent in self.stored(0, self.size):
            if extent.kind is ExtentKind.DATA:
                yield from (found for found in self.blocks_of(extent.offset, extent.length) if any(found[2]))

    def stored(self, offset: int, length: int) -> Iterator[Extent]:
        """Where the table may hold a checksum, by the holes of the file: DATA, else ZERO.

        Args:
            offset: First byte of a range of the volume.
            length: Its bytes.
        """
        end, span, base = offset + length, self._geometry.span, self._geometry.page_at(0)
        if not length:
            return
        first, last = offset // span, -(-end // span)
        at = offset
        for extent in self._storage.extents(base + first * PAGE, (last - first) * PAGE):
            data = extent.kind is ExtentKind.DATA
            # A page that is partly a hole is data: round holes inwards, data outwards.
            page = -(-(extent.end - base) // PAGE) if data else (extent.end - base) // PAGE
            stop = min(end, page * span)
            if stop > at:
                yield Extent(at, stop - at, ExtentKind.DATA if data else ExtentKind.ZERO)
                at = stop

    def verify(self) -> Iterator[Finding]:
        """Check every page of the table, and that none is missing.  Damage is yielded, never raised."""
        count = total = 0
        for extent in self.stored(0, self.size):
            if extent.kind is not ExtentKind.DATA:
                continue
            for page in range(extent.offset // self._geometry.span, -(-extent.end // self._geometry.span)):
                try:
                    data = self._page(page)
                except VssSnapError as exc:
                    yield self._finding(page, exc.message)
                    continue
                if any(data):
                    count += 1
                    total += int.from_bytes(data[SUM_AT:], "big")
        wanted = self._footer.page_count
        if count != wanted or total % (1 << 128) != int.from_bytes(self._footer.page_sum, "big"):
            yield Finding(
                "side-car table",
                self._geometry.page_at(0),
                f"of {wanted} pages with checksums {count} are intact",
            )

    def _finding(self, page: int, message: str) -> Finding:
        first = page * self._geometry.span
        return Finding(
            "side-car page",
            self._geometry.page_at(page),
            message,
            Extent(first, min(self._geometry.span, self.size - first)),
        )

    def _page(self, page: int) -> bytes:
        with self._lock:
            data = self._pages.get(page)
            if data is not None:
                self._pages.move_to_end(page)
                return data
        at = self._geometry.page_at(page)
        data = self._storage.pread(PAGE, at)
        view = memoryview(data)
        # A page is a hole as a whole: zeros are no valid checksum of zeros.
        if structs.checksum(view[:SUM_AT], self.identity.bytes, at) != data[SUM_AT:] and not is_zero(view):
            raise _corrupt(f"page {page} of the table fails its checksum", "page", at).at(self._storage.name)
        with self._lock:
            self._pages[page] = data
            if len(self._pages) > _OPEN_PAGES:
                self._pages.popitem(last=False)
        return data

    def close(self) -> None:
        """Let the storage go.  Idempotent."""
        self._storage.close()


def matches(data: memoryview, digest: bytes) -> bool:
    """Whether a block has a checksum; that of zeros is 16 zero bytes."""
    return is_zero(data) if digest == NO_DIGEST else xxhash.xxh3_128_digest(data) == digest


def _corrupt(message: str, structure: str, offset: int) -> CorruptImageError:
    return CorruptImageError(f"side-car: {message}", structure=f"side-car {structure}", offset=offset)


def _header(storage: Storage) -> Header:
    if storage.size < PAGE:
        raise _corrupt(f"{storage.size} bytes are too few for a header", "header", 0)
    page = storage.pread(PAGE, 0)
    header = Header.unpack(page)
    if header.magic != structs.HEADER_MAGIC:
        raise _corrupt("it does not begin as one", "header", 0)
    if structs.checksum(page[:SUM_AT], header.identity, 0) != page[SUM_AT:]:
        raise _corrupt("the header fails its checksum", "header", 0)
    unknown = header.incompatible & ~structs.KNOWN_INCOMPATIBLE
    if header.version != structs.VERSION or unknown:
        feature = (
            f"version {header.version}" if header.version != structs.VERSION else f"feature bits {unknown:#x}"
        )
        raise UnsupportedFeatureError(
            f"{storage.name}: the side-car has {feature}, which this version does not know",
            path=storage.name,
            feature=feature,
            hint="use a newer vsssnap",
        )
    problem = structs.problem_of(header)
    if problem:
        raise _corrupt(problem, "header", 0)
    _name(header)
    return header


def _name(header: Header) -> str:
    try:
        return header.format.rstrip(b"\0").decode("utf-8")
    except UnicodeDecodeError:
        raise _corrupt("the format's name is no UTF-8", "header", 0) from None


def _footer(storage: Storage, header: Header) -> Footer:
    """The footer, with all lengths that it names held against the file's."""
    states_at = Geometry(header.volume_size, header.block_size).states_at
    at = storage.size - PAGE
    if at < states_at:
        raise _corrupt(f"it is incomplete: {storage.size} bytes end before its footer", "footer", max(at, 0))
    page = storage.pread(PAGE, at)
    footer = Footer.unpack(page)
    if footer.magic != structs.FOOTER_MAGIC:
        raise _corrupt("it is incomplete: it does not end with a footer", "footer", at)
    if structs.checksum(page[:SUM_AT], header.identity, at) != page[SUM_AT:]:
        raise _corrupt("the footer fails its checksum", "footer", at)
    length = states_at + footer.state_count * STATE + footer.metadata_length + PAGE
    if footer.identity != header.identity or footer.file_length != storage.size or length != storage.size:
        raise _corrupt(f"the footer speaks of {length} bytes, the file has {storage.size}", "footer", at)
    if footer.metadata_length > MAX_ENCODED:
        raise _corrupt(f"{footer.metadata_length} bytes of metadata are too many", "footer", at)
    return footer
