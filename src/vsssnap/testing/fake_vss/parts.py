"""What is on a fake machine: volumes, writers, shadow copies."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from vsssnap._units import whole
from vsssnap._win32.constants import (
    ComponentType,
    DriveType,
    ProtectionFault,
    ProtectionLevel,
    SnapshotState,
    WriterState,
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
        in_use: Whether files of it are open, so that it cannot be locked.
        readonly: Whether it is write-protected.
        disk: Number of the disk that it lies on, and its first byte there.
        more: Other pieces of disks that it spans: number, first byte and length.
        locked: Whether somebody has locked it.
        files: By their paths, such as ``"\pagefile.sys"``; folders are there with what they hold.
        protection: What is given up when that runs out.
        fault: Why the volume is offline for that.
        unused_storage: Whether shadow storage that nobody uses is left on it.
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
    in_use: bool = False
    readonly: bool = False
    disk: tuple[int, int] = (0, 1 << 20)
    more: tuple[tuple[int, int, int], ...] = ()
    locked: bool = False
    files: dict[str, FakeFile] = field(default_factory=dict)
    protection: ProtectionLevel = ProtectionLevel.VSS_PROTECTION_LEVEL_ORIGINAL_VOLUME
    fault: ProtectionFault = ProtectionFault.VSS_PROTECTION_FAULT_NONE
    unused_storage: bool = False

    def __post_init__(self) -> None:
        if len(self.data) % self.sector_size or not all(root.endswith("\\") for root in self.roots):
            raise UsageError(f"no volume: {len(self.data)} bytes at {self.roots}")

    @property
    def guid_path(self) -> str:
        """Its one name."""
        return f"\\\\?\\Volume{{{self.id}}}\\"

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


@dataclass(frozen=True)
class FakeFiles:
    r"""Files of a component.

    Attributes:
        path: Their folder; ``"%SystemRoot%\\x"`` is understood (`FakeVss.environment`).
        spec: Their names.
        recursive: Whether folders below belong to it.
        alternate: Where they are backed up from instead, or "".
    """

    path: str
    spec: str = "*"
    recursive: bool = False
    alternate: str = ""


@dataclass(frozen=True)
class FakeComponent:
    """A component of a writer.

    Attributes:
        name: Its name.
        logical_path: What it lies below, or "".
        selectable: Whether a requester may choose it for a backup.
        selectable_for_restore: Likewise for a restore.
        kind: What it is; files of a database are all given as its database files.
        files: Its files.
        needs: Components it depends on: writer's class id, logical path, name.
    """

    name: str
    logical_path: str = ""
    selectable: bool = True
    selectable_for_restore: bool = False
    kind: ComponentType = ComponentType.VSS_CT_FILEGROUP
    files: tuple[FakeFiles, ...] = ()
    needs: tuple[tuple[UUID, str, str], ...] = ()

    @property
    def path(self) -> str:
        """Logical path and name, by which components are compared."""
        return "\\".join(filter(None, (self.logical_path, self.name))).lower()


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
class FakeWriter:
    """A VSS writer.

    Attributes:
        name: Its name.
        fails_at: The event at which it fails: ``"identify"``, ``"prepare_backup"``, ``"prepare_snapshot"``,
            ``"freeze"``, ``"thaw"``, ``"post_snapshot"``, ``"backup_complete"``, ``"pre_restore"`` or
            ``"post_restore"``.  One that fails to identify itself is not there for a requester.
        code: What it then reports, an unsigned HRESULT.
        times: How often it fails before it recovers.
        message: What its application says.
        components: What it has to back up.
        events: Names of the events it got.
        state: What it reports now.
    """

    name: str
    fails_at: str = ""
    code: int = 0
    times: float = float("inf")
    message: str = ""
    components: tuple[FakeComponent, ...] = ()
    writer_id: UUID = field(default_factory=uuid.uuid4)
    instance_id: UUID = field(default_factory=uuid.uuid4)
    events: list[str] = field(default_factory=list)
    state: WriterState = WriterState.VSS_WS_STABLE
    failure: int = 0

    def __post_init__(self) -> None:
        if self.fails_at and self.fails_at not in _FAILED:
            raise UsageError(f"no event {self.fails_at!r}", hint=f"known are {', '.join(_FAILED)}")

    @property
    def document(self) -> str:
        """Its writer metadata document."""
        return (
            f'<WRITER_METADATA xmlns="x-schema:#VssWriterMetadata" version="1.1"><IDENTIFICATION '
            f'writerId="{self.writer_id}" instanceId="{self.instance_id}" friendlyName="{self.name}"/>'
            "</WRITER_METADATA>"
        )

    def on(self, event: str) -> None:
        """Get an event; one that has failed gets no more until the next backup or restore."""
        if event in ("prepare_backup", "pre_restore"):
            self.state, self.failure = WriterState.VSS_WS_STABLE, 0
        elif self.failure and event not in ("identify", "abort", "backup_shutdown"):
            return
        self.events.append(event)
        if event == self.fails_at and self.times > 0:
            self.times -= 1
            self.failure, self.state = self.code, _FAILED[event]
        elif not self.failure and event != "identify":
            self.state = _HEALTHY.get(event, WriterState.VSS_WS_STABLE)


_W = WriterState
_FAILED = {
    "identify": _W.VSS_WS_FAILED_AT_IDENTIFY,
    "prepare_backup": _W.VSS_WS_FAILED_AT_PREPARE_BACKUP,
    "prepare_snapshot": _W.VSS_WS_FAILED_AT_PREPARE_SNAPSHOT,
    "freeze": _W.VSS_WS_FAILED_AT_FREEZE,
    "thaw": _W.VSS_WS_FAILED_AT_THAW,
    "post_snapshot": _W.VSS_WS_FAILED_AT_POST_SNAPSHOT,
    "backup_complete": _W.VSS_WS_FAILED_AT_BACKUP_COMPLETE,
    "pre_restore": _W.VSS_WS_FAILED_AT_PRE_RESTORE,
    "post_restore": _W.VSS_WS_FAILED_AT_POST_RESTORE,
}
_HEALTHY = {
    "prepare_snapshot": _W.VSS_WS_WAITING_FOR_FREEZE,
    "freeze": _W.VSS_WS_WAITING_FOR_THAW,
    "thaw": _W.VSS_WS_WAITING_FOR_POST_SNAPSHOT,
    "post_snapshot": _W.VSS_WS_WAITING_FOR_BACKUP_COMPLETE,
}


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

    @property
    def device(self) -> str:
        """Its device, without a backslash at its end."""
        return f"\\\\?\\GLOBALROOT\\Device\\HarddiskVolumeShadowCopy{self.number}"

    @property
    def timestamp(self) -> int:
        """`created` as a VSS_TIMESTAMP."""
        return (self.created - _EPOCH) // timedelta(microseconds=1) * 10

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the copy; of clusters that were free at the instant, whatever is there by now."""
        found = bytearray(self.data[offset : offset + length])
        size, base = self.volume.cluster_size, self.volume.base
        for first, count in self.free:
            start, end = (
                max(base + first * size, offset),
                min(base + (first + count) * size, offset + length),
            )
            if start < end:
                found[start - offset : end - offset] = self.volume.data[start:end]
        return bytes(found)
