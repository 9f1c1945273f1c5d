"""What kernel32 knows of the names of volumes, and of their file systems.

Rules: "Naming a Volume", GetVolumeNameForVolumeMountPointW, GetVolumePathNamesForVolumeNameW,
GetVolumeInformationW, GetDiskFreeSpaceW, FindFirstVolumeW; Windows SDK documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import DriveType, Win32Error
from vsssnap._win32.handles import INVALID_HANDLE

if TYPE_CHECKING:
    from vsssnap.testing.fake_vss.machine import Machine
    from vsssnap.testing.fake_vss.pending import Pending

CData = Any


class Names:
    """What kernel32 knows of the names of volumes."""

    def __init__(self, machine: Machine, pending: Pending) -> None:
        self._machine = machine
        self._pending = pending

    def _put(self, out: CData, size: int, text: str) -> int:
        if len(text) + 1 > size:
            return self._machine.refuse(Win32Error.ERROR_INSUFFICIENT_BUFFER)
        for index, unit in enumerate(f"{text}\0"):
            out[index] = unit
        return 1

    def GetFullPathNameW(self, name: CData, size: int, out: CData, part: CData) -> int:
        """An absolute path; relative ones are of a folder on the first drive."""
        del part
        text = str(ffi.string(name)).replace("/", "\\")
        if not text:
            return self._machine.refuse(Win32Error.ERROR_INVALID_NAME)
        if not (text[1:2] == ":" or text.startswith("\\\\")):
            text = "C:\\work\\" + text
        return len(text) if self._put(out, size, text) else 0

    def GetVolumeNameForVolumeMountPointW(self, name: CData, out: CData, size: int) -> int:
        """Of a root with a backslash at its end; to see what is mounted in a folder a disk is asked."""
        text = str(ffi.string(name))
        folder = not (text.startswith("\\\\?\\Volume{") or len(text) == len("C:\\"))
        code = self._pending.refusal("GetVolumeNameForVolumeMountPointW") if folder else None
        if code is not None:
            return self._machine.refuse(code)
        found = self._machine.volume(text)
        if found is not None and found.drive_type != DriveType.DRIVE_REMOTE:
            return self._put(out, size, found.guid_path)
        below = any(
            text.lower().startswith(root.lower())
            for known in self._machine.volumes
            for root in known.roots
            if known.drive_type != DriveType.DRIVE_REMOTE
        )
        return self._machine.refuse(
            Win32Error.ERROR_NOT_A_REPARSE_POINT if below else Win32Error.ERROR_PATH_NOT_FOUND
        )

    def GetVolumePathNameW(self, name: CData, out: CData, size: int) -> int:
        """The root that a path lies below, be it there or not."""
        code = self._pending.refusal("GetVolumePathNameW")
        if code is not None:
            return self._machine.refuse(code)
        text = str(ffi.string(name)).lower()
        roots = [root for known in self._machine.volumes for root in (*known.roots, known.guid_path)]
        found = [root for root in roots if (text.rstrip("\\") + "\\").startswith(root.lower())]
        if not found:
            return self._machine.refuse(Win32Error.ERROR_FILE_NOT_FOUND)
        return self._put(out, size, max(found, key=len))

    def ExpandEnvironmentStringsW(self, text: CData, out: CData, size: int) -> int:
        """``%NAME%`` is replaced; a name that is not known stays."""
        expanded = re.sub(
            "%([^%]+)%",
            lambda found: self._machine.environment.get(found[1].upper(), found[0]),
            str(ffi.string(text)),
        )
        return len(expanded) + 1 if self._put(out, size, expanded) else 0

    def GetVolumePathNamesForVolumeNameW(self, name: CData, out: CData, size: int, needed: CData) -> int:
        """All roots, each ended by a zero, and one more zero."""
        found = self._machine.volume(str(ffi.string(name)))
        if found is None:
            return self._machine.refuse(Win32Error.ERROR_FILE_NOT_FOUND)
        text = "".join(f"{root}\0" for root in found.roots)
        needed[0] = len(text) + 1
        return self._put(out, size, text)

    def GetDriveTypeW(self, root: CData) -> int:
        """The kind of drive."""
        found = self._machine.volume(str(ffi.string(root)))
        return DriveType.DRIVE_NO_ROOT_DIR if found is None else found.drive_type

    def GetVolumeInformationW(self, root: CData, *rest: CData) -> int:
        """File system and serial number of a volume, or of a shadow copy by its root folder."""
        code = self._pending.refusal("GetVolumeInformationW")
        if code is not None:
            return self._machine.refuse(code)
        _, _, serial, _, _, out, size = rest
        text = str(ffi.string(root))
        found = self._machine.volume(text)
        if found is None:
            shadows = [s for s in self._machine.shadows.values() if s.device + "\\" == text and not s.lost]
            if not shadows:
                return self._machine.refuse(Win32Error.ERROR_PATH_NOT_FOUND)
            found = shadows[0].volume
        if serial != ffi.NULL:
            serial[0] = found.id.int & 0xFFFF_FFFF
        return self._put(out, size, found.filesystem) if size else 1

    def GetDiskFreeSpaceW(
        self, root: CData, sectors: CData, sector_size: CData, free: CData, clusters: CData
    ) -> int:
        """How the file system of a shadow copy divides it, by its root folder."""
        code = self._pending.refusal("GetDiskFreeSpaceW")
        if code is not None:
            return self._machine.refuse(code)
        text = str(ffi.string(root))
        for shadow in self._machine.shadows.values():
            if shadow.device + "\\" == text and not shadow.lost:
                volume = shadow.volume
                sectors[0], sector_size[0] = volume.cluster_size // volume.sector_size, volume.sector_size
                clusters[0] = volume.clusters // 2  # as one sees it who has a quota
                free[0] = 0
                return 1
        return self._machine.refuse(Win32Error.ERROR_PATH_NOT_FOUND)

    def FindFirstVolumeW(self, out: CData, size: int) -> CData:
        """The volumes of the machine, one after the other."""
        code = self._pending.refusal("FindFirstVolumeW")
        if code is not None:
            self._machine.set_error(code)
            return INVALID_HANDLE
        names = iter([volume.guid_path for volume in self._machine.volumes])
        search = self._machine.handle("search", names)
        if self.FindNextVolumeW(search, out, size):
            return search
        self._machine.close_handle(search, "search")
        return INVALID_HANDLE

    def FindNextVolumeW(self, search: CData, out: CData, size: int) -> int:
        """The next one."""
        names = self._machine.opened(search, "search")
        found = next(names, None) if isinstance(names, Iterator) else None
        if found is None:
            return self._machine.refuse(Win32Error.ERROR_NO_MORE_FILES)
        return self._put(out, size, found)

    def FindVolumeClose(self, search: CData) -> int:
        """Ends a search."""
        return self._machine.close_handle(search, "search")
