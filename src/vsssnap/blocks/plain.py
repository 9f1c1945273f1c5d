"""A few bytes and zeros as a reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.blocks.reader import BlockReader

if TYPE_CHECKING:
    from collections.abc import Iterator


class PlainReader(BlockReader):
    """Some bytes, and after them a range of zeros of one kind."""

    def __init__(self, content: bytes, size: int, *, kind: ExtentKind = ExtentKind.ZERO) -> None:
        """Hold the bytes.

        Args:
            content: What it begins with.
            size: Bytes in all, at least those of ``content``.
            kind: What the rest is; it reads as zeros.
        """
        super().__init__(size)
        self._content = content
        self._kind = kind

    def _read(self, length: int, offset: int) -> bytes:
        return self._content[offset : offset + length].ljust(length, b"\0")

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        data = max(0, min(len(self._content) - offset, length))
        if data:
            yield Extent(offset, data)
        if data < length:
            yield Extent(offset + data, length - data, self._kind)
