"""How callers name the volumes of a snapshot."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vsssnap._arguments import path_text
from vsssnap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vsssnap.providers.base import SnapshotVolume


def name_of(volume: object) -> str:
    """The key of a volume: its path as text, or the ``name`` of an object.

    Raises:
        UsageError: it has neither.
    """
    if isinstance(volume, str | bytes | os.PathLike):
        try:
            return path_text(volume)
        except UsageError as exc:
            raise UsageError(
                f"{volume!r} is no volume", hint="name a device, a mount point or a file"
            ) from exc
    name = getattr(volume, "name", None)
    if not isinstance(name, str):
        raise UsageError(
            f"{type(volume).__name__} is no volume", hint="pass a path, or an object such as a CowVolume"
        )
    return name


def find(volumes: Mapping[str, SnapshotVolume], volume: object) -> SnapshotVolume:
    """The volume of a name; for None the only one.

    Raises:
        UsageError: there is none of this name, or several and none was named.
    """
    if volume is None:
        if len({found.device for found in volumes.values()}) > 1:
            raise UsageError(
                f"the snapshot has several volumes: {', '.join(volumes)}", hint="name one to open"
            )
        return next(iter(volumes.values()))
    name = name_of(volume)
    if name not in volumes:
        raise UsageError(f"the snapshot has no volume {name!r}", hint=f"it has {', '.join(volumes)}")
    return volumes[name]
