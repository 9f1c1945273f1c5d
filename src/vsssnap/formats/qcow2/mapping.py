"""Where the bytes of a virtual disk lie: the L1 and L2 tables as runs.

Source: QEMU, docs/interop/qcow2.txt, sections "Cluster mapping" and "Extended L2 Entries".
"""

from __future__ import annotations

import enum
from array import array
from typing import TYPE_CHECKING, Final

from vsssnap.errors import CorruptImageError, DeviceReadError, VssSnapError
from vsssnap.formats.qcow2.header import corrupt
from vsssnap.formats.qcow2.structs import (
    ALL_SUBCLUSTERS,
    COMPRESSED,
    COPIED,
    HOST_MASK,
    SECTOR,
    SUBCLUSTERS,
    ZERO,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.formats.qcow2.header import Layout
    from vsssnap.formats.qcow2.tables import Tables
    from vsssnap.formats.storage import Storage


class Kind(enum.IntEnum):
    """What a run of a virtual disk is."""

    ABSENT = 0
    """Not allocated: the backing file shows through, else zeros."""
    ZERO = 1
    """Reads as zeros whatever the backing file has."""
    STORED = 2
    """Lies in the file (or the data file) as it is."""
    PACKED = 3
    """One compressed cluster."""
    LOST = 4
    """Nobody knows: what maps it is not there or breaks a rule.  Only of `ClusterMap.salvaged`."""


_ABSENT, _ZERO, _STORED, _PACKED, _LOST = Kind

_PIECE: Final = 32  # entries that are compared at once

Run = tuple[Kind, int, int, int]
"""Kind, offset and bytes in the virtual disk, and the offset in the file (of PACKED: the L2 entry)."""


def packed_range(entry: int, cluster_bits: int) -> tuple[int, int]:
    """Where a compressed cluster lies: offset and most bytes ("Compressed Clusters Descriptor")."""
    shift = 62 - (cluster_bits - 8)
    offset = entry & ((1 << shift) - 1)
    sectors = entry >> shift & ((1 << cluster_bits - 8) - 1)
    return offset, (sectors + 1) * SECTOR - offset % SECTOR


class ClusterMap:
    """The map of one virtual disk: the active one or a snapshot's; any thread."""

    def __init__(self, storage: Storage, layout: Layout, tables: Tables, l1_offset: int) -> None:
        self._storage = storage
        self._tables = tables
        self._cluster = layout.cluster_size
        self._per_table = layout.l2_entries
        self._extended = layout.extended
        self._external = layout.external
        self._zero_flag = layout.fields.version >= 3 and not layout.extended
        self._l1_offset = l1_offset

    def walk(self, offset: int, length: int) -> Iterator[Run]:
        """The runs that cover a range, in whole clusters or subclusters; ascending, gap-free, joined.

        Raises:
            CorruptImageError: an entry breaks a rule; the runs before it were given.
        """
        kind, start, at, host = _ABSENT, -1, -1, 0  # nothing yet: no run begins before 0
        try:
            for found, where, count, place in self._raw(offset, offset + length):
                if (
                    found is kind
                    and at == where
                    and found is not _PACKED
                    and (found is not _STORED or host + at - start == place)
                ):
                    at += count
                    continue
                if at > start:
                    yield kind, start, at - start, host
                kind, start, at, host = found, where, where + count, place
        except VssSnapError:
            if at > start:  # so that the end of the last run tells where the trouble is
                yield kind, start, at - start, host
            raise
        if at > start:
            yield kind, start, at - start, host

    def salvaged(self, offset: int, length: int) -> Iterator[Run]:
        """As `walk`, and what cannot be looked up is LOST; neighbours of that kind are not joined."""
        at, end = offset, offset + length
        while at < end:
            try:
                for run in self.walk(at, end - at):
                    yield run
                    at = run[1] + run[2]
            except (CorruptImageError, DeviceReadError) as exc:
                stop = self.end_of_loss(at, end, exc)
                yield _LOST, at, stop - at, 0
                at = stop

    def end_of_loss(self, at: int, end: int, exc: CorruptImageError | DeviceReadError) -> int:
        """How far, up to ``end``, goes what one error of `walk` at ``at`` takes from the disk.

        An entry that breaks a rule is a cluster, or what an L2 table maps; of a table that cannot be read
        it is a page.
        """
        span, page = self._cluster * self._per_table, self._tables.page_size // 8
        index = at // span
        try:
            table = self._tables.entry(self._l1_offset, index) & HOST_MASK
        except (CorruptImageError, DeviceReadError):
            return min(end, (index - index % page + page) * span)
        end = min(end, (index + 1) * span)
        if table % self._cluster:
            return end
        unread = isinstance(exc, DeviceReadError) or exc.structure == "file"
        piece = self._cluster * ((page // 2 if self._extended else page) if unread else 1)
        return min(end, at - at % piece + piece)

    def _raw(self, offset: int, end: int) -> Iterator[Run]:
        cluster = self._cluster
        span = cluster * self._per_table
        first, last = offset // span, -(-end // span)
        for base, page, low, high in self._tables.pages(self._l1_offset, first, last):
            if not any(page[low:high]):  # most of a large disk: one step instead of thousands
                begin = max((base + low) * span, offset - offset % cluster)
                yield _ABSENT, begin, min((base + high) * span, -(-end // cluster) * cluster) - begin, 0
                continue
            for index in range(low, high):
                begin = max((base + index) * span, offset - offset % cluster)
                stop = min((base + index + 1) * span, -(-end // cluster) * cluster)
                table = page[index] & HOST_MASK
                if not table:
                    yield _ABSENT, begin, stop - begin, 0
                    continue
                if table % cluster:
                    raise corrupt(
                        self._storage,
                        f"L1 entry {base + index} is {page[index]:#x}, no multiple of {cluster}",
                        "L1 table",
                        self._l1_offset + (base + index) * 8,
                    )
                runs = self._table(table, (base + index) * span, begin, stop)
                if self._extended:  # of the first and last cluster, subclusters may lie outside of the range
                    runs = (run for run in runs if run[1] < end and run[1] + run[2] > offset)
                yield from runs

    def _table(self, table: int, origin: int, begin: int, stop: int) -> Iterator[Run]:
        """The clusters of one L2 table in a range; ``origin`` is where its first one lies."""
        bits = self._cluster.bit_length() - 1
        first, last = begin - origin >> bits, stop - origin >> bits
        if self._extended:
            for base, page, low, high in self._tables.pages(table, first * 2, last * 2):
                for index in range(low, high, 2):
                    at = origin + (base + index << bits - 1)
                    yield from self._subclusters(page[index], page[index + 1], at)
            return
        for base, page, low, high in self._tables.pages(table, first, last):
            at = origin + (base << bits)
            if not any(page[low:high]):
                yield _ABSENT, at + (low << bits), high - low << bits, 0
                continue
            for index in range(low, high, _PIECE):
                yield from self._entries(page[index : min(index + _PIECE, high)], at + (index << bits))

    def _entries(self, entries: array[int], at: int) -> Iterator[Run]:
        cluster, length = self._cluster, len(entries) * self._cluster
        first = entries[0]
        host = first & HOST_MASK
        # Most clusters of most images lie behind one another: one comparison instead of a step for each.
        if (
            host
            and not (host % cluster or first & (COMPRESSED | ZERO) or self._external)
            and host + length <= HOST_MASK
            and entries == array("Q", range(first, first + length, cluster))
        ):
            yield _STORED, at, length, host
            return
        for entry in entries:
            if not entry:
                yield _ABSENT, at, cluster, 0
            elif entry & COMPRESSED:
                yield self._compressed(entry, at)
            elif entry & ZERO:
                if not self._zero_flag:
                    raise self._broken(entry, at, "a zero flag in an image of version 2")
                yield _ZERO, at, cluster, 0
            else:
                host = self._host(entry, at)
                yield (_ABSENT, at, cluster, 0) if host < 0 else (_STORED, at, cluster, host)
            at += cluster

    def _subclusters(self, entry: int, states: int, at: int) -> Iterator[Run]:
        cluster = self._cluster
        if entry & COMPRESSED:
            yield self._compressed(entry, at)
            return
        stored, zero = states & ALL_SUBCLUSTERS, states >> SUBCLUSTERS
        if stored & zero:
            raise self._broken(entry, at, f"subclusters {stored & zero:#x} are both stored and zero")
        host = self._host(entry, at)
        if stored and host < 0:
            raise self._broken(entry, at, f"subclusters {stored:#x} are stored nowhere")
        if stored == ALL_SUBCLUSTERS:
            yield _STORED, at, cluster, host
        elif not stored and zero in (0, ALL_SUBCLUSTERS):
            yield (_ZERO if zero else _ABSENT), at, cluster, 0
        else:
            step = cluster // SUBCLUSTERS
            for number in range(SUBCLUSTERS):
                place = number * step
                if stored >> number & 1:
                    yield _STORED, at + place, step, host + place
                else:
                    yield (_ZERO if zero >> number & 1 else _ABSENT), at + place, step, 0

    def _compressed(self, entry: int, at: int) -> Run:
        if self._external:
            raise self._broken(entry, at, "a compressed cluster beside an external data file")
        return _PACKED, at, self._cluster, entry

    def _host(self, entry: int, at: int) -> int:
        """Where a standard cluster lies; -1 if it is not allocated."""
        host = entry & HOST_MASK
        if not host and not (self._external and entry & COPIED):
            return -1
        if host % self._cluster:
            raise self._broken(entry, at, f"no multiple of {self._cluster}")
        if self._external and host != at:
            raise self._broken(entry, at, "an external data file holds every cluster at its own offset")
        return host

    def _broken(self, entry: int, at: int, why: str) -> Exception:
        return corrupt(
            self._storage,
            f"the L2 entry of bytes {at} to {at + self._cluster} of the disk is {entry:#x}: {why}",
            "L2 table",
            None,
        )
