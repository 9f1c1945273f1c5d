"""What worker threads do with a chunk: zero test, digest, comparison with the parent, compression.

Source: docs/formats/vsnap.md, sections 1 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap.formats._zero import is_zero
from vsssnap.formats.vsnap import structs
from vsssnap.formats.vsnap.codec import DIGESTS, check_of, compress
from vsssnap.formats.vsnap.states import cells_of, touched

if TYPE_CHECKING:
    from collections.abc import Callable

    from vsssnap.formats.vsnap.index import Entry
    from vsssnap.formats.vsnap.layout import Geometry


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chunk ready to be stored.

    Attributes:
        chunk: Its number.
        view: Its plain bytes, valid until it is stored.
        digest: Of the plain bytes.
        data: Cells to store.
        same: Cells that hold data and are as in the parent.
        plain_length: Bytes of the cells to store.
        segments: Their Zstandard frames.
        checks: Of each segment.
        base: The parent's entry.
    """

    chunk: int
    view: memoryview
    digest: bytes
    data: int
    same: int
    plain_length: int
    segments: list[bytes]
    checks: list[bytes]
    base: Entry | None


class Encoder:
    """Stateless but for its settings; any thread, several at once."""

    def __init__(
        self,
        geometry: Geometry,
        level: int,
        parent_entry: Callable[[int], Entry] | None,
        parent_read: Callable[[int], bytearray] | None,
    ) -> None:
        """Prepare for an image.

        Args:
            geometry: Of the image.
            level: Zstandard's.
            parent_entry: The parent's entry of a chunk.
            parent_read: The parent's plain bytes of a chunk, unreadable ones as zeros.
        """
        self._geometry = geometry
        self._level = level
        self._parent_entry = parent_entry
        self._parent_read = parent_read
        self._digest = DIGESTS[geometry.digest]
        self._zero_digests: dict[int, bytes] = {}
        size = geometry.cell_size
        self._cells = [slice(at, at + size) for at in range(0, geometry.chunk_size, size)]

    def zero_digest(self, length: int) -> bytes:
        """The digest of zeros."""
        found = self._zero_digests.get(length)
        if found is None:
            found = self._zero_digests[length] = self._digest(bytes(length))
        return found

    def encode(self, view: memoryview, chunk: int, *, apart: int = 0) -> Encoded:
        """Prepare a chunk.

        Args:
            view: Its plain bytes, all of them.
            chunk: Its number.
            apart: Cells that must not be taken from the parent even where they are equal.
        """
        data = self._data_cells(view)
        digest = self._digest(view) if data else self.zero_digest(len(view))
        same, base = 0, None
        if self._parent_entry is not None:
            base = self._parent_entry(chunk)
            same = self._same_cells(view, data, digest, base, chunk) & ~apart
            same = _bounded(same, data & ~same, base)
            data &= ~same
        segments = self._segments(view, data)
        checks = [check_of(segment) for segment in segments]
        plain = self._geometry.plain_length(chunk, data)
        return Encoded(chunk, view, digest, data, same, plain, segments, checks, base)

    def _data_cells(self, view: memoryview) -> int:
        zero = [is_zero(view[cell]) for cell in self._cells if cell.start < len(view)]
        bits = (1 << len(zero)) - 1
        if True in zero:
            for cell, empty in enumerate(zero):
                bits ^= empty << cell
        return bits

    def _same_cells(self, view: memoryview, data: int, digest: bytes, base: Entry, chunk: int) -> int:
        wanted = data & base.states.data & ~touched(base.states.unreadable, self._geometry.cell_size)
        if not wanted or digest == base.digest:
            return wanted
        assert self._parent_read is not None  # noqa: S101 - comes with parent_entry
        old = self._parent_read(chunk)
        size = self._geometry.cell_size
        bits = 0
        for first, count in cells_of(wanted):
            for cell in range(first, first + count):
                # startswith is one memcmp without a copy of either side.
                if old.startswith(view[cell * size : (cell + 1) * size], cell * size):
                    bits |= 1 << cell
        return bits

    def _segments(self, view: memoryview, data: int) -> list[bytes]:
        size = self._geometry.cell_size
        runs = list(cells_of(data))
        if len(runs) == 1:
            first, count = runs[0]
            plain = view[first * size : (first + count) * size]
        else:
            plain = memoryview(b"".join(view[first * size : (first + count) * size] for first, count in runs))
        step = self._geometry.segment_size
        return [compress(plain[at : at + step], self._level) for at in range(0, len(plain), step)]


def _bounded(same: int, changed: int, base: Entry) -> int:
    """What to keep of ``same`` so that the entry has no piece too many.

    The smallest pieces are stored again, not the whole chunk: changed cells that are scattered
    over the links of a chain would else each cost a chunk now and then (section 6).
    """
    kept = sorted((piece.cells & same for piece in base.pieces), key=int.bit_count)
    kept = [cells for cells in kept if cells]
    while changed and len(kept) >= structs.MAX_PIECES:
        same &= ~kept.pop(0)
    return same
