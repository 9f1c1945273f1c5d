"""`IVssBackupComponents` as Microsoft documents it: what it refuses, and what it does.

Written from the pages of each method in the Windows SDK documentation, "Shadow Copy Creation
Details", "Aborting VSS Operations" and "Usage Conventions"; the rule stands beside each refusal.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import BackupType, SnapshotAttributes, SnapshotState, WriterState
from vsssnap._win32.guids import GUID_NULL
from vsssnap._win32.hresult import HResult, signed, unsigned
from vsssnap.testing.fake_vss import documents
from vsssnap.testing.fake_vss.metadata import FakeMetadata
from vsssnap.testing.fake_vss.objects import id_of, put_id
from vsssnap.testing.fake_vss.parts import FakeShadow, FakeVolume, FakeWriter
from vsssnap.testing.fake_vss.shadows import ShadowSlots

if TYPE_CHECKING:
    from vsssnap.testing.fake_vss.machine import Machine

CData = Any
_OK, _BAD = HResult.S_OK, HResult.VSS_E_BAD_STATE
_NO_WRITERS = SnapshotAttributes.VSS_VOLSNAP_ATTR_NO_WRITERS
_NO_AUTO_RELEASE = SnapshotAttributes.VSS_VOLSNAP_ATTR_NO_AUTO_RELEASE
_KNOWN_ATTRIBUTES = 0x0000_00FF | 0x0F7F_0000
MOST_VOLUMES = 64


class FakeBackupComponents(ShadowSlots):
    """One requester; it can be used for one backup."""

    interface = "IVssBackupComponentsEx3"
    title = "IVssBackupComponents"
    answers: ClassVar[tuple[str, ...]] = (
        "IVssBackupComponents",
        "IVssBackupComponentsEx",
        "IVssBackupComponentsEx2",
        "IVssBackupComponentsEx3",
    )

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.context = None
        self.state_set = False
        self.session_id = uuid.uuid4()
        self.disabled: set[UUID] = set()  # classes and instances
        self.enabled: set[UUID] | None = None  # None for all
        self.gathering = False
        self.unread_metadata = False
        self.statuses: list[tuple[FakeWriter, int, int]] | None = None
        self.shadows: list[FakeShadow] = []
        self.aborted = False

    # Helpers.

    @property
    def with_writers(self) -> bool:
        """Whether writers take part in the context."""
        return not (self.context or 0) & _NO_WRITERS

    def _text(self, out: CData, text: str) -> None:
        out[0] = self.machine.bstr(text)

    # What the backup is.

    def InitializeForBackup(self, xml: CData) -> int:
        """Once, before all others; for a backup there is no document."""
        if self.purpose:
            return _BAD
        if xml:
            return HResult.E_INVALIDARG
        self.purpose = "backup"
        return _OK

    def SetContext(self, context: int) -> int:
        """Once, before most other calls."""
        if not self.purpose or self.context is not None or self.gathering or self.set_id:
            return _BAD
        context = unsigned(context)
        if context != 0xFFFF_FFFF and context & ~_KNOWN_ATTRIBUTES:
            return HResult.VSS_E_UNSUPPORTED_CONTEXT
        self.context = context
        return _OK

    def SetBackupState(self, select: bool, bootable: bool, kind: int, partial: bool) -> int:
        """Before PrepareForBackup."""
        del partial
        if self.purpose != "backup" or self.prepared:
            return _BAD
        if kind not in list(BackupType) or kind == BackupType.VSS_BT_UNDEFINED:
            return HResult.E_INVALIDARG
        self.state_set, self.select, self.bootable = True, bool(select), bool(bootable)
        return _OK

    def DisableWriterClasses(self, ids: CData, count: int) -> int:
        """Before GatherWriterMetadata; after it without effect."""
        if not self.purpose:
            return _BAD
        if not self.gathering:
            self.disabled |= {id_of(ids[index]) for index in range(count)}
        return _OK

    def EnableWriterClasses(self, ids: CData, count: int) -> int:
        """Before GatherWriterMetadata; all others are then left out."""
        if not self.purpose:
            return _BAD
        if not self.gathering:
            self.enabled = (self.enabled or set()) | {id_of(ids[index]) for index in range(count)}
        return _OK

    def DisableWriterInstances(self, ids: CData, count: int) -> int:
        """Before GatherWriterMetadata; after it without effect."""
        if not self.purpose:
            return _BAD
        if not self.gathering:
            self.disabled |= {id_of(ids[index]) for index in range(count)}
        return _OK

    def GetSessionId(self, out: CData) -> int:
        """Once the object is initialized."""
        if not self.purpose:
            return _BAD
        put_id(out, self.session_id)
        return _OK

    # Writers.

    def GatherWriterMetadata(self, out: CData) -> int:
        """Once in the life of the object."""
        if not self.purpose or self.gathering:
            return _BAD
        self.gathering = True

        def effect() -> None:
            self.writers = [
                writer
                for writer in self.machine.writers
                if not {writer.writer_id, writer.instance_id} & self.disabled
                and (self.enabled is None or writer.writer_id in self.enabled)
            ]
            self.unread_metadata = True
            self.tell("identify")
            # "Determining Writer Status": one that fails there is in no list, and has no status.
            failed = WriterState.VSS_WS_FAILED_AT_IDENTIFY
            self.writers = [writer for writer in self.writers if writer.state != failed]

        return self.begin("GatherWriterMetadata", out, effect)

    def GetWriterMetadataCount(self, out: CData) -> int:
        """After GatherWriterMetadata has finished."""
        if self.writers is None or not self.unread_metadata:
            return _BAD
        out[0] = len(self.writers)
        return _OK

    def GetWriterMetadata(self, index: int, instance: CData, out: CData) -> int:
        """After GatherWriterMetadata has finished, and before FreeWriterMetadata."""
        if self.writers is None or not self.unread_metadata:
            return _BAD
        if index >= len(self.writers):
            return HResult.VSS_E_OBJECT_NOT_FOUND
        put_id(instance, self.writers[index].instance_id)
        FakeMetadata(self.machine, self.writers[index]).give(out)
        return _OK

    def FreeWriterMetadata(self) -> int:
        """After GatherWriterMetadata."""
        if self.writers is None:
            return _BAD
        self.unread_metadata = False
        return _OK

    def GatherWriterStatus(self, out: CData) -> int:
        """Whenever writers were gathered."""
        if not self.purpose:
            return _BAD

        def effect() -> None:
            self.statuses = [(w, int(w.state), w.failure) for w in self.writers or ()]

        return self.begin("GatherWriterStatus", out, effect)

    def GetWriterStatusCount(self, out: CData) -> int:
        """After GatherWriterStatus has finished."""
        if self.statuses is None:
            return _BAD
        out[0] = len(self.statuses)
        return _OK

    def GetWriterStatus(
        self, index: int, instance: CData, writer: CData, name: CData, state: CData, failure: CData
    ) -> int:
        """After GatherWriterStatus has finished, and before FreeWriterStatus."""
        if self.statuses is None:
            return _BAD
        if index >= len(self.statuses):
            return HResult.VSS_E_OBJECT_NOT_FOUND
        found, found_state, code = self.statuses[index]
        put_id(instance, found.instance_id)
        put_id(writer, found.writer_id)
        self._text(name, found.name)
        state[0], failure[0] = found_state, signed(code)
        return _OK

    def GetWriterStatusEx(self, index: int, *out: CData) -> int:
        """The same, with what the application said."""
        instance, writer, name, state, failure, application, message = out
        code = self.GetWriterStatus(index, instance, writer, name, state, failure)
        if not code and self.statuses is not None and application and message:
            found = self.statuses[index][0]
            application[0] = signed(HResult.E_FAIL) if found.failure and found.message else 0
            self._text(message, found.message if found.failure else "")
        return code

    def FreeWriterStatus(self) -> int:
        """Whenever."""
        self.statuses = None
        return _OK

    # The set.

    def StartSnapshotSet(self, out: CData) -> int:
        """Once, before PrepareForBackup; one set at a time is being created on a machine."""
        if self.purpose != "backup" or self.set_id or self.prepared:
            return _BAD
        if not self.machine.enter_set(self):
            return HResult.VSS_E_SNAPSHOT_SET_IN_PROGRESS
        self.set_id = uuid.uuid4()
        put_id(out, self.set_id)
        return _OK

    def _volume(self, name: CData, provider: UUID) -> FakeVolume | int:
        """The volume of a name, which ends with a backslash."""
        if provider not in (GUID_NULL, *self.machine.providers):
            return HResult.VSS_E_PROVIDER_NOT_REGISTERED
        found = self.machine.volume(str(ffi.string(name)))
        return HResult.VSS_E_OBJECT_NOT_FOUND if found is None else found

    def IsVolumeSupported(self, provider: CData, name: CData, out: CData) -> int:
        """Once the object is initialized."""
        if not self.purpose:
            return _BAD
        found = self._volume(name, id_of(provider))
        if isinstance(found, int):
            return found
        out[0] = found.supported
        return _OK

    def AddToSnapshotSet(self, name: CData, provider: CData, out: CData) -> int:
        """After StartSnapshotSet; 64 volumes at most, each once."""
        if self.set_id is None or self.prepared or self.done or self.aborted:
            return _BAD
        found = self._volume(name, id_of(provider))
        if isinstance(found, int):
            return found
        if not found.supported:
            return HResult.VSS_E_VOLUME_NOT_SUPPORTED
        if any(shadow.volume is found for shadow in self.shadows):
            return HResult.VSS_E_OBJECT_ALREADY_EXISTS
        if len(self.shadows) >= MOST_VOLUMES:
            return HResult.VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED
        shadow = FakeShadow(uuid.uuid4(), self.set_id, found, self.machine.next_number(), self.context or 0)
        self.shadows.append(shadow)
        put_id(out, shadow.id)
        return _OK

    def PrepareForBackup(self, out: CData) -> int:
        """After SetBackupState and StartSnapshotSet, and only where writers take part."""
        if not (self.state_set and self.set_id and self.with_writers) or self.prepared or self.aborted:
            return _BAD
        self.prepared = "running"
        self.events += 1
        if self.document and not self.select:
            self.machine.ledger.forbid("AddComponent has meaning only in component mode: see SetBackupState")

        def effect() -> None:
            self.tell("prepare_backup")
            self.prepared = "done"

        return self.begin("PrepareForBackup", out, effect)

    def DoSnapshotSet(self, out: CData) -> int:
        """After StartSnapshotSet; with writers after GatherWriterMetadata and PrepareForBackup, too."""
        ready = self.writers is not None and self.prepared == "done" if self.with_writers else True
        if self.set_id is None or self.done or self.aborted or not ready:
            return _BAD
        self.done = "failed"
        self.events += 1
        return self.begin("DoSnapshotSet", out, self._commit)

    def _commit(self) -> None:
        if self.with_writers:
            self.tell("prepare_snapshot")
            self.tell("freeze")
        self.machine.instant()
        for shadow in self.shadows:
            shadow.data, shadow.free = bytes(shadow.volume.data), shadow.volume.free
            shadow.created, shadow.state = datetime.now(UTC), SnapshotState.VSS_SS_CREATED
            self.machine.shadows[shadow.id] = shadow
        if self.with_writers:
            self.tell("thaw")
            self.tell("post_snapshot")
        self.done = "done"
        self.machine.leave_set(self)

    # The end.

    def SaveAsXML(self, out: CData) -> int:
        """Never before PrepareForBackup, where writers take part."""
        if not self.purpose or (self.with_writers and self.prepared != "done"):
            return _BAD
        self._text(
            out,
            documents.write(self.document, bootable=self.bootable, select=self.select, set_id=self.set_id),
        )
        return _OK

    def BackupComplete(self, out: CData) -> int:
        """After a DoSnapshotSet that succeeded, and only where writers take part."""
        if self.done != "done" or not self.with_writers or self.aborted:
            return _BAD
        self.events += 1
        for one in self.document:
            if one.succeeded is None:
                self.machine.ledger.forbid(f"BackupComplete: call SetBackupSucceeded for {one.path} before")

        def effect() -> None:
            self.tell("backup_complete")
            self.completed = True

        return self.begin("BackupComplete", out, effect)

    def AbortBackup(self) -> int:
        """Ignored if nothing is under way."""
        if not self.purpose:
            return _BAD
        if (self.set_id or self.prepared) and not self.completed and not self.aborted:
            self.tell("abort")
            self.aborted = True
            self.machine.leave_set(self)
        return _OK

    def released(self) -> None:
        """Auto-release shadow copies go; a backup that is under way must have been ended before."""
        forbid = self.machine.ledger.forbid
        if self.prepared == "done" and not (self.completed or self.aborted):
            forbid("IVssBackupComponents was released after PrepareForBackup: call AbortBackup first")
        if self.set_id and self.done != "done" and not self.aborted:
            forbid("IVssBackupComponents was released after StartSnapshotSet: call AbortBackup first")
        if self.restoring in ("running", "begun"):
            forbid("IVssBackupComponents was released after PreRestore: call PostRestore first")
        if self.unread_metadata:
            forbid("IVssBackupComponents was released without FreeWriterMetadata")
        if self.statuses is not None:
            forbid("IVssBackupComponents was released without FreeWriterStatus")
        self.tell("backup_shutdown")
        self.machine.leave_set(self)
        for shadow in self.shadows:
            if not shadow.context & _NO_AUTO_RELEASE:
                self.machine.drop(shadow)
