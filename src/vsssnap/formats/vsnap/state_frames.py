"""State frames: what each cell is, as written to this file.

Source: docs/formats/vsnap.md, section 5.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vsssnap.formats.vsnap import structs
from vsssnap.formats.vsnap.frames import corrupt
from vsssnap.formats.vsnap.states import CellStates, pack_runs, run_list
from vsssnap.formats.vsnap.structs import StateBody

if TYPE_CHECKING:
    from vsssnap.formats.vsnap.frames import Frame
    from vsssnap.formats.vsnap.layout import Geometry

_RUN = struct.Struct("<Q")
_RANGE = struct.Struct("<QQ")


class StateLog:
    """The states since the last state frame.

    Attributes:
        plain: Bytes stored since then.
    """

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self._first = 0
        self._runs: list[tuple[int, int]] = []
        self._cells = 0
        self._unreadable: list[tuple[int, int]] = []
        self.plain = 0

    def add_run(self, state: int, cells: int) -> None:
        """The next ``cells`` cells are of one state."""
        self._cells += cells
        if self._runs and self._runs[-1][0] == state:
            cells += self._runs.pop()[1]
        self._runs.append((state, cells))

    def add_chunk(self, chunk: int, states: CellStates) -> None:
        """The next chunk."""
        for state, cells in run_list(states.codes(self._geometry.cells(chunk))):
            self.add_run(state, cells)
        start = chunk * self._geometry.chunk_size
        self._unreadable += [(start + offset, length) for offset, length in states.unreadable]

    @property
    def full(self) -> bool:
        """Whether a frame is due."""
        most = structs.MAX_RUNS
        room = structs.STATE_SPAN - self._geometry.chunk_size
        return self.plain > room or len(self._runs) >= most or len(self._unreadable) >= most

    def take(self) -> list[bytes]:
        """The body of a frame with everything since the last one; empty if there is nothing."""
        if not self._cells:
            return []
        head = StateBody(self._first, self._cells, len(self._runs), len(self._unreadable))
        body = [head.pack(), pack_runs(self._runs), *(_RANGE.pack(*item) for item in self._unreadable)]
        self._first += self._cells
        self._cells = self.plain = 0
        self._runs, self._unreadable = [], []
        return body


def parse_states(
    frame: Frame, geometry: Geometry, path: str
) -> tuple[int, int, list[tuple[int, int]], list[tuple[int, int]]]:
    """Check the body of a state frame.

    Returns:
        First cell, number of cells, runs as (state, cells), unreadable ranges of the volume.

    Raises:
        CorruptImageError: it breaks a rule of section 5.
    """
    body = frame.body
    head = StateBody.unpack(body)
    end = head.first_cell + head.cell_count
    unit = geometry.cells_per_chunk
    at = StateBody.SIZE + head.run_count * _RUN.size
    most = structs.MAX_RUNS + unit
    wrong = (
        not head.cell_count
        or end > geometry.cell_count
        or head.first_cell % unit
        or (end % unit and end != geometry.cell_count)
        or not 0 < head.run_count <= most
        or head.unreadable_count > structs.MAX_RUNS + structs.MAX_UNREADABLE
        or len(body) != at + head.unreadable_count * _RANGE.size
    )
    if wrong:
        raise _broken(
            f"{head.run_count} runs and {head.unreadable_count} ranges for cells {head.first_cell} to {end}",
            frame,
            path,
        )
    runs = [(run & 0xFF, run >> 8) for (run,) in _RUN.iter_unpack(body[StateBody.SIZE : at])]
    last = -1
    for state, cells in runs:
        if state > structs.PARENT or not cells or state == last:
            raise _broken(f"run of {cells} cells of state {state} after state {last}", frame, path)
        last = state
    if sum(cells for _, cells in runs) != head.cell_count:
        raise _broken(f"the runs do not add up to {head.cell_count} cells", frame, path)
    parents = any(state == structs.PARENT for state, _ in runs)
    if parents and not geometry.header.incompatible & structs.CHAIN:
        raise _broken("PARENT cells without a parent", frame, path)
    ranges = list(_RANGE.iter_unpack(body[at:]))
    size, chunk = geometry.cell_size, geometry.chunk_size
    before = head.first_cell * size
    stop = min(end * size, geometry.size)
    for offset, length in ranges:
        touches = offset == before and offset % chunk  # only where a chunk ends may two ranges touch
        crosses = offset // chunk != (offset + length - 1) // chunk
        if offset < before or not length or offset + length > stop or touches or crosses:
            raise _broken(f"unreadable range {offset}+{length} after {before}", frame, path)
        before = offset + length
    return head.first_cell, head.cell_count, runs, ranges


def _broken(message: str, frame: Frame, path: str) -> Exception:
    return corrupt(message, "state frame", frame.offset, path)
