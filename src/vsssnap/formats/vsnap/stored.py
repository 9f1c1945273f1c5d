"""Every byte of a file, compared with its checks: by spans of many frames, or frame by frame over damage.

Source: docs/formats/vsnap.md, section 11, "verify".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vsssnap.blocks.extent import Extent
from vsssnap.blocks.mapped import mapped
from vsssnap.errors import CorruptImageError, DeviceReadError, ImageError
from vsssnap.formats.base import Finding
from vsssnap.formats.vsnap import structs
from vsssnap.formats.vsnap.frames import Frame, corrupt, finish_frame, parse_head
from vsssnap.formats.vsnap.opening import read_copy
from vsssnap.formats.vsnap.payload import parse_data, usual_data
from vsssnap.formats.vsnap.rebuild import damaged_cells
from vsssnap.formats.vsnap.scan import Gap, frames_of
from vsssnap.formats.vsnap.state_frames import parse_states
from vsssnap.formats.vsnap.states import cells_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vsssnap.formats.vsnap.chain import OpenFile
    from vsssnap.formats.vsnap.content import Contents
    from vsssnap.formats.vsnap.payload import DataFrame

    Payload = tuple[DataFrame, int]  # and its damaged cells

SPAN = 1 << 20
"""Bytes that a span has at least: a read of it takes longer than what is around the read."""


def finding_of(exc: ImageError | DeviceReadError, structure: str, extent: Extent | None = None) -> Finding:
    """An error as a finding; ``structure`` is where, if it does not say so itself."""
    offset = exc.offset if isinstance(exc, CorruptImageError | DeviceReadError) else None
    if isinstance(exc, CorruptImageError):
        structure = exc.structure or structure
    return Finding(structure, offset, exc.message, extent)


class Stored(NamedTuple):
    """A frame of a span, its box checked, with its payload in memory if it is a data frame.

    Attributes:
        frame: Its box.
        data: The same of a data frame.
        payload: Its stored bytes, not checked.
        end: Where it ends in the span.
    """

    frame: Frame
    data: DataFrame | None
    payload: memoryview
    end: int


def frame_in(file: OpenFile, start: int, span: memoryview, at: int) -> Stored:
    """A frame of a span that lies in the file at ``start``.

    Raises:
        CorruptImageError: it is damaged, or reaches beyond the span.
        UnsupportedFeatureError: a frame that must be understood and is not.
    """
    path, offset = file.storage.name, start + at
    head = parse_head(bytes(span[at : at + structs.HEAD]), offset, file.size, file.image_id, path)
    box = at + 8 + head.box_length
    end = box + head.outer_length
    if end > len(span):
        raise corrupt(f"it ends at {start + end}", "frame", offset, path)
    frame = finish_frame(head, span[at:box], offset, 0, path)
    data = parse_data(frame, file.geometry, path) if head.type == structs.DATA_FRAME else None
    return Stored(frame, data, span[box:end], end)


class Run(NamedTuple):
    """Data frames one behind the other, whose boxes and payloads are sound.

    Attributes:
        first: The first one's chunk.
        last: The last one's.
        frames: How many.
        plain: Plain bytes in them.
        outer: Stored bytes in them.
        end: Where they end in the span.
    """

    first: int
    last: int
    frames: int
    plain: int
    outer: int
    end: int


def run_in(file: OpenFile, start: int, span: memoryview, at: int) -> Run | None:
    """Data frames from a place of a span on, as far as they are sound and like nearly all; None if none is.

    Whatever is not so ends the run, and is for `frame_in` to judge.
    """
    grid, own, begin = file.geometry, file.image_id, at
    first = last = -1
    frames = plain = outer = 0
    while (frame := usual_data(span, at, start + at, own, grid)) is not None:
        payload = frame.payload_at - start
        end = payload + frame.ends[-1]
        if frame.chunk <= last or frame.origin != own or end > len(span):
            break
        try:
            frame.check_all(span[payload:end], "")
        except CorruptImageError:
            break
        first = frame.chunk if first < 0 else first
        last, at = frame.chunk, end
        frames, plain, outer = frames + 1, plain + frame.plain_length, outer + frame.ends[-1]
    return Run(first, last, frames, plain, outer, at) if at > begin else None


class Sums:
    """What must add up over a whole file.  One thread.

    Attributes:
        at: How far the file was gone through.
        damaged: Whether something was found that makes the sums say the same again.
    """

    def __init__(self, file: OpenFile) -> None:
        self.at = 0
        self.damaged = False
        self._file = file
        self._next_cell = 0
        self._last_chunk = -1
        self._data = [0, 0, 0]

    def gap(self, item: Gap) -> Iterator[Finding]:
        """Bytes that belong to no frame come next."""
        self.at = item.end
        self.damaged = True
        yield Finding("frame", item.offset, f"bytes {item.offset} to {item.end}: {item.reason}")

    def add_run(self, run: Run, start: int) -> Iterator[Finding]:
        """Data frames of a span that lies at ``start`` come next."""
        if run.first <= self._last_chunk:
            yield Finding("data frame", self.at, f"chunk {run.first} comes after {self._last_chunk}")
        self.at = start + run.end
        self._last_chunk = run.last
        self._data = [
            total + more for total, more in zip(self._data, (run.frames, run.plain, run.outer), strict=True)
        ]

    def add(self, item: Frame, payload: Payload | ImageError | None) -> Iterator[Finding]:
        """A frame whose box is sound comes next; ``payload`` is what was made of it, if it has one."""
        self.at = item.end
        try:
            yield from self._add(item, payload)
        except (ImageError, DeviceReadError) as exc:
            self.damaged = True
            yield finding_of(exc, item.name)

    def _add(self, item: Frame, payload: Payload | ImageError | None) -> Iterator[Finding]:
        file, path = self._file, self._file.storage.name
        if (item.offset == 0) != (item.head.type == structs.HEADER):
            yield Finding(item.name, item.offset, f"a {item.name} lies at {item.offset}")
        if isinstance(payload, ImageError):
            raise payload
        if payload is not None:
            frame, damaged = payload
            if frame.chunk <= self._last_chunk or frame.origin != file.image_id:
                yield Finding(item.name, item.offset, f"chunk {frame.chunk} comes after {self._last_chunk}")
            self._last_chunk = frame.chunk
            self._data[0] += 1
            self._data[1] += frame.plain_length
            self._data[2] += frame.ends[-1]
            for first, count in cells_of(damaged):
                base = frame.chunk * file.geometry.chunk_size + first * file.geometry.cell_size
                length = min(count * file.geometry.cell_size, file.geometry.size - base)
                message = (
                    f"stored bytes of chunk {frame.chunk} cannot be read or do not agree with their check"
                )
                yield Finding(item.name, item.offset, message, Extent(base, length))
        elif item.head.type == structs.STATE_FRAME:
            first, cells, _, _ = parse_states(item, file.geometry, path)
            if first != self._next_cell:
                yield Finding(item.name, item.offset, f"begins at cell {first}, {self._next_cell} was due")
            self._next_cell = first + cells

    def finish(self) -> Iterator[Finding]:
        """Compare with the footer; after damage that would only say the same again."""
        if self.damaged:
            return
        if self._next_cell != self._file.geometry.cell_count:
            yield Finding("state frame", None, f"states end at cell {self._next_cell}")
        try:
            body = read_copy(self._file.storage, 0)[0].body
        except (ImageError, DeviceReadError):
            return  # reported with the footers
        told = [body.data_frames, body.plain_bytes, body.outer_bytes]
        if told != self._data:
            yield Finding(
                "footer", self._file.size - structs.TAIL, f"counts {told}, the file has {self._data}"
            )


def rest(
    file: OpenFile, sums: Sums, progress: Callable[[int], None], contents: Contents | None
) -> Iterator[Finding]:
    """Go through what is left of a file, frame by frame; ``contents`` says what was read before."""

    def payload(item: Frame | Gap, buffer: bytearray) -> Payload | ImageError | None:
        """Read a data frame's payload and check it; any thread."""
        if isinstance(item, Gap) or item.head.type != structs.DATA_FRAME:
            return None
        try:
            frame = parse_data(item, file.geometry, file.storage.name)
        except ImageError as exc:
            return exc
        if contents is not None and contents.read_whole(file, frame.chunk):
            return frame, 0
        return frame, damaged_cells(file, frame, buffer)

    frames = frames_of(file.storage, file.size, file.image_id, sums.at)
    for item, found in mapped(frames, payload, buffer_size=file.geometry.chunk_size):
        yield from sums.gap(item) if isinstance(item, Gap) else sums.add(item, found)
        progress(item.end - item.offset)
    yield from sums.finish()
