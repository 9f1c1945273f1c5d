"""Data frames: their bodies, and plain bytes out of their segments.

Source: docs/formats/vsnap.md, section 4.
"""

from __future__ import annotations

import struct
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import xxhash

from vsssnap.formats.vsnap import states, structs
from vsssnap.formats.vsnap.codec import check_of, decompress, most_stored
from vsssnap.formats.vsnap.frames import Frame, corrupt
from vsssnap.formats.vsnap.states import CellStates
from vsssnap.formats.vsnap.structs import DataBody

if TYPE_CHECKING:
    from vsssnap.formats.vsnap.layout import Geometry

SEGMENT = struct.Struct("<I16s")
"""A segment in the table: its stored bytes, and their check."""

# FrameHead, DataBody and the lead of its cell states.
_USUAL = struct.Struct("<II8sHHIQ16s16sQ16s32sIHHBBH")
_USUAL_HEAD = (structs.SKIPPABLE, structs.MAGIC, structs.DATA_FRAME, structs.CRITICAL | structs.OUTER)


class DataFrame(NamedTuple):
    """A data frame whose box was checked; its payload was not.

    Attributes:
        chunk: Which chunk.
        origin: Image id of the file for which it was first stored.
        digest: Of the whole plain chunk, as that image has it.
        states: Of the chunk's cells in this file; DATA are the cells stored here.
        plain_length: Bytes of the stored cells.
        segment_size: Plain bytes of a segment.
        ends: Where each segment ends in the payload; 0 first.
        checks: Of the stored bytes of each segment.
        payload_at: Where the payload begins in the file.
    """

    chunk: int
    origin: bytes
    digest: bytes
    states: CellStates
    plain_length: int
    segment_size: int
    ends: tuple[int, ...]
    checks: tuple[bytes, ...]
    payload_at: int

    @property
    def segment_count(self) -> int:
        """How many segments."""
        return len(self.checks)

    @property
    def memory(self) -> int:
        """Bytes it takes in a cache, roughly."""
        return 600 + 90 * len(self.checks)

    def plain(self, index: int) -> int:
        """Plain bytes of a segment."""
        return min(self.segment_size, self.plain_length - index * self.segment_size)

    def check(self, index: int, stored: bytes | memoryview, path: str) -> None:
        """Compare a segment's stored bytes with its check.

        Raises:
            CorruptImageError: they were damaged.
        """
        if check_of(stored) != self.checks[index]:
            raise corrupt(
                f"the check of segment {index} of chunk {self.chunk} does not agree",
                "data frame",
                self.payload_at + self.ends[index],
                path,
            )

    def check_all(self, stored: memoryview, path: str) -> None:
        """Compare a whole payload with its checks; raises as `check` does."""
        start = 0
        for end, check in zip(self.ends[1:], self.checks, strict=True):
            if check_of(stored[start:end]) != check:
                self.check(self.ends.index(start), stored[start:end], path)
            start = end

    def decode(self, index: int, stored: bytes | memoryview, path: str) -> bytes:
        """A segment's plain bytes; checks first.

        Raises:
            CorruptImageError: it was damaged or breaks a rule.
        """
        self.check(index, stored, path)
        return decompress(stored, self.plain(index), self.payload_at + self.ends[index], path)


def pack_data(
    head: DataBody, cell_states: CellStates, width: int, segments: list[bytes], checks: list[bytes]
) -> bytes:
    """The body of a data frame."""
    table = [SEGMENT.pack(len(segment), check) for segment, check in zip(segments, checks, strict=True)]
    return b"".join((head.pack(), cell_states.pack(width, with_data=True), *table))


def usual_data(
    data: bytes | memoryview, at: int, position: int, image_id: bytes, geometry: Geometry
) -> DataFrame | None:
    """The box of a data frame that is like nearly all, checked; None leaves it to the general way.

    The rules are those of `read_frame` and `parse_data`, in one go: to decode a segment, or to check what is
    stored, takes no longer than all the objects that those make.

    Args:
        data: Where the box lies, whole or not.
        at: Its first byte there.
        position: Its first byte in the file.
        image_id: The file's.
        geometry: The file's.
    """
    table = at + _USUAL.size + geometry.width
    if table > len(data):
        return None
    (lead, length, magic, kind, flags, stored, own_position, image, check, chunk, origin, digest, plain,
     segments, reserved, state_flags, maps, more) = _USUAL.unpack_from(data, at)  # fmt: skip
    end = at + 8 + length
    cells = int.from_bytes(data[at + _USUAL.size : table], "little")
    usual = (
        (lead, magic, kind, flags, own_position) == (*_USUAL_HEAD, position)
        and image == image_id
        and chunk < geometry.chunk_count - 1  # the last chunk may be short
        and (reserved, state_flags, maps, more) == (0, 0, 1, 0)
        and cells >> geometry.cells_per_chunk == 0
        and 0 < plain == cells.bit_count() * geometry.cell_size
        and segments == -(-plain // geometry.segment_size)
        and end == table + segments * SEGMENT.size <= len(data)
    )
    if not usual:
        return None
    box_check = xxhash.xxh3_128(data[at : at + structs.CHECK_AT])
    box_check.update(data[at + structs.HEAD : end])
    if box_check.digest() != check:
        return None
    lengths, checks = zip(*SEGMENT.iter_unpack(data[table:end]), strict=True)
    ends = (0, *accumulate(lengths))
    size = geometry.segment_size
    last = plain - (segments - 1) * size
    fits = min(lengths) > 0 and max(lengths) <= most_stored(size) and lengths[-1] <= most_stored(last)
    if not fits or ends[-1] != stored:
        return None
    states = CellStates(cells)
    return DataFrame(chunk, origin, digest, states, plain, size, ends, checks, position + end - at)


def parse_data(frame: Frame, geometry: Geometry, path: str) -> DataFrame:
    """Check the body of a data frame.

    Raises:
        CorruptImageError: it breaks a rule of section 4.
    """
    body = frame.body
    head = DataBody.unpack(body)
    if head.reserved or head.chunk >= geometry.chunk_count:
        raise corrupt(f"chunk {head.chunk} of {geometry.chunk_count}", "data frame", frame.offset, path)
    chunk = head.chunk
    found, at = states.unpack(
        body, DataBody.SIZE, geometry.cells(chunk), geometry.width, geometry.length(chunk), with_data=True
    )
    if found.parent and not geometry.header.incompatible & structs.CHAIN:
        raise corrupt("PARENT cells without a parent", "data frame", frame.offset, path)
    count = -(-head.plain_length // geometry.segment_size)
    wrong = (
        head.plain_length != geometry.plain_length(chunk, found.data)
        or head.segment_count != count
        or len(body) - at != count * SEGMENT.size
    )
    if wrong:
        raise corrupt(
            f"{head.segment_count} segments of {head.plain_length} plain bytes in {len(body) - at} bytes",
            "data frame",
            frame.offset,
            path,
        )
    lengths, checks = zip(*SEGMENT.iter_unpack(body[at:]), strict=True)
    ends = (0, *accumulate(lengths))
    result = DataFrame(
        chunk,
        head.origin,
        head.digest,
        found,
        head.plain_length,
        geometry.segment_size,
        ends,
        checks,
        frame.box_end,
    )
    # All segments but the last are full.
    largest = most_stored(geometry.segment_size)
    fits = (
        min(lengths) > 0 and max(lengths) <= largest and lengths[-1] <= most_stored(result.plain(count - 1))
    )
    if ends[-1] != frame.head.outer_length or not fits:
        raise corrupt(
            f"segments of {ends[-1]} bytes in a payload of {frame.head.outer_length}",
            "data frame",
            frame.offset,
            path,
        )
    return result
