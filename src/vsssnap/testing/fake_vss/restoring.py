"""The components of a requester's document, and the restore side of `IVssBackupComponents`.

Written from the pages of each method in the Windows SDK documentation, "Overview of Preparing for
Restore" and "Overview of Restore Clean up and Termination"; the rule stands beside each refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import ComponentType, FileRestoreStatus, RestoreType, RollForwardType
from vsssnap._win32.hresult import HResult
from vsssnap.testing.fake_vss import documents
from vsssnap.testing.fake_vss.documents import SavedComponent, SavedShadow
from vsssnap.testing.fake_vss.objects import FakeAsync, FakeObject, id_of
from vsssnap.testing.fake_vss.saved import FakeSavedComponent, FakeWriterComponents
from vsssnap.testing.fake_vss.writers import FakeFiles

if TYPE_CHECKING:
    from uuid import UUID

    from vsssnap.testing.fake_vss.machine import Machine
    from vsssnap.testing.fake_vss.writers import FakeWriter

CData = Any
_OK, _BAD, _ABSENT = HResult.S_OK, HResult.VSS_E_BAD_STATE, HResult.VSS_E_OBJECT_NOT_FOUND
WITH_COMPONENTS = ("prepare_backup", "post_snapshot", "backup_complete", "pre_restore", "post_restore")
"""The events at which a writer gets its components (CVssWriter)."""


def text_of(text: CData) -> str:
    """A string that a caller gave; NULL is ""."""
    return str(ffi.string(text)) if text else ""


class ComponentSlots(FakeObject):
    """What backup and restore have in common, and the restore."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.purpose = ""
        self.select = False
        self.bootable = False
        self.writers: list[FakeWriter] | None = None  # once they were gathered
        self.document: list[SavedComponent] = []
        self.given: list[SavedShadow] | None = None  # what the document speaks of, if there was one
        self.events = 0  # those that spoil what GetWriterComponents gave
        self.set_id: UUID | None = None
        self.prepared = ""  # "", "running", "done"
        self.done = ""  # "", "failed", "done": of DoSnapshotSet
        self.completed = False
        self.restoring = ""  # "", "running", "begun", "ended"

    def begin(self, step: str, out: CData, effect: Callable[[], int | None]) -> int:
        """Give an operation."""
        FakeAsync(self.machine, step, effect).give(out)
        return _OK

    def tell(self, event: str) -> None:
        """Tell writers; in component mode those alone that have a component in the document."""
        own = {one.instance_id for one in self.document}
        if self.purpose == "restore":  # "Overview of Preparing for Restore": none selected, no events
            own = {one.instance_id for one in self.document if one.takes_part}
        for writer in self.writers or ():
            everybody = event in ("identify", "backup_shutdown") or (
                self.purpose == "backup" and not self.select
            )
            if everybody or writer.instance_id in own or writer.writer_id in self._selected_classes():
                before = len(writer.events)
                writer.on(event)
                if len(writer.events) > before and event in WITH_COMPONENTS:
                    self._give_components(writer, event)

    def _give_components(self, writer: FakeWriter, event: str) -> None:
        """Let a writer leave word in the document."""
        stamps = {one.path: one.stamp for one in writer.components}
        for one in self.document:
            same = one.writer_id if self.purpose == "restore" else one.instance_id
            if same not in (writer.writer_id, writer.instance_id):
                continue
            if event == "post_snapshot":
                one.stamp = stamps.get(one.path, "")
            if writer.on_component is not None:
                given = FakeSavedComponent(self.machine, one, lambda: True, event=event)
                writer.on_component(event, given.pointer)
                given.end()

    def _selected_classes(self) -> set[UUID]:
        """Writers that run anew have another instance than the document says."""
        if self.purpose != "restore":
            return set()
        return {one.writer_id for one in self.document if one.takes_part}

    def _find(self, writer: CData, kind: int, path: CData, name: CData) -> SavedComponent | None:
        wanted = "\\".join(filter(None, (text_of(path), text_of(name)))).lower()
        for one in self.document:
            if (one.writer_id, one.kind, one.path) == (id_of(writer), kind, wanted):
                return one
        return None

    # In a backup.

    def AddComponent(self, instance: CData, writer: CData, kind: int, path: CData, name: CData) -> int:
        """After GatherWriterMetadata and before DoSnapshotSet; each component once."""
        if self.purpose != "backup" or self.writers is None or self.done:
            return _BAD
        if kind not in (ComponentType.VSS_CT_DATABASE, ComponentType.VSS_CT_FILEGROUP):
            return HResult.E_INVALIDARG
        made = SavedComponent(
            id_of(instance), id_of(writer), ComponentType(kind), text_of(path), text_of(name)
        )
        if any((one.instance_id, one.path) == (made.instance_id, made.path) for one in self.document):
            return HResult.VSS_E_OBJECT_ALREADY_EXISTS
        self._judge(made)
        self.document.append(made)
        return _OK

    def _judge(self, made: SavedComponent) -> None:
        """What "should never" be added, and has no code of its own."""
        forbid = self.machine.ledger.forbid
        found = next((known for known in self.writers or () if known.instance_id == made.instance_id), None)
        if found is None or made.path not in {one.path for one in found.components}:
            forbid(f"AddComponent: no writer has a component {made.path}")
            return
        known = next(one for one in found.components if one.path == made.path)
        sets = {
            one.path for one in found.components if one.selectable and made.path.startswith(one.path + "\\")
        }
        if sets and not known.selectable:
            forbid(f"AddComponent: {made.path} cannot be selected, and belongs to {max(sets, key=len)}")
        own = [one.path for one in self.document if one.instance_id == made.instance_id]
        if sets & set(own):
            forbid(f"AddComponent: {made.path} is included by {max(sets, key=len)} already")
        below = [path for path in own if path.startswith(made.path + "\\")]
        if known.selectable and below:
            forbid(f"AddComponent: {made.path} includes {below[0]}, which was added")

    def SetBackupSucceeded(
        self, instance: CData, writer: CData, kind: int, path: CData, name: CData, succeeded: bool
    ) -> int:
        """After a DoSnapshotSet that succeeded and before BackupComplete."""
        if self.purpose != "backup" or self.done != "done" or self.completed:
            return _BAD
        found = self._find(writer, kind, path, name)
        if found is None or found.instance_id != id_of(instance):
            return _ABSENT
        found.succeeded = bool(succeeded)
        return _OK

    def SetBackupOptions(self, writer: CData, kind: int, path: CData, name: CData, options: CData) -> int:
        """Before PrepareForBackup."""
        if self.purpose != "backup" or self.prepared:
            return _BAD
        return self._note(writer, kind, path, name, "backup_options", text_of(options))

    def SetPreviousBackupStamp(self, writer: CData, kind: int, path: CData, name: CData, stamp: CData) -> int:
        """Before PrepareForBackup."""
        if self.purpose != "backup" or self.prepared:
            return _BAD
        return self._note(writer, kind, path, name, "previous_stamp", text_of(stamp))

    def _note(self, writer: CData, kind: int, path: CData, name: CData, what: str, value: object) -> int:
        found = self._find(writer, kind, path, name)
        if found is None:
            return _ABSENT
        setattr(found, what, value)
        return _OK

    # What the document holds.

    def _by_writer(self) -> list[list[SavedComponent]]:
        instances = dict.fromkeys(one.instance_id for one in self.document)
        return [[one for one in self.document if one.instance_id == known] for known in instances]

    def GetWriterComponentsCount(self, out: CData) -> int:
        """Writers with a component in the document."""
        if not self.purpose:
            return _BAD
        out[0] = len(self._by_writer())
        return _OK

    def GetWriterComponents(self, index: int, out: CData) -> int:
        """Those of one writer, until the next event."""
        if not self.purpose:
            return _BAD
        if index >= len(self._by_writer()):
            return _ABSENT
        then = self.events
        FakeWriterComponents(self.machine, self._by_writer()[index], lambda: self.events == then).give(out)
        return _OK

    # The restore.

    def InitializeForRestore(self, xml: CData) -> int:
        """Once, before all others, with a document that SaveAsXML wrote."""
        if self.purpose:
            return _BAD
        found = documents.read(text_of(xml))
        if found is None:
            return HResult.VSS_E_INVALID_XML_DOCUMENT
        self.purpose, (self.document, self.given) = "restore", found
        return _OK

    def SetRestoreState(self, kind: int) -> int:
        """Before PreRestore."""
        if self.purpose != "restore" or self.restoring:
            return _BAD
        return _OK if kind in list(RestoreType) else HResult.E_INVALIDARG

    def SetSelectedForRestore(
        self, writer: CData, kind: int, path: CData, name: CData, selected: bool
    ) -> int:
        """Before PreRestore; of a component in the document whose writer runs."""
        if self.purpose != "restore" or self.writers is None or self.restoring:
            return _BAD
        if id_of(writer) not in {known.writer_id for known in self.writers}:
            return _ABSENT
        return self._note(writer, kind, path, name, "selected", bool(selected))

    def SetSelectedForRestoreEx(
        self, writer: CData, kind: int, path: CData, name: CData, selected: bool, instance: CData
    ) -> int:
        """The same, of one instance of a writer."""
        if self.writers is not None and id_of(instance) not in {one.instance_id for one in self.writers}:
            return _ABSENT
        return self.SetSelectedForRestore(writer, kind, path, name, selected)

    def _told(self, writer: CData, kind: int, path: CData, name: CData, what: str, value: object) -> int:
        """Something that a writer is to know at PreRestore."""
        if self.purpose != "restore" or self.restoring:
            return _BAD
        return self._note(writer, kind, path, name, what, value)

    def SetRestoreOptions(self, writer: CData, kind: int, path: CData, name: CData, options: CData) -> int:
        """Before PreRestore."""
        return self._told(writer, kind, path, name, "restore_options", text_of(options))

    def SetAdditionalRestores(self, writer: CData, kind: int, path: CData, name: CData, more: bool) -> int:
        """Before PreRestore."""
        return self._told(writer, kind, path, name, "more_restores", bool(more))

    def SetRestoreName(self, writer: CData, kind: int, path: CData, name: CData, new: CData) -> int:
        """Before PreRestore."""
        return self._told(writer, kind, path, name, "restore_name", text_of(new))

    def SetAuthoritativeRestore(self, writer: CData, kind: int, path: CData, name: CData, it: bool) -> int:
        """Before PreRestore."""
        return self._told(writer, kind, path, name, "authoritative", bool(it))

    def SetRollForward(
        self, writer: CData, kind: int, path: CData, name: CData, how: int, point: CData
    ) -> int:
        """Before PreRestore; to a point only if it is a partial one."""
        if how not in list(RollForwardType)[1:] or (how == RollForwardType.VSS_RF_PARTIAL) != bool(point):
            return HResult.E_INVALIDARG
        value = (RollForwardType(how), text_of(point))
        return self._told(writer, kind, path, name, "roll_forward", value)

    def SetRangesFilePath(
        self, writer: CData, kind: int, path: CData, name: CData, index: int, file: CData
    ) -> int:
        """Before PostRestore; where the ranges file of a file is, of which a part was backed up."""
        if self.purpose != "restore" or self.restoring == "ended":
            return _BAD
        found = self._find(writer, kind, path, name)
        if found is None:
            return _ABSENT
        if index >= len(found.partial_files):
            return HResult.E_INVALIDARG
        found.ranges_files[index] = text_of(file)
        return _OK

    def AddRestoreSubcomponent(
        self, writer: CData, kind: int, path: CData, name: CData, sub_path: CData, sub: CData, repair: bool
    ) -> int:
        """Before PreRestore; of a component that was added to the backup."""
        if self.purpose != "restore" or self.restoring:
            return _BAD
        found = self._find(writer, kind, path, name)
        running = {known.writer_id for known in self.writers or ()}
        if found is None or found.writer_id not in running:
            return _ABSENT
        if repair:  # "bRepair: Reserved for future use. This parameter should always be false"
            return HResult.E_INVALIDARG
        found.subcomponents.append((text_of(sub_path), text_of(sub), bool(repair)))
        return _OK

    def AddNewTarget(self, writer: CData, kind: int, path: CData, name: CData, *files: CData) -> int:
        """Before PreRestore, so that the writer knows; of files that the component has."""
        if self.restoring:
            return _BAD
        return self._moved(writer, kind, path, name, "new_targets", files)

    def AddAlternativeLocationMapping(
        self, writer: CData, kind: int, path: CData, name: CData, *files: CData
    ) -> int:
        """Before PostRestore; of files for which the writer has such a mapping."""
        code = self._moved(writer, kind, path, name, "mappings", files)
        wanted = FakeFiles(text_of(files[0]), text_of(files[1]), bool(files[2]))
        running = [one for one in self.writers or () if one.writer_id == id_of(writer)]
        if code == _OK and running and not any(wanted.same_set(it) for one in running for it in one.mappings):
            self.machine.ledger.forbid("AddAlternativeLocationMapping: the writer has no such mapping")
        return code

    def _moved(
        self, writer: CData, kind: int, path: CData, name: CData, what: str, files: tuple[CData, ...]
    ) -> int:
        if self.purpose != "restore" or self.restoring == "ended":
            return _BAD
        found, (folder, spec, recursive, place) = self._find(writer, kind, path, name), files
        if found is None:
            return _ABSENT
        moved = (text_of(folder), text_of(spec), bool(recursive), text_of(place))
        if not self._has_files(found, FakeFiles(*moved[:3])):
            return _ABSENT
        getattr(found, what).append(moved)
        return _OK

    def _has_files(self, saved: SavedComponent, wanted: FakeFiles) -> bool:
        """Whether a component, or one below it, has a file set; known of writers that run."""
        running = [one for one in self.writers or () if one.writer_id == saved.writer_id]
        own = [
            one
            for writer in running
            for one in writer.components
            if one.path == saved.path or one.path.startswith(saved.path + "\\")
        ]
        return not running or any(wanted.same_set(files) for one in own for files in one.files)

    def PreRestore(self, out: CData) -> int:
        """Once, after GatherWriterMetadata."""
        if self.purpose != "restore" or self.writers is None or self.restoring:
            return _BAD
        self.restoring = "running"
        self.events += 1

        def effect() -> None:
            self.tell("pre_restore")
            self.restoring = "begun"
            self._said("pre_restore", "before")

        return self.begin("PreRestore", out, effect)

    def SetFileRestoreStatus(self, writer: CData, kind: int, path: CData, name: CData, status: int) -> int:
        """Between PreRestore and PostRestore."""
        if self.restoring != "begun":
            return _BAD
        known = (FileRestoreStatus.VSS_RS_NONE, FileRestoreStatus.VSS_RS_ALL, FileRestoreStatus.VSS_RS_FAILED)
        if status not in known:
            return HResult.E_INVALIDARG
        return self._note(writer, kind, path, name, "status", FileRestoreStatus(status))

    def PostRestore(self, out: CData) -> int:
        """Once, after PreRestore, also if that failed."""
        if self.restoring not in ("running", "begun"):
            return _BAD
        self.events += 1

        def effect() -> None:
            self.tell("post_restore")
            self.restoring = "ended"
            self._said("post_restore", "after")

        return self.begin("PostRestore", out, effect)

    def _said(self, event: str, where: str) -> None:
        for writer in self.writers or ():
            if writer.failure and writer.fails_at == event:
                for one in self.document:
                    if one.writer_id == writer.writer_id and one.takes_part:
                        setattr(one, where, writer.message)
