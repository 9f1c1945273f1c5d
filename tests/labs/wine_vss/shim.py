"""What Wine answers by itself, sent to the driver; runs under the Windows Python.

Wine says yes to every lock, tells one run of any file, lists its own drives only, and passes no path
below a device to a driver.  All else of the library's calls goes to Wine as it is.
"""

from __future__ import annotations

from typing import Any

from vsssnap._win32 import dll
from vsssnap._win32._ffi import ffi
from vsssnap._win32.codes import Control, Win32Error

SHADOW = "\\\\?\\GLOBALROOT\\Device\\HarddiskVolumeShadowCopy7"
TARGET = "\\\\?\\GLOBALROOT\\Device\\HarddiskVolume9"
DISK = "\\\\.\\PhysicalDrive7"
FILE = "\\\\?\\GLOBALROOT\\Device\\VsssnapLabFile"
VOLUMES = tuple(f"\\\\?\\Volume{{77777777-0000-0000-0000-00000000000{number}}}\\" for number in (1, 2))
"""One on the disk, and `TARGET`, which lies on two others."""

ERROR_BAD_DEV_TYPE = 66
_CODES = {Control.FSCTL_LOCK_VOLUME: 0x222010, Control.FSCTL_GET_RETRIEVAL_POINTERS: 0x222017}
_MISSING = "\\\\?\\GLOBALROOT\\Device\\VsssnapLabMissing"


class Kernel32:
    """Wine's kernel32, and the calls that it would not pass on."""

    def __init__(self, system: System, real: Any) -> None:  # noqa: ANN401 - of cffi
        self._system, self._real = system, real
        self._left: list[str] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of cffi
        return getattr(self._real, name)

    def CreateFileW(self, name: Any, *rest: Any) -> Any:  # noqa: ANN401, N802 - of cffi; a name of Windows
        path = str(ffi.string(name))
        if path.startswith(SHADOW + "\\"):
            path = FILE if path == SHADOW + "\\pagefile.sys" else _MISSING
        return self._real.CreateFileW(path, *rest)

    def GetFileInformationByHandle(self, handle: Any, out: Any) -> int:  # noqa: ANN401, N802 - likewise
        out.nNumberOfLinks = 1
        return 1

    def DeviceIoControl(self, handle: Any, code: Any, *rest: Any) -> int:  # noqa: ANN401, N802 - likewise
        done = int(self._real.DeviceIoControl(handle, _CODES.get(code, code), *rest))
        # Once the driver has dismounted, Wine asks its mount manager, which knows no such device.
        late = not done and code == Control.FSCTL_DISMOUNT_VOLUME
        return 1 if late and self._system.last_error() == ERROR_BAD_DEV_TYPE else done

    def FindFirstVolumeW(self, out: Any, size: int) -> Any:  # noqa: ANN401, N802 - likewise
        self._left = list(VOLUMES)
        self.FindNextVolumeW(None, out, size)
        return ffi.cast("HANDLE", 1)

    def FindNextVolumeW(self, search: Any, out: Any, size: int) -> int:  # noqa: ANN401, N802 - likewise
        if not self._left:
            self._system.forced = Win32Error.ERROR_NO_MORE_FILES
            return 0
        name = self._left.pop(0) + "\0"
        assert len(name) <= size
        ffi.memmove(out, name.encode("utf-16-le"), 2 * len(name))
        return 1

    def FindVolumeClose(self, search: Any) -> int:  # noqa: ANN401, N802 - likewise
        return 1


class System:
    """The libraries of Wine, but for `Kernel32`."""

    def __init__(self) -> None:
        self._real = dll.windows()
        self.forced: int | None = None
        self.kernel32: Any = Kernel32(self, self._real.kernel32)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of cffi
        return getattr(self._real, name)

    def last_error(self) -> int:
        """GetLastError of the call before."""
        forced, self.forced = self.forced, None
        return self._real.last_error() if forced is None else forced
