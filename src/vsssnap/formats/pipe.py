"""Storage that only takes bytes in order."""

from __future__ import annotations

import errno
import os
import select
import sys
import time
from typing import TYPE_CHECKING

from vsssnap import _files
from vsssnap._uses import UseGate
from vsssnap.errors import TargetError, UsageError
from vsssnap.formats.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PipeStorage"]


class PipeStorage(Storage):
    """A descriptor that only takes bytes in order: a pipe, a socket, standard output."""

    seekable = False

    def __init__(self, fd: int, name: str = "", *, owned: bool = True) -> None:
        self.name = name or "pipe"
        self._fd = fd
        _files.binary(fd)
        self._size = 0
        self._gate = UseGate(self.name)
        self._owned = owned

    def _let_go(self) -> None:
        if self._owned:
            os.close(self._fd)

    @property
    def size(self) -> int:
        """Bytes appended so far."""
        return self._size

    def pread(self, length: int, offset: int, /) -> bytes:
        """Refused: see `Storage.seekable`."""
        raise UsageError(
            f"{self.name} cannot be read back", hint="save to a file to verify or open the image"
        )

    def append(self, parts: Sequence[bytes | bytearray | memoryview], /) -> int:
        """See `Storage`."""
        start = self._size
        with self._gate:
            for part in parts:
                view = memoryview(part)
                while view:
                    count = self._write(view)
                    view = view[count:]
                    self._size += count
        return start

    def _write(self, view: memoryview) -> int:
        while True:
            try:
                return _files.append(self._fd, view)
            except BlockingIOError:  # whoever shares our end of the pipe made it non-blocking
                _wait_for_room(self._fd)
            except OSError as exc:
                hints = {
                    errno.EPIPE: "the program that reads the pipe has ended",
                    errno.ENOSPC: "make room or choose another target",
                }
                raise TargetError(
                    f"{self.name}: cannot write at byte {self._size}: {exc.strerror}",
                    path=self.name,
                    call="write",
                    code=exc.errno,
                    hint=hints.get(exc.errno or 0, "check what it is connected to"),
                ) from exc

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int, /) -> None:
        """Refused: see `Storage.seekable`."""
        raise UsageError(f"{self.name} cannot seek", hint="choose a format that streams, such as vsnap")

    def truncate(self, size: int, /) -> None:
        """Refused: see `Storage.seekable`."""
        raise UsageError(f"{self.name} cannot be resized", hint="choose a format that streams, such as vsnap")

    def flush(self) -> None:
        """Nothing to do: what was written is the reader's."""

    def close(self) -> None:
        """See `Storage`."""
        self._gate.close(self._let_go)


def _wait_for_room(fd: int) -> None:
    """Return when a pipe may take more bytes, or after a second."""
    if sys.platform == "win32":  # where nothing waits for a pipe's room
        time.sleep(0.001)
    else:
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        poll.poll(1000)
