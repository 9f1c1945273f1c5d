"""Verification of `.vsnap` images: damage is yielded, never raised.

Source: docs/formats/vsnap.md, section 11, "verify".
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
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
from vsssnap.formats.vsnap.content import Contents
from vsssnap.formats.vsnap.index import Entry
from vsssnap.formats.vsnap.layout import parse_header
from vsssnap.formats.vsnap.metadata_frames import read_metadata
from vsssnap.formats.vsnap.opening import read_copy, same_footer, same_header
from vsssnap.formats.vsnap.stored import SPAN, Run, Sums, finding_of, frame_in, rest, run_in
from vsssnap.formats.vsnap.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vsssnap.formats.vsnap.chain import OpenFile
    from vsssnap.formats.vsnap.frames import Frame
    from vsssnap.formats.vsnap.reader import VsnapReader
    from vsssnap.formats.vsnap.stored import Payload
    from vsssnap.formats.vsnap.structs import Reference

    Report = Callable[[int], None]
    _Item = Run | tuple[Frame, Payload | None]

_MANY = 256  # chunks of a group, at most: those of an increment lie in many files


def verify(reader: VsnapReader, depth: Depth, progress: Report) -> Iterator[Finding]:
    """See `ImageReader.verify`; ancestors are checked as deep as the image itself.

    ``progress`` counts bytes of the volume at every depth.
    """
    files: list[OpenFile] = []
    for number in range(reader.chain.number + 1):
        if number == reader.chain.number or reader.chain.entries[number].used:
            try:
                files.append(reader.chain[number])
            except (ImageNotFoundError, ParentMismatchError) as exc:
                if isinstance(reader.tree, Tree):
                    raise  # an ancestor that is elsewhere is no damage, and every chunk would say so again
                yield finding_of(exc, "file table")  # but who recovers wants to know of all that is lost
            except (ImageError, DeviceReadError) as exc:
                yield finding_of(exc, "file table")
    for file in files:
        yield from _named(file, reader, _ends(file))
    yield from _metadata(reader)
    own = reader.chain.own
    sums = Sums(own) if depth >= Depth.STORED else None
    contents = Contents(reader) if depth >= Depth.CONTENT else None
    chunks: Report = _nothing
    bytes_: Report = _nothing
    if sums is None or contents is not None:
        chunks = progress
    else:
        bytes_ = _scaled(progress, reader.size, sum(file.size for file in files))
    if isinstance(reader.tree, Tree):
        yield from _Walk(reader, reader.tree, sums, contents, chunks, bytes_).run()
    if sums is not None:
        for file in files:
            each = sums if file is own else Sums(file)
            yield from _named(file, reader, rest(file, each, bytes_, contents))


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


def _ends(file: OpenFile) -> Iterator[Finding]:
    """Header and both footers."""
    copies = []
    for copy in (0, 1):
        try:
            copies.append(read_copy(file.storage, copy))
        except (ImageError, DeviceReadError) as exc:
            yield finding_of(exc, "footer")
    if len(copies) == 2 and not same_footer(*copies):
        yield Finding("footer", file.size - structs.TAIL, "the two copies differ")
    try:
        body = file.frame(0, 0, structs.HEADER).body
        parse_header(body)
        if copies and not same_header(body, copies[0][0]):
            yield Finding("header", 0, "the footer's copy of the header differs")
    except (ImageError, DeviceReadError) as exc:
        yield finding_of(exc, "header")


def _metadata(reader: VsnapReader) -> Iterator[Finding]:
    if reader.footer is None:
        yield Finding("footer", reader.chain.own.size, "there is no valid footer: the image is incomplete")
        return
    body = reader.footer.body
    try:
        read_metadata(reader.chain.own, body.metadata_offset, body.metadata_length)
    except (ImageError, DeviceReadError) as exc:
        yield finding_of(exc, "metadata")


@dataclass(slots=True)
class _Group:
    """Neighbours in the index, and the span of the image's own file in which they are stored.

    Attributes:
        start: Where the span begins: with a frame.
        end: Where it ends: with a frame; ``start`` if it is empty.
        chunks: What the index says of them.
        elsewhere: Those that do not lie in the span, or not whole.
        found: What is wrong with the index between them.
    """

    start: int
    end: int
    chunks: list[tuple[int, Entry]] = field(default_factory=list)
    elsewhere: list[tuple[int, Entry]] = field(default_factory=list)
    found: list[Finding] = field(default_factory=list)


class _Walk:
    """All pages that can be reached, with their values; chunks and frames along the way.

    Spans are read while the index is walked, by several threads, and only as long as all is well:
    from the first trouble on `rest` goes through the file.
    """

    def __init__(
        self, reader: VsnapReader, tree: Tree, sums: Sums | None, contents: Contents | None,
        chunks: Report, bytes_: Report,
    ) -> None:  # fmt: skip
        """Prepare.

        Args:
            reader: The image.
            tree: Its index.
            sums: Takes the frames of its file; None to leave them alone.
            contents: Computes digests; None to leave contents alone.
            chunks: Gets bytes of the volume.
            bytes_: Gets bytes of the file.
        """
        self._reader = reader
        self._tree = tree
        self._sums = sums
        self._contents = contents
        self._chunks = chunks
        self._bytes = bytes_
        self._grid = reader.geometry
        self._trouble = sums is None

    def run(self) -> Iterator[Finding]:
        groups = self._groups() if self._grid.chunk_count else ()
        chunk = 2 * self._grid.chunk_size
        # Pages and states lie between the data; more than the file has is not needed.
        room = min(chunk + 4 * SPAN, max(chunk, self._reader.chain.own.size))
        for group, (found, items) in mapped(groups, self._look, buffer_size=room, ahead=32, group=1):
            yield from found
            self._chunks(sum(self._grid.length(chunk) for chunk, _ in group.chunks))
            if self._sums is None or self._trouble:
                continue
            if items is None:
                self._trouble = True
                continue
            for item in items:
                if isinstance(item, Run):
                    yield from self._sums.add_run(item, group.start)
                else:
                    yield from self._sums.add(*item)
            self._bytes(group.end - group.start)
        root = merkle.content_root(self._grid.header, self._tree.root.value)
        if self._reader.footer is not None and root != self._reader.content_root:
            yield Finding("footer", None, "the content root is not that of the top page")

    def _groups(self) -> Iterator[_Group]:
        own = self._reader.chain.number
        most = self._reader.chain.own.size - structs.TAIL
        group = _Group(0, 0)
        for item in self._below(self._tree.root, self._grid.levels - 1, 0):
            if isinstance(item, Finding):
                group.found.append(item)
            else:
                group.chunks.append(item)
                inside = True
                for piece in item[1].pieces:
                    end = piece.offset + piece.box_length + piece.outer_length
                    if piece.file == own and piece.offset >= group.end and end <= most:
                        group.end = end
                    else:
                        inside = False
                if not inside:
                    group.elsewhere.append(item)
            if group.end - group.start >= SPAN or len(group.chunks) + len(group.found) >= _MANY:
                yield group
                group = _Group(group.end, group.end)
        yield group

    def _extent(self, level: int, number: int) -> Extent:
        span = structs.FAN_OUT ** (level + 1) * self._grid.chunk_size
        return Extent(number * span, min(span, self._grid.size - number * span))

    def _below(self, reference: Reference, level: int, number: int) -> Iterator[Finding | tuple[int, Entry]]:
        """What is wrong with pages, and the chunks whose pages are sound."""
        extent = self._extent(level, number)
        try:
            if self._tree.flat(reference) is not None:
                self._chunks(extent.length)
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
            yield finding_of(exc, "index page", extent)
            self._chunks(extent.length)
            return
        for child, item in enumerate(found, number * structs.FAN_OUT):
            if isinstance(item, Entry):
                yield child, item
            else:
                yield from self._below(item, level - 1, child)

    def _look(self, group: _Group, buffer: bytearray) -> tuple[list[Finding], list[_Item] | None]:
        """Findings of a group, and what its span holds if all of it is sound; any thread."""
        found = group.found
        digests: dict[int, bytes] = {}
        items = None if self._trouble else self._span(group, buffer, digests)
        known = items is not None and self._contents is None
        for chunk, entry in group.elsewhere if known else group.chunks:
            found += self._chunk(chunk, entry, digests.get(chunk), buffer)
        return found, items

    def _span(self, group: _Group, buffer: bytearray, digests: dict[int, bytes]) -> list[_Item] | None:
        """What a span holds, and digests of chunks that lie in it whole; None if anything is wrong."""
        length = group.end - group.start
        if length > len(buffer):
            return None
        file, number = self._reader.chain.own, self._reader.chain.number
        entries = dict(group.chunks) if self._contents is not None else {}
        items: list[_Item] = []
        at = 0
        try:
            span = file.read_into(buffer, length, group.start)
            while at < length:
                if self._contents is None:
                    run = run_in(file, group.start, span, at)
                    if run is not None:
                        items.append(run)
                        at = run.end
                        continue
                frame, data, payload, at = frame_in(file, group.start, span, at)
                if data is None:
                    items.append((frame, None))
                    continue
                entry, digest = entries.get(data.chunk), None
                if self._contents is not None and entry is not None and len(entry.pieces) == 1:
                    piece = entry.pieces[0]
                    named = number, frame.offset, frame.head.box_length + 8, frame.head.outer_length
                    if piece[:4] == named:
                        digest = self._contents.of_frame(data.chunk, entry, file, data, payload)
                if digest is not None:
                    digests[data.chunk] = digest
                else:
                    data.check_all(payload, file.storage.name)
                items.append((frame, (data, 0)))
        except (ImageError, DeviceReadError):
            return None
        return items

    def _chunk(self, chunk: int, entry: Entry, digest: bytes | None, buffer: bytearray) -> Iterator[Finding]:
        """What is wrong with a chunk; ``digest`` is that of its content, if it was read."""
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
            if self._contents is None or entry.flat is not None:
                return
            if digest is None:
                digest = self._contents.digest(chunk, entry, buffer)
            if digest != entry.digest:
                offset = entry.pieces[-1].offset if entry.pieces else None
                yield Finding("data frame", offset, f"the digest of chunk {chunk} does not agree", extent)
        except (ImageError, DeviceReadError) as exc:
            yield finding_of(exc, "data frame", extent)
