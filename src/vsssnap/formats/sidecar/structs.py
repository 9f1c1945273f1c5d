"""Structures of the side-car file.

Source: docs/formats/sidecar.md.  All integers are little-endian, all offsets bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import xxhash

from vsssnap._record import U32, U64, Bytes8, Bytes16, Bytes32, Record
from vsssnap._units import KIB, MAX_SIZE, MIB

HEADER_MAGIC: Final = b"VSSSIDE\x1a"
FOOTER_MAGIC: Final = b"VSSSEND\x1a"
VERSION: Final = 1
KNOWN_INCOMPATIBLE: Final = 0  # bits of features that this version can read

PAGE: Final = 4096  # bytes of a table page, of the header and of the footer
SUM_AT: Final = PAGE - 16  # where the checksum of each of them lies
DIGEST: Final = 16  # bytes of a checksum
ENTRIES: Final = SUM_AT // DIGEST  # blocks a page: 255
STATE: Final = 24  # bytes of a state

BLOCK_SIZE: Final = 256 * KIB
MIN_BLOCK: Final = 4 * KIB
MAX_BLOCK: Final = 16 * MIB
MAX_NAME: Final = 32  # bytes of a format's name

NO_DIGEST: Final = bytes(DIGEST)
"""The entry of a block that is all zero."""

Uuid = Annotated[bytes, "16s"]


class Header(Record, size=88, byteorder="<"):
    """First page of the file; the rest is zero up to the checksum at `SUM_AT`."""

    magic: Bytes8  # HEADER_MAGIC
    version: U32
    block_size: U32  # bytes, a power of two from MIN_BLOCK to MAX_BLOCK
    incompatible: U64  # features a reader must know
    compatible: U64  # features a reader may ignore
    volume_size: U64  # bytes, below 2**63
    identity: Uuid  # random; makes the checksums of this file its own
    format: Bytes32  # name of the image's format, UTF-8, padded with zeros


class State(Record, size=STATE, byteorder="<"):
    """A range that is no plain content."""

    offset: U64  # of the volume
    length: U64  # at least 1
    kind: U64  # see KINDS


class Footer(Record, size=104, byteorder="<"):
    """Last page of the file; the rest is zero up to the checksum at `SUM_AT`."""

    magic: Bytes8  # FOOTER_MAGIC
    identity: Uuid  # the header's
    file_length: U64  # bytes of the whole file
    page_count: U64  # table pages that are not all zero
    state_count: U64
    metadata_length: U64  # bytes
    page_sum: Bytes16  # sum of those pages' checksums, as big-endian numbers, modulo 2**128
    states_checksum: Bytes16
    metadata_checksum: Bytes16


def seed(identity: bytes, offset: int) -> int:
    """The seed of a structure's checksum: a page of another file or place never passes."""
    return (int.from_bytes(identity[:8], "little") + offset) & 0xFFFF_FFFF_FFFF_FFFF


def checksum(data: bytes | bytearray | memoryview, identity: bytes, offset: int) -> bytes:
    """The checksum of a structure that lies at ``offset``."""
    return xxhash.xxh3_128_digest(data, seed(identity, offset))


def sealed(record: Record, identity: bytes, offset: int) -> bytes:
    """A header or footer as its page, with its checksum."""
    body = record.pack().ljust(SUM_AT, b"\0")
    return body + checksum(body, identity, offset)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the parts of a side-car lie; all of it follows from two numbers.

    Attributes:
        size: Bytes of the volume.
        block_size: Bytes of the blocks that have a checksum each; the last may be shorter.
    """

    size: int
    block_size: int

    @property
    def blocks(self) -> int:
        """Blocks of the volume."""
        return -(-self.size // self.block_size)

    @property
    def pages(self) -> int:
        """Pages of the table."""
        return -(-self.blocks // ENTRIES)

    @property
    def states_at(self) -> int:
        """Where the table ends and the states begin."""
        return PAGE * (1 + self.pages)

    @property
    def span(self) -> int:
        """Bytes of the volume that one page speaks of."""
        return ENTRIES * self.block_size

    def page_at(self, page: int) -> int:
        """Where a page of the table lies."""
        return PAGE * (1 + page)


def problem_of(header: Header) -> str:
    """What is wrong with a header whose checksum is right, or ""."""
    size = header.block_size
    if not MIN_BLOCK <= size <= MAX_BLOCK or size & (size - 1):
        return f"block size {size} is no power of two from {MIN_BLOCK} to {MAX_BLOCK}"
    if header.volume_size > MAX_SIZE:
        return f"volume size {header.volume_size} is above 2**63 - 1"
    return ""
