"""The extents that a disk consists of: flat files, zeros, sparse files, streams."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from vsssnap.blocks.extent import Extent, shift
from vsssnap.errors import CorruptImageError, DeviceReadError
from vsssnap.formats._cache import ByteCache
from vsssnap.formats._findings import joined
from vsssnap.formats.base import Finding
from vsssnap.formats.vmdk import structs
from vsssnap.formats.vmdk.scan import most_packed, walk
from vsssnap.formats.vmdk.structs import SECTOR, SparseHeader
from vsssnap.formats.vmdk.tables import ABSENT, BEYOND, ZERO, HostedTables, Tables

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterator

    from vsssnap.formats.vmdk.source import Source

_PAGE: Final = 512  # bytes of a page of bits, of 256 MiB of a file in common grains

Place = tuple[int, int, int]
"""A range of an extent, from and to, and where it lies: as in `Tables.places`."""


class Backing(ABC):
    """One extent of a disk; offsets are its own, from 0.

    Attributes:
        size: Bytes of the volume that it holds.
        kind: As the descriptor says it.
        source: Its file; None if it has none.
        damage: What was passed over when it was opened.
        caches: Of tables, and of decoded grains, as far as it has them.
    """

    kind: str
    compressed = False
    caches: tuple[ByteCache, ...] = ()

    def __init__(self, size: int, source: Source | None = None) -> None:
        self.size = size
        self.source = source
        self.damage: list[Finding] = []

    @abstractmethod
    def places(self, first: int, end: int) -> Iterator[Place]:
        """Where a range lies."""

    def fill(self, view: memoryview, first: int, place: int) -> None:
        """Read what lies in one place; ``view`` begins at ``first``."""
        assert self.source is not None  # noqa: S101 - what has a place has a file
        self.source.preadinto(view, place)

    def known(self, first: int, end: int, place: int) -> Iterator[Extent]:
        """DATA and ZERO of what lies in one place: as sparse as its file."""
        assert self.source is not None  # noqa: S101 - as above
        return shift(self.source.extents(place, end - first), first - place)

    def check(self, progress: Callable[[int], None]) -> Iterator[Finding]:
        """What is wrong with its structures."""
        yield from ()

    def is_cut(self) -> bool:
        """Whether a part of it lies behind the end of its file; walks through the tables."""
        return False

    def check_content(self, progress: Callable[[int], None]) -> Iterator[Finding]:
        """What is wrong with its content, where something tells."""
        yield from ()

    def close(self) -> None:
        """Close its file."""
        if self.source is not None:
            self.source.close()


class ZeroBacking(Backing):
    """Nothing but zeros."""

    kind = "ZERO"

    def places(self, first: int, end: int) -> Iterator[Place]:
        """See `Backing`."""
        yield first, end, ZERO


class FlatBacking(Backing):
    """The bytes as they are, from a place in a file on."""

    kind = "FLAT"

    def __init__(self, source: Source, size: int, offset: int) -> None:
        super().__init__(size, source)
        self._offset = offset

    def places(self, first: int, end: int) -> Iterator[Place]:
        """See `Backing`; what the file lacks is BEYOND."""
        assert self.source is not None  # noqa: S101 - the constructor takes one
        split = min(end, max(first, self.source.size - self._offset))
        if first < split:
            yield first, split, self._offset + first
        if split < end:
            yield split, end, BEYOND

    def is_cut(self) -> bool:
        """See `Backing`."""
        return bool(self.damage)


class SparseBacking(Backing):
    """Grains that lie as they are in a file, hosted or space-efficient."""

    kind = "SPARSE"

    def __init__(self, source: Source, size: int, tables: Tables) -> None:
        super().__init__(size, source)
        self.tables = tables
        if isinstance(tables, HostedTables):
            self.damage += [Finding(*found) for found in tables.damage]
        self.caches = (tables.cache,)

    def places(self, first: int, end: int) -> Iterator[Place]:
        """See `Backing`; grains that lie behind one another are one place."""
        start, stop, place = first, first, ABSENT
        for low, high, found in self.tables.places(first, end):
            follows = found == place + low - start if found >= 0 else found == place
            if low != stop or not follows:
                if start < stop:
                    yield start, stop, place
                start, place = low, found
            stop = high
        if start < stop:
            yield start, stop, place

    def check(self, progress: Callable[[int], None]) -> Iterator[Finding]:
        """Every table: entries that name no place in the file, or a place twice."""
        return joined(self._check_tables(progress))

    def _check_tables(self, progress: Callable[[int], None]) -> Iterator[Finding]:
        taken: dict[int, bytearray] = {}  # a bit for each place that a grain has, in pages
        for number in range(self.tables.count):
            try:
                table = self.tables.table(number)
            except CorruptImageError as exc:
                yield Finding(exc.structure, exc.offset, str(exc), self._span(number))
                continue
            if not isinstance(table, int):
                yield from self._check_table(number, table, taken)
                progress(len(table) * table.itemsize)

    def is_cut(self) -> bool:
        """See `Backing`; a table that cannot be read is none."""
        try:
            tables = map(self.tables.table, range(self.tables.count))
            return any(not isinstance(table, int) and self._cut_in(table) for table in tables)
        except (CorruptImageError, DeviceReadError):
            return True

    def _cut_in(self, table: array[int]) -> bool:
        return self.tables.beyond(table)

    def _check_table(self, number: int, table: array[int], taken: dict[int, bytearray]) -> Iterator[Finding]:
        grain = self.tables.grain
        for index, entry in enumerate(table):
            place = self.tables.place(entry)
            if place in (ABSENT, ZERO):
                continue
            at = number * self.tables.span + index * grain
            lost = Extent(at, min(grain, self.size - at)) if at < self.size else None
            if place == BEYOND:
                message = f"entry {index} of table {number}, {entry:#x}, names no place in the file"
                yield Finding("grain table", None, message, lost)
            elif not self.compressed:
                page, slot = divmod(place // grain // 8, _PAGE)
                bit = 1 << place // grain % 8
                bits = taken.setdefault(page, bytearray(_PAGE))
                if bits[slot] & bit:
                    message = f"entry {index} of table {number}: another grain lies at byte {place} too"
                    yield Finding("grain table", place, message, lost)
                bits[slot] |= bit

    def _span(self, number: int) -> Extent:
        at = number * self.tables.span
        return Extent(at, min(self.tables.span, self.size - at))


class StreamBacking(SparseBacking):
    """Compressed grains."""

    compressed = True

    def __init__(self, source: Source, size: int, tables: Tables, header: SparseHeader) -> None:
        super().__init__(source, size, tables)
        self._markers = bool(header.flags & structs.MARKERS)
        self._start = header.overhead * SECTOR
        self._grains = ByteCache(0)  # see `Tables`
        self.caches = (tables.cache, self._grains)

    def places(self, first: int, end: int) -> Iterator[Place]:
        """See `Backing`; the place is that of the whole grain."""
        for low, high, place in self.tables.places(first, end):
            yield low, high, place - low % self.tables.grain if place >= 0 else place

    def known(self, first: int, end: int, place: int) -> Iterator[Extent]:
        """See `Backing`."""
        yield Extent(first, end - first)

    def fill(self, view: memoryview, first: int, place: int) -> None:
        """See `Backing`; a grain that is wanted only in part is kept."""
        within = first % self.tables.grain
        data: bytes | None = self._grains.get(place)
        if data is None:
            data = self.grain(place, first - within)
            if len(view) < len(data):
                self._grains.put(place, data, len(data))
        if within + len(view) > len(data):
            raise self.tables.broken("grain", place, f"it has {len(data)} bytes")
        view[:] = data[within : within + len(view)]

    def grain(self, place: int, at: int) -> bytes:
        """Decode a grain.

        Args:
            place: Its marker in the file.
            at: Where it begins in the extent.

        Raises:
            CorruptImageError: it is another grain, or damaged.
        """
        assert self.source is not None  # noqa: S101 - the constructor takes one
        size = self.tables.grain
        head = structs.GRAIN_MARKER if self._markers else 0
        most = most_packed(size)
        # The length comes with the data: one read, unless the data are longer than they should be.
        data = self.source.pread(min(head + size if head else most, self.source.size - place), place)
        if head:
            sector, length = int.from_bytes(data[:8], "little"), int.from_bytes(data[8:12], "little")
            if sector * SECTOR != at:
                raise self.tables.broken("grain", place, f"it is of sector {sector}, not {at // SECTOR}")
            if not 0 < length <= most:
                raise self.tables.broken("grain", place, f"its data have {length} bytes")
            if head + length > len(data):
                data = self.source.pread(head + length, place)
            data = data[head : head + length]
        packed = zlib.decompressobj()
        try:
            plain = packed.decompress(data, size + 1)
        except zlib.error as exc:
            raise self.tables.broken("grain", place, f"it cannot be decompressed: {exc}") from None
        if not packed.eof or len(plain) > size:
            raise self.tables.broken("grain", place, f"its data end after {len(plain)} bytes")
        return plain

    def _cut_in(self, table: array[int]) -> bool:
        place = self.tables.place(max(table))
        if place < 0 or not self._markers:
            return super()._cut_in(table)
        assert self.source is not None  # noqa: S101 - the constructor takes one
        length = int.from_bytes(self.source.pread(structs.GRAIN_MARKER, place)[8:], "little")
        return place + structs.GRAIN_MARKER + length > self.source.size

    def check_content(self, progress: Callable[[int], None]) -> Iterator[Finding]:
        """Every grain in the file: in its place by the tables, and with the right checksum."""
        if not self._markers:
            yield from self._decode_all(progress)
            return
        assert self.source is not None  # noqa: S101 - the constructor takes one
        seen = 0
        for item in walk(self.source, self._start, self.tables.grain):
            if item.kind == "damage":
                yield Finding("marker", item.offset, "it is no marker")
            if item.kind != "grain":
                continue
            seen += 1
            at = item.sector * SECTOR
            progress(item.length)
            if at % self.tables.grain or at >= self.tables.size:
                yield Finding("grain", item.offset, f"it is of sector {item.sector}, where none begins")
                continue
            lost = Extent(at, min(self.tables.grain, self.size - at)) if at < self.size else None
            try:
                (_, _, place), *_ = self.tables.places(at, at + 1)
                if place != item.offset:
                    message = f"it is of sector {item.sector}, for which the table has another place"
                    yield Finding("grain", item.offset, message, lost)
                    continue
                self._whole(item.offset, at)
            except CorruptImageError as exc:
                yield Finding(exc.structure, exc.offset, str(exc), lost)
        named = self._named()
        if named != seen:
            yield Finding("grain table", None, f"the tables name {named} grains, the file has {seen}")

    def _named(self) -> int:
        total = 0
        for number in range(self.tables.count):
            try:
                table = self.tables.table(number)
            except CorruptImageError:  # `check` says so
                continue
            if not isinstance(table, int):
                total += sum(self.tables.place(entry) not in (ABSENT, ZERO) for entry in table)
        return total

    def _decode_all(self, progress: Callable[[int], None]) -> Iterator[Finding]:
        for low, high, place in self.tables.places(0, self.size):
            if place < 0:
                continue
            try:
                self._whole(place, low)
            except CorruptImageError as exc:
                yield Finding(exc.structure, exc.offset, str(exc), Extent(low, high - low))
            progress(high - low)

    def _whole(self, place: int, at: int) -> None:
        data = self.grain(place, at)
        need = min(self.tables.grain, self.size - at)
        if len(data) < need:
            raise self.tables.broken("grain", place, f"it has {len(data)} bytes, not {need}")
