"""Files of a volume or shadow copy: which there are, and in which clusters they lie.

Sources: FindFirstFileW, FSCTL_GET_RETRIEVAL_POINTERS (a file that lies in its record has none:
ERROR_HANDLE_EOF; an Lcn of -1 is a hole), BY_HANDLE_FILE_INFORMATION; Windows SDK documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap._win32._ffi import ffi
from vsssnap._win32.blocking import answered
from vsssnap._win32.com import wide
from vsssnap._win32.constants import (
    FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_REPARSE_POINT,
    Control,
    Win32Error,
)
from vsssnap._win32.handles import INVALID_HANDLE, WindowsCallError, last
from vsssnap._win32.overlapped import OverlappedFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap._win32.dll import System
    from vsssnap._win32.protocols import CData

_ROOM = 64 << 10  # bytes of retrieval pointers at a time
_SOME = 1000  # names of a folder at a time
_NOTHING = (
    Win32Error.ERROR_FILE_NOT_FOUND,
    Win32Error.ERROR_PATH_NOT_FOUND,
    Win32Error.ERROR_NO_MORE_FILES,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What a folder holds.

    Attributes:
        name: Without the folder.
        is_folder: Whether it is a folder.
        is_link: Whether it is a reparse point, which may lead anywhere.
    """

    name: str
    is_folder: bool
    is_link: bool


def entries(system: System, folder: str) -> Iterator[Entry]:
    """All that a folder holds; nothing if there is no such folder.

    Raises:
        WindowsCallError: it cannot be listed.
    """
    kernel32, call = system.kernel32, f"FindFirstFileW({folder})"
    pattern, out = wide(folder.rstrip("\\") + "\\*"), ffi.new("WIN32_FIND_DATAW *")

    def close(search: CData) -> None:
        if search != INVALID_HANDLE:
            kernel32.FindClose(search)

    search, code = answered(system, call, lambda: kernel32.FindFirstFileW(pattern, out), close)
    if search == INVALID_HANDLE:
        if code in _NOTHING:
            return
        raise WindowsCallError(call, code)

    ours = True  # to close; a call that is left behind sees that it is not, and ends

    def more() -> list[Entry]:
        found: list[Entry] = []
        while ours and len(found) < _SOME and kernel32.FindNextFileW(search, out):
            found.append(_entry(out))
        return found

    try:
        yield from _named([_entry(out)])
        while True:
            try:
                some, code = answered(system, f"FindNextFileW({folder})", more, lambda _: close(search))
            except BaseException as exc:
                # A call that goes on closes it when it ends; one that never began does not.
                ours = isinstance(exc, WindowsCallError) and exc.code != Win32Error.ERROR_TIMEOUT
                raise
            yield from _named(some)
            if len(some) < _SOME:
                break
    finally:
        if ours:
            close(search)
    if code not in _NOTHING:
        raise WindowsCallError(f"FindNextFileW({folder})", code)


def _named(some: list[Entry]) -> Iterator[Entry]:
    return (entry for entry in some if entry.name not in (".", ".."))


def _entry(found: CData) -> Entry:
    attributes = found.dwFileAttributes
    return Entry(
        str(ffi.string(found.cFileName)),
        bool(attributes & FILE_ATTRIBUTE_DIRECTORY),
        bool(attributes & FILE_ATTRIBUTE_REPARSE_POINT),
    )


def clusters_of(system: System, path: str) -> tuple[int, list[tuple[int, int]]]:
    """Where the contents of a file lie.

    Returns:
        How many names it has, and its runs of clusters: first and count.

    Raises:
        WindowsCallError: it cannot be opened, or does not say; ERROR_FILE_NOT_FOUND if there is none.
    """
    file = _File(system, path, facts_only=True)
    try:
        return file.links(), list(file.runs())
    finally:
        file.close()


class _File(OverlappedFile):
    def links(self) -> int:
        out = ffi.new("BY_HANDLE_FILE_INFORMATION *")
        if not self._system.kernel32.GetFileInformationByHandle(self._handle.value, out):
            raise last(self._system, "GetFileInformationByHandle")
        return int(out.nNumberOfLinks)

    def runs(self) -> Iterator[tuple[int, int]]:
        start = ffi.new("STARTING_VCN_INPUT_BUFFER *")
        room = ffi.new("char[]", _ROOM)
        found = ffi.cast("RETRIEVAL_POINTERS_BUFFER *", room)
        head = ffi.offsetof("RETRIEVAL_POINTERS_BUFFER", "Extents")
        pairs = ffi.cast("LONGLONG *", room + head)
        while True:
            try:
                done = self.control(
                    Control.FSCTL_GET_RETRIEVAL_POINTERS,
                    source=start,
                    out=room,
                    out_size=_ROOM,
                    partial=True,
                )
            except WindowsCallError as exc:
                if exc.code == Win32Error.ERROR_HANDLE_EOF:  # no clusters from here on
                    return
                raise
            vcn = int(found.StartingVcn)
            count = min(int(found.ExtentCount), max(0, done - head) // 16)
            if not count or vcn != start.StartingVcn:
                raise WindowsCallError(
                    f"DeviceIoControl({Control.FSCTL_GET_RETRIEVAL_POINTERS.name})",
                    Win32Error.ERROR_INVALID_PARAMETER,
                )
            for index in range(count):
                after, lcn = int(pairs[2 * index]), int(pairs[2 * index + 1])
                if after <= vcn:
                    raise WindowsCallError(
                        f"DeviceIoControl({Control.FSCTL_GET_RETRIEVAL_POINTERS.name})",
                        Win32Error.ERROR_INVALID_PARAMETER,
                    )
                if lcn >= 0:
                    yield lcn, after - vcn
                vcn = after
            start.StartingVcn = vcn
