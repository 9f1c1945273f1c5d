"""`IVssAdmin`, `IVssSnapshotMgmt` and shadow storage, as Microsoft documents them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import (
    MgmtObjectType,
    ObjectType,
    ProtectionFault,
    ProtectionLevel,
)
from vsssnap._win32.guids import CLSIDS, IIDS, SYSTEM_PROVIDER
from vsssnap._win32.hresult import HResult, signed
from vsssnap.testing.fake_vss.objects import FakeObject, id_of, put_id
from vsssnap.testing.fake_vss.parts import FakeProvider, FakeStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vsssnap.testing.fake_vss.machine import Machine
    from vsssnap.testing.fake_vss.parts import FakeVolume

CData = Any
LEAST_STORAGE = 320 << 20
"""Bytes: less is refused (IVssDifferentialSoftwareSnapshotMgmt::AddDiffArea)."""


class FakeList(FakeObject):
    """An enumerator; each item fills one structure."""

    def __init__(self, machine: Machine, fill: Sequence[Callable[[CData], None]]) -> None:
        super().__init__(machine)
        self._rest = list(fill)

    def Next(self, count: int, out: CData, fetched: CData) -> int:
        """S_FALSE if there are fewer than were asked for."""
        given = self._rest[:count]
        del self._rest[:count]
        for index, fill in enumerate(given):
            fill(out[index])
        fetched[0] = len(given)
        return HResult.S_OK if len(given) == count else HResult.S_FALSE


class FakeEnumObject(FakeList):
    """Shadow copies or providers."""

    interface = title = "IVssEnumObject"
    answers: ClassVar[tuple[str, ...]] = ("IVssEnumObject",)


class FakeEnumMgmtObject(FakeList):
    """Volumes or shadow storage."""

    interface = title = "IVssEnumMgmtObject"
    answers: ClassVar[tuple[str, ...]] = ("IVssEnumMgmtObject",)


class FakeAdmin(FakeObject):
    """The service, for administrators."""

    interface = title = "IVssAdmin"
    answers: ClassVar[tuple[str, ...]] = ("IVssAdmin",)

    def QueryProviders(self, out: CData) -> int:
        """All that are registered."""
        FakeEnumObject(self.machine, [self._filler(one) for one in self.machine.providers]).give(out)
        return HResult.S_OK

    def _filler(self, provider: FakeProvider) -> Callable[[CData], None]:
        def fill(to: CData) -> None:
            to.Type, made = ObjectType.VSS_OBJECT_PROVIDER, to.Obj.Prov
            put_id(ffi.addressof(made, "m_ProviderId"), provider.id)
            put_id(ffi.addressof(made, "m_ProviderVersionId"), provider.version_id)
            put_id(ffi.addressof(made, "m_ClassId"), provider.class_id)
            made.m_pwszProviderName = self.machine.task_text(provider.name)
            made.m_pwszProviderVersion = self.machine.task_text(provider.version)
            made.m_eProviderType = provider.kind

        return fill


class FakeSnapshotMgmt(FakeObject):
    """What can have shadow copies."""

    interface = title = "IVssSnapshotMgmt"
    answers: ClassVar[tuple[str, ...]] = ("IVssSnapshotMgmt",)

    def query(self, iid: CData, out: CData) -> int:
        """QueryInterface."""
        name = "IVssSnapshotMgmt2"
        if id_of(iid) == IIDS[name] and name not in self.machine.hides:
            FakeSnapshotMgmt2(self.machine).give(out)
            return HResult.S_OK
        return super().query(iid, out)

    def GetProviderMgmtInterface(self, provider: CData, iid: CData, out: CData) -> int:
        """Of the system provider: shadow storage."""
        if id_of(provider) != SYSTEM_PROVIDER:
            return HResult.VSS_E_PROVIDER_NOT_REGISTERED
        wanted = next((name for name in FakeDiffAreas.answers if IIDS[name] == id_of(iid)), "")
        if not wanted or wanted in self.machine.hides:
            return HResult.E_NOINTERFACE
        FakeDiffAreas(self.machine).give(out)
        return HResult.S_OK

    def QueryVolumesSupportedForSnapshots(self, provider: CData, context: int, out: CData) -> int:
        """Those of the system provider."""
        del provider, context

        def filler(volume: FakeVolume) -> Callable[[CData], None]:
            def fill(to: CData) -> None:
                to.Type = MgmtObjectType.VSS_MGMT_OBJECT_VOLUME
                to.Obj.Vol.m_pwszVolumeName = self.machine.task_text(volume.guid_path)
                to.Obj.Vol.m_pwszVolumeDisplayName = self.machine.task_text(
                    (*volume.roots, volume.guid_path)[0]
                )

            return fill

        found = [filler(volume) for volume in self.machine.volumes if volume.supported]
        FakeEnumMgmtObject(self.machine, found).give(out)
        return HResult.S_OK


class FakeSnapshotMgmt2(FakeObject):
    """Limits of shadow storage; an interface with a vtable of its own."""

    interface = title = "IVssSnapshotMgmt2"
    answers: ClassVar[tuple[str, ...]] = ("IVssSnapshotMgmt2",)

    def GetMinDiffAreaSize(self, out: CData) -> int:
        """Bytes."""
        if not out:
            return HResult.E_INVALIDARG
        out[0] = LEAST_STORAGE
        return HResult.S_OK


class FakeDiffAreas(FakeObject):
    """Shadow storage."""

    interface = title = "IVssDifferentialSoftwareSnapshotMgmt3"
    answers: ClassVar[tuple[str, ...]] = (
        "IVssDifferentialSoftwareSnapshotMgmt",
        "IVssDifferentialSoftwareSnapshotMgmt2",
        "IVssDifferentialSoftwareSnapshotMgmt3",
    )

    def _volume(self, name: CData) -> FakeVolume | None:
        """Named with a backslash at the end."""
        return self.machine.volume(str(ffi.string(name))) if name else None

    def SetVolumeProtectLevel(self, name: CData, level: int) -> int:
        """A volume in a faulted state is dismounted, and well again, with ORIGINAL_VOLUME."""
        volume = self._volume(name)
        if volume is None:
            return HResult.VSS_E_OBJECT_NOT_FOUND
        if level not in list(ProtectionLevel):
            return HResult.E_INVALIDARG
        volume.protection = ProtectionLevel(level)
        if level == ProtectionLevel.VSS_PROTECTION_LEVEL_ORIGINAL_VOLUME:
            volume.fault = ProtectionFault.VSS_PROTECTION_FAULT_NONE
        return HResult.S_OK

    def GetVolumeProtectLevel(self, name: CData, out: CData) -> int:
        """The level, and why the volume is offline."""
        volume = self._volume(name)
        if volume is None:
            return HResult.VSS_E_OBJECT_NOT_FOUND
        out.m_protectionLevel = volume.protection
        out.m_volumeIsOfflineForProtection = bool(volume.fault)
        out.m_protectionFault = volume.fault
        out.m_failureStatus = signed(HResult.VSS_E_INSUFFICIENT_STORAGE) if volume.fault else 0
        out.m_volumeHasUnusedDiffArea = volume.unused_storage
        return HResult.S_OK

    def ClearVolumeProtectFault(self, name: CData) -> int:
        """Nothing if there is none."""
        volume = self._volume(name)
        if volume is None:
            return HResult.VSS_E_OBJECT_NOT_FOUND
        volume.fault = ProtectionFault.VSS_PROTECTION_FAULT_NONE
        return HResult.S_OK

    def DeleteUnusedDiffAreas(self, name: CData) -> int:
        """Of a volume that keeps them."""
        volume = self._volume(name)
        if volume is None:
            return HResult.VSS_E_OBJECT_NOT_FOUND
        volume.unused_storage = False
        return HResult.S_OK

    def QueryDiffAreasForVolume(self, name: CData, out: CData) -> int:
        """The one association of a volume, or none."""
        volume = self.machine.volume(str(ffi.string(name)))
        if volume is None:
            return HResult.VSS_E_OBJECT_NOT_FOUND
        found = [] if volume.storage is None else [self._filler(volume, volume.storage)]
        FakeEnumMgmtObject(self.machine, found).give(out)
        return HResult.S_OK

    def _filler(self, volume: FakeVolume, storage: FakeStorage) -> Callable[[CData], None]:
        def fill(to: CData) -> None:
            to.Type = MgmtObjectType.VSS_MGMT_OBJECT_DIFF_AREA
            area = to.Obj.DiffArea
            area.m_pwszVolumeName = self.machine.task_text(volume.guid_path)
            area.m_pwszDiffAreaVolumeName = self.machine.task_text((storage.on or volume).guid_path)
            area.m_llMaximumDiffSpace = storage.maximum
            area.m_llAllocatedDiffSpace = storage.allocated
            area.m_llUsedDiffSpace = storage.used

        return fill

    def ChangeDiffAreaMaximumSizeEx(self, name: CData, place: CData, maximum: int, volatile: int) -> int:
        """Changes or makes an association; 0 removes one that has no shadow copies, -1 is no limit."""
        del volatile
        volume = self.machine.volume(str(ffi.string(name)))
        on = self.machine.volume(str(ffi.string(place)))
        if volume is None or on is None:
            return HResult.VSS_E_OBJECT_NOT_FOUND
        if maximum == 0:
            if any(shadow.volume is volume for shadow in self.machine.shadows.values()):
                return HResult.VSS_E_VOLUME_IN_USE
            volume.storage = None
            return HResult.S_OK
        if maximum != -1 and maximum < LEAST_STORAGE:
            return HResult.VSS_E_INSUFFICIENT_STORAGE
        known = volume.storage or FakeStorage()
        volume.storage = FakeStorage(maximum, known.allocated, known.used, on)
        return HResult.S_OK


CLASSES: dict[tuple[Any, Any], type[FakeObject]] = {
    (CLSIDS["VSSCoordinator"], IIDS["IVssAdmin"]): FakeAdmin,
    (CLSIDS["VssSnapshotMgmt"], IIDS["IVssSnapshotMgmt"]): FakeSnapshotMgmt,
}
"""What CoCreateInstance makes, by class and interface."""
