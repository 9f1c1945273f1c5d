"""Walking through a stream-optimized extent by its markers.

A stream tells where each grain belongs in front of the grain itself.  By that an image that was cut
off can be read as far as it goes, and a complete one be held against its tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vsssnap._units import round_up
from vsssnap.formats.vmdk import structs
from vsssnap.formats.vmdk.structs import SECTOR, Marker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.formats.vmdk.source import Source

_WINDOW: Final = 1 << 20  # bytes that are read at once


@dataclass(frozen=True, slots=True)
class Item:
    """What a marker announces.

    Attributes:
        offset: Of the marker, bytes.
        kind: "grain", "table", "directory", "footer", "end"; "damage" if it is none of them.
        sector: First sector of a grain in the volume.
        length: Bytes of a grain's data, or of what follows the marker.
    """

    offset: int
    kind: str
    sector: int = 0
    length: int = 0


_KINDS: Final = {
    structs.END_OF_STREAM: "end",
    structs.GRAIN_TABLE: "table",
    structs.GRAIN_DIRECTORY: "directory",
    structs.FOOTER: "footer",
}


def walk(source: Source, start: int, grain: int) -> Iterator[Item]:
    """All items of a stream up to its end, to the file's end, or to the first that is damaged.

    Args:
        source: The file.
        start: Offset of the first marker, bytes.
        grain: Bytes of a grain.
    """
    window, base = b"", start
    at = start
    while at + SECTOR <= source.size:
        if not base <= at <= base + len(window) - SECTOR:
            base, window = at, source.pread(min(_WINDOW, source.size - at), at)
        marker = Marker.unpack(window, at - base)
        if marker.size:
            end = at + structs.GRAIN_MARKER + marker.size
            if marker.size > most_packed(grain) or end > source.size:
                yield Item(at, "damage")
                return
            yield Item(at, "grain", marker.value, marker.size)
            at = round_up(end, SECTOR)
            continue
        kind = _KINDS.get(marker.kind)
        length = marker.value * SECTOR
        if kind is None or at + SECTOR + length > source.size:
            yield Item(at, "damage")
            return
        yield Item(at, kind, 0, length)
        if kind == "end":
            return
        at += SECTOR + length


def most_packed(grain: int) -> int:
    """Bytes that a compressed grain may have: incompressible data grows by some."""
    return grain + (grain >> 3) + 1024
