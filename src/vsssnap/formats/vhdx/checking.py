"""Verifying a VHDX: all that its own structures can be held against.

Source: [MS-VHDX] 2.2 to 2.6.  Both copies of what is there twice are looked at, every entry of
the BAT, and every place in the file that is given out; payload has no checksum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from vsssnap._units import MIB
from vsssnap.blocks.extent import Extent
from vsssnap.errors import ImageError, VssSnapError
from vsssnap.formats._findings import joined
from vsssnap.formats.base import Finding
from vsssnap.formats.vhdx import structs
from vsssnap.formats.vhdx.layout import (
    Layout,
    Region,
    overlaps,
    read_headers,
    read_regions,
    read_table,
)
from vsssnap.formats.vhdx.structs import MetadataHeader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vsssnap.formats.vhdx.tables import Tables

_STEP: Final = 4096  # entries of the BAT that are looked at together
_BITMAP_STATES: Final = (structs.NOT_PRESENT, structs.FULLY_PRESENT)


def check(layout: Layout, tables: Tables, progress: Callable[[int], None]) -> Iterator[Finding]:
    """Yield what is wrong; see `ImageReader.verify`."""
    for part in (_heads, _regions, _metadata):
        try:
            yield from part(layout)
        except ImageError as exc:
            yield _finding(exc)
        progress(structs.REGION_TABLE_SIZE)
    try:
        yield from joined(_Bat(layout, tables).check(progress))
    except VssSnapError as exc:
        yield _finding(exc)


def _finding(exc: VssSnapError) -> Finding:
    return Finding(getattr(exc, "structure", "file"), getattr(exc, "offset", None), exc.message)


def _heads(layout: Layout) -> Iterator[Finding]:
    headers = read_headers(layout.storage)
    for offset, header in zip(structs.HEADERS, headers, strict=True):
        if header is None:
            yield Finding("header", offset, "its signature or checksum is wrong")
    both = [header for header in headers if header is not None]
    if len(both) == 2 and both[0].sequence == both[1].sequence and both[0] != both[1]:
        yield Finding("header", structs.HEADERS[1], "both have the same sequence number and differ")
    if layout.header.log_length % MIB or layout.header.log_offset % MIB:
        yield Finding("log", layout.header.log_offset, "it does not lie on whole MiB")
    if layout.log == "ignored":
        yield Finding("log", layout.header.log_offset, "it holds no valid sequence of entries")


def _regions(layout: Layout) -> Iterator[Finding]:
    copies = [read_regions(layout.storage, offset) for offset in structs.REGION_TABLES]
    for offset, entries in zip(structs.REGION_TABLES, copies, strict=True):
        if entries is None:
            yield Finding("region table", offset, "its signature, count or checksum is wrong")
    if None not in copies and copies[0] != copies[1]:
        yield Finding("region table", structs.REGION_TABLES[1], "the two copies differ")
    for one, other in overlaps(layout.regions):
        yield Finding(one.name, one.offset, f"it overlaps the {other.name}")


def _metadata(layout: Layout) -> Iterator[Finding]:
    region = next(region for region in layout.regions if region.name == "metadata region")
    data = layout.storage.pread(MetadataHeader.SIZE, region.offset)
    header = MetadataHeader.unpack(data)
    if header.reserved or any(header.reserved2):
        yield Finding("metadata table", region.offset, "reserved bytes of its header are not zero")
    entries = read_table(layout.storage, region)
    places = []
    for number, entry in enumerate(entries):
        at = region.offset + (number + 1) * 32
        known = structs.IS_USER | structs.IS_VIRTUAL_DISK | structs.IS_REQUIRED
        guid = UUID(bytes_le=entry.item)
        if entry.flags & ~known or entry.reserved:
            yield Finding("metadata entry", at, f"reserved bits of item {guid} are not zero")
        wanted = _FLAGS.get(guid)
        if wanted is not None and not entry.flags & structs.IS_USER and entry.flags & known != wanted:
            yield Finding("metadata entry", at, f"item {guid} has the flags {entry.flags}, not {wanted}")
        if entry.length:
            places.append(Region(f"item {guid}", entry.offset, entry.length))
        elif entry.offset:
            yield Finding("metadata entry", at, f"item {guid} is empty and has a place")
    if sum(entry.flags & structs.IS_USER for entry in entries) > structs.MAX_USER_ITEMS:
        yield Finding("metadata table", region.offset, f"more than {structs.MAX_USER_ITEMS} user items")
    for one, other in overlaps(places):
        yield Finding("metadata item", region.offset + one.offset, f"{one.name} overlaps {other.name}")


_DISK = structs.IS_VIRTUAL_DISK | structs.IS_REQUIRED
_FLAGS: Final = {
    structs.FILE_PARAMETERS: structs.IS_REQUIRED,
    structs.DISK_SIZE: _DISK,
    structs.DISK_ID: _DISK,
    structs.LOGICAL_SECTOR: _DISK,
    structs.PHYSICAL_SECTOR: _DISK,
    structs.PARENT_LOCATOR: structs.IS_REQUIRED,
}


class _Bat:
    """The BAT, entry by entry, and a map of the file that says which MiB are given out."""

    def __init__(self, layout: Layout, tables: Tables) -> None:
        self._layout = layout
        self._geometry = layout.geometry
        self._tables = tables
        # One byte for each MiB; memory is touched only where a block lies.
        self._taken = bytearray(min(layout.storage.size, structs.MAX_FILE) // MIB + 1)

    def check(self, progress: Callable[[int], None]) -> Iterator[Finding]:
        """Look at all entries in order: a chunk's payload blocks, then its sector bitmap."""
        ratio = self._geometry.ratio
        partial = -1  # the last chunk with a partially present block
        for first in range(0, self._geometry.entries, _STEP):
            last = min(first + _STEP, self._geometry.entries)
            entries = self._tables.entries(first, last - first)
            if max(entries) <= structs.UNMAPPED:  # no payload block has a place: the common case
                numbers = range(first + (ratio - first) % (ratio + 1), last, ratio + 1)
            else:
                numbers = range(first, last)
            for number in numbers:
                entry = entries[number - first]
                chunk, place = divmod(number, ratio + 1)
                if place == ratio:
                    yield from self._bitmap(number, entry, needed=partial == chunk)
                    continue
                if entry & structs.STATE_MASK == structs.PARTIALLY_PRESENT:
                    partial = chunk
                block = chunk * ratio + place
                if entry > structs.UNMAPPED and block < self._geometry.blocks:
                    yield from self._payload(number, block, entry)
            progress((last - first) * 8)

    def _at(self, number: int) -> int:
        return self._layout.bat.offset + number * 8

    def _payload(self, number: int, block: int, entry: int) -> Iterator[Finding]:
        state = entry & structs.STATE_MASK
        size = self._geometry.block_size
        start = block * size
        lost = Extent(start, min(size, self._geometry.size - start))
        if entry & structs.RESERVED_MASK:
            yield Finding("BAT entry", self._at(number), f"reserved bits of {entry:#x} are not zero", lost)
        allowed = state == structs.FULLY_PRESENT or (
            state == structs.PARTIALLY_PRESENT and self._geometry.has_parent
        )
        if allowed:
            yield from self._place(number, entry & structs.OFFSET_MASK, size, lost)
        elif state > structs.UNMAPPED:
            yield Finding("BAT entry", self._at(number), f"payload block {block} has the state {state}", lost)

    def _bitmap(self, number: int, entry: int, *, needed: bool) -> Iterator[Finding]:
        state = entry & structs.STATE_MASK
        if entry & structs.RESERVED_MASK:
            yield Finding("BAT entry", self._at(number), f"reserved bits of {entry:#x} are not zero")
        if state not in _BITMAP_STATES or (state and not self._geometry.has_parent):
            yield Finding("BAT entry", self._at(number), f"a sector bitmap has the state {state}")
        elif state:
            yield from self._place(number, entry & structs.OFFSET_MASK, structs.BITMAP_BLOCK, None)
        elif needed:
            yield Finding("BAT entry", self._at(number), "partially present blocks have no sector bitmap")

    def _place(self, number: int, where: int, length: int, lost: Extent | None) -> Iterator[Finding]:
        problem = self._tables.misplaced(where, length)
        if not problem and where + length > structs.MAX_FILE:
            problem = f"lies at byte {where}, where no disk needs one"
        if not problem and where + length > self._layout.storage.size:
            problem = f"at byte {where} reaches behind the end of the file at {self._layout.storage.size}"
        if problem:
            yield Finding("BAT entry", self._at(number), f"its block {problem}", lost)
            return
        first, last = where // MIB, (where + length) // MIB
        taken = self._taken.find(1, first, last)
        if taken >= 0:
            yield Finding("BAT entry", self._at(number), f"byte {taken * MIB} is another block's too", lost)
        self._taken[first:last] = b"\1" * (last - first)
