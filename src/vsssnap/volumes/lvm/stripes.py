"""Readers that take turns, stripe by stripe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.blocks.extent import Extent, coalesce
from vsssnap.blocks.reader import BlockReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class StripedReader(BlockReader):
    """The first stripe of the first part, the first of the second, and so on.

    Closing it leaves the parts open.
    """

    def __init__(self, parts: Sequence[BlockReader], stripe_size: int) -> None:
        """Join readers.

        Args:
            parts: All of one size, a multiple of ``stripe_size``.
            stripe_size: Bytes, at least 1.
        """
        super().__init__(
            sum(part.size for part in parts),
            sector_size=max(part.sector_size for part in parts),
            metadata=parts[0].metadata,
        )
        self._parts = tuple(parts)
        self._stripe = stripe_size

    @property
    def origins(self) -> tuple[str, ...]:
        """Those of all parts."""
        return tuple(dict.fromkeys(path for part in self._parts for path in part.origins))

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[BlockReader, int, int]]:
        """What a range is made of: ``(part, offset in it, length)``."""
        stripe, count = self._stripe, len(self._parts)
        while length:
            number, inside = divmod(offset, stripe)
            take = min(length, stripe - inside)
            yield self._parts[number % count], number // count * stripe + inside, take
            offset += take
            length -= take

    def _read_into(self, view: memoryview, offset: int) -> None:
        done = 0
        for part, start, length in self._pieces(offset, len(view)):
            part.preadinto(view[done : done + length], start)
            done += length

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        return coalesce(self._found(offset, length))

    def _found(self, offset: int, length: int) -> Iterator[Extent]:
        row, end = self._stripe * len(self._parts), offset + length
        while offset < end:
            if offset % row == 0 and (alike := self._alike(offset, (end - offset) // row)):
                yield alike
                offset = alike.end
                continue
            take = min(end - offset, row - offset % row)
            for part, start, count in self._pieces(offset, take):
                for extent in part.extents(start, count):
                    yield Extent(offset + extent.offset - start, extent.length, extent.kind)
                offset += count

    def _alike(self, offset: int, rows: int) -> Extent | None:
        """Whole rows of stripes that are of one kind in all parts, from the first one on.

        Without it a volume of terabytes is asked for stripe by stripe.
        """
        if rows < 2:
            return None
        at, stripe = offset // len(self._parts), self._stripe
        found = [next(part.extents(at, rows * stripe)) for part in self._parts]
        rows = min(extent.length for extent in found) // stripe
        if not rows or len({extent.kind for extent in found}) > 1:
            return None
        return Extent(offset, rows * stripe * len(found), found[0].kind)

    def _confirm(self) -> None:
        for part in self._parts:
            part.confirm()
