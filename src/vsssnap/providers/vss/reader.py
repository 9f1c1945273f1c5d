"""A shadow copy as a reader of all its blocks, as the system gives them.

Clusters that were free at the instant are not preserved by VSS: what a shadow copy shows there
changes as the live volume is written.  Which they are says `vsssnap.providers.vss.clusters`.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from vsssnap._win32.constants import Win32Error
from vsssnap._win32.devices import RawDevice
from vsssnap._win32.handles import WindowsCallError
from vsssnap.blocks.windows import measure
from vsssnap.blocks.windows_device import WindowsReader
from vsssnap.errors import SnapshotError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vsssnap._win32.dll import System

_log = logging.getLogger("vsssnap.vss")

_MOST_RENEWED: Final = 16  # handles of one reader beside its first


class ShadowReader(WindowsReader):
    """An open shadow copy; all of it is DATA.

    Attributes:
        tail_captured: Whether the copy of the boot sector is there that NTFS keeps behind its last
            cluster; always true for other file systems.
    """

    def __init__(self, system: System, path: str, on_failure: Callable[[], str] | None = None) -> None:
        """Open it.

        Args:
            system: The libraries.
            path: The device, without a backslash at its end.
            on_failure: Called when a read has failed, before it is tried again: raises if the shadow copy
                is gone, else gives its device as VSS names it now.

        Raises:
            SnapshotError: it cannot be opened, or does not say how large it is.
        """
        device, (size, sector_size, self.tail_captured) = _open(system, path)
        self._system = system
        self._on_failure = on_failure
        self._renewing = threading.Lock()
        self._renewed: list[RawDevice] = []
        super().__init__(device, size, sector_size)

    def _renew(self, device: RawDevice, failure: WindowsCallError, *, more: bool) -> bool:
        # A volume that was away for a moment leaves handles that fail for ever.  Which device to open
        # is asked by the id of the shadow copy: the number in its name may be another's by now.
        if self._on_failure is None:
            return False
        path = self._on_failure()
        if not more or failure.code == Win32Error.ERROR_TIMEOUT:
            return False
        with self._renewing:
            if self._device is not device:
                return True  # another thread's read failed, too
            if len(self._renewed) == _MOST_RENEWED:
                return False
            try:
                opened, (size, sector_size, _) = _open(self._system, path)
            except SnapshotError as exc:
                _log.info("it is not opened again: %s", exc)
                return False
            if size != self.size or sector_size != self.sector_size:
                opened.close()
                _log.warning("%s: %d bytes in sectors of %d is another volume", path, size, sector_size)
                return False
            # Reads beside this one may still use the one before, so it stays open until the end.
            self._renewed.append(opened)
            self._device = opened
            return True

    def _release(self) -> None:
        for device in self._renewed:
            device.close()
        super()._release()


def _open(system: System, path: str) -> tuple[RawDevice, tuple[int, int, bool]]:
    """An open device, and what `measure` says of it."""
    try:
        device = RawDevice(system, path)
    except WindowsCallError as exc:
        raise _not_opened(path, exc) from exc
    try:
        found = measure(device)
        _check(path, *found[:2])
        return device, found
    except BaseException as exc:
        device.close()
        if isinstance(exc, WindowsCallError):
            raise _not_opened(path, exc) from exc
        raise


def _check(path: str, size: int, sector_size: int) -> None:
    if not size or not 512 <= sector_size <= 4096 or sector_size & (sector_size - 1):
        raise SnapshotError(
            f"{path} cannot be read: it has {size} bytes in sectors of {sector_size}",
            hint="sectors of 512 to 4096 bytes can be read; look at the System event log",
        )


def _not_opened(path: str, exc: WindowsCallError) -> SnapshotError:
    return SnapshotError(
        f"{path} cannot be opened: {exc}",
        call=exc.call,
        code=exc.code,
        hint="run elevated; if the shadow copy is gone, source volsnap in the System event log says why",
    )
