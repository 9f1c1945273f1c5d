"""Shadow copies that exist, whoever made them; every function is for the worker's thread alone."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vsssnap._units import format_size
from vsssnap._version import __version__
from vsssnap._win32 import targets, volumes
from vsssnap._win32.constants import SnapshotAttributes, SnapshotContext, SnapshotState
from vsssnap._win32.hresult import HResult
from vsssnap._win32.management import ShadowStorageManager
from vsssnap._win32.shadow_copies import ShadowCopies
from vsssnap.errors import SnapshotError, SnapshotLostError
from vsssnap.providers.base import SnapshotRecord
from vsssnap.providers.vss import evidence, names
from vsssnap.providers.vss.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from vsssnap._win32.backup_components import BackupComponents, ShadowCopy
    from vsssnap._win32.dll import System
    from vsssnap.providers.vss.journal import Record

_log = logging.getLogger("vsssnap.vss")

_WHY = "source volsnap in the System event log says why; often shadow storage was full"


def shown(system: System, volume: str) -> str:
    """A volume as people know it: where it is mounted."""
    return ", ".join(names.mounted(system, volume)) or volume


def storage_note(system: System, volume: str) -> str:
    """How full the shadow storage of a volume is, for a message; "" if that cannot be told."""
    try:
        manager = ShadowStorageManager(system)
        try:
            areas = manager.areas(volume)
        finally:
            manager.release()
    except SnapshotError as exc:
        _log.info("shadow storage of %s: %s", volume, exc)
        return ""
    if not areas:
        return f"{shown(system, volume)} has no shadow storage yet"
    return "; ".join(
        f"shadow storage of {shown(system, volume)} on {shown(system, area.storage)}: "
        f"{format_size(area.used)} used, {format_size(area.allocated)} allocated, "
        + ("no limit" if area.maximum is None else f"{format_size(area.maximum)} at most")
        for area in areas
    )


def facts(system: System, copies: Iterable[ShadowCopy], *, backup_privilege: bool) -> bytes:
    """What VSS says of shadow copies, and Windows of their volumes, for whoever looks at an image later.

    ``backup_privilege`` is whether SeBackupPrivilege was on when they were made.
    """
    known = [(copy, *volumes.information(system, copy.device + "\\")) for copy in copies]
    return json.dumps(
        [
            {
                "volume": copy.volume,
                "id": str(copy.id),
                "set_id": str(copy.set_id),
                "provider_id": str(copy.provider_id),
                "attributes": [
                    flag.name.removeprefix("VSS_VOLSNAP_ATTR_").lower()
                    for flag in SnapshotAttributes
                    if copy.attributes & flag and flag.name
                ],
                "created": copy.created.isoformat(),
                "filesystem": filesystem,
                "serial_number": serial,
                "bitlocker": targets.is_encrypted(system, copy.volume),
                "backup_privilege": backup_privilege,
                "library": f"vsssnap {__version__}",
            }
            for copy, filesystem, serial in known
        ],
        indent=1,
    ).encode()


def check_alive(
    system: System, vss: BackupComponents, copies: Mapping[str, ShadowCopy]
) -> dict[str, ShadowCopy]:
    """Ask VSS whether every shadow copy is still there; its device number may be another's by now.

    Returns:
        What VSS says of them now.

    Raises:
        SnapshotLostError: one is not, or VSS does not answer.
    """
    known = dict(copies)
    for volume, copy in copies.items():
        what = f"the shadow copy of {shown(system, volume)} is gone"
        call, lost = "GetSnapshotProperties", None
        try:
            known[volume] = found = vss.snapshot(copy.id)
        except SnapshotError as exc:
            lost = SnapshotLostError(f"{what}: {exc.message}", call=call, code=exc.code, hint=_WHY)
            lost.__cause__ = exc
        else:
            if found.state != SnapshotState.VSS_SS_CREATED or found.created != copy.created:
                lost = SnapshotLostError(f"{what}: its state is {found.state}", call=call, hint=_WHY)
        if lost is not None:
            for note in (*evidence.driver_events(system, copy.created), storage_note(system, volume)):
                if note:
                    lost.add_note(note)
            raise lost
    return known


def administer(system: System) -> ShadowCopies:
    """A requester that sees and deletes the shadow copies of all; release it."""
    vss = ShadowCopies(system)
    try:
        vss.initialize_for_backup()
        vss.set_context(SnapshotContext.VSS_CTX_ALL)
    except BaseException:
        vss.release()
        raise
    return vss


def all_copies(system: System) -> list[ShadowCopy]:
    """Every shadow copy on this machine."""
    vss = administer(system)
    try:
        return vss.snapshots()
    finally:
        vss.release()


@dataclass(frozen=True, slots=True)
class ExistingSet:
    """The shadow copies of one instant, and what the journal says of them.

    Attributes:
        set_id: Their set.
        copies: Themselves.
        record: What the journal has; None if they are somebody else's.
    """

    set_id: UUID
    copies: tuple[ShadowCopy, ...]
    record: Record | None


def all_sets(system: System) -> list[ExistingSet]:
    """Every set on this machine; records of sets that are gone are removed."""
    journal = Journal(system)
    records = journal.records()  # before the copies: what is on record now is there by then
    found: dict[UUID, list[ShadowCopy]] = {}
    for copy in all_copies(system):
        found.setdefault(copy.set_id, []).append(copy)
    for gone in records.keys() - found.keys():
        if not records[gone].alive:
            journal.forget(gone)
    sets = []
    for set_id, copies in found.items():
        record = records.get(set_id)
        if record is not None and not record.is_of(copies):
            _log.warning("the journal speaks of set %s with other volumes: it is left alone", set_id)
            record = None
        sets.append(ExistingSet(set_id, tuple(copies), record))
    return sets


def listed(system: System, known: ExistingSet) -> SnapshotRecord:
    """A set as users see it."""
    record = known.record
    return SnapshotRecord(
        provider="vss",
        snapshot_id=str(known.set_id),
        volumes=tuple(shown(system, copy.volume) for copy in known.copies),
        created=max(copy.created for copy in known.copies),
        owned=record is not None,
        owner_alive=record is not None and record.alive,
        kept=record is not None and record.kept,
    )


def purge_set(system: System, set_id: UUID) -> None:
    """Delete a set that a process of ours left behind, and nothing else.

    Raises:
        SnapshotError: it is not ours, or is in use, or cannot be deleted.
    """
    for known in all_sets(system):
        if known.set_id == set_id:
            if known.record is None or known.record.alive:
                why = "a running process uses it" if known.record else "it is not of this account's programs"
                raise SnapshotError(f"shadow copy set {set_id} is not purged: {why}")
            delete_set(system, set_id)
            Journal(system).forget(set_id)


_deleting = threading.Lock()  # VSS deletes one at a time, and refuses whoever comes meanwhile


def delete_set(system: System, set_id: UUID) -> None:
    """Delete the shadow copies of a set; it is no error if there are none.

    VSS stops at the first that it cannot delete, so the others are then deleted one by one.

    Raises:
        SnapshotError: one cannot be deleted; the others are.
    """
    with _deleting:
        vss = administer(system)
        try:
            try:
                vss.delete(set_id, whole_set=True)
            except SnapshotError as exc:
                if exc.code != HResult.VSS_E_OBJECT_NOT_FOUND:
                    _delete_each(vss, set_id, exc)
        finally:
            vss.release()


def _delete_each(vss: ShadowCopies, set_id: UUID, first: SnapshotError) -> None:
    left = [copy.id for copy in vss.snapshots() if copy.set_id == set_id]
    failed = []
    for shadow_id in left:
        try:
            vss.delete(shadow_id)
        except SnapshotError as exc:
            if exc.code != HResult.VSS_E_OBJECT_NOT_FOUND:
                failed.append(exc)
    if failed:
        for other in failed:
            first.add_note(str(other))
        raise first


@dataclass(slots=True)
class Attached:
    """A set that was taken earlier.

    Attributes:
        system: The libraries.
        set_id: Which.
        own: Whether `end` deletes it.
        copies: Its shadow copies, by the GUID path of their volume.
    """

    system: System
    set_id: UUID
    own: bool
    copies: dict[str, ShadowCopy] = field(default_factory=dict)
    _vss: ShadowCopies | None = None

    def find(self) -> None:
        """Look for the set; `copies` stays empty if there is none."""
        self._vss = administer(self.system)
        found = [copy for copy in self._vss.snapshots() if copy.set_id == self.set_id]
        self.copies = {copy.volume: copy for copy in found}
        if found:
            Journal(self.system).adopt(self.set_id)

    def alive(self) -> None:
        """See `check_alive`."""
        if self._vss is None:
            raise SnapshotLostError("the shadow copy was released")
        self.copies = check_alive(self.system, self._vss, self.copies)

    def end(self) -> None:
        """Let go of it, or delete it."""
        vss, self._vss = self._vss, None
        if vss is not None:
            vss.release()
            if self.own and self.copies:
                delete_set(self.system, self.set_id)
                Journal(self.system).forget(self.set_id)
