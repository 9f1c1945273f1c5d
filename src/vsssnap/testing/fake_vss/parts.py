"""What is on a fake machine: volumes, disks, providers, shadow copies."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from vsssnap._units import whole
from vsssnap._win32.constants import (
    DriveType,
    ProtectionFault,
    ProtectionLevel,
    ProviderType,
    SnapshotAttributes,
    SnapshotState,
)
from vsssnap._win32.guids import SYSTEM_PROVIDER
from vsssnap.errors import UsageError

_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
_CLUSTER = 4096


@dataclass(eq=False)
class FakeStorage:
    """Shadow storage of a volume.

    Attributes:
        maximum: Bytes, or -1 for no limit.
        allocated: Bytes.
        used: Bytes.
        on: The volume that keeps it; None for the volume itself.
    """

    maximum: int = -1
    allocated: int = 0
    used: int = 0
    on: FakeVolume | None = None


@dataclass(frozen=True, kw_only=True)
class FakeProvider:
    """A VSS provider.

    Attributes:
        name: Its name.
        kind: What it is; a hardware provider makes shadow copies of the volumes that name it.
        version: Its version.
        id: What requesters name it by.
        version_id: Differs with each version of it.
        class_id: What its COM class is.
        resyncs: Whether it can write a shadow copy back to a volume (RecoverSet).
    """

    name: str
    kind: ProviderType = ProviderType.VSS_PROV_HARDWARE
    version: str = "1.0"
    id: UUID = field(default_factory=uuid.uuid4)
    version_id: UUID = field(default_factory=uuid.uuid4)
    class_id: UUID = field(default_factory=uuid.uuid4)
    resyncs: bool = True


@dataclass(eq=False)
class FakeFile:
    """A file or an empty folder of a volume.

    Attributes:
        runs: Its runs of clusters, ``(first, count)``; a hole begins at -1.
        links: How many names it has.
        folder: Whether it is a folder.
        link: Whether it is a reparse point.
    """

    runs: tuple[tuple[int, int], ...] = ()
    links: int = 1
    folder: bool = False
    link: bool = False


@dataclass(eq=False)
class FakeVolume:
    r"""A volume.

    Attributes:
        roots: Where it is mounted, each with a backslash at its end (``"C:\"``, ``"C:\data\"``).
        data: Its bytes, to the end of the partition; the test goes on writing them.
        filesystem: ``"NTFS"``, ``"FAT32"``; NTFS has a cluster bitmap.
        first_cluster: Bytes to cluster 0 of another file system that has one, too.
        free: Runs of free clusters, ``(first, count)``.
        supported: Whether a provider can copy it.
        drive_type: What `GetDriveTypeW` says of its roots.
        sector_size: Bytes of a logical sector.
        cluster_size: Bytes.
        id: Its GUID.
        storage: Its shadow storage, if it has any.
        host: The volume that holds the virtual disk that it lies in.
        in_use: Whether files of it are open, so that it cannot be locked.
        readonly: Whether it is write-protected.
        disk: Number of the disk that it lies on, and its first byte there.
        more: Other pieces of disks that it spans: number, first byte and length.
        locked: Whether somebody has locked it.
        files: By their paths, such as ``"\pagefile.sys"``; folders are there with what they hold.
        protection: What is given up when that runs out.
        fault: Why the volume is offline for that.
        unused_storage: Whether shadow storage that nobody uses is left on it.
        provider: The hardware provider whose array keeps the volume; None for a plain disk.
        reverting: The shadow copy that it is being put back to, or None.
        device: Another name of it: what it was called as a shadow copy, before that was broken.
    """

    roots: tuple[str, ...]
    data: bytearray
    filesystem: str = "NTFS"
    free: tuple[tuple[int, int], ...] = ()
    supported: bool = True
    drive_type: DriveType = DriveType.DRIVE_FIXED
    sector_size: int = 512
    cluster_size: int = _CLUSTER
    first_cluster: int | None = None
    id: UUID = field(default_factory=uuid.uuid4)
    storage: FakeStorage | None = None
    host: FakeVolume | None = None
    in_use: bool = False
    readonly: bool = False
    disk: tuple[int, int] = (0, 1 << 20)
    more: tuple[tuple[int, int, int], ...] = ()
    locked: bool = False
    files: dict[str, FakeFile] = field(default_factory=dict)
    protection: ProtectionLevel = ProtectionLevel.VSS_PROTECTION_LEVEL_ORIGINAL_VOLUME
    fault: ProtectionFault = ProtectionFault.VSS_PROTECTION_FAULT_NONE
    unused_storage: bool = False
    provider: UUID | None = None
    reverting: FakeShadow | None = None
    device: str = ""

    def __post_init__(self) -> None:
        if len(self.data) % self.sector_size or not all(root.endswith("\\") for root in self.roots):
            raise UsageError(f"no volume: {len(self.data)} bytes at {self.roots}")

    @property
    def guid_path(self) -> str:
        """Its one name."""
        return f"\\\\?\\Volume{{{self.id}}}\\"

    @property
    def shown(self) -> str:
        """The name that people know."""
        return (*self.roots, self.guid_path)[0]

    @property
    def sectors(self) -> int:
        """Sectors of the file system; one more lies behind them, with the backup boot sector."""
        return len(self.data) // self.sector_size - 1

    @property
    def has_bitmap(self) -> bool:
        """Whether it says which clusters are used."""
        return self.filesystem == "NTFS" or self.first_cluster is not None

    @property
    def base(self) -> int:
        """Bytes to cluster 0."""
        return self.first_cluster or 0

    @property
    def clusters(self) -> int:
        """Whole clusters."""
        return (self.sectors * self.sector_size - self.base) // self.cluster_size

    def pwrite(self, data: bytes, offset: int) -> int:
        """Write into the live volume."""
        whole(offset, "offset")
        if offset + len(data) > len(self.data):
            raise UsageError(f"{len(data)} bytes at {offset} are not inside the volume")
        self.data[offset : offset + len(data)] = data
        return len(data)


@dataclass(eq=False)
class FakeDisk:
    """A whole disk; what lies on it does not share its bytes.

    Attributes:
        number: The N of ``PhysicalDriveN``.
        data: Its bytes.
        sector_size: Bytes of a logical sector.
        partitions: First byte and length of each partition; by default those of its volumes.
        updated: How often its partitions were read again.
    """

    number: int
    data: bytearray
    sector_size: int = 512
    partitions: tuple[tuple[int, int], ...] = ()
    updated: int = 0


@dataclass(eq=False)
class FakeShadow:
    """A shadow copy.

    Attributes:
        data: The bytes of the volume at the instant.
        lost: Whether the system has dropped it.
        lose_after: Bytes that can still be read before it is lost; None for no such limit.
        kept: Whether VSS refuses to delete it.
        exposed: The drive, folder or share that shows it, or "".
        shared: What of it is shared, or None if it is exposed locally.
        imported: Whether it was made on another machine.
    """

    id: UUID
    set_id: UUID
    volume: FakeVolume
    number: int
    context: int
    data: bytes = b""
    free: tuple[tuple[int, int], ...] = ()
    state: SnapshotState = SnapshotState.VSS_SS_PREPARING
    created: datetime = _EPOCH
    lost: bool = False
    lose_after: int | None = None
    kept: bool = False
    exposed: str = ""
    shared: str | None = None
    provider_id: UUID = SYSTEM_PROVIDER
    imported: bool = False

    @property
    def transportable(self) -> bool:
        """Whether it is there for the machine that imports it."""
        return bool(self.context & SnapshotAttributes.VSS_VOLSNAP_ATTR_TRANSPORTABLE)

    @property
    def persistent(self) -> bool:
        """Whether it outlives its requester."""
        return bool(self.context & SnapshotAttributes.VSS_VOLSNAP_ATTR_PERSISTENT)

    @property
    def by_hardware(self) -> bool:
        """Whether it is a volume of its own."""
        return self.provider_id != SYSTEM_PROVIDER

    @property
    def device(self) -> str:
        """Its device, without a backslash at its end."""
        return f"\\\\?\\GLOBALROOT\\Device\\HarddiskVolumeShadowCopy{self.number}"

    @property
    def timestamp(self) -> int:
        """`created` as a VSS_TIMESTAMP."""
        return (self.created - _EPOCH) // timedelta(microseconds=1) * 10

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the copy; of clusters that were free at the instant, whatever is there by now.

        A disk array copies those, too.
        """
        found = bytearray(self.data[offset : offset + length])
        if self.by_hardware:
            return bytes(found)
        size, base = self.volume.cluster_size, self.volume.base
        for first, count in self.free:
            start, end = (
                max(base + first * size, offset),
                min(base + (first + count) * size, offset + length),
            )
            if start < end:
                found[start - offset : end - offset] = self.volume.data[start:end]
        return bytes(found)
