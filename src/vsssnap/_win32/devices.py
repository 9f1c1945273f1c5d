"""Volumes and shadow copies as devices: size, sectors, used clusters.

Sources: FSCTL_ALLOW_EXTENDED_DASD_IO (reads may go up to the end of the partition, behind the file
system), FSCTL_GET_VOLUME_BITMAP (LCN 0 of NTFS is the first byte of the volume; a full buffer is
ERROR_MORE_DATA); Windows SDK documentation.
"""

from __future__ import annotations

from dataclasses import dataclass

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import Control
from vsssnap._win32.handles import WindowsCallError
from vsssnap._win32.overlapped import OverlappedFile

BITMAP_PAGE = 64 << 10
"""Bytes of a volume bitmap that are asked for at once."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """How NTFS divides a volume.

    Attributes:
        size: Bytes of a cluster.
        count: Clusters from the first byte of the volume.
        sectors: Sectors of the file system; the backup boot sector lies behind them.
        sector_size: Bytes.
    """

    size: int
    count: int
    sectors: int
    sector_size: int


class RawDevice(OverlappedFile):
    """What may be asked of an open volume or shadow copy."""

    def extend(self) -> bool:
        """Allow reads behind the file system, to the end of the partition; before the first read.

        Returns:
            Whether the device does so.
        """
        try:
            self.control(Control.FSCTL_ALLOW_EXTENDED_DASD_IO)
        except WindowsCallError:
            return False
        return True

    def length(self) -> int:
        """Bytes.

        Raises:
            WindowsCallError: the device does not say.
        """
        out = ffi.new("GET_LENGTH_INFORMATION *")
        self.control(Control.IOCTL_DISK_GET_LENGTH_INFO, out=out)
        return int(out.Length)

    def sector_size(self) -> int:
        """Bytes of a logical sector.

        Raises:
            WindowsCallError: the device does not say.
        """
        out = ffi.new("DISK_GEOMETRY *")
        self.control(Control.IOCTL_DISK_GET_DRIVE_GEOMETRY, out=out)
        return int(out.BytesPerSector)

    def clusters(self) -> Clusters | None:
        """How NTFS divides it, or None if it holds another file system."""
        out = ffi.new("NTFS_VOLUME_DATA_BUFFER *")
        try:
            self.control(Control.FSCTL_GET_NTFS_VOLUME_DATA, out=out)
        except WindowsCallError:
            return None
        return Clusters(
            size=out.BytesPerCluster,
            count=out.TotalClusters,
            sectors=out.NumberSectors,
            sector_size=out.BytesPerSector,
        )

    def bitmap(self, first: int) -> tuple[int, int, bytes]:
        """A part of the volume bitmap, `BITMAP_PAGE` bytes at most.

        Args:
            first: The first cluster wanted.

        Returns:
            The cluster of the first bit (at or before ``first``), how many bits follow, and the bits,
            the lowest of each byte first; 1 is a cluster in use.

        Raises:
            WindowsCallError: the volume has none.
        """
        start = ffi.new("STARTING_LCN_INPUT_BUFFER *")
        start.StartingLcn = first
        head = ffi.offsetof("VOLUME_BITMAP_BUFFER", "Buffer")
        room = ffi.new("char[]", head + BITMAP_PAGE)
        done = self.control(
            Control.FSCTL_GET_VOLUME_BITMAP, source=start, out=room, partial=True, out_size=len(room)
        )
        found = ffi.cast("VOLUME_BITMAP_BUFFER *", room)
        given = max(0, min(done - head, BITMAP_PAGE))
        count = max(0, min(int(found.BitmapSize), given * 8))
        return int(found.StartingLcn), count, bytes(ffi.buffer(room, head + given)[head:])
