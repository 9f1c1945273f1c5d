"""A block device that is written: what a restore writes to."""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from vsssnap import _files
from vsssnap._arguments import path_text
from vsssnap._units import MIB, whole
from vsssnap._uses import UseGate
from vsssnap._win32.device_names import device_path
from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import TargetError, TargetRefusedError, UsageError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    from vsssnap._files import Opened
    from vsssnap._win32.dll import System

__all__ = ["DeviceWriter", "TargetWriter", "Writable", "is_device", "open_target", "windows_system"]

_ZEROS = bytes(MIB)


class TargetWriter(ABC):
    """A device that is held exclusively and written at any place, by any thread.

    Nothing is safe before `flush` has returned.  After a `flush` that failed every later one
    fails too: the system forgets which blocks it could not write (fsync(2), "EIO").

    Attributes:
        path: As the caller named it.
        size: Bytes.
        sector_size: Logical sector size, bytes; writes need no alignment.
    """

    def __init__(self, path: str, size: int, sector_size: int) -> None:
        self._failed: TargetError | None = None
        self._gate = UseGate(path)
        self.path = path
        self.size = size
        self.sector_size = sector_size

    # What drivers give; what fails is an OSError.

    @abstractmethod
    def _write(self, view: memoryview, offset: int) -> int:
        """Write some of ``view``; bytes written."""

    @abstractmethod
    def _zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros."""

    @abstractmethod
    def _sync(self) -> None:
        """Wait until what was written is on the disk."""

    @abstractmethod
    def _reader(self) -> BlockReader:
        """A reader past the cache; it lives on its own."""

    @abstractmethod
    def _let_go(self) -> None:
        """Close the device."""

    def pwrite(self, data: Buffer, offset: int, /) -> int:
        """Write all of ``data`` at ``offset``.

        Returns:
            Its length in bytes.

        Raises:
            UsageError: the range is not inside the device, or ``data`` is not contiguous.
            TargetError: the device is failing, or the disk behind it is full.
            ClosedError: the writer is closed.
        """
        try:
            view = memoryview(data).cast("B")
        except (TypeError, ValueError, BufferError) as exc:
            raise UsageError(f"data is not contiguous bytes: {exc}") from None
        offset = self._inside(len(view), offset)
        total = len(view)
        with self._gate:
            while view:
                try:
                    count = self._write(view, offset)
                except OSError as exc:
                    raise self._error("pwrite", exc, f"cannot write {len(view)} bytes at {offset}") from exc
                if not count:
                    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    raise self._error("pwrite", full, f"cannot write {len(view)} bytes at {offset}")
                view = view[count:]
                offset += count
        return total

    def zero(self, offset: int, length: int, /) -> None:
        """Make a range read as zeros, by the device's own command where it has one.

        Raises:
            UsageError: the range is not inside the device.
            TargetError: the device is failing, or the disk behind it is full.
            ClosedError: the writer is closed.
        """
        offset = self._inside(length, offset)
        with self._gate:
            try:
                self._zero(offset, length)
            except OSError as exc:
                raise self._error("zero", exc, f"cannot zero {length} bytes at {offset}") from exc

    def flush(self) -> None:
        """Wait until everything that was written is on the disk.

        Raises:
            TargetError: it is not, now or at an earlier `flush`.
            ClosedError: the writer is closed.
        """
        with self._gate:
            if self._failed is not None:
                raise self._failed.with_traceback(None)
            try:
                self._sync()
            except OSError as exc:
                self._failed = self._error("flush", exc, "cannot bring what was written to the disk")
                raise self._failed from exc

    def reader(self) -> BlockReader:
        """A reader of what the disk holds, past what the system remembers of the writes.

        It is closed by itself and outlives the writer; everything is flushed first.

        Raises:
            TargetError: as `flush`.
            ClosedError: the writer is closed.
        """
        self.flush()
        with self._gate:
            return self._reader()

    def close(self) -> None:
        """Let the device go; the last running call does.  Idempotent, and flushes nothing."""
        self._gate.close(self._let_go)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def _inside(self, length: int, offset: int) -> int:
        offset = whole(offset, "offset")
        if offset + whole(length, "length") > self.size:
            raise UsageError(
                f"{length} bytes at {offset} are not inside {self.path}, which has {self.size} bytes"
            )
        return offset

    def _error(self, call: str, exc: OSError, what: str) -> TargetError:
        full = exc.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        return TargetError(
            f"{self.path}: {what}: {exc.strerror}",
            path=self.path,
            call=call,
            code=exc.errno,
            hint="make room where its blocks are stored"
            if full
            else "the device is failing; use another one",
        )


class DeviceWriter(TargetWriter):
    """A block device or file of Linux, or a file of Windows."""

    def __init__(self, opened: Opened, *, owned: bool = True) -> None:
        """Take over an open descriptor.

        Args:
            opened: What `vsssnap._posix.devices.open_target` gave.
            owned: Whether `close` closes it.
        """
        super().__init__(opened.path, opened.size, opened.sector_size)
        self._opened = opened
        self._owned = owned

    def _write(self, view: memoryview, offset: int) -> int:
        return _files.pwrite(self._opened.fd, view, offset)

    def _zero(self, offset: int, length: int) -> None:
        _zero_out(self._opened.fd, offset, length)

    def _sync(self) -> None:
        os.fsync(self._opened.fd)

    def _reader(self) -> BlockReader:
        from vsssnap.blocks.device import DeviceReader  # which is itself built on this module

        return DeviceReader(dataclasses.replace(self._opened, fd=os.dup(self._opened.fd)))

    def _let_go(self) -> None:
        if self._owned:
            os.close(self._opened.fd)


class Writable(BlockReader):
    """What a reader has that is written, too."""

    _writer: TargetWriter

    def writable(self) -> bool:
        """Always true."""
        return True

    def pwrite(self, data: Buffer, offset: int, /) -> int:
        """Write all of ``data`` at ``offset``; thread-safe for ranges that do not overlap.

        Returns:
            Its length in bytes.

        Raises:
            UsageError: the range is not inside the device or file.
            TargetError: it is full or failing.
            ClosedError: it is closed.
        """
        with self._gate:
            return self._writer.pwrite(data, offset)

    def write(self, data: Buffer, /) -> int:
        """Write all of ``data`` at the cursor and move it."""
        count = self.pwrite(data, self._position)
        self._position += count
        return count

    def flush(self) -> None:
        """Wait until what was written is on the disk.

        Raises:
            TargetError: it did not get there.
        """
        if not self.closed:  # the file interface flushes once more when it is closed
            with self._gate:
                self._writer.flush()

    def close(self) -> None:
        """Flush, then refuse new calls; the last running one lets the device go.  Idempotent.

        Raises:
            TargetError: what was written did not get to the disk; it is closed all the same.
        """
        try:
            super().close()
        finally:
            self._gate.close(self._release)


def is_device(name: str) -> bool:
    """Whether a name is that of a block device, which a restore writes in place."""
    if windows_system(name) is not None:
        return True
    try:
        return stat.S_ISBLK(os.stat(name).st_mode)
    except (OSError, ValueError):
        return False


def windows_system(name: str) -> System | None:
    """The Windows that has a device of this name; None if it is no name of a device, or no Windows."""
    if device_path(name) is None:
        return None
    from vsssnap._win32 import dll  # only such names need it

    return dll.current()


def open_target(path: str | os.PathLike[str]) -> TargetWriter:
    """Open a block device for a restore and hold it exclusively.

    Raises:
        UsageError: the name is no path.
        TargetRefusedError: it is no block device, read-only, or it or one of its partitions is
            mounted, swap, part of another device, or held by a program; of Windows: files of it are open.
        TargetError: it cannot be opened.
        SnapshotPermissionError: the process may not write it.
    """
    name = path_text(path)
    system = windows_system(name)
    if system is not None:
        from vsssnap.blocks import windows

        return windows.open_target(system, name)
    return DeviceWriter(_open_target(name))


if sys.platform == "win32":

    def _open_target(name: str) -> Opened:
        raise TargetRefusedError(
            f"{name} is not a block device", path=name, hint=r"name a volume such as \\.\X:"
        )

    def _zero_out(fd: int, offset: int, length: int) -> None:
        for at in range(offset, offset + length, len(_ZEROS)):
            view = memoryview(_ZEROS)[: min(len(_ZEROS), offset + length - at)]
            done = 0
            while done < len(view):
                done += _files.pwrite(fd, view[done:], at + done)

else:

    def _open_target(name: str) -> Opened:
        from vsssnap._posix import devices

        return devices.open_target(name)

    def _zero_out(fd: int, offset: int, length: int) -> None:
        from vsssnap._posix import devices

        devices.zero_out(fd, offset, length)
