"""`IVssExamineWriterMetadata` and what it gives: what a writer says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import (
    ComponentType,
    SourceType,
    UsageType,
)
from vsssnap._win32.hresult import HResult
from vsssnap.testing.fake_vss import writer_documents
from vsssnap.testing.fake_vss.objects import FakeObject, put_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from vsssnap.testing.fake_vss.machine import Machine
    from vsssnap.testing.fake_vss.writers import FakeComponent, FakeFiles, FakeWriter

CData = Any


class FakeMetadata(FakeObject):
    """What a writer says of itself."""

    interface = "IVssExamineWriterMetadataEx2"
    title = "IVssExamineWriterMetadata"
    answers: ClassVar[tuple[str, ...]] = (
        "IVssExamineWriterMetadata",
        "IVssExamineWriterMetadataEx",
        "IVssExamineWriterMetadataEx2",
    )

    def __init__(self, machine: Machine, writer: FakeWriter) -> None:
        super().__init__(machine)
        self._writer = writer

    def GetIdentity(self, instance: CData, writer: CData, name: CData, usage: CData, source: CData) -> int:
        """IVssExamineWriterMetadata::GetIdentity."""
        put_id(instance, self._writer.instance_id)
        put_id(writer, self._writer.writer_id)
        name[0] = self.machine.bstr(self._writer.name)
        usage[0], source[0] = UsageType.VSS_UT_USERDATA, SourceType.VSS_ST_OTHER
        return HResult.S_OK

    def GetIdentityEx(
        self, instance: CData, writer: CData, name: CData, own: CData, usage: CData, source: CData
    ) -> int:
        """The same with the name of the instance; S_OK and an empty string if it has none."""
        own[0] = self.machine.bstr(self._writer.instance_name)
        return self.GetIdentity(instance, writer, name, usage, source)

    def GetVersion(self, major: CData, minor: CData) -> int:
        """Of the writer."""
        major[0], minor[0] = self._writer.version
        return HResult.S_OK

    def GetFileCounts(self, included: CData, excluded: CData, components: CData) -> int:
        """IVssExamineWriterMetadata::GetFileCounts: the first is always 0."""
        included[0], excluded[0] = 0, len(self._writer.excludes)
        components[0] = len(self._writer.components)
        return HResult.S_OK

    def _files(self, known: Sequence[FakeFiles], index: int, out: CData) -> int:
        if index >= len(known):
            return HResult.VSS_E_OBJECT_NOT_FOUND
        FakeFiledesc(self.machine, known[index]).give(out)
        return HResult.S_OK

    def GetIncludeFile(self, index: int, out: CData) -> int:
        """There never are any."""
        return self._files((), index, out)

    def GetExcludeFile(self, index: int, out: CData) -> int:
        """Files that are not backed up."""
        return self._files(self._writer.excludes, index, out)

    def GetAlternateLocationMapping(self, index: int, out: CData) -> int:
        """Where files are put that cannot be put back where they were."""
        return self._files(self._writer.mappings, index, out)

    def GetExcludeFromSnapshotCount(self, out: CData) -> int:
        """Files that the writer removes from shadow copies."""
        out[0] = len(self._writer.not_in_snapshot)
        return HResult.S_OK

    def GetExcludeFromSnapshotFile(self, index: int, out: CData) -> int:
        """One of them."""
        return self._files(self._writer.not_in_snapshot, index, out)

    def GetRestoreMethod(
        self, method: CData, service: CData, procedure: CData, writer: CData, reboot: CData, count: CData
    ) -> int:
        """IVssExamineWriterMetadata::GetRestoreMethod; NULL for no service and no procedure."""
        method[0], writer[0] = self._writer.restore_method, self._writer.called_after
        for out, text in ((service, self._writer.service), (procedure, self._writer.procedure)):
            out[0] = self.machine.bstr(text) if text else ffi.NULL
        reboot[0], count[0] = self._writer.reboot, len(self._writer.mappings)
        return HResult.S_OK

    def GetBackupSchema(self, out: CData) -> int:
        """IVssExamineWriterMetadata::GetBackupSchema."""
        out[0] = self._writer.schema
        return HResult.S_OK

    def GetComponent(self, index: int, out: CData) -> int:
        """IVssExamineWriterMetadata::GetComponent."""
        if index >= len(self._writer.components):
            return HResult.VSS_E_OBJECT_NOT_FOUND
        FakeWMComponent(self.machine, self._writer.components[index]).give(out)
        return HResult.S_OK

    def SaveAsXML(self, out: CData) -> int:
        """IVssExamineWriterMetadata::SaveAsXML."""
        out[0] = self.machine.bstr(self._writer.document)
        return HResult.S_OK

    def LoadFromXML(self, text: CData) -> int:
        """What SaveAsXML wrote takes the place of what is here; S_FALSE if it is not XML at all."""
        try:
            found = writer_documents.read(str(ffi.string(text)))
        except ValueError:
            return HResult.S_FALSE
        if found is None:
            return HResult.VSS_E_INVALID_XML_DOCUMENT
        self._writer = found
        return HResult.S_OK

    def GetDocument(self, out: CData) -> int:
        """Its page: not supported, reserved for system use; what it gave was an object of MSXML."""
        del out
        return HResult.E_NOTIMPL


class FakeWMComponent(FakeObject):
    """A component in a writer's document."""

    interface = title = "IVssWMComponent"
    answers: ClassVar[tuple[str, ...]] = ("IVssWMComponent",)

    def __init__(self, machine: Machine, component: FakeComponent) -> None:
        super().__init__(machine)
        self._component = component

    @property
    def _is_database(self) -> bool:
        return self._component.kind == ComponentType.VSS_CT_DATABASE

    def GetComponentInfo(self, out: CData) -> int:
        """A structure that FreeComponentInfo takes back, with strings that go with it."""
        known, info = self._component, ffi.new("VSS_COMPONENTINFO *")
        info.type = known.kind
        info.bstrLogicalPath = self.machine.bstr(known.logical_path) if known.logical_path else ffi.NULL
        info.bstrComponentName = self.machine.bstr(known.name)
        info.bSelectable = known.selectable
        info.bSelectableForRestore = known.selectable_for_restore
        info.cFileCount = 0 if self._is_database else len(known.files)
        info.cDatabases = len(known.files) if self._is_database else 0
        info.cDependencies = len(known.needs)
        self.machine.ledger.lend("VSS_COMPONENTINFO", int(ffi.cast("uintptr_t", info)), info)
        out[0] = info
        return HResult.S_OK

    def FreeComponentInfo(self, info: CData) -> int:
        """The structure and its strings."""
        for text in (info.bstrLogicalPath, info.bstrComponentName):
            if text:
                self.machine.ledger.take_back("BSTR", int(ffi.cast("uintptr_t", text)))
        self.machine.ledger.take_back("VSS_COMPONENTINFO", int(ffi.cast("uintptr_t", info)))
        return HResult.S_OK

    def _file(self, index: int, out: CData, *, there: bool) -> int:
        if not there or index >= len(self._component.files):
            return HResult.VSS_E_OBJECT_NOT_FOUND
        FakeFiledesc(self.machine, self._component.files[index]).give(out)
        return HResult.S_OK

    def GetFile(self, index: int, out: CData) -> int:
        """Of a group of files."""
        return self._file(index, out, there=not self._is_database)

    def GetDatabaseFile(self, index: int, out: CData) -> int:
        """Of a database."""
        return self._file(index, out, there=self._is_database)

    def GetDatabaseLogFile(self, index: int, out: CData) -> int:
        """There are none."""
        return self._file(index, out, there=False)

    def GetDependency(self, index: int, out: CData) -> int:
        """What it needs."""
        if index >= len(self._component.needs):
            return HResult.VSS_E_OBJECT_NOT_FOUND
        FakeDependency(self.machine, self._component.needs[index]).give(out)
        return HResult.S_OK


class FakeFiledesc(FakeObject):
    """Files of a component."""

    interface = title = "IVssWMFiledesc"
    answers: ClassVar[tuple[str, ...]] = ("IVssWMFiledesc",)

    def __init__(self, machine: Machine, files: FakeFiles) -> None:
        super().__init__(machine)
        self._files = files

    def GetPath(self, out: CData) -> int:
        """Their folder."""
        out[0] = self.machine.bstr(self._files.path)
        return HResult.S_OK

    def GetFilespec(self, out: CData) -> int:
        """Their names."""
        out[0] = self.machine.bstr(self._files.spec)
        return HResult.S_OK

    def GetRecursive(self, out: CData) -> int:
        """Whether folders below belong to it."""
        out[0] = self._files.recursive
        return HResult.S_OK

    def GetAlternateLocation(self, out: CData) -> int:
        """S_FALSE and NULL if there is none."""
        out[0] = self.machine.bstr(self._files.alternate) if self._files.alternate else ffi.NULL
        return HResult.S_OK if self._files.alternate else HResult.S_FALSE

    def GetBackupTypeMask(self, out: CData) -> int:
        """All of it in every kind of backup."""
        out[0] = 0xF0F
        return HResult.S_OK


class FakeDependency(FakeObject):
    """What a component needs."""

    interface = title = "IVssWMDependency"
    answers: ClassVar[tuple[str, ...]] = ("IVssWMDependency",)

    def __init__(self, machine: Machine, needed: tuple[UUID, str, str]) -> None:
        super().__init__(machine)
        self._writer_id, self._path, self._name = needed

    def GetWriterId(self, out: CData) -> int:
        """Whose it is."""
        put_id(out, self._writer_id)
        return HResult.S_OK

    def GetLogicalPath(self, out: CData) -> int:
        """S_FALSE and NULL if there is none."""
        out[0] = self.machine.bstr(self._path) if self._path else ffi.NULL
        return HResult.S_OK if self._path else HResult.S_FALSE

    def GetComponentName(self, out: CData) -> int:
        """Its name."""
        out[0] = self.machine.bstr(self._name)
        return HResult.S_OK
