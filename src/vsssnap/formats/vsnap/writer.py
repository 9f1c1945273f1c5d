"""Writing `.vsnap` images: one pass, no seek back, memory for a few chunks.

Source: docs/formats/vsnap.md.

`encode` runs on any thread and does the work (zero test, digest, compression); `store` and
`mark` come by rising offset and only put things down.  A chunk is *pending* from its first mark
or its bytes until something behind it arrives, because what is said of a chunk may come in
several pieces.  Then its data frame is written, its entry goes to the tree builder and its states
to the next state frame.

Nothing is written twice, so whatever interrupts the writer leaves a file without a valid footer:
incomplete, and recoverable up to there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vsssnap._units import whole
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import ClosedError, UsageError
from vsssnap.formats.base import ImageWriter, WriteOrder
from vsssnap.formats.vsnap import frames, merkle, structs
from vsssnap.formats.vsnap.chain import FileEntry, pack_table
from vsssnap.formats.vsnap.encoder import Encoded, Encoder
from vsssnap.formats.vsnap.index import FLAT, Entry, Piece, pack_page, page_reference
from vsssnap.formats.vsnap.layout import Geometry, pack_footer, pack_header
from vsssnap.formats.vsnap.marks import STATE_OF, ChunkMarks
from vsssnap.formats.vsnap.metadata_frames import pack_attachments, pack_metadata
from vsssnap.formats.vsnap.payload import pack_data
from vsssnap.formats.vsnap.state_frames import StateLog
from vsssnap.formats.vsnap.states import CellStates, touched, without
from vsssnap.formats.vsnap.structs import DataBody, FooterBody, Reference
from vsssnap.formats.vsnap.tree import Tree
from vsssnap.formats.vsnap.tree_builder import SAME, TreeBuilder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vsssnap.formats.storage import Storage
    from vsssnap.formats.vsnap.options import VsnapOptions
    from vsssnap.formats.vsnap.reader import VsnapReader
    from vsssnap.metadata import ImageMetadata


class VsnapWriter(ImageWriter):
    """Writes one image; see `ImageWriter`.

    A child differs in one thing: what is neither stored nor marked is as in the parent, not zero.
    The parent must stay open until `finish`.
    """

    write_order = WriteOrder.ASCENDING

    def __init__(
        self, storage: Storage, size: int, options: VsnapOptions, parent: VsnapReader | None
    ) -> None:
        """Begin an image: writes the header.

        Raises:
            UsageError: the options, or the parent, do not fit.
            TargetError: the storage failed.
        """
        self._storage = storage
        self._parent = parent
        self.keeps_data = parent is not None  # what is compared with it may have to be encoded anew
        tree = parent.tree if parent is not None else None
        if tree is not None and not isinstance(tree, Tree):
            raise UsageError(
                "an image that is being recovered cannot be a parent", hint="save it as a new image first"
            )
        self._image_id = options.image_id.bytes if options.image_id is not None else os.urandom(16)
        base = parent.geometry if parent is not None else None
        parent_id = parent.image_id if parent is not None else bytes(16)
        parent_root = parent.content_root if parent is not None else bytes(32)
        self._header = options.header(size, base, parent_id, parent_root)
        self.geometry = grid = Geometry(self._header)
        self.size = size
        self.unit = grid.chunk_size
        self._all_data = CellStates((1 << grid.cells_per_chunk) - 1)
        self._files = _ancestors(parent, storage.name) if parent is not None else []
        if len(self._files) > structs.MAX_FILES:
            raise UsageError(
                f"the parent has {len(self._files) - 1} ancestors, a chain at most {structs.MAX_FILES}",
                hint="save a full image",
            )
        self._encoder = Encoder(
            grid,
            options.level,
            tree.entry if tree is not None else None,
            parent.read_chunk if parent is not None else None,
        )
        self._tree = TreeBuilder(grid, self._emit_page, tree)
        self._log = StateLog(grid)
        self._next = 0  # first chunk that is not in the tree yet
        self._pending: int | None = None
        self._encoded: Encoded | None = None
        self._marks: ChunkMarks | None = None
        self._marked = 0  # end of the last mark
        self._data_frames = self._plain_bytes = self._outer_bytes = 0
        self._closed = False
        self._append(structs.HEADER, [pack_header(self._header)])
        # At the front, so that a child that broke off can still find its parent.
        self._table = self._placed(structs.FILE_TABLE, pack_table(self._files)) if self._files else (0, 0)

    # The contract.

    def encode(self, data: memoryview, offset: int, /) -> Encoded:
        """See `ImageWriter`.

        Raises:
            UsageError: ``data`` is no aligned unit.
        """
        chunk, rest = divmod(whole(offset, "offset"), self.unit)
        if rest or offset >= self.size or len(data) != self.geometry.length(chunk):
            raise UsageError(
                f"{len(data)} bytes at {offset} are no unit of {self.unit}",
                hint="write aligned units; only the last of the volume is shorter",
            )
        return self._encoder.encode(memoryview(data).cast("B"), chunk)

    def store(self, encoded: Encoded, /) -> None:
        """See `ImageWriter`.

        Raises:
            UsageError: it comes behind a higher offset, or twice.
            TargetError: the storage is full or failed.
        """
        chunk = encoded.chunk
        if chunk < self._next and not encoded.data and not encoded.same:
            return  # all of it was marked, and is zeros
        self._begin(chunk, chunk * self.unit)
        if self._encoded is not None:
            raise UsageError(f"the unit at {chunk * self.unit} was stored twice")
        if self._marks is not None and encoded.same:
            bad = touched(self._marks.unreadable, self.geometry.cell_size)
            if bad & encoded.same:
                encoded = self._encoder.encode(encoded.view, chunk, apart=bad)
        self._encoded = encoded

    def mark(self, extent: Extent, /) -> None:
        """See `ImageWriter`.

        Raises:
            UsageError: it is DATA, reaches behind the end or comes behind a higher offset.
            TargetError: the storage is full or failed.
        """
        if extent.kind is ExtentKind.DATA or extent.offset < 0 or extent.end > self.size:
            raise UsageError(f"{extent} cannot be marked in a volume of {self.size} bytes")
        if extent.offset < self._marked and extent.length:
            raise UsageError(
                f"{extent} comes after a mark up to {self._marked}",
                hint="mark by rising offset, each byte once",
            )
        self._live()
        at, unit = extent.offset, self.unit
        self._marked = max(self._marked, extent.end)
        while at < extent.end:
            chunk = at // unit
            self._begin(chunk, at)
            end = self.size if extent.end == self.size else extent.end - extent.end % unit
            if at % unit == 0 and end > at and self._marks is None and self._encoded is None:
                count = -(-(end - at) // unit)
                if extent.kind is not ExtentKind.UNREADABLE:
                    self._pending = None
                    self._put_run(STATE_OF[extent.kind], count)
                    at = end
                    continue
            stop = min(extent.end, chunk * unit + self.geometry.length(chunk))
            if extent.kind is ExtentKind.UNREADABLE and self._encoded is not None and self._encoded.same:
                raise UsageError(f"{extent} was marked after its unit was stored", hint="mark it before")
            if self._marks is None:
                grid = self.geometry
                self._marks = ChunkMarks(grid.cells(chunk), grid.cell_size, grid.length(chunk))
            self._marks.add(at - chunk * unit, stop - at, extent.kind)
            at = stop

    def finish(self, metadata: ImageMetadata, /) -> None:
        """See `ImageWriter`.

        Raises:
            UsageError: the metadata cannot be written.
            TargetError: the storage is full or failed; the image is incomplete.
        """
        self._live()
        # First of all: what cannot be written is said before anything is.
        attachments = pack_attachments(metadata.documents)
        text = metadata.replace(documents={}).encode()
        self._advance(self.geometry.chunk_count)
        self._put_states(final=True)
        root = self._tree.finish()
        places = [self._placed(structs.ATTACHMENT, body) for body in attachments]
        metadata_place = self._placed(structs.METADATA, pack_metadata(text, places))
        self._storage.flush()  # the mark of completeness must not overtake what it vouches for
        self._put_footers(root, metadata_place)
        self._storage.flush()
        self._closed = True

    def changed(self) -> int | None:
        """See `ImageWriter`."""
        return self._plain_bytes if self._parent is not None else None

    def close(self) -> None:
        """See `ImageWriter`."""
        self._closed = True
        self._storage.close()

    # One chunk after the other.

    def _live(self) -> None:
        if self._closed:
            raise ClosedError("the image writer is closed or finished", hint="create a new image")

    def _begin(self, chunk: int, offset: int) -> None:
        """Make ``chunk`` the pending one; what was pending is complete."""
        self._live()
        if self._pending == chunk:
            return
        if chunk < self._next or (self._pending is not None and chunk < self._pending):
            raise UsageError(
                f"offset {offset} comes after what lies behind it",
                hint="store and mark by rising offset, each place once",
            )
        self._advance(chunk)
        self._pending = chunk

    def _advance(self, chunk: int) -> None:
        """Complete everything before ``chunk``."""
        if self._pending is not None:
            self._complete(self._pending)
        if chunk > self._next:
            self._put_run(SAME if self._parent is not None else structs.ZERO, chunk - self._next)

    def _complete(self, chunk: int) -> None:
        if chunk > self._next:
            self._put_run(SAME if self._parent is not None else structs.ZERO, chunk - self._next)
        grid, marks, encoded = self.geometry, self._marks, self._encoded
        self._pending = self._encoded = self._marks = None
        if marks is None and encoded is not None and encoded.data == self._all_data.data:
            # What nearly all chunks are: data from end to end, all of it stored.
            self._next = chunk + 1
            piece = self._put_data(encoded, self._all_data)
            self._tree.add(Entry(None, encoded.digest, self._all_data, (piece,)), chunk)
            self._log.add_run(structs.DATA, grid.cells_per_chunk)
            self._put_states(final=False)
            return
        marks = marks or ChunkMarks(grid.cells(chunk), grid.cell_size, grid.length(chunk))
        inherited = CellStates()
        if encoded is None and self._parent is not None and not marks.complete():
            encoded, inherited = self._merged(chunk, marks, self._parent)
        same = encoded.same if encoded is not None else 0
        stored = encoded.data if encoded is not None else 0
        found = marks.states(stored | same)
        states = CellStates(
            found.data,
            found.hole | inherited.hole & ~found.data,
            found.excluded | inherited.excluded & ~found.data,
            0,
            found.unreadable,
        )
        self._next = chunk + 1
        flat = states.flat(grid.cells(chunk))
        own = CellStates(stored, states.hole, states.excluded, same, states.unreadable)
        if flat is not None:
            self._tree.add(FLAT[flat], chunk)
        else:
            digest = encoded.digest if encoded is not None else self._encoder.zero_digest(grid.length(chunk))
            pieces: tuple[Piece, ...] = ()
            if encoded is not None and encoded.base is not None:
                pieces = kept_pieces(encoded.base, same)
            if encoded is not None and stored:
                pieces = (*pieces, self._put_data(encoded, own))
            self._tree.add(Entry(None, digest, states, pieces), chunk)
        self._log.add_chunk(chunk, own)
        self._put_states(final=False)

    def _merged(self, chunk: int, marks: ChunkMarks, parent: VsnapReader) -> tuple[Encoded, CellStates]:
        """A chunk that is marked in part and else as in the parent, as a whole.

        The second result has the states that its unmarked cells have in the parent.
        """
        size = self.geometry.cell_size
        plain = memoryview(parent.read_chunk(chunk))
        for offset, length in marks.ranges:
            plain[offset : offset + length] = bytes(length)
        old = parent.tree.entry(chunk).states_of(self.geometry.cells(chunk))
        free = ~touched(marks.ranges, size)
        marks.unreadable += without(old.unreadable, marks.ranges, len(plain))
        encoded = self._encoder.encode(plain, chunk, apart=touched(marks.unreadable, size))
        return encoded, CellStates(hole=old.hole & free, excluded=old.excluded & free)

    def _put_run(self, state: int | None, count: int) -> None:
        """Chunks of one state, or as in the parent, from `_next` on."""
        grid = self.geometry
        first = self._next * grid.cells_per_chunk
        self._next += count
        last = min(self._next * grid.cells_per_chunk, grid.cell_count)
        self._tree.add_run(state, count)
        self._log.add_run(structs.PARENT if state is SAME else state, last - first)
        self._put_states(final=False)

    def _put_data(self, encoded: Encoded, own: CellStates) -> Piece:
        grid = self.geometry
        outer = sum(map(len, encoded.segments))
        head = DataBody(
            encoded.chunk, self._image_id, encoded.digest, encoded.plain_length, len(encoded.segments), 0
        )
        body = pack_data(head, own, grid.width, encoded.segments, encoded.checks)
        offset = self._append(structs.DATA_FRAME, [body], encoded.segments)
        self._data_frames += 1
        self._plain_bytes += encoded.plain_length
        self._outer_bytes += outer
        self._log.plain += encoded.plain_length
        return Piece(len(self._files), offset, structs.HEAD + len(body), outer, own.data)

    # Frames.

    def _append(self, kind: int, body: Sequence[bytes], outer: Sequence[bytes] = ()) -> int:
        length = sum(map(len, outer))
        parts = frames.build(kind, self._storage.size, self._image_id, body, outer_length=length)
        return self._storage.append([*parts, *outer])

    def _placed(self, kind: int, body: Sequence[bytes]) -> tuple[int, int]:
        """Append a frame without payload; its offset and length."""
        return self._append(kind, body), structs.HEAD + sum(map(len, body))

    def _put_states(self, *, final: bool) -> None:
        if final or self._log.full:
            body = self._log.take()
            if body:
                self._append(structs.STATE_FRAME, body)

    def _emit_page(self, level: int, number: int, entries: Sequence[bytes], value: bytes) -> Reference:
        body = pack_page(level, number, entries, value)
        offset = self._append(structs.INDEX_PAGE, body)
        return page_reference(len(self._files), offset, structs.HEAD + sum(map(len, body)), value)

    def _put_footers(self, root: Reference, metadata: tuple[int, int]) -> None:
        header = pack_header(self._header)
        packed = root.pack()
        start = self._storage.size
        parts: list[bytes | bytearray | memoryview] = []
        for copy in (0, 1):
            footer = FooterBody(
                start + structs.TAIL,
                1,
                packed[:8],
                packed[8:24],
                packed[24:],
                copy,
                0,
                0,
                len(header),
                *self._table,
                len(self._files),
                *metadata,
                0,
                merkle.content_root(self._header, root.value),
                self._data_frames,
                self._plain_bytes,
                self._outer_bytes,
                bytes(8),
                bytes(16),
            )
            position = start + copy * structs.FOOTER_SIZE
            parts += frames.build(structs.FOOTER, position, self._image_id, [pack_footer(footer, header)])
        self._storage.append(parts)


def kept_pieces(base: Entry, cells: int) -> tuple[Piece, ...]:
    """The parts of an entry's pieces that lie in ``cells``."""
    return tuple(
        Piece(piece.file, piece.offset, piece.box_length, piece.outer_length, piece.cells & cells)
        for piece in base.pieces
        if piece.cells & cells
    )


def _ancestors(parent: VsnapReader, name: str) -> list[FileEntry]:
    """The file table of a child: the parent's, and the parent; names relative to the child's folder."""
    folder = os.path.dirname(os.path.realpath(name))
    # A name that is a link ("latest.vsnap") leads elsewhere tomorrow, to the child itself.
    path = os.path.realpath(parent.path) if parent.path else ""
    above = os.path.dirname(path)
    found = []
    for entry in parent.chain.entries:
        place = relative(os.path.join(above, entry.name), folder) if entry.name and path else entry.name
        found.append(FileEntry(entry.image_id, entry.content_root, entry.length, entry.used, place))
    own = relative(path, folder) if path else ""
    found.append(FileEntry(parent.image_id, parent.content_root, parent.chain.own.size, True, own))
    return found


def relative(path: str, folder: str) -> str:
    """``path`` from ``folder``, with ``/``; absolute where that cannot be (another drive)."""
    try:
        return os.path.relpath(path, folder or os.curdir).replace(os.sep, "/")
    except ValueError:
        return os.path.abspath(path)
