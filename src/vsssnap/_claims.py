"""Files by which a process says that it lives: the system lets go of a claim however its process ends.

A claim is an advisory lock, on Windows one far behind the end of the file, so that others can
read it.  Of the same file one process at a time has it.
"""

from __future__ import annotations

import errno
import os
import sys
import time

_TRIES, _PAUSE = 200, 0.01  # of claiming a new file, which somebody may be looking at; seconds between them
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

if sys.platform == "win32":
    import msvcrt

    _PLACE = 1 << 30

    def _lock(fd: int) -> bool:
        """Take the lock; False if somebody has it."""
        os.lseek(fd, _PLACE, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(fd, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _lock(fd: int) -> bool:
        """Take the lock; False if somebody has it."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _claim(fd: int, path: str) -> None:
    for _ in range(_TRIES):
        if _lock(fd):
            return
        time.sleep(_PAUSE)
    raise OSError(errno.EAGAIN, "somebody else holds the lock of a new file", path)


def create(path: str, content: bytes) -> int:
    """Make a file, mode 0600, claim it, and have it on the disk.

    Returns:
        A descriptor; closing it gives up the claim.

    Raises:
        OSError: it cannot be made, or is there.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
    try:
        _claim(fd, path)  # before there is anything to read
        os.write(fd, content)
        os.fsync(fd)
    except BaseException:
        os.close(fd)
        os.unlink(path)
        raise
    return fd


def read(path: str, most: int) -> tuple[bytes, bool]:
    """What a file holds, up to ``most`` bytes, and whether the process that claimed it lives.

    A file that is empty is about to be claimed, or was left so by a process that was killed before that.

    Raises:
        OSError: it cannot be read.
    """
    fd = os.open(path, os.O_RDWR | _FLAGS)
    try:
        content = os.read(fd, most)
        return content, not _lock(fd)
    finally:
        os.close(fd)
