"""Images that were cut short: what of the disk lies behind the end of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.blocks.extent import ExtentKind
from vsssnap.errors import CorruptImageError, DeviceReadError
from vsssnap.formats.qcow2 import structs
from vsssnap.formats.qcow2.mapping import Kind, packed_range
from vsssnap.formats.qcow2.refcounts import Refcounts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vsssnap.blocks.extent import Extent
    from vsssnap.formats.qcow2.header import Layout
    from vsssnap.formats.qcow2.mapping import ClusterMap
    from vsssnap.formats.qcow2.reader import Files


def is_cut(files: Files, clusters: ClusterMap) -> bool:
    """Whether something of the disk lies behind the end of the file.

    The last cluster that is counted tells where the file should end, so a whole image costs a
    refcount block; only where that lies behind the end is the map walked, for a cluster that is
    counted and not used is no loss.
    """
    layout, size = files.layout, files.storage.size
    try:
        last = Refcounts(files.storage, layout, files.tables).last()
        if last is not None and last * layout.cluster_size < size:
            return False
        return any(
            behind(kind, length, host, layout, size)
            for kind, _, length, host in clusters.walk(0, layout.fields.size)
        )
    except (CorruptImageError, DeviceReadError):
        return True  # a table is not there


def behind(kind: Kind, length: int, host: int, layout: Layout, size: int) -> int:
    """Bytes of a run that lie behind the end of a file of ``size``; a compressed cluster goes as a whole."""
    if kind is Kind.STORED and not layout.external:
        return min(length, max(0, host + length - size))
    if kind is Kind.PACKED:
        place, most = packed_range(host, layout.fields.cluster_bits)
        # The last sector of a file may be short.
        return length if place >= size or place + most - structs.SECTOR >= size else 0
    return 0


def require_whole(extents: Iterable[Extent], files: Files) -> None:
    """Refuse a range of which a part is lost.

    Raises:
        DeviceReadError: it is.
    """
    for extent in extents:
        if extent.kind is ExtentKind.UNREADABLE:
            raise DeviceReadError(
                f"{files.storage.name}: bytes {extent.offset} to {extent.end} of the disk are lost: they lie"
                f" behind the file's end, {files.storage.size} bytes, or what maps them is damaged",
                offset=extent.offset,
                length=extent.length,
                hint="what is left can be saved with on_read_error=OnReadError.MARK",
            )
