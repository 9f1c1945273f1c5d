"""Shadow copies that exist, whoever made them: found, deleted, exposed, reverted to, broken.

Sources: the pages of IVssBackupComponents::Query, ::DeleteSnapshots, ::ExposeSnapshot,
::RevertToSnapshot, ::QueryRevertStatus, ::BreakSnapshotSet and of IVssBackupComponentsEx2::
UnexposeSnapshot and ::BreakSnapshotSetEx in the Windows SDK documentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap._win32._ffi import ffi
from vsssnap._win32.backup_components import BackupComponents, shadow_copy
from vsssnap._win32.com import Reference, check, guid, take_text, uuid_of, wide
from vsssnap._win32.constants import ObjectType, SnapshotAttributes
from vsssnap._win32.guids import GUID_NULL
from vsssnap._win32.hresult import HResult, unsigned
from vsssnap.errors import ProviderUnavailableError

if TYPE_CHECKING:
    from uuid import UUID

    from vsssnap._win32.backup_components import ShadowCopy
    from vsssnap._win32.constants import HardwareOptions


class ShadowCopies(BackupComponents):
    """A requester that looks after shadow copies."""

    def snapshots(self) -> list[ShadowCopy]:
        """All shadow copies of the context."""
        this = self._this()
        out, nothing = ffi.new("IVssEnumObject **"), guid(GUID_NULL)
        kinds = (ObjectType.VSS_OBJECT_NONE, ObjectType.VSS_OBJECT_SNAPSHOT)
        code = unsigned(this.lpVtbl.Query(this, nothing[0], *kinds, out))
        if code == HResult.VSS_E_OBJECT_NOT_FOUND:
            return []
        check(code, "Query")
        found: list[ShadowCopy] = []
        with Reference(out[0]) as reference:
            them = reference.pointer
            prop, fetched = ffi.new("VSS_OBJECT_PROP *"), ffi.new("ULONG *")
            while True:
                check(them.lpVtbl.Next(them, 1, prop, fetched), "IVssEnumObject::Next")
                if not fetched[0]:
                    return found
                try:
                    found.append(shadow_copy(prop.Obj.Snap))
                finally:
                    snap = ffi.addressof(prop.Obj, "Snap")
                    self._system.vssapi.VssFreeSnapshotPropertiesInternal(snap)

    def delete(self, shadow_id: UUID, *, whole_set: bool = False) -> None:
        """Delete a shadow copy, or all of a set.

        Raises:
            SnapshotError: there is none, or one cannot be deleted; those before it are.
        """
        this = self._this()
        deleted, failed, given = ffi.new("LONG *"), ffi.new("VSS_ID *"), guid(shadow_id)
        kind = ObjectType.VSS_OBJECT_SNAPSHOT_SET if whole_set else ObjectType.VSS_OBJECT_SNAPSHOT
        code = this.lpVtbl.DeleteSnapshots(this, given[0], kind, 1, deleted, failed)
        left = uuid_of(failed)
        check(code, "DeleteSnapshots", "" if left == GUID_NULL else f"shadow copy {left}")

    def expose(self, shadow_id: UUID, name: str, *, folder: str | None = None) -> str:
        """Show a shadow copy to other programs.

        Args:
            shadow_id: Which.
            name: A drive (``"X:"``) or an empty folder; the name of a share if ``folder`` is given.
            folder: What is shared, from the root of the volume; "" for all of it.

        Returns:
            Where it is now.
        """
        this, given, out = self._this(), guid(shadow_id), ffi.new("VSS_PWSZ *")
        attributes = SnapshotAttributes.VSS_VOLSNAP_ATTR_EXPOSED_LOCALLY
        path = ffi.NULL
        if folder is not None:
            attributes = SnapshotAttributes.VSS_VOLSNAP_ATTR_EXPOSED_REMOTELY
            path = wide(folder) if folder else ffi.NULL
        code = this.lpVtbl.ExposeSnapshot(this, given[0], path, attributes, wide(name), out)
        check(code, "ExposeSnapshot", name)
        return take_text(self._system, out[0])

    def unexpose(self, shadow_id: UUID) -> None:
        """Take back what `expose` did.

        Raises:
            ProviderUnavailableError: it is not exposed, is not there, or this Windows cannot.
        """
        reference = self._reference.query("IVssBackupComponentsEx2")
        if reference is None:
            raise ProviderUnavailableError(
                "this Windows cannot unexpose shadow copies", reasons={"vss": "it is older than Vista"}
            )
        with reference:
            this, given = reference.pointer, guid(shadow_id)
            check(this.lpVtbl.UnexposeSnapshot(this, given[0]), "UnexposeSnapshot", str(shadow_id))

    def blocks_revert(self, volume: str) -> bool:
        """Whether the registry lists a writer with data on a volume that must not be reverted under it.

        Source: ShouldBlockRevert, which Windows Server alone has.
        """
        try:
            ask = self._system.vssapi.ShouldBlockRevertInternal
        except AttributeError:
            return False
        out = ffi.new("bool *")
        check(ask(wide(volume), out), "ShouldBlockRevert", volume)
        return bool(out[0])

    def revert(self, shadow_id: UUID, *, force: bool) -> None:
        """Begin to put a volume back to what a shadow copy has; nothing stops it from then on.

        Args:
            shadow_id: To which.
            force: Dismount the volume if it is in use.

        Raises:
            SnapshotBusyError: it is in use, or being reverted.
            SnapshotError: it cannot be.
        """
        this, given = self._this(), guid(shadow_id)
        check(this.lpVtbl.RevertToSnapshot(this, given[0], force), "RevertToSnapshot", str(shadow_id))

    def revert_status(self, volume: str) -> Reference:
        """The reverting of a volume, named with a backslash at its end; for `operations.watch`."""
        this, out = self._this(), ffi.new("IVssAsync **")
        check(this.lpVtbl.QueryRevertStatus(this, wide(volume), out), "QueryRevertStatus", volume)
        return Reference(out[0])

    def break_set(self, set_id: UUID, flags: HardwareOptions) -> Reference | None:
        """Have VSS forget a set of a hardware provider; its shadow copies stay as volumes.

        Returns:
            The operation, for `operations.wait`; None if it is done.

        Raises:
            ProviderUnavailableError: there is no such set, or this Windows does not know the flags.
            SnapshotError: its provider is no hardware provider.
        """
        given, reference = guid(set_id), self._reference.query("IVssBackupComponentsEx2")
        if reference is None:
            if flags:
                raise ProviderUnavailableError(
                    "this Windows breaks shadow copy sets in one way only",
                    reasons={"vss": "it is older than Vista"},
                )
            this = self._this()
            check(this.lpVtbl.BreakSnapshotSet(this, given[0]), "BreakSnapshotSet", str(set_id))
            return None
        with reference:
            wider, out = reference.pointer, ffi.new("IVssAsync **")
            code = wider.lpVtbl.BreakSnapshotSetEx(wider, given[0], flags, out)
            check(code, "BreakSnapshotSetEx", str(set_id))
            return Reference(out[0])
