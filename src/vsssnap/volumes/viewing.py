"""A volume or a disk without what an image need not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.blocks.concat import ConcatReader
from vsssnap.blocks.reader import BlockReader, as_reader
from vsssnap.blocks.window import WindowReader
from vsssnap.errors import DeviceReadError, ImageError, UnknownFormatError, UsageError
from vsssnap.metadata import ImageMetadata
from vsssnap.volumes.base import checked_exclusions, checked_policy
from vsssnap.volumes.composing import pieces
from vsssnap.volumes.detect import filesystem
from vsssnap.volumes.lvm.finding import WHOLE
from vsssnap.volumes.lvm.viewing import LogicalViews
from vsssnap.volumes.partitions import Partitions
from vsssnap.volumes.policy import DEFAULT_EXCLUSIONS, Exclusion, UnusedPolicy
from vsssnap.volumes.view import FileSystemView

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from vsssnap.blocks.extent import Extent
    from vsssnap.blocks.reader import SupportsPread
    from vsssnap.volumes.base import FileSystem
    from vsssnap.volumes.partitions import Partition
    from vsssnap.volumes.view import SystemMap


def view_of(
    source: SupportsPread,
    /,
    *,
    unused: UnusedPolicy = UnusedPolicy.ZERO,
    exclude: Collection[Exclusion] = DEFAULT_EXCLUSIONS,
    owned: bool = False,
) -> BlockReader:
    """A volume, or a disk with all its partitions and logical volumes, without what an image need not hold.

    What cannot be told is kept, also where the file system's own blocks cannot be read; the metadata
    say what was left out, and why something was not.

    Args:
        source: A volume or a whole disk.
        unused: What becomes of blocks that no file uses.
        exclude: Files whose contents are left out.
        owned: Whether closing the view closes ``source``.

    Raises:
        UsageError: an argument is none of its kind.
    """
    return make_view(as_reader(source), unused=unused, exclude=exclude, owned=owned)


def make_view(
    source: BlockReader,
    *,
    unused: UnusedPolicy,
    exclude: Collection[Exclusion],
    system_map: SystemMap | None = None,
    left_out: Sequence[tuple[Exclusion, str, Sequence[Extent]]] = (),
    metadata: ImageMetadata | None = None,
    judge: Callable[[FileSystem], None] = lambda fs: None,
    owned: bool = False,
) -> BlockReader:
    """`view_of` for those who know more of the source.

    Args:
        source: See `view_of`.
        unused: See `view_of`.
        exclude: See `view_of`.
        system_map: The system's own map of a volume; see `FileSystemView`.
        left_out: What the system leaves out; see `FileSystemView`.
        metadata: What the view's own begin with; by default those of ``source``.
        judge: Called with each file system before its map is used; it may add a doubt.
        owned: See `view_of`.
    """
    unused, exclude = checked_policy(unused), checked_exclusions(exclude)
    metadata = metadata or source.metadata
    try:
        fs = filesystem(source)
    except DeviceReadError as exc:
        # A failing disk is imaged all the same: what cannot be told is kept.
        said = metadata.replace(notes=(*metadata.notes, f"its file system cannot be read: {exc.message}"))
        return FileSystemView(
            source, None, unused=unused, exclude=(), system_map=system_map, metadata=said, owned=owned
        )
    if fs is None and system_map is None:
        disk = _disk_view(source, unused, exclude, metadata, judge, owned=owned)
        if disk is not None:
            return disk
    if fs is not None:
        judge(fs)
    return FileSystemView(
        source,
        fs,
        unused=unused,
        exclude=exclude,
        system_map=system_map,
        left_out=left_out,
        metadata=metadata,
        owned=owned,
    )


def _disk_view(
    source: BlockReader,
    unused: UnusedPolicy,
    exclude: Collection[Exclusion],
    metadata: ImageMetadata,
    judge: Callable[[FileSystem], None],
    *,
    owned: bool,
) -> BlockReader | None:
    """A view of every partition, or None if it is no disk that can be taken apart."""
    notes, exclusions = list(metadata.notes), list(metadata.exclusions)

    def viewed(name: str, window: BlockReader) -> BlockReader:
        try:
            fs = filesystem(window)
        except DeviceReadError as exc:
            fs = None
            notes.append(f"{name}: its file system cannot be read: {exc.message}")
        if fs is not None:
            judge(fs)
        view = FileSystemView(window, fs, unused=unused, exclude=exclude, owned=True)
        notes.extend(f"{name}: {note}" for note in view.metadata.notes)
        exclusions.extend(f"{name}: {path}" for path in view.metadata.exclusions)
        return view

    def in_volume(name: str, volume: BlockReader) -> BlockReader:
        # Its reader has the disk's metadata, which are said once.
        return viewed(
            f"logical volume {name}", WindowReader(volume, 0, volume.size, metadata=ImageMetadata())
        )

    try:
        logical = LogicalViews(source, unused, in_volume)
        parts: list[tuple[Partition, BlockReader]] = []
        for partition in _table(source):
            if partition.extended:
                continue
            partition.open()  # raises where the disk ends before it does
            window = WindowReader(source, partition.offset, partition.length, metadata=ImageMetadata())
            view = logical.of(partition.number, window) or viewed(f"partition {partition.number}", window)
            parts.append((partition, view))
        only = None if parts else logical.of(WHOLE, source)
        if not parts and only is None:
            return None
        said = metadata.replace(notes=(*notes, *logical.notes), exclusions=tuple(exclusions))
        listed = pieces(source, parts) if only is None else [only]
        return _DiskView(source, listed, said, owned=owned)
    except (ImageError, UsageError, DeviceReadError):  # a damaged table, or partitions that overlap
        return None


def _table(disk: BlockReader) -> Iterable[Partition]:
    """The partitions of a disk; none if it has no table."""
    try:
        return Partitions(disk)
    except UnknownFormatError:
        return ()


class _DiskView(ConcatReader):
    """The pieces of one disk."""

    def __init__(
        self, source: BlockReader, parts: list[BlockReader], metadata: ImageMetadata, *, owned: bool
    ) -> None:
        super().__init__(parts, metadata=metadata)
        self.sector_size = source.sector_size
        self._source = source
        self._closes = owned

    def _confirm(self) -> None:
        self._source.confirm()  # once for all of them

    def _release(self) -> None:
        if self._closes:
            self._source.close()
