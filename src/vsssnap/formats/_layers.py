"""Images that show another one where they hold nothing, however many lie behind one another.

A chain may be longer than the stack is deep, so nothing here calls itself for each link: reading
and telling extents walk down with a stack of their own, parents are linked one after the other once
the child is open, and are closed in the same way.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from itertools import chain
from typing import TYPE_CHECKING, Any

from vsssnap.blocks.extent import Extent, ExtentKind, coalesce
from vsssnap.errors import UnsupportedFeatureError
from vsssnap.formats._zero import fill_zero
from vsssnap.formats.base import ImageReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vsssnap.formats._cache import ByteCache
    from vsssnap.formats.base import ResolveParent

Own = tuple[int, int, Any]
"""From and to in the volume, and where that lies: a format's own; None if the image does not hold it."""

Shown = tuple[ImageReader | None, int, int, Any]
"""Which image shows a range, and where it has it.

Without an image it is zeros; without a place the image is to be asked as a whole.
"""


class LayeredReader(ImageReader):
    """An image that may have a parent; any number of threads at once.

    Attributes:
        parent: The image behind it, which is closed with it; None if it stands alone.
        caches: What it keeps, always as many; images of one format in a chain share their room.
    """

    parent: ImageReader | None = None
    caches: tuple[ByteCache, ...] = ()

    # What formats extend.

    @abstractmethod
    def _own(self, offset: int, end: int) -> Iterator[Own]:
        """Ranges of the volume, ascending and gap-free; a place of None is the parent's, or zeros."""

    @abstractmethod
    def _fetch(self, view: memoryview, first: int, place: Any) -> None:  # noqa: ANN401 - see `Own`
        """Fill ``view`` with the volume's bytes from ``first``, which lie at ``place``."""

    def _load(self, length: int, first: int, place: Any) -> bytes:  # noqa: ANN401 - see `Own`
        """The same as new bytes, where a format can save the copy."""
        data = bytearray(length)
        with memoryview(data) as view:
            self._fetch(view, first, place)
        return bytes(data)

    @abstractmethod
    def _tell(self, first: int, stop: int, place: Any) -> Iterator[Extent]:  # noqa: ANN401 - see `Own`
        """What is known of a range that lies at ``place``."""

    def _paths(self) -> tuple[str, ...]:
        """The paths of its own files."""
        return (self.path,) if self.path else ()

    # The walk.

    def _shown(self, offset: int, end: int) -> Iterator[Shown]:
        """What shows a range, ascending and gap-free."""
        image: LayeredReader = self
        ranges = self._own(offset, end)
        above: list[tuple[LayeredReader, Iterator[Own]]] = []
        while True:
            found = next(ranges, None)
            if found is None:
                if not above:
                    return
                image, ranges = above.pop()
                continue
            first, stop, place = found
            if place is not None:
                yield image, first, stop, place
                continue
            below = image.parent
            split = min(stop, below.size) if below is not None else first
            if below is None or split <= first:  # a child may be longer than its parent
                yield None, first, stop, None
                continue
            if split < stop:
                ranges = chain(((split, stop, None),), ranges)
            if isinstance(below, LayeredReader) and below.sidecar is None:
                above.append((image, ranges))
                image, ranges = below, below._own(first, split)  # noqa: SLF001 - of this class
            else:
                yield below, first, split, None

    def _read_into(self, view: memoryview, offset: int) -> None:
        for image, first, stop, place in self._shown(offset, offset + len(view)):
            part = view[first - offset : stop - offset]
            if image is None:
                fill_zero(part)
            elif place is not None and isinstance(image, LayeredReader):
                image._fetch(part, first, place)  # noqa: SLF001 - of this class
            else:
                image.preadinto(part, first)

    def _read(self, length: int, offset: int) -> bytes:
        parts: list[bytes] = []
        for image, first, stop, place in self._shown(offset, offset + length):
            if image is None:
                parts.append(bytes(stop - first))
            elif place is not None and isinstance(image, LayeredReader):
                parts.append(image._load(stop - first, first, place))  # noqa: SLF001 - of this class
            else:
                parts.append(image.pread(stop - first, first))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        return coalesce(self._known(offset, offset + length))

    def _known(self, offset: int, end: int) -> Iterator[Extent]:
        for image, first, stop, place in self._shown(offset, end):
            if image is None:
                yield Extent(first, stop - first, ExtentKind.ZERO)
            elif place is not None and isinstance(image, LayeredReader):
                yield from image._tell(first, stop, place)  # noqa: SLF001 - of this class
            else:
                yield from image.extents(first, stop - first)

    # The chain.

    @property
    def origins(self) -> tuple[str, ...]:
        """The image's files and those of its parents."""
        paths: list[str] = []
        image: ImageReader | None = self
        while isinstance(image, LayeredReader):
            paths += image._paths()  # noqa: SLF001 - of this class
            image = image.parent
        if image is not None:
            paths += image.origins
        return tuple(dict.fromkeys(paths))

    def link(self, resolve: ResolveParent | None, find: Callable[[], ImageReader]) -> None:
        """Give it the parent that ``find`` opens, now or, if ``resolve`` can, when the caller is done.

        Raises:
            VssSnapError: what ``find`` raises; the reader is closed then.
        """
        later: Callable[[Callable[[], None]], None] | None = getattr(resolve, "later", None)
        if later is not None:
            later(lambda: self._attach(find))
            return
        try:
            self._attach(find)
        except RecursionError:
            self.close()
            raise UnsupportedFeatureError(
                f"{self.path}: too many parents behind one another",
                path=self.path,
                feature="long chain",
                hint="open it with open_image, which follows any",
            ) from None
        except BaseException:
            self.close()
            raise

    def _attach(self, find: Callable[[], ImageReader]) -> None:
        if self.closed:  # it was looked at and was not the one
            return
        parent = find()
        self._take(parent)
        if isinstance(parent, type(self)):
            for own, shared in zip(parent.caches, self.caches, strict=True):
                own.join(shared)

    def _take(self, parent: ImageReader) -> None:
        """Own a parent."""
        self.parent = parent


_CLOSING = threading.local()  # `waiting`: images that this thread is to close


def close_in_turn(reader: ImageReader | None) -> None:
    """Close a parent; if this is called while one is being closed so, after that one."""
    if reader is None:
        return
    waiting: list[ImageReader] | None = getattr(_CLOSING, "waiting", None)
    if waiting is not None:
        waiting.append(reader)
        return
    _CLOSING.waiting = waiting = [reader]
    try:
        _close_all(waiting)
    finally:
        del _CLOSING.waiting


def _close_all(waiting: list[ImageReader]) -> None:
    failed: BaseException | None = None
    while waiting:
        try:
            waiting.pop().close()
        except BaseException as exc:
            failed = failed or exc
    if failed is not None:
        raise failed
