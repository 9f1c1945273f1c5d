"""Going through a file frame by frame, over damage too.

Source: docs/formats/vsnap.md, section 11, "recover".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap._units import MIB
from vsssnap.errors import CorruptImageError
from vsssnap.formats.vsnap.frames import Frame, read_frame
from vsssnap.formats.vsnap.structs import HEAD, MAGIC, MARK

if TYPE_CHECKING:
    from vsssnap.formats.storage import Storage

_WINDOW = MIB


@dataclass(frozen=True, slots=True)
class Lost:
    """Bytes that belong to no valid frame.

    Attributes:
        offset: First byte.
        end: First byte behind them.
        reason: What is wrong at the first byte.
    """

    offset: int
    end: int
    reason: str


def frames_of(storage: Storage, size: int, image_id: bytes | None, start: int = 0) -> Iterator[Frame | Lost]:
    """Every frame from ``start`` on, and what lies between them.

    Boxes are checked, payloads are not.

    Args:
        storage: The file.
        size: Its bytes.
        image_id: The file's id; None until the first valid frame has told it.
        start: Where to begin.

    Raises:
        UnsupportedFeatureError: a frame that must be understood and is not.
        DeviceReadError: the file cannot be read.
    """
    at = start
    while at < size:
        try:
            frame = read_frame(storage, at, size, image_id)
        except CorruptImageError as exc:
            found = _next(storage, size, image_id, at + 1)
            yield Lost(at, found.offset if found is not None else size, exc.message)
            if found is None:
                return
            frame = found
        image_id = frame.head.image_id
        yield frame
        at = frame.end


def _next(storage: Storage, size: int, image_id: bytes | None, start: int) -> Frame | None:
    """The next valid frame that begins at ``start`` or later."""
    at = start
    while at + HEAD <= size:
        window = storage.pread(min(_WINDOW + HEAD, size - at), at)
        place = window.find(MAGIC, 8)
        while place >= 0:
            if window[place - 8 : place - 4] == MARK:
                try:
                    return read_frame(storage, at + place - 8, size, image_id)
                except CorruptImageError:
                    pass  # somebody else's frame in the payload, or damaged too
            place = window.find(MAGIC, place + 1)
        at += _WINDOW
    return None
