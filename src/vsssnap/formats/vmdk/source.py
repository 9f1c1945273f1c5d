"""The bytes of one file of a disk: the image's own, or another that was opened as raw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.errors import CorruptImageError
from vsssnap.formats.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.blocks.extent import Extent
    from vsssnap.formats.base import ImageReader


class Source:
    """Positional reads of a `Storage` or of a raw image; owns it.

    Attributes:
        name: For messages.
        size: Bytes.
    """

    def __init__(self, file: Storage | ImageReader) -> None:
        self._file = file
        self.name = file.name if isinstance(file, Storage) else file.path
        self.size = file.size

    def pread(self, length: int, offset: int) -> bytes:
        """Exactly ``length`` bytes.

        Raises:
            CorruptImageError: the file ends before.
        """
        self._inside(length, offset)
        return self._file.pread(length, offset)

    def preadinto(self, view: memoryview, offset: int) -> None:
        """Fill ``view``; as `pread`."""
        self._inside(len(view), offset)
        self._file.preadinto(view, offset)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Holes of the file are ZERO."""
        return self._file.extents(offset, length)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _inside(self, length: int, offset: int) -> None:
        if offset + length > self.size:
            raise CorruptImageError(
                f"{self.name} ends at byte {self.size}, {length} bytes at {offset} were asked for",
                path=self.name,
                structure="file",
                offset=offset,
            )
