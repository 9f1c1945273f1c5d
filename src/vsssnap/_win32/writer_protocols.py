"""Typed views of what writers say, and of a backup components document; see `protocols`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vsssnap._win32.protocols import CData


class IVssExamineWriterMetadataVtbl(Protocol):
    """vsbackup.h."""

    def GetIdentity(
        self,
        this: IVssExamineWriterMetadata,
        instance: CData,
        writer: CData,
        name: CData,
        usage: CData,
        source: CData,
        /,
    ) -> int: ...
    def GetFileCounts(
        self, this: IVssExamineWriterMetadata, included: CData, excluded: CData, components: CData, /
    ) -> int: ...
    def GetExcludeFile(self, this: IVssExamineWriterMetadata, index: int, out: CData, /) -> int: ...
    def GetRestoreMethod(
        self,
        this: IVssExamineWriterMetadata,
        method: CData,
        service: CData,
        procedure: CData,
        writer: CData,
        reboot: CData,
        mappings: CData,
        /,
    ) -> int: ...
    def GetAlternateLocationMapping(
        self, this: IVssExamineWriterMetadata, index: int, out: CData, /
    ) -> int: ...
    def GetBackupSchema(self, this: IVssExamineWriterMetadata, out: CData, /) -> int: ...
    def GetComponent(self, this: IVssExamineWriterMetadata, index: int, out: CData, /) -> int: ...
    def SaveAsXML(self, this: IVssExamineWriterMetadata, xml: CData, /) -> int: ...


class IVssExamineWriterMetadata(Protocol):
    """What a writer says of itself."""

    lpVtbl: IVssExamineWriterMetadataVtbl


class IVssWMComponentVtbl(Protocol):
    """vsbackup.h."""

    def GetComponentInfo(self, this: IVssWMComponent, out: CData, /) -> int: ...
    def FreeComponentInfo(self, this: IVssWMComponent, info: CData, /) -> int: ...
    def GetFile(self, this: IVssWMComponent, index: int, out: CData, /) -> int: ...
    def GetDatabaseFile(self, this: IVssWMComponent, index: int, out: CData, /) -> int: ...
    def GetDatabaseLogFile(self, this: IVssWMComponent, index: int, out: CData, /) -> int: ...
    def GetDependency(self, this: IVssWMComponent, index: int, out: CData, /) -> int: ...


class IVssWMComponent(Protocol):
    """A component in a writer's document."""

    lpVtbl: IVssWMComponentVtbl


class IVssWMFiledescVtbl(Protocol):
    """vswriter.h."""

    def GetPath(self, this: IVssWMFiledesc, out: CData, /) -> int: ...
    def GetFilespec(self, this: IVssWMFiledesc, out: CData, /) -> int: ...
    def GetRecursive(self, this: IVssWMFiledesc, out: CData, /) -> int: ...
    def GetAlternateLocation(self, this: IVssWMFiledesc, out: CData, /) -> int: ...


class IVssWMFiledesc(Protocol):
    """Files of a component."""

    lpVtbl: IVssWMFiledescVtbl


class IVssWMDependencyVtbl(Protocol):
    """vswriter.h."""

    def GetWriterId(self, this: IVssWMDependency, out: CData, /) -> int: ...
    def GetLogicalPath(self, this: IVssWMDependency, out: CData, /) -> int: ...
    def GetComponentName(self, this: IVssWMDependency, out: CData, /) -> int: ...


class IVssWMDependency(Protocol):
    """What a component needs."""

    lpVtbl: IVssWMDependencyVtbl


class IVssWriterComponentsVtbl(Protocol):
    """vswriter.h; without slots of IUnknown."""

    def GetComponentCount(self, this: IVssWriterComponents, out: CData, /) -> int: ...
    def GetWriterInfo(self, this: IVssWriterComponents, instance: CData, writer: CData, /) -> int: ...
    def GetComponent(self, this: IVssWriterComponents, index: int, out: CData, /) -> int: ...


class IVssWriterComponents(Protocol):
    """The components of one writer in a backup components document."""

    lpVtbl: IVssWriterComponentsVtbl


class IVssComponentVtbl(Protocol):
    """vswriter.h."""

    def GetLogicalPath(self, this: IVssComponent, out: CData, /) -> int: ...
    def GetComponentType(self, this: IVssComponent, out: CData, /) -> int: ...
    def GetComponentName(self, this: IVssComponent, out: CData, /) -> int: ...
    def GetBackupSucceeded(self, this: IVssComponent, out: CData, /) -> int: ...
    def GetPreRestoreFailureMsg(self, this: IVssComponent, out: CData, /) -> int: ...
    def GetPostRestoreFailureMsg(self, this: IVssComponent, out: CData, /) -> int: ...
    def GetBackupStamp(self, this: IVssComponent, out: CData, /) -> int: ...
    def GetRestoreTarget(self, this: IVssComponent, out: CData, /) -> int: ...
    def GetDirectedTargetCount(self, this: IVssComponent, out: CData, /) -> int: ...
    def GetDirectedTarget(
        self,
        this: IVssComponent,
        index: int,
        folder: CData,
        name: CData,
        ranges: CData,
        new_folder: CData,
        new_name: CData,
        new_ranges: CData,
        /,
    ) -> int: ...


class IVssComponent(Protocol):
    """A component in a backup components document."""

    lpVtbl: IVssComponentVtbl
