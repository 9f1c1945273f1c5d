"""Files of shadow copies, the registry, and memory, as far as imaging asks for them.

Rules: FSCTL_GET_RETRIEVAL_POINTERS, FindFirstFileW, RegEnumValueW, VirtualAlloc; Windows SDK documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import (
    FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_REPARSE_POINT,
    KEY_READ,
    REG_MULTI_SZ,
    Control,
    Win32Error,
)
from vsssnap._win32.handles import INVALID_HANDLE

if TYPE_CHECKING:
    from vsssnap.testing.fake_vss.machine import Machine
    from vsssnap.testing.fake_vss.parts import FakeFile, FakeVolume
    from vsssnap.testing.fake_vss.pending import Pending

CData = Any
_SOME_POINTERS = 2  # runs that are given at a time, so that asking goes on


class OpenFile:
    """A handle of a file."""

    def __init__(self, file: FakeFile) -> None:
        self.file = file

    def pointers(self, code: int, source: CData, out: CData, out_size: int) -> tuple[int, int]:
        """FSCTL_GET_RETRIEVAL_POINTERS: an error, and how many bytes were given."""
        if code != Control.FSCTL_GET_RETRIEVAL_POINTERS:
            return Win32Error.ERROR_INVALID_FUNCTION, 0
        start = ffi.cast("STARTING_VCN_INPUT_BUFFER *", source).StartingVcn
        runs, vcn = [], 0
        for lcn, count in self.file.runs:
            if vcn + count > start:
                runs.append((vcn, vcn + count, lcn))
            vcn += count
        if not runs:
            return Win32Error.ERROR_HANDLE_EOF, 0
        head = ffi.offsetof("RETRIEVAL_POINTERS_BUFFER", "Extents")
        given = runs[: min(_SOME_POINTERS, (out_size - head) // 16)]
        made = ffi.cast("RETRIEVAL_POINTERS_BUFFER *", out)
        made.ExtentCount, made.StartingVcn = len(given), given[0][0]
        pairs = ffi.cast("LONGLONG *", ffi.cast("char *", out) + head)
        for index, (_, after, lcn) in enumerate(given):
            pairs[2 * index], pairs[2 * index + 1] = after, lcn
        more = len(given) < len(runs)
        return Win32Error.ERROR_MORE_DATA if more else 0, head + 16 * len(given)


def _inside(machine: Machine, path: str) -> tuple[FakeVolume, str] | None:
    """The volume and the path on it of a path on a shadow copy."""
    for shadow in machine.shadows.values():
        if path.startswith(shadow.device + "\\") and not shadow.lost:
            return shadow.volume, path[len(shadow.device) :]
    return None


def find_file(machine: Machine, path: str) -> OpenFile | None:
    """A file of a shadow copy by its path."""
    found = _inside(machine, path)
    if found is None:
        return None
    volume, inside = found
    for name, file in volume.files.items():
        if name.lower() == inside.lower():
            return OpenFile(file)
    return None


class Files:
    """The part of kernel32 that lists folders."""

    def __init__(self, machine: Machine, pending: Pending) -> None:
        self._machine = machine
        self._pending = pending

    def FindFirstFileW(self, pattern: CData, out: CData) -> CData:
        """All of a folder of a shadow copy."""
        machine, text = self._machine, str(ffi.string(pattern))
        code = self._pending.refusal("FindFirstFileW")
        found = _inside(machine, text) if code is None else None
        folder = found[1].removesuffix("*").lower() if found is not None else ""
        if found is None or not text.endswith("\\*"):
            machine.set_error(Win32Error.ERROR_PATH_NOT_FOUND if code is None else code)
            return INVALID_HANDLE
        names: dict[str, int] = {}
        for path, file in found[0].files.items():
            if path.lower().startswith(folder):
                name, _, below = path[len(folder) :].partition("\\")
                link = FILE_ATTRIBUTE_REPARSE_POINT if file.link and not below else 0
                names[name] = (FILE_ATTRIBUTE_DIRECTORY if below or file.folder else 0x80) | link
        if not names:
            machine.set_error(Win32Error.ERROR_PATH_NOT_FOUND)
            return INVALID_HANDLE
        dots = {".": FILE_ATTRIBUTE_DIRECTORY, "..": FILE_ATTRIBUTE_DIRECTORY}
        search = machine.handle("folder", iter({**dots, **names}.items()))
        self._next(search, out)
        return search

    def FindNextFileW(self, search: CData, out: CData) -> int:
        """The next name."""
        code = self._pending.refusal("FindNextFileW")
        return self._next(search, out) if code is None else self._machine.refuse(code)

    def _next(self, search: CData, out: CData) -> int:
        names = self._machine.opened(search, "folder")
        found = next(names, None) if isinstance(names, Iterator) else None
        if found is None:
            return self._machine.refuse(Win32Error.ERROR_NO_MORE_FILES)
        out.cFileName, out.dwFileAttributes = f"{found[0]}\0", found[1]
        return 1

    def FindClose(self, search: CData) -> int:
        """Ends a search."""
        return self._machine.close_handle(search, "folder")

    def GetFileInformationByHandle(self, handle: CData, out: CData) -> int:
        """How many names a file has."""
        found = self._machine.opened(handle, "file")
        if not isinstance(found, OpenFile):
            return self._machine.refuse(Win32Error.ERROR_INVALID_HANDLE)
        out.nNumberOfLinks = found.file.links
        return 1


class Registry:
    """The part of advapi32 that reads the registry."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def RegOpenKeyExW(self, root: CData, key: CData, options: int, access: int, out: CData) -> int:
        """A key of the local machine."""
        del options
        found = self._machine.registry.get(str(ffi.string(key)))
        if found is None or access != KEY_READ or int(ffi.cast("intptr_t", root)) != -0x7FFFFFFE:
            return Win32Error.ERROR_FILE_NOT_FOUND
        out[0] = self._machine.handle("key", list(found.items()))
        return 0

    def RegEnumValueW(
        self,
        key: CData,
        index: int,
        name: CData,
        name_size: CData,
        reserved: CData,
        kind: CData,
        data: CData,
        size: CData,
    ) -> int:
        """A value, as lines of text."""
        del reserved
        values = self._machine.opened(key, "key")
        if not isinstance(values, list) or index >= len(values):
            return Win32Error.ERROR_NO_MORE_ITEMS
        text, lines = values[index]
        raw = "".join(f"{line}\0" for line in [*lines, ""]).encode("utf-16-le")
        if len(text) >= name_size[0] or len(raw) > size[0]:
            return Win32Error.ERROR_MORE_DATA
        for place, unit in enumerate(f"{text}\0"):
            name[place] = unit
        name_size[0], kind[0], size[0] = len(text), REG_MULTI_SZ, len(raw)
        ffi.memmove(data, raw, len(raw))
        return 0

    def RegCloseKey(self, key: CData) -> int:
        """A key comes back."""
        return 0 if self._machine.close_handle(key, "key") else Win32Error.ERROR_INVALID_HANDLE


class Memory:
    """The part of kernel32 that gives pages."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def VirtualAlloc(self, address: CData, size: int, kind: int, protect: int) -> CData:
        """Zeroed pages."""
        del address, kind, protect
        memory = ffi.new("char[]", size + 65536)
        start = -(-int(ffi.cast("uintptr_t", memory)) // 65536) * 65536
        self._machine.ledger.lend("pages", start, memory)
        return ffi.cast("void *", start)

    def VirtualFree(self, address: CData, size: int, kind: int) -> int:
        """All pages of one VirtualAlloc."""
        if size or kind != 0x8000:
            self._machine.ledger.forbid("VirtualFree: MEM_RELEASE takes size 0")
        self._machine.ledger.take_back("pages", int(ffi.cast("uintptr_t", address)))
        return 1
