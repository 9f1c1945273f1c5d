"""Volumes and shadow copies as devices: size, sectors, used clusters.

Sources: FSCTL_ALLOW_EXTENDED_DASD_IO (reads may go up to the end of the partition, behind the file
system), FSCTL_GET_VOLUME_BITMAP (a full buffer is ERROR_MORE_DATA), FSCTL_GET_RETRIEVAL_POINTER_BASE
(where cluster 0 lies: of NTFS at the start of the volume, of FAT behind its tables); Windows SDK
documentation.
"""

from __future__ import annotations

from dataclasses import dataclass

from vsssnap._win32._ffi import ffi
from vsssnap._win32.blocking import answered
from vsssnap._win32.com import wide
from vsssnap._win32.constants import Control
from vsssnap._win32.handles import WindowsCallError
from vsssnap._win32.overlapped import OverlappedFile

BITMAP_PAGE = 64 << 10
"""Bytes of a volume bitmap that are asked for at once."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """How a file system divides a volume.

    Attributes:
        size: Bytes of a cluster.
        count: Clusters.
        base: Bytes from the start of the volume to cluster 0.
    """

    size: int
    count: int
    base: int = 0


@dataclass(frozen=True, slots=True)
class Ntfs:
    """What NTFS says of its volume.

    Attributes:
        sectors: Sectors of the file system; the backup boot sector lies behind them.
        sector_size: Bytes.
        clusters: How it is divided; cluster 0 is the first of the volume.
    """

    sectors: int
    sector_size: int
    clusters: Clusters


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

    def ntfs(self) -> Ntfs | None:
        """What NTFS says, or None if it holds another file system."""
        out = ffi.new("NTFS_VOLUME_DATA_BUFFER *")
        try:
            self.control(Control.FSCTL_GET_NTFS_VOLUME_DATA, out=out)
        except WindowsCallError:
            return None
        if not out.BytesPerSector or not out.BytesPerCluster:
            return None  # a driver of another file system that answers whatever it is asked
        return Ntfs(
            sectors=out.NumberSectors,
            sector_size=out.BytesPerSector,
            clusters=Clusters(out.BytesPerCluster, out.TotalClusters),
        )

    def clusters(self) -> Clusters:
        """How a file system divides it, NTFS or another.

        Raises:
            WindowsCallError: it does not say.
        """
        ntfs = self.ntfs()
        if ntfs is not None:
            return ntfs.clusters
        base = ffi.new("RETRIEVAL_POINTER_BASE *")
        self.control(Control.FSCTL_GET_RETRIEVAL_POINTER_BASE, out=base)
        sectors, sector_size, free, total = (ffi.new("DWORD *") for _ in range(4))
        kernel32, root = self._system.kernel32, wide(self.path + "\\")
        done, code = answered(
            self._system,
            "GetDiskFreeSpaceW",
            lambda: kernel32.GetDiskFreeSpaceW(root, sectors, sector_size, free, total),
        )
        if not done:
            raise WindowsCallError("GetDiskFreeSpaceW", code)
        # The count that this gives may be that of a quota; the bitmap has all.
        start = ffi.new("STARTING_LCN_INPUT_BUFFER *")
        head = ffi.new("VOLUME_BITMAP_BUFFER *")
        self.control(Control.FSCTL_GET_VOLUME_BITMAP, source=start, out=head, partial=True)
        return Clusters(
            sectors[0] * sector_size[0], int(head.BitmapSize), int(base.FileAreaOffset) * sector_size[0]
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
