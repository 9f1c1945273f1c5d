"""The seed of it all: a file whose header counts what its body holds.

A header of 4096 bytes (magic, number of records, CRC-32) and records of 512 bytes (number,
CRC-32, text) behind it.  A record is written first, the header after it, so at any one instant
the body holds as many records as the header says, or the one more that is being added.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

HEADER = 4096  # bytes
RECORD = 512  # bytes
OLD = 32768  # records that are there from the start: 16 MiB between the header and the new ones
ROOM = 16384  # records that can be added

_MAGIC = b"vsssnap demo records\n\0\0\0"
_HEAD = struct.Struct("<24sQI")
_RECORD = struct.Struct("<QI")


def header(count: int) -> bytes:
    """The first block of a file with ``count`` records."""
    crc = zlib.crc32(struct.pack("<Q", count))
    return _HEAD.pack(_MAGIC, count, crc).ljust(HEADER, b"\0")


def record(number: int) -> bytes:
    """Record ``number``, from 0."""
    text = (b"record %d of the demo; " % number * 32)[: RECORD - _RECORD.size]
    return _RECORD.pack(number, zlib.crc32(text, number & 0xFFFFFFFF)) + text


def place(number: int) -> int:
    """Where in the file a record lies."""
    return HEADER + number * RECORD


def initial(old: int) -> bytes:
    """What the file begins with."""
    return header(old) + b"".join(record(number) for number in range(old))


@dataclass(frozen=True, slots=True)
class RecordsFound:
    """What a copy of the file holds.

    Attributes:
        said: Records by its header; None if the header itself is broken.
        held: Records that are there and whole.
    """

    said: int | None
    held: int

    @property
    def ok(self) -> bool:
        """Whether this is the file as it was at some instant."""
        return self.said is not None and self.said <= self.held <= self.said + 1

    def __str__(self) -> str:
        said = "is broken" if self.said is None else f"says {self.said} records"
        return f"header {said}, body holds {self.held}"


def check(read: Callable[[int, int], bytes], room: int) -> RecordsFound:
    """Count.

    Args:
        read: Gives ``length`` bytes from ``offset`` of the file, fewer at its end.
        room: How many records there can be.
    """
    first = read(HEADER, 0).ljust(HEADER, b"\0")
    magic, said, crc = _HEAD.unpack_from(first)
    whole = magic == _MAGIC and crc == zlib.crc32(struct.pack("<Q", said))
    held = 0
    for begin in range(0, room, 2048):
        piece = read(2048 * RECORD, place(begin))
        for index in range(len(piece) // RECORD):
            at = index * RECORD
            number, crc = _RECORD.unpack_from(piece, at)
            text = piece[at + _RECORD.size : at + RECORD]
            held += number == begin + index and crc == zlib.crc32(text, number & 0xFFFFFFFF)
    return RecordsFound(said if whole else None, held)
