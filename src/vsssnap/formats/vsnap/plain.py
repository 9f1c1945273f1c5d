"""Plain bytes of chunks, through checks and a cache.

Source: docs/formats/vsnap.md, sections 4, 6 and 11.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from vsssnap._units import MIB
from vsssnap.errors import DeviceReadError
from vsssnap.formats._cache import SecondUse
from vsssnap.formats.vsnap import structs
from vsssnap.formats.vsnap.frames import corrupt
from vsssnap.formats.vsnap.states import cells_of, rank_before

if TYPE_CHECKING:
    from vsssnap.formats._cache import ByteCache
    from vsssnap.formats.vsnap.chain import Chain
    from vsssnap.formats.vsnap.index import Entry, Piece
    from vsssnap.formats.vsnap.payload import DataFrame

_WHOLE_FRAME = 2 * MIB  # a frame up to this long is read at once when half of it is wanted


class PlainBytes:
    """Reads chunks by their entries.  Thread-safe."""

    def __init__(self, chain: Chain, cache: ByteCache) -> None:
        self._chain = chain
        self._cache = cache
        self._segments = SecondUse(cache)
        self._geometry = chain.own.geometry
        self._local = threading.local()

    def fill(self, view: memoryview, chunk: int, within: int, entry: Entry, *, strict: bool) -> None:
        """Fill ``view`` with bytes of a chunk from ``within`` on.

        Args:
            view: Where to.
            chunk: Which chunk.
            within: First byte of it.
            entry: Its entry.
            strict: Whether unreadable bytes raise; else they are zeros.
        """
        end = within + len(view)
        if entry.flat is not None:
            if strict and entry.flat == structs.LOST:
                at = chunk * self._geometry.chunk_size + within
                raise self._unreadable(at, len(view), "lost", "the image is damaged or incomplete there")
            view[:] = bytes(len(view))
            return
        if strict:
            for start, length in entry.states.unreadable:
                if start < end and start + length > within:
                    at = chunk * self._geometry.chunk_size + start
                    hint = "the source could not be read there when the image was made"
                    raise self._unreadable(at, length, "marked unreadable", hint)
        size = self._geometry.cell_size
        first, last = within // size, -(-end // size)
        wanted = ((1 << (last - first)) - 1) << first
        if wanted & ~entry.states.data:
            view[:] = bytes(len(view))
        for piece in entry.pieces:
            if piece.cells & wanted:
                self._fill_piece(view, chunk, within, piece, piece.cells & wanted)

    def part(self, chunk: int, within: int, length: int, entry: Entry) -> bytes | None:
        """Bytes of a chunk that lie in one segment, without a copy of the whole; None if they do not.

        What copies under the interpreter's lock keeps the other threads from decoding.
        """
        size = self._geometry.cell_size
        first, last = within // size, (within + length - 1) // size
        wanted = ((1 << (last - first + 1)) - 1) << first
        if length > self._geometry.segment_size or entry.states.unreadable or wanted & ~entry.states.data:
            return None
        for piece in entry.pieces:
            if not wanted & ~piece.cells:
                frame, stored = self._frame(piece, chunk, length)
                at = rank_before(frame.states.data, first) * size + within - first * size
                index, skip = divmod(at, frame.segment_size)
                if skip + length > frame.plain(index):
                    return None
                plain = self._segment(piece, frame, index, stored, keep=length < frame.plain(index))
                return plain[skip : skip + length]
        return None

    def forget(self) -> None:
        """Let go of what is kept for later reads."""
        self._segments.clear()

    def _unreadable(self, offset: int, length: int, what: str, hint: str) -> DeviceReadError:
        name = self._chain.own.storage.name or "the image"
        return DeviceReadError(
            f"{name}: bytes {offset} to {offset + length} of the volume are {what}",
            offset=offset,
            length=length,
            hint=hint,
        )

    def _fill_piece(self, view: memoryview, chunk: int, within: int, piece: Piece, cells: int) -> None:
        """Copy the part of a piece that lies in a view."""
        size, end = self._geometry.cell_size, within + len(view)
        frame, stored = self._frame(piece, chunk, len(view))
        for first, count in cells_of(cells):
            start, stop = max(first * size, within), min((first + count) * size, end)
            # Where byte `start` of the chunk lies in the plain bytes of the frame.
            at = rank_before(frame.states.data, first) * size + start - first * size
            while start < stop:
                index, skip = divmod(at, frame.segment_size)
                plain = self._segment(
                    piece, frame, index, stored, keep=skip > 0 or stop - start < frame.plain(index)
                )
                part = memoryview(plain)[skip : skip + stop - start]
                view[start - within : start - within + len(part)] = part
                start += len(part)
                at += len(part)

    def _frame(self, piece: Piece, chunk: int, wanted: int) -> tuple[DataFrame, memoryview | None]:
        """The data frame of a piece; its whole payload too, where one read for both is cheaper."""
        key = ("frame", piece.file, piece.offset)
        found: DataFrame | None = self._cache.get(key)
        stored = None
        if found is None:
            file = self._chain[piece.file]
            length = piece.box_length + piece.outer_length
            whole = length <= _WHOLE_FRAME and wanted * 2 >= self._geometry.chunk_size
            if whole:
                buffer = self._scratch()
                found, stored = file.whole_data_frame(
                    piece.offset, piece.box_length, piece.outer_length, buffer
                )
            else:
                found = file.data_frame(piece.offset, piece.box_length)
            self._cache.put(key, found, found.memory)
        if found.chunk != chunk or piece.cells & ~found.states.data or found.ends[-1] != piece.outer_length:
            raise corrupt(
                f"holds chunk {found.chunk}, {found.ends[-1]} bytes, without all the cells of chunk {chunk}",
                "data frame",
                piece.offset,
                self._chain[piece.file].storage.name,
            )
        return found, stored

    def _scratch(self) -> bytearray:
        """A buffer of this thread for what is stored of a chunk, until its next frame."""
        found: bytearray | None = getattr(self._local, "buffer", None)
        if found is None:
            found = self._local.buffer = bytearray(self._geometry.chunk_size)
        return found

    def _segment(
        self, piece: Piece, frame: DataFrame, index: int, stored: memoryview | None, *, keep: bool
    ) -> bytes:
        key = ("segment", piece.file, piece.offset, index)
        plain: bytes | None = self._segments.get(key)
        if plain is None:
            file = self._chain[piece.file]
            start, end = frame.ends[index], frame.ends[index + 1]
            part = (
                stored[start:end] if stored is not None else file.read(end - start, frame.payload_at + start)
            )
            plain = frame.decode(index, part, file.storage.name)
            # What is copied out whole is not asked for again soon: a restore would wash the cache out.
            if keep:
                self._segments.put(key, plain, len(plain) + 200)
        return plain
