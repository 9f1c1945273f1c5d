"""Small `.vsnap` images, written through the format's contract."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from uuid import UUID

import xxhash

from vsssnap.blocks.extent import Extent, ExtentKind, clip
from vsssnap.formats import Finding, MemoryStorage, Storage
from vsssnap.formats.base import Depth, ImageReader, ResolveParent
from vsssnap.formats.vsnap import VsnapFormat, VsnapOptions, structs
from vsssnap.formats.vsnap.reader import VsnapReader
from vsssnap.metadata import ImageMetadata

FORMAT = VsnapFormat()
ID = UUID("00112233-4455-6677-8899-aabbccddeeff")
SMALL = VsnapOptions(chunk_size=1 << 16, cell_size=1 << 12, level=0, digest="sha256", image_id=ID)


def write(
    storage: Storage,
    data: bytes | bytearray,
    marks: Iterable[Extent] = (),
    *,
    options: VsnapOptions | None = None,
    parent: ImageReader | None = None,
    metadata: ImageMetadata | None = None,
    only: Sequence[int] | None = None,
) -> None:
    """Write an image of ``data``; units that hold only zeros are not stored.

    ``marks`` are cut at the units that are stored, and laid down before each; ``only`` names those
    units by number.
    """
    writer = FORMAT.create(storage, len(data), options=options, parent=parent)
    try:
        unit = writer.unit
        stored = [
            at
            for at in range(0, len(data), unit)
            if (any(data[at : at + unit]) if only is None else at // unit in only)
        ]
        edges = sorted({0, len(data), *stored, *(min(at + unit, len(data)) for at in stored)})
        ordered = sorted(marks, key=lambda extent: extent.offset)
        for first, last in itertools.pairwise(edges):
            for mark in clip(ordered, first, last - first):
                writer.mark(mark)
            if first in stored:
                writer.store(writer.encode(memoryview(data)[first:last], first))
        writer.finish(metadata if metadata is not None else ImageMetadata())
    finally:
        writer.close()


def image_of(
    data: bytes | bytearray,
    marks: Iterable[Extent] = (),
    *,
    options: VsnapOptions | None = SMALL,
    parent: ImageReader | None = None,
    metadata: ImageMetadata | None = None,
    only: Sequence[int] | None = None,
) -> bytes:
    """The file of an image of ``data``."""
    storage = MemoryStorage()
    write(storage, data, marks, options=options, parent=parent, metadata=metadata, only=only)
    return bytes(storage.data)


def opened(file: bytes, *, recover: bool = False, parents: Sequence[bytes] = ()) -> VsnapReader:
    """A reader of a file in memory; ``parents`` are the chain below it, oldest first."""
    resolve = resolver(parents) if parents else None
    reader = FORMAT.open(MemoryStorage(file), resolve_parent=resolve, recover=recover)
    assert isinstance(reader, VsnapReader)
    return reader


def resolver(parents: Sequence[bytes]) -> ResolveParent:
    """Opens a parent by the name ``number.vsnap``."""

    def resolve(names: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        number = int(names[0].rsplit("/", 1)[-1].partition(".")[0])
        reader = FORMAT.open(MemoryStorage(parents[number]), resolve_parent=resolve)
        reader.path = f"{number}.vsnap"
        return reader

    return resolve


def findings(reader: ImageReader, depth: Depth = Depth.STORED) -> list[Finding]:
    """What a verification finds."""
    return list(reader.verify(depth, lambda count: None))


def noise(seed: int, size: int) -> bytes:
    """Incompressible bytes."""
    return random.Random(seed).randbytes(size)


def every_kind() -> tuple[bytes, list[Extent]]:
    """Content and marks that give an image with every state, partial cells and a short last cell."""
    chunk = 1 << 16
    data = bytearray(5 * chunk + 777)
    data[0:5000] = noise(1, 5000)
    data[3 * 4096 : 4 * 4096] = b"text " * 819 + b"."
    data[4 * chunk : 4 * chunk + 9000] = noise(2, 9000)
    data[5 * chunk :] = noise(3, 777)
    marks = [
        Extent(chunk, chunk, ExtentKind.HOLE),
        Extent(2 * chunk, 8192, ExtentKind.EXCLUDED),
        Extent(2 * chunk + 8192, 50, ExtentKind.HOLE),
        Extent(2 * chunk + 8242, 100, ExtentKind.UNREADABLE),
        Extent(4 * chunk + 5 * 4096, 4096, ExtentKind.UNREADABLE),
    ]
    return bytes(data), marks


def documents() -> ImageMetadata:
    """Metadata with an attachment."""
    return ImageMetadata(volume="C:", documents={"components.xml": b"<writers/>" * 20}, user={"job": 7})


def frame_bounds(data: bytes) -> list[tuple[int, int]]:
    """Where the frames of a sound file begin and end, by the two length fields of section 2."""
    result, at = [], 0
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        end += int.from_bytes(data[at + 20 : at + 24], "little")
        result.append((at, end))
        at = end
    return result


def seal_box(file: bytearray, start: int) -> None:
    """Make the check of a box agree with what is in it."""
    box = 8 + int.from_bytes(file[start + 4 : start + 8], "little")
    check = xxhash.xxh3_128_digest(
        bytes(file[start : start + structs.CHECK_AT] + file[start + structs.HEAD : start + box])
    )
    file[start + structs.CHECK_AT : start + structs.HEAD] = check
