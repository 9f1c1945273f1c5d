"""VSS providers and shadow storage: `IVssAdmin`, `IVssSnapshotMgmt` and what they give.

Sources: vsadmin.h and vsmgmt.h, the pages of their interfaces in the Windows SDK documentation.  Sizes
are bytes.  Strings in the structures go to CoTaskMemFree.  For a thread in the multithreaded apartment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap._win32._ffi import ffi
from vsssnap._win32.com import Reference, check, guid, take_text, uuid_of, wide
from vsssnap._win32.constants import (
    CLSCTX_LOCAL_SERVER,
    VSS_ASSOC_NO_MAX_SPACE,
    ProtectionFault,
    ProtectionLevel,
    ProviderType,
)
from vsssnap._win32.guids import CLSIDS, IIDS, SYSTEM_PROVIDER
from vsssnap._win32.hresult import HResult, unsigned
from vsssnap.errors import ProviderUnavailableError, SnapshotError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from vsssnap._win32.dll import System
    from vsssnap._win32.protocols import CData


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFacts:
    """VSS_PROVIDER_PROP."""

    id: UUID
    name: str
    kind: ProviderType
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffArea:
    """VSS_DIFF_AREA_PROP.

    Attributes:
        volume: GUID path of the volume that has shadow copies.
        storage: GUID path of the one that keeps their data.
        maximum: Bytes that it may use; None for no limit.
        allocated: Bytes set aside.
        used: Bytes of these in use.
    """

    volume: str
    storage: str
    maximum: int | None
    allocated: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """VSS_VOLUME_PROTECTION_INFO.

    Attributes:
        level: What is given up when shadow storage runs out: the shadow copies, or the volume.
        offline: Whether the volume was taken offline for that.
        fault: Why, if it was; a number where it has no name here.
        status: The HRESULT of what failed, unsigned; 0 for none.
        unused_storage: Whether shadow storage was left behind on it.
    """

    level: ProtectionLevel
    offline: bool
    fault: ProtectionFault | int
    status: int
    unused_storage: bool


def create(system: System, class_name: str, interface: str) -> Reference:
    """A COM object of VSS.

    Raises:
        ProviderUnavailableError: VSS is not installed.
        SnapshotPermissionError: the process may not.
    """
    out = ffi.new("void **")
    cls, iid = guid(CLSIDS[class_name]), guid(IIDS[interface])
    code = system.ole32.CoCreateInstance(cls, ffi.NULL, CLSCTX_LOCAL_SERVER, iid, out)
    check(code, f"CoCreateInstance({class_name})")
    return Reference(ffi.cast(f"{interface} *", out[0]))


def _level(value: int) -> ProtectionLevel:
    try:
        return ProtectionLevel(value)
    except ValueError:
        raise SnapshotError(
            f"a protection level of {value} is not known", call="GetVolumeProtectLevel"
        ) from None


def _fault(value: int) -> ProtectionFault | int:
    try:
        return ProtectionFault(value)
    except ValueError:
        return value


def _kind(value: int) -> ProviderType:
    try:
        return ProviderType(value)
    except ValueError:
        return ProviderType.VSS_PROV_UNKNOWN


def providers(system: System) -> list[ProviderFacts]:
    """The VSS providers that are registered."""
    found = []
    with create(system, "VSSCoordinator", "IVssAdmin") as admin:
        this, out = admin.pointer, ffi.new("IVssEnumObject **")
        check(this.lpVtbl.QueryProviders(this, out), "QueryProviders")
        with Reference(out[0]) as reference:
            them = reference.pointer
            prop, fetched = ffi.new("VSS_OBJECT_PROP *"), ffi.new("ULONG *")
            while not check(them.lpVtbl.Next(them, 1, prop, fetched), "IVssEnumObject::Next") and fetched[0]:
                given = prop.Obj.Prov
                found.append(
                    ProviderFacts(
                        id=uuid_of(given.m_ProviderId),
                        name=take_text(system, given.m_pwszProviderName),
                        kind=_kind(given.m_eProviderType),
                        version=take_text(system, given.m_pwszProviderVersion),
                    )
                )
    return found


class ShadowStorageManager:
    """Shadow storage of the system provider; `release` it."""

    def __init__(self, system: System) -> None:
        """Find it.

        Raises:
            ProviderUnavailableError: this Windows cannot manage shadow storage.
        """
        self._system = system
        self._snapshots = create(system, "VssSnapshotMgmt", "IVssSnapshotMgmt")
        name = "IVssDifferentialSoftwareSnapshotMgmt2"
        out, provider, iid = ffi.new("IUnknown **"), guid(SYSTEM_PROVIDER), guid(IIDS[name])
        this = self._snapshots.pointer
        try:
            code = this.lpVtbl.GetProviderMgmtInterface(this, provider[0], iid, out)
            check(code, "GetProviderMgmtInterface")
        except BaseException:
            self._snapshots.release()
            raise
        self._areas = Reference(ffi.cast(f"{name} *", out[0]))

    def release(self) -> None:
        """Give back what is held.  Idempotent."""
        self._areas.release()
        self._snapshots.release()

    def areas(self, volume: str) -> list[DiffArea]:
        """The shadow storage of a volume; one area, or none."""
        this, out, name = self._areas.pointer, ffi.new("IVssEnumMgmtObject **"), wide(volume)
        code = unsigned(this.lpVtbl.QueryDiffAreasForVolume(this, name, out))
        if code == HResult.VSS_E_OBJECT_NOT_FOUND:
            return []
        check(code, "QueryDiffAreasForVolume", volume)
        found = []
        for prop in self._each(out):
            area = prop.Obj.DiffArea
            most = int(area.m_llMaximumDiffSpace)
            found.append(
                DiffArea(
                    volume=take_text(self._system, area.m_pwszVolumeName),
                    storage=take_text(self._system, area.m_pwszDiffAreaVolumeName),
                    maximum=None if most == VSS_ASSOC_NO_MAX_SPACE else most,
                    allocated=int(area.m_llAllocatedDiffSpace),
                    used=int(area.m_llUsedDiffSpace),
                )
            )
        return found

    def resize(self, volume: str, storage: str, maximum: int) -> None:
        """Limit the shadow storage of a volume, or make it; -1 is no limit.

        Raises:
            InsufficientStorageError: there is not so much room, or it is too little.
            ProviderUnavailableError: it cannot be there, or is elsewhere.
        """
        this, name, place = self._areas.pointer, wide(volume), wide(storage)
        code = unsigned(this.lpVtbl.ChangeDiffAreaMaximumSizeEx(this, name, place, maximum, 0))
        if code == HResult.VSS_E_OBJECT_NOT_FOUND:  # before Windows 7 this call made none
            check(this.lpVtbl.AddDiffArea(this, name, place, maximum), "AddDiffArea", volume)
        else:
            check(code, "ChangeDiffAreaMaximumSizeEx", volume)

    def least(self) -> int:
        """The least that shadow storage can be limited to, in bytes.

        Raises:
            ProviderUnavailableError: this Windows does not tell.
        """
        with self._more(self._snapshots, "IVssSnapshotMgmt2") as reference:
            this, out = reference.pointer, ffi.new("LONGLONG *")
            check(this.lpVtbl.GetMinDiffAreaSize(this, out), "GetMinDiffAreaSize")
            return int(out[0])

    def protection(self, volume: str) -> Protection:
        """What happens to a volume when its shadow storage runs out.

        Raises:
            ProviderUnavailableError: there is no such volume, or this Windows is no Windows Server.
        """
        with self._more(self._areas, "IVssDifferentialSoftwareSnapshotMgmt3") as reference:
            this, out = reference.pointer, ffi.new("VSS_VOLUME_PROTECTION_INFO *")
            check(this.lpVtbl.GetVolumeProtectLevel(this, wide(volume), out), "GetVolumeProtectLevel", volume)
            found = out[0]
            return Protection(
                level=_level(found.m_protectionLevel),
                offline=bool(found.m_volumeIsOfflineForProtection),
                fault=_fault(found.m_protectionFault),
                status=unsigned(found.m_failureStatus),
                unused_storage=bool(found.m_volumeHasUnusedDiffArea),
            )

    def protect(self, volume: str, level: ProtectionLevel) -> None:
        """Decide that; a volume in a faulted state is dismounted if it goes back to ORIGINAL_VOLUME."""
        with self._more(self._areas, "IVssDifferentialSoftwareSnapshotMgmt3") as reference:
            this = reference.pointer
            check(
                this.lpVtbl.SetVolumeProtectLevel(this, wide(volume), level), "SetVolumeProtectLevel", volume
            )

    def clear_fault(self, volume: str) -> None:
        """Put a volume that was taken offline back to use; it is dismounted. Nothing if it was not."""
        with self._more(self._areas, "IVssDifferentialSoftwareSnapshotMgmt3") as reference:
            this = reference.pointer
            check(this.lpVtbl.ClearVolumeProtectFault(this, wide(volume)), "ClearVolumeProtectFault", volume)

    def delete_unused(self, storage: str) -> None:
        """Delete the shadow storage on a volume that belongs to no volume any more."""
        with self._more(self._areas, "IVssDifferentialSoftwareSnapshotMgmt3") as reference:
            this = reference.pointer
            check(this.lpVtbl.DeleteUnusedDiffAreas(this, wide(storage)), "DeleteUnusedDiffAreas", storage)

    @staticmethod
    def _more(reference: Reference, name: str) -> Reference:
        """A further interface of an object."""
        found = reference.query(name)
        if found is None:
            raise ProviderUnavailableError(
                f"this Windows has no {name}",
                reasons={"vss": "it manages shadow storage only in part"},
                hint="Windows Server has it",
            )
        return found

    def _each(self, out: CData) -> Iterator[CData]:
        """The structures of an enumerator; whoever gets one frees its strings."""
        if not out[0]:
            return
        with Reference(out[0]) as reference:
            them = reference.pointer
            prop, fetched = ffi.new("VSS_MGMT_OBJECT_PROP *"), ffi.new("ULONG *")
            while not check(them.lpVtbl.Next(them, 1, prop, fetched), "IVssEnumMgmtObject::Next"):
                if not fetched[0]:
                    return
                yield prop
