"""Typed views of VSS providers and shadow storage, as far as they are called; see `protocols`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vsssnap._win32.protocols import CData


class IVssAdminVtbl(Protocol):
    """vsadmin.h."""

    def QueryProviders(self, this: IVssAdmin, out: CData, /) -> int: ...


class IVssAdmin(Protocol):
    """The service, for administrators."""

    lpVtbl: IVssAdminVtbl


class IVssSnapshotMgmtVtbl(Protocol):
    """vsmgmt.h."""

    def GetProviderMgmtInterface(
        self, this: IVssSnapshotMgmt, provider: CData, iid: CData, out: CData, /
    ) -> int: ...
    def QueryVolumesSupportedForSnapshots(
        self, this: IVssSnapshotMgmt, provider: CData, context: int, out: CData, /
    ) -> int: ...


class IVssSnapshotMgmt(Protocol):
    """What can have shadow copies."""

    lpVtbl: IVssSnapshotMgmtVtbl


class IVssDifferentialSoftwareSnapshotMgmt2Vtbl(Protocol):
    """vsmgmt.h; Windows Vista."""

    def AddDiffArea(
        self, this: IVssDifferentialSoftwareSnapshotMgmt2, volume: CData, storage: CData, maximum: int, /
    ) -> int: ...
    def QueryDiffAreasForVolume(
        self, this: IVssDifferentialSoftwareSnapshotMgmt2, volume: CData, out: CData, /
    ) -> int: ...
    def ChangeDiffAreaMaximumSizeEx(
        self,
        this: IVssDifferentialSoftwareSnapshotMgmt2,
        volume: CData,
        storage: CData,
        maximum: int,
        volatile: int,
        /,
    ) -> int: ...


class IVssDifferentialSoftwareSnapshotMgmt2(Protocol):
    """Shadow storage."""

    lpVtbl: IVssDifferentialSoftwareSnapshotMgmt2Vtbl


class IVssDifferentialSoftwareSnapshotMgmt3Vtbl(Protocol):
    """vsmgmt.h; Windows Server 2008."""

    def SetVolumeProtectLevel(
        self, this: IVssDifferentialSoftwareSnapshotMgmt3, volume: CData, level: int, /
    ) -> int: ...
    def GetVolumeProtectLevel(
        self, this: IVssDifferentialSoftwareSnapshotMgmt3, volume: CData, out: CData, /
    ) -> int: ...
    def ClearVolumeProtectFault(
        self, this: IVssDifferentialSoftwareSnapshotMgmt3, volume: CData, /
    ) -> int: ...
    def DeleteUnusedDiffAreas(self, this: IVssDifferentialSoftwareSnapshotMgmt3, volume: CData, /) -> int: ...


class IVssDifferentialSoftwareSnapshotMgmt3(Protocol):
    """How volumes are protected from running out of shadow storage."""

    lpVtbl: IVssDifferentialSoftwareSnapshotMgmt3Vtbl


class IVssSnapshotMgmt2Vtbl(Protocol):
    """vsmgmt.h; Windows Server 2003 SP1."""

    def GetMinDiffAreaSize(self, this: IVssSnapshotMgmt2, out: CData, /) -> int: ...


class IVssSnapshotMgmt2(Protocol):
    """Limits of shadow storage."""

    lpVtbl: IVssSnapshotMgmt2Vtbl


class IVssEnumMgmtObjectVtbl(Protocol):
    """vsmgmt.h."""

    def Next(self, this: IVssEnumMgmtObject, count: int, out: CData, fetched: CData, /) -> int: ...


class IVssEnumMgmtObject(Protocol):
    """Volumes or shadow storage, one after the other."""

    lpVtbl: IVssEnumMgmtObjectVtbl
