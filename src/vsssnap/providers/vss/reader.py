"""A shadow copy as a reader of all its blocks, as the system gives them.

Clusters that were free at the instant are not preserved by VSS: what a shadow copy shows there
changes as the live volume is written.  Which they are says `vsssnap.providers.vss.clusters`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vsssnap._win32.devices import RawDevice
from vsssnap._win32.handles import WindowsCallError
from vsssnap.blocks.windows import WindowsReader
from vsssnap.errors import SnapshotError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vsssnap._win32.dll import System

_log = logging.getLogger("vsssnap.vss")


class ShadowReader(WindowsReader):
    """An open shadow copy; all of it is DATA.

    Attributes:
        tail_captured: Whether the copy of the boot sector is there that NTFS keeps behind its last
            cluster; always true for other file systems.
    """

    def __init__(self, system: System, path: str, on_failure: Callable[[], None] | None = None) -> None:
        """Open it.

        Args:
            system: The libraries.
            path: The device, without a backslash at its end.
            on_failure: Called when a read has failed, before it is tried again.

        Raises:
            SnapshotError: it cannot be opened, or does not say how large it is.
        """
        try:
            device = RawDevice(system, path)
        except WindowsCallError as exc:
            raise _not_opened(path, exc) from exc
        try:
            extended = device.extend()
            ntfs = device.ntfs()
            size = device.length()
            sector_size = ntfs.sector_size if ntfs is not None else device.sector_size()
            self.tail_captured = True
            if ntfs is not None:
                end = ntfs.sectors * sector_size
                if end < size and not (extended and _is_readable(device, size - sector_size, sector_size)):
                    size = end
                self.tail_captured = _has_boot_sector(device, end, size, sector_size)
        except BaseException as exc:
            device.close()
            if isinstance(exc, WindowsCallError):
                raise _not_opened(path, exc) from exc
            raise
        super().__init__(device, size, sector_size, on_failure=on_failure)


def _sector(device: RawDevice, offset: int, sector_size: int) -> bytes:
    found = bytearray(sector_size)
    with memoryview(found) as view:
        device.read_into(view, offset, sector_size)
    return bytes(found)


def _is_readable(device: RawDevice, offset: int, sector_size: int) -> bool:
    """Whether a sector can be read; a device may allow it and not do it."""
    try:
        _sector(device, offset, sector_size)
    except WindowsCallError as exc:
        _log.info("%s: its last sector cannot be read: %s", device.path, exc)
        return False
    return True


def _has_boot_sector(device: RawDevice, end: int, size: int, sector_size: int) -> bool:
    """Whether a boot sector of NTFS lies behind the file system, or at the end of the partition."""
    try:
        for offset in sorted({end, size - sector_size}):
            if end <= offset < size:
                sector = _sector(device, offset, sector_size)
                if sector[3:11] == b"NTFS    " and sector[510:512] == b"\x55\xaa":
                    return True
    except WindowsCallError as exc:
        _log.info("%s: what lies behind its file system cannot be read: %s", device.path, exc)
    return False


def _not_opened(path: str, exc: WindowsCallError) -> SnapshotError:
    return SnapshotError(
        f"{path} cannot be opened: {exc}",
        call=exc.call,
        code=exc.code,
        hint="run elevated; if the shadow copy is gone, source volsnap in the System event log says why",
    )
