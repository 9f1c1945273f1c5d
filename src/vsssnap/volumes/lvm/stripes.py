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
        for part, start, take in self._pieces(offset, length):
            for extent in part.extents(start, take):
                yield Extent(offset + extent.offset - start, extent.length, extent.kind)
            offset += take

    def _confirm(self) -> None:
        for part in self._parts:
            part.confirm()
