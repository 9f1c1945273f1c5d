"""Refcounts: those that an image holds, and the references that it should have counted.

Source: QEMU, docs/interop/qcow2.txt, section "Host cluster management".
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Final

from vsssnap.formats._cache import ByteCache
from vsssnap.formats.qcow2 import structs
from vsssnap.formats.qcow2.mapping import packed_range
from vsssnap.formats.qcow2.structs import COMPRESSED, COPIED, HOST_MASK, L1_RESERVED, L2_RESERVED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from vsssnap.formats.qcow2.header import Layout
    from vsssnap.formats.qcow2.tables import Tables
    from vsssnap.formats.storage import Storage

WINDOW: Final = 2 << 20  # clusters that are counted in one pass: 128 GiB with clusters of 64 KiB
_ACTIVE: Final = 1 << 63
_KEPT: Final = 16 << 20

# In a count: who refers to the cluster; the bits below tell how often.
META: Final = 1 << 63
TABLE: Final = 1 << 62
GUEST: Final = 1 << 61
COUNT: Final = GUEST - 1

_TYPES: Final = {8: "B", 16: "H", 32: "I", 64: "Q"}


def unpack_counts(data: bytes, bits: int) -> Sequence[int]:
    """A refcount block as numbers; below a byte, bit 0 of a byte comes first."""
    if bits < 8:
        mask, shifts = (1 << bits) - 1, range(0, 8, bits)
        return bytes(byte >> shift & mask for byte in data for shift in shifts)
    counts = array(_TYPES[bits], data)
    if sys.byteorder == "little":
        counts.byteswap()
    return counts


class Refcounts:
    """The refcounts in a file; what lies outside of it counts 0."""

    def __init__(self, storage: Storage, layout: Layout, tables: Tables) -> None:
        fields = layout.fields
        self._storage = storage
        self._tables = tables
        self._bits = 1 << layout.features.refcount_order
        self._cluster = layout.cluster_size
        self.per_block = layout.cluster_size * 8 // self._bits
        self.table_offset = fields.refcount_table_offset
        self.table_size = fields.refcount_table_clusters * layout.cluster_size
        self.sound = (
            not self.table_offset % self._cluster
            and 0 < self.table_size <= structs.MAX_REFCOUNT_TABLE
            and self.table_offset + self.table_size <= storage.size
        )
        self._cache = ByteCache(_KEPT)
        self._zeros = bytes(self.per_block)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """``(number, table entry)`` of every refcount block that is not left out."""
        for base, page, low, high in self._tables.pages(self.table_offset, 0, self.table_size // 8):
            for index in range(low, high):
                if page[index]:
                    yield base + index, page[index]

    def last(self) -> int | None:
        """The last cluster that is counted; None where that cannot be told."""
        number, entry = max(self.blocks(), default=(0, 0))
        if not entry or not self.good(entry):
            return None
        used = self._storage.pread(self._cluster, entry).rstrip(b"\0")
        if not used:
            return None
        # In which bit of which byte the last count is not 0: below a byte, bit 0 comes first.
        bit = (len(used) - 1) * 8 + (used[-1].bit_length() - 1 if self._bits < 8 else 0)
        return number * self.per_block + bit // self._bits

    def good(self, entry: int) -> bool:
        """Whether a table entry names a block in the file."""
        return not entry % self._cluster and entry + self._cluster <= self._storage.size

    def block(self, number: int) -> Sequence[int]:
        """The refcounts of ``per_block`` clusters; zeros where there is no sound block."""
        if number * 8 >= self.table_size:
            return self._zeros
        entry = self._tables.entry(self.table_offset, number)
        if not entry or not self.good(entry):
            return self._zeros
        found: Sequence[int] | None = self._cache.get(entry)
        if found is None:
            found = unpack_counts(self._storage.pread(self._cluster, entry), self._bits)
            size = len(found) * (found.itemsize if isinstance(found, array) else 1)
            self._cache.put(entry, found, size + 200)
        return found

    def of(self, cluster: int) -> int:
        """The refcount of one cluster."""
        number, index = divmod(cluster, self.per_block)
        return self.block(number)[index]

    def run(self, first: int, count: int) -> Iterator[int]:
        """The refcounts of some clusters."""
        while count:
            number, index = divmod(first, self.per_block)
            part = self.block(number)[index : index + count]
            yield from part
            first += len(part)
            count -= len(part)


class References:
    """Counts who refers to which cluster, a window of the file at a time.

    An L2 table that several L1 tables share is read once and counted as often as it is shared,
    so the work is bounded by the size of the file, whatever its tables say.
    """

    def __init__(
        self,
        storage: Storage,
        layout: Layout,
        tables: Tables,
        l1_tables: Iterable[tuple[int, int]],
    ) -> None:
        """Begin.

        Args:
            storage: The file.
            layout: Its header.
            tables: Its tables.
            l1_tables: ``(offset, entries)``, all in the file; the active one first.
        """
        self._tables = tables
        self._bits = layout.fields.cluster_bits
        self._extended = layout.extended
        self._external = layout.external
        self._l1_tables = list(l1_tables)
        self.clusters = -(-storage.size >> self._bits)

    def l2_tables(self) -> Iterator[tuple[int, int, bool]]:
        """``(cluster, how many L1 entries name it, whether an active one does)``, each table once."""
        for first in range(0, self.clusters, WINDOW):
            found = array("Q", bytes(8 * min(WINDOW, self.clusters - first)))
            for number, (offset, entries) in enumerate(self._l1_tables):
                for cluster in self._named(offset, entries):
                    if first <= cluster < first + len(found):
                        found[cluster - first] = found[cluster - first] + 1 | (0 if number else _ACTIVE)
            for index, value in enumerate(found):
                if value:
                    yield first + index, value & ~_ACTIVE, bool(value & _ACTIVE)

    def shared(self) -> bytearray:
        """A 1 for each active L1 entry whose table an earlier active one has already."""
        offset, entries = self._l1_tables[0]
        result = bytearray(entries)
        for first in range(0, self.clusters, WINDOW):
            seen = bytearray(min(WINDOW, self.clusters - first))
            for base, page, low, high in self._tables.pages(offset, 0, entries):
                for index in range(low, high):
                    host = page[index] & HOST_MASK
                    place = (host >> self._bits) - first
                    if host and 0 <= place < len(seen):
                        result[base + index] = seen[place]
                        seen[place] = 1
        return result

    def _named(self, offset: int, entries: int) -> Iterator[int]:
        for _, page, low, high in self._tables.pages(offset, 0, entries):
            for entry in page[low:high]:
                host = entry & HOST_MASK
                if host and not host & (1 << self._bits) - 1 and host >> self._bits < self.clusters:
                    yield host >> self._bits

    def _entries(self, table: int) -> Iterator[int]:
        """The first words of an L2 table's entries that are not 0."""
        step = 2 if self._extended else 1
        for _, page, low, high in self._tables.pages(table << self._bits, 0, (1 << self._bits) // 8):
            yield from filter(None, page[low:high:step])

    def _packed(self, entry: int) -> range:
        """The clusters that a compressed one touches."""
        offset, length = packed_range(entry, self._bits)
        return range(offset >> self._bits, (offset + length - 1 >> self._bits) + 1)

    def count(
        self,
        first: int,
        meta: Iterable[tuple[int, int]],
        whole: Callable[[int], bool],
        progress: Callable[[int], None],
    ) -> array[int]:
        """The references to the clusters of the window that begins at ``first``.

        Args:
            first: Cluster.
            meta: ``(offset, bytes)`` of all that is neither an L2 table nor of the guest.
            whole: Whether an L2 table (cluster) is all in the file.
            progress: Gets the bytes of tables that were read.
        """
        bits = self._bits
        length = min(WINDOW, self.clusters - first)
        counts = array("Q", bytes(8 * length))
        for offset, size in meta:
            if size:
                low = max(0, (offset >> self._bits) - first)
                high = min(length, (offset + size - 1 >> self._bits) + 1 - first)
                for index in range(low, high):
                    counts[index] = counts[index] + 1 | META
        last = first + length
        for table, weight, _ in self.l2_tables():
            if first <= table < last:
                counts[table - first] = counts[table - first] + weight | TABLE
            if not whole(table):
                continue
            progress(1 << self._bits)
            if self._external:
                continue
            for entry in self._entries(table):
                if entry & COMPRESSED:
                    for cluster in self._packed(entry):
                        if first <= cluster < last:
                            counts[cluster - first] = counts[cluster - first] + weight | GUEST
                    continue
                host = entry & HOST_MASK
                index = (host >> bits) - first
                if host and 0 <= index < length:
                    counts[index] = counts[index] + weight | GUEST
        return counts

    def flags(self, refcounts: Refcounts, whole: Callable[[int], bool]) -> Iterator[tuple[str, int, str]]:
        """Wrong bits in the active tables: ``(structure, place in the file, what is wrong)``."""
        offset, entries = self._l1_tables[0]
        for base, page, low, high in self._tables.pages(offset, 0, entries):
            for index in range(low, high):
                why = self._wrong_bits(page[index], L1_RESERVED, refcounts)
                if why:
                    yield "L1 table", offset + (base + index) * 8, why
        step = 2 if self._extended else 1
        for table, _, active in self.l2_tables():
            if not active or not whole(table):
                continue
            place = table << self._bits
            for base, page, low, high in self._tables.pages(place, 0, (1 << self._bits) // 8):
                for index in range(low, high, step) if any(page) else ():
                    entry = page[index]
                    if entry & COMPRESSED:
                        why = "the COPIED flag of a compressed cluster is set" if entry & COPIED else ""
                    elif entry:
                        why = self._wrong_bits(entry, L2_RESERVED, None if self._external else refcounts)
                    else:
                        continue
                    if why:
                        yield "L2 table", place + (base + index) * 8, why

    def _wrong_bits(self, entry: int, reserved: int, refcounts: Refcounts | None) -> str:
        """What is wrong with an entry's flags; nothing is said of where it points to."""
        if entry & reserved:
            return f"reserved bits are set: {entry & reserved:#x}"
        cluster = (entry & HOST_MASK) >> self._bits
        if refcounts is None or not cluster or cluster >= self.clusters:
            return ""
        count = refcounts.of(cluster)
        if (count == 1) != bool(entry & COPIED):
            return f"the COPIED flag is wrong: the cluster's refcount is {count}"
        return ""
