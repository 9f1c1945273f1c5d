"""Opening `.vsnap` files.

Source: docs/formats/vsnap.md, section 11; the order of the checks is the specification's.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

from vsssnap.errors import CorruptImageError, DeviceReadError, ParentMismatchError, UnsupportedFeatureError
from vsssnap.formats._cache import ByteCache
from vsssnap.formats.vsnap import merkle, structs
from vsssnap.formats.vsnap.chain import Chain, OpenFile, parse_table
from vsssnap.formats.vsnap.frames import corrupt, read_frame
from vsssnap.formats.vsnap.layout import Footer, Geometry, parse_footer, parse_header
from vsssnap.formats.vsnap.metadata_frames import read_metadata
from vsssnap.formats.vsnap.reader import CACHE_SIZE, VsnapReader
from vsssnap.formats.vsnap.rebuild import RebuiltIndex, search
from vsssnap.formats.vsnap.tree import Tree
from vsssnap.metadata import ImageMetadata

if TYPE_CHECKING:
    from vsssnap.formats.base import ImageReader, ResolveParent
    from vsssnap.formats.storage import Storage
    from vsssnap.formats.vsnap.chain import FileEntry
    from vsssnap.formats.vsnap.rebuild import Found
    from vsssnap.formats.vsnap.structs import HeaderBody
    from vsssnap.formats.vsnap.tree import Index

_WALKED = 10_000  # frames that are looked at to say until where an incomplete file is sound


def open_strict(storage: Storage, resolve: ResolveParent | None) -> VsnapReader:
    """Open a complete image.

    Raises:
        CorruptImageError: it is incomplete or damaged.
        UnsupportedFeatureError: it uses what this version does not know.
        ParentMismatchError: it has a parent and there is no way to open it.
    """
    path = storage.name
    footer, image_id = read_footer(storage)
    body = footer.body
    _check_start(storage, footer, image_id)
    own = OpenFile(storage, image_id, Geometry(footer.header), storage.size, body.content_root)
    if merkle.content_root(footer.header, body.root.value) != body.content_root:
        raise corrupt("the content root is not that of the top page", "footer", own.size - structs.TAIL, path)
    entries: tuple[FileEntry, ...] = ()
    if body.table_offset:
        table = own.frame(body.table_offset, body.table_length, structs.FILE_TABLE)
        entries = parse_table(table.body, body.file_number)
        _check_parent(footer, entries, path)
    if entries and resolve is None:
        raise ParentMismatchError(
            f"{path or 'the image'} has a parent and there is no way to open it",
            path=path,
            hint="open it by its path",
        )
    metadata = read_metadata(own, body.metadata_offset, body.metadata_length)
    cache = ByteCache(CACHE_SIZE)
    chain = Chain(own, entries, resolve, _file_of)
    tree = Tree(body.root, own.geometry, chain, cache)
    return VsnapReader(chain, tree, cache, footer=footer, content_root=body.content_root, metadata=metadata)


def open_recovering(storage: Storage, resolve: ResolveParent | None) -> VsnapReader:
    """Open what is left of an image; reads the whole file.

    Raises:
        CorruptImageError: neither header nor footer is left, so that nothing says what it is.
        DeviceReadError: neither can be read.
        UnsupportedFeatureError: it uses what this version does not know.
    """
    footer: Footer | None = None
    try:
        footer, image_id = read_footer(storage)
        header = footer.header
    except (CorruptImageError, DeviceReadError):
        frame = read_frame(storage, 0, storage.size, None, kind=structs.HEADER)
        header, image_id = parse_header(frame.body)[0], frame.head.image_id
    root = footer.body.content_root if footer is not None else None
    own = OpenFile(storage, image_id, Geometry(header), storage.size, root)
    found = search(own)
    if footer is not None:
        try:
            _check_start(storage, footer, image_id)
        except CorruptImageError as exc:
            found.lost.append(exc.message)
    entries: tuple[FileEntry, ...] = ()
    if header.incompatible & structs.CHAIN:
        entries = _table_of(found, header)
    cache = ByteCache(CACHE_SIZE)
    chain = Chain(own, entries, resolve, _file_of)
    metadata = ImageMetadata()
    try:
        if found.metadata is not None:
            metadata = read_metadata(own, *found.metadata)
        else:
            found.lost.append("metadata: none found")
    except (CorruptImageError, DeviceReadError) as exc:
        found.lost.append(exc.message)
    index = RebuiltIndex(own.geometry, found, chain.number, lambda number: _index_of(chain, number))
    return VsnapReader(
        chain,
        index,
        cache,
        footer=footer,
        content_root=root or bytes(32),
        metadata=metadata,
        lost=found.lost,
    )


def read_footer(storage: Storage) -> tuple[Footer, bytes]:
    """The footer, by whichever copy is valid, and the image id.

    Raises:
        CorruptImageError: there is no valid copy, or two that differ.
        DeviceReadError: there is no valid copy where the file can be read.
        UnsupportedFeatureError: see `parse_header`.
    """
    found: list[tuple[Footer, bytes]] = []
    failed: DeviceReadError | None = None
    for copy in (0, 1):
        try:
            found.append(read_copy(storage, copy))
        except CorruptImageError:
            continue
        except DeviceReadError as exc:
            failed = exc
    if not found:
        raise failed or _incomplete(storage)
    if len(found) == 2 and not same_footer(*found):
        raise corrupt("the two copies differ", "footer", storage.size - structs.TAIL, storage.name)
    return found[0]


def read_copy(storage: Storage, copy: int) -> tuple[Footer, bytes]:
    """One copy of the footer.

    Raises:
        CorruptImageError: it is damaged.
        UnsupportedFeatureError: see `parse_header`.
    """
    size = storage.size
    offset = size - structs.TAIL + copy * structs.FOOTER_SIZE
    frame = read_frame(storage, offset, size, None, length=structs.FOOTER_SIZE, kind=structs.FOOTER)
    try:
        return parse_footer(frame.body, offset, size), frame.head.image_id
    except CorruptImageError as exc:
        raise exc.at(storage.name, offset) from None
    except UnsupportedFeatureError as exc:
        exc.path = storage.name
        raise


def same_footer(first: tuple[Footer, bytes], second: tuple[Footer, bytes]) -> bool:
    """Whether two copies say the same."""
    a, b = first[0], second[0]
    at = type(a.body).OFFSETS["copy"]
    left, right = a.body.pack(), b.body.pack()
    equal = left[:at] + left[at + 1 :] == right[:at] + right[at + 1 :]
    return equal and a.header == b.header and a.names == b.names and first[1] == second[1]


def _incomplete(storage: Storage) -> CorruptImageError:
    """The error for a file without a footer, saying until where it is sound."""
    size, sound, count = storage.size, 0, 0
    image_id: bytes | None = None
    # Not over damage: somebody else's terabyte with this suffix is not to be searched for frames.
    with contextlib.suppress(CorruptImageError, UnsupportedFeatureError, DeviceReadError):
        while sound < size and count < _WALKED:
            frame = read_frame(storage, sound, size, image_id)
            image_id, sound, count = frame.head.image_id, frame.end, count + 1
    path = storage.name or "the image"
    least = "at least " if count == _WALKED else ""
    return CorruptImageError(
        f"{path} is incomplete or damaged: no valid footer in its {size} bytes;"
        f" frames are whole up to byte {least}{sound}",
        path=storage.name,
        structure="footer",
        offset=max(0, size - structs.TAIL),
        hint="open it with recover=True to read what is there",
    )


def _check_start(storage: Storage, footer: Footer, image_id: bytes) -> None:
    """See that a file does not begin with the header of another image: one was copied over another.

    A header that is damaged is no obstacle; the footer has a copy of it.

    Raises:
        CorruptImageError: it does.
    """
    try:
        frame = read_frame(storage, 0, storage.size, None, kind=structs.HEADER)
    except (CorruptImageError, DeviceReadError):
        return
    if frame.head.image_id != image_id or not same_header(frame.body, footer):
        raise corrupt(
            f"the file begins as image {frame.head.image_id.hex()} and ends as image {image_id.hex()}:"
            " one was written over another and broke off",
            "header",
            0,
            storage.name,
        )


def same_header(body: bytes, footer: Footer) -> bool:
    """Whether a header's body says what a footer's copy of it says; autoclear bits may be fewer there.

    Raises:
        CorruptImageError: see `parse_header`.
        UnsupportedFeatureError: see `parse_header`.
    """
    header, names = parse_header(body)
    copy = footer.header
    fewer = copy.autoclear & header.autoclear == copy.autoclear
    plain = [dataclasses.replace(each, autoclear=0, name_count=0) for each in (header, copy)]
    return fewer and plain[0] == plain[1] and footer.names.items() <= names.items()


def _check_parent(footer: Footer, entries: tuple[FileEntry, ...], path: str) -> None:
    last = entries[-1]
    if (last.image_id, last.content_root) != (footer.header.parent_id, footer.header.parent_root):
        raise corrupt("the last file is not the parent", "file table", footer.body.table_offset, path)


def _table_of(found: Found, header: HeaderBody) -> tuple[FileEntry, ...]:
    """The ancestors of a file that is being recovered; none if they are lost."""
    try:
        if found.table is not None:
            entries = parse_table(found.table, int.from_bytes(found.table[:4], "little"))
            parent = (header.parent_id, header.parent_root)
            if entries and (entries[-1].image_id, entries[-1].content_root) == parent:
                return entries
        found.lost.append("file table: none found that ends with the parent")
    except CorruptImageError as exc:
        found.lost.append(exc.message)
    return ()


def _index_of(chain: Chain, number: int) -> Index:
    """The index of an ancestor, for an image that is being recovered.

    Raises:
        ParentMismatchError: its pieces would be looked for in files that it does not mean.
    """
    reader = chain.reader(number)
    assert isinstance(reader, VsnapReader)  # noqa: S101 - `_file_of` let it pass
    wanted = [entry.image_id for entry in chain.entries[:number]]
    if isinstance(reader.tree, Tree) and [entry.image_id for entry in reader.chain.entries] != wanted:
        raise ParentMismatchError(
            f"ancestor {number} ({reader.path}) has other ancestors than the file table names",
            path=reader.path,
        )
    return reader.tree


def _file_of(reader: ImageReader) -> OpenFile | None:
    return reader.chain.own if isinstance(reader, VsnapReader) else None
