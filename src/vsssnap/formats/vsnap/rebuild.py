"""The index, out of state and data frames alone.

Source: docs/formats/vsnap.md, section 11, "rebuild".  This needs memory for an entry of every
chunk that holds data, which reading by the stored index does not.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from typing import TYPE_CHECKING

from vsssnap.errors import CorruptImageError, VssSnapError
from vsssnap.formats.vsnap import structs
from vsssnap.formats.vsnap.codec import DIGESTS
from vsssnap.formats.vsnap.index import FLAT, Entry, Piece
from vsssnap.formats.vsnap.payload import DataFrame, parse_data
from vsssnap.formats.vsnap.scan import Lost, frames_of
from vsssnap.formats.vsnap.state_frames import parse_states
from vsssnap.formats.vsnap.states import CellStates, cells_of, join_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.formats.vsnap.chain import Chain, OpenFile
    from vsssnap.formats.vsnap.frames import Frame
    from vsssnap.formats.vsnap.layout import Geometry
    from vsssnap.formats.vsnap.plain import PlainBytes
    from vsssnap.formats.vsnap.tree import Index

_UNKNOWN = 255  # a cell of which no frame says anything


class Found:
    """What a scan found in a file.

    Attributes:
        data: Data frames by chunk, in file order, with the cells whose stored bytes are damaged.
        states: State frames: first cell, cells, runs, unreadable ranges.
        table: The last valid file table.
        metadata: Place of the last valid metadata frame.
        lost: What was damaged, a sentence each.
    """

    def __init__(self) -> None:
        self.data: dict[int, list[tuple[Frame, DataFrame, int]]] = defaultdict(list)
        self.states: list[tuple[int, int, list[tuple[int, int]], list[tuple[int, int]]]] = []
        self.table: bytes | None = None
        self.metadata: tuple[int, int] | None = None
        self.lost: list[str] = []


def search(file: OpenFile) -> Found:
    """Read a whole file and keep what is sound.

    Raises:
        UnsupportedFeatureError: a frame that must be understood and is not.
        DeviceReadError: the file cannot be read.
    """
    found = Found()
    path = file.storage.name
    for item in frames_of(file.storage, file.size, file.image_id):
        if isinstance(item, Lost):
            found.lost.append(f"bytes {item.offset} to {item.end}: {item.reason}")
            continue
        try:
            if item.head.type == structs.DATA_FRAME:
                frame = parse_data(item, file.geometry, path)
                bad = damaged_cells(file, frame)
                if bad:
                    found.lost.append(f"data frame at {item.offset}: stored bytes of chunk {frame.chunk}")
                found.data[frame.chunk].append((item, frame, bad))
            elif item.head.type == structs.STATE_FRAME:
                found.states.append(parse_states(item, file.geometry, path))
            elif item.head.type == structs.FILE_TABLE:
                found.table = item.body
            elif item.head.type == structs.METADATA:
                found.metadata = (item.offset, item.head.box_length + 8)
        except CorruptImageError as exc:
            found.lost.append(exc.message)
    return found


def damaged_cells(file: OpenFile, frame: DataFrame) -> int:
    """The cells of a data frame that lie in a segment whose check does not agree."""
    stored = memoryview(file.read(frame.ends[-1], frame.payload_at))
    bad = 0
    for index in range(frame.segment_count):
        try:
            frame.check(index, stored[frame.ends[index] : frame.ends[index + 1]], file.storage.name)
        except CorruptImageError:
            bad |= _cells_in(frame, index, file.geometry.cell_size)
    return bad


def _cells_in(frame: DataFrame, segment: int, cell_size: int) -> int:
    first = segment * frame.segment_size
    low, high = first // cell_size, (first + frame.plain(segment) - 1) // cell_size
    bits, rank = 0, 0
    for start, count in cells_of(frame.states.data):
        for cell in range(start, start + count):
            if low <= rank <= high:
                bits |= 1 << cell
            rank += 1
    return bits


class RebuiltIndex:
    """An index in memory."""

    def __init__(self, chain: Chain, found: Found, parent: Index | None, plain: PlainBytes) -> None:
        """Put the pieces together.

        Args:
            chain: The image's files.
            found: What is in its own file.
            parent: Index of the parent; None if there is none, or it cannot be had.
            plain: Reads chunks, for digests that no frame holds.
        """
        self._grid: Geometry = chain.own.geometry
        self._number = chain.number
        self._parent = parent
        self._plain = plain
        self._found = found
        self._entries: dict[int, Entry] = {}
        self._runs: list[tuple[int, int, int]] = []  # first chunk, chunks, state
        at = 0
        for first, cells, runs, unreadable in sorted(found.states, key=lambda item: item[0]):
            unit = self._grid.cells_per_chunk
            if first // unit < at:
                continue  # says again what another frame said
            self._add_unknown(at, first // unit)
            self._add_states(first, runs, unreadable)
            at = -(-(first + cells) // unit)
        self._add_unknown(at, self._grid.chunk_count)
        self._starts = [run[0] for run in self._runs]

    def entry(self, chunk: int) -> Entry:
        """See `Index`."""
        found = self._entries.get(chunk)
        if found is not None:
            return found
        return self._of_run(self._runs[bisect.bisect_right(self._starts, chunk) - 1], chunk)

    def walk(self, first: int, end: int) -> Iterator[tuple[int, int, Entry]]:
        """See `Index`."""
        at = first
        while at < end:
            if at in self._entries:
                yield at, 1, self._entries[at]
                at += 1
                continue
            run = self._runs[bisect.bisect_right(self._starts, at) - 1]
            stop = min(run[0] + run[1], end)
            if run[2] == structs.PARENT and self._parent is not None:
                yield from self._parent.walk(at, stop)
            elif run[2] <= structs.EXCLUDED:
                yield at, stop - at, FLAT[run[2]]
            else:
                for chunk in range(at, stop):
                    yield chunk, 1, self._of_run(run, chunk)
            at = stop

    def _of_run(self, run: tuple[int, int, int], chunk: int) -> Entry:
        if run[2] <= structs.EXCLUDED:
            return FLAT[run[2]]
        if run[2] == structs.PARENT and self._parent is not None:
            return self._parent.entry(chunk)
        length = self._grid.length(chunk)
        return Entry(None, DIGESTS[self._grid.digest](bytes(length)), CellStates(unreadable=((0, length),)))

    def _add_unknown(self, first: int, end: int) -> None:
        """Chunks of which no state frame tells: what their data frames say, else unreadable."""
        at = first
        for chunk in sorted(chunk for chunk in self._found.data if first <= chunk < end):
            self._add_run(at, chunk - at, _UNKNOWN)
            _, frame, _ = self._found.data[chunk][-1]
            codes = frame.states.codes(self._grid.cells(chunk))
            self._add_chunk(chunk, codes, list(frame.states.unreadable))
            at = chunk + 1
        self._add_run(at, end - at, _UNKNOWN)

    def _add_run(self, first: int, count: int, state: int) -> None:
        if count > 0:
            self._runs.append((first, count, state))

    def _add_states(self, first: int, runs: list[tuple[int, int]], unreadable: list[tuple[int, int]]) -> None:
        grid = self._grid
        unit, size = grid.cells_per_chunk, grid.chunk_size
        within: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for offset, length in unreadable:
            within[offset // size].append((offset % size, length))
        cell, codes = first, bytearray()
        for state, count in runs:
            while count:
                chunk = cell // unit
                whole = (
                    (cell + count) // unit - chunk
                    if cell + count < grid.cell_count
                    else grid.chunk_count - chunk
                )
                if not codes and cell % unit == 0 and state != structs.DATA and whole:
                    self._add_flat(chunk, whole, state, within)
                    taken = min((chunk + whole) * unit, grid.cell_count) - cell
                else:
                    taken = min(count, grid.cells(chunk) - len(codes))
                    codes += bytes([state]) * taken
                    if len(codes) == grid.cells(chunk):
                        self._add_chunk(chunk, codes, within.pop(chunk, []))
                        codes = bytearray()
                cell += taken
                count -= taken

    def _add_flat(self, chunk: int, count: int, state: int, within: dict[int, list[tuple[int, int]]]) -> None:
        at = chunk
        for special in sorted(number for number in within if chunk <= number < chunk + count):
            self._add_run(at, special - at, state)
            self._add_chunk(special, bytearray([state]) * self._grid.cells(special), within.pop(special))
            at = special + 1
        self._add_run(at, chunk + count - at, state)

    def _add_chunk(self, chunk: int, codes: bytearray, unreadable: list[tuple[int, int]]) -> None:
        """One chunk by the state of each cell; what has no bytes becomes unreadable."""
        grid = self._grid
        maps = [0] * 5
        for cell, code in enumerate(codes):
            maps[code] |= 1 << cell
        hole, excluded, data, inherited = maps[1:]
        pieces: list[Piece] = []
        wanted, digest = data, b""
        for frame, stored, bad in reversed(self._found.data.get(chunk, [])):
            digest = digest or stored.digest
            bits = stored.states.data & wanted
            wanted &= ~bits
            bits, wanted = bits & ~bad, wanted | bits & bad
            if bits:
                box = frame.head.box_length + 8
                pieces.append(Piece(self._number, frame.offset, box, frame.head.outer_length, bits))
        lost = wanted
        if inherited:
            base = self._parent.entry(chunk).states_of(len(codes)) if self._parent is not None else None
            if base is None:
                lost |= inherited
            elif self._parent is not None:
                old = self._parent.entry(chunk).pieces
                pieces = [
                    Piece(p.file, p.offset, p.box_length, p.outer_length, p.cells & inherited)
                    for p in old
                    if p.cells & inherited
                ] + pieces
                hole |= base.hole & inherited
                excluded |= base.excluded & inherited
                unreadable += [item for item in base.unreadable if _touches(item, inherited, grid.cell_size)]
        unreadable += [
            (
                first * grid.cell_size,
                min((first + count) * grid.cell_size, grid.length(chunk)) - first * grid.cell_size,
            )
            for first, count in cells_of(lost)
        ]
        held = 0
        for piece in pieces:
            held |= piece.cells
        states = CellStates(held, hole, excluded, 0, join_ranges(unreadable))
        flat = states.flat(len(codes))
        if flat is not None:
            self._add_run(chunk, 1, flat)
            return
        entry = Entry(None, digest, states, tuple(pieces))
        if not digest or lost:
            entry = Entry(None, self._digest(chunk, entry), states, tuple(pieces))
        self._entries[chunk] = entry
        self._add_run(chunk, 1, _UNKNOWN)

    def _digest(self, chunk: int, entry: Entry) -> bytes:
        """The digest that no frame holds; of zeros where the parent's bytes cannot be had."""
        data = bytearray(self._grid.length(chunk))
        try:
            self._plain.fill(memoryview(data), chunk, 0, entry, strict=False)
        except VssSnapError as exc:
            self._found.lost.append(f"chunk {chunk}: {exc}")
        return DIGESTS[self._grid.digest](data)


def _touches(item: tuple[int, int], cells: int, size: int) -> bool:
    first, last = item[0] // size, (item[0] + item[1] - 1) // size
    return bool(cells >> first & ((1 << (last - first + 1)) - 1))
