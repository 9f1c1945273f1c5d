"""What stands at the head of a VHDX file: headers, regions, metadata; read, checked, bounded.

Source: [MS-VHDX] 2.2, 2.5, 2.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from vsssnap._crc32c import append_zeros, crc32c
from vsssnap._units import MIB, is_power_of_two
from vsssnap.errors import CorruptImageError, UnsupportedFeatureError
from vsssnap.formats.vhdx import log, structs
from vsssnap.formats.vhdx.locator import Locator
from vsssnap.formats.vhdx.locator import parse as parse_locator
from vsssnap.formats.vhdx.structs import Header, MetadataEntry, MetadataHeader, RegionEntry, RegionHeader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vsssnap.formats.storage import Storage

_ITEMS = {
    structs.FILE_PARAMETERS: 8,
    structs.DISK_SIZE: 8,
    structs.DISK_ID: 16,
    structs.LOGICAL_SECTOR: 4,
    structs.PHYSICAL_SECTOR: 4,
    structs.PARENT_LOCATOR: 0,
}
"""Known items and their sizes; 0: any."""


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of the file that payload must not touch."""

    name: str
    offset: int
    length: int

    @property
    def end(self) -> int:
        """First byte behind it."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Geometry:
    """The numbers that place a block; see 2.4 and 2.5.

    Attributes:
        size: Bytes of the disk.
        block_size: Bytes of a payload block.
        sector_size: Bytes of a logical sector: what one bit of a sector bitmap tells of.
        has_parent: Whether it is a differencing disk.
    """

    size: int
    block_size: int
    sector_size: int
    has_parent: bool

    @property
    def ratio(self) -> int:
        """Payload blocks of a chunk."""
        return structs.CHUNK_SECTORS * self.sector_size // self.block_size

    @property
    def blocks(self) -> int:
        """Payload blocks of the disk."""
        return -(-self.size // self.block_size)

    @property
    def entries(self) -> int:
        """Entries that the BAT needs."""
        if self.has_parent:
            return -(-self.blocks // self.ratio) * (self.ratio + 1)
        return self.blocks + max(0, self.blocks - 1) // self.ratio

    def entry_of(self, block: int) -> int:
        """Number of a payload block's entry."""
        return block + block // self.ratio

    def bitmap_entry_of(self, block: int) -> int:
        """Number of the entry of the sector bitmap block that tells of a payload block."""
        chunk = block // self.ratio
        return chunk * (self.ratio + 1) + self.ratio

    def bitmap_place(self, block: int) -> int:
        """First byte in its sector bitmap block of the bits of a payload block."""
        return block % self.ratio * (self.block_size // self.sector_size // 8)


@dataclass(frozen=True, slots=True)
class Layout:
    """A file's head.

    Attributes:
        storage: The file, with its log replayed.
        header: The current header.
        creator: Who made the file.
        regions: BAT, metadata, log, and regions that are not known.
        bat: Of the BAT.
        geometry: Of the disk.
        fixed: Whether all blocks are to stay allocated.
        disk_id: Of the disk.
        physical_sector: Bytes.
        locator: Of the parent, if there is one.
        inherited: Unknown items of the disk, which a child takes over.
        log: ``"empty"``, ``"replayed"``, or ``"ignored"`` where recovering.
        complete: Whether header, region table and log are valid; always, unless recovering.
    """

    storage: Storage
    header: Header
    creator: str
    regions: tuple[Region, ...]
    bat: Region
    geometry: Geometry
    fixed: bool
    disk_id: UUID
    physical_sector: int
    locator: Locator | None
    inherited: tuple[MetadataEntry, ...]
    log: str
    complete: bool


def corrupt(storage: Storage, structure: str, offset: int, message: str, hint: str = "") -> CorruptImageError:
    """The error for a broken rule."""
    return CorruptImageError(
        f"{storage.name}: {structure} at byte {offset}: {message}",
        path=storage.name,
        structure=structure,
        offset=offset,
        hint=hint,
    )


def checksum_of(data: bytes) -> int:
    """The CRC-32C of a header or region table, its checksum field as zero."""
    at = structs.CHECKSUM_AT
    body = b"".join((data[:at], bytes(4), data[at + 4 :])).rstrip(b"\0")
    return append_zeros(crc32c(body), len(data) - len(body))


def checksum_holds(data: bytes) -> bool:
    """Whether the checksum of a header or region table agrees."""
    at = structs.CHECKSUM_AT
    return checksum_of(data) == int.from_bytes(data[at : at + 4], "little")


def read_headers(storage: Storage, *, checked: bool = True) -> list[Header | None]:
    """Both headers; None for one that is not valid (or, unchecked, is none at all)."""
    found: list[Header | None] = []
    for offset in structs.HEADERS:
        if storage.size < offset + structs.HEADER_SIZE:
            found.append(None)
            continue
        data = storage.pread(structs.HEADER_SIZE, offset)
        valid = data[:4] == structs.HEADER_MAGIC and (not checked or checksum_holds(data))
        found.append(Header.unpack(data) if valid else None)
    return found


def read_regions(storage: Storage, offset: int, *, checked: bool = True) -> list[RegionEntry] | None:
    """One copy of the region table; None if it is not valid (or, unchecked, is none at all)."""
    if storage.size < offset + structs.REGION_TABLE_SIZE:
        return None
    data = storage.pread(structs.REGION_TABLE_SIZE, offset)
    header = RegionHeader.unpack(data)
    if (
        header.signature != structs.REGION_MAGIC
        or header.count > structs.MAX_ENTRIES
        or (checked and not checksum_holds(data))
    ):
        return None
    return [RegionEntry.unpack(data, 16 + n * RegionEntry.SIZE) for n in range(header.count)]


def load(storage: Storage, *, recover: bool = False) -> Layout:
    """Read the head of a file; the log is replayed in memory first.

    Raises:
        CorruptImageError: it breaks a rule that reading depends on.
        UnsupportedFeatureError: it requires what is not known here.
    """
    if storage.size < structs.HEADER_SECTION or storage.pread(8, 0) != structs.IDENTIFIER:
        raise corrupt(storage, "file type identifier", 0, 'it is not "vhdxfile", or the file is cut short')
    creator = storage.pread(structs.CREATOR_SIZE, 8).decode("utf-16-le", "replace").partition("\0")[0]
    header, complete = _current(storage, recover)
    if header.version != 1:
        raise UnsupportedFeatureError(
            f"{storage.name} is of VHDX version {header.version}, only 1 is known",
            path=storage.name,
            feature=f"version {header.version}",
        )
    state = "empty"
    if log.is_dirty(header):
        try:
            storage, state = log.replay(storage, header), "replayed"
        except CorruptImageError:
            if not recover:
                raise
            state = "ignored"
    regions, sound = _regions(storage, header, recover)
    complete = complete and sound and state != "ignored"
    known, inherited = _items(storage, regions["metadata region"])
    return _layout(
        storage, header, creator, tuple(regions.values()), known, inherited, state, complete=complete
    )


def _current(storage: Storage, recover: bool) -> tuple[Header, bool]:
    """The current header, and whether it is valid."""
    valid = [header for header in read_headers(storage) if header is not None]
    if valid:
        return max(valid, key=lambda header: header.sequence), True
    if not recover:
        raise corrupt(
            storage,
            "header",
            structs.HEADERS[0],
            "neither of the two is valid",
            "the image was never completed or is damaged; pass recover=True to read what is there",
        )
    damaged = [header for header in read_headers(storage, checked=False) if header is not None]
    # Without a header there is no log and no identity; all else can be found without it.
    blank = Header(structs.HEADER_MAGIC, 0, 0, bytes(16), bytes(16), bytes(16), 0, 1, 0, 0)
    return max(damaged, key=lambda header: header.sequence, default=blank), False


def _regions(storage: Storage, header: Header, recover: bool) -> tuple[dict[str, Region], bool]:
    """The regions by name, and whether a table that says so is valid."""
    tables = [read_regions(storage, offset) for offset in structs.REGION_TABLES]
    if recover:
        tables += [read_regions(storage, offset, checked=False) for offset in structs.REGION_TABLES]
    entries = next((table for table in tables if table is not None), None)
    if entries is None:
        offset = structs.REGION_TABLES[0]
        raise corrupt(storage, "region table", offset, "neither of the two copies is valid")
    names = {structs.BAT_REGION: "BAT", structs.METADATA_REGION: "metadata region"}
    found: dict[str, Region] = {}
    for entry in entries:
        guid = UUID(bytes_le=entry.guid)
        name = names.get(guid)
        if name is None and entry.required & 1:
            raise UnsupportedFeatureError(
                f"{storage.name} requires the unknown region {guid}",
                path=storage.name,
                feature=f"region {guid}",
            )
        name = name or f"region {guid}"
        if name in found:
            raise corrupt(storage, "region table", entry.offset, f"{name} is there twice")
        region = Region(name, entry.offset, entry.length)
        if region.offset < structs.HEADER_SECTION or region.offset % MIB or region.length % MIB:
            raise corrupt(storage, name, region.offset, f"{region.length} bytes there, not whole MiB")
        if region.end > storage.size:
            raise corrupt(
                storage, name, region.offset, f"{region.length} bytes, the file ends at byte {storage.size}"
            )
        found[name] = region
    for name in names.values():
        if name not in found:
            raise corrupt(storage, "region table", structs.REGION_TABLES[0], f"it has no {name}")
    if header.log_length:
        found["log"] = Region("log", header.log_offset, header.log_length)
    for one, other in overlaps(found.values()):
        if not recover:
            raise corrupt(storage, one.name, one.offset, f"its {one.length} bytes overlap the {other.name}")
    return found, tables[0] is not None or tables[1] is not None


def overlaps(regions: Iterable[Region]) -> Iterator[tuple[Region, Region]]:
    """Pairs that share bytes, of neighbours by place."""
    last: Region | None = None
    for region in sorted(regions, key=lambda region: region.offset):
        if last is not None and region.length and region.offset < last.end:
            yield region, last
        if last is None or region.end > last.end:
            last = region


def read_table(storage: Storage, region: Region) -> list[MetadataEntry]:
    """The entries of the metadata table.

    Raises:
        CorruptImageError: it is not one.
    """
    if region.length < structs.METADATA_TABLE_SIZE:
        raise corrupt(storage, "metadata table", region.offset, f"{region.length} bytes are too few")
    data = storage.pread(structs.METADATA_TABLE_SIZE, region.offset)
    header = MetadataHeader.unpack(data)
    if header.signature != structs.METADATA_MAGIC or header.count > structs.MAX_ENTRIES:
        raise corrupt(storage, "metadata table", region.offset, f"no table, or of {header.count} entries")
    return [MetadataEntry.unpack(data, 32 + n * MetadataEntry.SIZE) for n in range(header.count)]


def _items(storage: Storage, region: Region) -> tuple[dict[UUID, bytes], tuple[MetadataEntry, ...]]:
    """The known items, and the entries of those that a child takes over unseen."""
    found: dict[UUID, bytes] = {}
    inherited: list[MetadataEntry] = []
    seen: set[tuple[UUID, int]] = set()
    for entry in read_table(storage, region):
        guid = UUID(bytes_le=entry.item)
        key = (guid, entry.flags & structs.IS_USER)
        known = guid in _ITEMS and not key[1]
        if not known and entry.flags & structs.IS_REQUIRED:
            raise UnsupportedFeatureError(
                f"{storage.name} requires the unknown metadata item {guid}",
                path=storage.name,
                feature=f"metadata item {guid}",
            )
        if key in seen:
            raise corrupt(storage, "metadata table", region.offset, f"item {guid} is there twice")
        seen.add(key)
        place = region.offset + entry.offset
        inside = structs.METADATA_TABLE_SIZE <= entry.offset <= region.length - entry.length
        if entry.length > structs.MAX_ITEM or not (inside or not entry.length):
            raise corrupt(storage, "metadata item", place, f"{guid} has {entry.length} bytes there")
        if known:
            if entry.length < _ITEMS[guid]:
                raise corrupt(storage, "metadata item", place, f"{guid} has only {entry.length} bytes")
            found[guid] = storage.pread(entry.length, place) if entry.length else b""
        elif entry.flags & structs.IS_VIRTUAL_DISK:
            inherited.append(entry)
    return found, tuple(inherited)


def _layout(
    storage: Storage,
    header: Header,
    creator: str,
    regions: tuple[Region, ...],
    known: dict[UUID, bytes],
    inherited: tuple[MetadataEntry, ...],
    state: str,
    *,
    complete: bool,
) -> Layout:
    bat = next(region for region in regions if region.name == "BAT")
    place = next(region.offset for region in regions if region.name == "metadata region")

    def number(guid: UUID, at: int = 0, size: int = 0) -> int:
        if guid not in known:
            raise corrupt(storage, "metadata table", place, f"the required item {guid} is missing")
        return int.from_bytes(known[guid][at : at + (size or _ITEMS[guid])], "little")

    block_size = number(structs.FILE_PARAMETERS, 0, 4)
    flags = number(structs.FILE_PARAMETERS, 4, 4)
    size = number(structs.DISK_SIZE)
    sector, physical = number(structs.LOGICAL_SECTOR), number(structs.PHYSICAL_SECTOR)
    number(structs.DISK_ID)
    if not structs.MIN_BLOCK <= block_size <= structs.MAX_BLOCK or not is_power_of_two(block_size):
        raise corrupt(storage, "file parameters", place, f"blocks of {block_size} bytes")
    if sector not in structs.SECTOR_SIZES or physical not in structs.SECTOR_SIZES:
        raise corrupt(storage, "sector sizes", place, f"{sector} and {physical} bytes, not 512 or 4096")
    if size > structs.MAX_DISK or size % sector:
        raise corrupt(
            storage, "virtual disk size", place, f"{size} bytes: above 64 TiB, or no sectors of {sector}"
        )
    geometry = Geometry(size, block_size, sector, bool(flags & structs.HAS_PARENT))
    if geometry.entries * 8 > bat.length:
        raise corrupt(
            storage, "BAT", bat.offset, f"{bat.length} bytes cannot hold {geometry.entries} entries"
        )
    locator = None
    if geometry.has_parent:
        if structs.PARENT_LOCATOR not in known:
            raise corrupt(storage, "metadata table", place, "a differencing disk without a parent locator")
        try:
            locator = parse_locator(known[structs.PARENT_LOCATOR])
        except (CorruptImageError, UnsupportedFeatureError) as exc:
            exc.path = storage.name
            exc.message = f"{storage.name}: {exc.message}"
            raise
    return Layout(
        storage=storage,
        header=header,
        creator=creator,
        regions=regions,
        bat=bat,
        geometry=geometry,
        fixed=bool(flags & structs.LEAVE_ALLOCATED) and not geometry.has_parent,
        disk_id=UUID(bytes_le=known[structs.DISK_ID][:16]),
        physical_sector=physical,
        locator=locator,
        inherited=inherited,
        log=state,
        complete=complete,
    )
