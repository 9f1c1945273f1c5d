"""What the structures of a VHD say, held against each other and against the file.

An image is opened by its trailing footer.  Where that one is damaged, dynamic and differencing
images have a copy of it in their first sector; it is used, and the damage is reported.  The block
allocation table has no checksum, so all of it is looked at before the first block is read: blocks
that lie outside the file or over one another are the only sign that it is damaged.  It is not kept.
"""

from __future__ import annotations

import dataclasses
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Final

from vsssnap._units import is_power_of_two, round_up
from vsssnap.blocks.extent import Extent
from vsssnap.errors import CorruptImageError, UnsupportedFeatureError
from vsssnap.formats._findings import joined
from vsssnap.formats.base import Finding
from vsssnap.formats.vhd import structs
from vsssnap.formats.vhd.geometry import volume_size
from vsssnap.formats.vhd.structs import FOOTER_SIZE, HEADER_SIZE, SECTOR, Footer, Header
from vsssnap.formats.vhd.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.formats.storage import Storage

_MOST: Final = 1000  # findings about the table that are kept
_RECOVER: Final = "open it with recover=True to read what is left"
_COPY_USED: Final = "its copy at 0 is used"


@dataclass(frozen=True)
class Layout:
    """Where everything in an image lies.

    Attributes:
        footer: The footer it is opened by.
        size: Bytes of the volume.
        end: Offset of the trailing footer, or the file's end if that one is not there.
        header: The dynamic disk header; None in a fixed image.
        table: Where each block lies; None in a fixed image.
        damage: What is wrong and was passed over; where it is much, the beginning of it.
        complete: Whether all of that could be made up for from the image itself.
    """

    footer: Footer
    size: int
    end: int
    header: Header | None = None
    table: Table | None = None
    damage: tuple[Finding, ...] = ()
    complete: bool = True

    @property
    def block_size(self) -> int:
        """Bytes of a block; 0 in a fixed image."""
        return self.header.block_size if self.header else 0

    @property
    def bitmap_size(self) -> int:
        """Bytes of the bitmap in front of each block: whole sectors."""
        return bitmap_size(self.header.block_size) if self.header else 0


def bitmap_size(block_size: int) -> int:
    """Bytes of a block's bitmap: a bit a sector, whole sectors."""
    return round_up(-(-block_size // SECTOR // 8), SECTOR)


def read_layout(storage: Storage, *, recover: bool) -> Layout:
    """Read and check footers, header and table.

    Raises:
        CorruptImageError: they are damaged; with ``recover`` only if nothing can be read for it.
        UnsupportedFeatureError: it is a kind of VHD that is not known.
    """
    damage: list[Finding] = []
    footer, end = _footer(storage, damage, recover=recover)
    # The footer's copy makes up for the footer; for the rest there is nothing.
    known = len(damage) if damage and damage[0].message.endswith(_COPY_USED) else 0
    size = volume_size(footer)
    if not size or size % SECTOR:
        raise _broken(storage, "footer", end, f"the volume has {size} bytes, no whole sectors")
    if footer.disk_type == structs.FIXED:
        if footer.current_size != end:
            message = f"a fixed disk of {footer.current_size} bytes has {end} bytes before its footer"
            if not recover:
                raise _broken(storage, "footer", end, message)
            damage.append(Finding("footer", end, message))
        return Layout(footer, size, end, damage=tuple(damage), complete=len(damage) == known)
    header = _header(storage, footer, damage, recover=recover)
    table = _table(storage, header, size)
    layout = Layout(footer, size, end, header, table)
    found = list(islice(joined(table_damage(layout)), _MOST))
    if found and not recover:
        raise _broken(storage, found[0].structure, found[0].offset, found[0].message)
    damage += found
    return dataclasses.replace(layout, damage=tuple(damage), complete=len(damage) == known)


def _footer(storage: Storage, damage: list[Finding], *, recover: bool) -> tuple[Footer, int]:
    """The footer that counts, and where the trailing one lies."""
    places = [storage.size - FOOTER_SIZE, storage.size - structs.OLD_FOOTER_SIZE]
    doubtful: list[tuple[Footer, int]] = []
    for offset in places:
        footer, sound = footer_at(storage, offset)
        if footer is not None and sound:
            return _known(storage, footer, offset), offset
        if footer is not None:
            doubtful.append((footer, offset))
    offset = doubtful[0][1] if doubtful else max(0, places[0])
    message = "the checksum is wrong" if doubtful else "there is no footer"
    copy, sound = footer_at(storage, 0)
    # The first sector of a fixed image is the volume's: what looks like a footer there is its content.
    if copy is not None and copy.disk_type in (structs.DYNAMIC, structs.DIFFERENCING):
        if sound:
            damage.append(Finding("footer", offset, f"{message}; {_COPY_USED}"))
            return _known(storage, copy, 0), offset if doubtful else storage.size
        doubtful.append((copy, storage.size))
    if not (recover and doubtful):
        if not recover:
            raise _broken(storage, "footer", offset, message)
        raise _broken(
            *(storage, "footer", offset, message),
            hint='what is left of a fixed image is the beginning of the volume: open it with format="raw"',
        )
    footer, end = doubtful[0]
    damage.append(Finding("footer", offset, message))
    return _known(storage, footer, offset), end


def footer_at(storage: Storage, offset: int) -> tuple[Footer | None, bool]:
    """A footer, or None where there is none, and whether its checksum is right."""
    if offset < 0 or offset + structs.OLD_FOOTER_SIZE > storage.size:
        return None, False
    data = storage.pread(min(FOOTER_SIZE, storage.size - offset), offset)
    footer = Footer.unpack(data)
    if footer.cookie != structs.FOOTER_COOKIE:
        return None, False
    return footer, footer.checksum == structs.checksum(data, Footer.OFFSETS["checksum"])


def is_fixed(data: bytes, size: int | None) -> bool:
    """Whether the last sector of a file of ``size`` bytes is the sound footer of a fixed image."""
    if size is None or len(data) != FOOTER_SIZE:
        return False
    footer = Footer.unpack(data)
    return (
        footer.cookie == structs.FOOTER_COOKIE
        and footer.disk_type == structs.FIXED
        and footer.current_size == size - FOOTER_SIZE
        and footer.checksum == structs.checksum(data, Footer.OFFSETS["checksum"])
    )


def _known(storage: Storage, footer: Footer, offset: int) -> Footer:
    if footer.version >> 16 != structs.VERSION >> 16:
        raise UnsupportedFeatureError(
            f"{storage.name}: footer version {footer.version:#010x}, known is {structs.VERSION:#010x}",
            path=storage.name,
            feature=f"version {footer.version:#x}",
        )
    if footer.disk_type not in structs.KINDS:
        raise UnsupportedFeatureError(
            f"{storage.name}: disk type {footer.disk_type} in the footer at {offset}",
            path=storage.name,
            feature=f"disk type {footer.disk_type}",
            hint="fixed (2), dynamic (3) and differencing (4) disks are known",
        )
    return footer


def _header(storage: Storage, footer: Footer, damage: list[Finding], *, recover: bool) -> Header:
    offset = footer.data_offset
    if offset + HEADER_SIZE > storage.size:
        raise _broken(storage, "dynamic disk header", offset, f"it lies behind the end, {storage.size} bytes")
    data = storage.pread(HEADER_SIZE, offset)
    header = Header.unpack(data)
    if header.cookie != structs.HEADER_COOKIE:
        raise _broken(storage, "dynamic disk header", offset, f"it begins with {header.cookie!r}")
    if header.checksum != structs.checksum(data, Header.OFFSETS["checksum"]):
        if not recover:
            raise _broken(storage, "dynamic disk header", offset, "the checksum is wrong")
        damage.append(Finding("dynamic disk header", offset, "the checksum is wrong"))
    if header.version >> 16 != structs.VERSION >> 16:
        raise UnsupportedFeatureError(
            f"{storage.name}: header version {header.version:#010x}, known is {structs.VERSION:#010x}",
            path=storage.name,
            feature=f"version {header.version:#x}",
        )
    if header.block_size < SECTOR or not is_power_of_two(header.block_size):
        raise _broken(storage, "dynamic disk header", offset, f"a block has {header.block_size} bytes")
    return header


def _table(storage: Storage, header: Header, size: int) -> Table:
    """The entries of all blocks of the volume; those behind its end are never used."""
    offset = header.table_offset
    count = -(-size // header.block_size)
    if count > header.max_entries:
        message = f"it has {header.max_entries} entries for {count} blocks"
        raise _broken(storage, "block allocation table", offset, message)
    if offset + 4 * count > storage.size:
        message = f"its {count} entries end behind the file's end, {storage.size} bytes"
        raise _broken(storage, "block allocation table", offset, message)
    if count > structs.MAX_ENTRIES:
        raise UnsupportedFeatureError(
            f"{storage.name}: {count} blocks of {header.block_size} bytes, above {structs.MAX_ENTRIES}",
            path=storage.name,
            feature=f"{count} blocks",
        )
    return Table(storage, offset, count)


def table_damage(layout: Layout) -> Iterator[Finding]:
    """Blocks that lie outside the file, over structures or over one another."""
    header, table = layout.header, layout.table
    if header is None or table is None:
        return
    stride = layout.bitmap_size + header.block_size
    starts = array("Q", sorted(array("Q", (entry for _, entry in table.used()))))
    rest = layout.size % header.block_size or header.block_size
    if starts and starts[-1] * SECTOR + stride > layout.end:
        for block, entry in table.used():
            # Of the last block only what the volume needs has to be there.
            last = block == len(table) - 1
            need = layout.bitmap_size + rest if last else stride
            if entry * SECTOR + need > layout.end:
                message = f"block {block} at byte {entry * SECTOR} ends behind byte {layout.end}"
                yield Finding(*_entry(header, block), message, _lost(layout, block))
    if starts and starts[0] * SECTOR < structs.FOOTER_SIZE:
        message = f"a block lies at byte {starts[0] * SECTOR}, over the footer's copy"
        yield Finding("block allocation table", header.table_offset, message)
    for name, low, length in (
        ("dynamic disk header", layout.footer.data_offset, HEADER_SIZE),
        ("block allocation table", header.table_offset, 4 * len(table)),
    ):
        for start in _over(starts, low, low + length, stride):
            message = f"the block at byte {start} lies over it"
            yield Finding(name, low, message)
    for one, other in pairwise(starts):
        if (other - one) * SECTOR < stride:
            message = f"the blocks at bytes {one * SECTOR} and {other * SECTOR} lie over one another"
            yield Finding("block allocation table", header.table_offset, message)


def _over(starts: array[int], low: int, end: int, stride: int) -> Iterator[int]:
    first = bisect_right(starts, (low - stride) // SECTOR) if low >= stride else 0
    for start in starts[first:]:
        if start * SECTOR >= end:
            return
        if start * SECTOR + stride > low:
            yield start * SECTOR


def _entry(header: Header, block: int) -> tuple[str, int]:
    return "block allocation table", header.table_offset + 4 * block


def _lost(layout: Layout, block: int) -> Extent | None:
    if layout.header is None:
        return None
    at = block * layout.header.block_size
    return Extent(at, min(layout.header.block_size, layout.size - at))


def _broken(
    storage: Storage, structure: str, offset: int | None, message: str, hint: str = _RECOVER
) -> CorruptImageError:
    return CorruptImageError(
        f"{storage.name}: {structure}: {message}",
        path=storage.name,
        structure=structure,
        offset=offset,
        hint=hint,
    )
