"""Going through a file by spans, and frame by frame from the first trouble on."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from vsnap_images import FORMAT, findings, frame_bounds, image_of, noise, seal_box
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.formats import MemoryStorage
from vsssnap.formats.base import Depth
from vsssnap.formats.vsnap import VsnapOptions
from vsssnap.formats.vsnap.stored import SPAN
from vsssnap.metadata import ImageMetadata

CHUNK = 1 << 16
OPTIONS = VsnapOptions(chunk_size=CHUNK, cell_size=4096, level=0)
SIZE = 6 * SPAN + 4096


class Counted(MemoryStorage):
    """Counts what is read."""

    reads = 0
    total = 0

    def pread(self, length: int, offset: int, /) -> bytes:
        """See `Storage`."""
        type(self).reads += 1
        type(self).total += length
        return super().pread(length, offset)


@pytest.fixture(scope="module")
def image() -> bytes:
    return image_of(noise(11, SIZE), options=OPTIONS)


@pytest.mark.parametrize("depth", [Depth.STORED, Depth.CONTENT])
def test_a_sound_file_is_read_once_by_spans(
    image: bytes, depth: Depth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counted, "reads", 0)
    monkeypatch.setattr(Counted, "total", 0)
    with FORMAT.open(Counted(image)) as reader:
        assert findings(reader, depth) == []
    assert len(image) <= Counted.total < len(image) + 64 * 1024
    assert Counted.reads < SIZE // CHUNK // 3


@pytest.mark.parametrize("depth", [Depth.STORED, Depth.CONTENT])
@pytest.mark.parametrize("place", [0.01, 0.3, 0.6, 0.97])
def test_one_damaged_byte_is_one_chunk_at_every_place(image: bytes, place: float, depth: Depth) -> None:
    file = bytearray(image)
    file[int(len(file) * place)] ^= 0x10
    with FORMAT.open(MemoryStorage(bytes(file))) as reader:
        found = findings(reader, depth)
    chunks = {each.extent.offset // CHUNK for each in found if each.extent is not None}
    assert len(chunks) == 1
    assert all(each.extent is not None and each.extent.length <= CHUNK for each in found)


@pytest.mark.parametrize("depth", [Depth.STORED, Depth.CONTENT])
def test_what_follows_damage_is_checked_as_well(image: bytes, depth: Depth) -> None:
    file = bytearray(image)
    places = [len(file) // 5, len(file) // 2, len(file) * 4 // 5]
    for place in places:
        file[place] ^= 0x80
    with FORMAT.open(MemoryStorage(bytes(file))) as reader:
        found = findings(reader, depth)
    assert len({each.extent.offset // CHUNK for each in found if each.extent is not None}) == len(places)


def test_progress_comes_to_the_size(image: bytes) -> None:
    for depth in (Depth.STRUCTURE, Depth.STORED, Depth.CONTENT):
        counts: list[int] = []
        with FORMAT.open(MemoryStorage(image)) as reader:
            assert list(reader.verify(depth, counts.append)) == []
        assert sum(counts) == SIZE


def with_piece(image: bytes, number: int, end: int) -> bytes:
    """A file whose index says of one data frame that it ends elsewhere; all checks agree (section 6)."""
    file = bytearray(image)
    bounds = frame_bounds(image)
    start, _ = [place for place in bounds if image[place[0] + 16] == 2][number]
    box = 8 + int.from_bytes(image[start + 4 : start + 8], "little")
    outer = int.from_bytes(image[start + 20 : start + 24], "little")
    at = image.index(struct.pack("<IQII", 0, start, box, outer))
    file[at + 16 : at + 20] = (end - start - box).to_bytes(4, "little")
    seal_box(file, max(first for first, _ in bounds if first <= at))
    return bytes(file)


@pytest.mark.parametrize("number", [0, 40, -1])
def test_a_piece_that_is_not_as_long_as_the_index_says_is_found(image: bytes, number: int) -> None:
    """To read it is refused."""
    start, end = [place for place in frame_bounds(image) if image[place[0] + 16] == 2][number]
    with FORMAT.open(MemoryStorage(with_piece(image, number, end - 1))) as reader:
        (found,) = findings(reader, Depth.CONTENT)
    assert found.offset == start
    assert found.extent is not None


@pytest.mark.parametrize("depth", list(Depth))
def test_a_piece_that_reaches_behind_the_end_is_found_at_every_depth(image: bytes, depth: Depth) -> None:
    with FORMAT.open(MemoryStorage(with_piece(image, -1, len(image)))) as reader:
        (found,) = findings(reader, depth)
    assert "reaches behind the end of its file" in found.message


def test_a_nearly_empty_volume_of_an_exabyte_takes_no_memory() -> None:
    """Chunks that hold nothing cost nothing."""
    size, storage = 1 << 60, MemoryStorage()
    writer = FORMAT.create(storage, size, options=OPTIONS)
    for at in (0, size - CHUNK):
        writer.store(writer.encode(memoryview(noise(at & 1, CHUNK)), at))
        if not at:
            writer.mark(Extent(CHUNK, size - 2 * CHUNK, ExtentKind.HOLE))
    writer.finish(ImageMetadata())
    with FORMAT.open(MemoryStorage(storage.data)) as reader:
        tracemalloc.start()
        try:
            assert findings(reader, Depth.CONTENT) == []
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 32 << 20
