"""A second, closer look at a range that a device failed to deliver.

The system reads whole pages, and far ahead, so one bad sector fails a large read.  Here the
range is read again past the cache, in ever smaller pieces, until the first bad sector is
found and the good one behind it.  A medium can take many seconds for each bad sector, so the
search for the end is given up after a while; what was found by then is the answer.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
import time
from collections.abc import Callable
from typing import Self

from vsssnap import _files
from vsssnap._units import MIB
from vsssnap.errors import DeviceReadError

# What the block layer makes of a medium, protection or target error (block/blk-core.c,
# blk_errors).  After anything else, such as ENODEV, there is nothing to try again.
_MEDIUM = frozenset({errno.EIO, errno.ENODATA, errno.EILSEQ, getattr(errno, "EREMOTEIO", errno.EIO)})

_PATIENCE = 10.0  # seconds


def by_sector(fd: int, path: str, failure: OSError, length: int, offset: int, sector_size: int) -> bytes:
    """Read a range that failed, exactly.

    Args:
        fd: The device or file.
        path: Its name, for messages.
        failure: How the read failed.
        length: Bytes that were asked for, at least 1.
        offset: The first of them.
        sector_size: The least that can be read, bytes.

    Returns:
        The bytes, if all of them can be read after all.

    Raises:
        DeviceReadError: for the first run of sectors that cannot be read.
    """
    if failure.errno not in _MEDIUM:
        raise _unread(path, failure, length, offset) from failure
    with _Closer(fd, sector_size) as closer:
        return search(closer.read, failure, length, offset, sector_size, lambda *found: _unread(path, *found))


def search(
    read: Callable[[int, int], bytes],
    failure: OSError,
    length: int,
    offset: int,
    sector_size: int,
    unread: Callable[[OSError, int, int], DeviceReadError],
) -> bytes:
    """Read a range that failed in ever smaller pieces.

    Args:
        read: Gives up to so many bytes from an offset, both whole sectors, or raises OSError.
        failure: How the read failed.
        length: Bytes that were asked for, at least 1.
        offset: The first of them.
        sector_size: The least that can be read, bytes.
        unread: Makes the error of a failure, a length and an offset.

    Returns:
        The bytes, if all of them can be read after all.

    Raises:
        DeviceReadError: for the first run of sectors that cannot be read.
    """
    first = offset - offset % sector_size
    last = -(-(offset + length) // sector_size) * sector_size
    found = bytearray()
    at, step = first, MIB
    while at < last:
        count = min(step, last - at)
        try:
            data = read(count, at)
        except OSError as exc:
            if count > sector_size:
                step = max(sector_size, count // 2 // sector_size * sector_size)
                continue
            end = min(_end_of_bad(read, at, last, sector_size), offset + length)
            begin = max(at, offset)
            raise unread(exc, end - begin, begin) from exc
        if not data:
            break
        found += data
        at += len(data)
    wanted = bytes(found[offset - first : offset - first + length])
    if len(wanted) < length:  # it became shorter while it was failing
        raise unread(failure, length - len(wanted), offset + len(wanted)) from failure
    return wanted


def _end_of_bad(read: Callable[[int, int], bytes], at: int, last: int, sector_size: int) -> int:
    until = time.monotonic() + _PATIENCE
    at += sector_size
    while at < last and time.monotonic() < until:
        try:
            read(sector_size, at)
        except OSError:
            at += sector_size
        else:
            break
    return at


class _Closer:
    """Reads past the cache where the system lets us, else through it."""

    def __init__(self, fd: int, sector_size: int) -> None:
        self._fd = fd
        self._direct = -1
        self._buffer = mmap.mmap(-1, max(MIB, sector_size))  # O_DIRECT wants aligned memory
        if sys.platform != "win32" and hasattr(os, "O_DIRECT"):
            try:  # the same object again, whatever its name stands for by now
                self._direct = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
            except OSError:
                self._direct = -1

    def read(self, length: int, offset: int) -> bytes:
        """Up to ``length`` bytes, 1 MiB or a sector at most."""
        with memoryview(self._buffer) as whole, whole[:length] as view:
            try:
                if self._direct >= 0:
                    return bytes(view[: _files.preadinto(self._direct, view, offset)])
            except OSError as exc:
                if exc.errno != errno.EINVAL:  # a file system that wants larger pieces
                    raise
            return bytes(view[: _files.preadinto(self._fd, view, offset)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._direct >= 0:
            os.close(self._direct)
        self._buffer.close()


def _unread(path: str, exc: OSError, length: int, offset: int) -> DeviceReadError:
    lost = exc.errno in (errno.ENODEV, errno.ENXIO, getattr(errno, "ESHUTDOWN", errno.ENXIO))
    return DeviceReadError(
        f"{path}: cannot read {length} bytes at {offset}: {exc.strerror}",
        offset=offset,
        length=length,
        call="pread",
        code=exc.errno,
        hint="the device was taken away"
        if lost
        else "the device is failing; on_read_error=OnReadError.MARK keeps what can be read",
    )
