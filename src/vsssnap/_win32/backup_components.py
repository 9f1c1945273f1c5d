"""`IVssBackupComponents` in Python: one method a call, ids and strings as Python has them.

Nothing here knows in which order calls are made; that is `vsssnap.providers.vss.sequence`.  For
the one thread that owns the object.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from vsssnap._win32 import writer_metadata
from vsssnap._win32._ffi import ffi
from vsssnap._win32.com import Reference, check, guid, take_bstr, text_at, uuid_of, wide
from vsssnap._win32.constants import BackupType, WriterState
from vsssnap._win32.guids import GUID_NULL
from vsssnap._win32.hresult import HResult, signed, unsigned
from vsssnap.errors import ProviderUnavailableError, SnapshotError

if TYPE_CHECKING:
    from uuid import UUID

    from vsssnap._win32.dll import System
    from vsssnap._win32.protocols import CData
    from vsssnap._win32.requester_protocols import IVssBackupComponents
    from vsssnap._win32.writer_metadata import Component, WriterMetadata

_log = logging.getLogger("vsssnap.vss")

_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowCopy:
    """VSS_SNAPSHOT_PROP.

    Attributes:
        device: Without a backslash at its end, which would mean its root folder.
        volume: The volume GUID path of what was copied, with one.
        attributes: `SnapshotAttributes`.
        state: `SnapshotState`.
        exposed: The drive, folder or share that shows it, or "".
    """

    id: UUID
    set_id: UUID
    device: str
    volume: str
    provider_id: UUID
    attributes: int
    created: datetime
    state: int
    exposed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterStatus:
    """What a writer reported last.

    Attributes:
        code: Its failure, an unsigned HRESULT; 0 for none.
        application_code: What the application behind it said, likewise.
        message: The same in the application's words.
    """

    name: str
    writer_id: UUID
    instance_id: UUID
    state: WriterState
    code: int
    application_code: int = 0
    message: str = ""


class BackupComponents:
    """One requester.  `release` it, whatever happened; that ends its auto-release shadow copies.

    Attributes:
        unreadable: Writers whose documents could not be read.
    """

    def __init__(self, system: System) -> None:
        """Make the COM object.

        Raises:
            ProviderUnavailableError: VSS is not there.
            SnapshotPermissionError: the process may not be a requester.
        """
        self._system = system
        out = ffi.new("IVssBackupComponents **")
        try:
            create = system.vssapi.CreateVssBackupComponentsInternal
        except AttributeError as exc:
            raise ProviderUnavailableError(
                "vssapi.dll has no CreateVssBackupComponentsInternal",
                reasons={"vss": "its library is not that of Windows Vista or later"},
                hint="repair Windows: sfc /scannow",
            ) from exc
        check(create(out), "CreateVssBackupComponents")
        self._reference = Reference(out[0])
        self._extended: Reference | None = None
        self.unreadable = 0

    def _this(self) -> IVssBackupComponents:
        pointer: IVssBackupComponents = self._reference.pointer
        return pointer

    def release(self) -> None:
        """Give back every reference.  Idempotent."""
        if self._extended is not None:
            self._extended.release()
        self._reference.release()

    # The state of a backup.

    def initialize_for_backup(self) -> None:
        """First, once."""
        this = self._this()
        check(this.lpVtbl.InitializeForBackup(this, ffi.NULL), "InitializeForBackup")
        self._extended = self._reference.query("IVssBackupComponentsEx3")

    def set_context(self, context: int) -> None:
        """Which kind of shadow copy; `SnapshotContext` with further `SnapshotAttributes`."""
        this = self._this()
        check(this.lpVtbl.SetContext(this, signed(context)), "SetContext")

    def set_backup_state(self, *, select_components: bool, bootable: bool, kind: BackupType) -> None:
        """What is backed up: whole volumes or components, and how."""
        this = self._this()
        check(
            this.lpVtbl.SetBackupState(this, select_components, bootable, kind, False),
            "SetBackupState",
        )

    def disable_writer_classes(self, ids: Sequence[UUID]) -> None:
        """Leave writers out."""
        this = self._this()
        check(this.lpVtbl.DisableWriterClasses(this, _array(ids), len(ids)), "DisableWriterClasses")

    def save_as_xml(self) -> str:
        """The backup components document."""
        this = self._this()
        slot = ffi.new("BSTR *")
        check(this.lpVtbl.SaveAsXML(this, slot), "SaveAsXML")
        return take_bstr(self._system, slot)

    def abort_backup(self) -> None:
        """Tell everybody that this backup came to nothing."""
        this = self._this()
        check(this.lpVtbl.AbortBackup(this), "AbortBackup")

    # Operations; each result is for `operations.wait`.

    def gather_writer_metadata(self) -> Reference:
        """Ask every writer what it has."""
        out = ffi.new("IVssAsync **")
        this = self._this()
        check(this.lpVtbl.GatherWriterMetadata(this, out), "GatherWriterMetadata")
        return Reference(out[0])

    def prepare_for_backup(self) -> Reference:
        """Tell writers to get ready."""
        out = ffi.new("IVssAsync **")
        this = self._this()
        check(this.lpVtbl.PrepareForBackup(this, out), "PrepareForBackup")
        return Reference(out[0])

    def gather_writer_status(self) -> Reference:
        """Ask every writer how it is."""
        out = ffi.new("IVssAsync **")
        this = self._this()
        check(this.lpVtbl.GatherWriterStatus(this, out), "GatherWriterStatus")
        return Reference(out[0])

    def do_snapshot_set(self) -> Reference:
        """The instant."""
        out = ffi.new("IVssAsync **")
        this = self._this()
        check(this.lpVtbl.DoSnapshotSet(this, out), "DoSnapshotSet")
        return Reference(out[0])

    def backup_complete(self) -> Reference:
        """Tell writers that the backup is done."""
        out = ffi.new("IVssAsync **")
        this = self._this()
        check(this.lpVtbl.BackupComplete(this, out), "BackupComplete")
        return Reference(out[0])

    # Writers.

    def writer_metadata(self, *, components: bool = False, schema: bool = False) -> list[WriterMetadata]:
        """What writers said of themselves; after `gather_writer_metadata`, freed afterwards.

        One whose document cannot be read is left out: it must not keep the others from being saved.

        Args:
            components: Whether their components are read, too.
            schema: Likewise, what kinds of backup they know.
        """
        this = self._this()
        count = ffi.new("UINT *")
        check(this.lpVtbl.GetWriterMetadataCount(this, count), "GetWriterMetadataCount")
        found = []
        for index in range(count[0]):
            instance, out = ffi.new("VSS_ID *"), ffi.new("IVssExamineWriterMetadata **")
            try:
                check(this.lpVtbl.GetWriterMetadata(this, index, instance, out), "GetWriterMetadata")
                with Reference(out[0]) as reference:
                    pointer = reference.pointer
                    found.append(
                        writer_metadata.read(self._system, pointer, components=components, schema=schema)
                    )
            except SnapshotError as exc:
                self.unreadable += 1
                _log.warning("VSS writer number %d: its document cannot be read: %s", index, exc)
        check(this.lpVtbl.FreeWriterMetadata(this), "FreeWriterMetadata")
        return found

    def free(self) -> None:
        """Free what was gathered of writers and not read to its end, whether or not there is any."""
        this = self._this()
        this.lpVtbl.FreeWriterMetadata(this)
        this.lpVtbl.FreeWriterStatus(this)

    def add_component(self, writer: WriterMetadata, component: Component) -> None:
        """Add a component to the document; before `start_snapshot_set`, explicit ones alone."""
        this, instance, cls = self._this(), guid(writer.instance_id), guid(writer.writer_id)
        path, name = named(component.logical_path, component.name)
        code = this.lpVtbl.AddComponent(this, instance[0], cls[0], component.kind, path, name)
        check(code, "AddComponent", f"{writer.name}: {component.name}")

    def set_backup_options(self, writer: WriterMetadata, component: Component, options: str) -> None:
        """What the writer of a component is to know, in its own language; before `prepare_for_backup`."""
        this, cls = self._this(), guid(writer.writer_id)
        path, name = named(component.logical_path, component.name)
        code = this.lpVtbl.SetBackupOptions(this, cls[0], component.kind, path, name, wide(options))
        check(code, "SetBackupOptions", f"{writer.name}: {component.name}")

    def set_previous_backup_stamp(self, writer: WriterMetadata, component: Component, stamp: str) -> None:
        """The stamp that its writer left in the backup that this continues; before `prepare_for_backup`."""
        this, cls = self._this(), guid(writer.writer_id)
        path, name = named(component.logical_path, component.name)
        code = this.lpVtbl.SetPreviousBackupStamp(this, cls[0], component.kind, path, name, wide(stamp))
        check(code, "SetPreviousBackupStamp", f"{writer.name}: {component.name}")

    def set_backup_succeeded(self, writer: WriterMetadata, component: Component, succeeded: bool) -> None:
        """Say what became of a component that was added; before `backup_complete`."""
        this, instance, cls = self._this(), guid(writer.instance_id), guid(writer.writer_id)
        path, name = named(component.logical_path, component.name)
        code = this.lpVtbl.SetBackupSucceeded(
            this, instance[0], cls[0], component.kind, path, name, succeeded
        )
        check(code, "SetBackupSucceeded", f"{writer.name}: {component.name}")

    def writer_status(self) -> list[WriterStatus]:
        """How writers are; after `gather_writer_status`, freed afterwards.

        One that cannot be asked is in state UNKNOWN, with the HRESULT of asking.
        """
        this = self._this()
        count = ffi.new("UINT *")
        check(this.lpVtbl.GetWriterStatusCount(this, count), "GetWriterStatusCount")
        found = []
        for index in range(count[0]):
            try:
                found.append(self._one_status(index))
            except SnapshotError as exc:
                found.append(_unknown(index, exc))
        check(this.lpVtbl.FreeWriterStatus(this), "FreeWriterStatus")
        return found

    def _one_status(self, index: int) -> WriterStatus:
        instance, writer, name = ffi.new("VSS_ID *"), ffi.new("VSS_ID *"), ffi.new("BSTR *")
        state, failure = ffi.new("VSS_WRITER_STATE *"), ffi.new("HRESULT *")
        application, message = ffi.new("HRESULT *"), ffi.new("BSTR *")
        if self._extended is not None:
            ex = self._extended.pointer
            code = ex.lpVtbl.GetWriterStatusEx(
                ex, index, instance, writer, name, state, failure, application, message
            )
        else:
            this = self._this()
            code = this.lpVtbl.GetWriterStatus(this, index, instance, writer, name, state, failure)
        check(code, "GetWriterStatus")
        return WriterStatus(
            name=take_bstr(self._system, name),
            writer_id=uuid_of(writer),
            instance_id=uuid_of(instance),
            state=_writer_state(state[0]),
            code=unsigned(failure[0]),
            application_code=unsigned(application[0]),
            message=take_bstr(self._system, message),
        )

    # Shadow copies.

    def start_snapshot_set(self) -> UUID:
        """Begin a set; from here to the end of `do_snapshot_set` no other requester can.

        Raises:
            SnapshotBusyError: another one does; call it again on the same object.
        """
        this = self._this()
        out = ffi.new("VSS_ID *")
        check(this.lpVtbl.StartSnapshotSet(this, out), "StartSnapshotSet")
        return uuid_of(out)

    def is_volume_supported(self, volume: str, provider: UUID = GUID_NULL, *, shown: str = "") -> bool:
        """Whether a provider (any, by default) can copy a volume; ``shown`` is its name in messages."""
        this = self._this()
        out, given = ffi.new("BOOL *"), guid(provider)
        name = wide(volume)
        check(this.lpVtbl.IsVolumeSupported(this, given[0], name, out), "IsVolumeSupported", shown or volume)
        return bool(out[0])

    def add_to_snapshot_set(self, volume: str, provider: UUID = GUID_NULL, *, shown: str = "") -> UUID:
        """Add a volume, named with a backslash at the end; gives the shadow copy's id."""
        this = self._this()
        out, given = ffi.new("VSS_ID *"), guid(provider)
        name = wide(volume)
        check(this.lpVtbl.AddToSnapshotSet(this, name, given[0], out), "AddToSnapshotSet", shown or volume)
        return uuid_of(out)

    def snapshot(self, snapshot_id: UUID) -> ShadowCopy:
        """The properties of a shadow copy."""
        this = self._this()
        out, given = ffi.new("VSS_SNAPSHOT_PROP *"), guid(snapshot_id)
        check(this.lpVtbl.GetSnapshotProperties(this, given[0], out), "GetSnapshotProperties")
        try:
            return shadow_copy(out[0])
        finally:
            self._system.vssapi.VssFreeSnapshotPropertiesInternal(out)


def named(logical_path: str, name: str) -> tuple[CData, CData]:
    """How calls name a component; no logical path is NULL ("Logical Pathing of Components")."""
    return (wide(logical_path) if logical_path else ffi.NULL), wide(name)


def _array(ids: Sequence[UUID]) -> CData:
    made = ffi.new("VSS_ID[]", len(ids))
    for index, value in enumerate(ids):
        made[index] = guid(value)[0]
    return made


def _unknown(index: int, exc: SnapshotError) -> WriterStatus:
    return WriterStatus(
        name=f"writer number {index}",
        writer_id=GUID_NULL,
        instance_id=GUID_NULL,
        state=WriterState.VSS_WS_UNKNOWN,
        code=exc.code or HResult.E_UNEXPECTED,
    )


def _writer_state(value: int) -> WriterState:
    try:
        return WriterState(value)
    except ValueError:
        return WriterState.VSS_WS_UNKNOWN


def shadow_copy(found: CData) -> ShadowCopy:
    """What a VSS_SNAPSHOT_PROP says; its strings stay its owner's."""
    return ShadowCopy(
        id=uuid_of(found.m_SnapshotId),
        set_id=uuid_of(found.m_SnapshotSetId),
        device=text_at(found.m_pwszSnapshotDeviceObject).rstrip("\\"),
        volume=text_at(found.m_pwszOriginalVolumeName),
        provider_id=uuid_of(found.m_ProviderId),
        attributes=unsigned(found.m_lSnapshotAttributes),
        created=_time(found.m_tsCreationTimestamp),
        exposed=text_at(found.m_pwszExposedName),
        state=found.m_eStatus,
    )


def _time(ticks: int) -> datetime:
    """A VSS_TIMESTAMP: units of 100 ns since 1601 UTC."""
    try:
        return _EPOCH + timedelta(microseconds=ticks // 10)
    except OverflowError:
        return _EPOCH
