"""The log of a new file, which makes the last changes to it count all at once.

Source: [MS-VHDX] 2.3.1.  The entries are one sequence whose tail is its first entry.  Each has one
sector of descriptors: qemu refuses longer ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vsssnap._crc32c import crc32c
from vsssnap.formats.vhdx import structs
from vsssnap.formats.vhdx.structs import Descriptor, LogEntryHeader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

Sector = tuple[int, bytes]
"""Where in the file, and the 4 KiB for there."""

MOST: Final = 2 * structs.FIRST_DESCRIPTORS
"""Sectors that a log of 1 MiB takes: two entries, and it is not full, so head and tail differ."""


def entries(guid: UUID, sectors: Sequence[Sector], end: int) -> bytes:
    """What stands at the begin of a log.

    Args:
        guid: The log's, as the header will have it.
        sectors: What to write; up to `MOST`.
        end: Bytes of the file; it must have them before that header is written.
    """
    each = structs.FIRST_DESCRIPTORS
    starts = range(0, len(sectors), each)
    return b"".join(
        _entry(guid, number, sectors[first : first + each], end) for number, first in enumerate(starts, 1)
    )


def _entry(guid: UUID, sequence: int, sectors: Sequence[Sector], end: int) -> bytes:
    low = sequence.to_bytes(8, "little")[:4]
    high = sequence.to_bytes(8, "little")[4:]
    # A data sector gives up its ends to the sequence number; the descriptor keeps them.
    parts = [
        Descriptor(structs.DATA_MAGIC, data[-4:], data[:8], offset, sequence).pack()
        for offset, data in sectors
    ]
    length = structs.LOG_SECTOR * (1 + len(sectors))
    head = LogEntryHeader(
        structs.LOG_ENTRY_MAGIC, 0, length, 0, sequence, len(sectors), 0, guid.bytes_le, end, end
    )
    body = [b"".join((head.pack(), *parts)).ljust(structs.LOG_SECTOR, b"\0")]
    body += [b"".join((structs.SECTOR_MAGIC, high, data[8:-4], low)) for _, data in sectors]
    entry = b"".join(body)
    at = structs.CHECKSUM_AT
    return entry[:at] + crc32c(entry).to_bytes(4, "little") + entry[at + 4 :]
