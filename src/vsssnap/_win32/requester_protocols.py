"""Typed views of a requester, as far as it is called; see `protocols`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vsssnap._win32.protocols import CData


class IVssBackupComponentsVtbl(Protocol):
    """vsbackup.h."""

    def GetWriterComponentsCount(self, this: IVssBackupComponents, count: CData, /) -> int: ...
    def GetWriterComponents(self, this: IVssBackupComponents, index: int, out: CData, /) -> int: ...
    def InitializeForBackup(self, this: IVssBackupComponents, xml: CData, /) -> int: ...
    def InitializeForRestore(self, this: IVssBackupComponents, xml: CData, /) -> int: ...
    def SetBackupState(
        self, this: IVssBackupComponents, select: bool, bootable: bool, kind: int, partial: bool, /
    ) -> int: ...
    def GatherWriterMetadata(self, this: IVssBackupComponents, out: CData, /) -> int: ...
    def GetWriterMetadataCount(self, this: IVssBackupComponents, count: CData, /) -> int: ...
    def GetWriterMetadata(
        self, this: IVssBackupComponents, index: int, instance: CData, out: CData, /
    ) -> int: ...
    def FreeWriterMetadata(self, this: IVssBackupComponents, /) -> int: ...
    def AddComponent(
        self,
        this: IVssBackupComponents,
        instance: CData,
        writer: CData,
        kind: int,
        path: CData,
        name: CData,
        /,
    ) -> int: ...
    def PrepareForBackup(self, this: IVssBackupComponents, out: CData, /) -> int: ...
    def AbortBackup(self, this: IVssBackupComponents, /) -> int: ...
    def GatherWriterStatus(self, this: IVssBackupComponents, out: CData, /) -> int: ...
    def GetWriterStatusCount(self, this: IVssBackupComponents, count: CData, /) -> int: ...
    def FreeWriterStatus(self, this: IVssBackupComponents, /) -> int: ...
    def GetWriterStatus(
        self,
        this: IVssBackupComponents,
        index: int,
        instance: CData,
        writer: CData,
        name: CData,
        state: CData,
        failure: CData,
        /,
    ) -> int: ...
    def SetBackupSucceeded(
        self,
        this: IVssBackupComponents,
        instance: CData,
        writer: CData,
        kind: int,
        path: CData,
        name: CData,
        succeeded: bool,
        /,
    ) -> int: ...
    def SetBackupOptions(
        self,
        this: IVssBackupComponents,
        writer: CData,
        kind: int,
        path: CData,
        name: CData,
        options: CData,
        /,
    ) -> int: ...
    def SetPreviousBackupStamp(
        self,
        this: IVssBackupComponents,
        writer: CData,
        kind: int,
        path: CData,
        name: CData,
        stamp: CData,
        /,
    ) -> int: ...
    def SetAdditionalRestores(
        self,
        this: IVssBackupComponents,
        writer: CData,
        kind: int,
        path: CData,
        name: CData,
        more: bool,
        /,
    ) -> int: ...
    def AddRestoreSubcomponent(
        self,
        this: IVssBackupComponents,
        writer: CData,
        kind: int,
        path: CData,
        name: CData,
        sub_path: CData,
        sub_name: CData,
        repair: bool,
        /,
    ) -> int: ...
    def AddNewTarget(
        self,
        this: IVssBackupComponents,
        writer: CData,
        kind: int,
        path: CData,
        name: CData,
        folder: CData,
        spec: CData,
        recursive: bool,
        place: CData,
        /,
    ) -> int: ...
    def AddAlternativeLocationMapping(
        self,
        this: IVssBackupComponents,
        writer: CData,
        kind: int,
        path: CData,
        name: CData,
        folder: CData,
        spec: CData,
        recursive: bool,
        place: CData,
        /,
    ) -> int: ...
    def SetSelectedForRestore(
        self,
        this: IVssBackupComponents,
        writer: CData,
        kind: int,
        path: CData,
        name: CData,
        selected: bool,
        /,
    ) -> int: ...
    def SetRestoreOptions(
        self,
        this: IVssBackupComponents,
        writer: CData,
        kind: int,
        path: CData,
        name: CData,
        options: CData,
        /,
    ) -> int: ...
    def SetFileRestoreStatus(
        self,
        this: IVssBackupComponents,
        writer: CData,
        kind: int,
        path: CData,
        name: CData,
        status: int,
        /,
    ) -> int: ...
    def PreRestore(self, this: IVssBackupComponents, out: CData, /) -> int: ...
    def PostRestore(self, this: IVssBackupComponents, out: CData, /) -> int: ...
    def SaveAsXML(self, this: IVssBackupComponents, xml: CData, /) -> int: ...
    def BackupComplete(self, this: IVssBackupComponents, out: CData, /) -> int: ...
    def SetContext(self, this: IVssBackupComponents, context: int, /) -> int: ...
    def StartSnapshotSet(self, this: IVssBackupComponents, out: CData, /) -> int: ...
    def AddToSnapshotSet(
        self, this: IVssBackupComponents, volume: CData, provider: CData, out: CData, /
    ) -> int: ...
    def DoSnapshotSet(self, this: IVssBackupComponents, out: CData, /) -> int: ...
    def DeleteSnapshots(
        self,
        this: IVssBackupComponents,
        source: CData,
        kind: int,
        force: int,
        deleted: CData,
        failed: CData,
        /,
    ) -> int: ...
    def GetSnapshotProperties(self, this: IVssBackupComponents, snapshot: CData, out: CData, /) -> int: ...
    def Query(
        self, this: IVssBackupComponents, queried: CData, kind: int, wanted: int, out: CData, /
    ) -> int: ...
    def IsVolumeSupported(
        self, this: IVssBackupComponents, provider: CData, volume: CData, out: CData, /
    ) -> int: ...
    def DisableWriterClasses(self, this: IVssBackupComponents, ids: CData, count: int, /) -> int: ...
    def ExposeSnapshot(
        self,
        this: IVssBackupComponents,
        snapshot: CData,
        folder: CData,
        attributes: int,
        name: CData,
        out: CData,
        /,
    ) -> int: ...
    def BreakSnapshotSet(self, this: IVssBackupComponents, set_id: CData, /) -> int: ...
    def RevertToSnapshot(self, this: IVssBackupComponents, snapshot: CData, force: int, /) -> int: ...
    def QueryRevertStatus(self, this: IVssBackupComponents, volume: CData, out: CData, /) -> int: ...


class IVssBackupComponents(Protocol):
    """One requester."""

    lpVtbl: IVssBackupComponentsVtbl


class IVssBackupComponentsEx2Vtbl(Protocol):
    """vsbackup.h; Windows Vista."""

    def UnexposeSnapshot(self, this: IVssBackupComponentsEx2, snapshot: CData, /) -> int: ...
    def BreakSnapshotSetEx(
        self, this: IVssBackupComponentsEx2, set_id: CData, flags: int, out: CData, /
    ) -> int: ...


class IVssBackupComponentsEx2(Protocol):
    """The same requester, which can take back an exposure."""

    lpVtbl: IVssBackupComponentsEx2Vtbl


class IVssBackupComponentsEx3Vtbl(Protocol):
    """vsbackup.h; Windows 7."""

    def GetWriterStatusEx(
        self,
        this: IVssBackupComponentsEx3,
        index: int,
        instance: CData,
        writer: CData,
        name: CData,
        state: CData,
        failure: CData,
        application: CData,
        message: CData,
        /,
    ) -> int: ...


class IVssBackupComponentsEx3(Protocol):
    """The same requester, which knows what applications said."""

    lpVtbl: IVssBackupComponentsEx3Vtbl
