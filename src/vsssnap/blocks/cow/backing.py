"""What a copy-on-write volume keeps its blocks in: a file, a device, or an object of the caller's."""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from vsssnap import _files
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.blocks.reader import SupportsPread, as_reader
from vsssnap.errors import DeviceReadError, SnapshotPermissionError, TargetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@runtime_checkable
class SupportsBlockIO(SupportsPread, Protocol):
    """A source of blocks that can be written too.

    ``flush()`` is used if present; so are the optional methods of `SupportsPread`.
    """

    def pwrite(self, data: memoryview, offset: int, /) -> int | None:
        """Write at ``offset``, thread-safe: bytes written as `os.pwrite` says, or None for all."""


class Backing(ABC):
    """Positional, thread-safe I/O on valid ranges; an object's own exceptions pass unchanged.

    Attributes:
        size: Bytes; constant.
        sector_size: Logical sector size, bytes.
        origins: Paths that are read and written, if any.
        folder: Where it lies, if that is known and may hold shadow storage.
    """

    size: int
    sector_size: int = 512
    origins: tuple[str, ...] = ()
    folder: str = ""

    @abstractmethod
    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view``."""

    @abstractmethod
    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What is known of a range, now."""

    @abstractmethod
    def flush(self) -> None:
        """Return when all that was written is on stable storage."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what belongs to us."""

    @abstractmethod
    def _write_some(self, data: memoryview, offset: int) -> int | None: ...

    def read(self, length: int, offset: int) -> bytes:
        """New bytes."""
        buffer = bytearray(length)
        self.read_into(memoryview(buffer), offset)
        return bytes(buffer)

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of ``data``."""
        while data:
            count = self._write_some(data, offset)
            if count is None:
                return
            if not 0 < count <= len(data):
                raise TargetError(
                    f"{self._what()}: pwrite took {count} of {len(data)} bytes at {offset}",
                    path=self._what(),
                    call="pwrite",
                    hint="pwrite must take some of what it is given, or raise",
                )
            data = data[count:]
            offset += count

    def _what(self) -> str:
        return self.origins[0] if self.origins else "the volume"


class FileBacking(Backing):
    """A regular file or a block device."""

    def __init__(self, path: str) -> None:
        """Open it for reading and writing.

        Raises:
            UsageError: there is none, or it is neither file nor device.
            SnapshotPermissionError: the process may not write it.
            DeviceReadError: it cannot be opened otherwise.
        """
        flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        try:
            self._fd = os.open(path, flags)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as exc:
            raise UsageError(
                f"{path} is no volume: {exc.strerror}",
                call="open",
                code=exc.errno,
                hint="name an existing file or block device",
            ) from exc
        except OSError as exc:
            kind = SnapshotPermissionError if exc.errno in (errno.EACCES, errno.EPERM) else DeviceReadError
            raise kind(
                f"{path} cannot be opened for writing: {exc.strerror}",
                call="open",
                code=exc.errno,
                hint="run with the rights to write it",
            ) from exc
        kind_of_file = stat.S_IFMT(os.fstat(self._fd).st_mode)
        if kind_of_file not in (stat.S_IFREG, stat.S_IFBLK):
            os.close(self._fd)
            raise UsageError(f"{path} is neither a regular file nor a block device", hint="name one that is")
        self.size = os.lseek(self._fd, 0, os.SEEK_END)
        self.origins = (path,)
        if kind_of_file == stat.S_IFREG:
            self.folder = os.path.dirname(os.path.realpath(path))

    def read_into(self, view: memoryview, offset: int) -> None:
        """See `Backing`."""
        wanted, begin = len(view), offset
        while view:
            try:
                count = _files.preadinto(self._fd, view, offset)
            except OSError as exc:
                raise DeviceReadError(
                    f"{self._what()} cannot be read: {exc.strerror}, {len(view)} bytes at {offset}",
                    offset=begin,
                    length=wanted,
                    call="pread",
                    code=exc.errno,
                    hint="check the disk",
                ) from exc
            if not count:
                raise DeviceReadError(
                    f"{self._what()} ends at {offset}, it had {self.size} bytes",
                    offset=begin,
                    length=wanted,
                    hint="nobody else may cut the file of a volume",
                )
            view = view[count:]
            offset += count

    def _write_some(self, data: memoryview, offset: int) -> int:
        try:
            return _files.pwrite(self._fd, data, offset)
        except OSError as exc:
            raise TargetError(
                f"{self._what()} cannot be written: {exc.strerror}, {len(data)} bytes at {offset}",
                path=self._what(),
                call="pwrite",
                code=exc.errno,
                hint="free some space there" if exc.errno == errno.ENOSPC else "check the disk",
            ) from exc

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """See `Backing`: holes are ZERO."""
        try:
            for at, count, data in _files.ranges(self._fd, offset, length):
                yield Extent(at, count, ExtentKind.DATA if data else ExtentKind.ZERO)
        except OSError as exc:
            raise DeviceReadError(
                f"{self._what()}: holes cannot be told: {exc.strerror}",
                offset=offset,
                length=length,
                call="lseek",
                code=exc.errno,
            ) from exc

    def flush(self) -> None:
        """See `Backing`."""
        try:
            os.fsync(self._fd)
        except OSError as exc:
            raise TargetError(
                f"{self._what()} cannot be flushed: {exc.strerror}",
                path=self._what(),
                call="fsync",
                code=exc.errno,
                hint="what was written since the last flush may be lost; check the disk",
            ) from exc

    def close(self) -> None:
        """See `Backing`."""
        os.close(self._fd)


class ObjectBacking(Backing):
    """An object of the caller's; it stays open when the volume is closed."""

    def __init__(self, source: SupportsBlockIO) -> None:
        """Wrap it.

        Raises:
            UsageError: it has no ``size``, ``pread`` and ``pwrite``.
        """
        if not isinstance(source, SupportsBlockIO):
            raise UsageError(
                f"{type(source).__name__} is no volume",
                hint="pass a path, or an object with size, pread(length, offset) and pwrite(data, offset)",
            )
        self._source = source
        self._reader = as_reader(source)
        self.size = self._reader.size
        self.sector_size = self._reader.sector_size
        self.origins = self._reader.origins

    def read_into(self, view: memoryview, offset: int) -> None:
        """See `Backing`."""
        self._reader.preadinto(view, offset)

    def read(self, length: int, offset: int) -> bytes:
        """See `Backing`."""
        return self._reader.pread(length, offset)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """See `Backing`."""
        return self._reader.extents(offset, length)

    def _write_some(self, data: memoryview, offset: int) -> int | None:
        return self._source.pwrite(data, offset)

    def _what(self) -> str:
        return type(self._source).__name__

    def flush(self) -> None:
        """See `Backing`."""
        flush = getattr(self._source, "flush", None)
        if flush is not None:
            flush()

    def close(self) -> None:
        """See `Backing`."""
