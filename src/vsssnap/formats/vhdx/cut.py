"""Images that were cut short: whether something of the disk lies behind the end of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.errors import CorruptImageError, DeviceReadError
from vsssnap.formats.vhdx import structs
from vsssnap.formats.vhdx.tables import LOST, Tables

if TYPE_CHECKING:
    from vsssnap.formats.vhdx.layout import Layout


def is_cut(layout: Layout) -> bool:
    """Whether something of the disk lies behind the end of the file.

    A pass over the BAT; a block that ends behind the file's end is no loss where it is the part
    behind the disk's end, or of sectors that are the parent's, so only then all is looked up.
    """
    # Of its own: the pages that a reader has use for stay.
    tables = Tables(layout, recover=True)
    try:
        chunks = range(0, layout.geometry.blocks, layout.geometry.ratio)
        if not any(_behind(layout, tables, block) for block in chunks):
            return False
        return any(piece.where == LOST for piece in tables.pieces(0, layout.geometry.size))
    except (CorruptImageError, DeviceReadError):
        return True  # a sector bitmap is not there


def _behind(layout: Layout, tables: Tables, block: int) -> bool:
    """Whether a block of the chunk that begins with ``block``, or its bitmap, ends behind the file's end."""
    geometry, size = layout.geometry, layout.storage.size
    entries = tables.entries(geometry.entry_of(block), min(geometry.ratio, geometry.blocks - block))
    last = max(entries) & structs.OFFSET_MASK
    if last and last + geometry.block_size > size:
        return True
    if not geometry.has_parent:
        return False
    (bitmap,) = tables.entries(geometry.bitmap_entry_of(block), 1)
    return (bitmap & structs.OFFSET_MASK) + structs.BITMAP_BLOCK > size
