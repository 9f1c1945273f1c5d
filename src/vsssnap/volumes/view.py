"""A volume without what an image of it need not hold."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from vsssnap.blocks.extent import Extent, ExtentKind, coalesce, overlay, pair
from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import DeviceReadError
from vsssnap.volumes.base import checked_exclusions, checked_policy
from vsssnap.volumes.policy import DEFAULT_EXCLUSIONS, Exclusion, UnusedPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from vsssnap.metadata import ImageMetadata
    from vsssnap.volumes.base import FileSystem

    SystemMap = Callable[[int, int], Iterable[Extent]]


class FileSystemView(BlockReader):
    """A volume with its free blocks as HOLE and its excluded files as EXCLUDED.

    Reads of both give zeros and touch nothing.  What the volume itself knows (ZERO, UNREADABLE)
    stays.  The metadata say what was done.
    """

    def __init__(
        self,
        volume: BlockReader,
        fs: FileSystem | None,
        *,
        unused: UnusedPolicy = UnusedPolicy.ZERO,
        exclude: Collection[Exclusion] = DEFAULT_EXCLUSIONS,
        system_map: SystemMap | None = None,
        left_out: Sequence[tuple[Exclusion, str, Sequence[Extent]]] = (),
        metadata: ImageMetadata | None = None,
        owned: bool = False,
    ) -> None:
        """Make a view.

        Args:
            volume: What is viewed.
            fs: The file system on it; None if none is known.
            unused: What becomes of free blocks.
            exclude: Files that are left out.
            system_map: The system's own map of a range (offset, length), DATA and HOLE, gap-free.  A
                block is free if all maps that there are say so; without ``fs`` or with a doubt
                about it the system's counts alone.
            left_out: What the system leaves out beside ``exclude``: why, its path, where it lies.
            metadata: What the view's own begin with; by default those of ``volume``.
            owned: Whether closing the view closes ``volume``.

        Raises:
            UsageError: an argument is none of its kind.
            DeviceReadError: the volume cannot be read.
        """
        self._zero_unused = checked_policy(unused) is UnusedPolicy.ZERO
        exclude = checked_exclusions(exclude)
        self._fs = fs
        self._system_map = system_map
        if fs is None or fs.doubt:
            # Nobody blanks what points at the storage of shadow copies, so it stays.
            left_out = [each for each in left_out if each[0] is not Exclusion.SHADOW_STORAGE]
        left_out = [*(fs.excluded(exclude) if fs is not None else ()), *left_out]
        blanked = fs.blanked(exclude) if fs is not None else ()
        self._left_out = _disjoint([extent for _, _, extents in left_out for extent in extents])
        self._starts = [extent.offset for extent in self._left_out]
        self._blanked = [extent for extent, _ in blanked]
        super().__init__(
            volume.size,
            sector_size=volume.sector_size,
            metadata=self._described(
                metadata or volume.metadata,
                _names(path for _, path, _ in left_out),
                [said for _, said in blanked],
            ),
        )
        self._volume = volume
        self._owned = owned

    def _described(self, metadata: ImageMetadata, paths: list[str], said: list[str]) -> ImageMetadata:
        fs = self._fs
        notes = [*said, *(fs.notes if fs is not None else ())]
        if self._zero_unused:
            if fs is not None and not fs.doubt:
                notes.append(f"blocks that the {fs.name} file system calls free are left out")
            elif self._system_map is not None:
                notes.append("blocks that the system calls free are left out")
            elif fs is not None:
                notes.append(f"every block is kept, used or not: {fs.doubt}")
            else:
                notes.append("every block is kept: there is no file system whose map is known")
        elif fs is not None or self._system_map is not None:
            notes.append("free blocks are as the system gave them, which nobody promises")
        return metadata.replace(
            filesystem=fs.name if fs is not None else metadata.filesystem,
            exclusions=(*metadata.exclusions, *paths),
            notes=(*metadata.notes, *notes),
        )

    @property
    def origins(self) -> tuple[str, ...]:
        """Those of the volume."""
        return self._volume.origins

    def _mine(self, offset: int, length: int) -> Iterator[Extent]:
        """What this view makes of a range."""
        whole: Iterable[Extent] = (Extent(offset, length),)
        if self._zero_unused:
            whole = self._map(offset, length)
        index = max(0, bisect.bisect_right(self._starts, offset) - 1)
        return overlay(whole, self._from(index, offset + length))

    def _from(self, index: int, end: int) -> Iterator[Extent]:
        while index < len(self._left_out) and self._left_out[index].offset < end:
            yield self._left_out[index]
            index += 1

    def _map(self, offset: int, length: int) -> Iterable[Extent]:
        fs, system = self._fs, self._system_map
        trusted = fs is not None and not fs.doubt
        if system is None:
            return _readable(fs, offset, length) if fs is not None else (Extent(offset, length),)
        if not trusted or fs is None:
            return system(offset, length)
        return coalesce(
            Extent(at, count, ExtentKind.HOLE if mine is theirs is ExtentKind.HOLE else ExtentKind.DATA)
            for at, count, mine, theirs in pair(_readable(fs, offset, length), system(offset, length))
        )

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        both = pair(self._mine(offset, length), self._volume.extents(offset, length))
        return coalesce(Extent(at, count, _kind(mine, given)) for at, count, mine, given in both)

    def _read_into(self, view: memoryview, offset: int) -> None:
        for extent in self._mine(offset, len(view)):
            part = view[extent.offset - offset : extent.end - offset]
            if extent.kind is ExtentKind.DATA:
                self._volume.preadinto(part, extent.offset)
            else:
                part[:] = bytes(len(part))
        for blank in self._blanked:
            first, last = max(blank.offset, offset), min(blank.end, offset + len(view))
            if first < last:
                view[first - offset : last - offset] = bytes(last - first)

    def _confirm(self) -> None:
        self._volume.confirm()

    def _release(self) -> None:
        if self._owned:
            self._volume.close()


def _readable(fs: FileSystem, offset: int, length: int) -> Iterator[Extent]:
    """The allocation of a range; all is used from where the map cannot be read."""
    at, end = offset, offset + length
    try:
        for extent in fs.allocation(offset, length):
            yield extent
            at = extent.end
    except DeviceReadError:
        if at < end:
            yield Extent(at, end - at)


def _kind(mine: ExtentKind, given: ExtentKind) -> ExtentKind:
    """What a range is, of which the view and the volume say something."""
    if mine is ExtentKind.DATA or (mine is ExtentKind.HOLE and given is ExtentKind.ZERO):
        return given
    return mine


def _names(paths: Iterable[str]) -> list[str]:
    """Each once: Windows does not tell names apart by case."""
    return list({path.lower(): path for path in paths}.values())


def _disjoint(extents: list[Extent]) -> list[Extent]:
    """In order and without overlaps, which only a damaged file system has."""
    result: list[Extent] = []
    for extent in sorted(extents, key=lambda each: each.offset):
        start = max(extent.offset, result[-1].end) if result else extent.offset
        if start < extent.end:
            result.append(Extent(start, extent.end - start, ExtentKind.EXCLUDED))
    return result
