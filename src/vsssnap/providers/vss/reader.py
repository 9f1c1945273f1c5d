"""A shadow copy as a reader.

Clusters that were free at the instant are not preserved by VSS: what a shadow copy shows there
changes as the live volume is written.  They are HOLE, and read as zeros without being read.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from vsssnap._win32.devices import RawDevice
from vsssnap._win32.handles import WindowsCallError
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import DeviceReadError, SnapshotError
from vsssnap.providers.vss.clusters import ClusterMap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap._win32.dll import System

_log = logging.getLogger("vsssnap.vss")

_TRIES, _PAUSE = 3, 0.2  # of a read that failed; seconds between them
_GAP = 64 << 10  # bytes: a shorter hole is read over, and zeroed
_ZEROS = bytes(1 << 16)


class ShadowReader(BlockReader):
    """An open shadow copy.

    Attributes:
        tail_captured: Whether it reaches to the end of the partition, where NTFS keeps a copy of its
            boot sector; else it ends where the file system does.
        has_map: Whether free clusters are known; else everything is DATA.
    """

    def __init__(self, system: System, path: str) -> None:
        """Open it.

        Args:
            system: The libraries.
            path: The device, without a backslash at its end.

        Raises:
            SnapshotError: it cannot be opened, or does not say how large it is.
        """
        try:
            device = RawDevice(system, path)
        except WindowsCallError as exc:
            raise _not_opened(path, exc) from exc
        try:
            extended = device.extend()
            clusters = device.clusters()
            size = device.length()
            sector_size = clusters.sector_size if clusters is not None else device.sector_size()
            file_system = clusters.sectors * sector_size if clusters is not None else size
            self.tail_captured = file_system >= size or (extended and _has_tail(device, size, sector_size))
            if not self.tail_captured:
                size = file_system
            self._map = None
            if clusters is not None and _has_bitmap(device):
                self._map = ClusterMap(device, clusters, size)
            super().__init__(size, sector_size=sector_size)
        except BaseException as exc:
            device.close()
            if isinstance(exc, WindowsCallError):
                raise _not_opened(path, exc) from exc
            raise
        self._device = device

    @property
    def has_map(self) -> bool:
        """Whether free clusters are known."""
        return self._map is not None

    @property
    def origins(self) -> tuple[str, ...]:
        """The device."""
        return (self._device.path,)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        if self._map is None:
            return super()._extents(offset, length)
        return self._map.extents(offset, length)

    def _read_into(self, view: memoryview, offset: int) -> None:
        if self._map is None:
            self._fill(view, offset)
            return
        holes: list[Extent] = []
        begin = end = offset  # what is to be read at once
        for extent in self._map.extents(offset, len(view)):
            if extent.kind is ExtentKind.HOLE:
                holes.append(extent)
            elif begin == end or extent.offset - end >= _GAP:
                self._fill(view[begin - offset : end - offset], begin)
                begin, end = extent.offset, extent.end
            else:
                end = extent.end
        self._fill(view[begin - offset : end - offset], begin)
        for hole in holes:
            _zero(view[hole.offset - offset : hole.end - offset])

    def _fill(self, view: memoryview, offset: int) -> None:
        """Read a range, again if it fails; the caller then asks whether the shadow copy still exists."""
        for left in reversed(range(_TRIES)):
            try:
                if view:
                    self._device.read_into(view, offset, self.sector_size)
                return
            except WindowsCallError as exc:
                if not left:
                    raise DeviceReadError(
                        f"{self._device.path}: cannot read {len(view)} bytes at {offset}: {exc}",
                        offset=offset,
                        length=len(view),
                        call=exc.call,
                        code=exc.code,
                        hint="the disk is failing; on_read_error=OnReadError.MARK keeps what can be read",
                    ) from exc
                _log.info("%s: %s at %d, trying again", self._device.path, exc, offset)
                time.sleep(_PAUSE)

    def _release(self) -> None:
        self._device.close()


def _has_tail(device: RawDevice, size: int, sector_size: int) -> bool:
    """Whether the last sector can be read; a device may allow it and not do it."""
    try:
        device.read_into(memoryview(bytearray(sector_size)), size - sector_size, sector_size)
    except WindowsCallError as exc:
        _log.info("%s: its last sector cannot be read: %s", device.path, exc)
        return False
    return True


def _has_bitmap(device: RawDevice) -> bool:
    """Whether free clusters can be told; where they cannot, everything is read."""
    try:
        device.bitmap(0)
    except WindowsCallError as exc:
        _log.warning("%s: free clusters are not known: %s", device.path, exc)
        return False
    return True


def _zero(view: memoryview) -> None:
    for at in range(0, len(view), len(_ZEROS)):
        piece = view[at : at + len(_ZEROS)]
        piece[:] = _ZEROS[: len(piece)]


def _not_opened(path: str, exc: WindowsCallError) -> SnapshotError:
    return SnapshotError(
        f"{path} cannot be opened: {exc}",
        call=exc.call,
        code=exc.code,
        hint="run elevated; if the shadow copy is gone, source volsnap in the System event log says why",
    )
