"""Persistent dirty bitmaps.

Source: QEMU, docs/interop/qcow2.txt, sections "Bitmaps extension" and "Bitmaps".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vsssnap._units import round_up
from vsssnap.blocks.extent import Extent
from vsssnap.formats.qcow2 import structs
from vsssnap.formats.qcow2.header import corrupt
from vsssnap.formats.qcow2.structs import BITMAP_RESERVED, HOST_MASK, BitmapHead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.formats.qcow2.header import Layout
    from vsssnap.formats.qcow2.tables import Tables
    from vsssnap.formats.storage import Storage

_NOT_CLEAN: Final = re.compile(rb"[^\x00]")
_NOT_DIRTY: Final = re.compile(rb"[^\xff]")


@dataclass(frozen=True, slots=True)
class Qcow2Bitmap:
    """A persistent dirty bitmap.

    Attributes:
        name: Its name, unique in the image.
        granularity: Bytes of the disk that one bit stands for.
        enabled: Whether writers go on recording into it.
        problem: Why it must not be trusted; "" if it may be.
        table_offset: Where its table is in the file.
        table_entries: Entries of that table.
    """

    name: str
    granularity: int
    enabled: bool
    problem: str
    table_offset: int
    table_entries: int

    @property
    def consistent(self) -> bool:
        """Whether it was saved whole and tells all that was written."""
        return not self.problem


def bitmaps(storage: Storage, layout: Layout) -> Iterator[Qcow2Bitmap]:
    """The bitmaps of an image.

    Raises:
        CorruptImageError: the directory breaks a rule.
    """
    head = layout.bitmaps
    marked = bool(layout.features.autoclear_features & structs.BITMAPS)
    if head is None:
        if marked:
            raise corrupt(storage, "its feature bit speaks of bitmaps, there is no bitmaps extension")
        return
    at, end = head.directory_offset, head.directory_offset + head.directory_size
    if (
        not 1 <= head.nb_bitmaps <= structs.MAX_BITMAPS
        or head.directory_size > structs.MAX_BITMAP_DIRECTORY
        or at % layout.cluster_size
        or end > storage.size
    ):
        raise corrupt(
            storage,
            f"{head.nb_bitmaps} bitmaps in a directory of {head.directory_size} bytes at {at}",
            "bitmap directory",
            at,
        )
    for number in range(head.nb_bitmaps):
        if at + BitmapHead.SIZE > end:
            raise corrupt(storage, f"bitmap {number} lies behind its end", "bitmap directory", at)
        entry = BitmapHead.unpack(storage.pread(BitmapHead.SIZE, at))
        name_at = at + BitmapHead.SIZE + entry.extra_size
        behind = round_up(name_at + entry.name_size, 8)
        if behind > end or not entry.name_size or entry.granularity_bits > 63:
            raise corrupt(
                storage,
                f"bitmap {number} has a name of {entry.name_size} bytes, {entry.extra_size} bytes of extra"
                f" data and granularity bits {entry.granularity_bits}",
                "bitmap directory",
                at,
            )
        name = storage.pread(entry.name_size, name_at).decode("utf-8", "surrogateescape")
        yield Qcow2Bitmap(
            name,
            1 << entry.granularity_bits,
            bool(entry.flags & structs.AUTO),
            _problem(entry, layout, marked=marked),
            entry.table_offset,
            entry.table_size,
        )
        at = behind


def _problem(entry: BitmapHead, layout: Layout, *, marked: bool) -> str:
    if not marked:
        return "a program that knows no bitmaps has written to the image"
    if entry.flags & structs.IN_USE:
        return "it was in use when the image was closed last"
    if entry.extra_size and not entry.flags & structs.EXTRA_COMPATIBLE:
        return "it has extra data that is unknown"
    if entry.type != structs.DIRTY_TRACKING:
        return f"its type {entry.type} is unknown"
    if entry.table_size != table_entries(layout, 1 << entry.granularity_bits):
        return f"its table has {entry.table_size} entries, not what the disk's size takes"
    return ""


def table_entries(layout: Layout, granularity: int) -> int:
    """Clusters of bits that cover the virtual disk."""
    length = round_up(-(-layout.fields.size // granularity), 8) // 8
    return round_up(length, layout.cluster_size) // layout.cluster_size


def dirty_extents(storage: Storage, layout: Layout, tables: Tables, bitmap: Qcow2Bitmap) -> Iterator[Extent]:
    """The dirty ranges of a consistent bitmap, ascending and never touching.

    Raises:
        CorruptImageError: its table or bits are not all in the file.
    """
    size = layout.fields.size
    start = -1  # of the dirty run that is open
    for bit, dirty in _turns(storage, layout, tables, bitmap):
        at = min(bit * bitmap.granularity, size)
        if dirty and start < 0:
            start = at
        elif not dirty and start >= 0:
            if at > start:
                yield Extent(start, at - start)
            start = -1
    if 0 <= start < size:
        yield Extent(start, size - start)


def _turns(
    storage: Storage, layout: Layout, tables: Tables, bitmap: Qcow2Bitmap
) -> Iterator[tuple[int, bool]]:
    """The bits at which runs begin: ``(number, whether it is set)``; some repeat the run before."""
    cluster = layout.cluster_size
    table = bitmap.table_offset
    if table % cluster:
        raise corrupt(storage, f"the table of bitmap {bitmap.name!r} is not aligned", "bitmap table", table)
    for base, page, low, high in tables.pages(table, 0, bitmap.table_entries):
        for index in range(low, high):
            entry = page[index]
            first = (base + index) * cluster * 8
            host = entry & HOST_MASK
            if entry & BITMAP_RESERVED or host % cluster or (host and entry & 1):
                raise corrupt(
                    storage,
                    f"entry {base + index} of bitmap {bitmap.name!r} is {entry:#x}",
                    "bitmap table",
                    table + (base + index) * 8,
                )
            if not host:
                yield first, bool(entry & 1)
                continue
            data = storage.pread(cluster, host)
            yield from _runs(data, first)


def _runs(data: bytes, first: int) -> Iterator[tuple[int, bool]]:
    at = 0
    while at < len(data):
        value = data[at]
        if value in (0, 0xFF):
            yield first + at * 8, value != 0
            found = (_NOT_DIRTY if value else _NOT_CLEAN).search(data, at)
            at = found.start() if found else len(data)
        else:
            for bit in range(8):
                yield first + at * 8 + bit, bool(value >> bit & 1)
            at += 1
