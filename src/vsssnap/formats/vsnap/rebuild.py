"""The index, out of state and data frames alone.

Source: docs/formats/vsnap.md, section 11, "rebuild".  This needs memory for an entry of every
chunk that holds data, which reading by the stored index does not.

Each file of a chain gives what it says itself (`Part`); what it leaves to its parent is looked up
when it is asked for, link by link and not by recursion, so that a chain may be of any length and
an ancestor that is not needed is not read.
"""

from __future__ import annotations

import bisect
import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vsssnap.errors import CorruptImageError, DeviceReadError, VssSnapError
from vsssnap.formats.vsnap import structs
from vsssnap.formats.vsnap.codec import DIGESTS
from vsssnap.formats.vsnap.index import FLAT, LOST, Entry, Piece
from vsssnap.formats.vsnap.payload import DataFrame, parse_data
from vsssnap.formats.vsnap.scan import Gap, frames_of
from vsssnap.formats.vsnap.state_frames import parse_states
from vsssnap.formats.vsnap.states import CellStates, cells_of, common, join_ranges, ranges_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vsssnap.formats.vsnap.chain import OpenFile
    from vsssnap.formats.vsnap.layout import Geometry
    from vsssnap.formats.vsnap.tree import Index

_MIXED: Final = 3  # kind of a run of one chunk that has a part of its own


@dataclass(frozen=True, slots=True)
class Stored:
    """The newest data frame of a chunk.

    Attributes:
        offset: Where it lies.
        box_length: Of its box, the first eight bytes included.
        outer_length: Of its payload.
        digest: Of the whole plain chunk.
        states: Of the chunk's cells.
        bad: Cells whose stored bytes are damaged.
    """

    offset: int
    box_length: int
    outer_length: int
    digest: bytes
    states: CellStates
    bad: int


class Found:
    """What a scan found in a file.

    Attributes:
        data: The newest data frame of each chunk.
        states: State frames: first cell, cells, runs, unreadable ranges.
        table: The last valid file table.
        metadata: Place of the last valid metadata frame.
        lost: What was damaged, a sentence each.
    """

    def __init__(self) -> None:
        self.data: dict[int, Stored] = {}
        self.states: list[tuple[int, int, list[tuple[int, int]], list[tuple[int, int]]]] = []
        self.table: bytes | None = None
        self.metadata: tuple[int, int] | None = None
        self.lost: list[str] = []


def search(file: OpenFile) -> Found:
    """Read a whole file and keep what is sound.

    Raises:
        UnsupportedFeatureError: a frame that must be understood and is not.
    """
    found = Found()
    path = file.storage.name
    buffer = bytearray(file.geometry.chunk_size)
    for item in frames_of(file.storage, file.size, file.image_id):
        if isinstance(item, Gap):
            found.lost.append(f"bytes {item.offset} to {item.end}: {item.reason}")
            continue
        try:
            box = item.head.box_length + 8
            if item.head.type == structs.DATA_FRAME:
                frame = parse_data(item, file.geometry, path)
                bad = damaged_cells(file, frame, buffer)
                if bad:
                    found.lost.append(f"data frame at {item.offset}: stored bytes of chunk {frame.chunk}")
                outer = item.head.outer_length
                found.data[frame.chunk] = Stored(item.offset, box, outer, frame.digest, frame.states, bad)
            elif item.head.type == structs.STATE_FRAME:
                found.states.append(parse_states(item, file.geometry, path))
            elif item.head.type == structs.FILE_TABLE:
                found.table = item.body
            elif item.head.type == structs.METADATA:
                found.metadata = (item.offset, box)
        except CorruptImageError as exc:
            found.lost.append(exc.message)
    return found


def damaged_cells(file: OpenFile, frame: DataFrame, buffer: bytearray) -> int:
    """The cells of a data frame in a segment that cannot be read or whose check does not agree.

    Args:
        file: Where it lies.
        frame: Its box.
        buffer: For the payload, if it is long enough.
    """
    try:
        stored = file.read_into(buffer, frame.ends[-1], frame.payload_at)
    except DeviceReadError:
        return frame.states.data
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


@dataclass(frozen=True, slots=True)
class Part:
    """What one file says of one chunk.

    Attributes:
        states: Of its cells; PARENT are those it leaves to its parent.
        stored: Where the DATA cells lie; None without any.
        digest: Of the whole plain chunk; empty if no frame holds it.
    """

    states: CellStates
    stored: Stored | None
    digest: bytes


class RebuiltIndex:
    """An index in memory.  Thread-safe.

    Attributes:
        parts: What the file says of chunks that are not of one state.
    """

    def __init__(
        self, geometry: Geometry, found: Found, number: int, ancestor: Callable[[int], Index]
    ) -> None:
        """Put the pieces of one file together.

        Args:
            geometry: Of the image.
            found: What is in its own file.
            number: Of the file in its chain.
            ancestor: Gives the index of a file with a lower number.
        """
        self._grid = geometry
        self._found = found
        self._number = number
        self._open = ancestor
        self._lock = threading.RLock()
        self._ancestors: dict[int, Index | None] = {}
        self._zeros: dict[int, bytes] = {}
        self.parts: dict[int, Part] = {}
        self._runs: list[tuple[int, int, int]] = []  # first chunk, chunks, state
        self._stored = sorted(found.data)
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

    # Reading it.

    def entry(self, chunk: int) -> Entry:
        """See `Index`; its digest is empty if no frame holds it."""
        parts: list[tuple[int, Part]] = []
        index: RebuiltIndex = self
        number = self._number
        result = FLAT[structs.ZERO]
        while True:
            state = index.run_at(chunk)[2]
            if state == _MIXED:
                part = index.parts[chunk]
                parts.append((number, part))
                if not part.states.parent:
                    break
            elif state != structs.PARENT:
                result = _flat(state)
                break
            number -= 1
            above = self._ancestor(number)
            if not isinstance(above, RebuiltIndex):
                result = above.entry(chunk) if above is not None else LOST
                break
            index = above
        for where, part in reversed(parts):
            result = _over(result, part, where, self._grid, chunk)
        return result

    def walk(self, first: int, end: int) -> Iterator[tuple[int, int, Entry]]:
        """See `Index`."""
        todo: list[tuple[Index | None, int, int, int]] = [(self, self._number, first, end)]
        while todo:
            index, number, at, stop = todo.pop()
            if index is None:
                yield at, stop - at, LOST
            elif not isinstance(index, RebuiltIndex):
                yield from index.walk(at, stop)
            elif at < stop:
                start, count, state = index.run_at(at)
                until = min(start + count, stop)
                todo.append((index, number, until, stop))
                if state == structs.PARENT:
                    todo.append((self._ancestor(number - 1), number - 1, at, until))
                elif state == _MIXED:
                    yield at, 1, self.entry(at)
                else:
                    yield at, until - at, _flat(state)

    def run_at(self, chunk: int) -> tuple[int, int, int]:
        """First chunk, number of chunks and state of the run that a chunk lies in, of this file alone."""
        return self._runs[bisect.bisect_right(self._starts, chunk) - 1]

    def _ancestor(self, number: int) -> Index | None:
        """The index of an ancestor; None if it cannot be had, which is said once."""
        with self._lock:
            if number not in self._ancestors:
                try:
                    self._ancestors[number] = self._open(number)
                except VssSnapError as exc:
                    self._found.lost.append(f"parent: {exc}")
                    self._ancestors[number] = None
            return self._ancestors[number]

    # Building it.

    def _add_run(self, first: int, count: int, state: int) -> None:
        if count > 0:
            self._runs.append((first, count, state))

    def _add_unknown(self, first: int, end: int) -> None:
        """Chunks of which no state frame tells: what their data frames say, else lost."""
        at = first
        for chunk in _between(self._stored, first, end):
            self._add_run(at, chunk - at, structs.LOST)
            states = self._found.data[chunk].states
            self._add_chunk(chunk, states, states.unreadable)
            at = chunk + 1
        self._add_run(at, end - at, structs.LOST)

    def _add_states(self, first: int, runs: list[tuple[int, int]], unreadable: list[tuple[int, int]]) -> None:
        grid = self._grid
        unit, size = grid.cells_per_chunk, grid.chunk_size
        within: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for offset, length in unreadable:
            within[offset // size].append((offset % size, length))
        marked = sorted(within)
        cell, filled, maps = first, 0, [0] * 5
        for state, count in runs:
            while count:
                chunk = cell // unit
                if not filled and cell % unit == 0:
                    stop = cell + count
                    whole = (grid.chunk_count if stop == grid.cell_count else stop // unit) - chunk
                    if whole:
                        self._add_whole(chunk, whole, state, marked, within)
                        taken = min((chunk + whole) * unit, grid.cell_count) - cell
                        cell, count = cell + taken, count - taken
                        continue
                taken = min(count, grid.cells(chunk) - filled)
                maps[state] |= ((1 << taken) - 1) << filled
                filled += taken
                cell, count = cell + taken, count - taken
                if filled == grid.cells(chunk):
                    _, hole, excluded, data, parent = maps
                    self._add_chunk(chunk, CellStates(data, hole, excluded, parent), within.get(chunk, ()))
                    filled, maps = 0, [0] * 5

    def _add_whole(
        self,
        chunk: int,
        count: int,
        state: int,
        marked: list[int],
        within: dict[int, list[tuple[int, int]]],
    ) -> None:
        """Whole chunks of one state; those that need a look are few, and the rest may be many."""
        special = set(_between(marked, chunk, chunk + count))
        rest = state
        if state == structs.DATA:
            special.update(_between(self._stored, chunk, chunk + count))
            rest = structs.LOST
        at = chunk
        for number in sorted(special):
            self._add_run(at, number - at, rest)
            every = (1 << self._grid.cells(number)) - 1
            states = (
                CellStates(),
                CellStates(hole=every),
                CellStates(excluded=every),
                CellStates(every),
                CellStates(parent=every),
            )
            self._add_chunk(number, states[state], within.get(number, ()))
            at = number + 1
        self._add_run(at, chunk + count - at, rest)

    def _add_chunk(
        self, chunk: int, told: CellStates, unreadable: list[tuple[int, int]] | tuple[tuple[int, int], ...]
    ) -> None:
        """One chunk by what is told of its cells; DATA that is nowhere becomes unreadable."""
        grid = self._grid
        stored = self._found.data.get(chunk)
        held = told.data & stored.states.data & ~stored.bad if stored is not None else 0
        lost = told.data & ~held
        every = (1 << grid.cells(chunk)) - 1
        if lost == every:
            self._add_run(chunk, 1, structs.LOST)
            return
        bad = join_ranges([*unreadable, *ranges_of(lost, grid.cell_size, grid.length(chunk))])
        states = CellStates(held, told.hole, told.excluded, told.parent, bad)
        flat = states.flat(grid.cells(chunk))
        if flat is not None:
            self._add_run(chunk, 1, flat)
            return
        digest = b""
        if not lost and stored is not None and told.data:
            digest = stored.digest
        elif not lost and not told.parent:
            digest = self._zero_digest(grid.length(chunk))
        self.parts[chunk] = Part(states, stored if held else None, digest)
        self._add_run(chunk, 1, _MIXED)

    def _zero_digest(self, length: int) -> bytes:
        if length not in self._zeros:
            self._zeros[length] = DIGESTS[self._grid.digest](bytes(length))
        return self._zeros[length]


def _between(numbers: list[int], first: int, end: int) -> list[int]:
    """Those of rising numbers that lie in a range."""
    return numbers[bisect.bisect_left(numbers, first) : bisect.bisect_left(numbers, end)]


def _flat(state: int) -> Entry:
    return LOST if state == structs.LOST else FLAT[state]


def _over(base: Entry, part: Part, number: int, grid: Geometry, chunk: int) -> Entry:
    """A chunk as a file says it, with what it leaves to its parent out of ``base``."""
    own, cells = part.states, grid.cells(chunk)
    pieces = [
        Piece(piece.file, piece.offset, piece.box_length, piece.outer_length, piece.cells & own.parent)
        for piece in base.pieces
        if piece.cells & own.parent
    ]
    data = own.data
    for piece in pieces:
        data |= piece.cells
    if part.stored is not None:
        at = part.stored
        pieces.append(Piece(number, at.offset, at.box_length, at.outer_length, own.data))
    length = grid.length(chunk)
    below = base.states_of(cells) if base is not LOST else CellStates(unreadable=((0, length),))
    inherited = common(below.unreadable, ranges_of(own.parent, grid.cell_size, length))
    states = CellStates(
        data,
        own.hole | below.hole & own.parent,
        own.excluded | below.excluded & own.parent,
        0,
        join_ranges([*own.unreadable, *inherited]),
    )
    flat = states.flat(cells)
    return FLAT[flat] if flat is not None else Entry(None, part.digest, states, tuple(pieces))
