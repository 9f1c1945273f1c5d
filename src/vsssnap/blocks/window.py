"""A part of a reader as a reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap._units import whole
from vsssnap.blocks.extent import Extent, shift
from vsssnap.blocks.reader import BlockReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vsssnap.metadata import ImageMetadata


class WindowReader(BlockReader):
    """Bytes ``offset`` to ``offset + length`` of another reader.

    It forwards `confirm`, and goes with its source: when that is closed, reads raise ClosedError.
    """

    def __init__(
        self,
        source: BlockReader,
        offset: int,
        length: int,
        *,
        owned: bool = False,
        metadata: ImageMetadata | None = None,
    ) -> None:
        """Open the window.

        Args:
            source: The reader behind it.
            offset: Its first byte there.
            length: Its size in bytes.
            owned: Whether closing the window closes ``source``.
            metadata: By default that of ``source``.

        Raises:
            UsageError: the range is not inside ``source``.
        """
        self._base = whole(offset, "offset", most=source.size)
        length = whole(length, "length", most=source.size - self._base)
        super().__init__(
            length,
            sector_size=source.sector_size,
            metadata=metadata if metadata is not None else source.metadata,
        )
        self._source = source
        self._owned = owned

    @property
    def origins(self) -> tuple[str, ...]:
        """Those of the reader behind it."""
        return self._source.origins

    def _read_into(self, view: memoryview, offset: int) -> None:
        self._source.preadinto(view, self._base + offset)

    def _read(self, length: int, offset: int) -> bytes:
        return self._source.pread(length, self._base + offset)

    def _read_parts(self, parts: Sequence[tuple[memoryview, int]]) -> None:
        with self._gate:
            self._source._read_parts(  # noqa: SLF001 - of the same class
                [(view, self._base + offset) for view, offset in parts]
            )

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        return shift(self._source.extents(self._base + offset, length), -self._base)

    def _confirm(self) -> None:
        self._source.confirm()

    def _release(self) -> None:
        if self._owned:
            self._source.close()
