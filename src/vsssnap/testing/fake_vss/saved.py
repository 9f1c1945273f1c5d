"""`IVssWriterComponentsExt` and `IVssComponent`: what a backup components document holds.

Getters are there for everybody (the pages of the methods of IVssComponent to Ex2); for setters see
`leaving`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from vsssnap._win32._ffi import ffi
from vsssnap._win32.hresult import HResult, signed
from vsssnap.testing.fake_vss.leaving import LeavingWord
from vsssnap.testing.fake_vss.metadata import FakeFiledesc
from vsssnap.testing.fake_vss.objects import FakeObject, put_id
from vsssnap.testing.fake_vss.writers import FakeFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vsssnap.testing.fake_vss.documents import SavedComponent
    from vsssnap.testing.fake_vss.machine import Machine

CData = Any
_OK, _NONE, _ABSENT = HResult.S_OK, HResult.S_FALSE, HResult.VSS_E_OBJECT_NOT_FOUND


class _Fresh(FakeObject):
    """An object that PrepareForBackup, DoSnapshotSet, BackupComplete, PreRestore and PostRestore spoil.

    Source: IVssBackupComponents::GetWriterComponents, remarks.
    """

    def __init__(self, machine: Machine, is_fresh: Callable[[], bool]) -> None:
        super().__init__(machine)
        self.is_fresh = is_fresh

    def call(self, slot: str, arguments: tuple[CData, ...]) -> int:
        """A spoilt object may only be released."""
        if slot != "Release" and not self.is_fresh():
            self.machine.ledger.forbid(
                f"{self.title}::{slot}: the object was spoilt by an event: get it anew"
            )
        return super().call(slot, arguments)

    def text(self, out: CData, text: str) -> int:
        """A string, or S_FALSE and NULL for none."""
        out[0] = self.machine.bstr(text) if text else ffi.NULL
        return _OK if text else _NONE


class FakeWriterComponents(_Fresh):
    """The components of one writer; two vtables, and released through the second."""

    interface = "IVssWriterComponentsExt"
    title = "IVssWriterComponentsExt"
    answers: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, machine: Machine, components: Sequence[SavedComponent], is_fresh: Callable[[], bool]
    ) -> None:
        super().__init__(machine, is_fresh)
        self._components = list(components)

    def build(self) -> CData:
        """Two interfaces, one behind the other."""
        made = ffi.new("IVssWriterComponentsExt *")
        self.place(ffi.addressof(made, "components"), "IVssWriterComponents")
        self.place(ffi.addressof(made, "unknown"), "IUnknown")
        return made

    def query(self, iid: CData, out: CData) -> int:
        """QueryInterface: whoever asks has the second vtable, and gets it again."""
        code = super().query(iid, out)
        if not code:
            out[0] = ffi.cast("void *", ffi.addressof(self.pointer, "unknown"))
        return code

    def GetComponentCount(self, out: CData) -> int:
        """How many there are."""
        out[0] = len(self._components)
        return _OK

    def GetWriterInfo(self, instance: CData, writer: CData) -> int:
        """Whose they are."""
        put_id(instance, self._components[0].instance_id)
        put_id(writer, self._components[0].writer_id)
        return _OK

    def GetComponent(self, index: int, out: CData) -> int:
        """One of them."""
        if index >= len(self._components):
            return _ABSENT
        FakeSavedComponent(self.machine, self._components[index], self.is_fresh).give(out)
        return _OK


class FakeSavedComponent(LeavingWord, _Fresh):
    """A component in the document."""

    interface = "IVssComponentEx2"
    title = "IVssComponent"
    answers: ClassVar[tuple[str, ...]] = ("IVssComponent", "IVssComponentEx", "IVssComponentEx2")

    def __init__(
        self, machine: Machine, saved: SavedComponent, is_fresh: Callable[[], bool], *, event: str = ""
    ) -> None:
        """Give it to a requester, or to the writer that handles an event."""
        super().__init__(machine, is_fresh)
        self._saved = saved
        self._event = event

    def GetLogicalPath(self, out: CData) -> int:
        """What it lies below."""
        return self.text(out, self._saved.logical_path)

    def GetComponentType(self, out: CData) -> int:
        """What it is."""
        out[0] = self._saved.kind
        return _OK

    def GetComponentName(self, out: CData) -> int:
        """Its name."""
        return self.text(out, self._saved.name)

    def GetBackupSucceeded(self, out: CData) -> int:
        """What SetBackupSucceeded said."""
        out[0] = bool(self._saved.succeeded)
        return _OK

    def GetBackupOptions(self, out: CData) -> int:
        """What SetBackupOptions said."""
        return self.text(out, self._saved.backup_options)

    def GetRestoreOptions(self, out: CData) -> int:
        """What SetRestoreOptions said."""
        return self.text(out, self._saved.restore_options)

    def GetPreviousBackupStamp(self, out: CData) -> int:
        """What SetPreviousBackupStamp said."""
        return self.text(out, self._saved.previous_stamp)

    def GetRestoreName(self, out: CData) -> int:
        """What SetRestoreName said."""
        return self.text(out, self._saved.restore_name)

    def IsSelectedForRestore(self, out: CData) -> int:
        """What SetSelectedForRestore said."""
        out[0] = self._saved.selected
        return _OK

    def GetAdditionalRestores(self, out: CData) -> int:
        """What SetAdditionalRestores said."""
        out[0] = self._saved.more_restores
        return _OK

    def GetFileRestoreStatus(self, out: CData) -> int:
        """What SetFileRestoreStatus said."""
        out[0] = self._saved.status
        return _OK

    def GetRestoreTarget(self, out: CData) -> int:
        """Where the writer wants it."""
        out[0] = self._saved.target
        return _OK

    def GetPreRestoreFailureMsg(self, out: CData) -> int:
        """What the writer said as it failed."""
        return self.text(out, self._saved.before)

    def GetPostRestoreFailureMsg(self, out: CData) -> int:
        """Likewise."""
        return self.text(out, self._saved.after)

    def GetRestoreSubcomponentCount(self, out: CData) -> int:
        """How often AddRestoreSubcomponent was called."""
        out[0] = len(self._saved.subcomponents)
        return _OK

    def GetRestoreSubcomponent(self, index: int, path: CData, name: CData, repair: CData) -> int:
        """What it said."""
        if index >= len(self._saved.subcomponents):
            return _ABSENT
        known = self._saved.subcomponents[index]
        self.text(path, known[0])
        self.text(name, known[1])
        repair[0] = known[2]
        return _OK

    def GetNewTargetCount(self, out: CData) -> int:
        """How often AddNewTarget was called."""
        out[0] = len(self._saved.new_targets)
        return _OK

    def GetNewTarget(self, index: int, out: CData) -> int:
        """What AddNewTarget said."""
        return self._moved(self._saved.new_targets, index, out)

    def GetAlternateLocationMapping(self, index: int, out: CData) -> int:
        """What AddAlternativeLocationMapping said."""
        return self._moved(self._saved.mappings, index, out)

    def _moved(self, known: list[tuple[str, str, bool, str]], index: int, out: CData) -> int:
        if index >= len(known):
            return _ABSENT
        folder, spec, recursive, place = known[index]
        FakeFiledesc(self.machine, FakeFiles(folder, spec, recursive, place)).give(out)
        return _OK

    def GetAuthoritativeRestore(self, out: CData) -> int:
        """What SetAuthoritativeRestore said."""
        out[0] = self._saved.authoritative
        return _OK

    def GetRollForward(self, how: CData, point: CData) -> int:
        """What SetRollForward said."""
        how[0] = self._saved.roll_forward[0]
        self.text(point, self._saved.roll_forward[1])
        return _OK

    def GetFailure(self, code: CData, application: CData, message: CData, reserved: CData) -> int:
        """What SetFailure said; S_OK stands for no failure."""
        code[0], application[0] = signed(self._saved.failure[0]), signed(self._saved.failure[1])
        message[0] = self.machine.bstr(self._saved.failure[2]) if self._saved.failure[2] else ffi.NULL
        if reserved:
            reserved[0] = 0
        return _OK

    def GetAlternateLocationMappingCount(self, out: CData) -> int:
        """How often AddAlternativeLocationMapping was called."""
        out[0] = len(self._saved.mappings)
        return _OK

    def GetPartialFileCount(self, out: CData) -> int:
        """How often AddPartialFile was called."""
        out[0] = len(self._saved.partial_files)
        return _OK

    def GetPartialFile(self, index: int, *out: CData) -> int:
        """What it said: folder, name, ranges, the writer's own metadata; where its ranges file was put."""
        if index >= len(self._saved.partial_files):
            return _ABSENT
        folder, name, ranges, metadata = self._saved.partial_files[index]
        ranges = self._saved.ranges_files.get(index, ranges)
        for slot, text in zip(out, (folder, name, ranges, metadata), strict=True):
            self.text(slot, text)
        return _OK

    def GetDirectedTargetCount(self, out: CData) -> int:
        """How often AddDirectedTarget was called."""
        out[0] = len(self._saved.directed)
        return _OK

    def GetDirectedTarget(self, index: int, *out: CData) -> int:
        """What it said: folder, name and ranges of the source, and of the target."""
        if index >= len(self._saved.directed):
            return _ABSENT
        for slot, text in zip(out, self._saved.directed[index], strict=True):
            self.text(slot, text)
        return _OK

    def GetDifferencedFilesCount(self, out: CData) -> int:
        """How often AddDifferencedFilesByLastModifyTime was called."""
        out[0] = len(self._saved.differenced)
        return _OK

    def GetDifferencedFile(self, index: int, *out: CData) -> int:
        """What it said; the string of the sequence number is reserved."""
        if index >= len(self._saved.differenced):
            return _ABSENT
        (path, spec, recursive, lsn, time), known = out, self._saved.differenced[index]
        self.text(path, known[0])
        self.text(spec, known[1])
        recursive[0], lsn[0] = known[2], ffi.NULL
        time.dwLowDateTime, time.dwHighDateTime = known[3] & 0xFFFF_FFFF, known[3] >> 32
        return _OK

    def GetBackupMetadata(self, out: CData) -> int:
        """What SetBackupMetadata said."""
        return self.text(out, self._saved.backup_metadata)

    def GetRestoreMetadata(self, out: CData) -> int:
        """What SetRestoreMetadata said."""
        return self.text(out, self._saved.restore_metadata)

    def GetBackupStamp(self, out: CData) -> int:
        """What SetBackupStamp said."""
        return self.text(out, self._saved.stamp)

    def GetPrepareForBackupFailureMsg(self, out: CData) -> int:
        """What the writer said as it failed."""
        return self.text(out, self._saved.before_backup)

    def GetPostSnapshotFailureMsg(self, out: CData) -> int:
        """Likewise."""
        return self.text(out, self._saved.after_snapshot)
