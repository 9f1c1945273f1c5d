"""Walking the index of a chain.

Source: docs/formats/vsnap.md, sections 6 and 11.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vsssnap.errors import CorruptImageError
from vsssnap.formats.vsnap import merkle, structs
from vsssnap.formats.vsnap.frames import corrupt
from vsssnap.formats.vsnap.index import FLAT, Entry, Page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.formats._cache import ByteCache
    from vsssnap.formats.vsnap.chain import Chain
    from vsssnap.formats.vsnap.layout import Geometry
    from vsssnap.formats.vsnap.structs import Reference


class Index(Protocol):
    """What a reader asks of an index: that of a file, or one that was rebuilt."""

    def entry(self, chunk: int) -> Entry:
        """The entry of a chunk."""

    def walk(self, first: int, end: int) -> Iterator[tuple[int, int, Entry]]:
        """Chunk, count and entry from ``first`` to ``end``, ascending; count is 1 unless flat."""


class Tree:
    """The index of one image.  Thread-safe."""

    def __init__(self, root: Reference, geometry: Geometry, chain: Chain, cache: ByteCache) -> None:
        self.root = root
        self._geometry = geometry
        self._chain = chain
        self._cache = cache

    def page(self, reference: Reference, level: int, number: int) -> Page:
        """The page that a reference names.

        Raises:
            CorruptImageError: it is damaged, or another page.
            ParentMismatchError: its file is not the one the file table names.
        """
        key = ("page", reference.file, reference.offset)
        page: Page | None = self._cache.get(key)
        if page is None:
            file = self._chain[reference.file]
            frame = file.frame(reference.offset, reference.length, structs.INDEX_PAGE)
            try:
                page = Page(frame.body, self._geometry)
            except CorruptImageError as exc:
                raise exc.at(file.storage.name, reference.offset) from None
            self._cache.put(key, page, page.memory)
        if (page.level, page.number, page.value) != (level, number, reference.value):
            raise corrupt(
                f"page {page.number} of level {page.level}, or its value, is not what was due:"
                f" page {number} of level {level}",
                "index page",
                reference.offset,
                self._chain[reference.file].storage.name,
            )
        return page

    def flat(self, reference: Reference) -> int | None:
        """The state of everything below a reference, or None if it has a page.

        Raises:
            CorruptImageError: its value is not that of the state.
        """
        if reference.kind == structs.PAGE:
            return None
        if reference.value != merkle.flat_value(self._geometry.digest, reference.kind):
            raise CorruptImageError(
                f"index reference: state {reference.kind} has the value {reference.value.hex()}",
                path=self._chain.own.storage.name,
                structure="index reference",
            )
        return reference.kind

    def reference(self, level: int, number: int) -> Reference:
        """The reference to a page of a level, or to a flat subtree above it."""
        found = self.root
        for above in range(self._geometry.levels - 1, level, -1):
            if self.flat(found) is not None:
                return found
            page = self.page(found, above, number // structs.FAN_OUT ** (above - level))
            found = page.reference(number // structs.FAN_OUT ** (above - level - 1) % structs.FAN_OUT)
        return found

    def leaf(self, number: int) -> Page | int:
        """A leaf, or the state of everything in it."""
        key = ("leaf", number)
        known: Page | int | None = self._cache.get(key)
        if known is None:
            found = self.reference(0, number)
            flat = self.flat(found)
            known = self.page(found, 0, number) if flat is None else flat
            self._cache.put(key, known, 100 if isinstance(known, int) else known.memory)
        return known

    def entry(self, chunk: int) -> Entry:
        """The entry of a chunk.

        Raises:
            CorruptImageError: the index is damaged on the way.
            ParentMismatchError: see `page`.
        """
        key = ("entry", chunk)
        found: Entry | None = self._cache.get(key)
        if found is None:
            number, index = divmod(chunk, structs.FAN_OUT)
            leaf = self.leaf(number)
            if isinstance(leaf, int):
                return FLAT[leaf]
            found = leaf.entry(index)
            self._cache.put(key, found, found.memory)
        return found

    def walk(self, first: int, end: int) -> Iterator[tuple[int, int, Entry]]:
        """Entries of the chunks from ``first`` to ``end``, flat subtrees in one piece.

        Yields:
            ``(chunk, count, entry)``, ascending; count is 1 unless the entry is flat.
        """
        if first < end:
            yield from self._below(self.root, self._geometry.levels - 1, 0, first, end)

    def _below(
        self, reference: Reference, level: int, number: int, first: int, end: int
    ) -> Iterator[tuple[int, int, Entry]]:
        span = structs.FAN_OUT ** (level + 1)
        start, stop = max(first, number * span), min(end, (number + 1) * span)
        flat = self.flat(reference)
        if flat is not None:
            yield start, stop - start, FLAT[flat]
            return
        page = self.page(reference, level, number)
        unit = span // structs.FAN_OUT
        base = number * span
        for index in range((start - base) // unit, -(-(stop - base) // unit)):
            if level:
                child = number * structs.FAN_OUT + index
                yield from self._below(page.reference(index), level - 1, child, start, stop)
            else:
                yield base + index, 1, page.entry(index)
