"""A block device that is written: what a restore writes to."""

from __future__ import annotations

import dataclasses
import errno
import os
import sys
from typing import TYPE_CHECKING

from vsssnap import _files
from vsssnap._units import whole
from vsssnap._uses import UseGate
from vsssnap.errors import ProviderUnavailableError, TargetError, UsageError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

    from vsssnap._posix.devices import Opened
    from vsssnap.blocks.device import DeviceReader

__all__ = ["DeviceWriter", "open_target"]


class DeviceWriter:
    """A block device that is held exclusively and written at any place, by any thread.

    Nothing is safe before `flush` has returned.  After a `flush` that failed every later one
    fails too: the system forgets which blocks it could not write (fsync(2), "EIO").

    Attributes:
        path: As the caller named it.
        size: Bytes.
        sector_size: Logical sector size, bytes; writes need no alignment.
    """

    def __init__(self, opened: Opened, *, owned: bool = True) -> None:
        """Take over an open descriptor.

        Args:
            opened: What `vsssnap._posix.devices.open_target` gave.
            owned: Whether `close` closes it.
        """
        self._opened = opened
        self._owned = owned
        self._failed: TargetError | None = None
        self._gate = UseGate(opened.path)
        self.path = opened.path
        self.size = opened.size
        self.sector_size = opened.sector_size

    def _let_go(self) -> None:
        if self._owned:
            os.close(self._opened.fd)

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
                    count = _files.pwrite(self._opened.fd, view, offset)
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
                _zero_out(self._opened.fd, offset, length)
            except OSError as exc:
                raise self._error("BLKZEROOUT", exc, f"cannot zero {length} bytes at {offset}") from exc

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
                os.fsync(self._opened.fd)
            except OSError as exc:
                self._failed = self._error("fsync", exc, "cannot bring what was written to the disk")
                raise self._failed from exc

    def reader(self) -> DeviceReader:
        """A reader of what the disk holds, past what the system remembers of the writes.

        It is closed by itself and outlives the writer; everything is flushed first.

        Raises:
            TargetError: as `flush`.
            ClosedError: the writer is closed.
        """
        from vsssnap.blocks.device import DeviceReader  # which is itself built on this module

        self.flush()
        with self._gate:
            return DeviceReader(dataclasses.replace(self._opened, fd=os.dup(self._opened.fd)))

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


def open_target(path: str | os.PathLike[str]) -> DeviceWriter:
    """Open a block device for a restore and hold it exclusively.

    Raises:
        UsageError: the name is no path.
        TargetRefusedError: it is no block device, read-only, or it or one of its partitions is
            mounted, swap, part of another device, or held by a program.
        TargetError: it cannot be opened.
        SnapshotPermissionError: the process may not write it.
        ProviderUnavailableError: on Windows, where devices are not written yet.
    """
    return DeviceWriter(_open_target(path))


if sys.platform == "win32":

    def _open_target(path: str | os.PathLike[str]) -> Opened:
        raise ProviderUnavailableError(
            f"{os.fsdecode(path)}: devices cannot be written on Windows yet",
            reasons={"device": "it is written for Linux"},
            hint="restore to a file",
        )

    def _zero_out(fd: int, offset: int, length: int) -> None:
        """Nothing is ever opened to be zeroed."""

else:

    def _open_target(path: str | os.PathLike[str]) -> Opened:
        from vsssnap._posix import devices

        return devices.open_target(path)

    def _zero_out(fd: int, offset: int, length: int) -> None:
        from vsssnap._posix import devices

        devices.zero_out(fd, offset, length)
