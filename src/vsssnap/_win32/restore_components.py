"""The restore side of a requester: what a backup components document holds, and what is told of it.

Sources: "Overview of Restore Initialization", "Overview of Preparing for Restore", "Overview of
Restore Clean up and Termination", and the pages of the methods; Windows SDK documentation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vsssnap._win32._ffi import ffi
from vsssnap._win32.backup_components import BackupComponents, named
from vsssnap._win32.com import Reference, check, given_bstr, guid, take_bstr, uuid_of, wide
from vsssnap._win32.constants import ComponentType, FileRestoreStatus, RestoreTarget
from vsssnap._win32.writer_metadata import bounded

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from vsssnap._win32.protocols import CData
    from vsssnap._win32.writer_protocols import IVssComponent, IVssWriterComponents


@dataclass(frozen=True, slots=True)
class Directed:
    """Pieces of a file that go into another one (IVssComponent::GetDirectedTarget)."""

    folder: str
    name: str
    ranges: str
    new_folder: str
    new_name: str
    new_ranges: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedComponent:
    """A component in a backup components document.

    Attributes:
        succeeded: Whether its backup was said to have succeeded.
        before: What its writer said to the beginning of the restore, if it failed there.
        after: Likewise, to the end.
        stamp: What its writer left for a backup that continues this one, or ""; only if it was asked for.
        target: Where the writer wants its files, once it was told of the restore; likewise.
        directed: Which of its files it wants where, if that is `VSS_RT_DIRECTED`.
    """

    writer_id: UUID
    instance_id: UUID
    kind: ComponentType
    logical_path: str
    name: str
    succeeded: bool = False
    before: str = ""
    after: str = ""
    stamp: str = ""
    target: RestoreTarget = RestoreTarget.VSS_RT_UNDEFINED
    directed: tuple[Directed, ...] = ()


class RestoreComponents(BackupComponents):
    """A requester that restores; its methods are called in the order in which they stand."""

    def initialize_for_restore(self, document: str) -> None:
        """First, once, instead of `initialize_for_backup`.

        Raises:
            SnapshotError: the document is none that VSS wrote.
        """
        this = self._this()
        with given_bstr(self._system, document) as text:
            check(this.lpVtbl.InitializeForRestore(this, text), "InitializeForRestore")
        self._extended = self._reference.query("IVssBackupComponentsEx3")

    def saved_components(self, *, stamps: bool = False, targets: bool = False) -> list[SavedComponent]:
        """What the document holds; what is told of it changes with each event that writers get.

        Args:
            stamps: Whether the writers' stamps are read, too.
            targets: Likewise, where they want their files.
        """
        this, count = self._this(), ffi.new("UINT *")
        check(this.lpVtbl.GetWriterComponentsCount(this, count), "GetWriterComponentsCount")
        found: list[SavedComponent] = []
        for index in range(count[0]):
            out = ffi.new("IVssWriterComponentsExt **")
            check(this.lpVtbl.GetWriterComponents(this, index, out), "GetWriterComponents")
            # Two vtables: the first has no slots of IUnknown, and is released through the second.
            with Reference(ffi.addressof(out[0][0], "unknown")):
                found += self._of_writer(ffi.addressof(out[0][0], "components"), stamps, targets)
        return found

    def _of_writer(self, them: IVssWriterComponents, stamps: bool, targets: bool) -> list[SavedComponent]:
        instance, writer, count = ffi.new("VSS_ID *"), ffi.new("VSS_ID *"), ffi.new("UINT *")
        check(them.lpVtbl.GetWriterInfo(them, instance, writer), "GetWriterInfo")
        check(them.lpVtbl.GetComponentCount(them, count), "GetComponentCount")
        found = []
        for index in range(count[0]):
            out = ffi.new("IVssComponent **")
            check(them.lpVtbl.GetComponent(them, index, out), "IVssWriterComponents::GetComponent")
            with Reference(out[0]) as reference:
                this = reference.pointer
                saved = self._saved(uuid_of(writer), uuid_of(instance), this)
                if stamps:
                    stamp = self._said(this, this.lpVtbl.GetBackupStamp, "GetBackupStamp")
                    saved = replace(saved, stamp=stamp)
                if targets:
                    saved = replace(saved, target=self._target(this), directed=self._directed(this))
                found.append(saved)
        return found

    def _saved(self, writer_id: UUID, instance_id: UUID, this: IVssComponent) -> SavedComponent:
        kind, succeeded = ffi.new("VSS_COMPONENT_TYPE *"), ffi.new("bool *")
        check(this.lpVtbl.GetComponentType(this, kind), "GetComponentType")
        check(this.lpVtbl.GetBackupSucceeded(this, succeeded), "GetBackupSucceeded")
        return SavedComponent(
            writer_id=writer_id,
            instance_id=instance_id,
            kind=_kind(kind[0]),
            logical_path=self._said(this, this.lpVtbl.GetLogicalPath, "GetLogicalPath"),
            name=self._said(this, this.lpVtbl.GetComponentName, "GetComponentName"),
            succeeded=bool(succeeded[0]),
            before=self._said(this, this.lpVtbl.GetPreRestoreFailureMsg, "GetPreRestoreFailureMsg"),
            after=self._said(this, this.lpVtbl.GetPostRestoreFailureMsg, "GetPostRestoreFailureMsg"),
        )

    @staticmethod
    def _target(this: IVssComponent) -> RestoreTarget:
        out = ffi.new("VSS_RESTORE_TARGET *")
        check(this.lpVtbl.GetRestoreTarget(this, out), "GetRestoreTarget")
        try:
            return RestoreTarget(out[0])
        except ValueError:
            return RestoreTarget.VSS_RT_UNDEFINED

    def _directed(self, this: IVssComponent) -> tuple[Directed, ...]:
        count, found = ffi.new("UINT *"), []
        check(this.lpVtbl.GetDirectedTargetCount(this, count), "GetDirectedTargetCount")
        for index in range(bounded(count[0], "GetDirectedTargetCount")):
            out = [ffi.new("BSTR *") for _ in range(6)]
            check(this.lpVtbl.GetDirectedTarget(this, index, *out), "GetDirectedTarget")
            found.append(Directed(*(take_bstr(self._system, one) for one in out)))
        return tuple(found)

    def _said(self, this: IVssComponent, get: Callable[[IVssComponent, CData], int], call: str) -> str:
        """A string of a component; S_FALSE and NULL stand for none."""
        out = ffi.new("BSTR *")
        check(get(this, out), call)
        return take_bstr(self._system, out)

    def set_selected_for_restore(self, component: SavedComponent, selected: bool) -> None:
        """Whether it is restored; before `pre_restore`.

        Raises:
            ProviderUnavailableError: the document does not have it, or its writer does not run.
        """
        this, writer = self._this(), guid(component.writer_id)
        path, name = named(component.logical_path, component.name)
        code = this.lpVtbl.SetSelectedForRestore(this, writer[0], component.kind, path, name, selected)
        check(code, "SetSelectedForRestore", component.name)

    def set_restore_options(self, component: SavedComponent, options: str) -> None:
        """What its writer is to know, in its own language; before `pre_restore`."""
        this, writer = self._this(), guid(component.writer_id)
        path, name = named(component.logical_path, component.name)
        code = this.lpVtbl.SetRestoreOptions(this, writer[0], component.kind, path, name, wide(options))
        check(code, "SetRestoreOptions", component.name)

    def set_additional_restores(self, component: SavedComponent, more: bool) -> None:
        """Whether further restores of it follow, of backups that continued this; before `pre_restore`."""
        this, writer = self._this(), guid(component.writer_id)
        path, name = named(component.logical_path, component.name)
        code = this.lpVtbl.SetAdditionalRestores(this, writer[0], component.kind, path, name, more)
        check(code, "SetAdditionalRestores", component.name)

    def add_restore_subcomponent(self, component: SavedComponent, logical_path: str, part: str) -> None:
        """Restore a component that lies below it, and not all; before `pre_restore`."""
        this, writer = self._this(), guid(component.writer_id)
        path, name = named(component.logical_path, component.name)
        below = named(logical_path, part)
        code = this.lpVtbl.AddRestoreSubcomponent(this, writer[0], component.kind, path, name, *below, False)
        check(code, "AddRestoreSubcomponent", f"{component.name}: {part}")

    def add_new_target(
        self, component: SavedComponent, folder: str, spec: str, recursive: bool, place: str
    ) -> None:
        """Where a file set of it will be restored instead; before `pre_restore`."""
        this, writer = self._this(), guid(component.writer_id)
        path, name = named(component.logical_path, component.name)
        files = (wide(folder), wide(spec), recursive, wide(place))
        code = this.lpVtbl.AddNewTarget(this, writer[0], component.kind, path, name, *files)
        check(code, "AddNewTarget", f"{component.name}: {folder}")

    def add_alternative_location_mapping(
        self, component: SavedComponent, folder: str, spec: str, recursive: bool, place: str
    ) -> None:
        """Where a file set of it was restored, as its writer allowed; before `post_restore`."""
        this, writer = self._this(), guid(component.writer_id)
        path, name = named(component.logical_path, component.name)
        files = (wide(folder), wide(spec), recursive, wide(place))
        code = this.lpVtbl.AddAlternativeLocationMapping(this, writer[0], component.kind, path, name, *files)
        check(code, "AddAlternativeLocationMapping", f"{component.name}: {folder}")

    def pre_restore(self) -> Reference:
        """Tell writers that files are about to be restored."""
        this, out = self._this(), ffi.new("IVssAsync **")
        check(this.lpVtbl.PreRestore(this, out), "PreRestore")
        return Reference(out[0])

    def set_file_restore_status(self, component: SavedComponent, status: FileRestoreStatus) -> None:
        """What became of its files; between `pre_restore` and `post_restore`."""
        this, writer = self._this(), guid(component.writer_id)
        path, name = named(component.logical_path, component.name)
        code = this.lpVtbl.SetFileRestoreStatus(this, writer[0], component.kind, path, name, status)
        check(code, "SetFileRestoreStatus", component.name)

    def post_restore(self) -> Reference:
        """Tell writers that files were restored."""
        this, out = self._this(), ffi.new("IVssAsync **")
        check(this.lpVtbl.PostRestore(this, out), "PostRestore")
        return Reference(out[0])


def _kind(value: int) -> ComponentType:
    try:
        return ComponentType(value)
    except ValueError:
        return ComponentType.VSS_CT_UNDEFINED
