"""What a file system says of its volume: its name, which blocks it uses, what may be left out.

A map of used blocks is only as good as its last write.  A file system that was not closed has
changes in its journal, or had them in memory, that the map on disk does not show: a block it calls
free may hold a file.  So a map is trusted only where the file system says that it was closed (or
frozen, which is the same), and every structure that leads to it passes its checks.  Else there is a
``doubt``, and every block counts as used.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from vsssnap._units import whole
from vsssnap.blocks.extent import Extent, ExtentKind, coalesce, overlay
from vsssnap.errors import DeviceReadError, UsageError
from vsssnap.volumes._runs import Runs, all_used
from vsssnap.volumes.policy import DEFAULT_EXCLUSIONS, Exclusion, UnusedPolicy

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from vsssnap.blocks.reader import BlockReader

_KEPT_PAGES = 16


class FileSystem(ABC):
    """A file system on a volume, as `filesystem` finds it.

    Thread-safe; it reads through the volume's reader, which stays its owner's.

    Attributes:
        name: Its type in the system's word (``"ntfs"``).
        label: The volume's label, or "".
        serial: Its serial number or UUID as the system writes it, or "".
        size: Bytes that the file system has; what follows it on the volume always counts as used.
        block_size: Bytes of a cluster or block, the unit of its map.
        dirty: Whether it says that it was not closed, or needs a check.
        doubt: Why its map is not used, or "".
        marks_use: Whether it would show if it was in use; some drivers of NTFS leave no mark.
        notes: What else a reader of an image should know, a sentence each.
    """

    name: str = ""
    label: str = ""
    serial: str = ""
    size: int = 0
    block_size: int = 512
    dirty: bool = False
    doubt: str = ""
    marks_use: bool = True
    notes: tuple[str, ...] = ()

    # The map, as a driver describes it: blocks from byte `_base`, in pages of `_page_blocks`.
    _base: int = 0
    _blocks: int = 0
    _page_blocks: int = 1 << 17

    def __init__(self, volume: BlockReader) -> None:
        self.volume = volume
        self._pages: OrderedDict[int, Runs] = OrderedDict()

    @abstractmethod
    def _page(self, first: int, count: int) -> Runs:
        """The runs of ``count`` blocks from ``first``, a multiple of the page."""

    def excluded(
        self, exclude: Collection[Exclusion], /
    ) -> Sequence[tuple[Exclusion, str, Sequence[Extent]]]:
        """What may be left out: why, its path, and where it lies, ascending.

        Args:
            exclude: Which kinds to look for.
        """
        return ()

    def blanked(self, exclude: Collection[Exclusion], /) -> Sequence[tuple[Extent, str]]:
        """Ranges that must read as zeros once ``exclude`` is left out, each with a sentence that says so."""
        return ()

    def allocation(self, offset: int = 0, length: int | None = None) -> Iterator[Extent]:
        """The map: DATA is used, HOLE is free; ascending and gap-free, clipped to a range.

        What no map can tell is DATA: the sectors before and after it, a page of it that cannot be
        read, and everything if there is a ``doubt``.

        Args:
            offset: First byte of the range.
            length: Bytes of the range; None for all up to the end of the volume.

        Raises:
            UsageError: an argument is negative or no whole number.
        """
        rest = max(0, self.volume.size - whole(offset, "offset"))
        length = rest if length is None else min(rest, whole(length, "length"))
        if not length:
            return iter(())
        if self.doubt:
            return iter((Extent(offset, length),))
        return coalesce(overlay((Extent(offset, length),), self._free(offset, offset + length)))

    def _free(self, offset: int, end: int) -> Iterator[Extent]:
        """The free ranges, clipped."""
        size, base, end = self.block_size, self._base, min(end, self.size)
        block = max(0, (offset - base) // size)
        stop = min(self._blocks, max(0, -(-(end - base) // size)))
        while block < stop:
            first = block - block % self._page_blocks
            last = min(first + self._page_blocks, self._blocks)
            for start, after, used in self._runs(first, last - first).between(
                block - first, min(last, stop) - first
            ):
                if not used:
                    at = max(offset, base + (first + start) * size)
                    until = min(end, base + (first + after) * size)
                    yield Extent(at, until - at, ExtentKind.HOLE)
            block = last

    def _runs(self, first: int, count: int) -> Runs:
        """A page of the map; the last few are kept."""
        pages = self._pages
        found = pages.get(first)
        if found is None:
            try:
                found = self._page(first, count)
            except DeviceReadError:
                found = all_used(count)
            pages[first] = found
            if len(pages) > _KEPT_PAGES:
                with contextlib.suppress(KeyError):  # another thread was quicker
                    pages.popitem(last=False)
        return found

    def view(
        self,
        *,
        unused: UnusedPolicy = UnusedPolicy.ZERO,
        exclude: Collection[Exclusion] = DEFAULT_EXCLUSIONS,
    ) -> BlockReader:
        """The volume without what an image need not hold; closing it leaves the volume open.

        Args:
            unused: What becomes of free blocks.
            exclude: Files whose contents are left out; they read as zeros.

        Raises:
            UsageError: an argument is none of its kind.
        """
        from vsssnap.volumes.view import FileSystemView

        return FileSystemView(self.volume, self, unused=unused, exclude=exclude)

    def __repr__(self) -> str:
        return f"<FileSystem {self.name} of {self.size} bytes>"


def checked_policy(unused: object) -> UnusedPolicy:
    """An argument ``unused=``.

    Raises:
        UsageError: it is no `UnusedPolicy`.
    """
    try:
        return UnusedPolicy(unused)  # type: ignore[arg-type]  # whatever the caller gave
    except ValueError:
        raise UsageError(f"unused is {unused!r}", hint="use a member of vsssnap.UnusedPolicy") from None


def checked_exclusions(exclude: Any) -> frozenset[Exclusion]:  # noqa: ANN401 - whatever the caller gave
    """An argument ``exclude=``.

    Raises:
        UsageError: it is no collection of `Exclusion`.
    """
    try:
        return (
            frozenset(Exclusion(item) for item in exclude)
            if not isinstance(exclude, str)
            else _wrong(exclude)
        )
    except (TypeError, ValueError):
        return _wrong(exclude)


def _wrong(exclude: object) -> frozenset[Exclusion]:
    raise UsageError(
        f"exclude is {exclude!r}", hint="pass a collection of vsssnap.Exclusion, or ()"
    ) from None
