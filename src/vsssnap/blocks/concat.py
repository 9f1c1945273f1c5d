"""Several readers one behind the other as one reader."""

from __future__ import annotations

import bisect
from contextlib import ExitStack
from itertools import accumulate
from typing import TYPE_CHECKING

from vsssnap.blocks.extent import Extent, shift
from vsssnap.blocks.reader import BlockReader
from vsssnap.blocks.window import WindowReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vsssnap.metadata import ImageMetadata


class ConcatReader(BlockReader):
    """The bytes of all parts in order; parts may be of any size, 0 too.

    The sector size is the largest of the parts'.  `confirm` asks every part.
    """

    def __init__(
        self, parts: Sequence[BlockReader], *, owned: bool = False, metadata: ImageMetadata | None = None
    ) -> None:
        """Join readers.

        Args:
            parts: In order; one reader may stand in it several times.
            owned: Whether closing this closes the parts.
            metadata: Of the whole; parts have no say in it.
        """
        self._parts = tuple(parts)
        self._ends = list(accumulate(part.size for part in self._parts))
        super().__init__(
            self._ends[-1] if self._ends else 0,
            sector_size=max((part.sector_size for part in self._parts), default=512),
            metadata=metadata,
        )
        self._owned = owned

    @property
    def origins(self) -> tuple[str, ...]:
        """Those of all parts."""
        return tuple(dict.fromkeys(path for part in self._parts for path in part.origins))

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[BlockReader, int, int, int]]:
        """The parts of a range: ``(part, offset in it, length, offset of the part)``."""
        index = bisect.bisect_right(self._ends, offset)
        while length:
            part = self._parts[index]
            base = self._ends[index] - part.size
            take = min(length, self._ends[index] - offset)
            if take:
                yield part, offset - base, take, base
            offset += take
            length -= take
            index += 1

    def _read_into(self, view: memoryview, offset: int) -> None:
        done = 0
        for part, start, length, _ in self._pieces(offset, len(view)):
            part.preadinto(view[done : done + length], start)
            done += length

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        for part, start, take, base in self._pieces(offset, length):
            yield from shift(part.extents(start, take), base)

    def _confirm(self) -> None:
        for part in self._parts:
            part.confirm()

    def _release(self) -> None:
        if self._owned:
            with ExitStack() as stack:  # closes them all, also if one fails
                for part in self._parts:
                    stack.callback(part.close)


def gathered(source: BlockReader, pieces: Sequence[tuple[int, int]]) -> BlockReader:
    """Parts of a reader one behind the other; closing it closes ``source``.

    Args:
        source: The reader.
        pieces: First byte and length of each, inside ``source``.
    """
    if len(pieces) == 1:
        return WindowReader(source, *pieces[0], owned=True)
    # Each of them owns the source, which closes once.
    return ConcatReader([WindowReader(source, *piece, owned=True) for piece in pieces], owned=True)
