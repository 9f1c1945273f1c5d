"""Digests of chunks out of frames as they are stored.

Source: docs/formats/vsnap.md, sections 4 and 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.formats.vsnap.codec import HASHERS
from vsssnap.formats.vsnap.states import cells_of

if TYPE_CHECKING:
    from vsssnap.formats.vsnap.chain import OpenFile
    from vsssnap.formats.vsnap.codec import Hasher
    from vsssnap.formats.vsnap.index import Entry
    from vsssnap.formats.vsnap.payload import DataFrame
    from vsssnap.formats.vsnap.reader import VsnapReader

_ZEROS = 64 << 10  # bytes of zeros that are hashed at once
_PAGE = 1 << 13  # chunks whose bits are kept together


class Contents:
    """Digests of chunks as they are read; knows which frames were read whole, so that each is read once.

    Any thread.
    """

    def __init__(self, reader: VsnapReader) -> None:
        self._reader = reader
        self._grid = reader.geometry
        self._hasher = HASHERS[self._grid.digest]
        self._zeros = memoryview(bytes(min(self._grid.chunk_size, _ZEROS)))
        # A file has one data frame of a chunk at most, so a bit tells; 9 MiB for 64 TiB of chunks of 1 MiB.
        # Threads that set bits of one byte at once may lose one, and that frame is read again.
        # By the file itself: somebody may have given two the same image id.
        self._whole: dict[tuple[int, int], bytearray] = {}

    def read_whole(self, file: OpenFile, chunk: int) -> bool:
        """Whether every stored byte of a file's frame of a chunk was compared, and agreed."""
        page, bit = divmod(chunk, _PAGE)
        bits = self._whole.get((id(file), page))
        return bits is not None and bool(bits[bit >> 3] & 1 << (bit & 7))

    def digest(self, chunk: int, entry: Entry, buffer: bytearray) -> bytes:
        """The digest of a chunk's bytes as they are read; ``buffer`` is for what is stored of it.

        Raises:
            CorruptImageError: it is damaged.
            DeviceReadError: it cannot be read.
        """
        if len(entry.pieces) == 1:
            (piece,) = entry.pieces
            file = self._reader.chain[piece.file]
            if piece.box_length + piece.outer_length <= 2 * self._grid.chunk_size:
                frame, stored = file.whole_data_frame(
                    piece.offset, piece.box_length, piece.outer_length, buffer
                )
                found = self.of_frame(chunk, entry, file, frame, stored)
                if found is not None:
                    return found
        hasher = self._hasher()
        hasher.update(self._reader.read_chunk(chunk))
        return hasher.digest()

    def of_frame(
        self, chunk: int, entry: Entry, file: OpenFile, frame: DataFrame, stored: memoryview
    ) -> bytes | None:
        """The same of a chunk that lies in one frame, from its payload; None if there is more to it.

        Raises:
            CorruptImageError: it is damaged.
        """
        if frame.chunk != chunk or not frame.states.data == entry.pieces[0].cells == entry.states.data:
            return None
        found = self._put_together(chunk, frame, stored, file.storage.name)
        page, bit = divmod(chunk, _PAGE)
        key = (id(file), page)
        bits = self._whole.get(key)
        if bits is None:
            bits = self._whole.setdefault(key, bytearray(_PAGE // 8))
        bits[bit >> 3] |= 1 << (bit & 7)
        return found

    def _put_together(self, chunk: int, frame: DataFrame, stored: memoryview, path: str) -> bytes:
        """As the chunk would be, without a copy of it."""
        hasher, size, length = self._hasher(), self._grid.cell_size, self._grid.length(chunk)
        at = index = skip = 0
        plain = memoryview(b"")
        for first, count in cells_of(frame.states.data):
            start, stop = first * size, min((first + count) * size, length)
            self._add_zeros(hasher, start - at)
            at = start
            while at < stop:
                if skip == len(plain):
                    part = stored[frame.ends[index] : frame.ends[index + 1]]
                    plain, skip = memoryview(frame.decode(index, part, path)), 0
                    index += 1
                take = min(len(plain) - skip, stop - at)
                hasher.update(plain[skip : skip + take])
                skip += take
                at += take
        self._add_zeros(hasher, length - at)
        return hasher.digest()

    def _add_zeros(self, hasher: Hasher, count: int) -> None:
        while count:
            hasher.update(self._zeros[:count])
            count -= min(count, len(self._zeros))
