"""A shadow copy as a reader of all its blocks, as the system gives them.

Clusters that were free at the instant are not preserved by VSS: what a shadow copy shows there
changes as the live volume is written.  Which they are says `vsssnap.providers.vss.clusters`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap._win32.devices import RawDevice
from vsssnap._win32.handles import WindowsCallError
from vsssnap.blocks.windows import measure
from vsssnap.blocks.windows_device import WindowsReader
from vsssnap.errors import SnapshotError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vsssnap._win32.dll import System


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
            size, sector_size, self.tail_captured = measure(device)
        except BaseException as exc:
            device.close()
            if isinstance(exc, WindowsCallError):
                raise _not_opened(path, exc) from exc
            raise
        super().__init__(device, size, sector_size, on_failure=on_failure)


def _not_opened(path: str, exc: WindowsCallError) -> SnapshotError:
    return SnapshotError(
        f"{path} cannot be opened: {exc}",
        call=exc.call,
        code=exc.code,
        hint="run elevated; if the shadow copy is gone, source volsnap in the System event log says why",
    )
