"""Index pages and leaf entries.

Source: docs/formats/vsnap.md, section 6.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

from vsssnap.errors import CorruptImageError
from vsssnap.formats.vsnap import merkle, structs
from vsssnap.formats.vsnap.layout import Geometry, check_reference
from vsssnap.formats.vsnap.states import CellStates, read_map, unpack
from vsssnap.formats.vsnap.structs import HEAD, PageBody, Reference

_LEAD = struct.Struct("<BBH")
_PIECE = struct.Struct("<IQII")
_NO_STATES: Final = CellStates()
_SWAPPED: Final = struct.pack("=H", 1) != struct.pack("<H", 1)


class Piece(NamedTuple):
    """Where some cells of a chunk lie.

    Attributes:
        file: File number.
        offset: Of the data frame.
        box_length: Of its box, the first eight bytes included.
        outer_length: Of its payload.
        cells: Which cells to take from it.
    """

    file: int
    offset: int
    box_length: int
    outer_length: int
    cells: int


class Entry(NamedTuple):
    """What the index says of one chunk.

    Attributes:
        flat: The one state of all its cells (`structs.LOST` too), or None for the rest to count.
        digest: Of the whole plain chunk.
        states: Of its cells; DATA are those of the pieces.
        pieces: Where the DATA cells lie.
    """

    flat: int | None
    digest: bytes = b""
    states: CellStates = _NO_STATES
    pieces: tuple[Piece, ...] = ()

    @property
    def memory(self) -> int:
        """Bytes it takes in a cache, roughly."""
        return 700 + 150 * len(self.pieces) + 150 * len(self.states.unreadable)

    def states_of(self, cells: int) -> CellStates:
        """States of its cells, of a flat one too."""
        every = (1 << cells) - 1
        if self.flat == structs.HOLE:
            return CellStates(hole=every)
        return CellStates(excluded=every) if self.flat == structs.EXCLUDED else self.states

    def pack(self, width: int) -> bytes:
        """As in a leaf page."""
        if self.flat is not None:
            return _LEAD.pack(self.flat, 0, 0)
        parts = [_LEAD.pack(structs.MIXED, len(self.pieces), 0), self.digest]
        parts.append(self.states.pack(width, with_data=False))
        for piece in self.pieces:
            parts.append(_PIECE.pack(piece.file, piece.offset, piece.box_length, piece.outer_length))
            parts.append(piece.cells.to_bytes(width, "little"))
        return b"".join(parts)

    def value(self, digest: int, cells: int) -> bytes:
        """Its part of the content root (section 9)."""
        if self.flat is not None:
            return merkle.flat_value(digest, self.flat)
        return merkle.chunk_value(digest, cells, self.states, self.digest)


FLAT: Final = (Entry(structs.ZERO), Entry(structs.HOLE), Entry(structs.EXCLUDED))
LOST: Final = Entry(structs.LOST)
"""What recovery found nothing of: all of it is unreadable.  Never written."""


def parse_entry(body: bytes, cells: int, width: int, length: int) -> Entry:
    """Read a leaf entry.

    Raises:
        CorruptImageError: it breaks a rule of section 6.
    """
    if len(body) < _LEAD.size:
        raise _broken("entry is cut short")
    kind, count, reserved = _LEAD.unpack_from(body)
    if reserved or kind > structs.MIXED or count > structs.MAX_PIECES:
        raise _broken(f"entry of kind {kind} with {count} pieces")
    if kind != structs.MIXED:
        if count or len(body) != _LEAD.size:
            raise _broken(f"entry of kind {kind} is {len(body)} bytes long")
        return FLAT[kind]
    at = _LEAD.size + 32
    states, at = unpack(body, at, cells, width, length, with_data=False)
    taken = states.hole | states.excluded
    pieces, data = [], 0
    for _ in range(count):
        if len(body) - at < _PIECE.size:
            raise _broken("a piece is cut short")
        file, offset, box_length, outer_length = _PIECE.unpack_from(body, at)
        bits = read_map(body, at + _PIECE.size, cells, width, taken)
        at += _PIECE.size + width
        if not HEAD <= box_length <= structs.MAX_BOX or not outer_length or file > structs.MAX_FILES:
            raise _broken(f"piece with a box of {box_length} and a payload of {outer_length} bytes")
        pieces.append(Piece(file, offset, box_length, outer_length, bits))
        taken |= bits
        data |= bits
    if at != len(body):
        raise _broken(f"entry is {len(body)} bytes long, its content {at}")
    states = CellStates(data, states.hole, states.excluded, 0, states.unreadable)
    if states.flat(cells) is not None:
        raise _broken("entry of kind 3 with cells of one state")
    return Entry(None, body[_LEAD.size : _LEAD.size + 32], states, tuple(pieces))


class Page:
    """An index page whose box was checked; entries are parsed when asked for.

    Attributes:
        level: 0 for a leaf.
        count: Entries.
        number: Which page of its level.
        value: Its part of the content root, as it says itself.
    """

    __slots__ = ("_body", "_geometry", "_offsets", "_start", "count", "level", "number", "value")

    def __init__(self, body: bytes, geometry: Geometry) -> None:
        """Read what lies behind the fixed part of the frame.

        Raises:
            CorruptImageError: it breaks a rule of section 6.
        """
        head = PageBody.unpack(body)
        span = structs.FAN_OUT ** (head.level + 1) if head.level < geometry.levels else 0
        if head.reserved_1 or head.reserved_2 or not span or head.first_chunk % span:
            raise _broken(f"page of level {head.level} begins at chunk {head.first_chunk}")
        self.level = head.level
        self.number = head.first_chunk // span
        self.count = head.count
        self.value = head.value
        self._geometry = geometry
        self._body = body
        if head.first_chunk >= geometry.chunk_count or head.count != geometry.entry_count(
            self.level, self.number
        ):
            raise _broken(f"page {self.number} of level {self.level} has {head.count} entries")
        self._start = PageBody.SIZE
        self._offsets = array("I")
        if self.level:
            if len(body) != self._start + self.count * Reference.SIZE:
                raise _broken(f"page of {self.count} references is {len(body)} bytes long")
            return
        self._start += 4 * (self.count + 1)
        if len(body) < self._start:
            raise _broken(f"page of {self.count} entries is {len(body)} bytes long")
        self._offsets.frombytes(body[PageBody.SIZE : self._start])
        if _SWAPPED:
            self._offsets.byteswap()
        previous = 0
        for index, offset in enumerate(self._offsets):
            if offset < previous or (index == 0 and offset):
                raise _broken(f"entry {index} begins at {offset}, behind {previous}")
            previous = offset
        if previous != len(body) - self._start:
            raise _broken(f"entries end at {previous} of {len(body) - self._start} bytes")

    def reference(self, index: int) -> Reference:
        """An inner page's entry.

        Raises:
            CorruptImageError: it breaks a rule.
        """
        return check_reference(Reference.unpack(self._body, self._start + index * Reference.SIZE))

    def packed(self, index: int) -> bytes:
        """A leaf's entry as it is stored."""
        return self._body[self._start + self._offsets[index] : self._start + self._offsets[index + 1]]

    def entry(self, index: int) -> Entry:
        """A leaf's entry.

        Raises:
            CorruptImageError: it breaks a rule.
        """
        grid = self._geometry
        chunk = self.number * structs.FAN_OUT + index
        return parse_entry(self.packed(index), grid.cells(chunk), grid.width, grid.length(chunk))

    def entries(self) -> list[Entry]:
        """All entries of a leaf.

        Raises:
            CorruptImageError: an entry breaks a rule.
        """
        return [self.entry(index) for index in range(self.count)]

    def references(self) -> list[Reference]:
        """All entries of an inner page.

        Raises:
            CorruptImageError: an entry breaks a rule.
        """
        return [self.reference(index) for index in range(self.count)]

    def computed_value(self, found: Sequence[Entry | Reference]) -> bytes:
        """Its value by section 9, from its entries."""
        grid = self._geometry
        first = self.number * structs.FAN_OUT
        values = [
            item.value(grid.digest, grid.cells(first + index)) if isinstance(item, Entry) else item.value
            for index, item in enumerate(found)
        ]
        return merkle.page_value(grid.digest, self.level, values)

    @property
    def memory(self) -> int:
        """Bytes it takes in a cache."""
        return len(self._body) + 4 * len(self._offsets) + 200


def pack_page(level: int, number: int, entries: Sequence[bytes], value: bytes) -> list[bytes]:
    """The body of a page, in pieces."""
    head = PageBody(level, 0, 0, len(entries), number * structs.FAN_OUT ** (level + 1), value).pack()
    if level:
        return [head, *entries]
    offsets = array("I", [0])
    for entry in entries:
        offsets.append(offsets[-1] + len(entry))
    if _SWAPPED:
        offsets.byteswap()
    return [head, offsets.tobytes(), *entries]


def flat_reference(digest: int, state: int) -> Reference:
    """A reference to a subtree without page."""
    return Reference(state, 0, 0, 0, 0, 0, 0, merkle.flat_value(digest, state))


def page_reference(file: int, offset: int, length: int, value: bytes) -> Reference:
    """A reference to a page."""
    return Reference(structs.PAGE, 0, 0, file, offset, length, 0, value)


def _broken(message: str) -> CorruptImageError:
    return CorruptImageError(f"index page: {message}", structure="index page")
