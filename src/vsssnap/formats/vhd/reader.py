"""Reading VHD images: fixed, dynamic and differencing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final

from vsssnap._units import MIB
from vsssnap.blocks.extent import Extent, ExtentKind, shift
from vsssnap.errors import DeviceReadError
from vsssnap.formats._cache import ByteCache
from vsssnap.formats._layers import LayeredReader, close_in_turn
from vsssnap.formats.base import Depth, Finding
from vsssnap.formats.vhd import structs
from vsssnap.formats.vhd.locators import parent_name, texts
from vsssnap.formats.vhd.opening import footer_at
from vsssnap.formats.vhd.structs import SECTOR, UNUSED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vsssnap.formats.storage import Storage
    from vsssnap.formats.vhd.opening import Layout

Piece = tuple[int, int, int | None]
"""A range of the volume, from and to, and where it lies in the file; None if it is not there."""

_CACHE: Final = 4 * MIB  # bytes of bitmaps that are kept; a full one takes next to nothing
_FULL: Final = b""  # stands for a bitmap of ones alone
_LOST: Final = -1  # where a range lies whose place in the file is behind its end


class VhdReader(LayeredReader):
    """A VHD image, with its parents if it is differencing; any number of threads at once.

    Attributes:
        layout: What its structures say.
    """

    format: ClassVar[str] = "vhd"
    plain = True

    def __init__(self, storage: Storage, layout: Layout) -> None:
        """Own ``storage``."""
        super().__init__(layout.size)
        self.layout = layout
        self.path = storage.name
        self._storage = storage
        self._bitmaps = ByteCache(_CACHE)
        # A fixed image, which has no table, may be in a chain too: it is a parent like any other.
        self.caches = (self._bitmaps, layout.table.cache if layout.table is not None else ByteCache(0))

    @property
    def identity(self) -> bytes:
        """The unique id by which a child knows it."""
        return self.layout.footer.identity

    # Reading.

    def _fetch(self, view: memoryview, first: int, place: int) -> None:
        if place == _LOST:
            raise self._unread(first, first + len(view))
        self._storage.preadinto(view, place)

    def _load(self, length: int, first: int, place: int) -> bytes:
        if place == _LOST:
            raise self._unread(first, first + length)
        return self._storage.pread(length, place)

    def _tell(self, first: int, stop: int, place: int) -> Iterator[Extent]:
        if place == _LOST:
            yield Extent(first, stop - first, ExtentKind.UNREADABLE)
        else:  # as sparse as its file
            yield from shift(self._storage.extents(place, stop - first), first - place)

    def _own(self, offset: int, end: int) -> Iterator[Piece]:
        """Ranges of the volume and where each lies in the file, None if it is not there."""
        size, table = self.layout.block_size, self.layout.table
        if table is None:
            yield from self._inside(offset, end, 0, self.layout.end)
            return
        for block, behind, entry in table.runs(offset // size, -(-end // size)):
            first, stop = max(offset, block * size), min(end, behind * size)
            if entry == UNUSED:
                yield first, stop, None
            else:
                yield from self._stored(first, stop, block, entry)

    def _stored(self, offset: int, stop: int, block: int, entry: int) -> Iterator[Piece]:
        limit = self._storage.size
        base = block * self.layout.block_size
        data = entry * SECTOR + self.layout.bitmap_size - base
        if data + base > limit:  # not even its bitmap is there
            yield offset, stop, _LOST
            return
        bitmap = self._bitmap(block, entry)
        if bitmap is _FULL:
            yield from self._inside(offset, stop, data, limit)
            return
        for first, last, present in runs(bitmap, (offset - base) // SECTOR, -(-(stop - base) // SECTOR)):
            low, high = max(offset, base + first * SECTOR), min(stop, base + last * SECTOR)
            if present:
                yield from self._inside(low, high, data, limit)
            else:
                yield low, high, None

    @staticmethod
    def _inside(first: int, stop: int, by: int, limit: int) -> Iterator[Piece]:
        """A range that lies ``by`` bytes further on in the file; what is behind ``limit`` is lost.

        That happens only in an image that was opened to recover it.
        """
        end = min(stop, max(first, limit - by))
        if first < end:
            yield first, end, first + by
        if end < stop:
            yield end, stop, _LOST

    def _bitmap(self, block: int, entry: int) -> bytes:
        """Which sectors of a block are in it, most significant bit first."""
        found: bytes | None = self._bitmaps.get(block)
        if found is None:
            found = self._storage.pread(self.layout.bitmap_size, entry * SECTOR)
            used = min(self.layout.block_size, self.size - block * self.layout.block_size) // SECTOR
            if not ~int.from_bytes(found, "big") >> (8 * len(found) - used) & ((1 << used) - 1):
                found = _FULL
            self._bitmaps.put(block, found, 128 + len(found))
        return found

    def _unread(self, first: int, end: int) -> DeviceReadError:
        return DeviceReadError(
            f"{self._storage.name}: bytes {first} to {end} of the volume lie behind the file's end,"
            f" {self._storage.size} bytes",
            offset=first,
            length=end - first,
            hint="the image was cut short; what is left can be saved with on_read_error=OnReadError.MARK",
        )

    # Facts.

    def info(self) -> Mapping[str, Any]:
        """See `ImageReader`."""
        footer = self.layout.footer
        facts: dict[str, Any] = {
            "stored_size": self._storage.size,
            "complete": self.layout.complete,
            "identity": footer.identity.hex(),
            "parents": self._parents(),
            "features": ["saved state"] if footer.saved_state else [],
            "kind": structs.KINDS[footer.disk_type],
            "size": self.size,
            "creator": footer.creator.decode("latin-1"),
            "creator_version": f"{footer.creator_version >> 16}.{footer.creator_version & 0xFFFF}",
            "original_size": footer.original_size,
            "current_size": footer.current_size,
            "geometry": [footer.cylinders, footer.heads, footer.sectors],
            "created": _time(footer.time_stamp),
            "damage": [f"{found.structure}: {found.message}" for found in self.layout.damage],
        }
        if self.layout.table is not None:
            facts["block_size"] = self.layout.block_size
            facts["blocks"] = len(self.layout.table)
            facts["stored_blocks"] = sum(1 for _ in self.layout.table.used())
        return facts

    def _parents(self) -> list[dict[str, Any]]:
        header = self.layout.header
        if header is None or self.layout.footer.disk_type != structs.DIFFERENCING:
            return []
        located = texts(header, self._storage)
        return [
            {
                "identity": header.parent_identity.hex(),
                "name": parent_name(header),
                "modified": _time(header.parent_time_stamp),
                "relative": located.get(structs.RELATIVE, ""),
                "absolute": located.get(structs.ABSOLUTE, ""),
                "path": self.parent.path if self.parent is not None else "",
            }
        ]

    def verify(self, depth: Depth, progress: Callable[[int], None]) -> Iterator[Finding]:
        """See `ImageReader`: footers, header, table and bitmaps; VHD has no checksum of its data."""
        layout = self.layout
        yield from layout.damage
        progress(structs.FOOTER_SIZE)
        if layout.table is None:
            return
        copy, sound = footer_at(self._storage, 0)
        if copy is None or not sound:
            yield Finding("footer", 0, "the copy is not there" if copy is None else "the checksum is wrong")
        elif copy != layout.footer:
            yield Finding("footer", 0, f"the copy differs from the footer at {layout.end}")
        progress(structs.FOOTER_SIZE + structs.HEADER_SIZE)
        progress(4 * len(layout.table))  # the table was looked at when the image was opened

    def _release(self) -> None:
        self._storage.close()
        close_in_turn(self.parent)


def _time(stamp: int) -> str:
    return datetime.fromtimestamp(structs.EPOCH + stamp, UTC).isoformat()


def runs(bitmap: bytes, first: int, last: int) -> Iterator[tuple[int, int, bool]]:
    """Bits ``first`` to ``last`` in runs of one value: ``(from, to, value)``."""
    base = first - first % 8
    part = bitmap[base // 8 : -(-last // 8)]
    bits = f"{int.from_bytes(part, 'big'):0{len(part) * 8}b}"
    at, end = first - base, last - base
    while at < end:
        present = bits[at] == "1"
        stop = bits.find("0" if present else "1", at, end)
        stop = end if stop < 0 else stop
        yield base + at, base + stop, present
        at = stop
