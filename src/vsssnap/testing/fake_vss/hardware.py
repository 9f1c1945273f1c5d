"""What `IVssBackupComponents` does with shadow copies that are volumes of their own.

A hardware provider has the disk array copy a volume: such a copy can be handed to another machine,
stay behind as a plain volume, or be written back.  Written from the pages of each method in the Windows
SDK documentation, "Importing Transportable Shadow Copied Volumes" and "Breaking Shadow Copies"; the
rule stands beside each refusal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vsssnap._win32.constants import HardwareOptions, RecoveryOptions
from vsssnap._win32.guids import GUID_NULL
from vsssnap._win32.hresult import HResult
from vsssnap.testing.fake_vss.objects import id_of
from vsssnap.testing.fake_vss.parts import FakeVolume
from vsssnap.testing.fake_vss.restoring import text_of
from vsssnap.testing.fake_vss.shadows import ShadowSlots

if TYPE_CHECKING:
    from vsssnap.testing.fake_vss.machine import Machine
    from vsssnap.testing.fake_vss.parts import FakeShadow
    from vsssnap.testing.fake_vss.requester import FakeBackupComponents

CData = Any
_OK, _BAD, _ABSENT = HResult.S_OK, HResult.VSS_E_BAD_STATE, HResult.VSS_E_OBJECT_NOT_FOUND
_NO = HResult.E_NOTIMPL
"""Of what a Windows for clients does not have; the documentation names no code."""
_IDENTITY = HardwareOptions.VSS_BREAKEX_FLAG_REVERT_IDENTITY_ALL
_BREAK = int(
    HardwareOptions.VSS_BREAKEX_FLAG_MASK_LUNS
    | HardwareOptions.VSS_BREAKEX_FLAG_MAKE_READ_WRITE
    | _IDENTITY
    | HardwareOptions.VSS_BREAKEX_FLAG_REVERT_IDENTITY_NONE
)
_BOTH = _IDENTITY | HardwareOptions.VSS_BREAKEX_FLAG_REVERT_IDENTITY_NONE


class HardwareSlots(ShadowSlots):
    """Shadow copies that are imported, broken and written back."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.shadows: list[FakeShadow] = []
        self.imports = ""  # "", "running", "done"
        self.recovery: list[tuple[FakeShadow, FakeVolume]] = []
        self.resync = ""  # "", "running", "done"

    def _alive(self) -> list[FakeBackupComponents]:
        """The requesters that were not released: what one of those had begun is over."""
        return [known for known in self.machine.requesters if known.references]

    # Import.

    def ImportSnapshots(self, out: CData) -> int:
        """With the document of the machine that made them; once, and one at a time on a machine."""
        if self.purpose != "backup" or self.given is None or self.set_id or self.imports:
            return _BAD
        if not self.machine.server:
            return _NO
        if any(known.imports == "running" for known in self._alive()):
            self.machine.ledger.forbid("ImportSnapshots: one at a time; the requester sees to that")
        code = self.begin("ImportSnapshots", out, self._import)
        self.imports = "running" if code == _OK else ""
        return code

    def _import(self) -> int:
        self.imports = "done"
        wanted = [one for one in self.given or () if one.transportable]
        if not wanted:
            return HResult.VSS_E_NONTRANSPORTABLE_BCD
        luns = self.machine.luns
        found = [luns.pop(one.id) for one in wanted if one.id in luns]
        for shadow in found:
            shadow.imported, shadow.number = True, self.machine.next_number()
            self.machine.shadows[shadow.id] = shadow
        self.shadows += found
        if not found:
            return HResult.VSS_E_NO_SNAPSHOTS_IMPORTED
        return _OK if len(found) == len(wanted) else HResult.VSS_S_SOME_SNAPSHOTS_NOT_IMPORTED

    # Break.

    def _to_break(self, set_id: CData) -> list[FakeShadow] | int:
        """The copies of a set, if hardware made them; those that wait for import are not there."""
        if not self.purpose:
            return _BAD
        wanted = id_of(set_id)
        if wanted == GUID_NULL:
            return HResult.E_INVALIDARG
        found = [one for one in self.machine.shadows.values() if one.set_id == wanted and not one.lost]
        if not found:
            return _ABSENT
        return found if all(one.by_hardware for one in found) else HResult.VSS_E_PROVIDER_VETO

    def _break(self, found: list[FakeShadow], flags: int) -> int:
        machine = self.machine
        if flags & _IDENTITY and any(one.volume in machine.volumes for one in found):
            return HResult.VSS_E_BREAK_REVERT_ID_FAILED
        for shadow in found:
            del machine.shadows[shadow.id]
            for requester in machine.requesters:
                if shadow in requester.shadows:
                    requester.shadows.remove(shadow)  # its release ends shadow copies, and this is none
            if flags & HardwareOptions.VSS_BREAKEX_FLAG_MASK_LUNS:
                continue
            made = FakeVolume(
                (),
                bytearray(shadow.data),
                filesystem=shadow.volume.filesystem,
                free=shadow.free,
                sector_size=shadow.volume.sector_size,
                cluster_size=shadow.volume.cluster_size,
                first_cluster=shadow.volume.first_cluster,
                readonly=not flags & HardwareOptions.VSS_BREAKEX_FLAG_MAKE_READ_WRITE,
                provider=shadow.provider_id,
                device=shadow.device,
            )
            if flags & _IDENTITY:
                made.id = shadow.volume.id
            machine.volumes.append(made)
        return _OK

    def BreakSnapshotSet(self, set_id: CData) -> int:
        """Its shadow copies become volumes, which VSS knows no more."""
        found = self._to_break(set_id)
        return found if isinstance(found, int) else self._break(found, 0)

    def BreakSnapshotSetEx(self, set_id: CData, flags: int, out: CData) -> int:
        """Likewise; flags say how."""
        found = self._to_break(set_id)
        if isinstance(found, int):
            return found
        if flags & ~_BREAK or flags & _BOTH == _BOTH:
            return HResult.E_INVALIDARG
        return self.begin("BreakSnapshotSetEx", out, lambda: self._break(found, flags))

    # Writing back.

    def AddSnapshotToRecoverySet(self, shadow_id: CData, flags: int, place: CData) -> int:
        """A copy of hardware that the document speaks of, back to its volume or to another."""
        wanted, machine = id_of(shadow_id), self.machine
        if not machine.server:
            return _NO
        if self.purpose != "restore" or self.resync or not machine.hardware():
            return _BAD
        if flags or wanted == GUID_NULL:
            return HResult.E_INVALIDARG
        if wanted not in {one.id for one in self.given or ()}:
            return HResult.VSS_E_SNAPSHOT_NOT_IN_SET
        shadow = machine.shadows.get(wanted)
        if shadow is None or shadow.lost or not shadow.by_hardware:
            return _ABSENT
        if not machine.provider(shadow.provider_id).resyncs:
            return HResult.VSS_E_LEGACY_PROVIDER
        target = machine.volume(text_of(place)) if place else shadow.volume
        if target is None or target.provider is None or len(target.data) < len(shadow.data):
            return HResult.VSS_E_VOLUME_NOT_SUPPORTED
        self.recovery.append((shadow, target))
        return _OK

    def RecoverSet(self, flags: int, out: CData) -> int:
        """Writes back what was added; other volumes of the same disk must have been, too."""
        if not self.machine.server:
            return _NO
        if self.purpose != "restore" or not self.recovery or self.resync:
            return _BAD
        allowed = int(
            RecoveryOptions.VSS_RECOVERY_REVERT_IDENTITY_ALL | RecoveryOptions.VSS_RECOVERY_NO_VOLUME_CHECK
        )
        if flags & ~allowed:
            return HResult.E_INVALIDARG
        if any(known.resync == "running" for known in self._alive()):
            return HResult.VSS_E_RESYNC_IN_PROGRESS
        if not flags & RecoveryOptions.VSS_RECOVERY_NO_VOLUME_CHECK and self._touches_others():
            return HResult.VSS_E_UNSELECTED_VOLUME
        self.resync = "running"
        return self.begin("RecoverSet", out, self._write_back)

    def _touches_others(self) -> bool:
        targets = {id(volume) for _, volume in self.recovery}
        disks = {volume.disk[0] for _, volume in self.recovery}
        return any(
            one.disk[0] in disks and one.provider is not None and id(one) not in targets
            for one in self.machine.volumes
        )

    def _write_back(self) -> None:
        for shadow, volume in self.recovery:
            volume.data[: len(shadow.data)] = shadow.data
        self.resync = "done"

    def _reserved(self, set_id: CData, flags: int, out: CData) -> int:
        del set_id, flags, out
        return _NO

    PreFastRecovery = FastRecovery = _reserved
    """Their pages: not supported, reserved for future use."""
