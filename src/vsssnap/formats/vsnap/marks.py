"""What is said of a chunk that is not its bytes: marks, until they become states of cells.

Source: docs/formats/vsnap.md, section 1.
"""

from __future__ import annotations

from vsssnap.blocks.extent import ExtentKind
from vsssnap.formats.vsnap import structs
from vsssnap.formats.vsnap.states import CellStates, join_ranges

STATE_OF = {
    ExtentKind.ZERO: structs.ZERO,
    ExtentKind.HOLE: structs.HOLE,
    ExtentKind.EXCLUDED: structs.EXCLUDED,
}
KIND_OF = {state: kind for kind, state in STATE_OF.items()} | {
    structs.DATA: ExtentKind.DATA,
    structs.LOST: ExtentKind.UNREADABLE,
}


class ChunkMarks:
    """The marks of one chunk."""

    __slots__ = ("_cell_size", "_cells", "_length", "_partial", "_touched", "_whole", "ranges", "unreadable")

    def __init__(self, cells: int, cell_size: int, length: int) -> None:
        self._cells = cells
        self._cell_size = cell_size
        self._length = length
        self._touched = dict.fromkeys(STATE_OF, 0)
        self._whole = 0
        self._partial: dict[int, int] = {}
        self.ranges: list[tuple[int, int]] = []
        self.unreadable: list[tuple[int, int]] = []

    def add(self, offset: int, length: int, kind: ExtentKind) -> None:
        """Mark a byte range of the chunk; marks do not overlap."""
        size = self._cell_size
        self.ranges.append((offset, length))
        if kind is ExtentKind.UNREADABLE:
            self.unreadable.append((offset, length))
        first, last = offset // size, (offset + length - 1) // size
        if kind in self._touched:
            self._touched[kind] |= ((1 << (last - first + 1)) - 1) << first
        for cell in {first, last}:
            start, end = cell * size, min((cell + 1) * size, self._length)
            inside = min(offset + length, end) - max(offset, start)
            if inside < end - start:
                self._partial[cell] = self._partial.get(cell, 0) + inside
            else:
                self._whole |= 1 << cell
        if last - first > 1:
            self._whole |= ((1 << (last - first - 1)) - 1) << (first + 1)

    def covered(self) -> int:
        """Cells of which every byte is marked."""
        bits = self._whole
        for cell, count in self._partial.items():
            if count == min((cell + 1) * self._cell_size, self._length) - cell * self._cell_size:
                bits |= 1 << cell
        return bits

    def complete(self) -> bool:
        """Whether every byte of the chunk is marked."""
        return self.covered() == (1 << self._cells) - 1

    def states(self, data: int) -> CellStates:
        """States of cells of which ``data`` hold data; bytes without a mark are zeros.

        A cell has the strongest of its states: DATA, ZERO, EXCLUDED, HOLE.
        """
        covered = self.covered()
        zero = self._touched[ExtentKind.ZERO] | ~covered
        excluded = self._touched[ExtentKind.EXCLUDED] & ~zero & ~data
        hole = self._touched[ExtentKind.HOLE] & ~zero & ~data & ~excluded
        return CellStates(data, hole, excluded, 0, join_ranges(self.unreadable))
