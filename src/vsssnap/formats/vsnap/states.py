"""States of the cells of a chunk, and how they are written.

Source: docs/formats/vsnap.md, sections 1, 4 and 9.  Maps are Python integers, bit i for
cell i: set arithmetic on up to 4096 cells is then one operation.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vsssnap.errors import CorruptImageError
from vsssnap.formats.vsnap import structs

_LEAD = struct.Struct("<BBH")
_U32 = struct.Struct("<I")
_PAIR = struct.Struct("<II")

Ranges = tuple[tuple[int, int], ...]
"""Ascending, disjoint, never adjacent (offset, length) pairs."""


class CellStates(NamedTuple):
    """States of one chunk's cells; what is in no map is ZERO.

    Attributes:
        data: Cells that are DATA.
        hole: Cells that are HOLE.
        excluded: Cells that are EXCLUDED.
        parent: Cells that are as in the parent.
        unreadable: Byte ranges in the chunk.
    """

    data: int = 0
    hole: int = 0
    excluded: int = 0
    parent: int = 0
    unreadable: Ranges = ()

    def flat(self, cells: int) -> int | None:
        """The one state all cells have, if it is ZERO, HOLE or EXCLUDED and all is readable."""
        if self.unreadable or self.data or self.parent:
            return None
        if not self.hole and not self.excluded:
            return structs.ZERO
        every = (1 << cells) - 1
        if self.hole == every:
            return structs.HOLE
        return structs.EXCLUDED if self.excluded == every else None

    def codes(self, cells: int) -> bytearray:
        """One byte of state for each cell."""
        result = bytearray(cells)
        pairs = ((self.data, structs.DATA), (self.hole, structs.HOLE))
        for bits, code in (*pairs, (self.excluded, structs.EXCLUDED), (self.parent, structs.PARENT)):
            if bits == (1 << cells) - 1:
                return bytearray([code]) * cells
            while bits:
                low = bits & -bits
                result[low.bit_length() - 1] = code
                bits ^= low
        return result

    def pack(self, width: int, *, with_data: bool) -> bytes:
        """As in a data frame (``with_data``) or a leaf entry; maps are ``width`` bytes."""
        if not (self.hole or self.excluded or self.parent or self.unreadable):  # most of them
            lead = _LEAD.pack(0, with_data, 0)
            return lead + self.data.to_bytes(width, "little") if with_data else lead
        maps = [
            (bit, value) for bit, value in ((1, self.hole), (2, self.excluded), (4, self.parent)) if value
        ]
        flags = sum(bit for bit, _ in maps) | (8 if self.unreadable else 0)
        parts = [_LEAD.pack(flags, with_data, 0)]
        parts += [value.to_bytes(width, "little") for _, value in maps]
        if with_data:
            parts.append(self.data.to_bytes(width, "little"))
        if self.unreadable:
            parts.append(_U32.pack(len(self.unreadable)))
            parts += [_PAIR.pack(*item) for item in self.unreadable]
        return b"".join(parts)


def unpack(
    body: bytes, at: int, cells: int, width: int, length: int, *, with_data: bool
) -> tuple[CellStates, int]:
    """Read what `CellStates.pack` wrote.

    Args:
        body: Where it lies.
        at: Its first byte.
        cells: Cells of this chunk.
        width: Bytes of a map.
        length: Bytes of this chunk.
        with_data: Whether it is a data frame's.

    Returns:
        The states and the first byte behind them.

    Raises:
        CorruptImageError: it breaks a rule of section 4.
    """
    if len(body) - at < _LEAD.size:
        raise _broken("states are cut short", at)
    flags, maps, reserved = _LEAD.unpack_from(body, at)
    if flags > 15 or maps != with_data or reserved or (not with_data and flags & 4):
        raise _broken(f"states have flags {flags}, {maps} piece maps, reserved {reserved}", at)
    at += _LEAD.size
    found = [0, 0, 0, 0]
    seen = 0
    for index, wanted in enumerate((flags & 1, flags & 2, flags & 4, with_data)):
        if wanted:
            found[index] = read_map(body, at, cells, width, seen)
            seen |= found[index]
            at += width
    unreadable: Ranges = ()
    if flags & 8:
        unreadable, at = _read_ranges(body, at, length)
    hole, excluded, parent, data = found
    return CellStates(data, hole, excluded, parent, unreadable), at


def read_map(body: bytes, at: int, cells: int, width: int, taken: int) -> int:
    """A map that is not empty, names only cells that exist, and none in ``taken``."""
    if len(body) - at < width:
        raise _broken("a cell map is cut short", at)
    bits = int.from_bytes(body[at : at + width], "little")
    if not bits or bits >> cells or bits & taken:
        raise _broken(f"cell map {bits:#x} of {cells} cells is empty, too long or overlaps {taken:#x}", at)
    return bits


def _read_ranges(body: bytes, at: int, length: int) -> tuple[Ranges, int]:
    if len(body) - at < 4:
        raise _broken("the unreadable list is cut short", at)
    (count,) = _U32.unpack_from(body, at)
    at += 4
    if not 0 < count <= structs.MAX_UNREADABLE or len(body) - at < count * 8:
        raise _broken(f"{count} unreadable ranges in {len(body) - at} bytes", at)
    ranges = tuple(_PAIR.iter_unpack(body[at : at + count * 8]))
    check_ranges(ranges, 0, length)
    return ranges, at + count * 8


def check_ranges(ranges: Iterable[tuple[int, int]], start: int, end: int) -> None:
    """Refuse ranges that are not ascending, disjoint, apart and inside ``start`` to ``end``."""
    last = start - 1
    for offset, length in ranges:
        if offset <= last or not length or offset + length > end:
            raise _broken(f"unreadable range {offset}+{length} after {last} in {start}..{end}", None)
        last = offset + length


def _broken(message: str, at: int | None) -> CorruptImageError:
    return CorruptImageError(message, structure="cell states", offset=at)


def cells_of(bits: int) -> Iterator[tuple[int, int]]:
    """Runs of set bits as (first, count), ascending."""
    at = 0
    while bits:
        skip = (bits & -bits).bit_length() - 1
        bits >>= skip
        at += skip
        count = (~bits & (bits + 1)).bit_length() - 1
        yield at, count
        bits >>= count
        at += count


def touched(ranges: Iterable[tuple[int, int]], cell_size: int) -> int:
    """The cells in which ranges have a byte."""
    bits = 0
    for offset, length in ranges:
        first, last = offset // cell_size, (offset + length - 1) // cell_size
        bits |= ((1 << (last - first + 1)) - 1) << first
    return bits


def ranges_of(bits: int, cell_size: int, length: int) -> list[tuple[int, int]]:
    """The bytes of cells in a chunk of ``length`` bytes, ascending, never adjacent."""
    runs = ((first * cell_size, (first + count) * cell_size) for first, count in cells_of(bits))
    return [(start, min(end, length) - start) for start, end in runs]


def common(left: Iterable[tuple[int, int]], right: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """What lies in both of two ascending, disjoint lists."""
    result = []
    ours, theirs = iter(left), iter(right)
    a, b = next(ours, None), next(theirs, None)
    while a is not None and b is not None:
        start, end = max(a[0], b[0]), min(sum(a), sum(b))
        if start < end:
            result.append((start, end - start))
        if sum(a) < sum(b):
            a = next(ours, None)
        else:
            b = next(theirs, None)
    return result


def without(
    ranges: Iterable[tuple[int, int]], cuts: Iterable[tuple[int, int]], length: int
) -> list[tuple[int, int]]:
    """What of an ascending, disjoint list lies in none of another; both inside ``length`` bytes."""
    free, at = [], 0
    for offset, size in cuts:
        if offset > at:
            free.append((at, offset - at))
        at = offset + size
    if at < length:
        free.append((at, length - at))
    return common(ranges, free)


def rank_before(bits: int, cell: int) -> int:
    """How many set bits lie below ``cell``."""
    return (bits & ((1 << cell) - 1)).bit_count()


def join_ranges(ranges: Iterable[tuple[int, int]], most: int = structs.MAX_UNREADABLE) -> Ranges:
    """Sort and join ranges that touch; what is above ``most`` becomes one range."""
    result: list[tuple[int, int]] = []
    for offset, length in sorted(ranges):
        if result and (offset <= sum(result[-1]) or len(result) == most):
            first, size = result[-1]
            result[-1] = (first, max(first + size, offset + length) - first)
        else:
            result.append((offset, length))
    return tuple(result)


def run_list(codes: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Runs of equal bytes as (code, count)."""
    at = 0
    while at < len(codes):
        code = codes[at]
        rest = codes[at:]
        count = len(rest) - len(rest.lstrip(bytes([code])))
        yield code, count
        at += count


def pack_runs(runs: Iterable[tuple[int, int]]) -> bytes:
    """Runs as in a state frame: state in the low byte, cells above it."""
    table = array("Q", [count << 8 | code for code, count in runs])
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        table.byteswap()
    return table.tobytes()
