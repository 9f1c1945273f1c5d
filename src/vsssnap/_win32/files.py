"""Positional reads and writes of files that the C library has opened.

Source: ReadFile, WriteFile ("lpOverlapped": on a handle that was not opened for overlapped calls the
place is taken from it and the call returns when it is done), _get_osfhandle; Windows SDK documentation.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vsssnap._win32 import dll
from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import Win32Error

if TYPE_CHECKING:
    from vsssnap._win32.protocols import CData

_LONGEST = 1 << 30  # bytes of one call, whose length is a DWORD


def read_into(handle: int, view: memoryview, offset: int) -> int:
    """Read up to ``len(view)`` bytes; 0 at the end.

    Raises:
        OSError: as Windows says.
    """
    over, done = _at(offset)
    kernel32 = _system().kernel32
    with ffi.from_buffer("char[]", view) as memory:
        length = min(len(view), _LONGEST)
        ok = kernel32.ReadFile(ffi.cast("HANDLE", handle), memory, length, done, over)
        if not ok:
            code = _system().last_error()
            if code != Win32Error.ERROR_HANDLE_EOF:
                raise _error(code)
            return 0
    return int(done[0])


def write(handle: int, data: memoryview, offset: int) -> int:
    """Write; bytes written.

    Raises:
        OSError: as Windows says.
    """
    over, done = _at(offset)
    kernel32 = _system().kernel32
    with ffi.from_buffer("char[]", data) as memory:
        length = min(len(data), _LONGEST)
        if not kernel32.WriteFile(ffi.cast("HANDLE", handle), memory, length, done, over):
            raise _error(_system().last_error())
    return int(done[0])


def _at(offset: int) -> tuple[CData, CData]:
    over = ffi.new("OVERLAPPED *")
    over.Offset, over.OffsetHigh = offset & 0xFFFFFFFF, offset >> 32
    return over, ffi.new("DWORD *")


def _system() -> dll.System:
    return dll.windows()


def _error(code: int) -> OSError:
    # On Windows the fourth argument decides, and gives the errno that belongs to it.
    return OSError(errno.EIO, ffi.getwinerror(code)[1], None, code)
