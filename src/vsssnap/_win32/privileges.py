"""What this process may do, asked before VSS answers with a bare number.

Sources: "Security Considerations for Requesters" (who may be a requester), "Usage Conventions" (no
requester under WOW64), AdjustTokenPrivileges, GetTokenInformation (TokenElevation),
QueryServiceConfigW; Windows SDK documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vsssnap._win32._ffi import ffi
from vsssnap._win32.com import wide
from vsssnap._win32.constants import (
    SC_MANAGER_CONNECT,
    SE_PRIVILEGE_ENABLED,
    SERVICE_DISABLED,
    SERVICE_QUERY_CONFIG,
    TOKEN_ADJUST_PRIVILEGES,
    TOKEN_QUERY,
    TokenElevation,
    Win32Error,
)
from vsssnap._win32.handles import Handle, last

if TYPE_CHECKING:
    from vsssnap._win32.dll import System

_CONFIG_ROOM = 8192  # bytes; the most that QueryServiceConfigW gives
_NOT_ALL = Win32Error.ERROR_NOT_ALL_ASSIGNED


@contextmanager
def _token(system: System, access: int) -> Iterator[Handle]:
    out = ffi.new("HANDLE *")
    if not system.advapi32.OpenProcessToken(system.kernel32.GetCurrentProcess(), access, out):
        raise last(system, "OpenProcessToken")
    token = Handle(system, out[0])
    try:
        yield token
    finally:
        token.close()


def is_elevated(system: System) -> bool:
    """Whether the process runs with an administrator's full token.

    Raises:
        WindowsCallError: Windows does not say.
    """
    with _token(system, TOKEN_QUERY) as token:
        elevated, needed = ffi.new("DWORD *"), ffi.new("DWORD *")
        if not system.advapi32.GetTokenInformation(token.value, TokenElevation, elevated, 4, needed):
            raise last(system, "GetTokenInformation(TokenElevation)")
        return bool(elevated[0])


def enable(system: System, name: str) -> bool:
    """Switch a privilege on for this process; False if the account does not have it.

    Raises:
        WindowsCallError: there is no such privilege, or the token cannot be changed.
    """
    with _token(system, TOKEN_ADJUST_PRIVILEGES | TOKEN_QUERY) as token:
        wanted = ffi.new("TOKEN_PRIVILEGES *")
        wanted.PrivilegeCount = 1
        wanted.Privileges[0].Attributes = SE_PRIVILEGE_ENABLED
        luid = ffi.addressof(wanted.Privileges[0], "Luid")
        if not system.advapi32.LookupPrivilegeValueW(ffi.NULL, wide(name), luid):
            raise last(system, "LookupPrivilegeValueW")
        if not system.advapi32.AdjustTokenPrivileges(token.value, 0, wanted, 0, ffi.NULL, ffi.NULL):
            raise last(system, "AdjustTokenPrivileges")
        return system.last_error() != _NOT_ALL  # it succeeds also when it changed nothing


def is_wow64(system: System) -> bool:
    """Whether this is a 32-bit process on a 64-bit Windows, where VSS does not work.

    Raises:
        WindowsCallError: Windows does not say.
    """
    out = ffi.new("BOOL *")
    if not system.kernel32.IsWow64Process(system.kernel32.GetCurrentProcess(), out):
        raise last(system, "IsWow64Process")
    return bool(out[0])


def service_problem(system: System, name: str) -> str:
    """Why a service cannot be started ("is disabled", "is not installed"), or "".

    Raises:
        WindowsCallError: the service manager cannot be asked.
    """
    advapi32 = system.advapi32
    manager = advapi32.OpenSCManagerW(ffi.NULL, ffi.NULL, SC_MANAGER_CONNECT)
    if not manager:
        raise last(system, "OpenSCManagerW")
    try:
        service = advapi32.OpenServiceW(manager, wide(name), SERVICE_QUERY_CONFIG)
        if not service:
            failure = last(system, f"OpenServiceW({name})")
            if failure.code == Win32Error.ERROR_SERVICE_DOES_NOT_EXIST:
                return "is not installed"
            raise failure
        try:
            room, needed = ffi.new("char[]", _CONFIG_ROOM), ffi.new("DWORD *")
            config = ffi.cast("QUERY_SERVICE_CONFIGW *", room)
            if not advapi32.QueryServiceConfigW(service, config, _CONFIG_ROOM, needed):
                raise last(system, f"QueryServiceConfigW({name})")
            return "is disabled" if config.dwStartType == SERVICE_DISABLED else ""
        finally:
            advapi32.CloseServiceHandle(service)
    finally:
        advapi32.CloseServiceHandle(manager)
