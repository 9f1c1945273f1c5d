"""Linux ioctl numbers, a flat list, each with its header; and the few ways to call them.

The encoding of a number is that of <asm-generic/ioctl.h>; PowerPC, MIPS, SPARC and Alpha
have one of their own (their <asm/ioctl.h>).
"""

from __future__ import annotations

import os
import struct
import sys

assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest

import fcntl  # noqa: E402 - there is none on Windows

_OWN = os.uname().machine.startswith(("ppc", "mips", "sparc", "alpha"))
_NONE, _WRITE, _READ = (1, 4, 2) if _OWN else (0, 1, 2)
_DIRECTION_SHIFT = 29 if _OWN else 30


def _ioc(direction: int, kind: int, number: int, size: int) -> int:
    return direction << _DIRECTION_SHIFT | size << 16 | kind << 8 | number


_LONG = struct.calcsize("l")

# <linux/fs.h>, block devices.  BLKGETSIZE64 is declared with size_t but fills 64 bits.
BLKROGET = _ioc(_NONE, 0x12, 94, 0)
BLKSSZGET = _ioc(_NONE, 0x12, 104, 0)
BLKGETSIZE64 = _ioc(_READ, 0x12, 114, _LONG)
BLKZEROOUT = _ioc(_NONE, 0x12, 127, 0)

# <linux/fs.h>, file systems and files.
FICLONE = _ioc(_WRITE, 0x94, 9, 4)
FIFREEZE = _ioc(_READ | _WRITE, ord("X"), 119, 4)
FITHAW = _ioc(_READ | _WRITE, ord("X"), 120, 4)
FS_IOC_SETFLAGS = _ioc(_WRITE, ord("f"), 2, _LONG)

# <linux/loop.h>.
LOOP_GET_STATUS64 = 0x4C05


def get_int(fd: int, request: int) -> int:
    """Call a request that fills an ``int``.

    Raises:
        OSError: as ioctl(2) reports it.
    """
    return int(struct.unpack("i", fcntl.ioctl(fd, request, bytes(4)))[0])


def get_u64(fd: int, request: int) -> int:
    """Call a request that fills a ``u64``.

    Raises:
        OSError: as ioctl(2) reports it.
    """
    return int(struct.unpack("Q", fcntl.ioctl(fd, request, bytes(8)))[0])


def on_range(fd: int, request: int, offset: int, length: int) -> None:
    """Call a request on ``uint64_t range[2]``, such as BLKZEROOUT.

    Raises:
        OSError: as ioctl(2) reports it.
    """
    fcntl.ioctl(fd, request, struct.pack("QQ", offset, length))
