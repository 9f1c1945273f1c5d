"""The volume header and the catalog: which shadow copies there are, and where their stores lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from uuid import UUID

from vsssnap.errors import CorruptImageError, DeviceReadError, ImageError, UnsupportedFeatureError
from vsssnap.volumes.shadow.nodes import walk
from vsssnap.volumes.shadow.structs import (
    BLOCK,
    ENTRY_SIZE,
    HEADER_OFFSET,
    IDENTIFIER,
    NODE_SIZE,
    VERSIONS,
    EntryType,
    LocationEntry,
    NodeHeader,
    RecordType,
    SnapshotEntry,
    VolumeHeader,
)

if TYPE_CHECKING:
    from vsssnap.blocks.reader import BlockReader

BOOT_SIZE: Final = 512  # bytes of the boot sector that are looked at
MOST_SNAPSHOTS: Final = 1024  # Windows keeps up to 512 of a volume
MOST_ENTRIES: Final = 1 << 16  # a volume can hold the stores of many others


def read_header(reader: BlockReader) -> VolumeHeader | None:
    """The volume header; None where the volume never had shadow copies.

    Raises:
        CorruptImageError: there is one and it is damaged.
        UnsupportedFeatureError: it is of an unknown version.
        DeviceReadError: it cannot be read.
    """
    data = reader.pread(NodeHeader.SIZE + VolumeHeader.SIZE, HEADER_OFFSET)
    if len(data) < NodeHeader.SIZE + VolumeHeader.SIZE or data[:16] != IDENTIFIER:
        return None
    node = NodeHeader.unpack(data)
    if node.record_type != RecordType.VOLUME_HEADER or node.own_offset != HEADER_OFFSET:
        raise CorruptImageError(
            f"the volume header at {HEADER_OFFSET} is of type {node.record_type} and belongs at"
            f" {node.own_offset}",
            structure="volume header",
            offset=HEADER_OFFSET,
        )
    if node.version not in VERSIONS:
        raise UnsupportedFeatureError(
            f"the volume header is of version {node.version}", feature=f"version {node.version}"
        )
    return VolumeHeader.unpack(data, NodeHeader.SIZE)


@dataclass
class Catalog:
    """What could be read of a catalog.

    Attributes:
        snapshots: Shadow copies of this volume.
        locations: Stores on this volume, by store id.
        doubled: Store ids that stand in it more than once.
        problems: What could not be read, a sentence each.
    """

    snapshots: list[SnapshotEntry] = field(default_factory=list)
    locations: dict[UUID, LocationEntry] = field(default_factory=dict)
    doubled: set[UUID] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def count(self) -> int:
        """Entries that took memory."""
        return len(self.snapshots) + len(self.locations) + len(self.problems)


def read_catalog(reader: BlockReader, first: int) -> Catalog:
    """Read as much of a catalog as is readable."""
    catalog = Catalog()
    seen: set[UUID] = set()
    blocks = walk(reader, first, RecordType.CATALOG)
    while True:
        try:
            offset, block = next(blocks)
        except StopIteration:
            return catalog
        except (ImageError, DeviceReadError) as exc:
            catalog.problems.append(f"the catalog cannot be read to its end: {exc}")
            return catalog
        for at in range(NODE_SIZE, BLOCK - ENTRY_SIZE + 1, ENTRY_SIZE):
            kind = int.from_bytes(block[at : at + 4], "little")
            if kind == EntryType.SNAPSHOT:
                snapshot = SnapshotEntry.unpack(block, at)
                store_id = UUID(bytes_le=snapshot.store_id)
                if store_id in seen:
                    catalog.doubled.add(store_id)
                seen.add(store_id)
                catalog.snapshots.append(snapshot)
            elif kind == EntryType.LOCATION:
                location = LocationEntry.unpack(block, at)
                store_id = UUID(bytes_le=location.store_id)
                if store_id in catalog.locations:
                    catalog.doubled.add(store_id)
                catalog.locations[store_id] = location
            elif kind not in (EntryType.EMPTY, EntryType.FREE):
                catalog.problems.append(f"the catalog's entry at {offset + at} is of the unknown type {kind}")
            if catalog.count() > MOST_ENTRIES or len(catalog.snapshots) > MOST_SNAPSHOTS:
                catalog.problems.append(f"the catalog has more entries than can be, {catalog.count()} so far")
                return catalog


@dataclass(frozen=True, slots=True)
class Boot:
    """What the boot sector of an NTFS volume says; zeros where it is none.

    Attributes:
        sector_size: Bytes.
        size: Bytes of the volume, its last sector, a copy of the first one, included.
    """

    sector_size: int
    size: int


def read_boot(reader: BlockReader) -> Boot:
    """The volume's own idea of its size; zeros if it has none or cannot be read."""
    try:
        data = reader.pread(BOOT_SIZE, 0)
    except DeviceReadError:
        return Boot(0, 0)
    sector = int.from_bytes(data[11:13], "little")
    if data[3:11] != b"NTFS    " or sector not in (256, 512, 1024, 2048, 4096):
        return Boot(0, 0)
    return Boot(sector, (int.from_bytes(data[40:48], "little") + 1) * sector)
