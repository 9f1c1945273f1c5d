"""How large a VHD is, and the disk geometry that goes with a size.

A footer tells its size twice: in bytes, and as cylinders, heads and sectors.  They differ
where a size is no product of three small numbers.  Virtual PC, and QEMU after its example,
present the geometry's product to the machine; Hyper-V and all later programs the bytes.  The
creator field says by whom an image was made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vsssnap.formats.vhd.structs import SECTOR

if TYPE_CHECKING:
    from vsssnap.formats.vhd.structs import Footer

BY_GEOMETRY: Final = frozenset({b"vpc ", b"qemu"})
"""Creators whose images have the size of their geometry; QEMU writes ``qem2`` where it means bytes."""

LARGEST: Final = (65535, 16, 255)
"""The geometry of all that no geometry fits: it says nothing of the size."""


def volume_size(footer: Footer) -> int:
    """Bytes of the volume.

    A geometry above the size in bytes would speak of sectors that are not there, so the bytes
    count then.
    """
    shape = (footer.cylinders, footer.heads, footer.sectors)
    if footer.creator in BY_GEOMETRY and shape != LARGEST:
        product = footer.cylinders * footer.heads * footer.sectors * SECTOR
        if 0 < product <= footer.current_size:
            return product
    return footer.current_size


def geometry_of(size: int) -> tuple[int, int, int]:
    """Cylinders, heads and sectors a track; their product is at most ``size``, below 136 GB nearly so.

    Source: appendix "CHS Calculation" of the specification.
    """
    total = min(size // SECTOR, 65535 * 16 * 255)
    if total >= 65535 * 16 * 63:
        sectors, heads = 255, 16
        return total // sectors // heads, heads, sectors
    sectors = 17
    rest = total // sectors
    heads = max(4, (rest + 1023) // 1024)
    if rest >= heads * 1024 or heads > 16:
        sectors, heads = 31, 16
        rest = total // sectors
    if rest >= heads * 1024:
        sectors, heads = 63, 16
        rest = total // sectors
    return rest // heads, heads, sectors
