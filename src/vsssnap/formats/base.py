"""The contract of an image format.

A format is a class that extends `ImageFormat` and is found in the registry by name.  It reads and writes
a `Storage` only: a file, a pipe, memory and the power-cut recorder of the tests are the same to it.
Opening the file, the ``.partial`` name, the rename and the folder's fsync are `vsssnap.imaging`'s.

Life of a writer, all calls from `copy_blocks` or by hand::

    writer = format.create(storage, size, options)
    encoded = writer.encode(block, offset)      any thread, any order, several at once
    writer.store(encoded)                       ASCENDING: one at a time, by rising offset
    writer.mark(extent)                         the same order as store; what is not DATA
    writer.finish(metadata)                     once; flushes, then the complete mark, flushes
    writer.close()                              without finish: the image stays incomplete

What is neither stored nor marked is ZERO; in a child it is as in the parent.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, runtime_checkable

from vsssnap._units import MIB, whole
from vsssnap.blocks.reader import BlockReader, writable
from vsssnap.formats._options import options_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from vsssnap.blocks.extent import Extent
    from vsssnap.formats.sidecar import SidecarReader
    from vsssnap.formats.sidecar.guard import BlockGuard
    from vsssnap.formats.storage import Storage
    from vsssnap.metadata import ImageMetadata

__all__ = [
    "Depth",
    "FORMAT_API",
    "Finding",
    "ImageFormat",
    "ImageReader",
    "ImageWriter",
    "Probe",
    "ResolveParent",
    "SupportsWrite",
    "WriteOrder",
    "options_of",
]

SIDECAR_SUFFIX: Final = ".vsssnap"
"""What is appended to an image's whole name for its side-car's."""

FORMAT_API = 1
"""The version of this contract; a guest format carries the same number in ``api``."""


class WriteOrder(enum.StrEnum):
    """In which order a writer takes blocks."""

    ASCENDING = "ascending"
    """By rising offset, one `store` or `mark` at a time: streams and compressed formats."""
    ANY = "any"
    """Any order, from several threads at once."""


class Depth(enum.IntEnum):
    """How deep a verification looks."""

    STRUCTURE = 1
    """The format's own structures agree with each other and their checksums; no payload is read."""
    STORED = 2
    """Every stored byte is read and compared with its checksum, without decompressing."""
    CONTENT = 3
    """Every block is decoded and compared with its digest."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with an image.

    Attributes:
        structure: Which structure, in the specification's words ("footer", "data frame").
        offset: Where it begins in the file, bytes; None if it has no place.
        message: What is wrong with it.
        extent: The range of the volume that is lost by it; None if none or unknown.
    """

    structure: str
    offset: int | None
    message: str
    extent: Extent | None = None


@runtime_checkable
class SupportsWrite(Protocol):
    """The least that a target of `copy_blocks` must do; called by rising offset, one at a time."""

    @property
    def size(self) -> int:
        """Bytes; the source has the same size."""

    def pwrite(self, data: memoryview, offset: int, /) -> int:
        """Write all of ``data``; must not keep a reference to it."""


class ResolveParent(Protocol):
    """Opens the other files an image refers to.

    A name proves nothing: the format compares the identity of what it gets with the one it
    recorded and raises ParentMismatchError.

    An object that has ``named``, paths of files that the user says are parents, is asked for these
    one by one too; whatever does not have the recorded identity is passed over.
    """

    def __call__(self, candidates: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        """Open the first of some paths that exists.

        Args:
            candidates: Paths; relative ones begin at the child's folder.
            format: Name of its format where the child records one (``"raw"`` for a file that
                holds the volume's bytes as they are); by default it is recognised.

        Raises:
            ImageNotFoundError: none of them exists.
            CorruptImageError: the chain is too deep or leads back into itself.
        """


class ImageReader(BlockReader):
    """An image as a reader.

    With a side-car attached `extents` tells the states it holds, what was UNREADABLE when the
    image was made raises DeviceReadError, and a read gives what was saved or CorruptImageError: each
    block that it touches is compared with its checksum once.  A driver need not know of it.

    Attributes:
        format: Name of its format.
        path: Where it was opened, or "" if it has no name.
        sidecar: Checksums and metadata beside the image, or None.
        plain: Whether it stores the volume's bytes as they are, so that reading costs no decoding.
    """

    format: ClassVar[str]
    path: str = ""
    sidecar: SidecarReader | None = None
    plain: bool = False
    _guard: BlockGuard | None = None

    def attach(self, sidecar: SidecarReader) -> None:
        """Take the metadata and states of a side-car; the reader owns it from then on.

        Raises:
            CorruptImageError: it is of another image; it is closed then.
        """
        try:
            sidecar.require(self.size, self.format)
        except BaseException:
            sidecar.close()
            raise
        from vsssnap.formats.sidecar.guard import BlockGuard  # for the few images that have one

        self.sidecar = sidecar
        self.metadata = sidecar.metadata
        self._guard = BlockGuard(sidecar, self.path)

    def pread(self, length: int, offset: int, /) -> bytes:
        """See `BlockReader`."""
        if self.sidecar is not None:
            self.sidecar.states.require_readable(whole(offset, "offset"), whole(length, "length"))
        data = super().pread(length, offset)
        if self._guard is not None:
            self._guard.check(memoryview(data), offset, super().preadinto)
        return data

    def preadinto(self, buffer: Buffer, offset: int, /) -> int:
        """See `BlockReader`."""
        if self._guard is None:
            return super().preadinto(buffer, offset)
        view = writable(buffer)
        if self.sidecar is not None:
            self.sidecar.states.require_readable(whole(offset, "offset"), len(view))
        count = super().preadinto(view, offset)
        self._guard.check(view[:count], offset, super().preadinto)
        return count

    def _walk(self, offset: int, length: int) -> Iterator[Extent]:
        known = super()._walk(offset, length)
        if self.sidecar is None or self._guard is None:
            return known
        return self._guard.parts(self.sidecar.states.over(self._guard.over(known), offset, length))

    def close(self) -> None:
        """See `BlockReader`."""
        try:
            super().close()
        finally:
            if self.sidecar is not None:
                self.sidecar.close()

    @property
    def origins(self) -> tuple[str, ...]:
        """The image's file."""
        return (self.path,) if self.path else ()

    def require_parents(self) -> None:
        """Look whether the images behind this one are there, and those it was made against; reads no content.

        For a format that opens them when something in them is first needed; others have them open.

        Raises:
            ImageNotFoundError: one is not there.
            ParentMismatchError: one is another image.
            CorruptImageError: one is no whole image.
        """

    def info(self) -> Mapping[str, Any]:
        """Facts of the format for people and ``vsssnap info --json``; JSON values only.

        Everywhere: ``stored_size`` (bytes), ``complete``, ``identity`` (hex), ``parents``, ``features``.
        """
        return {}

    def depths(self) -> tuple[Depth, ...]:
        """The depths that `verify` can reach, rising; the format's own, without a side-car."""
        return (Depth.STRUCTURE,)

    def verify(self, depth: Depth, progress: Callable[[int], None]) -> Iterator[Finding]:
        """Check the image; damage is yielded, never raised.

        Args:
            depth: One of `depths`.
            progress: Called with the bytes checked since the last call; what it raises ends the check.
        """
        yield from ()


class ImageWriter(ABC):
    """Writes one image.  See the module for its life.

    Attributes:
        size: Bytes of the volume.
        unit: Bytes of the aligned blocks it is handed (the last may be shorter), 64 KiB to 16 MiB.
        write_order: See `WriteOrder`.
        keeps_data: Whether what `encode` gives refers to the bytes it got; if not, the copy is faster.
    """

    size: int
    unit: int = MIB
    write_order: WriteOrder = WriteOrder.ANY
    keeps_data: bool = True

    @abstractmethod
    def encode(self, data: memoryview, offset: int, /) -> Any:  # noqa: ANN401 - opaque, a format's own
        """Prepare a block for `store`: zero test, digest, compression.  Any thread, several at once.

        Args:
            data: An aligned unit; stays as it is until the result was stored or dropped if it ``keeps_data``.
            offset: Its place in the volume.
        """

    @abstractmethod
    def store(self, encoded: Any, /) -> None:  # noqa: ANN401 - opaque, a format's own
        """Put down what `encode` prepared, in the order that `write_order` says."""

    @abstractmethod
    def mark(self, extent: Extent, /) -> None:
        """Say that a range is ZERO, HOLE, EXCLUDED or UNREADABLE; same order as `store`.

        A format that cannot tell the kinds apart keeps zeros.  A range may begin and end inside
        a unit that is also stored (its bytes there are zeros): it is marked before that.
        """

    @abstractmethod
    def finish(self, metadata: ImageMetadata, /) -> None:
        """Complete the image: write what is left, flush, write the complete mark, flush."""

    @abstractmethod
    def close(self) -> None:
        """Let resources go.  Idempotent; without `finish` the image stays incomplete."""

    def pwrite(self, data: memoryview, offset: int, /) -> int:
        """`encode` and `store` in one call, for writing by hand."""
        self.store(self.encode(data, offset))
        return len(data)

    def changed(self) -> int | None:
        """Bytes of data that a child holds of its own, before compression; None for others, or if unknown."""
        return None

    def flattened(self) -> Mapping[str, int]:
        """What the format could not say: extent kind to bytes kept as plain zeros."""
        return {}


@dataclass(frozen=True, slots=True)
class Probe:
    """What a format sees of a file that may be its own.

    Attributes:
        head: Its first bytes, up to 64 KiB.
        tail: Its last bytes, up to 64 KiB.
        name: Its file name, or "".
        size: Its size in bytes; None for a pipe.
    """

    head: bytes
    tail: bytes
    name: str = ""
    size: int | None = None


class ImageFormat(ABC):
    """A driver for one image format; stateless, made without arguments.

    Attributes:
        api: Version of this contract that the class was written for.
        name: Registry name, lower case.
        suffixes: File name endings with their dot, the first one for new files.
        options_type: Frozen dataclass of its create options.
        features: What it can hold, of: "compression", "checksums", "holes", "metadata",
            "parents", "streaming", "unreadable".
    """

    api: ClassVar[int] = FORMAT_API
    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    options_type: ClassVar[type]
    features: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def probe(self, seen: Probe, /) -> int:
        """How sure this is of this format, 0 (no) to 100 (a magic and more agree).

        By suffix alone: at most 10.  A format without a magic never gives more.  Of several that
        are equally sure the one is taken whose suffix the file's name has.
        """

    def wants_sidecar(self, options: object, /) -> bool:
        """Whether an image with these options gets a side-car for checksums and metadata."""
        return False

    def disk_sector_size(self, options: object, /) -> int | None:
        """The sector size, in bytes, of the disk that an image with these options is to whoever mounts it.

        None for a format that holds bytes, whatever they are; a volume that is saved in another one
        is put into a disk first.
        """
        return None

    @abstractmethod
    def open(
        self, storage: Storage, /, *, resolve_parent: ResolveParent | None = None, recover: bool = False
    ) -> ImageReader:
        """Open an image; the reader owns ``storage`` from then on, also if this raises.

        Args:
            storage: Positional reads and a size.
            resolve_parent: Opens a parent by its locator; None refuses images that need one.
            recover: Read what can be read of an incomplete or damaged image.

        Raises:
            CorruptImageError: it breaks the format's rules.
            UnsupportedFeatureError: it uses what this version does not know.
            ParentMismatchError: the parent found is another image.
        """

    @abstractmethod
    def create(
        self,
        storage: Storage,
        size: int,
        /,
        *,
        options: object = None,
        parent: ImageReader | None = None,
    ) -> ImageWriter:
        """Begin an image in an empty storage; the writer owns ``storage`` from then on.

        Args:
            storage: `append`, and `pwrite` if the format needs it.
            size: Bytes of the volume.
            options: An ``options_type``, or None for its defaults (see `options_of`).
            parent: What the new image is a child of.

        Raises:
            UsageError: the format cannot hold this size, these options or a parent.
        """
