"""The head of a new VHDX file: what stands in it before the payload, and its complete mark.

Source: [MS-VHDX] 2.1 to 2.6.  The order is the one that Windows uses: header section, log of
1 MiB (empty), metadata region of 1 MiB, BAT region, payload.

The headers are the complete mark: without a valid one every reader must refuse the file (2.2.2).
The first one is written when all else is safe but the BAT, of which the log has a copy; so from
then on the image is whole, by the replay of the log at first (2.3).  When the BAT is safe too, two
headers follow that say that the log is empty.  The log has a fixed size: of a BAT that is larger
(a disk above 252 GiB with blocks of 2 MiB), the rest is written before the first header.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vsssnap._units import MIB, round_up
from vsssnap.errors import UsageError
from vsssnap.formats.vhdx import logwriter, structs
from vsssnap.formats.vhdx.layout import checksum_of
from vsssnap.formats.vhdx.structs import Header, MetadataEntry, MetadataHeader, RegionEntry, RegionHeader

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vsssnap.formats.storage import Storage
    from vsssnap.formats.vhdx.layout import Geometry, Layout
    from vsssnap.formats.vhdx.options import VhdxOptions

CREATOR: Final = "vsssnap"
LOG_OFFSET: Final = MIB
LOG_LENGTH: Final = MIB
METADATA_OFFSET: Final = 2 * MIB
_NO_LOG: Final = uuid.UUID(int=0)
_MAX_INHERITED: Final = 64 * MIB  # bytes of unknown items that a child takes over


@dataclass(frozen=True, slots=True)
class Identity:
    """The GUIDs of a new file."""

    file: uuid.UUID
    data: uuid.UUID
    disk: uuid.UUID
    log: uuid.UUID

    @classmethod
    def make(cls, fixed: uuid.UUID | None, parent: Layout | None) -> Identity:
        """New ones, or those that follow from ``fixed``; a child's disk is its parent's (2.6.1.2)."""
        data = fixed or uuid.uuid4()
        file = uuid.uuid5(fixed, "file") if fixed else uuid.uuid4()
        disk = uuid.uuid5(fixed, "disk") if fixed else uuid.uuid4()
        log = uuid.uuid5(fixed, "log") if fixed else uuid.uuid4()
        return cls(file, data, parent.disk_id if parent else disk, log)


@dataclass(frozen=True, slots=True)
class Head:
    """All of a new file that lies before its payload, but the BAT's entries.

    Attributes:
        geometry: Of the disk.
        identity: Of the file.
        metadata: The metadata region.
    """

    geometry: Geometry
    identity: Identity
    metadata: bytes

    @property
    def bat_offset(self) -> int:
        """Bytes."""
        return METADATA_OFFSET + len(self.metadata)

    @property
    def bat_length(self) -> int:
        """Bytes, whole MiB."""
        return round_up(self.geometry.entries * 8, MIB)

    @property
    def payload(self) -> int:
        """Where the first block may lie."""
        return self.bat_offset + self.bat_length

    def write(self, storage: Storage) -> None:
        """Everything but the BAT's entries and the headers."""
        creator = CREATOR.encode("utf-16-le").ljust(structs.CREATOR_SIZE, b"\0")
        storage.pwrite(structs.IDENTIFIER + creator, 0)
        table = self._region_table()
        for offset in structs.REGION_TABLES:
            storage.pwrite(table, offset)
        storage.pwrite(self.metadata, METADATA_OFFSET)

    def _region_table(self) -> bytes:
        regions = (
            (structs.BAT_REGION, self.bat_offset, self.bat_length),
            (structs.METADATA_REGION, METADATA_OFFSET, len(self.metadata)),
        )
        entries = [RegionEntry(guid.bytes_le, at, length, 1).pack() for guid, at, length in regions]
        head = RegionHeader(structs.REGION_MAGIC, 0, len(entries), 0).pack()
        return _sealed(b"".join((head, *entries)).ljust(structs.REGION_TABLE_SIZE, b"\0"))

    def complete(self, storage: Storage, bat: Iterable[bytes]) -> None:
        """Write the BAT and the headers, so that the image is whole at one instant; flushed.

        Args:
            storage: The file, at its full length and with all else in it.
            bat: The BAT's entries, in pieces of any length.
        """
        logged = self._write_rest(storage, bat)
        storage.pwrite(logwriter.entries(self.identity.log, logged, storage.size), LOG_OFFSET)
        storage.flush()
        first, second = structs.HEADERS
        # No flush between: without the header nobody looks at the BAT, and with it the log makes it right.
        self._write_header(storage, first, 1, self.identity.log)
        for offset, sector in logged:
            storage.pwrite(sector, offset)
        storage.flush()
        # From here on there is a valid one at any time.
        self._write_header(storage, second, 2, _NO_LOG)
        storage.flush()
        self._write_header(storage, first, 3, _NO_LOG)
        storage.flush()

    def _write_rest(self, storage: Storage, bat: Iterable[bytes]) -> list[logwriter.Sector]:
        """Write what of the BAT the log has no room for; give the rest as sectors."""
        most, size = logwriter.MOST * structs.LOG_SECTOR, structs.LOG_SECTOR
        begin = bytearray()
        at = self.bat_offset
        for piece in bat:
            rest = piece[max(0, most - len(begin)) :]
            begin += piece[: len(piece) - len(rest)]
            if rest.count(0) < len(rest):  # the file is all zero there
                storage.pwrite(rest, at + len(piece) - len(rest))
            at += len(piece)
        begin += bytes(-len(begin) % size)
        sectors = [(self.bat_offset + n, bytes(begin[n : n + size])) for n in range(0, len(begin), size)]
        # A log must hold an entry, and an entry something to write.
        return [one for one in sectors if any(one[1])] or sectors[:1]

    def _write_header(self, storage: Storage, offset: int, sequence: int, log: uuid.UUID) -> None:
        header = Header(
            structs.HEADER_MAGIC,
            0,
            sequence,
            self.identity.file.bytes_le,
            self.identity.data.bytes_le,
            log.bytes_le,
            0,
            1,
            LOG_LENGTH,
            LOG_OFFSET,
        )
        storage.pwrite(_sealed(header.pack().ljust(structs.HEADER_SIZE, b"\0")), offset)


def _sealed(data: bytes) -> bytes:
    """A header or region table with its checksum."""
    at = structs.CHECKSUM_AT
    return data[:at] + checksum_of(data).to_bytes(4, "little") + data[at + 4 :]


def head_of(
    geometry: Geometry, options: VhdxOptions, parent: Layout | None = None, locator: bytes = b""
) -> Head:
    """The head of a new file.

    Args:
        geometry: Of the disk.
        options: How it is made.
        parent: The head of its parent, for a differencing disk.
        locator: Its parent locator.

    Raises:
        UsageError: a sector size is none that a VHDX can have.
    """
    identity = Identity.make(options.identity, parent)
    physical = options.sector(
        parent.physical_sector if parent else 4096, options.physical_sector_size, "physical"
    )
    flags = structs.HAS_PARENT if parent else structs.LEAVE_ALLOCATED if options.fixed else 0
    disk = structs.IS_VIRTUAL_DISK | structs.IS_REQUIRED
    parameters = geometry.block_size.to_bytes(4, "little") + flags.to_bytes(4, "little")
    items = [
        (structs.FILE_PARAMETERS.bytes_le, structs.IS_REQUIRED, parameters),
        (structs.DISK_SIZE.bytes_le, disk, geometry.size.to_bytes(8, "little")),
        (structs.DISK_ID.bytes_le, disk, identity.disk.bytes_le),
        (structs.LOGICAL_SECTOR.bytes_le, disk, geometry.sector_size.to_bytes(4, "little")),
        (structs.PHYSICAL_SECTOR.bytes_le, disk, physical.to_bytes(4, "little")),
    ]
    if parent is not None:
        items.append((structs.PARENT_LOCATOR.bytes_le, structs.IS_REQUIRED, locator))
        items += _inherited(parent)
    return Head(geometry, identity, _metadata_region(items))


def _inherited(parent: Layout) -> list[tuple[bytes, int, bytes]]:
    """The items of the disk that are not known here: a child must have them too (2.6.1.2)."""
    total = sum(entry.length for entry in parent.inherited)
    if total > _MAX_INHERITED:
        raise UsageError(
            f"{parent.storage.name} has {total} bytes of foreign metadata, {_MAX_INHERITED} can be kept",
            hint="save a full image",
        )
    place = next(region.offset for region in parent.regions if region.name == "metadata region")
    return [
        (
            entry.item,
            entry.flags,
            parent.storage.pread(entry.length, place + entry.offset) if entry.length else b"",
        )
        for entry in parent.inherited
    ]


def _metadata_region(items: Sequence[tuple[bytes, int, bytes]]) -> bytes:
    at = structs.METADATA_TABLE_SIZE
    table = [MetadataHeader(structs.METADATA_MAGIC, 0, len(items), bytes(20)).pack()]
    parts = []
    for guid, flags, data in items:
        table.append(MetadataEntry(guid, at if data else 0, len(data), flags, 0).pack())
        parts.append(data)
        at += len(data)
    parts.insert(0, b"".join(table).ljust(structs.METADATA_TABLE_SIZE, b"\0"))
    return b"".join(parts).ljust(round_up(at, MIB), b"\0")
