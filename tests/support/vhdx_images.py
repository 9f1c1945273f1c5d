"""VHDX images for tests: written in memory, taken apart and put together by the specification alone.

Nothing here uses the code under test but `write`, which calls the writer.  Offsets and layouts
are those of [MS-VHDX] 2.2 to 2.6; the checksum is RFC 3720's, bit by bit.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from vsssnap.errors import ImageNotFoundError
from vsssnap.formats import ImageReader, MemoryStorage
from vsssnap.formats.vhdx import VhdxFormat, VhdxOptions, VhdxReader
from vsssnap.metadata import ImageMetadata

MIB = 1 << 20
KIB = 1 << 10
FORMAT = VhdxFormat()
HEADERS = (64 * KIB, 128 * KIB)
REGION_TABLES = (192 * KIB, 256 * KIB)
LOG_GUID = UUID("3a1c6e55-9d3b-4c0e-8f2a-0123456789ab")
SECTOR = 4096  # of the log


def _table() -> list[int]:
    found = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return found


_CRC = _table()


def crc32c(data: bytes | bytearray) -> int:
    """CRC-32C, one byte at a time."""
    value = 0xFFFF_FFFF
    for byte in data:
        value = value >> 8 ^ _CRC[(value ^ byte) & 0xFF]
    return value ^ 0xFFFF_FFFF


def seal(data: bytearray, at: int, length: int) -> None:
    """Make the checksum of a header, region table or log entry right."""
    data[at + 4 : at + 8] = bytes(4)
    data[at + 4 : at + 8] = struct.pack("<I", crc32c(data[at : at + length]))


def write(
    content: bytes | bytearray,
    options: VhdxOptions | None = None,
    parent: ImageReader | None = None,
    *,
    skip: Iterable[int] = (),
) -> bytes:
    """An image of ``content``; ``skip`` are units that are neither stored nor marked."""
    storage = MemoryStorage(name="test.vhdx")
    writer = FORMAT.create(storage, len(content), options=options, parent=parent)
    for number, at in enumerate(range(0, len(content), writer.unit)):
        if number not in skip:
            writer.pwrite(memoryview(content)[at : at + writer.unit], at)
    writer.finish(ImageMetadata())
    writer.close()
    return bytes(storage.data)


def opened(data: bytes | bytearray, *parents: bytes | bytearray, recover: bool = False) -> VhdxReader:
    """Open an image; ``parents`` are those behind it, nearest first."""

    def resolve(candidates: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        assert format == "vhdx"
        if not candidates:
            raise ImageNotFoundError("no name at all")
        return opened(parents[0], *parents[1:], recover=recover)

    return FORMAT.open(
        MemoryStorage(bytes(data), "test.vhdx"), resolve_parent=resolve if parents else None, recover=recover
    )


def content(data: bytes | bytearray, *parents: bytes | bytearray) -> bytes:
    """All bytes of a disk."""
    with opened(data, *parents) as reader:
        return reader.pread(reader.size, 0)


@dataclass(frozen=True)
class Map:
    """Where things lie in a file that has a sound head: read anew, by the specification.

    Attributes:
        bat: Offset of the BAT.
        metadata: Offset of the metadata region.
        items: Offset and length of each metadata item in the file, by GUID.
        block_size: Bytes.
        size: Bytes of the disk.
        sector: Bytes of a logical sector.
    """

    bat: int
    metadata: int
    items: dict[UUID, tuple[int, int]]
    block_size: int
    size: int
    sector: int

    @property
    def ratio(self) -> int:
        """Payload blocks of a chunk."""
        return (1 << 23) * self.sector // self.block_size

    def payload(self, data: bytes | bytearray, block: int) -> tuple[int, int]:
        """State and file offset of a payload block."""
        (entry,) = struct.unpack_from("<Q", data, self.entry(block))
        return entry & 7, entry >> 20 << 20

    def entry(self, block: int) -> int:
        """Where in the file the BAT entry of a payload block lies."""
        return self.bat + 8 * (block + block // self.ratio)

    def bitmap_entry(self, block: int) -> int:
        """Where in the file the BAT entry of its sector bitmap lies."""
        return self.bat + 8 * (block // self.ratio * (self.ratio + 1) + self.ratio)


_BAT = UUID("2DC27766-F623-4200-9D64-115E9BFD4A08")
_METADATA = UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E")
FILE_PARAMETERS = UUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
DISK_SIZE = UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
DISK_ID = UUID("BECA12AB-B2E6-4523-93EF-C309E000C746")
LOGICAL_SECTOR = UUID("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
PHYSICAL_SECTOR = UUID("CDA348C7-445D-4471-9CC9-E9885251C556")
PARENT_LOCATOR = UUID("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")


def map_of(data: bytes | bytearray) -> Map:
    """Read a head."""
    regions = {}
    (count,) = struct.unpack_from("<I", data, REGION_TABLES[0] + 8)
    for number in range(count):
        guid, offset = struct.unpack_from("<16sQ", data, REGION_TABLES[0] + 16 + 32 * number)
        regions[UUID(bytes_le=guid)] = offset
    place = regions[_METADATA]
    (count,) = struct.unpack_from("<H", data, place + 10)
    items = {}
    for number in range(count):
        guid, offset, length = struct.unpack_from("<16sII", data, place + 32 + 32 * number)
        items[UUID(bytes_le=guid)] = (place + offset, length)
    return Map(
        regions[_BAT],
        place,
        items,
        struct.unpack_from("<I", data, items[FILE_PARAMETERS][0])[0],
        struct.unpack_from("<Q", data, items[DISK_SIZE][0])[0],
        struct.unpack_from("<I", data, items[LOGICAL_SECTOR][0])[0],
    )


def set_header(data: bytearray, layout: str, at: int, *values: object, only: Sequence[int] = (0, 1)) -> None:
    """Pack values into both headers, or ``only`` one, and make the checksum right."""
    for number in only:
        struct.pack_into(layout, data, HEADERS[number] + at, *values)
        seal(data, HEADERS[number], 4096)


# The log, 2.3.


@dataclass(frozen=True)
class Zero:
    """A zero descriptor."""

    offset: int
    length: int


@dataclass(frozen=True)
class Data:
    """A data descriptor and its 4 KiB."""

    offset: int
    sector: bytes


def log_entry(
    sequence: int,
    tail: int,
    writes: Sequence[Zero | Data],
    *,
    guid: UUID = LOG_GUID,
    flushed: int = 0,
    last: int = 0,
    padding: int = 0,
) -> bytes:
    """An entry; ``padding`` sectors lie behind its last data sector."""
    descriptors, sectors = b"", b""
    for one in writes:
        if isinstance(one, Zero):
            descriptors += struct.pack("<4sIQQQ", b"zero", 0, one.length, one.offset, sequence)
            continue
        assert len(one.sector) == SECTOR
        descriptors += struct.pack(
            "<4s4s8sQQ", b"desc", one.sector[-4:], one.sector[:8], one.offset, sequence
        )
        high, low = sequence >> 32, sequence & 0xFFFF_FFFF
        sectors += struct.pack("<4sI4084sI", b"data", high, one.sector[8:-4], low)
    first = 64 + len(descriptors)
    first += -first % SECTOR
    length = first + len(sectors) + padding * SECTOR
    head = struct.pack(
        "<4sIIIQII16sQQ",
        b"loge",
        0,
        length,
        tail,
        sequence,
        len(writes),
        0,
        guid.bytes_le,
        flushed,
        last,
    )
    entry = bytearray((head + descriptors).ljust(first, b"\0") + sectors)
    entry += bytes(length - len(entry))
    seal(entry, 0, length)
    return bytes(entry)


def with_log(data: bytes, entries: Iterable[tuple[int, bytes]], *, guid: UUID | None = LOG_GUID) -> bytearray:
    """The file with entries in its log, each at its place in the ring, and ``guid`` in its headers."""
    result = bytearray(data)
    length, offset = struct.unpack_from("<IQ", data, HEADERS[0] + 68)
    for at, entry in entries:
        for start in range(0, len(entry), SECTOR):
            place = offset + (at + start) % length
            result[place : place + SECTOR] = entry[start : start + SECTOR]
    if guid is not None:
        set_header(result, "<16s", 48, guid.bytes_le)
    return result
