r"""What a volume is called.

VSS takes a drive (``X:\``), a mounted folder or a volume GUID path, each with a backslash at the
end (IVssBackupComponents::AddToSnapshotSet).  Two names of one volume have one GUID path.

Source: "Naming a Volume", GetVolumePathNameW, GetVolumeNameForVolumeMountPointW,
GetVolumePathNamesForVolumeNameW; Windows SDK documentation.

Where a call may have to ask a disk, it is made as `blocking` does: a disk that is dead holds nobody.
What drives and GUID paths stand for is known to the mount manager, which asks none.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from vsssnap._win32._ffi import ffi
from vsssnap._win32.blocking import answered
from vsssnap._win32.com import wide
from vsssnap._win32.constants import DriveType, Win32Error
from vsssnap._win32.handles import WindowsCallError, last

if TYPE_CHECKING:
    from collections.abc import Callable

    from vsssnap._win32.dll import System

_LONG = 32768  # UTF-16 units: the longest path
_FILE_SYSTEM = 261  # UTF-16 units: the longest name of one
_GUID_PATH = re.compile(
    r"\\\\\?\\Volume\{[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}\\?", re.IGNORECASE | re.ASCII
)
_DRIVE = re.compile(r"[a-zA-Z]:[\\/]?", re.ASCII)


def is_guid_path(name: str) -> bool:
    r"""Whether a name is ``\\?\Volume{...}``, with or without the backslash at its end."""
    return _GUID_PATH.fullmatch(name) is not None


def full_path(system: System, name: str) -> str:
    """An absolute path with a backslash at the end.

    Raises:
        WindowsCallError: Windows does not take it for a path.
    """
    if _DRIVE.fullmatch(name):  # the path of a bare "C:" is the current folder of that drive
        return f"{name[0].upper()}:\\"
    out = ffi.new("WCHAR[]", _LONG)
    length = system.kernel32.GetFullPathNameW(wide(name), _LONG, out, ffi.NULL)
    if not length:
        raise last(system, "GetFullPathNameW")
    if length >= _LONG:
        raise WindowsCallError("GetFullPathNameW", Win32Error.ERROR_INVALID_NAME)
    return str(ffi.string(out)).rstrip("\\") + "\\"


def volume_guid_path(system: System, name: str) -> str:
    r"""The one name of the volume that is mounted at a path.

    Args:
        system: The libraries.
        name: A drive, a mounted folder, or a volume GUID path.

    Returns:
        ``\\?\Volume{...}\``.

    Raises:
        WindowsCallError: there is none; ERROR_NOT_A_REPARSE_POINT if the path is a folder on a
            volume and not the root of one.
    """
    path = name.rstrip("\\") + "\\" if is_guid_path(name) else full_path(system, name)
    path = _mounted_there(system, path)
    # Once more, for a mounted folder may give a name that is not the volume's first one.
    with contextlib.suppress(WindowsCallError):
        path = _mounted_there(system, path)
    return path


def _mounted_there(system: System, root: str) -> str:
    kernel32, name, out = system.kernel32, wide(root), ffi.new("WCHAR[]", 64)
    call = "GetVolumeNameForVolumeMountPointW"
    if is_guid_path(root) or _DRIVE.fullmatch(root):
        if not kernel32.GetVolumeNameForVolumeMountPointW(name, out, 64):
            raise last(system, call)
    else:
        _asked(system, call, lambda: kernel32.GetVolumeNameForVolumeMountPointW(name, out, 64))
    return str(ffi.string(out))


def _asked(system: System, call: str, ask: Callable[[], int]) -> None:
    """Make a call that gives 0 if it fails.

    Raises:
        WindowsCallError: it failed; ERROR_TIMEOUT if it was not answered.
    """
    done, code = answered(system, call, ask)
    if not done:
        raise WindowsCallError(call, code)


def mount_points(system: System, guid_path: str) -> list[str]:
    """Where a volume is mounted: drives and folders, each with a backslash at its end.

    Raises:
        WindowsCallError: there is no such volume.
    """
    out, needed = ffi.new("WCHAR[]", _LONG), ffi.new("DWORD *")
    if not system.kernel32.GetVolumePathNamesForVolumeNameW(wide(guid_path), out, _LONG, needed):
        raise last(system, "GetVolumePathNamesForVolumeNameW")
    return [name for name in str(ffi.unpack(out, min(needed[0], _LONG))).split("\0") if name]


def expand(system: System, text: str) -> str:
    """A text with its environment variables replaced; one that is not set stays as it is.

    Raises:
        WindowsCallError: it becomes too long.
    """
    out = ffi.new("WCHAR[]", _LONG)
    needed = system.kernel32.ExpandEnvironmentStringsW(wide(text), out, _LONG)
    if not needed:
        raise last(system, "ExpandEnvironmentStringsW")
    if needed > _LONG:
        raise WindowsCallError("ExpandEnvironmentStringsW", Win32Error.ERROR_INSUFFICIENT_BUFFER)
    return str(ffi.string(out))


def volume_of_path(system: System, path: str) -> str:
    r"""The GUID path of the volume that a file or folder lies on, whether or not that exists.

    Args:
        system: The libraries.
        path: Absolute, or with environment variables in it; names at its end may be missing.

    Raises:
        WindowsCallError: there is no such volume.
    """
    kernel32, name, out = system.kernel32, wide(expand(system, path)), ffi.new("WCHAR[]", _LONG)
    _asked(system, "GetVolumePathNameW", lambda: kernel32.GetVolumePathNameW(name, out, _LONG))
    return volume_guid_path(system, str(ffi.string(out)))


def drive_type(system: System, root: str) -> DriveType:
    """What kind of drive a root path is of."""
    try:
        return DriveType(system.kernel32.GetDriveTypeW(wide(root)))
    except ValueError:
        return DriveType.DRIVE_UNKNOWN


def information(system: System, root: str) -> tuple[str, int | None]:
    """What there is on a volume or shadow copy, by its root.

    Source: GetVolumeInformationW, lpFileSystemNameBuffer and lpVolumeSerialNumber.

    Returns:
        The file system, such as ``"NTFS"``, and the serial number that it was given when it was made;
        "" and None if it does not tell.
    """
    kernel32, path, nothing = system.kernel32, wide(root), ffi.NULL
    serial, name = ffi.new("DWORD *"), ffi.new("WCHAR[]", _FILE_SYSTEM)

    def ask() -> int:
        return kernel32.GetVolumeInformationW(path, nothing, 0, serial, nothing, nothing, name, _FILE_SYSTEM)

    try:
        _asked(system, "GetVolumeInformationW", ask)
    except WindowsCallError:
        return "", None
    return str(ffi.string(name)), int(serial[0])


def filesystem(system: System, root: str) -> str:
    """The file system of a volume or shadow copy by its root, such as ``"NTFS"``, or ""."""
    return information(system, root)[0]
