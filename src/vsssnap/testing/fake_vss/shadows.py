"""What `IVssBackupComponents` does with shadow copies that exist.

Written from the pages of each method in the Windows SDK documentation and "Exposing and Surfacing Shadow
Copied Volumes"; the rule stands beside each refusal.
"""

from __future__ import annotations

from typing import Any

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import DriveType, ObjectType, SnapshotAttributes, SnapshotContext
from vsssnap._win32.guids import GUID_NULL
from vsssnap._win32.hresult import HResult
from vsssnap.testing.fake_vss.lists import FakeEnumObject
from vsssnap.testing.fake_vss.objects import FakeRevert, id_of, put_id
from vsssnap.testing.fake_vss.restoring import ComponentSlots, text_of

CData = Any
_OK, _BAD, _ABSENT = HResult.S_OK, HResult.VSS_E_BAD_STATE, HResult.VSS_E_OBJECT_NOT_FOUND
_LOCALLY = SnapshotAttributes.VSS_VOLSNAP_ATTR_EXPOSED_LOCALLY
_REMOTELY = SnapshotAttributes.VSS_VOLSNAP_ATTR_EXPOSED_REMOTELY
_ROLLBACK = (SnapshotContext.VSS_CTX_APP_ROLLBACK, SnapshotContext.VSS_CTX_NAS_ROLLBACK)


class ShadowSlots(ComponentSlots):
    """Shadow copies of all requesters."""

    context: int | None = None

    def GetSnapshotProperties(self, shadow_id: CData, out: CData) -> int:
        """Of a shadow copy that exists; the caller has zeroed the structure."""
        if not self.purpose:
            return _BAD
        found = self.machine.shadows.get(id_of(shadow_id))
        if found is None or found.lost:
            return _ABSENT
        if any(bytes(ffi.buffer(out))):
            self.machine.ledger.forbid("GetSnapshotProperties: the structure should be zero before")
        self.machine.fill(out, found)
        return _OK

    def DeleteSnapshots(self, source: CData, kind: int, force: int, deleted: CData, failed: CData) -> int:
        """A shadow copy, or all of a set; stops at the first that cannot be deleted."""
        del force
        if not self.purpose:
            return _BAD
        if kind not in (ObjectType.VSS_OBJECT_SNAPSHOT, ObjectType.VSS_OBJECT_SNAPSHOT_SET):
            return HResult.E_INVALIDARG
        wanted = id_of(source)
        by_set = kind == ObjectType.VSS_OBJECT_SNAPSHOT_SET
        found = [
            shadow
            for shadow in self.machine.shadows.values()
            if (shadow.set_id if by_set else shadow.id) == wanted and not shadow.lost
        ]
        put_id(failed, GUID_NULL)
        deleted[0] = 0
        for shadow in found:
            if shadow.kept:
                put_id(failed, shadow.id)
                return HResult.VSS_E_PROVIDER_VETO
            self.machine.drop(shadow)
            deleted[0] += 1
        return _OK if found else _ABSENT

    def Query(self, source: CData, kind: int, wanted: int, out: CData) -> int:
        """All shadow copies of the context; of GUID_NULL and VSS_OBJECT_NONE, nothing else is supported."""
        if not self.purpose:
            return _BAD
        if id_of(source) != GUID_NULL or kind != ObjectType.VSS_OBJECT_NONE:
            return HResult.E_INVALIDARG
        if wanted != ObjectType.VSS_OBJECT_SNAPSHOT:
            return HResult.E_NOTIMPL
        every = self.context == SnapshotContext.VSS_CTX_ALL
        found = [
            shadow
            for shadow in self.machine.shadows.values()
            if not shadow.lost and (every or shadow.context == (self.context or 0))
        ]
        FakeEnumObject(self.machine, [self.machine.lister(shadow) for shadow in found]).give(out)
        return _OK

    def ExposeSnapshot(
        self, shadow_id: CData, folder: CData, attributes: int, name: CData, out: CData
    ) -> int:
        """A persistent one, as a drive or folder; or as a share, of which a folder may be named.

        That a name is taken, and that a shadow copy is not persistent, has no code in the documentation:
        the argument is not valid.
        """
        if not self.purpose:
            return _BAD
        if attributes not in (_LOCALLY, _REMOTELY):
            return HResult.E_INVALIDARG
        out[0] = ffi.NULL
        shadow = self.machine.shadows.get(id_of(shadow_id))
        if shadow is None or shadow.lost:
            return _ABSENT
        place, taken = text_of(name), {known.exposed.lower() for known in self.machine.shadows.values()}
        taken |= {root.rstrip("\\").lower() for volume in self.machine.volumes for root in volume.roots}
        if shadow.exposed or place.lower() in taken - {""}:
            return HResult.E_INVALIDARG
        if attributes == _LOCALLY:
            if folder or not place or place.endswith("\\") or shadow.context not in _ROLLBACK:
                return HResult.E_INVALIDARG
            shadow.exposed, shadow.shared = place, None
        else:
            shadow.exposed, shadow.shared = place or f"share{shadow.number}", text_of(folder)
        out[0] = self.machine.task_text(shadow.exposed)
        return _OK

    def UnexposeSnapshot(self, shadow_id: CData) -> int:
        """Of one that is exposed."""
        if not self.purpose:
            return _BAD
        shadow = self.machine.shadows.get(id_of(shadow_id))
        if shadow is None or shadow.lost or not shadow.exposed:
            return _ABSENT
        shadow.exposed, shadow.shared = "", None
        return _OK

    # Putting a volume back.

    def RevertToSnapshot(self, shadow_id: CData, force: int) -> int:
        """To a persistent one of a software provider; Windows' own volume is one that does not support it."""
        if not self.purpose:
            return _BAD
        if not self.machine.server:  # "only supported on Windows Server operating systems"
            return HResult.E_NOTIMPL
        shadow = self.machine.shadows.get(id_of(shadow_id))
        if shadow is None or shadow.lost:
            return _ABSENT
        if shadow.by_hardware:
            return HResult.E_NOTIMPL
        volume = shadow.volume
        if volume.reverting is not None:
            return HResult.VSS_E_REVERT_IN_PROGRESS
        if not shadow.persistent:
            return HResult.VSS_E_UNSUPPORTED_CONTEXT
        if self.machine.environment.get("SYSTEMDRIVE", "").lower() + "\\" in map(str.lower, volume.roots):
            return HResult.VSS_E_VOLUME_NOT_SUPPORTED
        if volume.in_use and not force:
            return HResult.VSS_E_VOLUME_IN_USE
        volume.reverting = shadow
        return _OK

    def QueryRevertStatus(self, name: CData, out: CData) -> int:
        """How that goes on; it cannot be stopped, also not by letting go of what tells."""
        if not self.purpose:
            return _BAD
        if not out or not name:
            return HResult.E_POINTER
        volume = self.machine.volume(text_of(name))
        if volume is None:
            return _ABSENT

        def effect() -> None:
            shadow, volume.reverting = volume.reverting, None
            if shadow is not None:
                volume.data[:] = shadow.data
                volume.free = shadow.free

        FakeRevert(self.machine, "QueryRevertStatus", effect).give(out)
        return _OK

    def GetRootAndLogicalPrefixPaths(self, path: CData, root: CData, prefix: CData, full: int) -> int:
        """Where a path's volume is mounted, and its GUID path; a share stands for itself."""
        del full
        text = text_of(path).rstrip("\\").lower() + "\\"
        roots = [
            (known, volume)
            for volume in self.machine.volumes
            for known in (*volume.roots, volume.guid_path)
            if text.startswith(known.lower())
        ]
        if not roots:
            return _ABSENT
        place, volume = max(roots, key=lambda found: len(found[0]))
        shared = volume.drive_type == DriveType.DRIVE_REMOTE
        root[0] = self.machine.task_text(place)
        prefix[0] = self.machine.task_text(place if shared else volume.guid_path)
        return _OK
