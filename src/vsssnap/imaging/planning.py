"""Refuse a save before anything slow or costly is begun for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap._arguments import instance, path_text
from vsssnap._units import whole
from vsssnap.errors import CorruptImageError
from vsssnap.formats import registry
from vsssnap.formats.base import SIDECAR_SUFFIX, ImageFormat, ImageReader
from vsssnap.formats.storage import Storage
from vsssnap.imaging.partial import SUFFIX, check_name, check_partial, check_target

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

__all__ = ["check_save"]


def check_save(
    target: str | os.PathLike[str],
    size: int,
    *,
    format: str | None = None,
    options: object = None,
    parent: ImageReader | None = None,
    replace: bool = False,
    origins: Iterable[str] = (),
) -> None:
    """Raise what `save_image` would raise about its arguments, and touch nothing.

    Call it before a snapshot is taken: then no service is stopped, and no file system frozen, for a
    name that exists or an option that the format does not take.

    Args:
        target: The image's name.
        size: Bytes of the volume that will be saved.
        format: Name of the format; by default that of the suffix.
        options: The format's options.
        parent: The image of which it will be an increment.
        replace: Whether an existing image of the name may be replaced.
        origins: Paths of what will be read; the target is none of them.

    Raises:
        UsageError: the format cannot hold this size, these options or a parent.
        UnknownFormatError: no format has the suffix.
        TargetRefusedError: the name exists, is a link, is being written or read, or is no place for
            a file or too long; or an earlier save left a partial one.
        TargetError: its folder does not exist or cannot be written.
        ImageNotFoundError: an image that the parent needs is not there.
        ParentMismatchError: an image that the parent needs is another one than it was made against.
        CorruptImageError: an image that the parent needs is damaged.
    """
    name = path_text(target)
    size = whole(size, "size")
    if parent is not None:
        instance(parent, ImageReader, "parent", "open it with open_image")
    driver = registry.by_name(format) if format is not None else registry.by_suffix(name)
    read = (*origins, *(parent.origins if parent is not None else ()))
    beside = name + SIDECAR_SUFFIX
    check_name(name, (SIDECAR_SUFFIX if driver.wants_sidecar(options) else "") + SUFFIX)
    for path in (beside, name):  # also where none is wanted: an old one would be taken for the image's
        check_target(path, replace=replace, origins=read)
        if path == name or driver.wants_sidecar(options):
            check_partial(path, replace=replace)
    check_format(driver, name, size, options, parent)


def check_format(
    driver: ImageFormat,
    name: str,
    size: int,
    options: object,
    parent: ImageReader | None,
    *,
    seekable: bool = True,
) -> None:
    """Begin an image that goes nowhere: a format knows best what it can hold.

    Raises:
        UsageError: as `ImageFormat.create`.
        ImageError: as `ImageReader.require_parents` of ``parent``.
    """
    driver.create(_Nowhere(name, seekable=seekable), size, options=options, parent=parent).close()
    if parent is not None:
        parent.require_parents()


class _Nowhere(Storage):
    """Takes what a file would take and keeps nothing but the size."""

    def __init__(self, name: str, *, seekable: bool) -> None:
        self.name = name
        self.seekable = seekable
        self._size = 0

    @property
    def size(self) -> int:
        """See `Storage`."""
        return self._size

    def pread(self, length: int, offset: int, /) -> bytes:
        """See `Storage`."""
        if offset + length > self._size:
            raise CorruptImageError(f"{self.name} holds nothing yet", path=self.name, offset=offset)
        return bytes(length)

    def append(self, parts: Sequence[bytes | bytearray | memoryview], /) -> int:
        """See `Storage`."""
        offset = self._size
        self._size += sum(map(len, parts))
        return offset

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int, /) -> None:
        """See `Storage`."""
        self._size = max(self._size, offset + len(data))

    def truncate(self, size: int, /) -> None:
        """See `Storage`."""
        self._size = size

    def allocate(self, size: int, /) -> None:
        """See `Storage`."""
        self._size = max(self._size, size)

    def flush(self) -> None:
        """See `Storage`."""

    def close(self) -> None:
        """See `Storage`."""
