"""Positional reads and writes of files that the C library has opened, and their holes.

Sources: ReadFile, WriteFile ("lpOverlapped": on a handle that was not opened for overlapped calls the
place is taken from it and the call returns when it is done), _get_osfhandle,
FSCTL_QUERY_ALLOCATED_RANGES (ERROR_MORE_DATA: the rest is asked for from behind the last range),
FSCTL_SET_SPARSE; Windows SDK documentation.
"""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING

from vsssnap._win32 import dll
from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import Control, Win32Error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap._win32.protocols import CData

_LONGEST = 1 << 30  # bytes of one call, whose length is a DWORD
_RANGES = 512  # of a file that are asked for at once
_CANNOT_TELL = (
    Win32Error.ERROR_INVALID_FUNCTION,
    Win32Error.ERROR_NOT_SUPPORTED,
    Win32Error.ERROR_INVALID_PARAMETER,
)


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


def ranges(
    handle: int, offset: int, length: int, *, system: dll.System | None = None
) -> Iterator[tuple[int, int, bool]]:
    """Data and holes of a file: the latter have no clusters, and read as zeros.

    Yields:
        ``(offset, length, is data)``, gap-free over the range; all data where the file system or
        device cannot tell.  What lies behind the end of the file is a hole.

    Raises:
        OSError: as Windows says.
    """
    system = system or _system()
    room = ffi.new("FILE_ALLOCATED_RANGE_BUFFER[]", _RANGES)
    at, end = offset, offset + length
    while at < end:
        found, more = _allocated(system, handle, at, end - at, room)
        if found is None:
            yield at, end - at, True
            return
        asked = at
        for start, stop in found:
            start, stop = max(start, at), min(stop, end)
            if stop <= start:
                continue
            if start > at:
                yield at, start - at, False
            yield start, stop - start, True
            at = stop
        if more and at > asked:
            continue
        if at < end:
            yield at, end - at, more  # that there is more, and nothing of it, says nothing
            return


def _allocated(
    system: dll.System, handle: int, offset: int, length: int, room: CData
) -> tuple[list[tuple[int, int]] | None, bool]:
    """Ranges with clusters in a range, each by its first byte and the one behind it, and whether more follow.

    None where the file system does not say.
    """
    asked = ffi.new("FILE_ALLOCATED_RANGE_BUFFER *", (offset, length))
    code, done = _control(system, handle, Control.FSCTL_QUERY_ALLOCATED_RANGES, asked, room)
    if code in _CANNOT_TELL:
        return None, False
    if code not in (0, Win32Error.ERROR_MORE_DATA):
        raise _error(code)
    count = min(done // ffi.sizeof("FILE_ALLOCATED_RANGE_BUFFER"), len(room))
    found = (room[index] for index in range(count))
    return [(each.FileOffset, each.FileOffset + each.Length) for each in found], bool(code)


def make_sparse(handle: int, *, system: dll.System | None = None) -> bool:
    """Have a file that is still empty keep no clusters where nothing is written; whether it does so."""
    code, _ = _control(system or _system(), handle, Control.FSCTL_SET_SPARSE, ffi.NULL, ffi.NULL)
    return not code


def _control(system: dll.System, handle: int, code: Control, source: CData, out: CData) -> tuple[int, int]:
    """DeviceIoControl that returns when it is done: its error, and the bytes that it gave."""
    over, done = _at(0)
    ok = system.kernel32.DeviceIoControl(
        ffi.cast("HANDLE", handle),
        code,
        source,
        ffi.sizeof(ffi.typeof(source).item) if source else 0,
        out,
        ffi.sizeof(out) if out else 0,
        done,
        over,
    )
    return 0 if ok else system.last_error(), int(done[0])


def _at(offset: int) -> tuple[CData, CData]:
    over = ffi.new("OVERLAPPED *")
    over.Offset, over.OffsetHigh = offset & 0xFFFFFFFF, offset >> 32
    return over, ffi.new("DWORD *")


def _system() -> dll.System:
    return dll.windows()


def _error(code: int) -> OSError:
    # On Windows the fourth argument decides, and gives the errno that belongs to it.
    text = ffi.getwinerror(code)[1] if sys.platform == "win32" else f"error {code} of a stand-in"
    return OSError(errno.EIO, text, None, code)
