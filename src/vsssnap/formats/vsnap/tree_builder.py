"""Building the index while the volume passes by, in memory for one page of each level.

Source: docs/formats/vsnap.md, section 6.  A page is written when it is full; runs of one state,
and runs in which nothing differs from the parent, climb to the level where they are one entry, so
that neither 64 TiB of zeros nor an unchanged terabyte costs more than its edges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.formats.vsnap import merkle, structs
from vsssnap.formats.vsnap.index import FLAT, flat_reference
from vsssnap.formats.vsnap.structs import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vsssnap.formats.vsnap.index import Entry
    from vsssnap.formats.vsnap.layout import Geometry
    from vsssnap.formats.vsnap.tree import Tree

    Item = int | tuple[bytes, bytes] | None
    Emit = Callable[[int, int, Sequence[bytes], bytes], Reference]

SAME = None
"""The item for "as in the parent"; an int is a flat state, a tuple a packed entry and its value."""


class TreeBuilder:
    """Takes entries by rising chunk number.  Not thread-safe."""

    def __init__(self, geometry: Geometry, emit: Emit, parent: Tree | None) -> None:
        """Begin a tree.

        Args:
            geometry: Of the image.
            emit: Writes a page: level, number, packed entries, value.
            parent: What `SAME` refers to.
        """
        self._geometry = geometry
        self._emit = emit
        self._parent = parent
        self._rows: list[list[Item]] = [[] for _ in range(geometry.levels)]
        self._pages = [0] * geometry.levels
        self._root: Item = structs.ZERO

    def add(self, entry: Entry, chunk: int) -> None:
        """Add a chunk's entry."""
        if entry.flat is not None:
            self._add(0, entry.flat, 1)
            return
        grid = self._geometry
        self._add(0, (entry.pack(grid.width), entry.value(grid.digest, grid.cells(chunk))), 1)

    def add_run(self, state: int | None, count: int) -> None:
        """Add ``count`` chunks of one state, or as in the parent (`SAME`)."""
        self._add(0, state, count)

    def finish(self) -> Reference:
        """Write what is left and give the root; all chunks have been added."""
        for level, row in enumerate(self._rows):
            if row:
                self._flush(level)
        root = self._root
        if root is None:
            assert self._parent is not None  # noqa: S101 - only children add SAME
            return self._parent.root
        if isinstance(root, int):
            return flat_reference(self._geometry.digest, root)
        return Reference.unpack(root[0])

    def _add(self, level: int, item: Item, count: int) -> None:
        while count:
            row = self._rows[level]
            climbs = not isinstance(item, tuple) and not row and level + 1 < self._geometry.levels
            if climbs and count >= structs.FAN_OUT:
                whole, count = divmod(count, structs.FAN_OUT)
                self._pages[level] += whole
                self._add(level + 1, item, whole)
                continue
            taken = min(structs.FAN_OUT - len(row), count)
            row.extend([item] * taken)
            count -= taken
            if len(row) == structs.FAN_OUT:
                self._flush(level)

    def _flush(self, level: int) -> None:
        row, self._rows[level] = self._rows[level], []
        number = self._pages[level]
        self._pages[level] += 1
        first = row[0]
        if isinstance(first, tuple) or any(item != first for item in row):
            first = self._page(level, number, row)
        if level + 1 == self._geometry.levels:
            self._root = first
        else:
            self._add(level + 1, first, 1)

    def _page(self, level: int, number: int, row: list[Item]) -> Item:
        parts = [self._resolved(level, number, index, item) for index, item in enumerate(row)]
        value = merkle.page_value(self._geometry.digest, level, [part[1] for part in parts])
        if self._parent is not None and self._parent.reference(level, number).value == value:
            # Equal values are equal content, whatever holds it; the parent's page is there already.
            found = self._parent.reference(level, number)
            return found.kind if found.kind != structs.PAGE else SAME
        return self._emit(level, number, [part[0] for part in parts], value).pack(), value

    def _resolved(self, level: int, number: int, index: int, item: Item) -> tuple[bytes, bytes]:
        if isinstance(item, tuple):
            return item
        grid = self._geometry
        if item is None:
            assert self._parent is not None  # noqa: S101 - only children add SAME
            found = self._parent.reference(level, number)
            flat = self._parent.flat(found)
            if flat is None:
                page = self._parent.page(found, level, number)
                if level:
                    reference = page.reference(index)
                    return reference.pack(), reference.value
                chunk = number * structs.FAN_OUT + index
                return page.packed(index), page.entry(index).value(grid.digest, grid.cells(chunk))
            item = flat
        if level:
            reference = flat_reference(grid.digest, item)
            return reference.pack(), reference.value
        return FLAT[item].pack(grid.width), merkle.flat_value(grid.digest, item)
