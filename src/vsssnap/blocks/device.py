"""Block devices and files as readers.

A read is one `os.preadv` straight into the caller's memory, on any thread.  Reads go through
the system's cache, without O_DIRECT (docs/decisions/0010-direct-io.md); what this reader put
there of a block device is dropped behind it.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from vsssnap import _files
from vsssnap._arguments import path_text
from vsssnap._units import MIB
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.blocks.reader import BlockReader
from vsssnap.blocks.target import DeviceWriter, Writable, windows_system
from vsssnap.errors import DeviceReadError, SourceChangedError
from vsssnap.metadata import ImageMetadata

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vsssnap._files import Opened

__all__ = ["DeviceReader", "WritableDevice", "open_path", "open_writable"]

_BEHIND = 16 * MIB
"""Bytes of a block device that are dropped from the cache at once, one such piece behind the
newest: less leaves what lies in larger pages, and workers read a little out of order."""


class DeviceReader(BlockReader):
    """A block device or a regular file.

    A device is all DATA; the holes of a file are ZERO.  `confirm` makes sure that a file still
    has its size.
    """

    def __init__(self, opened: Opened, *, metadata: ImageMetadata | None = None) -> None:
        """Take over an open descriptor.

        Args:
            opened: What `vsssnap._posix.devices` opened; it is closed with the reader, also if
                the constructor fails.
            metadata: By default the path as volume and device.
        """
        self._fd = opened.fd
        self._path = opened.path
        self._is_file = opened.kind == "file"
        # `lseek` moves the descriptor's cursor: only one walk at a time may ask for holes.
        self._seeking = threading.Lock()
        try:
            super().__init__(
                opened.size,
                sector_size=opened.sector_size,
                metadata=metadata or ImageMetadata(volume=opened.path, device=opened.path),
            )
            if not self._is_file:
                # Pages from before may be stale: a disk and its partitions are cached apart, and
                # XFS writes past this cache.
                self._drop_cache(0, 0)
        except BaseException:
            if not hasattr(self, "_gate"):
                os.close(self._fd)
            raise

    @property
    def origins(self) -> tuple[str, ...]:
        """The path that was opened."""
        return (self._path,)

    def _release(self) -> None:
        if not self._is_file:
            self._drop_cache(0, 0)
        os.close(self._fd)

    def _drop_cache(self, offset: int, length: int) -> None:
        if sys.platform != "win32":
            os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)

    def _read(self, length: int, offset: int) -> bytes:
        try:
            data = _files.pread(self._fd, length, offset)
        except OSError as exc:
            data = self._salvaged(exc, length, offset)
        if len(data) != length:  # Linux reads at most 2 GiB at once
            rest = bytearray(length - len(data))
            with memoryview(rest) as view:
                self._fill(view, offset + len(data))
            data += rest
        self._passed(offset, length)
        return data

    def _read_into(self, view: memoryview, offset: int) -> None:
        self._fill(view, offset)
        self._passed(offset, len(view))

    def _read_parts(self, parts: Sequence[tuple[memoryview, int]]) -> None:
        with self._gate:  # once for all of them
            fd, read = self._fd, _files.preadinto
            for view, offset in parts:
                try:
                    count = read(fd, view, offset)
                except OSError:
                    count = 0
                if count != len(view):
                    self._fill(view, offset)
                if not self._is_file:
                    self._passed(offset, len(view))

    def _fill(self, view: memoryview, offset: int) -> None:
        at = 0
        while at < len(view):
            try:
                count = _files.preadinto(self._fd, view[at:], offset + at)
            except OSError as exc:
                view[at:] = self._salvaged(exc, len(view) - at, offset + at)
                return
            if not count:
                raise self._short(offset + at, len(view) - at)
            at += count

    def _passed(self, offset: int, length: int) -> None:
        """Drop what lies well behind from the cache, when a read crosses into the next piece."""
        piece = (offset + length) // _BEHIND
        if not self._is_file and piece > offset // _BEHIND and piece > 1:
            self._drop_cache((offset // _BEHIND - 1) * _BEHIND, (piece - offset // _BEHIND) * _BEHIND)

    def _short(self, offset: int, length: int) -> SourceChangedError | DeviceReadError:
        if self._is_file:
            return self._resized(os.fstat(self._fd).st_size)
        return DeviceReadError(
            f"{self._path} ends at {offset}, it had {self.size} bytes when it was opened",
            offset=offset,
            length=length,
            call="pread",
            hint="the device was taken away or made smaller",
        )

    def _resized(self, now: int) -> SourceChangedError:
        return SourceChangedError(
            f"{self._path} has {now} bytes, it had {self.size} when it was opened",
            hint="copy it when nobody writes it, or take a snapshot",
        )

    def _salvaged(self, exc: OSError, length: int, offset: int) -> bytes:
        """Try a failed range again piece by piece, to name exactly what cannot be read.

        Returns:
            The bytes, if every piece can be read now.

        Raises:
            DeviceReadError: for the first run of sectors that cannot.
        """
        from vsssnap.blocks import _retry  # only a failing device needs it

        return _retry.by_sector(self._fd, self._path, exc, length, offset, self.sector_size)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        if not self._is_file:
            yield from super()._extents(offset, length)
            return
        walk = _files.ranges(self._fd, offset, length)
        while True:
            with self._seeking:
                try:
                    found = next(walk, None)
                except OSError as exc:
                    raise DeviceReadError(
                        f"{self._path}: cannot find its holes from {offset}: {exc.strerror}",
                        offset=offset,
                        length=length,
                        call="lseek",
                        code=exc.errno,
                        hint="the disk that holds the file is failing",
                    ) from exc
            if found is None:
                return
            start, count, is_data = found
            yield Extent(start, count, ExtentKind.DATA if is_data else ExtentKind.ZERO)

    def _confirm(self) -> None:
        if self._is_file:
            now = os.fstat(self._fd).st_size
            if now != self.size:
                raise self._resized(now)


class WritableDevice(Writable, DeviceReader):
    """A block device or file that is written, too; a device is held exclusively."""

    def __init__(self, opened: Opened) -> None:
        super().__init__(opened)
        self._writer = DeviceWriter(opened, owned=False)


def open_path(path: str | os.PathLike[str]) -> BlockReader:
    """Open a block device or a regular file for reading, as it is.

    Raises:
        UsageError: the name is no path.
        DeviceReadError: there is none, it is neither, it has no medium, or it cannot be opened.
        SnapshotPermissionError: the process may not read it.
        SnapshotBusyError: a file server has a lease on the file.
    """
    name = path_text(path)
    system = windows_system(name)
    if system is not None:
        from vsssnap.blocks import windows  # only such names need it

        return windows.open_path(system, name)
    return DeviceReader(_open(name, writable=False))


def open_writable(path: str | os.PathLike[str]) -> Writable:
    """Open a block device or a regular file for reading and writing.

    Raises:
        UsageError: the name is no path.
        TargetRefusedError: it is in use or read-only, or neither a device nor a file.
        TargetError: it cannot be opened.
        SnapshotPermissionError: the process may not write it.
    """
    name = path_text(path)
    system = windows_system(name)
    if system is not None:
        from vsssnap.blocks import windows

        return windows.open_writable(system, name)
    return WritableDevice(_open(name, writable=True))


if sys.platform == "win32":

    def _open(name: str, *, writable: bool) -> Opened:
        from vsssnap.blocks import windows

        return windows.open_file(name, writable=writable)

else:

    def _open(name: str, *, writable: bool) -> Opened:
        from vsssnap._posix import devices  # system modules that an import of the library does not need

        return devices.open_target(name, files=True) if writable else devices.open_source(name)
