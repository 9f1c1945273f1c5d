"""Handles and the errors of Win32 calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import Win32Error

if TYPE_CHECKING:
    from vsssnap._win32.dll import System
    from vsssnap._win32.protocols import CData

INVALID_HANDLE = ffi.cast("HANDLE", -1)

_NAMES = {int(member): member.name for member in Win32Error}


class WindowsCallError(Exception):
    """A Win32 call failed; the floors above turn it into an error of the library.

    Attributes:
        call: Name of the function, with the control code if there is one.
        code: What GetLastError gave.
    """

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"{call}: {_NAMES.get(code, f'error {code}')}")
        self.call = call
        self.code = code


def last(system: System, call: str) -> WindowsCallError:
    """The error of the call that this thread has just made."""
    return WindowsCallError(call, system.last_error())


class Handle:
    """A handle of the kernel, closed once."""

    def __init__(self, system: System, value: CData) -> None:
        self._system = system
        self.value = value

    def close(self) -> None:
        """Close it.  Idempotent."""
        value, self.value = self.value, INVALID_HANDLE
        if value != INVALID_HANDLE:
            self._system.kernel32.CloseHandle(value)
