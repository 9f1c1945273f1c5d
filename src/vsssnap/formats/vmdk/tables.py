"""Where the grains of a sparse extent lie: a directory of tables of entries.

A directory is read when the extent is opened (4 bytes for each 32 MiB of the volume in common
images), tables when they are asked for, into a cache.  Hosted extents may have both twice.  There
are no checksums, so the second copy is what shows damage: where two tables differ the one whose
entries all lie in the file counts, and if that is true of both, nothing is taken for right.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from array import array
from typing import TYPE_CHECKING, Final

from vsssnap.errors import CorruptImageError
from vsssnap.formats._cache import ByteCache
from vsssnap.formats.vmdk import structs
from vsssnap.formats.vmdk.scan import walk
from vsssnap.formats.vmdk.structs import SECTOR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.formats.vmdk.source import Source
    from vsssnap.formats.vmdk.structs import SeHeader, SparseHeader

ABSENT: Final = -1
"""The place of a grain that is not in the file: the parent's, or zeros."""
ZERO: Final = -2
"""The place of a grain that is zero, whatever the parent has."""
BEYOND: Final = -3
"""The place of a grain whose entry names none in the file."""

_MOST_TABLES: Final = 1 << 22  # in an extent: 64 TiB have as many of 16 MiB


class Tables(ABC):
    """Places of grains; thread-safe.

    Attributes:
        size: Bytes of the volume that they speak of.
        grain: Bytes of a grain.
        span: Bytes of the volume that one table speaks of.
        cache: The tables read last.
    """

    code: str  # of `array`, of an entry

    def __init__(self, source: Source, size: int, grain: int, entries: int) -> None:
        """Begin; reads nothing.

        Raises:
            CorruptImageError: that would be more tables than there can be.
        """
        self.source = source
        self.size = size
        self.grain = grain
        self.span = grain * entries
        self._entries = entries
        self.cache = ByteCache(0)  # it keeps nothing until it joins a reader's
        if self.count > _MOST_TABLES:
            raise self.broken("header", 0, f"{self.count} grain tables are more than {_MOST_TABLES}")

    @property
    def count(self) -> int:
        """Tables."""
        return -(-self.size // self.span)

    def directory(self, offset: int, what: str) -> array[int]:
        """Read a directory.

        Raises:
            CorruptImageError: it does not lie in the file.
        """
        return self._read(self.count, offset, what)

    def _read(self, count: int, offset: int, what: str) -> array[int]:
        entries = array(self.code)
        length = count * entries.itemsize
        if not offset or offset + length > self.source.size:
            raise self.broken(
                what, offset, f"it has {length} bytes at {offset}, the file {self.source.size} bytes"
            )
        entries.frombytes(self.source.pread(length, offset))
        if sys.byteorder == "big":
            entries.byteswap()
        return entries

    def places(self, first: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Where a range of the volume lies: ``(from, to, place)``, ascending and gap-free.

        A place is a byte of the file, ABSENT, ZERO or BEYOND.  Ranges without a place in the file
        may be long; the others are one grain or a part of it.
        """
        while first < end:
            number = first // self.span
            stop = min(end, (number + 1) * self.span)
            table = self.table(number)
            if isinstance(table, int):
                yield first, stop, table
                first = stop
                continue
            while first < stop:
                index = first // self.grain
                upto = min(stop, (index + 1) * self.grain)
                place = self.place(table[index % self._entries])
                within = first % self.grain if place >= 0 else 0
                yield first, upto, place + within
                first = upto

    def table(self, number: int) -> array[int] | int:
        """One table, or ABSENT or ZERO if none is there."""
        found: array[int] | int | None = self.cache.get(number)
        if found is None:
            found = self.load(number)
            size = 64 if isinstance(found, int) else 64 + len(found) * found.itemsize
            self.cache.put(number, found, size)
        return found

    def used(self, number: int) -> int:
        """Entries of a table that the volume needs; the last one may need fewer."""
        return min(self._entries, -(-(self.size - number * self.span) // self.grain))

    @abstractmethod
    def load(self, number: int) -> array[int] | int:
        """Read a table."""

    @abstractmethod
    def place(self, entry: int) -> int:
        """What an entry means."""

    def beyond(self, table: array[int]) -> bool:
        """Whether an entry names a place behind the end of the file."""
        return self.place(max(table)) == BEYOND

    def broken(self, structure: str, offset: int | None, message: str) -> CorruptImageError:
        """An error that names the file."""
        return CorruptImageError(
            f"{self.source.name}: {structure}: {message}",
            path=self.source.name,
            structure=structure,
            offset=offset,
            hint="open it with recover=True to read what is left",
        )


class HostedTables(Tables):
    """Of a hosted sparse extent, compressed or not.

    Attributes:
        damage: What was passed over when the directories were read: structure, offset, message.
    """

    code = "I"

    def __init__(self, source: Source, header: SparseHeader, *, recover: bool) -> None:
        """Read the directories.

        Raises:
            CorruptImageError: neither lies in the file.
        """
        grain = header.grain_size * SECTOR
        super().__init__(source, header.capacity * SECTOR, grain, header.table_entries)
        self._zeroed = bool(header.flags & structs.ZEROED_GRAINS)
        self._least = 1 + header.descriptor_size if header.descriptor_offset else 1
        # A compressed grain may be short; its marker tells.
        self._need = structs.GRAIN_MARKER if header.flags & structs.COMPRESSED else grain
        self._recover = recover
        self._trusting = recover or bool(header.unclean)
        self.damage: list[tuple[str, int, str]] = []
        self.directories: list[array[int]] = []
        errors: list[CorruptImageError] = []
        places = [("grain directory", header.directory_offset)]
        if header.flags & structs.REDUNDANT and header.redundant_offset:
            places.append(("redundant grain directory", header.redundant_offset))
        for what, sector in places:
            try:
                found = self.directory(sector * SECTOR, what)
                self._check_directory(found, sector * SECTOR, what)
            except CorruptImageError as exc:
                errors.append(exc)
            else:
                self.directories.append(found)
        if not self.directories:
            raise errors[0]
        self.damage += [(exc.structure, exc.offset or 0, str(exc)) for exc in errors]

    def _check_directory(self, directory: array[int], offset: int, what: str) -> None:
        for number, entry in enumerate(directory):
            end = entry * SECTOR + 4 * self.used(number)
            if entry > 1 and end > self.source.size:
                raise self.broken(
                    what, offset + 4 * number, f"table {number} ends at byte {end}, behind the file's end"
                )

    def load(self, number: int) -> array[int] | int:
        """One of two tables; see the module.

        Raises:
            CorruptImageError: they differ, and nothing says which one is right.
        """
        copies = [self._copy(directory[number], number) for directory in self.directories]
        if len(copies) == 1 or copies[0] == copies[1]:
            first = copies[0]
            # A table of nothing is one step where it would be many.
            return ABSENT if not isinstance(first, int) and not first.tobytes().strip(b"\0") else first
        sound = [table for table in copies if isinstance(table, int) or self._sound(table)]
        if len(sound) == 1 or self._trusting:
            return (sound or copies)[0]
        raise self.broken(
            "grain table",
            self.directories[0][number] * SECTOR,
            f"table {number} and its redundant copy at {self.directories[1][number] * SECTOR} differ",
        )

    def table(self, number: int) -> array[int] | int:
        """See `Tables`."""
        if not any(directory[number] for directory in self.directories):
            return ABSENT  # most of a stream that holds little: no need to remember that
        return super().table(number)

    def _copy(self, entry: int, number: int) -> array[int] | int:
        if entry == 0:
            return ABSENT
        if entry == 1 and self._zeroed:
            return ZERO
        return self._read(self.used(number), entry * SECTOR, "grain table")

    def _sound(self, table: array[int]) -> bool:
        return all(self.place(entry) != BEYOND for entry in table)

    def place(self, entry: int) -> int:
        """See `Tables`."""
        if entry == 0:
            return ABSENT
        if entry == 1 and self._zeroed:
            return ZERO
        at = entry * SECTOR
        return at if entry >= self._least and at + self._need <= self.source.size else BEYOND


class ScannedTables(Tables):
    """Of a stream without its tables: what its markers say; what comes behind the last one is BEYOND."""

    code = "I"

    def __init__(self, source: Source, header: SparseHeader) -> None:
        """Walk through the stream up to where it ends."""
        grain = header.grain_size * SECTOR
        super().__init__(source, header.capacity * SECTOR, grain, header.table_entries)
        self.end = 0
        self._found: dict[int, array[int]] = {}
        for item in walk(source, header.overhead * SECTOR, grain):
            at = item.sector * SECTOR
            if item.kind != "grain" or at % grain or at >= self.size:
                continue
            number, index = divmod(at // grain, self._entries)
            if number not in self._found:
                self._found[number] = array("I", bytes(4 * self.used(number)))
            self._found[number][index] = item.offset // SECTOR
            self.end = max(self.end, min(self.size, at + grain))

    def places(self, first: int, end: int) -> Iterator[tuple[int, int, int]]:
        """See `Tables`."""
        yield from super().places(first, min(end, self.end))
        if max(first, self.end) < end:
            yield max(first, self.end), end, BEYOND

    def load(self, number: int) -> array[int] | int:
        """See `Tables`."""
        return self._found.get(number, ABSENT)

    def place(self, entry: int) -> int:
        """See `Tables`."""
        return entry * SECTOR if entry else ABSENT


class SeTables(Tables):
    """Of a space-efficient sparse extent."""

    code = "Q"

    def __init__(self, source: Source, header: SeHeader) -> None:
        """Read the directory.

        Raises:
            CorruptImageError: it does not lie in the file, or one of its entries means nothing.
        """
        grain = header.grain_size * SECTOR
        super().__init__(source, header.capacity * SECTOR, grain, header.table_size * SECTOR // 8)
        self._tables = header.tables_offset * SECTOR
        self._tables_end = self._tables + header.tables_size * SECTOR
        self._grains = header.grains_offset * SECTOR
        self._table_size = header.table_size * SECTOR
        offset = header.directory_offset * SECTOR
        if self.count * 8 > header.directory_size * SECTOR:
            raise self.broken(
                "grain directory",
                offset,
                f"{header.directory_size} sectors have no room for {self.count} tables",
            )
        self._directory = self.directory(offset, "grain directory")
        for number, entry in enumerate(self._directory):
            if entry and (entry >> 32 != structs.SE_TABLE_TYPE or self._at(entry) > self._tables_end):
                raise self.broken("grain directory", offset + 8 * number, f"entry {number} is {entry:#x}")

    def _at(self, entry: int) -> int:
        """Where the table of a directory entry ends."""
        return self._tables + ((entry & 0xFFFF_FFFF) + 1) * self._table_size

    def load(self, number: int) -> array[int] | int:
        """See `Tables`."""
        entry = self._directory[number]
        if not entry:
            return ABSENT
        return self._read(self.used(number), self._at(entry) - self._table_size, "grain table")

    def place(self, entry: int) -> int:
        """See `Tables`; an entry's upper bits are the lower ones of the grain's number."""
        kind = entry >> 60
        if kind == structs.SE_ALLOCATED:
            number = (entry >> 48 & 0xFFF) | (entry & 0xFFFF_FFFF_FFFF) << 12
            at = self._grains + number * self.grain
            return at if at + self.grain <= self.source.size else BEYOND
        if kind in (structs.SE_ZERO, structs.SE_UNMAPPED):
            return ZERO
        return ABSENT if not entry else BEYOND

    def beyond(self, table: array[int]) -> bool:
        """See `Tables`; the greatest entry need not be the last place."""
        return any(self.place(entry) == BEYOND for entry in table)
