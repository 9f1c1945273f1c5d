"""Volumes that are mounted in folders of others: what lies there is not in the other's shadow copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap._win32 import targets, volumes
from vsssnap._win32.handles import WindowsCallError
from vsssnap.errors import SnapshotError
from vsssnap.providers.vss import names
from vsssnap.providers.vss.management import current_system

if TYPE_CHECKING:
    import os


def volumes_below(volume: str | os.PathLike[str], /) -> list[str]:
    r"""The folders of a volume in which other volumes are mounted, at any depth.

    What lies in them is not in the volume's own shadow copy.  To have them of the same instant::

        with Snapshot("C:", *volumes_below("C:")) as s:
            ...

    A volume that VSS cannot copy (a FAT stick, say) fails such a snapshot by name; leave it out.

    Args:
        volume: A drive or another name of a volume.

    Returns:
        Their paths, each with a backslash at its end, ascending; of a volume that is mounted in several
        folders below, the first.

    Raises:
        ProviderUnavailableError: there is no such volume, or this is no Windows.
        SnapshotError: Windows does not list its volumes.
    """
    system = current_system("list mounted volumes")
    own = names.resolve(system, [volume])[0].volume
    found: list[str] = []
    try:
        roots = tuple(root.casefold() for root in volumes.mount_points(system, own))
        for other in targets.volumes(system):
            if other == own:
                continue
            places = (
                place for place in volumes.mount_points(system, other) if place.casefold().startswith(roots)
            )
            found += sorted(places, key=str.casefold)[:1]
    except WindowsCallError as exc:
        raise SnapshotError(
            f"the volumes below {volume} cannot be listed: {exc}",
            call=exc.call,
            code=exc.code,
            hint="try again",
        ) from exc
    return sorted(found, key=str.casefold)
