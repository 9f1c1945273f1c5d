"""Checking an image against itself, as ``qemu-img check`` does, in bounded memory.

Source: QEMU, docs/interop/qcow2.txt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.blocks.extent import Extent
from vsssnap.errors import CorruptImageError, DeviceReadError
from vsssnap.formats.base import Finding
from vsssnap.formats.qcow2 import structs
from vsssnap.formats.qcow2.bitmaps import bitmaps
from vsssnap.formats.qcow2.header import check_l1
from vsssnap.formats.qcow2.mapping import ClusterMap, Kind, packed_range
from vsssnap.formats.qcow2.refcounts import COUNT, GUEST, META, TABLE, WINDOW, Refcounts, References
from vsssnap.formats.qcow2.snapshots import snapshots
from vsssnap.formats.qcow2.structs import HOST_MASK

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterator

    from vsssnap.formats.qcow2.header import Layout
    from vsssnap.formats.qcow2.tables import Tables
    from vsssnap.formats.storage import Storage

_KINDS = {META: "metadata", TABLE: "an L2 table", GUEST: "guest data"}


def verify(
    storage: Storage, layout: Layout, tables: Tables, progress: Callable[[int], None]
) -> Iterator[Finding]:
    """Everything that the structures of an image allow to check; damage is yielded.

    Args:
        storage: The image's file.
        layout: Its header.
        tables: Its tables.
        progress: Gets the number of bytes checked since the last call.
    """
    yield from _Check(storage, layout, tables, progress).run()


class _Check:
    def __init__(
        self, storage: Storage, layout: Layout, tables: Tables, progress: Callable[[int], None]
    ) -> None:
        self.storage = storage
        self.layout = layout
        self.tables = tables
        self.progress = progress
        self.cluster = layout.cluster_size
        fields = layout.fields
        self.l1_tables = [(fields.l1_table_offset, fields.l1_size)]
        self.bitmap_tables: list[tuple[int, int]] = []  # offset, entries; so are the L1 tables
        self.meta: list[tuple[int, int]] = [(0, self.cluster)]

    def run(self) -> Iterator[Finding]:
        features = self.layout.features
        if features.incompatible_features & structs.CORRUPT:
            yield Finding("header", 0, "it is marked corrupt")
        yield from self._snapshots()
        yield from self._bitmaps()
        references = References(self.storage, self.layout, self.tables, self.l1_tables)
        yield from self._guest(references.shared())
        if features.incompatible_features & structs.DIRTY:
            yield Finding(
                "header", 0, "the dirty bit is set: refcounts are not up to date (qemu-img check -r all)"
            )
            return
        refcounts = Refcounts(self.storage, self.layout, self.tables)
        if not refcounts.sound:
            yield Finding(
                "refcount table",
                refcounts.table_offset,
                f"{refcounts.table_size} bytes, not aligned or not in a file of {self.storage.size} bytes",
            )
            return
        self.meta.append((refcounts.table_offset, refcounts.table_size))
        yield from self._refcounts(references, refcounts)

    def _snapshots(self) -> Iterator[Finding]:
        start = end = self.layout.fields.snapshots_offset
        try:
            for found, end in snapshots(self.storage, self.layout):  # noqa: B007 - the last one counts
                try:
                    check_l1(self.storage, self.layout, found.l1_offset, found.l1_entries)
                except CorruptImageError as exc:
                    yield _finding(exc)
                    continue
                self.l1_tables.append((found.l1_offset, found.l1_entries))
        except (CorruptImageError, DeviceReadError) as exc:
            yield _finding(exc)
        self.meta.append((start, end - start))
        yield from _distinct(self.l1_tables, "L1 table")

    def _bitmaps(self) -> Iterator[Finding]:
        head = self.layout.bitmaps
        if head is not None:
            self.meta.append((head.directory_offset, head.directory_size))
        try:
            for found in bitmaps(self.storage, self.layout):
                table = (found.table_offset, found.table_entries)
                if found.table_offset % self.cluster or sum(_bytes(table)) > self.storage.size:
                    yield Finding(
                        "bitmap table", found.table_offset, f"the table of bitmap {found.name!r} is misplaced"
                    )
                    continue
                self.bitmap_tables.append(table)
        except (CorruptImageError, DeviceReadError) as exc:
            yield _finding(exc)
        yield from _distinct(self.bitmap_tables, "bitmap table")

    # The map.

    def _guest(self, shared: bytearray) -> Iterator[Finding]:
        """Walk the active map; an entry that breaks a rule loses its cluster."""
        fields = self.layout.fields
        mapped = ClusterMap(self.storage, self.layout, self.tables, fields.l1_table_offset)
        span = self.cluster * self.layout.l2_entries
        index, needed = 0, self.layout.l1_needed(fields.size)
        while index < needed:
            # A table that two entries share is walked once, lest a small file ask for endless work.
            stop = shared.find(1, index, needed)
            stop = needed if stop < 0 else stop
            yield from self._walk(mapped, index * span, min(stop * span, fields.size))
            index = stop
            if index < needed:
                lost = Extent(index * span, min(span, fields.size - index * span))
                place = fields.l1_table_offset + index * 8
                yield Finding("L1 table", place, f"entry {index} has the L2 table of another entry", lost)
                index += 1

    def _walk(self, mapped: ClusterMap, at: int, end: int) -> Iterator[Finding]:
        while at < end:
            try:
                for kind, start, length, host in mapped.walk(at, end - at):
                    yield from self._inside(kind, start, min(length, end - start), host)
                    at = start + length
            except (CorruptImageError, DeviceReadError) as exc:
                behind = mapped.end_of_loss(at, end, exc)
                found = _finding(exc)
                yield Finding(found.structure, found.offset, found.message, Extent(at, behind - at))
                at = behind

    def _inside(self, kind: Kind, start: int, length: int, host: int) -> Iterator[Finding]:
        size = self.storage.size
        if kind is Kind.PACKED:
            place, most = packed_range(host, self.layout.fields.cluster_bits)
            # The last sector of a file may be short.
            inside = place < size and place + most - structs.SECTOR < size
            where, end = place, place + most
        elif kind is Kind.STORED and not self.layout.external:
            where, end = host, host + length
            inside = end <= size
        else:
            return
        if not inside:
            yield Finding(
                "L2 table",
                None,
                f"clusters of the disk's bytes {start} to {start + length}, at {where} in the file,"
                f" reach to {end}, behind its end at {size}",
                Extent(start, length),
            )

    # Refcounts.

    def _whole(self, table: int) -> bool:
        return (table + 1) * self.cluster <= self.storage.size

    def _refcounts(self, references: References, refcounts: Refcounts) -> Iterator[Finding]:
        try:
            for number, entry in refcounts.blocks():
                if not refcounts.good(entry):
                    yield Finding(
                        "refcount table",
                        refcounts.table_offset + number * 8,
                        f"entry {number} is {entry:#x}: not aligned or not in the file",
                    )
            for first in range(0, references.clusters, WINDOW):
                counts = references.count(first, self._metadata(refcounts), self._whole, self.progress)
                yield from self._compare(first, counts, refcounts)
            for structure, place, why in references.flags(refcounts, self._whole):
                yield Finding(structure, place, why)
        except (CorruptImageError, DeviceReadError) as exc:
            yield _finding(exc)

    def _metadata(self, refcounts: Refcounts) -> Iterator[tuple[int, int]]:
        """All that is neither an L2 table nor of the guest."""
        yield from self.meta
        for _, entry in refcounts.blocks():
            if refcounts.good(entry):
                yield entry, self.cluster
        yield from map(_bytes, self.l1_tables)
        for offset, entries in self.bitmap_tables:
            yield _bytes((offset, entries))
            for _, page, low, high in self.tables.pages(offset, 0, entries):
                for entry in page[low:high]:
                    if entry & HOST_MASK:
                        yield entry & HOST_MASK, self.cluster

    def _compare(self, first: int, counts: array[int], refcounts: Refcounts) -> Iterator[Finding]:
        """One finding for a run of clusters with the same trouble."""
        begin, trouble = 0, ""
        for index, (stored, found) in enumerate(zip(refcounts.run(first, len(counts)), counts, strict=True)):
            if found == stored | GUEST or found == stored | TABLE or not (found or stored):
                now = ""
            else:
                now = "" if stored == 1 and found == META | 1 else _trouble(stored, found)
            if now != trouble:
                if trouble:
                    yield self._run(first + begin, first + index, trouble)
                begin, trouble = index, now
        if trouble:
            yield self._run(first + begin, first + len(counts), trouble)

    def _run(self, first: int, last: int, trouble: str) -> Finding:
        what = f"cluster {first}" if last == first + 1 else f"clusters {first} to {last - 1}"
        return Finding("refcount block", first * self.cluster, f"{what}: {trouble}")


def _trouble(stored: int, found: int) -> str:
    count = found & COUNT
    users = [name for bit, name in _KINDS.items() if found & bit]
    if len(users) > 1 or (found & META and count > 1):
        return f"it is used {count} times, as {' and '.join(users)}"
    if stored > count:
        return f"its refcount is {stored}, {count} references were found: a leak"
    return f"its refcount is {stored}, {count} references were found"


def _distinct(tables: list[tuple[int, int]], structure: str) -> Iterator[Finding]:
    """Leave out tables that share bytes with another: walking each of them could be endless work.

    The first one stays in any case.
    """
    if not tables:
        return
    first, *rest = tables
    kept, end = [first], 0
    for table in sorted(rest):
        behind = sum(_bytes(table))
        if table[1] and (table[0] < end or (table[0] < sum(_bytes(first)) and first[0] < behind)):
            yield Finding(structure, table[0], f"it lies inside another {structure}")
        elif table[1]:
            kept.append(table)
            end = behind
    tables[:] = kept


def _bytes(table: tuple[int, int]) -> tuple[int, int]:
    return table[0], table[1] * 8


def _finding(exc: CorruptImageError | DeviceReadError) -> Finding:
    structure = exc.structure if isinstance(exc, CorruptImageError) else "file"
    return Finding(structure or "file", exc.offset, str(exc))
