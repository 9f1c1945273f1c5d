"""Going through a file frame by frame, over damage too.

Source: docs/formats/vsnap.md, section 11, "recover".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap._units import MIB
from vsssnap.errors import CorruptImageError, DeviceReadError
from vsssnap.formats.vsnap import structs
from vsssnap.formats.vsnap.frames import Frame, corrupt, read_frame

if TYPE_CHECKING:
    from vsssnap.formats.storage import Storage

_WINDOW = MIB
_SECTOR = 4096


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes that belong to no valid frame.

    Attributes:
        offset: First byte.
        end: First byte behind them.
        reason: What is wrong at the first byte.
    """

    offset: int
    end: int
    reason: str


def frames_of(storage: Storage, size: int, image_id: bytes | None, start: int = 0) -> Iterator[Frame | Gap]:
    """Every frame from ``start`` on, and what lies between them.

    Boxes are checked, payloads are not.  What cannot be read counts as damaged.

    Args:
        storage: The file.
        size: Its bytes.
        image_id: The file's id; None until the first valid frame has told it.
        start: Where to begin.

    Raises:
        UnsupportedFeatureError: a frame that must be understood and is not.
    """
    at = start
    search = _Search(storage, size)
    while at < size:
        try:
            frame = search.frame(at, image_id)
        except (CorruptImageError, DeviceReadError) as exc:
            found = search.next(image_id, at + 1)
            yield Gap(at, found.offset if found is not None else size, exc.message)
            if found is None:
                return
            frame = found
        image_id = frame.head.image_id
        yield frame
        at = frame.end


class _Search:
    """Finds frames, behind damage too, in time that is bounded by the size of the file.

    In an honest file a byte lies in one box.  A file can be made in which thousands of damaged
    boxes reach to its end; so the bytes that were read of boxes in vain are counted, and
    when they are many times the file nothing more is found.
    """

    def __init__(self, storage: Storage, size: int) -> None:
        self._storage = storage
        self._size = size
        self._budget = 16 * size + 64 * MIB

    def frame(self, offset: int, image_id: bytes | None) -> Frame:
        """The frame at a place; see `read_frame`."""
        if self._budget <= 0:
            raise corrupt("too many damaged frames before it", "frame", offset, self._storage.name)
        try:
            return read_frame(self._storage, offset, self._size, image_id)
        except (CorruptImageError, DeviceReadError):
            lead = self._window(offset, min(8, self._size - offset))
            length = 8 + int.from_bytes(lead[4:8], "little")
            # A longer one, or one that does not end in the file, was not read.
            fits = length <= structs.MAX_BOX + 8 and offset + length <= self._size
            self._budget -= structs.HEAD + (length if fits else 0)
            raise

    def next(self, image_id: bytes | None, start: int) -> Frame | None:
        """The next one that begins at ``start`` or later."""
        at, size = start, self._size
        while at + structs.HEAD <= size and self._budget > 0:
            window = self._window(at, min(_WINDOW + structs.HEAD, size - at))
            place = window.find(structs.MAGIC, 8)
            while place >= 0:
                offset = at + place - 8
                # A frame that lies in the payload, of another image, says that it is somewhere else.
                if window[place - 8 : place - 4] == structs.MARK and (
                    window[place + 16 : place + 24] == offset.to_bytes(8, "little")
                ):
                    with contextlib.suppress(CorruptImageError, DeviceReadError):
                        return self.frame(offset, image_id)
                place = window.find(structs.MAGIC, place + 1)
            at += _WINDOW
        return None

    def _window(self, offset: int, length: int) -> bytes:
        """Bytes of the file, zeros for sectors that cannot be read."""
        try:
            return self._storage.pread(length, offset)
        except DeviceReadError:
            if length <= _SECTOR:
                return bytes(length)
            half = length // 2
            return self._window(offset, half) + self._window(offset + half, length - half)
