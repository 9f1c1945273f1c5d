"""Blocks are compared with their checksums when they are first read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vsssnap.blocks.extent import Extent, ExtentKind, coalesce
from vsssnap.errors import CorruptImageError, DeviceReadError
from vsssnap.formats.base import SIDECAR_SUFFIX
from vsssnap.formats.sidecar.reader import matches
from vsssnap.formats.sidecar.structs import NO_DIGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vsssnap.formats.sidecar.reader import SidecarReader

_PAGE: Final = 4096  # blocks whose bits are kept together


class BlockGuard:
    """What was read of an image is what was saved, or CorruptImageError.

    A block that a read touches is compared as a whole, once: a small read costs the rest of its
    block the first time.  Memory is a bit for each block that was read.  Thread-safe.

    Attributes:
        lost: What `over` says of blocks that the image has zeros for instead: DATA, so that reading them
            raises; or UNREADABLE, where that is known and expected.
    """

    lost = ExtentKind.DATA

    def __init__(self, sidecar: SidecarReader, path: str) -> None:
        """Guard an image.

        Args:
            sidecar: Its checksums.
            path: Its name, for messages.
        """
        self._sidecar = sidecar
        self._path = path
        # Two threads that set bits of one byte may lose one, which costs another comparison.
        self._seen: dict[int, bytearray] = {}

    def check(self, view: memoryview, offset: int, read: Callable[[memoryview, int], object]) -> None:
        """Compare all blocks that a range touches.

        Args:
            view: What was read.
            offset: Where.
            read: Fills a view from an offset of the image, without a comparison.

        Raises:
            CorruptImageError: a block is not what was saved, or the side-car does not tell.
            DeviceReadError: the rest of a block cannot be read.
        """
        size, end = self._sidecar.block_size, offset + len(view)
        if not view:
            return
        for block in range(offset // size, -(-end // size)):
            page, bit = divmod(block, _PAGE)
            seen = self._seen.get(page)
            if seen is None:
                seen = self._seen.setdefault(page, bytearray(_PAGE // 8))
            if seen[bit >> 3] & 1 << (bit & 7):
                continue
            self._compare(view, offset, block * size, read)
            seen[bit >> 3] |= 1 << (bit & 7)

    def _compare(
        self, view: memoryview, offset: int, at: int, read: Callable[[memoryview, int], object]
    ) -> None:
        sidecar = self._sidecar
        _, length, digest = next(sidecar.blocks_of(at, sidecar.block_size))
        if offset <= at and at + length <= offset + len(view):
            data = view[at - offset : at - offset + length]
        else:
            data = memoryview(bytearray(length))
            sidecar.fill(data, at, read)
        if not matches(data, digest):
            raise CorruptImageError(
                f"{self._path or 'the image'}: bytes {at} to {at + length} of the volume are not what was"
                " saved: their checksum differs",
                path=self._path,
                structure="block",
                hint="restore the image from another copy; if it was changed on purpose,"
                f" move its side-car (*{SIDECAR_SUFFIX}) away",
            )

    def over(self, extents: Iterator[Extent]) -> Iterator[Extent]:
        """Extents with `lost` for blocks that the image has lost: reading them tells so.

        Args:
            extents: The image's own, ascending.
        """
        return coalesce(self._over(extents, parts=False))

    def parts(self, extents: Iterator[Extent]) -> Iterator[Extent]:
        """Extents with DATA for zeros in a block that is not all zero: reading tells if they were saved.

        Args:
            extents: Ascending, after `over`.
        """
        return coalesce(self._over(extents, parts=True))

    def _over(self, extents: Iterator[Extent], *, parts: bool) -> Iterator[Extent]:
        for extent in extents:
            if extent.kind is not ExtentKind.ZERO:
                yield extent
                continue
            at, kind = extent.offset, ExtentKind.DATA if parts else self.lost
            for first, end in self._ends(extent) if parts else self._lost(extent):
                if first > at:
                    yield Extent(at, first - at, ExtentKind.ZERO)
                yield Extent(first, end - first, kind)
                at = end
            if at < extent.end:
                yield Extent(at, extent.end - at, ExtentKind.ZERO)

    def _lost(self, zero: Extent) -> Iterator[tuple[int, int]]:
        """Whole blocks inside a range of zeros that have a checksum."""
        size = self._sidecar.block_size
        first = -(-zero.offset // size) * size
        end = zero.end if zero.end == self._sidecar.size else zero.end // size * size
        if first >= end:
            return
        for kept in self._sidecar.stored(first, end - first):
            if kept.kind is not ExtentKind.DATA:
                continue
            for at in range(kept.offset, kept.end, size):
                if self._has_checksum(at):
                    yield at, min(at + size, end)

    def _ends(self, zero: Extent) -> Iterator[tuple[int, int]]:
        """The parts of a range of zeros that lie in a block that reaches out of it and has a checksum."""
        size = self._sidecar.block_size
        for at in dict.fromkeys((zero.offset // size * size, (zero.end - 1) // size * size)):
            whole = zero.offset <= at and min(at + size, self._sidecar.size) <= zero.end
            if not whole and self._has_checksum(at):
                yield max(at, zero.offset), min(at + size, zero.end)

    def _has_checksum(self, at: int) -> bool:
        try:
            return next(self._sidecar.blocks_of(at, self._sidecar.block_size))[2] != NO_DIGEST
        except (CorruptImageError, DeviceReadError):
            return True  # nobody knows; reading it says why
