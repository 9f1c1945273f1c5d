"""Text in the registry.

Source: RegOpenKeyExW, RegEnumValueW, "Registry Value Types" (texts may lack their zero at the end);
Windows SDK documentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap._win32._ffi import ffi
from vsssnap._win32.com import wide
from vsssnap._win32.constants import KEY_READ, REG_EXPAND_SZ, REG_MULTI_SZ, REG_SZ, Win32Error
from vsssnap._win32.handles import WindowsCallError

if TYPE_CHECKING:
    from vsssnap._win32.dll import System

_LOCAL_MACHINE = ffi.cast("HANDLE", -0x7FFFFFFE)  # HKEY_LOCAL_MACHINE, a LONG with its sign
_NAME = 16384  # UTF-16 units: the longest name of a value, and its zero
_ROOM = 256 << 10  # bytes of a value; what is longer is left out


def texts(system: System, key: str) -> dict[str, list[str]]:
    r"""The values of a key below ``HKEY_LOCAL_MACHINE`` that are text, each as its lines.

    Raises:
        WindowsCallError: it cannot be read; ERROR_FILE_NOT_FOUND if there is none.
    """
    advapi32 = system.advapi32
    opened = ffi.new("HANDLE *")
    code = advapi32.RegOpenKeyExW(_LOCAL_MACHINE, wide(key), 0, KEY_READ, opened)
    if code:
        raise WindowsCallError(f"RegOpenKeyExW({key})", code)
    name, data = ffi.new("WCHAR[]", _NAME), ffi.new("BYTE[]", _ROOM)
    name_size, kind, size = (ffi.new("DWORD *") for _ in range(3))
    found: dict[str, list[str]] = {}
    try:
        for index in range(1 << 16):
            name_size[0], size[0] = _NAME, _ROOM
            code = advapi32.RegEnumValueW(opened[0], index, name, name_size, ffi.NULL, kind, data, size)
            if code == Win32Error.ERROR_NO_MORE_ITEMS:
                break
            if code == Win32Error.ERROR_MORE_DATA:
                continue
            if code:
                raise WindowsCallError(f"RegEnumValueW({key})", code)
            if kind[0] in (REG_SZ, REG_EXPAND_SZ, REG_MULTI_SZ):
                raw = bytes(ffi.buffer(data, min(size[0], _ROOM)))
                lines = raw[: len(raw) & ~1].decode("utf-16-le", "surrogatepass").split("\0")
                found[str(ffi.string(name))] = [line for line in lines if line]
    finally:
        advapi32.RegCloseKey(opened[0])
    return found
