"""Verification of `.vsnap` images: damage is yielded, never raised.

Source: docs/formats/vsnap.md, section 11, "verify".
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from vsssnap.blocks.extent import Extent
from vsssnap.blocks.mapped import mapped
from vsssnap.errors import (
    CorruptImageError,
    DeviceReadError,
    ImageError,
    ImageNotFoundError,
    ParentMismatchError,
)
from vsssnap.formats.base import Depth, Finding
from vsssnap.formats.vsnap import merkle, structs
from vsssnap.formats.vsnap.codec import HASHERS
from vsssnap.formats.vsnap.index import Entry
from vsssnap.formats.vsnap.layout import parse_header
from vsssnap.formats.vsnap.metadata_frames import read_metadata
from vsssnap.formats.vsnap.opening import read_copy, same_footer, same_header
from vsssnap.formats.vsnap.payload import parse_data
from vsssnap.formats.vsnap.rebuild import damaged_cells
from vsssnap.formats.vsnap.scan import Gap, frames_of
from vsssnap.formats.vsnap.state_frames import parse_states
from vsssnap.formats.vsnap.states import cells_of
from vsssnap.formats.vsnap.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vsssnap.formats.vsnap.chain import OpenFile
    from vsssnap.formats.vsnap.codec import Hasher
    from vsssnap.formats.vsnap.frames import Frame
    from vsssnap.formats.vsnap.payload import DataFrame
    from vsssnap.formats.vsnap.reader import VsnapReader
    from vsssnap.formats.vsnap.structs import Reference

    Report = Callable[[int], None]
    _Payload = tuple[DataFrame, int]  # and its damaged cells

_ZEROS = 64 << 10  # bytes of zeros that are hashed at once


def verify(reader: VsnapReader, depth: Depth, progress: Report) -> Iterator[Finding]:
    """See `ImageReader.verify`; ancestors are checked as deep as the image itself.

    ``progress`` counts bytes of the volume at every depth.
    """
    files: list[OpenFile] = []
    for number in range(reader.chain.number + 1):
        if number == reader.chain.number or reader.chain.entries[number].used:
            try:
                files.append(reader.chain[number])
            except (ImageNotFoundError, ParentMismatchError):
                raise  # an ancestor that is elsewhere is no damage, and every chunk would say so again
            except (ImageError, DeviceReadError) as exc:
                yield _finding(exc, "file table")
    for file in files:
        yield from _named(file, reader, _ends(file))
    yield from _metadata(reader)
    stored = depth >= Depth.STORED
    checked = _Checked(reader) if depth >= Depth.CONTENT else None
    if isinstance(reader.tree, Tree):
        shown = _nothing if stored and checked is None else progress
        yield from _Walk(reader, reader.tree, checked=checked, progress=shown).run()
    if stored:
        total = sum(file.size for file in files)
        report = _nothing if checked is not None else _scaled(progress, reader.size, total)
        for file in files:
            yield from _named(file, reader, _stored(file, report, checked))


def _named(file: OpenFile, reader: VsnapReader, found: Iterator[Finding]) -> Iterator[Finding]:
    """Findings in an ancestor's file say in which: their offsets are not those of the image's own."""
    name = file.storage.name
    for finding in found:
        if file is not reader.chain.own and name not in finding.message:
            yield dataclasses.replace(finding, message=f"{name}: {finding.message}")
        else:
            yield finding


def _nothing(count: int) -> None:
    """Progress is counted elsewhere."""


def _scaled(progress: Report, size: int, total: int) -> Report:
    """Turn bytes of files into bytes of the volume, so that they add up to its size."""
    done = shown = 0

    def report(count: int) -> None:
        nonlocal done, shown
        done += count
        now = size * done // total
        progress(now - shown)
        shown = now

    return report


def _finding(exc: ImageError | DeviceReadError, structure: str, extent: Extent | None = None) -> Finding:
    offset = exc.offset if isinstance(exc, CorruptImageError | DeviceReadError) else None
    if isinstance(exc, CorruptImageError):
        structure = exc.structure or structure
    return Finding(structure, offset, exc.message, extent)


def _ends(file: OpenFile) -> Iterator[Finding]:
    """Header and both footers."""
    copies = []
    for copy in (0, 1):
        try:
            copies.append(read_copy(file.storage, copy))
        except (ImageError, DeviceReadError) as exc:
            yield _finding(exc, "footer")
    if len(copies) == 2 and not same_footer(*copies):
        yield Finding("footer", file.size - structs.TAIL, "the two copies differ")
    try:
        body = file.frame(0, 0, structs.HEADER).body
        parse_header(body)
        if copies and not same_header(body, copies[0][0]):
            yield Finding("header", 0, "the footer's copy of the header differs")
    except (ImageError, DeviceReadError) as exc:
        yield _finding(exc, "header")


def _metadata(reader: VsnapReader) -> Iterator[Finding]:
    if reader.footer is None:
        yield Finding("footer", reader.chain.own.size, "there is no valid footer: the image is incomplete")
        return
    body = reader.footer.body
    try:
        read_metadata(reader.chain.own, body.metadata_offset, body.metadata_length)
    except (ImageError, DeviceReadError) as exc:
        yield _finding(exc, "metadata")


class _Checked:
    """Digests of chunks as they are read; knows which frames were read whole, so that each is read once."""

    def __init__(self, reader: VsnapReader) -> None:
        self._reader = reader
        self._grid = reader.geometry
        self._hasher = HASHERS[self._grid.digest]
        self._zeros = memoryview(bytes(min(self._grid.chunk_size, _ZEROS)))
        # A file has one data frame of a chunk at most, so a bit tells; 8 MiB for 64 TiB of chunks of 1 MiB.
        # Threads that set bits of one byte at once may lose one, and that frame is read again.
        self._whole: dict[bytes, bytearray] = {}

    def has(self, file: OpenFile, chunk: int) -> bool:
        """Whether every stored byte of a file's frame of a chunk was compared, and agreed."""
        bits = self._whole.get(file.image_id)
        return bits is not None and bool(bits[chunk >> 3] & 1 << (chunk & 7))

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
                if frame.chunk == chunk and frame.states.data == piece.cells == entry.states.data:
                    found = self._of_frame(chunk, frame, stored, file.storage.name)
                    bits = self._whole.get(file.image_id)
                    if bits is None:
                        fresh = bytearray(-(-self._grid.chunk_count // 8))
                        bits = self._whole.setdefault(file.image_id, fresh)
                    bits[chunk >> 3] |= 1 << (chunk & 7)
                    return found
        hasher = self._hasher()
        hasher.update(self._reader.read_chunk(chunk))
        return hasher.digest()

    def _of_frame(self, chunk: int, frame: DataFrame, stored: memoryview, path: str) -> bytes:
        """As the chunk would be put together, without a copy of it."""
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


class _Walk:
    """All pages that can be reached, with their values; with ``checked``, all chunks too."""

    def __init__(
        self, reader: VsnapReader, tree: Tree, *, checked: _Checked | None, progress: Report
    ) -> None:
        self._reader = reader
        self._tree = tree
        self._checked = checked
        self._progress = progress
        self._grid = reader.geometry

    def run(self) -> Iterator[Finding]:
        if self._grid.chunk_count:
            items = self._below(self._tree.root, self._grid.levels - 1, 0)
            for item, found in mapped(items, self._look, buffer_size=self._grid.chunk_size):
                yield from found
                if isinstance(item, tuple):
                    self._progress(self._grid.length(item[0]))
        root = merkle.content_root(self._grid.header, self._tree.root.value)
        if self._reader.footer is not None and root != self._reader.content_root:
            yield Finding("footer", None, "the content root is not that of the top page")

    def _extent(self, level: int, number: int) -> Extent:
        span = structs.FAN_OUT ** (level + 1) * self._grid.chunk_size
        return Extent(number * span, min(span, self._grid.size - number * span))

    def _below(self, reference: Reference, level: int, number: int) -> Iterator[Finding | tuple[int, Entry]]:
        """What is wrong with pages, and the chunks whose pages are sound."""
        extent = self._extent(level, number)
        try:
            if self._tree.flat(reference) is not None:
                self._progress(extent.length)
                return
            page = self._tree.page(reference, level, number)
            found: Sequence[Entry | Reference] = page.references() if level else page.entries()
            if page.computed_value(found) != page.value:
                raise CorruptImageError(
                    "the value of the page is not that of its entries",
                    structure="index page",
                    offset=reference.offset,
                )
        except (ImageError, DeviceReadError) as exc:
            yield _finding(exc, "index page", extent)
            self._progress(extent.length)
            return
        for child, item in enumerate(found, number * structs.FAN_OUT):
            if isinstance(item, Entry):
                yield child, item
            else:
                yield from self._below(item, level - 1, child)

    def _look(self, item: Finding | tuple[int, Entry], buffer: bytearray) -> list[Finding]:
        """Check a chunk; runs in several threads."""
        return [item] if isinstance(item, Finding) else list(self._chunk(*item, buffer))

    def _chunk(self, chunk: int, entry: Entry, buffer: bytearray) -> Iterator[Finding]:
        grid = self._grid
        extent = Extent(chunk * grid.chunk_size, grid.length(chunk))
        try:
            for piece in entry.pieces:
                file = self._reader.chain[piece.file]
                if piece.offset + piece.box_length + piece.outer_length > file.size - structs.TAIL:
                    raise CorruptImageError(
                        f"a piece of chunk {chunk} at {piece.offset} reaches behind the end of its file",
                        structure="index page",
                    )
            if self._checked is None or entry.flat is not None:
                return
            if self._checked.digest(chunk, entry, buffer) != entry.digest:
                offset = entry.pieces[-1].offset if entry.pieces else None
                yield Finding("data frame", offset, f"the digest of chunk {chunk} does not agree", extent)
        except (ImageError, DeviceReadError) as exc:
            yield _finding(exc, "data frame", extent)


def _stored(file: OpenFile, progress: Report, checked: _Checked | None) -> Iterator[Finding]:
    """Every byte of a file, frame by frame; payloads that ``checked`` has read are not read again."""
    counts = _Counts(file, checked)
    frames = frames_of(file.storage, file.size, file.image_id)
    for item, payload in mapped(frames, counts.payload, buffer_size=file.geometry.chunk_size):
        if isinstance(item, Gap):
            yield Finding("frame", item.offset, f"bytes {item.offset} to {item.end}: {item.reason}")
            progress(item.end - item.offset)
            counts.damaged = True
            continue
        try:
            yield from counts.add(item, payload)
        except (ImageError, DeviceReadError) as exc:
            counts.damaged = True
            yield _finding(exc, item.name)
        progress(item.end - item.offset)
    yield from counts.finish()


class _Counts:
    """What must add up over a whole file."""

    def __init__(self, file: OpenFile, checked: _Checked | None) -> None:
        self._file = file
        self._checked = checked
        self._next_cell = 0
        self._last_chunk = -1
        self._data = [0, 0, 0]
        self.damaged = False

    def payload(self, item: Frame | Gap, buffer: bytearray) -> _Payload | ImageError | None:
        """Read a data frame's payload and check it; any thread."""
        if isinstance(item, Gap) or item.head.type != structs.DATA_FRAME:
            return None
        try:
            frame = parse_data(item, self._file.geometry, self._file.storage.name)
        except ImageError as exc:
            return exc
        if self._checked is not None and self._checked.has(self._file, frame.chunk):
            return frame, 0
        return frame, damaged_cells(self._file, frame, buffer)

    def add(self, item: Frame, payload: _Payload | ImageError | None) -> Iterator[Finding]:
        """Check a frame whose box is sound, with what `payload` made of it."""
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
            self._data = [
                self._data[0] + 1,
                self._data[1] + frame.plain_length,
                self._data[2] + frame.ends[-1],
            ]
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
