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
    SnapshotAttributes,
    SnapshotContext,
    SnapshotState,
)
from vsssnap._win32.guids import GUID_NULL, SYSTEM_PROVIDER
from vsssnap._win32.hresult import HResult, unsigned
from vsssnap.testing.fake_vss import documents
from vsssnap.testing.fake_vss.gathering import WriterSlots
from vsssnap.testing.fake_vss.objects import id_of, put_id
from vsssnap.testing.fake_vss.parts import FakeShadow, FakeVolume
from vsssnap.testing.fake_vss.restoring import text_of

if TYPE_CHECKING:
    from vsssnap.testing.fake_vss.machine import Machine

CData = Any
_ALL = SnapshotContext.VSS_CTX_ALL
_OK, _BAD = HResult.S_OK, HResult.VSS_E_BAD_STATE
_NO_WRITERS = SnapshotAttributes.VSS_VOLSNAP_ATTR_NO_WRITERS
_NO_AUTO_RELEASE = SnapshotAttributes.VSS_VOLSNAP_ATTR_NO_AUTO_RELEASE
_TRANSPORTABLE = SnapshotAttributes.VSS_VOLSNAP_ATTR_TRANSPORTABLE
_KNOWN_ATTRIBUTES = 0x0000_00FF | 0x0F7F_0000
MOST_VOLUMES = 64


class FakeBackupComponents(WriterSlots):
    """One requester; it can be used for one backup."""

    interface = "IVssBackupComponentsEx4"
    title = "IVssBackupComponents"
    answers: ClassVar[tuple[str, ...]] = (
        "IVssBackupComponents",
        "IVssBackupComponentsEx",
        "IVssBackupComponentsEx2",
        "IVssBackupComponentsEx3",
        "IVssBackupComponentsEx4",
    )

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.context = None
        self.state_set = False
        self.session_id = uuid.uuid4()
        self.aborted = False

    # Helpers.

    @property
    def with_writers(self) -> bool:
        """Whether writers take part in the context."""
        return not (self.context or 0) & _NO_WRITERS

    # What the backup is.

    def InitializeForBackup(self, xml: CData) -> int:
        """Once, before all others; with a document of another machine only to import its shadow copies."""
        if self.purpose:
            return _BAD
        if xml:
            found = documents.read(text_of(xml))
            if found is None:
                return HResult.VSS_E_INVALID_XML_DOCUMENT
            self.document, self.given = found
        self.purpose = "backup"
        return _OK

    def SetContext(self, context: int) -> int:
        """Once, before most other calls."""
        if not self.purpose or self.context is not None or self.gathering or self.set_id:
            return _BAD
        context = unsigned(context)
        if context != _ALL and (
            context & ~_KNOWN_ATTRIBUTES or (context & _TRANSPORTABLE and not self.machine.server)
        ):
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

    def GetSessionId(self, out: CData) -> int:
        """Once the object is initialized."""
        if not self.purpose:
            return _BAD
        put_id(out, self.session_id)
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
        if provider not in (GUID_NULL, *(one.id for one in self.machine.providers)):
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
        out[0] = isinstance(self._maker(found, id_of(provider)), UUID)
        return _OK

    def _maker(self, volume: FakeVolume, wanted: UUID) -> UUID | int:
        """The provider that copies a volume: by default its hardware provider, if it has one."""
        array = volume.provider if volume.provider in {one.id for one in self.machine.hardware()} else None
        maker = (array or SYSTEM_PROVIDER) if wanted == GUID_NULL else wanted
        if not volume.supported or maker not in (SYSTEM_PROVIDER, array):
            refused = HResult.VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER
            return HResult.VSS_E_VOLUME_NOT_SUPPORTED if wanted == GUID_NULL else refused
        if (self.context or 0) & _TRANSPORTABLE and maker != array and self.context != _ALL:
            return HResult.VSS_E_VOLUME_NOT_SUPPORTED  # transportable ones are of hardware
        return maker

    def AddToSnapshotSet(self, name: CData, provider: CData, out: CData) -> int:
        """After StartSnapshotSet; 64 volumes at most, each once, none in a virtual disk of another."""
        if self.set_id is None or self.prepared or self.done or self.aborted:
            return _BAD
        found = self._volume(name, id_of(provider))
        if isinstance(found, int):
            return found
        maker = self._maker(found, id_of(provider))
        if not isinstance(maker, UUID):
            return maker
        if any(shadow.volume is found for shadow in self.shadows):
            return HResult.VSS_E_OBJECT_ALREADY_EXISTS
        if len(self.shadows) >= MOST_VOLUMES:
            return HResult.VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED
        deep = found.host is not None and found.host.host is not None
        if deep or any(s.volume is found.host or s.volume.host is found for s in self.shadows):
            return HResult.VSS_E_NESTED_VOLUME_LIMIT
        number = self.machine.next_number()
        shadow = FakeShadow(uuid.uuid4(), self.set_id, found, number, self.context or 0, provider_id=maker)
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
            # A transportable one is in the array until somebody imports it.
            place = self.machine.luns if shadow.transportable else self.machine.shadows
            place[shadow.id] = shadow
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
        saved = [
            documents.SavedShadow(one.id, one.set_id, one.provider_id, one.transportable)
            for one in self.shadows
        ]
        text = documents.write(
            self.document, bootable=self.bootable, select=self.select, set_id=self.set_id, shadows=saved
        )
        out[0] = self.machine.bstr(text)
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
            if not shadow.context & _NO_AUTO_RELEASE and shadow.id in self.machine.shadows:
                self.machine.drop(shadow)
