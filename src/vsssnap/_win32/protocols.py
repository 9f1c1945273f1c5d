"""Typed views of the interfaces and libraries, as far as they are called.

A test holds every method to the cdef: its name and the number of its arguments.  Results are
raw: HRESULTs and counts as numbers, everything else as cffi gives it.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

CData: TypeAlias = Any
"""An object of cffi: a pointer, a structure, an array."""


class IUnknownVtbl(Protocol):
    """unknwn.h."""

    def QueryInterface(self, this: IUnknown, iid: CData, out: CData, /) -> int: ...
    def AddRef(self, this: IUnknown, /) -> int: ...
    def Release(self, this: IUnknown, /) -> int: ...


class IUnknown(Protocol):
    """Any COM object."""

    lpVtbl: IUnknownVtbl


class IVssAsyncVtbl(Protocol):
    """vss.h."""

    def Cancel(self, this: IVssAsync, /) -> int: ...
    def Wait(self, this: IVssAsync, milliseconds: int, /) -> int: ...
    def QueryStatus(self, this: IVssAsync, result: CData, reserved: CData, /) -> int: ...


class IVssAsync(Protocol):
    """An operation that runs."""

    lpVtbl: IVssAsyncVtbl


class IVssEnumObjectVtbl(Protocol):
    """vss.h."""

    def Next(self, this: IVssEnumObject, count: int, out: CData, fetched: CData, /) -> int: ...


class IVssEnumObject(Protocol):
    """Shadow copies or providers, one after the other."""

    lpVtbl: IVssEnumObjectVtbl


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


class Kernel32(Protocol):
    """kernel32.dll."""

    def CloseHandle(self, handle: CData, /) -> int: ...
    def GetCurrentProcess(self) -> CData: ...
    def IsWow64Process(self, process: CData, out: CData, /) -> int: ...
    def CreateEventW(self, security: CData, manual: int, initial: int, name: CData, /) -> CData: ...
    def CreateFileW(
        self,
        name: CData,
        access: int,
        share: int,
        security: CData,
        disposition: int,
        flags: int,
        template: CData,
        /,
    ) -> CData: ...
    def ReadFile(self, handle: CData, buffer: CData, length: int, done: CData, over: CData, /) -> int: ...
    def WriteFile(self, handle: CData, buffer: CData, length: int, done: CData, over: CData, /) -> int: ...
    def FlushFileBuffers(self, handle: CData, /) -> int: ...
    def DeviceIoControl(
        self,
        handle: CData,
        code: int,
        source: CData,
        source_size: int,
        out: CData,
        out_size: int,
        done: CData,
        over: CData,
        /,
    ) -> int: ...
    def GetOverlappedResult(self, handle: CData, over: CData, done: CData, wait: int, /) -> int: ...
    def GetFullPathNameW(self, name: CData, size: int, out: CData, part: CData, /) -> int: ...
    def GetVolumeNameForVolumeMountPointW(self, name: CData, out: CData, size: int, /) -> int: ...
    def GetVolumePathNamesForVolumeNameW(
        self, name: CData, out: CData, size: int, needed: CData, /
    ) -> int: ...
    def GetVolumeInformationW(
        self,
        root: CData,
        label: CData,
        label_size: int,
        serial: CData,
        longest: CData,
        flags: CData,
        filesystem: CData,
        filesystem_size: int,
        /,
    ) -> int: ...
    def FindFirstFileW(self, pattern: CData, out: CData, /) -> CData: ...
    def FindNextFileW(self, search: CData, out: CData, /) -> int: ...
    def FindClose(self, search: CData, /) -> int: ...
    def GetFileInformationByHandle(self, handle: CData, out: CData, /) -> int: ...
    def FindFirstVolumeW(self, out: CData, size: int, /) -> CData: ...
    def FindNextVolumeW(self, search: CData, out: CData, size: int, /) -> int: ...
    def FindVolumeClose(self, search: CData, /) -> int: ...
    def GetDriveTypeW(self, root: CData, /) -> int: ...
    def GetDiskFreeSpaceW(
        self, root: CData, sectors: CData, sector_size: CData, free: CData, clusters: CData, /
    ) -> int: ...
    def GetVolumePathNameW(self, name: CData, out: CData, size: int, /) -> int: ...
    def ExpandEnvironmentStringsW(self, text: CData, out: CData, size: int, /) -> int: ...
    def VirtualAlloc(self, address: CData, size: int, kind: int, protect: int, /) -> CData: ...
    def VirtualFree(self, address: CData, size: int, kind: int, /) -> int: ...


class Advapi32(Protocol):
    """advapi32.dll."""

    def OpenProcessToken(self, process: CData, access: int, out: CData, /) -> int: ...
    def GetTokenInformation(
        self, token: CData, kind: int, out: CData, size: int, needed: CData, /
    ) -> int: ...
    def LookupPrivilegeValueW(self, machine: CData, name: CData, out: CData, /) -> int: ...
    def AdjustTokenPrivileges(
        self, token: CData, disable: int, new: CData, size: int, old: CData, needed: CData, /
    ) -> int: ...
    def OpenSCManagerW(self, machine: CData, database: CData, access: int, /) -> CData: ...
    def OpenServiceW(self, manager: CData, name: CData, access: int, /) -> CData: ...
    def QueryServiceConfigW(self, service: CData, out: CData, size: int, needed: CData, /) -> int: ...
    def CloseServiceHandle(self, handle: CData, /) -> int: ...
    def RegOpenKeyExW(self, root: CData, key: CData, options: int, access: int, out: CData, /) -> int: ...
    def RegEnumValueW(
        self,
        key: CData,
        index: int,
        name: CData,
        name_size: CData,
        reserved: CData,
        kind: CData,
        data: CData,
        size: CData,
        /,
    ) -> int: ...
    def RegCloseKey(self, key: CData, /) -> int: ...


class Ole32(Protocol):
    """ole32.dll."""

    def CoInitializeEx(self, reserved: CData, flags: int, /) -> int: ...
    def CoUninitialize(self) -> None: ...
    def CoInitializeSecurity(
        self,
        descriptor: CData,
        services: int,
        service: CData,
        reserved1: CData,
        authentication: int,
        impersonation: int,
        identities: CData,
        capabilities: int,
        reserved3: CData,
        /,
    ) -> int: ...
    def CoCreateInstance(self, cls: CData, outer: CData, context: int, iid: CData, out: CData, /) -> int: ...
    def CoTaskMemFree(self, memory: CData, /) -> None: ...


class Oleaut32(Protocol):
    """oleaut32.dll."""

    def SysAllocStringLen(self, text: CData, length: int, /) -> CData: ...
    def SysFreeString(self, text: CData, /) -> None: ...
    def SysStringLen(self, text: CData, /) -> int: ...


class Vssapi(Protocol):
    """vssapi.dll: the undecorated exports of Windows Vista and later."""

    def CreateVssBackupComponentsInternal(self, out: CData, /) -> int: ...
    def VssFreeSnapshotPropertiesInternal(self, properties: CData, /) -> None: ...
