"""A shadow copy as a reader."""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from vsssnap._units import whole
from vsssnap.blocks.extent import Extent, ExtentKind, coalesce, shift
from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import DeviceReadError
from vsssnap.volumes.shadow.structs import HEADER_OFFSET
from vsssnap.volumes.shadow.table import LOST, OTHER, OVERLAID, OWN, UNUSED, VOLUME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.metadata import ImageMetadata
    from vsssnap.volumes.shadow.view import Piece, View

_ZEROS: Final = memoryview(bytes(1 << 20))


class UnusedBlocks(enum.StrEnum):
    """What a shadow copy gives for blocks that were not in use when it was taken.

    Windows does not protect them (free space, page files, the shadow storage itself), so nobody
    knows what they held.
    """

    ZERO = "zero"
    """Zeros, as HOLE: the same bytes every time, and they compress."""
    WINDOWS = "windows"
    """What Windows gives: zeros in the newest shadow copy, the volume's present content in older ones."""
    CURRENT = "current"
    """The volume's present content."""
    ERROR = "error"
    """Nothing: they are UNREADABLE."""


class BlockSource(enum.StrEnum):
    """Where bytes of a shadow copy lie."""

    STORE = "store"
    """In the shadow storage: a copy that was made before the block was overwritten."""
    VOLUME = "volume"
    """On the volume, unchanged since, maybe at another place."""
    OVERLAY = "overlay"
    """In the shadow storage: written to the shadow copy itself after it was taken."""
    UNUSED = "unused"
    """Nowhere: the block was not in use."""
    LOST = "lost"
    """Nowhere that can be read: the image of the volume is incomplete, or the store is damaged."""


_SOURCES: Final = {
    VOLUME: BlockSource.VOLUME,
    OWN: BlockSource.STORE,
    OTHER: BlockSource.STORE,
    OWN | OVERLAID: BlockSource.OVERLAY,
    OTHER | OVERLAID: BlockSource.OVERLAY,
    UNUSED: BlockSource.UNUSED,
    LOST: BlockSource.LOST,
}


@dataclass(frozen=True, slots=True)
class SourceExtent:
    """A range of a shadow copy that lies in one place.

    Attributes:
        offset: First byte, in the shadow copy.
        length: Bytes, at least 1.
        source: Where it lies.
        source_offset: First byte there: on the volume, or on the one that holds the shadow storage;
            None where its bytes are taken from nowhere.
    """

    offset: int
    length: int
    source: BlockSource
    source_offset: int | None

    @property
    def end(self) -> int:
        """First byte after the range."""
        return self.offset + self.length


def _joined(one: SourceExtent, other: SourceExtent) -> SourceExtent | None:
    """Two neighbours as one, if they lie one behind the other."""
    expected = None if one.source_offset is None else one.source_offset + one.length
    if one.source is not other.source or other.source_offset != expected:
        return None
    return SourceExtent(one.offset, one.length + other.length, one.source, one.source_offset)


class _Guard(threading.local):
    """Which views answered for their own volume header while this thread looked."""

    watching: list[ShadowReader] | None = None


_GUARD = _Guard()


def view_behind(reader: BlockReader) -> ShadowReader | None:
    """The shadow copy that ``reader`` shows, through whatever other views; None if it shows none.

    Windows updates the volume header without keeping the old one, so every shadow copy shows the
    header of the present.  Reading it through ``reader`` tells who answers.
    """
    outer, _GUARD.watching = _GUARD.watching, []
    try:
        reader.pread(1, HEADER_OFFSET)
        return _GUARD.watching[0] if _GUARD.watching else None
    finally:
        _GUARD.watching = outer


class ShadowReader(BlockReader):
    """The blocks of a volume as a shadow copy kept them.

    It goes with the volume (and the storage volume) it was opened on: when that is closed, reads
    raise ClosedError.  `extents` calls unused blocks HOLE or, with `UnusedBlocks.ERROR`,
    UNREADABLE; and UNREADABLE what is lost.
    """

    def __init__(
        self,
        view: View,
        volume: BlockReader,
        storage: BlockReader | None,
        *,
        name: str,
        unused: UnusedBlocks,
        shows_unused: bool,
        metadata: ImageMetadata,
    ) -> None:
        """Made by `ShadowStore.open`.

        Args:
            view: The map.
            volume: The volume as it is now.
            storage: The other volume that holds shadow storage.
            name: Of the shadow copy, for messages.
            unused: The policy.
            shows_unused: Whether unused blocks have the volume's present content under it.
            metadata: What the copy says of itself.
        """
        super().__init__(view.size, sector_size=volume.sector_size, metadata=metadata)
        self.unused = unused
        self._view = view
        self._volume = volume
        self._storage = storage if storage is not None else volume
        self._places = {
            VOLUME: volume,
            OWN: volume,
            OWN | OVERLAID: volume,
            OTHER: self._storage,
            OTHER | OVERLAID: self._storage,
        }
        self._name = name
        self._shows_unused = shows_unused

    @property
    def origins(self) -> tuple[str, ...]:
        """Those of the volume, and of the one that holds the shadow storage."""
        return tuple(dict.fromkeys((*self._volume.origins, *self._storage.origins)))

    def sources(self, offset: int = 0, length: int | None = None) -> Iterator[SourceExtent]:
        """Where the bytes of a range lie, ascending and gap-free.

        Args:
            offset: First byte.
            length: Bytes; None for all up to the end.

        Raises:
            UsageError: an argument is negative or no whole number.
            ClosedError: the reader is closed.
            DeviceReadError: the store's bitmap cannot be read.
        """
        rest = max(0, self.size - whole(offset, "offset"))
        length = rest if length is None else min(rest, whole(length, "length"))
        with self._gate:
            pass
        return self._walk_sources(offset, length)

    def _walk_sources(self, offset: int, length: int) -> Iterator[SourceExtent]:
        pending: SourceExtent | None = None
        for piece in self._view.pieces(offset, length):
            start, count, kind, place = piece
            taken = kind != LOST and not (kind == UNUSED and self.unused is UnusedBlocks.ERROR)
            at = place if taken and self._taken_from(piece) is not None else None
            found = SourceExtent(start, count, _SOURCES[kind], at)
            joined = None if pending is None else _joined(pending, found)
            if pending is not None and joined is None:
                yield pending
            pending = found if joined is None else joined
        if pending is not None:
            yield pending

    def _taken_from(self, piece: Piece) -> BlockReader | None:
        """The reader that has a piece's bytes; None for zeros."""
        known = self._places.get(piece[2])
        if known is not None:
            return known
        if piece[2] == UNUSED and self.unused is not UnusedBlocks.ERROR:
            # What lies behind the end is its last sector, or was cut off and is of no use.
            return self._volume if self._shows_unused and piece[0] < self._volume.size else None
        raise self._absent(piece)

    def _absent(self, piece: Piece) -> DeviceReadError:
        offset, length, kind, _ = piece
        if kind == UNUSED:
            problem = "were not in use and are not kept"
            hint = "skip what extents() calls UNREADABLE, or open it with unused=UnusedBlocks.ZERO"
        else:
            problem = "are lost: they lie outside of what is there of the volume and its shadow storage"
            hint = "give the whole volume; on_read_error=OnReadError.MARK keeps what can be read"
        return DeviceReadError(
            f"{self._name}: {length} bytes at {offset} {problem}", offset=offset, length=length, hint=hint
        )

    def _watch(self, offset: int, length: int) -> None:
        if _GUARD.watching is not None and offset <= HEADER_OFFSET < offset + length:
            _GUARD.watching.append(self)

    def _read_into(self, view: memoryview, offset: int) -> None:
        """Read what lies in place in large stretches, and each of the other pieces, all in one go."""
        self._watch(offset, len(view))
        unused = self._volume.size if self._shows_unused else 0
        parts, pieces = self._view.plan(view, offset, unused=unused)
        others: list[tuple[memoryview, int]] = []
        for piece in pieces:
            start, length, _, place = piece
            part = view[start - offset : start - offset + length]
            source = self._taken_from(piece)
            if source is None:
                for done in range(0, length, len(_ZEROS)):
                    count = min(len(_ZEROS), length - done)
                    part[done : done + count] = _ZEROS[:count]
            elif source is self._volume:
                parts.append((part, place))
            else:
                others.append((part, place))
        if parts:
            self._volume._read_parts(parts)  # noqa: SLF001 - of the same class
        if others:
            self._storage._read_parts(others)  # noqa: SLF001

    def _read(self, length: int, offset: int) -> bytes:
        pieces = list(islice(self._view.pieces(offset, length), 2))
        if len(pieces) > 1:
            return super()._read(length, offset)
        self._watch(offset, length)
        source = self._taken_from(pieces[0])
        return bytes(length) if source is None else source.pread(length, pieces[0][3])

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        return coalesce(self._kinds(offset, length))

    def _kinds(self, offset: int, length: int) -> Iterator[Extent]:
        for piece in self._view.pieces(offset, length):
            start, count, kind, place = piece
            if kind == LOST or (kind == UNUSED and self.unused is UnusedBlocks.ERROR):
                yield Extent(start, count, ExtentKind.UNREADABLE)
            elif kind not in (VOLUME, UNUSED):
                yield Extent(start, count, ExtentKind.DATA)
            elif self._taken_from(piece) is None:
                yield Extent(start, count, ExtentKind.HOLE)
            else:
                yield from shift(self._volume.extents(place, count), start - place)

    def _confirm(self) -> None:
        self._volume.confirm()
        self._storage.confirm()
