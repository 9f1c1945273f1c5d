"""Find out which file system is on a volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.blocks.reader import as_reader
from vsssnap.volumes.ext import filesystem as ext
from vsssnap.volumes.fat import exfat
from vsssnap.volumes.fat import filesystem as fat
from vsssnap.volumes.ntfs import filesystem as ntfs

if TYPE_CHECKING:
    from vsssnap.blocks.reader import SupportsPread
    from vsssnap.volumes.base import FileSystem

_PROBES = (ntfs.probe, exfat.probe, fat.probe, ext.probe)


def filesystem(volume: SupportsPread, /) -> FileSystem | None:
    """The file system on a volume, or None if there is none that is known.

    One that is damaged or was not closed is found too; its ``doubt`` says why its map is not used.

    Args:
        volume: The volume (a partition, not a whole disk); it stays the caller's.

    Raises:
        DeviceReadError: it cannot be read.
    """
    reader = as_reader(volume)
    for probe in _PROBES:
        found = probe(reader)
        if found is not None:
            return found
    return None
