"""Opening and reading what may not answer, so that one signal ends it.

A copy reads in threads of its own, and the main one looks for signals meanwhile.  What comes before
it (opening, partition tables, what the extents are) is read by the main thread, which a read that does
not return keeps from looking: here others do it for it.
"""

from __future__ import annotations

import threading
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from vsssnap.blocks.window import WindowReader
from vsssnap.cli import interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vsssnap.blocks.extent import Extent
    from vsssnap.blocks.reader import BlockReader
    from vsssnap.formats.base import ImageReader

T = TypeVar("T")

_EXTENTS = 256  # looked up at once


def opened_image(
    path: str, format: str | None = None, *, recover: bool = False, parent: Sequence[str] = ()
) -> ImageReader:
    """`vsssnap.open_image`."""
    from vsssnap import open_image

    return interrupts.aside(lambda: open_image(path, format=format, recover=recover, parent=parent))


def opened_device(path: str) -> BlockReader:
    """`vsssnap.open_device`, to read."""
    from vsssnap import open_device

    return interrupts.aside(lambda: open_device(path))


class Awaited(WindowReader):
    """All of a reader; what the main thread reads of it is read aside."""

    def __init__(self, source: BlockReader, *, owned: bool = False) -> None:
        """Wrap a reader.

        Args:
            source: The reader.
            owned: Whether closing this closes ``source``.
        """
        super().__init__(source, 0, source.size, owned=owned)

    def _read_into(self, view: memoryview, offset: int) -> None:
        if _is_main():  # into memory of its own: nobody else's is written to later
            view[:] = self._read(len(view), offset)
        else:
            super()._read_into(view, offset)

    def _read(self, length: int, offset: int) -> bytes:
        return _awaited(lambda: self._source.pread(length, offset))

    def _read_parts(self, parts: Sequence[tuple[memoryview, int]]) -> None:
        if _is_main():
            for view, offset in parts:
                self.preadinto(view, offset)
        else:
            super()._read_parts(parts)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        found = self._source.extents(offset, length)
        while some := _awaited(lambda: list(islice(found, _EXTENTS))):
            yield from some

    def _confirm(self) -> None:
        _awaited(self._source.confirm)


def _awaited(read: Callable[[], T]) -> T:
    return interrupts.aside(read) if _is_main() else read()


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
