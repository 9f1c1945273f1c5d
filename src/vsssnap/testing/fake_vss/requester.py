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
from vsssnap._win32.constants import (
    BackupType,
    ObjectType,
    SnapshotAttributes,
    SnapshotContext,
    SnapshotState,
)
from vsssnap._win32.guids import GUID_NULL
from vsssnap._win32.hresult import HResult, signed, unsigned
from vsssnap.testing.fake_vss.management import FakeEnumObject
from vsssnap.testing.fake_vss.metadata import FakeMetadata
from vsssnap.testing.fake_vss.objects import FakeAsync, FakeObject, id_of, put_id
from vsssnap.testing.fake_vss.parts import FakeShadow, FakeVolume, FakeWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from vsssnap.testing.fake_vss.machine import Machine

CData = Any
_OK, _BAD = HResult.S_OK, HResult.VSS_E_BAD_STATE
_NO_WRITERS = SnapshotAttributes.VSS_VOLSNAP_ATTR_NO_WRITERS
_NO_AUTO_RELEASE = SnapshotAttributes.VSS_VOLSNAP_ATTR_NO_AUTO_RELEASE
_KNOWN_ATTRIBUTES = 0x0000_00FF | 0x0F7F_0000
MOST_VOLUMES = 64


class FakeBackupComponents(FakeObject):
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
        self.purpose = ""
        self.context: int | None = None
        self.state_set = False
        self.disabled: set[UUID] = set()
        self.writers: list[FakeWriter] | None = None  # once they were gathered
        self.gathering = False
        self.unread_metadata = False
        self.statuses: list[tuple[FakeWriter, int, int]] | None = None
        self.set_id: UUID | None = None
        self.shadows: list[FakeShadow] = []
        self.prepared = ""  # "", "running", "done", "failed"
        self.done = ""  # likewise, of DoSnapshotSet
        self.completed = False
        self.aborted = False

    # Helpers.

    @property
    def with_writers(self) -> bool:
        """Whether writers take part in the context."""
        return not (self.context or 0) & _NO_WRITERS

    def _begin(self, step: str, out: CData, effect: Callable[[], int | None]) -> int:
        if not out:
            return HResult.E_INVALIDARG
        FakeAsync(self.machine, step, effect).give(out)
        return _OK

    def _text(self, out: CData, text: str) -> None:
        out[0] = self.machine.bstr(text)

    def _tell(self, event: str) -> None:
        for writer in self.writers or ():
            writer.on(event)

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
        del select, bootable, partial
        if not self.purpose or self.prepared:
            return _BAD
        if kind not in list(BackupType) or kind == BackupType.VSS_BT_UNDEFINED:
            return HResult.E_INVALIDARG
        self.state_set = True
        return _OK

    def DisableWriterClasses(self, ids: CData, count: int) -> int:
        """Before GatherWriterMetadata; after it without effect."""
        if not self.purpose:
            return _BAD
        if not self.gathering:
            self.disabled |= {id_of(ids[index]) for index in range(count)}
        return _OK

    # Writers.

    def GatherWriterMetadata(self, out: CData) -> int:
        """Once in the life of the object."""
        if not self.purpose or self.gathering:
            return _BAD
        self.gathering = True

        def effect() -> None:
            self.writers = [w for w in self.machine.writers if w.writer_id not in self.disabled]
            self.unread_metadata = True
            self._tell("identify")

        return self._begin("GatherWriterMetadata", out, effect)

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

        return self._begin("GatherWriterStatus", out, effect)

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
        if not self.purpose or self.set_id or self.prepared:
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

        def effect() -> None:
            self._tell("prepare_backup")
            self.prepared = "done"

        return self._begin("PrepareForBackup", out, effect)

    def DoSnapshotSet(self, out: CData) -> int:
        """After StartSnapshotSet; with writers after GatherWriterMetadata and PrepareForBackup, too."""
        ready = self.writers is not None and self.prepared == "done" if self.with_writers else True
        if self.set_id is None or self.done or self.aborted or not ready:
            return _BAD
        self.done = "failed"
        return self._begin("DoSnapshotSet", out, self._commit)

    def _commit(self) -> None:
        if self.with_writers:
            self._tell("prepare_snapshot")
            self._tell("freeze")
        self.machine.instant()
        for shadow in self.shadows:
            shadow.data, shadow.free = bytes(shadow.volume.data), shadow.volume.free
            shadow.created, shadow.state = datetime.now(UTC), SnapshotState.VSS_SS_CREATED
            self.machine.shadows[shadow.id] = shadow
        if self.with_writers:
            self._tell("thaw")
            self._tell("post_snapshot")
        self.done = "done"
        self.machine.leave_set(self)

    def GetSnapshotProperties(self, shadow_id: CData, out: CData) -> int:
        """Of a shadow copy that exists; the caller has zeroed the structure."""
        if not self.purpose:
            return _BAD
        found = self.machine.shadows.get(id_of(shadow_id))
        if found is None or found.lost:
            return HResult.VSS_E_OBJECT_NOT_FOUND
        if any(bytes(ffi.buffer(out))):
            self.machine.ledger.forbid("GetSnapshotProperties: the structure should be zero before")
        self.machine.fill(out, found)
        return _OK

    def DeleteSnapshots(self, source: CData, kind: int, force: int, deleted: CData, failed: CData) -> int:
        """A shadow copy, or all of a set; stops at the first that cannot be deleted."""
        del force
        if not self.purpose:
            return _BAD
        wanted = id_of(source)
        by_set = kind == ObjectType.VSS_OBJECT_SNAPSHOT_SET
        found = [
            shadow
            for shadow in self.machine.shadows.values()
            if (shadow.set_id if by_set else shadow.id) == wanted and not shadow.lost
        ]
        put_id(failed, GUID_NULL)
        deleted[0] = len(found)
        for shadow in found:
            self.machine.drop(shadow)
        return _OK if found else HResult.VSS_E_OBJECT_NOT_FOUND

    def Query(self, source: CData, kind: int, wanted: int, out: CData) -> int:
        """All shadow copies of the context; of GUID_NULL and VSS_OBJECT_NONE, nothing else is supported."""
        if not self.purpose:
            return _BAD
        if id_of(source) != GUID_NULL or kind != ObjectType.VSS_OBJECT_NONE:
            return HResult.E_INVALIDARG
        if wanted != ObjectType.VSS_OBJECT_SNAPSHOT:
            return HResult.E_NOTIMPL
        every = self.context == SnapshotContext.VSS_CTX_ALL
        found = [
            shadow
            for shadow in self.machine.shadows.values()
            if not shadow.lost and (every or shadow.context == (self.context or 0))
        ]
        FakeEnumObject(self.machine, [self._filler(shadow) for shadow in found]).give(out)
        return _OK

    def _filler(self, shadow: FakeShadow) -> Callable[[CData], None]:
        def fill(to: CData) -> None:
            to.Type = ObjectType.VSS_OBJECT_SNAPSHOT
            self.machine.fill(ffi.addressof(to.Obj, "Snap"), shadow)

        return fill

    # The end.

    def SaveAsXML(self, out: CData) -> int:
        """Never before PrepareForBackup, where writers take part."""
        if not self.purpose or (self.with_writers and self.prepared != "done"):
            return _BAD
        self._text(out, f'<BACKUP_COMPONENTS snapshotSetId="{self.set_id}" bootableSystemStateBackup="no"/>')
        return _OK

    def BackupComplete(self, out: CData) -> int:
        """After a DoSnapshotSet that succeeded, and only where writers take part."""
        if self.done != "done" or not self.with_writers or self.aborted:
            return _BAD

        def effect() -> None:
            self._tell("backup_complete")
            self.completed = True

        return self._begin("BackupComplete", out, effect)

    def AbortBackup(self) -> int:
        """Ignored if nothing is under way."""
        if not self.purpose:
            return _BAD
        if (self.set_id or self.prepared) and not self.completed and not self.aborted:
            self._tell("abort")
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
        if self.unread_metadata:
            forbid("IVssBackupComponents was released without FreeWriterMetadata")
        if self.statuses is not None:
            forbid("IVssBackupComponents was released without FreeWriterStatus")
        self._tell("backup_shutdown")
        self.machine.leave_set(self)
        for shadow in self.shadows:
            if not shadow.context & _NO_AUTO_RELEASE:
                self.machine.drop(shadow)
