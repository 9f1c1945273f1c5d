"""The content root: what an image holds, whatever its storage.

Source: docs/formats/vsnap.md, section 9.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from vsssnap.formats.vsnap.codec import DIGESTS
from vsssnap.formats.vsnap.states import CellStates

if TYPE_CHECKING:
    from vsssnap.formats.vsnap.structs import HeaderBody


def _tag(name: str) -> bytes:
    return f"vsnap0 {name}".encode("ascii").ljust(16, b"\0")


_FLAT = _tag("flat")
_CHUNK = _tag("chunk")
_NODE = _tag("node")
_ROOT = _tag("root")


@cache
def flat_value(digest: int, state: int) -> bytes:
    """The value of anything whose cells are all of one state without data."""
    return DIGESTS[digest](_FLAT + bytes([state]))


def chunk_value(digest: int, cells: int, states: CellStates, content: bytes) -> bytes:
    """The value of a chunk that is not flat; ``content`` is its chunk digest."""
    ranges = states.unreadable
    listed = b"".join(struct.pack("<II", *item) for item in ranges)
    lead = _lead(cells, states.data, states.hole, states.excluded)
    return DIGESTS[digest](b"".join((lead, struct.pack("<I", len(ranges)), listed, content)))


@lru_cache(maxsize=64)  # nearly all chunks of a volume are of a few kinds
def _lead(cells: int, data: int, hole: int, excluded: int) -> bytes:
    return _CHUNK + struct.pack("<I", cells) + CellStates(data, hole, excluded).codes(cells)


def page_value(digest: int, level: int, values: Sequence[bytes]) -> bytes:
    """The value of an index page, or of the subtree that needs none."""
    first = values[0]
    if first in (flat_value(digest, 0), flat_value(digest, 1), flat_value(digest, 2)) and all(
        value == first for value in values
    ):
        return first
    return DIGESTS[digest](_NODE + struct.pack("<BI", level, len(values)) + b"".join(values))


def content_root(header: HeaderBody, top: bytes) -> bytes:
    """The name of the whole content; ``top`` is the value of the root reference."""
    geometry = struct.pack(
        "<HQIII", header.digest, header.size, header.sector_size, header.chunk_size, header.cell_size
    )
    return DIGESTS[header.digest](_ROOT + geometry + top)
