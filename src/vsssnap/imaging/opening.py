"""Open a device or an image; begin an image."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vsssnap._arguments import path_text
from vsssnap._units import whole
from vsssnap.errors import UsageError
from vsssnap.formats import registry
from vsssnap.formats.base import SIDECAR_SUFFIX, ImageFormat, ImageReader, ImageWriter
from vsssnap.formats.storage import FileStorage, Storage
from vsssnap.imaging.chain import open_chain
from vsssnap.imaging.committing import commit
from vsssnap.imaging.partial import SUFFIX, PartialFile, check_name, check_target
from vsssnap.metadata import ImageMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vsssnap.blocks.extent import Extent
    from vsssnap.blocks.reader import BlockReader

__all__ = ["PathWriter", "create_image", "open_device", "open_image"]


def open_device(path: str | os.PathLike[str], *, writable: bool = False) -> BlockReader:
    r"""Open a block device or a file as it is, without a snapshot.

    What is written while you read it is seen partly: an image of a volume in use is torn.
    Use it for volumes that nobody writes, and to write one (`writable`).

    Args:
        path: A block device or a regular file.  On Windows a volume (``C:``, ``\\.\C:``,
            ``\\?\Volume{...}``), a disk (``\\.\PhysicalDrive0``) or a shadow copy by its device.
        writable: Open it for writing too; the reader then has ``pwrite`` and ``flush``, and a
            block device must be free: not mounted and held by nobody.  A volume of Windows is locked and
            dismounted until it is closed, a disk with every volume on it.

    Raises:
        DeviceReadError: there is no such device, it is neither, or it cannot be opened.
        SnapshotPermissionError: the process may not read it.
        SnapshotBusyError: another program has it alone.
        TargetRefusedError: it is to be written and in use.
    """
    from vsssnap.blocks import device  # opens system modules that an import of the library does not need

    name = path_text(path)
    return device.open_writable(name) if writable else device.open_path(name)


def open_image(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    recover: bool = False,
    parent: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
) -> ImageReader:
    """Open an image of any installed format, read-only.

    Args:
        path: The image file.
        format: Name of its format; by default it is recognised.  A name that ends in ``.raw`` or
            ``.dd`` is raw whatever it holds.
        recover: Read what can be read of an incomplete or damaged image.
        parent: Where its parents are, if they were moved or renamed: their files in any order, or
            folders that hold them under their old names.  Each is known by its identity, where the
            format records one.

    Raises:
        ImageNotFoundError: there is no such file, or its parent is not there.
        UnknownFormatError: no installed format recognises it.
        CorruptImageError: it, or the side-car beside it, is damaged.
        UnsupportedFeatureError: it uses what this version does not know.
        ParentMismatchError: its parent on disk is another image.
    """
    given = [parent] if isinstance(parent, str | bytes | os.PathLike) else parent
    if not isinstance(given, Sequence):
        raise UsageError(f"parent is {parent!r}, no path", hint="leave it out, or give a path or several")
    return open_chain(path_text(path), format, recover=recover, where=[path_text(each) for each in given])


class PathWriter(ImageWriter):
    """An image under way to its final name: `finish` puts it there, `close` before that removes it."""

    def __init__(
        self,
        writer: ImageWriter,
        files: Sequence[PartialFile],
        driver: ImageFormat,
        path: str,
        *,
        replace: bool,
    ) -> None:
        self._writer = writer
        self._files = files
        self._replace = replace
        self.sidecar = len(files) > 1
        self.format = driver.name
        self.path = path
        self.size = writer.size
        self.unit = writer.unit
        self.write_order = writer.write_order
        self.keeps_data = writer.keeps_data
        # No wrapper between the pipeline and the format on the hot path.
        self.encode: Callable[[memoryview, int], Any] = writer.encode  # type: ignore[method-assign]
        self.store: Callable[[Any], None] = writer.store  # type: ignore[method-assign]

    def encode(self, data: memoryview, offset: int, /) -> Any:  # noqa: ANN401, D102 - see the constructor
        return self._writer.encode(data, offset)

    def store(self, encoded: Any, /) -> None:  # noqa: ANN401, D102 - see the constructor
        self._writer.store(encoded)

    def mark(self, extent: Extent, /) -> None:
        """See `ImageWriter`."""
        self._writer.mark(extent)

    def changed(self) -> int | None:
        """See `ImageWriter`."""
        return self._writer.changed()

    def flattened(self) -> Mapping[str, int]:
        """See `ImageWriter`."""
        return self._writer.flattened()

    def finish(self, metadata: ImageMetadata | None = None, /) -> None:
        """Complete the image and give it its name; then the writer is closed.

        Raises:
            TargetError: the disk is full or failing; the image is not there.
        """
        try:
            self._writer.finish(metadata if metadata is not None else ImageMetadata())
            self._writer.close()
            if self._files:
                *sidecars, image = self._files
                commit(image, sidecars, replace=self._replace)
        finally:
            self.close()

    def close(self) -> None:
        """Give up: nothing stays under either name.  Idempotent, and nothing after `finish`."""
        try:
            self._writer.close()
        finally:
            for file in self._files:
                file.discard()


def create_image(
    path: str | os.PathLike[str] | Storage,
    size: int,
    *,
    format: str | None = None,
    options: object = None,
    parent: ImageReader | None = None,
    replace: bool = False,
) -> PathWriter:
    """Begin an image; write it with `copy_blocks` or by hand, then call its ``finish``.

    Args:
        path: The final name, complete or absent; meanwhile ``<path>.partial`` is written.  Or a
            `Storage`, such as a `PipeStorage`, which is written as it is and then closed.
        size: Bytes of the volume.
        format: Name of the format; by default that of the suffix.
        options: The format's options.
        parent: The image of which this is an increment.
        replace: Whether an existing file of the name is replaced when the image is complete.

    Raises:
        UsageError: the format cannot hold this size, these options or a parent.
        UnknownFormatError: no format has the suffix.
        TargetRefusedError: the name exists, is a link, or is no place for a file.
        TargetError: the folder cannot be written.
    """
    return begin_image(
        path,
        size,
        format=format,
        options=options,
        parent=parent,
        replace=replace,
        origins=parent.origins if parent else (),
    )


def begin_image(
    path: str | os.PathLike[str] | Storage,
    size: int,
    *,
    format: str | None,
    options: object,
    parent: ImageReader | None,
    replace: bool,
    origins: Sequence[str],
) -> PathWriter:
    """`create_image` with the files that must not be replaced."""
    if isinstance(path, Storage):
        with contextlib.ExitStack() as failing:
            failing.callback(path.close)
            size = whole(size, "size")
            if format is None:
                raise UsageError(
                    "an image that is written to a Storage needs format=", hint='such as format="vsnap"'
                )
            driver = registry.by_name(format)
            if parent is not None:
                parent.require_parents()
            failing.pop_all()
        return PathWriter(
            driver.create(path, size, options=options, parent=parent), (), driver, path.name, replace=False
        )
    size, name = whole(size, "size"), path_text(path)
    driver = registry.by_name(format) if format is not None else registry.by_suffix(name)
    if parent is not None:
        parent.require_parents()
    files: list[PartialFile] = []
    writer: ImageWriter | None = None
    try:
        sidecar = driver.wants_sidecar(options)
        if sidecar:
            check_name(name, SIDECAR_SUFFIX + SUFFIX)
            check_target(name, replace=replace, origins=origins)  # which is what is to be said first
            files.append(PartialFile(name + SIDECAR_SUFFIX, replace=replace, origins=origins))
        files.append(PartialFile(name, replace=replace, origins=origins))
        if not sidecar:  # one that was left there would be taken for the new image's
            check_target(name + SIDECAR_SUFFIX, replace=replace, origins=origins)
        writer = driver.create(FileStorage(files[-1].take(), name), size, options=options, parent=parent)
        if sidecar:
            from vsssnap.formats.sidecar import SidecarWriter, with_sidecar

            writer = with_sidecar(
                writer, SidecarWriter(FileStorage(files[0].take(), files[0].path), size, driver.name)
            )
    except BaseException:
        if writer is not None:
            writer.close()
        for file in files:
            file.discard()
        raise
    return PathWriter(writer, files, driver, name, replace=replace)
