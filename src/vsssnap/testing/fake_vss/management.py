"""`IVssAdmin` and `IVssSnapshotMgmt`, as Microsoft documents them.

Written from the pages of their methods in the Windows SDK documentation; the rule stands beside each
refusal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import (
    MgmtObjectType,
    ObjectType,
    ProviderCapabilities,
    ProviderType,
)
from vsssnap._win32.guids import CLSIDS, IIDS, SYSTEM_PROVIDER
from vsssnap._win32.hresult import HResult
from vsssnap.testing.fake_vss.lists import FakeEnumMgmtObject, FakeEnumObject
from vsssnap.testing.fake_vss.objects import FakeObject, id_of, put_id
from vsssnap.testing.fake_vss.parts import FakeProvider
from vsssnap.testing.fake_vss.storage import LEAST_STORAGE, FakeDiffAreas

if TYPE_CHECKING:
    from collections.abc import Callable

    from vsssnap.testing.fake_vss.parts import FakeVolume

CData = Any


class FakeAdmin(FakeObject):
    """The service, for administrators."""

    interface, title = "IVssAdminEx", "IVssAdmin"
    answers: ClassVar[tuple[str, ...]] = ("IVssAdmin", "IVssAdminEx")

    def RegisterProvider(
        self, provider: CData, cls: CData, name: CData, kind: int, version: CData, version_id: CData
    ) -> int:
        """Each id once; one of hardware on a server alone."""
        if kind not in (
            ProviderType.VSS_PROV_SOFTWARE,
            ProviderType.VSS_PROV_HARDWARE,
            ProviderType.VSS_PROV_FILESHARE,
        ):
            return HResult.E_INVALIDARG
        if kind == ProviderType.VSS_PROV_HARDWARE and not self.machine.server:
            return HResult.E_INVALIDARG
        if id_of(provider) in {one.id for one in self.machine.providers}:
            return HResult.VSS_E_PROVIDER_ALREADY_REGISTERED
        made = FakeProvider(
            name=str(ffi.string(name)),
            kind=ProviderType(kind),
            version=str(ffi.string(version)),
            id=id_of(provider),
            version_id=id_of(version_id),
            class_id=id_of(cls),
        )
        self.machine.providers.append(made)
        return HResult.S_OK

    def UnregisterProvider(self, provider: CData) -> int:
        """One that is registered, and of which there is no shadow copy."""
        wanted = id_of(provider)
        found = self.machine.provider(wanted)
        if found not in self.machine.providers:
            return HResult.VSS_E_PROVIDER_NOT_REGISTERED
        if found.kind == ProviderType.VSS_PROV_SYSTEM or any(
            shadow.provider_id == wanted for shadow in self.machine.shadows.values()
        ):
            return HResult.VSS_E_PROVIDER_IN_USE
        self.machine.providers.remove(found)
        return HResult.S_OK

    def AbortAllSnapshotsInProgress(self) -> int:
        """Its page: not supported, reserved for system use; who calls it ends the sets of others."""
        self.machine.ledger.forbid("AbortAllSnapshotsInProgress is reserved for system use")
        return HResult.E_NOTIMPL

    def GetProviderCapability(self, provider: CData, out: CData) -> int:
        """Of one that is registered."""
        found = self.machine.provider(id_of(provider))
        if found not in self.machine.providers:
            return HResult.VSS_E_PROVIDER_NOT_REGISTERED
        known = ProviderCapabilities
        if found.kind == ProviderType.VSS_PROV_HARDWARE:
            resync = known.VSS_PRV_CAPABILITY_LUN_RESYNC if found.resyncs else 0
            out[0] = known.VSS_PRV_CAPABILITY_COMPLIANT | known.VSS_PRV_CAPABILITY_PLEX | resync
        else:
            out[0] = known.VSS_PRV_CAPABILITY_COMPLIANT | known.VSS_PRV_CAPABILITY_DIFFERENTIAL
        return HResult.S_OK

    def GetProviderContext(self, provider: CData, out: CData) -> int:
        """What SetProviderContext said; VSS_CTX_BACKUP if nothing."""
        wanted = id_of(provider)
        if self.machine.provider(wanted) not in self.machine.providers:
            return HResult.VSS_E_PROVIDER_NOT_REGISTERED
        out[0] = self.machine.contexts.get(wanted, 0)
        return HResult.S_OK

    def SetProviderContext(self, provider: CData, context: int) -> int:
        """Of one that is registered."""
        wanted = id_of(provider)
        if self.machine.provider(wanted) not in self.machine.providers:
            return HResult.VSS_E_PROVIDER_NOT_REGISTERED
        self.machine.contexts[wanted] = context
        return HResult.S_OK

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
        """Those that a provider can copy; programs do not use it, its page says."""
        self.machine.ledger.forbid("QueryVolumesSupportedForSnapshots is reserved for system use")
        del context
        wanted = id_of(provider)
        if self.machine.provider(wanted) not in self.machine.providers:
            return HResult.VSS_E_PROVIDER_NOT_REGISTERED

        def filler(volume: FakeVolume) -> Callable[[CData], None]:
            def fill(to: CData) -> None:
                to.Type = MgmtObjectType.VSS_MGMT_OBJECT_VOLUME
                to.Obj.Vol.m_pwszVolumeName = self.machine.task_text(volume.guid_path)
                to.Obj.Vol.m_pwszVolumeDisplayName = self.machine.task_text(volume.shown)

            return fill

        able = [one for one in self.machine.volumes if wanted in (SYSTEM_PROVIDER, one.provider)]
        found = [filler(volume) for volume in able if volume.supported]
        FakeEnumMgmtObject(self.machine, found).give(out)
        return HResult.S_OK

    def QuerySnapshotsByVolume(self, name: CData, provider: CData, out: CData) -> int:
        """Those that a provider has made of a volume; programs do not use it, its page says."""
        wanted = id_of(provider)
        if self.machine.provider(wanted) not in self.machine.providers:
            return HResult.VSS_E_PROVIDER_NOT_REGISTERED
        volume = self.machine.volume(str(ffi.string(name)))
        if volume is None:
            return HResult.VSS_E_OBJECT_NOT_FOUND
        self.machine.ledger.forbid("QuerySnapshotsByVolume is reserved for system use")
        found = [
            shadow
            for shadow in self.machine.shadows.values()
            if shadow.volume is volume and shadow.provider_id == wanted and not shadow.lost
        ]
        FakeEnumObject(self.machine, [self.machine.lister(shadow) for shadow in found]).give(out)
        return HResult.S_OK


class FakeSnapshotMgmt2(FakeObject):
    """Limits of shadow storage; an interface with a vtable of its own."""

    interface = title = "IVssSnapshotMgmt2"
    answers: ClassVar[tuple[str, ...]] = ("IVssSnapshotMgmt2",)

    def GetMinDiffAreaSize(self, out: CData) -> int:
        """Bytes."""
        out[0] = LEAST_STORAGE
        return HResult.S_OK


CLASSES: dict[tuple[Any, Any], type[FakeObject]] = {
    (CLSIDS["VSSCoordinator"], IIDS["IVssAdmin"]): FakeAdmin,
    (CLSIDS["VSSCoordinator"], IIDS["IVssAdminEx"]): FakeAdmin,
    (CLSIDS["VssSnapshotMgmt"], IIDS["IVssSnapshotMgmt"]): FakeSnapshotMgmt,
}
"""What CoCreateInstance makes, by class and interface."""
