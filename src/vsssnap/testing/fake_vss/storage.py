"""Shadow storage: `IVssDifferentialSoftwareSnapshotMgmt` to 3, as Microsoft documents them.

Written from the pages of their methods in the Windows SDK documentation; the rule stands beside each
refusal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import DriveType, MgmtObjectType, ProtectionFault, ProtectionLevel
from vsssnap._win32.hresult import HResult, signed
from vsssnap.testing.fake_vss.lists import FakeEnumMgmtObject
from vsssnap.testing.fake_vss.objects import FakeObject, id_of
from vsssnap.testing.fake_vss.parts import FakeStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vsssnap.testing.fake_vss.parts import FakeVolume

CData = Any
LEAST_STORAGE = 320 << 20
"""Bytes: less is refused (IVssDifferentialSoftwareSnapshotMgmt::AddDiffArea)."""


def _able(volume: FakeVolume) -> bool:
    """Whether a volume can keep the data of shadow copies."""
    return volume.filesystem == "NTFS" and volume.drive_type == DriveType.DRIVE_FIXED


class FakeDiffAreas(FakeObject):
    """Shadow storage."""

    interface = "IVssDifferentialSoftwareSnapshotMgmt3"
    title = "IVssDifferentialSoftwareSnapshotMgmt"
    answers: ClassVar[tuple[str, ...]] = (
        "IVssDifferentialSoftwareSnapshotMgmt",
        "IVssDifferentialSoftwareSnapshotMgmt2",
        "IVssDifferentialSoftwareSnapshotMgmt3",
    )

    def _volume(self, name: CData) -> FakeVolume | None:
        """Named with a backslash at the end."""
        return self.machine.volume(str(ffi.string(name)))

    def _protected(self, name: CData) -> FakeVolume | int:
        """A volume of a Windows Server; others answer that they cannot."""
        if not self.machine.server:
            return HResult.E_NOTIMPL
        return self._volume(name) or HResult.VSS_E_OBJECT_NOT_FOUND

    def SetVolumeProtectLevel(self, name: CData, level: int) -> int:
        """A volume in a faulted state is dismounted, and well again, with ORIGINAL_VOLUME."""
        volume = self._protected(name)
        if isinstance(volume, int):
            return volume
        if level not in list(ProtectionLevel):
            return HResult.E_INVALIDARG
        volume.protection = ProtectionLevel(level)
        if level == ProtectionLevel.VSS_PROTECTION_LEVEL_ORIGINAL_VOLUME:
            volume.fault = ProtectionFault.VSS_PROTECTION_FAULT_NONE
        return HResult.S_OK

    def GetVolumeProtectLevel(self, name: CData, out: CData) -> int:
        """The level, and why the volume is offline."""
        volume = self._protected(name)
        if isinstance(volume, int):
            return volume
        out.m_protectionLevel = volume.protection
        out.m_volumeIsOfflineForProtection = bool(volume.fault)
        out.m_protectionFault = volume.fault
        out.m_failureStatus = signed(HResult.VSS_E_INSUFFICIENT_STORAGE) if volume.fault else 0
        out.m_volumeHasUnusedDiffArea = volume.unused_storage
        return HResult.S_OK

    def ClearVolumeProtectFault(self, name: CData) -> int:
        """Nothing if there is none."""
        volume = self._protected(name)
        if isinstance(volume, int):
            return volume
        volume.fault = ProtectionFault.VSS_PROTECTION_FAULT_NONE
        return HResult.S_OK

    def DeleteUnusedDiffAreas(self, name: CData) -> int:
        """Of a volume that keeps them."""
        volume = self._protected(name)
        if isinstance(volume, int):
            return volume
        volume.unused_storage = False
        return HResult.S_OK

    def _areas(self, volumes: Iterable[FakeVolume], out: CData) -> int:
        found = [self._filler(one, one.storage) for one in volumes if one.storage is not None]
        FakeEnumMgmtObject(self.machine, found).give(out)
        return HResult.S_OK

    def QueryDiffAreasForVolume(self, name: CData, out: CData) -> int:
        """The one association of a volume, or none."""
        volume = self._volume(name)
        if volume is None:
            return HResult.VSS_E_OBJECT_NOT_FOUND
        return self._areas([volume], out)

    def QueryDiffAreasOnVolume(self, name: CData, out: CData) -> int:
        """The associations whose data a volume keeps."""
        volume = self._volume(name)
        if volume is None:
            return HResult.VSS_E_OBJECT_NOT_FOUND
        kept = [one for one in self.machine.volumes if one.storage and (one.storage.on or one) is volume]
        return self._areas(kept, out)

    def QueryDiffAreasForSnapshot(self, shadow_id: CData, out: CData) -> int:
        """The association of the volume that it is a copy of."""
        shadow = self.machine.shadows.get(id_of(shadow_id))
        if shadow is None or shadow.lost:
            return HResult.VSS_E_OBJECT_NOT_FOUND
        return self._areas([shadow.volume], out)

    def QueryVolumesSupportedForDiffAreas(self, name: CData, out: CData) -> int:
        """Those that can keep data: with NTFS."""
        if self._volume(name) is None:
            return HResult.VSS_E_OBJECT_NOT_FOUND
        found = [self._volume_filler(one) for one in self.machine.volumes if _able(one)]
        FakeEnumMgmtObject(self.machine, found).give(out)
        return HResult.S_OK

    def _volume_filler(self, volume: FakeVolume) -> Callable[[CData], None]:
        def fill(to: CData) -> None:
            to.Type, made = MgmtObjectType.VSS_MGMT_OBJECT_DIFF_VOLUME, to.Obj.DiffVol
            made.m_pwszVolumeName = self.machine.task_text(volume.guid_path)
            made.m_pwszVolumeDisplayName = self.machine.task_text(volume.shown)
            made.m_llVolumeTotalSpace = volume.clusters * volume.cluster_size
            made.m_llVolumeFreeSpace = sum(count for _, count in volume.free) * volume.cluster_size

        return fill

    def _filler(self, volume: FakeVolume, storage: FakeStorage) -> Callable[[CData], None]:
        def fill(to: CData) -> None:
            to.Type, area = MgmtObjectType.VSS_MGMT_OBJECT_DIFF_AREA, to.Obj.DiffArea
            area.m_pwszVolumeName = self.machine.task_text(volume.guid_path)
            area.m_pwszDiffAreaVolumeName = self.machine.task_text((storage.on or volume).guid_path)
            area.m_llMaximumDiffSpace = storage.maximum
            area.m_llAllocatedDiffSpace = storage.allocated
            area.m_llUsedDiffSpace = storage.used

        return fill

    def _has_copies(self, volume: FakeVolume) -> bool:
        return any(shadow.volume is volume for shadow in self.machine.shadows.values())

    def AddDiffArea(self, name: CData, place: CData, maximum: int) -> int:
        """Of a volume that has neither an association nor a shadow copy; -1 is no limit."""
        if not self.machine.server:  # its page: no client is supported
            return HResult.E_NOTIMPL
        volume, on = self._volume(name), self._volume(place)
        if volume is None or on is None:
            return HResult.VSS_E_OBJECT_NOT_FOUND
        if maximum != -1 and maximum < LEAST_STORAGE:
            return HResult.E_INVALIDARG
        if not _able(on):
            return HResult.VSS_E_VOLUME_NOT_SUPPORTED
        if volume.storage is not None:
            same = (volume.storage.on or volume) is on
            reached = HResult.VSS_E_MAXIMUM_DIFFAREA_ASSOCIATIONS_REACHED
            return HResult.VSS_E_OBJECT_ALREADY_EXISTS if same else reached
        if self._has_copies(volume):
            return HResult.VSS_E_PROVIDER_VETO
        volume.storage = FakeStorage(maximum, on=on)
        return HResult.S_OK

    def ChangeDiffAreaMaximumSize(self, name: CData, place: CData, maximum: int) -> int:
        """The same as with a change that is there to stay."""
        return self.ChangeDiffAreaMaximumSizeEx(name, place, maximum, 0)

    def ChangeDiffAreaMaximumSizeEx(self, name: CData, place: CData, maximum: int, volatile: int) -> int:
        """Of one association; 0 removes it, -1 is no limit.  From Windows 7 on it is made if need be."""
        volume, on = self._volume(name), self._volume(place)
        if volume is None or on is None:
            return HResult.VSS_E_OBJECT_NOT_FOUND
        if maximum < -1 or (maximum == 0 and volatile):
            return HResult.E_INVALIDARG
        known = volume.storage
        if known is not None and (known.on or volume) is not on:
            return HResult.VSS_E_OBJECT_NOT_FOUND
        if known is None and (maximum == 0 or not self.machine.makes_storage):
            return HResult.VSS_E_OBJECT_NOT_FOUND
        if maximum == 0:
            if self._has_copies(volume):
                return HResult.VSS_E_VOLUME_IN_USE
            volume.storage = None
            return HResult.S_OK
        if maximum != -1 and maximum < LEAST_STORAGE:
            return HResult.VSS_E_INSUFFICIENT_STORAGE
        known = known or FakeStorage()
        volume.storage = FakeStorage(maximum, known.allocated, known.used, on)
        return HResult.S_OK

    def _reserved(self, *arguments: CData) -> int:
        del arguments
        return HResult.E_NOTIMPL

    MigrateDiffAreas = QueryMigrationStatus = SetSnapshotPriority = _reserved
    QuerySnapshotDeltaBitmap = _reserved
    """Their pages: not supported, reserved for future use."""
