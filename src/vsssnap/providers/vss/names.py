"""Which volumes are meant."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap._win32 import volumes
from vsssnap._win32.constants import DriveType, Win32Error
from vsssnap._win32.handles import WindowsCallError
from vsssnap.errors import ProviderUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vsssnap._win32.dll import System
    from vsssnap._win32.writer_metadata import Component

MOST_VOLUMES = 64
"""Volumes of one shadow copy set (IVssBackupComponents::AddToSnapshotSet, remarks)."""

_DEVICE_DRIVE = re.compile(r"\\\\[.?]\\([a-zA-Z]:)\\?", re.ASCII)
_SHARE = re.compile(r"(\\\\|//)(?![.?][\\/])")
_HINT = "name a drive, the root of a mounted folder, or \\\\?\\Volume{...}\\"
_NO_VOLUME = {
    DriveType.DRIVE_REMOTE: "is a network drive",
    DriveType.DRIVE_CDROM: "is an optical drive",
}
_HINTS = {DriveType.DRIVE_REMOTE: "run on the machine that has the volume"}
_MEANINGS = {
    Win32Error.ERROR_NOT_A_REPARSE_POINT: "is a folder on a volume, not a volume",
    Win32Error.ERROR_FILE_NOT_FOUND: "does not exist",
    Win32Error.ERROR_PATH_NOT_FOUND: "does not exist",
    Win32Error.ERROR_INVALID_NAME: "is no name of a volume",
    Win32Error.ERROR_NOT_READY: "has no medium",
    Win32Error.ERROR_TIMEOUT: "does not answer",
    Win32Error.ERROR_NO_SYSTEM_RESOURCES: "cannot be asked for: no thread can be started",
}
_REMEDIES = {
    Win32Error.ERROR_TIMEOUT: "look at the System event log; the disk, its cable or its driver hangs",
    Win32Error.ERROR_NO_SYSTEM_RESOURCES: "end what has so many threads",
}


@dataclass(frozen=True, slots=True)
class Named:
    """A volume as the caller named it.

    Attributes:
        name: The caller's spelling.
        volume: Its GUID path; equal for two spellings of one volume.
    """

    name: str
    volume: str


def resolve(system: System, asked: Iterable[object]) -> list[Named]:
    """The volumes of a request, in its order.

    Raises:
        ProviderUnavailableError: one is no volume of this machine, or they are too many.
    """
    found = [_one(system, volume) for volume in asked]
    count = len({named.volume for named in found})
    if count > MOST_VOLUMES:
        raise _no(
            f"{count} volumes",
            f"are more than the {MOST_VOLUMES} that one set can have",
            "take several snapshots; they are then of several instants",
        )
    return found


def mounted(system: System, volume: str) -> list[str]:
    """Where a volume is mounted; nothing if that cannot be told."""
    try:
        return volumes.mount_points(system, volume)
    except WindowsCallError:
        return []


def component_volumes(system: System) -> Callable[[Component], set[str]]:
    """A function that gives the GUID paths of the volumes that a component's files lie on.

    Files that are backed up from another place than their own count where that is
    (IVssWMFiledesc::GetAlternateLocation).  "" stands for a volume that is not there.
    """
    known: dict[str, str] = {}

    def of_path(path: str) -> str:
        if path not in known:
            try:
                known[path] = volumes.volume_of_path(system, path)
            except WindowsCallError:
                known[path] = ""
        return known[path]

    return lambda component: {of_path(files.alternate or files.path) for files in component.files}


def _one(system: System, asked: object) -> Named:
    if not isinstance(asked, str | bytes | os.PathLike):
        raise _no(type(asked).__name__, "is no path of a volume")
    name = os.fsdecode(asked)
    if not name or "\0" in name:
        raise _no(repr(name), "is no name of a volume")
    if _SHARE.match(name):
        raise _no(name, "is a network share", _HINTS[DriveType.DRIVE_REMOTE])
    device = _DEVICE_DRIVE.fullmatch(name)
    path = device[1] if device else name
    try:
        if not volumes.is_guid_path(path):
            root = volumes.full_path(system, path)
            kind = volumes.drive_type(system, root)
            if why := _NO_VOLUME.get(kind):
                raise _no(name, why, _HINTS.get(kind, _HINT))
        return Named(name, volumes.volume_guid_path(system, path))
    except WindowsCallError as exc:
        try:
            code = Win32Error(exc.code)
            meaning, remedy = _MEANINGS[code], _REMEDIES.get(code, _HINT)
        except (KeyError, ValueError):
            meaning, remedy = f"is no volume that can be named ({exc})", _HINT
        raise _no(name, meaning, remedy) from exc


def _no(what: str, why: str, hint: str = _HINT) -> ProviderUnavailableError:
    return ProviderUnavailableError(
        f"{what} {why}",
        reasons={"vss": f"{what} {why}"},
        hint=hint,
    )
