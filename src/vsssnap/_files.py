"""Positional input and output on descriptors, for both systems."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

if sys.platform == "win32":
    import contextlib
    import msvcrt
    import threading

    def binary(fd: int) -> None:
        """Take and give bytes as they are: a descriptor may be in text mode, as standard output is."""
        with contextlib.suppress(OSError):  # no descriptor: reading or writing says so better
            msvcrt.setmode(fd, os.O_BINARY)

    _cursor = threading.Lock()  # no pread here: every descriptor has one cursor, used by one thread at a time

    def pread(fd: int, length: int, offset: int) -> bytes:
        """`os.pread`: up to ``length`` bytes."""
        with _cursor:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.read(fd, length)

    def preadinto(fd: int, view: memoryview, offset: int) -> int:
        """Read up to ``len(view)`` bytes into ``view``."""
        data = pread(fd, len(view), offset)
        view[: len(data)] = data
        return len(data)

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        """`os.pwrite`: bytes written."""
        with _cursor:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.write(fd, data)

    def ranges(fd: int, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """All data: allocated ranges are not asked for here yet."""
        yield offset, length, True

else:

    def binary(fd: int) -> None:
        """Nothing: here bytes are bytes."""

    pread = os.pread
    pwrite = os.pwrite

    def preadinto(fd: int, view: memoryview, offset: int) -> int:
        """Read up to ``len(view)`` bytes into ``view``."""
        return os.preadv(fd, [view], offset)

    def ranges(fd: int, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """Data and holes of a file (SEEK_DATA and SEEK_HOLE, lseek(2)).

        The descriptor's cursor is moved, so it must not be used for plain reads.

        Yields:
            ``(offset, length, is data)``, gap-free over the range; all data where the file
            system or device cannot tell.  What lies behind the end of the file is a hole.
        """
        at, end = offset, offset + length
        while at < end:
            try:
                data = min(end, os.lseek(fd, at, os.SEEK_DATA))
            except OSError as exc:
                if exc.errno == errno.ENXIO:  # no data from here to the end of the file
                    yield at, end - at, False
                    return
                if exc.errno in (errno.EINVAL, errno.ESPIPE, errno.EOPNOTSUPP):
                    yield at, end - at, True
                    return
                raise
            if data > at:
                yield at, data - at, False
            if data < end:
                try:
                    hole = min(end, os.lseek(fd, data, os.SEEK_HOLE))
                except OSError as exc:
                    if exc.errno != errno.ENXIO:
                        raise
                    hole = end  # the file was cut meanwhile: reading it as data is what shows that
                # A file that is written meanwhile may show its hole at or before its data.
                hole = max(hole, data + 1)
                yield data, hole - data, True
                data = hole
            at = data
