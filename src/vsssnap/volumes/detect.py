"""Find out which file system is on a volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.blocks.reader import as_reader

if TYPE_CHECKING:
    from vsssnap.blocks.reader import SupportsPread
    from vsssnap.volumes.base import FileSystem


def filesystem(volume: SupportsPread, /) -> FileSystem | None:
    """The file system on a volume, or None if there is none that is known.

    One that is damaged, was not closed or has company is found too; its ``doubt`` says why its map is
    not used.

    Args:
        volume: The volume (a partition, not a whole disk); it stays the caller's.

    Raises:
        DeviceReadError: it cannot be read.
    """
    # Parsers are loaded when a volume is looked at, not with the library.
    from vsssnap.volumes.ext import filesystem as ext
    from vsssnap.volumes.fat import exfat
    from vsssnap.volumes.fat import filesystem as fat
    from vsssnap.volumes.ntfs import filesystem as ntfs
    from vsssnap.volumes.signatures import others

    reader = as_reader(volume)
    probes = (ntfs.probe, exfat.probe, fat.probe, ext.probe)
    found = [fs for probe in probes if (fs := probe(reader)) is not None]
    if not found:
        return None
    company = [*(fs.name for fs in found[1:]), *others(reader)]
    if company:
        found[0].doubt = found[0].doubt or f"the volume seems to hold {' and '.join(company)} too"
    return found[0]
