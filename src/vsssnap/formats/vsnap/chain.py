"""The files of an image: its own, and those of its ancestors that its index refers to.

Source: docs/formats/vsnap.md, section 8.  Ancestors are opened when something in them is
first needed, so that opening the last of many links costs what opening one image costs.
"""

from __future__ import annotations

import contextlib
import copy
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap.errors import ClosedError, CorruptImageError, ImageError, ParentMismatchError
from vsssnap.formats._parents import HINT, named_parents
from vsssnap.formats.vsnap import structs
from vsssnap.formats.vsnap.frames import Frame, corrupt, finish_frame, parse_head, read_frame
from vsssnap.formats.vsnap.payload import DataFrame, parse_data, usual_data
from vsssnap.formats.vsnap.structs import DATA_FRAME, HEAD, FileBody

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vsssnap.formats.base import ImageReader, ResolveParent
    from vsssnap.formats.storage import Storage
    from vsssnap.formats.vsnap.layout import Geometry

_COUNT = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """An ancestor, as the file table names it.

    Attributes:
        image_id: Of its file.
        content_root: Of its content.
        length: Of its file.
        used: Whether something reachable lies in it.
        name: Where it was, a hint.
    """

    image_id: bytes
    content_root: bytes
    length: int
    used: bool
    name: str

    def candidates(self) -> tuple[str, ...]:
        """Names for `ResolveParent`: where it was, then the same name beside the child."""
        base = self.name.rsplit("/", 1)[-1]
        return tuple(dict.fromkeys(name for name in (self.name, base) if name))


def pack_table(entries: Sequence[FileEntry]) -> list[bytes]:
    """The body of a file table."""
    parts = [_COUNT.pack(len(entries), 0)]
    for entry in entries:
        try:
            name = entry.name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # a name of Windows that is no text; it is a hint only
            name = entry.name.encode("utf-8", "replace")
        name = name[: structs.MAX_NAME]
        parts += [
            FileBody(entry.image_id, entry.content_root, entry.length, entry.used, len(name)).pack(),
            name,
        ]
    return parts


def parse_table(body: bytes, number: int) -> tuple[FileEntry, ...]:
    """Read a file table.

    Raises:
        CorruptImageError: it breaks a rule of section 8.
    """
    count, reserved = _COUNT.unpack_from(body) if len(body) >= _COUNT.size else (0, 1)
    if reserved or count != number or count * FileBody.SIZE > len(body):
        raise _broken(f"{count} files in {len(body)} bytes, {number} were due")
    at, entries = _COUNT.size, []
    for _ in range(count):
        found = FileBody.unpack(body, at)
        at += FileBody.SIZE
        if found.flags > 1 or found.name_length > structs.MAX_NAME or at + found.name_length > len(body):
            raise _broken(f"flags {found.flags}, name of {found.name_length} bytes")
        name = body[at : at + found.name_length].decode("utf-8", "surrogateescape")
        at += found.name_length
        entries.append(FileEntry(found.image_id, found.content_root, found.length, bool(found.flags), name))
    if at != len(body):
        raise _broken(f"{len(body) - at} bytes behind the last file")
    return tuple(entries)


@dataclass(frozen=True, slots=True)
class OpenFile:
    """One file of the chain, open.

    Attributes:
        storage: Its bytes.
        image_id: Its id.
        geometry: Its own; segment sizes may differ along a chain.
        size: Bytes of the file.
        content_root: Of its content; None for a file without a valid footer, which is being recovered.
    """

    storage: Storage
    image_id: bytes
    geometry: Geometry
    size: int
    content_root: bytes | None

    def frame(self, offset: int, length: int, kind: int) -> Frame:
        """Read and check a frame that a reference names; see `read_frame`."""
        return read_frame(self.storage, offset, self.size, self.image_id, length=length, kind=kind)

    def read(self, length: int, offset: int) -> bytes:
        """Bytes whose place a checked frame names."""
        return self.storage.pread(length, offset)

    def read_into(self, buffer: bytearray, length: int, offset: int) -> memoryview:
        """Bytes whose place a checked frame names; in ``buffer``, if it is long enough."""
        view = memoryview(buffer if len(buffer) >= length else bytearray(length))[:length]
        self.storage.preadinto(view, offset)
        return view

    def whole_data_frame(
        self, offset: int, box: int, outer: int, buffer: bytearray
    ) -> tuple[DataFrame, memoryview]:
        """A data frame and its payload with one read, into ``buffer``."""
        path = self.storage.name
        if offset + box + outer > self.size:
            raise corrupt(f"{box} and {outer} bytes reach behind the end", "data frame", offset, path)
        data = self.read_into(buffer, box + outer, offset)
        frame = self._data_frame(data[:box], offset)
        if frame.ends[-1] != outer:
            raise corrupt(f"payload is {frame.ends[-1]} bytes long, not {outer}", "data frame", offset, path)
        return frame, data[box:]

    def data_frame(self, offset: int, length: int) -> DataFrame:
        """Read and check the box of a data frame that a piece names."""
        if not HEAD <= length <= self.size - offset:
            path = self.storage.name
            raise corrupt(f"frame of {length} bytes reaches behind the end", "data frame", offset, path)
        return self._data_frame(memoryview(self.read(length, offset)), offset)

    def _data_frame(self, box: memoryview, offset: int) -> DataFrame:
        usual = usual_data(box, 0, offset, self.image_id, self.geometry)
        if usual is not None and usual.payload_at == offset + len(box):
            return usual
        path = self.storage.name
        head = parse_head(bytes(box[:HEAD]), offset, self.size, self.image_id, path, "data frame")
        if head.box_length + 8 != len(box):
            raise corrupt(
                f"box is {head.box_length + 8} bytes long, not {len(box)}", "data frame", offset, path
            )
        return self._parsed(finish_frame(head, box, offset, DATA_FRAME, path))

    def _parsed(self, frame: Frame) -> DataFrame:
        try:
            return parse_data(frame, self.geometry, self.storage.name)
        except CorruptImageError as exc:
            raise exc if exc.path else exc.at(self.storage.name, frame.offset) from None


class Chain:
    """Files by number.  Thread-safe."""

    def __init__(
        self, own: OpenFile, entries: Sequence[FileEntry], resolve: ResolveParent | None,
        opened: Callable[[ImageReader], OpenFile | None],
    ) -> None:  # fmt: skip
        """Describe a chain.

        Args:
            own: The image's own file, the last number.
            entries: Its ancestors.
            resolve: Opens one of them.
            opened: Its own file out of a reader, None if that is no image of this format.
        """
        self.entries = tuple(entries)
        self.number = len(self.entries)
        self.own = own
        self._resolve = resolve
        self._opened = opened
        self._lock = threading.RLock()
        self._files: dict[int, OpenFile] = {self.number: own}
        self._readers: dict[int, ImageReader] = {}
        self._damaged: dict[int, CorruptImageError] = {}  # found out once: it takes a walk through the file
        self._closed = False

    def __getitem__(self, number: int) -> OpenFile:
        """A file, opened if need be.

        Raises:
            CorruptImageError: there is no such number, or it is damaged.
            ParentMismatchError: what was found in its place is another image.
        """
        found = self._files.get(number)
        if found is not None:
            return found
        if not 0 <= number < self.number:
            raise _broken(f"file number {number} of {self.number + 1}")
        with self._lock:
            if self._closed:
                raise ClosedError(f"{self.own.storage.name or 'the image'} is closed", hint="open it again")
            if number in self._damaged:
                raise copy.copy(self._damaged[number])
            if number not in self._files:
                try:
                    self._files[number], self._readers[number] = self._open(number)
                except CorruptImageError as exc:
                    self._damaged[number] = copy.copy(exc)
                    raise
            return self._files[number]

    def require(self) -> None:
        """Look whether all files are there that something reachable lies in; what is opened for it is closed.

        Raises:
            ImageNotFoundError: one is not there.
            ParentMismatchError: one is another image.
            CorruptImageError: one is damaged.
        """
        for number, entry in enumerate(self.entries):
            if entry.used and number not in self._files:
                self._open(number)[1].close()

    def _open(self, number: int) -> tuple[OpenFile, ImageReader]:
        entry = self.entries[number]
        name = entry.name or entry.image_id.hex()
        what = f"{self.own.storage.name or 'the image'}: ancestor {number} ({name})"
        if self._resolve is None:
            raise ParentMismatchError(
                f"{what} is needed and there is no way to open it",
                path=self.own.storage.name,
                hint="open the image by its path",
            )
        for reader in named_parents(self._resolve, "vsnap"):
            try:
                found = self._checked(self._opened(reader), entry, what, reader.path)
            except ImageError:
                reader.close()
                continue
            except BaseException:
                reader.close()
                raise
            return found, reader
        # Who reads a message must know which file to put it beside: that of the child it is missing to.
        behind = getattr(self._resolve, "behind", None)
        child = self.entries[number + 1].name if number + 1 < self.number else ""
        resolve = behind(child) if behind is not None and child else self._resolve
        reader = resolve(entry.candidates())
        try:
            found = self._checked(self._opened(reader), entry, what, reader.path)
        except BaseException:
            reader.close()  # it is asked for again at the next read, and must not be open twice
            raise
        return found, reader

    def _checked(self, found: OpenFile | None, entry: FileEntry, what: str, path: str) -> OpenFile:
        """What was found, if it is what the file table names."""
        if found is None:
            raise ParentMismatchError(f"{what} is no vsnap image", path=path)
        same = found.image_id == entry.image_id and found.geometry.same_grid(self.own.geometry)
        if same and found.content_root is not None:
            # A file that broke off keeps neither; its frames still say which image they are of.
            same = (found.content_root, found.size) == (entry.content_root, entry.length)
        if not same:
            root = found.content_root.hex() if found.content_root is not None else "unknown"
            raise ParentMismatchError(
                f"{what}: found image {found.image_id.hex()} of {found.size} bytes with the content root"
                f" {root}, wanted {entry.image_id.hex()} of {entry.length} bytes with"
                f" {entry.content_root.hex()}",
                path=path or found.storage.name,
                hint=HINT,
            )
        return found

    def reader(self, number: int) -> ImageReader:
        """An ancestor as a reader; it stays the chain's.

        Raises:
            ParentMismatchError: it is another image, or there is none.
            CorruptImageError: there is no such number.
        """
        if not 0 <= number < self.number:
            raise _broken(f"file number {number} of {self.number + 1}")
        self[number]
        return self._readers[number]

    def paths(self) -> tuple[str, ...]:
        """Names of its files, its own first: those that are open, and where the others may be."""
        with self._lock:
            names = [self.own.storage.name, *(reader.path for reader in self._readers.values())]
            closed = [entry for number, entry in enumerate(self.entries) if number not in self._readers]
        places = getattr(self._resolve, "places", None)
        if places is not None:
            for entry in closed:
                names += places(entry.candidates())
        return tuple(dict.fromkeys(name for name in names if name))

    def close(self) -> None:
        """Close every file."""
        with self._lock, contextlib.ExitStack() as each:
            self._closed = True
            each.callback(self.own.storage.close)
            for reader in self._readers.values():
                each.callback(reader.close)


def _broken(message: str) -> CorruptImageError:
    return CorruptImageError(f"file table: {message}", structure="file table")
