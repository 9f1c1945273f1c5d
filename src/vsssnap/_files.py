"""Positional input and output on descriptors, for both systems; any thread, and no lock is held."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Opened:
    """A source or target that is open; whoever gets it closes ``fd``.

    Attributes:
        fd: The descriptor.
        kind: What it is.
        size: Bytes.
        sector_size: Logical sector size, bytes.
        path: As the caller named it.
        identity: Equal for two names of one thing: kind and two numbers (of a device its major
            and minor, of a file its ``st_dev`` and ``st_ino``).
    """

    fd: int
    kind: Literal["file", "block"]
    size: int
    sector_size: int
    path: str
    identity: tuple[str, int, int]
    rdev: int = 0


if sys.platform == "win32":
    import msvcrt

    def binary(fd: int) -> None:
        """Take and give bytes as they are: a descriptor may be in text mode, as standard output is."""
        with contextlib.suppress(OSError):  # no descriptor: reading or writing says so better
            msvcrt.setmode(fd, os.O_BINARY)

    def pread(fd: int, length: int, offset: int) -> bytes:
        """`os.pread`: up to ``length`` bytes."""
        data = bytearray(length)
        with memoryview(data) as view:
            count = preadinto(fd, view, offset)
        return bytes(data) if count == length else bytes(data[:count])

    def preadinto(fd: int, view: memoryview, offset: int) -> int:
        """Read up to ``len(view)`` bytes into ``view``."""
        from vsssnap._win32 import files  # which an import of the library does not need

        return files.read_into(msvcrt.get_osfhandle(fd), view, offset)

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        """`os.pwrite`: bytes written."""
        from vsssnap._win32 import files

        return files.write(msvcrt.get_osfhandle(fd), data, offset)

    def pwritev(fd: int, parts: Sequence[memoryview], offset: int) -> int:
        """Write the first part, or some of it: bytes written."""
        return pwrite(fd, parts[0], offset)

    def append(fd: int, data: memoryview) -> int:
        """`os.write`; a pipe whose reader has ended is a BrokenPipeError here, too.

        The C library has no number for what Windows says then (ERROR_NO_DATA), and gives EINVAL.
        """
        try:
            return os.write(fd, data)
        except OSError as exc:
            if exc.errno == errno.EINVAL and stat.S_ISFIFO(os.fstat(fd).st_mode):
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from exc
            raise

    def start_writing(fd: int, offset: int, length: int) -> None:
        """Nothing: the system begins by itself."""

    def ranges(fd: int, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """Data and holes of a file: `vsssnap._win32.files.ranges`."""
        from vsssnap._win32 import files

        # By a generator: the descriptor is looked at when the first range is asked for, as elsewhere.
        yield from files.ranges(msvcrt.get_osfhandle(fd), offset, length)

    def make_sparse(fd: int) -> None:
        """Have a file that is still empty take no room where nothing is written, if it can."""
        from vsssnap._win32 import files

        files.make_sparse(msvcrt.get_osfhandle(fd))

else:

    def binary(fd: int) -> None:
        """Nothing: here bytes are bytes."""

    append = os.write
    pread = os.pread
    pwrite = os.pwrite

    def pwritev(fd: int, parts: Sequence[memoryview], offset: int) -> int:
        """`os.pwritev`: bytes written, of at most 1024 parts (IOV_MAX)."""
        return os.pwritev(fd, parts[:1024], offset)

    def start_writing(fd: int, offset: int, length: int) -> None:
        """Let the disk begin with what was written to a range; nobody waits for it.

        POSIX_FADV_DONTNEED does that, and drops only pages that are clean by then
        (posix_fadvise(2)); sync_file_range(2) would say it better, but Python has no call for it.
        """
        with contextlib.suppress(OSError):  # an advice
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)

    def make_sparse(fd: int) -> None:
        """Nothing: here every file may have holes."""

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
