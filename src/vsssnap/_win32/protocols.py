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
    def CreateVssExamineWriterMetadataInternal(self, xml: CData, out: CData, /) -> int: ...
    def ShouldBlockRevertInternal(self, volume: CData, out: CData, /) -> int: ...
