"""Shadow copies one by one, whoever made them: listed, deleted, shown to other programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from vsssnap._arguments import instance, path_text
from vsssnap._deadline import Deadline
from vsssnap._win32.constants import SnapshotAttributes
from vsssnap.errors import SnapshotError, UsageError
from vsssnap.providers.vss import existing, names
from vsssnap.providers.vss.management import run

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from datetime import datetime

    from vsssnap._win32.backup_components import ShadowCopy
    from vsssnap._win32.dll import System
    from vsssnap._win32.shadow_copies import ShadowCopies
    from vsssnap.providers.base import SnapshotRecord

__all__ = [
    "ShadowCopyRecord",
    "delete_shadow_copy",
    "expose_shadow_copy",
    "list_shadow_copies",
    "purge_orphans",
    "unexpose_shadow_copy",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowCopyRecord:
    r"""A shadow copy of one volume.

    Attributes:
        id: Its own id.
        set_id: The id of its set, which all copies of one instant have; what `Snapshot.attach` takes.
        volume: What it is a copy of, by where that is mounted.
        created: The instant.
        provider_id: The VSS provider that made it.
        persistent: Whether it outlives the program that made it.
        client_accessible: Whether it is one of those that Windows shows as "Previous Versions".
        device: Its device, ``\\?\GLOBALROOT\Device\...``; another one may have that name tomorrow.
        exposed: The drive, folder or share that shows it, or "".
    """

    id: str
    set_id: str
    volume: str
    created: datetime
    provider_id: str
    persistent: bool
    client_accessible: bool
    device: str
    exposed: str


def list_shadow_copies(
    volume: str | os.PathLike[str] | None = None, /, *, timeout: float = 60.0
) -> list[ShadowCopyRecord]:
    """The shadow copies of a volume, or of all, the oldest first.

    Args:
        volume: A drive or another name of a volume; None for all volumes.
        timeout: Seconds.

    Raises:
        ProviderUnavailableError: there is no such volume, or VSS is not here.
        SnapshotPermissionError: the process is not elevated.
    """
    found: list[ShadowCopyRecord] = []

    def ask(system: System) -> None:
        wanted = None if volume is None else names.resolve(system, [volume])[0].volume.casefold()
        copies = existing.all_copies(system)
        chosen = [copy for copy in copies if wanted is None or copy.volume.casefold() == wanted]
        found.extend(_record(system, copy) for copy in sorted(chosen, key=lambda copy: copy.created))

    run(ask, Deadline(timeout), "list shadow copies")
    return found


def delete_shadow_copy(shadow_id: str | UUID, /, *, timeout: float = 300.0) -> None:
    """Delete a shadow copy, also one that another program made.

    Args:
        shadow_id: Its own id.
        timeout: Seconds.

    Raises:
        ProviderUnavailableError: there is none of this id, or VSS is not here.
        SnapshotPermissionError: the process is not elevated.
        SnapshotError: VSS does not delete it.
    """
    _administer(lambda vss, wanted: vss.delete(wanted), shadow_id, timeout, "delete a shadow copy")


def expose_shadow_copy(
    shadow_id: str | UUID,
    /,
    *,
    at: str | os.PathLike[str] | None = None,
    share: str | None = None,
    folder: str = "",
    timeout: float = 60.0,
) -> str:
    r"""Show a persistent shadow copy to other programs, as a drive, a folder or a share.

    It stays so, also after a restart of Windows, until it is deleted or unexposed.

    Args:
        shadow_id: Its own id.
        at: A free drive (``"X:"``) or an empty folder on NTFS.
        share: The name of a share, instead of ``at``.
        folder: What is shared, from the root of the volume (``"\\data"``); "" for all of it.
        timeout: Seconds.

    Returns:
        Where it is now.

    Raises:
        UsageError: neither ``at`` nor ``share`` is given, or both; or a folder without a share.
        ProviderUnavailableError: there is no shadow copy of this id, or VSS is not here.
        SnapshotPermissionError: the process is not elevated.
        SnapshotError: it is not persistent, or the name is taken.
    """
    if (at is None) == (share is None) or (folder and share is None):
        raise UsageError("a shadow copy is exposed at a path or as a share", hint="pass at= or share=")
    instance(folder, str, "folder")
    if share is not None:
        instance(share, str, "share")
    place = share if share is not None else path_text(at).rstrip("\\")
    if not place or "\0" in place + folder:
        raise UsageError(f"{place!r} is no name", hint='pass a drive, "X:", an empty folder, or a share')
    result: list[str] = []

    def expose(vss: ShadowCopies, wanted: UUID) -> None:
        result.append(vss.expose(wanted, place, folder=folder if share is not None else None))

    _administer(expose, shadow_id, timeout, "expose a shadow copy")
    return result[0]


def unexpose_shadow_copy(shadow_id: str | UUID, /, *, timeout: float = 60.0) -> None:
    """Take back what `expose_shadow_copy` did; the shadow copy stays.

    Args:
        shadow_id: Its own id.
        timeout: Seconds.

    Raises:
        ProviderUnavailableError: there is none of this id, or it is not exposed, or VSS is not here.
        SnapshotPermissionError: the process is not elevated.
    """
    _administer(lambda vss, wanted: vss.unexpose(wanted), shadow_id, timeout, "unexpose a shadow copy")


def purge_orphans(*, timeout: float = 600.0) -> list[SnapshotRecord]:
    """Delete the shadow copies that killed programs of this account left, if this library made them.

    Those of snapshots that were closed are no leftovers.  `vsssnap.purge` does this for all providers.

    Args:
        timeout: Seconds for all of them.

    Returns:
        What was deleted.

    Raises:
        ProviderUnavailableError: VSS is not here.
        SnapshotPermissionError: the process is not elevated.
        SnapshotError: a set could not be deleted; the others were.
    """
    deadline = Deadline(timeout)
    removed: list[SnapshotRecord] = []

    def purge(system: System) -> None:
        first: SnapshotError | None = None
        for known in existing.all_sets(system):
            record = known.record
            if record is None or record.alive or record.kept:
                continue
            deadline.check("purge orphaned shadow copies")
            try:
                existing.purge_set(system, known.set_id)
            except SnapshotError as exc:
                if first is not None:
                    first.add_note(str(exc))
                first = first or exc
            else:
                removed.append(existing.listed(system, known))
        if first is not None:
            raise first

    run(purge, deadline, "purge orphaned shadow copies")
    return removed


def as_shadow_id(value: str | UUID) -> UUID:
    """The id of a shadow copy or of a set.

    Raises:
        UsageError: it is none.
    """
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except (ValueError, AttributeError, TypeError):
        raise UsageError(
            f"{value!r} is no id of a shadow copy",
            hint="ids look like 3f2504e0-4f89-11d3-9a0c-0305e82c3301: vssadmin list shadows",
        ) from None


def _administer(
    action: Callable[[ShadowCopies, UUID], None], shadow_id: str | UUID, timeout: float, step: str
) -> None:
    wanted = as_shadow_id(shadow_id)

    def act(system: System) -> None:
        vss = existing.administer(system)
        try:
            action(vss, wanted)
        finally:
            vss.release()

    run(act, Deadline(timeout), step)


def _record(system: System, copy: ShadowCopy) -> ShadowCopyRecord:
    attributes = SnapshotAttributes
    return ShadowCopyRecord(
        id=str(copy.id),
        set_id=str(copy.set_id),
        volume=existing.shown(system, copy.volume),
        created=copy.created,
        provider_id=str(copy.provider_id),
        persistent=bool(copy.attributes & attributes.VSS_VOLSNAP_ATTR_PERSISTENT),
        client_accessible=bool(copy.attributes & attributes.VSS_VOLSNAP_ATTR_CLIENT_ACCESSIBLE),
        device=copy.device,
        exposed=copy.exposed,
    )
