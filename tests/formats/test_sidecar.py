from __future__ import annotations

import os
import random
import threading
import tracemalloc
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

import sidecar_spec
from checkout import TOP
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.consistency import Consistency
from vsssnap.errors import (
    ClosedError,
    CorruptImageError,
    DeviceReadError,
    TargetError,
    UnsupportedFeatureError,
    UsageError,
)
from vsssnap.formats.base import Finding, WriteOrder
from vsssnap.formats.pipe import PipeStorage
from vsssnap.formats.raw import RawFormat, RawReader
from vsssnap.formats.sidecar import SidecarReader, SidecarWriter, verify_with_sidecar, with_sidecar
from vsssnap.formats.storage import FileStorage, MemoryStorage
from vsssnap.metadata import ImageMetadata
from vsssnap.testing.powercut import PowerCut

BLOCK = 4096
IDENTITY = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
SPAN = 255 * BLOCK  # what one page of the table speaks of
VECTOR = TOP / "docs" / "formats" / "vectors" / "small.raw.vsssnap"
METADATA = ImageMetadata(
    volume="C:", created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), consistency=Consistency.CRASH
)


def patterned(size: int, seed: int = 1) -> bytearray:
    """Data, with about every third block of zeros."""
    dice = random.Random(seed)
    volume = bytearray(dice.randbytes(size))
    for at in range(0, size, BLOCK):
        if dice.random() < 0.3:
            volume[at : at + BLOCK] = bytes(len(volume[at : at + BLOCK]))
    return volume


def written(
    volume: bytes | bytearray,
    states: tuple[Extent, ...] = (),
    metadata: ImageMetadata = METADATA,
    block_size: int = BLOCK,
) -> bytes:
    storage = MemoryStorage()
    writer = SidecarWriter(storage, len(volume), "raw", block_size=block_size, identity=IDENTITY)
    for state in states:
        writer.state(state)
    writer.record(0, memoryview(volume))
    writer.finish(metadata)
    writer.close()
    return bytes(storage.data)


def opened(data: bytes | bytearray) -> SidecarReader:
    return SidecarReader.open(MemoryStorage(data, "x.raw.vsssnap"))


def image(volume: bytes | bytearray, sidecar: bytes | None = None) -> RawReader:
    reader = RawFormat().open(MemoryStorage(bytearray(volume), "x.raw"))
    if sidecar is not None:
        reader.attach(opened(sidecar))
    return reader


def check(reader: RawReader, sidecar: SidecarReader) -> list[Finding]:
    return list(verify_with_sidecar(reader, sidecar, lambda count: None))


def example() -> tuple[bytearray, tuple[Extent, ...]]:
    """The volume of the specification's vector."""
    volume = bytearray(10100)
    volume[:4096] = bytes(i % 251 for i in range(4096))
    volume[8192:10000] = b"\xab" * 1808
    return volume, (
        Extent(10000, 100, ExtentKind.UNREADABLE),
        Extent(4096, 4096, ExtentKind.HOLE),
    )


# The file.


def test_writer_gives_the_vector_of_the_specification() -> None:
    assert written(*example()) == VECTOR.read_bytes()


def test_reader_reads_the_vector_of_the_specification() -> None:
    sidecar = opened(VECTOR.read_bytes())
    assert (sidecar.size, sidecar.block_size, sidecar.format) == (10100, 4096, "raw")
    assert sidecar.identity == IDENTITY
    assert sidecar.metadata == METADATA
    assert list(sidecar.states) == [
        Extent(4096, 4096, ExtentKind.HOLE),
        Extent(10000, 100, ExtentKind.UNREADABLE),
    ]
    assert [(at, length, digest.hex()) for at, length, digest in sidecar.expected()] == [
        (0, 4096, "e12cd72144990fe57135ffa504f1bc71"),
        (8192, 1908, "d5c016d3944aa0d4ef8ddf578 1de9781".replace(" ", "")),
    ]


@pytest.mark.parametrize("block_size", [4096, 65536, 262144, 1 << 24])
def test_block_sizes_work(block_size: int) -> None:
    volume = bytearray(os.urandom(100_000)) + bytes(600_000) + os.urandom(1)
    storage = MemoryStorage()
    writer = SidecarWriter(storage, len(volume), "raw", block_size=block_size)
    writer.record(0, memoryview(volume))
    writer.finish(ImageMetadata())
    found = sidecar_spec.read(bytes(storage.data))
    assert found.entries == sidecar_spec.entries_of(bytes(volume), block_size)
    assert check(image(volume), opened(storage.data)) == []


def test_blocks_in_any_order_from_several_threads_give_the_same_file(monkeypatch: pytest.MonkeyPatch) -> None:
    from vsssnap.formats.sidecar import table

    monkeypatch.setattr(table, "_OPEN_PAGES", 2)  # so that pages leave memory and come back
    volume = patterned(9 * SPAN + 100)
    blocks = list(range(0, len(volume), BLOCK))
    random.Random(2).shuffle(blocks)
    storage = MemoryStorage()
    writer = SidecarWriter(storage, len(volume), "raw", block_size=BLOCK, identity=IDENTITY)

    def work(mine: list[int]) -> None:
        for at in mine:
            writer.record(at, memoryview(volume)[at : at + BLOCK])

    threads = [threading.Thread(target=work, args=(blocks[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.finish(METADATA)
    assert bytes(storage.data) == written(volume)


def test_last_record_of_a_block_counts() -> None:
    storage = MemoryStorage()
    writer = SidecarWriter(storage, BLOCK, "raw", block_size=BLOCK, identity=IDENTITY)
    writer.record(0, memoryview(b"\1" * BLOCK))
    writer.record(0, memoryview(b"\2" * BLOCK))
    writer.finish(METADATA)
    assert bytes(storage.data) == written(b"\2" * BLOCK)


def test_page_that_becomes_zero_again_is_stored_as_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    from vsssnap.formats.sidecar import table

    monkeypatch.setattr(table, "_OPEN_PAGES", 1)
    storage = MemoryStorage()
    writer = SidecarWriter(storage, 2 * SPAN, "raw", block_size=BLOCK, identity=IDENTITY)
    for first in (b"\1", b"\0"):
        writer.record(0, memoryview(first * BLOCK))
        writer.record(SPAN, memoryview(b"\1" * BLOCK))
    writer.finish(METADATA)
    found = sidecar_spec.read(bytes(storage.data))
    assert not any(storage.data[4096:8192])
    assert [number for number, entry in enumerate(found.entries) if any(entry)] == [255]


@pytest.mark.posix("files are sparse there only on request")
def test_empty_disk_of_64_tib_costs_next_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "huge.vsssnap"
    size = 64 << 40
    writer = SidecarWriter(FileStorage(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), str(path)), size, "raw")
    block = memoryview(b"\1" * writer.block_size)
    tracemalloc.start()
    for at in (0, size // 2, size - writer.block_size):
        writer.record(at, block)
    writer.state(Extent(1 << 30, 1 << 45, ExtentKind.HOLE))
    writer.finish(METADATA)
    writer.close()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    with FileStorageReader(path) as sidecar:
        assert [at for at, _, _ in sidecar.expected()] == [0, size // 2, size - writer.block_size]
        assert list(sidecar.verify()) == []
    assert peak < 1 << 20
    assert path.stat().st_blocks * 512 < 1 << 20


def test_the_file_is_to_be_sparse_before_anything_is_written() -> None:
    told = []

    class Told(MemoryStorage):
        def make_sparse(self) -> None:
            told.append(self.size)

    SidecarWriter(Told(), 64 << 20, "raw").close()
    assert told == [0]


class FileStorageReader:
    def __init__(self, path: Path) -> None:
        self.sidecar = SidecarReader.open(FileStorage(os.open(path, os.O_RDONLY), str(path)))

    def __enter__(self) -> SidecarReader:
        return self.sidecar

    def __exit__(self, *_: object) -> None:
        self.sidecar.close()


def test_memory_stays_flat_over_many_pages(tmp_path: Path) -> None:
    path = tmp_path / "wide.vsssnap"
    span = 255 << 18
    writer = SidecarWriter(
        FileStorage(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), str(path)), 3000 * span, "raw"
    )
    tracemalloc.start()
    for page in range(3000):
        writer.put(page * span, b"\1" * 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    writer.finish(METADATA)
    writer.close()
    assert peak < 2 << 20
    with FileStorageReader(path) as sidecar:
        assert sum(1 for _ in sidecar.expected()) == 3000


# Arguments.


@pytest.mark.parametrize("block_size", [0, 2048, 5000, 1 << 25])
def test_odd_block_size_is_refused(block_size: int) -> None:
    with pytest.raises(UsageError, match=rf"block_size is {block_size}"):
        SidecarWriter(MemoryStorage(), 1, block_size=block_size)


def test_storage_with_content_is_refused() -> None:
    with pytest.raises(UsageError, match="memory is not empty: it has 3 bytes"):
        SidecarWriter(MemoryStorage(b"abc"), 1)


def test_pipe_is_refused_and_closed() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with pytest.raises(UsageError, match="a side-car needs a file"):
        SidecarWriter(PipeStorage(write_end), 1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(write_end)


def test_format_name_must_fit() -> None:
    with pytest.raises(UsageError, match="has 33 bytes, above 32"):
        SidecarWriter(MemoryStorage(), 1, "x" * 33)


@pytest.mark.parametrize(("at", "length"), [(1, BLOCK), (0, BLOCK - 1), (2 * BLOCK, 100), (-BLOCK, BLOCK)])
def test_pieces_of_blocks_are_refused(at: int, length: int) -> None:
    writer = SidecarWriter(MemoryStorage(), 2 * BLOCK + 10, block_size=BLOCK)
    with pytest.raises(UsageError, match=f"{length} bytes at {at} are no whole blocks of {BLOCK} bytes"):
        writer.record(at, memoryview(bytes(length)))


def test_state_outside_the_volume_is_refused() -> None:
    writer = SidecarWriter(MemoryStorage(), 100, block_size=BLOCK)
    with pytest.raises(UsageError, match="is not inside a volume of 100 bytes"):
        writer.state(Extent(90, 11, ExtentKind.HOLE))


def test_finished_writer_takes_no_more() -> None:
    writer = SidecarWriter(MemoryStorage(), 100, block_size=BLOCK)
    writer.finish(METADATA)
    with pytest.raises(ClosedError, match="the side-car is finished"):
        writer.record(0, memoryview(bytes(100)))


# States.


def test_overlapping_states_keep_the_gravest() -> None:
    states = (
        Extent(0, 100, ExtentKind.HOLE),
        Extent(50, 20, ExtentKind.UNREADABLE),
        Extent(60, 60, ExtentKind.EXCLUDED),
    )
    assert list(opened(written(bytes(200), states)).states) == [
        Extent(0, 50, ExtentKind.HOLE),
        Extent(50, 20, ExtentKind.UNREADABLE),
        Extent(70, 50, ExtentKind.EXCLUDED),
    ]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 999),
            st.integers(1, 300),
            st.sampled_from([ExtentKind.HOLE, ExtentKind.EXCLUDED, ExtentKind.UNREADABLE, ExtentKind.ZERO]),
        ),
        max_size=30,
    )
)
def test_states_equal_a_byte_for_byte_model(marks: list[tuple[int, int, ExtentKind]]) -> None:
    size = 1000
    order = [ExtentKind.ZERO, ExtentKind.HOLE, ExtentKind.EXCLUDED, ExtentKind.UNREADABLE]
    model = [0] * size
    extents = tuple(Extent(at, min(length, size - at), kind) for at, length, kind in marks)
    for extent in extents:
        for at in range(extent.offset, extent.end):
            model[at] = max(model[at], order.index(extent.kind))
    data = written(bytes(size), extents)
    stored = [0] * size
    for offset, length, kind in sidecar_spec.read(data).states:
        stored[offset : offset + length] = [kind + 1] * length
    assert stored == model
    read = [0] * size
    for extent in opened(data).states:
        read[extent.offset : extent.end] = [order.index(extent.kind)] * extent.length
    assert read == model


@pytest.mark.parametrize(
    "states",
    [
        [(0, 0, 0)],
        [(10, 10, 0), (15, 10, 0)],
        [(10, 10, 0), (5, 5, 0)],
        [(0, 101, 0)],
        [(101, 1, 0)],
        [(0, 1, 3)],
        [(2**64 - 1, 2, 0)],
        [(0, 2**64 - 1, 0)],
    ],
)
def test_impossible_states_with_a_right_checksum_are_refused(states: list[tuple[int, int, int]]) -> None:
    data = forged(100, states=states)
    with pytest.raises(CorruptImageError, match="state") as caught:
        opened(data)
    assert caught.value.structure == "side-car states"
    assert caught.value.offset == 8192


def test_states_larger_than_a_piece_are_read_whole() -> None:
    count = 50_000  # 1.2 MB
    states = tuple(Extent(2 * n, 1, ExtentKind.HOLE) for n in range(count))
    found = opened(written(bytes(2 * count), states))
    assert len(found.states) == count
    assert list(found.states.within(2 * count - 3, 100)) == [Extent(2 * count - 2, 1, ExtentKind.HOLE)]


# Joined with an image.


class ZeroKnowing(MemoryStorage):
    """Memory that tells its zero bytes, one by one."""

    def extents(self, offset: int, length: int, /) -> Iterator[Extent]:
        for at in range(offset, offset + length):
            yield Extent(at, 1, ExtentKind.DATA if self.data[at] else ExtentKind.ZERO)


def test_hole_that_was_written_since_is_data() -> None:
    sidecar = written(bytes(1000), (Extent(100, 50, ExtentKind.HOLE),))
    volume = bytearray(1000)
    volume[120] = 1
    reader = RawFormat().open(ZeroKnowing(volume))
    reader.attach(opened(sidecar))
    assert Extent(120, 1, ExtentKind.DATA) in list(reader.extents())


def test_unreadable_range_raises_and_the_rest_reads() -> None:
    kept = b"\1" * 100 + bytes(50) + b"\1" * 850
    reader = image(b"\1" * 1000, written(kept, (Extent(100, 50, ExtentKind.UNREADABLE),)))
    assert reader.pread(100, 0) == b"\1" * 100
    assert reader.pread(850, 150) == b"\1" * 850
    for offset, length in ((99, 2), (149, 1), (0, 1000)):
        with pytest.raises(DeviceReadError, match="bytes 100 to 150 could not be read") as caught:
            reader.pread(length, offset)
        assert (caught.value.offset, caught.value.length) == (100, 50)
        with pytest.raises(DeviceReadError, match="bytes 100 to 150 could not be read"):
            reader.preadinto(bytearray(length), offset)


def test_what_is_no_buffer_is_refused_as_without_a_side_car() -> None:
    reader = image(b"\1" * 1000, written(b"\1" * 1000))
    released = memoryview(bytearray(4))
    released.release()
    wrong: list[Any] = [5, bytes(4), released, memoryview(bytearray(8))[::2]]
    for buffer in wrong:
        with pytest.raises(UsageError, match="buffer is"):
            reader.preadinto(buffer, 0)


@pytest.mark.parametrize(("length", "offset"), [(1, 2 * BLOCK + 9), (3 * BLOCK, BLOCK), (10 * BLOCK + 7, 0)])
def test_read_that_touches_a_changed_block_raises(length: int, offset: int) -> None:
    volume = patterned(10 * BLOCK + 7)
    changed = volume.copy()
    changed[2 * BLOCK + 77] ^= 1
    reader = image(changed, written(volume))
    what = f"bytes {2 * BLOCK} to {3 * BLOCK} of the volume are not what was saved.*move its side-car"
    for _ in range(2):
        with pytest.raises(CorruptImageError, match=what):
            reader.pread(length, offset)
        with pytest.raises(CorruptImageError, match=what):
            reader.preadinto(bytearray(length), offset)
    assert reader.pread(BLOCK, BLOCK) == volume[BLOCK : 2 * BLOCK]
    assert reader.pread(100, 10 * BLOCK) == volume[10 * BLOCK :]
    assert reader.pread(100, 11 * BLOCK) == b""


@given(st.lists(st.tuples(st.integers(0, 9 * BLOCK), st.integers(0, 3 * BLOCK)), max_size=20), st.integers(0))
def test_reads_of_an_intact_image_agree_and_those_of_a_changed_one_never_lie(
    reads: list[tuple[int, int]], place: int
) -> None:
    volume = patterned(9 * BLOCK + 100)
    place %= len(volume)
    changed = volume.copy()
    changed[place] ^= 0x80
    sound, spoilt = image(volume, written(volume)), image(changed, written(volume))
    bad = range(place - place % BLOCK, place - place % BLOCK + BLOCK)
    for offset, length in reads:
        expected = volume[offset : offset + length]
        assert sound.pread(length, offset) == expected
        if expected and offset < bad.stop and offset + len(expected) > bad.start:
            with pytest.raises(CorruptImageError):
                spoilt.pread(length, offset)
        else:
            assert spoilt.pread(length, offset) == expected


def test_block_is_compared_once() -> None:
    reader = image(bytearray(b"\1" * BLOCK), written(b"\1" * BLOCK))
    assert reader.pread(1, 0) == b"\1"
    storage = reader._storage
    assert isinstance(storage, MemoryStorage)
    storage.data[0] = 2
    assert reader.pread(1, 0) == b"\2"


def test_lost_data_is_no_hole(tmp_path: Path) -> None:
    volume = bytearray(64 * BLOCK)
    volume[40 * BLOCK : 44 * BLOCK] = b"\5" * (4 * BLOCK)
    path = tmp_path / "x.raw"
    path.write_bytes(b"")
    os.truncate(path, len(volume))
    reader = RawFormat().open(FileStorage(os.open(path, os.O_RDONLY), str(path)))
    reader.attach(opened(written(volume)))
    assert [(e.offset, e.length) for e in reader.extents() if e.kind is ExtentKind.DATA] == [
        (40 * BLOCK, 4 * BLOCK)
    ]
    assert [e.kind for e in reader.extents(41 * BLOCK + 5, 10)] == [ExtentKind.DATA]
    with pytest.raises(CorruptImageError, match=f"bytes {41 * BLOCK} to {42 * BLOCK} of"):
        reader.pread(10, 41 * BLOCK + 5)
    reader.close()


def test_lost_part_of_a_block_is_no_hole(tmp_path: Path) -> None:
    """A block of two pages, of which the file has lost one."""
    size, page = 16384, 4096
    volume = bytearray(3 * size)
    volume[size : 2 * size] = b"\5" * size
    path = tmp_path / "x.raw"
    path.write_bytes(b"")
    os.truncate(path, len(volume))
    with path.open("r+b") as file:
        file.seek(size)
        file.write(b"\5" * (size - page))
    reader = RawFormat().open(FileStorage(os.open(path, os.O_RDONLY), str(path)))
    assert {e.kind for e in reader.extents(2 * size - page, page)} == {ExtentKind.ZERO}  # as the file has it
    reader.attach(opened(written(volume, block_size=size)))
    assert [(e.offset, e.length) for e in reader.extents() if e.kind is ExtentKind.DATA] == [(size, size)]
    with pytest.raises(CorruptImageError, match=f"bytes {size} to {2 * size} of"):
        reader.pread(page, 2 * size - page)
    reader.close()


def test_damaged_table_is_told_where_it_is_needed() -> None:
    volume = patterned(2 * SPAN)
    sidecar = bytearray(written(volume))
    sidecar[2 * 4096 + 5] ^= 1  # the header, the first page, the second
    reader = image(volume, bytes(sidecar))
    assert reader.pread(SPAN, 0) == volume[:SPAN]
    assert sum(extent.length for extent in reader.extents()) == 2 * SPAN
    with pytest.raises(CorruptImageError, match="page 1 of the table fails its checksum"):
        reader.pread(1, SPAN)


def test_image_takes_the_metadata_of_its_sidecar() -> None:
    assert image(bytes(10), written(bytes(10))).metadata == METADATA


@pytest.mark.parametrize("size", [9, 11])
def test_sidecar_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(
        CorruptImageError, match=f"raw image of {size} bytes, the image beside it is raw of 10 bytes"
    ):
        image(bytes(10), written(bytes(size)))


def test_sidecar_of_another_format_is_refused() -> None:
    storage = MemoryStorage()
    writer = SidecarWriter(storage, 10, "vhdx", block_size=BLOCK)
    writer.finish(METADATA)
    with pytest.raises(CorruptImageError, match="is of a vhdx image"):
        image(bytes(10), bytes(storage.data))


def test_sidecar_is_closed_though_its_image_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = image(bytes(10), written(bytes(10)))
    closed: list[str] = []

    def fails(storage: MemoryStorage) -> None:
        closed.append(storage.name)
        raise OSError(5, "no")

    monkeypatch.setattr(MemoryStorage, "close", fails)
    with pytest.raises(OSError, match="no"):
        reader.close()
    assert closed == ["x.raw", "x.raw.vsssnap"]


# Verifying.


def test_intact_image_has_no_findings() -> None:
    volume = patterned(3 * SPAN + 5)
    assert check(image(volume), opened(written(volume))) == []


@pytest.mark.parametrize("at", [0, BLOCK - 1, BLOCK, 5 * BLOCK + 7, 3 * SPAN + 4])
def test_one_changed_byte_is_found_where_it_is(at: int) -> None:
    volume = patterned(3 * SPAN + 5)
    sidecar = opened(written(volume))
    volume[at] ^= 1
    (found,) = check(image(volume), sidecar)
    first = at // BLOCK * BLOCK
    assert found.structure == "block"
    assert found.extent == Extent(first, min(BLOCK, len(volume) - first))
    assert found.offset == first
    assert f"bytes {first} to " in found.message


def test_neighbouring_damage_is_one_finding() -> None:
    volume = bytearray(b"\1" * (10 * BLOCK))
    sidecar = opened(written(volume))
    volume[2 * BLOCK : 5 * BLOCK] = bytes(3 * BLOCK)
    volume[7 * BLOCK] = 0
    extents = [found.extent for found in check(image(volume), sidecar)]
    assert extents == [Extent(2 * BLOCK, 3 * BLOCK), Extent(7 * BLOCK, BLOCK)]


def test_unreadable_ranges_count_as_zeros() -> None:
    volume = bytearray(b"\1" * (10 * BLOCK))
    volume[5000:5100] = bytes(100)
    sidecar = written(volume, (Extent(5000, 100, ExtentKind.UNREADABLE),))
    assert check(image(volume, sidecar), opened(sidecar)) == []


class FailingStorage(MemoryStorage):
    """Fails to deliver some bytes."""

    bad = range(0)

    def pread(self, length: int, offset: int, /) -> bytes:
        if self.bad.start < offset + length and offset < self.bad.stop:
            raise DeviceReadError("a bad sector", offset=self.bad.start, length=len(self.bad))
        return super().pread(length, offset)


def test_block_that_cannot_be_read_is_found_and_the_rest_is_checked() -> None:
    volume = bytearray(b"\1" * (10 * BLOCK))
    sidecar = opened(written(volume))
    volume[9 * BLOCK] = 7
    storage = FailingStorage(volume)
    storage.bad = range(3 * BLOCK + 1, 3 * BLOCK + 2)
    found = check(RawFormat().open(storage), sidecar)
    assert [(item.extent, item.message.rpartition(": ")[2]) for item in found] == [
        (Extent(3 * BLOCK, BLOCK), "cannot be read"),
        (Extent(9 * BLOCK, BLOCK), "its checksum differs"),
    ]


def test_page_lost_as_zeros_is_found() -> None:
    data = bytearray(written(patterned(2 * SPAN)))
    data[4096:8192] = bytes(4096)
    assert [found.structure for found in opened(data).verify()] == ["side-car table"]


def test_pages_that_changed_places_are_found() -> None:
    data = bytearray(written(patterned(2 * SPAN)))
    data[4096:8192], data[8192:12288] = data[8192:12288], data[4096:8192]
    assert [found.structure for found in opened(data).verify()] == ["side-car page"] * 2 + ["side-car table"]


def test_progress_reaches_the_size() -> None:
    counts: list[int] = []
    volume = patterned(200 * BLOCK) + bytes(3 << 20)
    list(verify_with_sidecar(image(volume), opened(written(volume)), counts.append))
    assert sum(counts) == len(volume)


def test_exception_of_progress_ends_the_check() -> None:
    def stop(count: int) -> None:
        raise KeyboardInterrupt

    volume = patterned(SPAN)
    with pytest.raises(KeyboardInterrupt):
        list(verify_with_sidecar(image(volume), opened(written(volume)), stop))


def test_sparse_image_is_not_read_through(tmp_path: Path) -> None:
    path = tmp_path / "huge.raw"
    sidecar_path = tmp_path / "huge.raw.vsssnap"
    raw = RawFormat().create(FileStorage(os.open(path, os.O_RDWR | os.O_CREAT, 0o600)), 1 << 43)
    sidecar = SidecarWriter(FileStorage(os.open(sidecar_path, os.O_RDWR | os.O_CREAT, 0o600)), 1 << 43, "raw")
    writer = with_sidecar(raw, sidecar)
    writer.pwrite(memoryview(b"\1" * writer.unit), 1 << 42)
    writer.mark(Extent(0, 1 << 42, ExtentKind.HOLE))
    writer.finish(METADATA)
    writer.close()
    reader = RawFormat().open(FileStorage(os.open(path, os.O_RDONLY)))
    with FileStorageReader(sidecar_path) as found:
        assert check(reader, found) == []
    reader.close()


# Written along with an image.


def test_wrapper_records_what_passes_through() -> None:
    volume = patterned(3 << 20)
    raw, side = MemoryStorage(), MemoryStorage()
    writer = with_sidecar(
        RawFormat().create(raw, len(volume)),
        SidecarWriter(side, len(volume), "raw", block_size=BLOCK, identity=IDENTITY),
    )
    states = (Extent(0, 10, ExtentKind.HOLE), Extent(20, 1, ExtentKind.UNREADABLE))
    volume[:30] = bytes(30)
    for state in states:
        writer.mark(state)
    for at in range(0, len(volume), writer.unit):
        assert writer.pwrite(memoryview(volume)[at : at + writer.unit], at) == min(
            writer.unit, len(volume) - at
        )
    assert writer.flattened() == {}
    writer.finish(METADATA)
    writer.close()
    assert raw.data == volume
    assert bytes(side.data) == written(volume, states)


def test_wrapper_takes_units_that_hold_whole_blocks() -> None:
    raw = RawFormat().create(MemoryStorage(), 1 << 23)
    raw.unit = 64 << 10
    writer = with_sidecar(raw, SidecarWriter(side := MemoryStorage(), 1 << 23, "raw"))
    assert writer.unit == 256 << 10
    volume = os.urandom(1 << 23)
    for at in range(0, len(volume), writer.unit):
        writer.pwrite(memoryview(volume)[at : at + writer.unit], at)
    writer.finish(METADATA)
    assert check(image(volume), opened(side.data)) == []


def test_wrapper_keeps_the_order_of_its_writer() -> None:
    raw = RawFormat().create(MemoryStorage(), 100)
    raw.write_order = WriteOrder.ASCENDING
    assert with_sidecar(raw, SidecarWriter(MemoryStorage(), 100)).write_order is WriteOrder.ASCENDING


def test_wrapper_of_different_sizes_is_refused() -> None:
    with pytest.raises(UsageError, match="the image has 100 bytes, its side-car is for 101"):
        with_sidecar(RawFormat().create(MemoryStorage(), 100), SidecarWriter(MemoryStorage(), 101))


def test_wrapper_completes_the_image_before_the_sidecar() -> None:
    class Recorder(MemoryStorage):
        def flush(self) -> None:
            flushed.append(self.name)

    flushed: list[str] = []
    writer = with_sidecar(
        RawFormat().create(Recorder(name="image"), 100), SidecarWriter(Recorder(name="side"), 100)
    )
    writer.finish(METADATA)
    assert flushed == ["image", "side", "side"]


# Damage.


@dataclass
class Forgery:
    magic: bytes = b"VSSSIDE\x1a"
    version: int = 1
    block_size: int = BLOCK
    incompatible: int = 0


def forged(size: int, *, states: list[tuple[int, int, int]], head: Forgery | None = None) -> bytes:
    """A side-car with right checksums and wrong values, by the specification."""
    import struct

    head = head or Forgery()
    identity = IDENTITY.bytes
    base = int.from_bytes(identity[:8], "little")

    def digest(part: bytes, at: int) -> bytes:
        return xxhash.xxh3_128(part, seed=(base + at) % 2**64).digest()

    def sealed(part: bytes, at: int) -> bytes:
        part = part.ljust(4080, b"\0")
        return part + digest(part, at)

    header = struct.pack(
        "<8sIIQQQ16s32s",
        head.magic,
        head.version,
        head.block_size,
        head.incompatible,
        0,
        size,
        identity,
        b"raw",
    )
    blocks = -(-size // BLOCK)
    table = bytes(4096 * -(-blocks // 255))
    part = b"".join(struct.pack("<QQQ", *state) for state in states)
    at = 4096 + len(table)
    text = b"{}"
    end = at + len(part) + len(text)
    footer = struct.pack(
        "<8s16sQQQQ16s16s16s",
        b"VSSSEND\x1a",
        identity,
        end + 4096,
        0,
        len(states),
        len(text),
        bytes(16),
        digest(part, at),
        digest(text, at + len(part)),
    )
    return sealed(header, 0) + table + part + text + sealed(footer, end)


def test_forgery_without_a_fault_opens() -> None:
    assert len(opened(forged(100, states=[(0, 100, 0)])).states) == 1


@pytest.mark.parametrize(
    ("head", "feature"),
    [(Forgery(version=2), "version 2"), (Forgery(incompatible=5), "feature bits 0x5")],
)
def test_unknown_features_are_refused_by_name(head: Forgery, feature: str) -> None:
    with pytest.raises(UnsupportedFeatureError, match=feature) as caught:
        opened(forged(100, states=[], head=head))
    assert caught.value.feature == feature


@pytest.mark.parametrize("block_size", [0, 1, 2048, 5000, 1 << 25])
def test_impossible_block_size_with_a_right_checksum_is_refused(block_size: int) -> None:
    with pytest.raises(CorruptImageError, match=f"block size {block_size} is no power of two"):
        opened(forged(100, states=[], head=Forgery(block_size=block_size)))


@pytest.mark.parametrize("size", [2**63, 2**64 - 1])
def test_impossible_volume_size_is_refused(size: int) -> None:
    data = bytearray(forged(100, states=[]))
    data[32:40] = size.to_bytes(8, "little")
    data[4080:4096] = xxhash.xxh3_128(
        bytes(data[:4080]), seed=int.from_bytes(IDENTITY.bytes[:8], "little")
    ).digest()
    with pytest.raises(CorruptImageError, match=f"volume size {size} is above"):
        opened(data)


def test_file_that_is_no_sidecar_is_refused() -> None:
    with pytest.raises(CorruptImageError, match="does not begin as one") as caught:
        opened(bytes(20000))
    assert (caught.value.structure, caught.value.offset, caught.value.path) == (
        "side-car header",
        0,
        "x.raw.vsssnap",
    )


def test_every_shorter_file_is_refused() -> None:
    whole = written(patterned(3 * BLOCK))
    for length in (*range(0, len(whole), 97), *range(len(whole) - 40, len(whole))):
        with pytest.raises(CorruptImageError):
            opened(whole[:length])


def test_longer_file_is_refused() -> None:
    with pytest.raises(CorruptImageError, match="incomplete"):
        opened(written(patterned(3 * BLOCK)) + b"\0")


def test_every_flipped_byte_is_noticed() -> None:
    whole = written(*example())
    # Every byte that says something, and every 5th of the reserved zeros: all are under a checksum.
    places = [at for at in range(len(whole)) if whole[at] or at % 5 == 0]
    unnoticed = []
    for at in places:
        data = bytearray(whole)
        data[at] ^= 1 << (at % 8)
        try:
            noticed = bool(list(opened(data).verify()))
        except CorruptImageError:
            noticed = True
        if not noticed:
            unnoticed.append(at)
    assert unnoticed == []


@pytest.mark.long
def test_every_flipped_bit_is_noticed() -> None:
    whole = written(*example())
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        try:
            assert list(opened(data).verify()), bit
        except CorruptImageError:
            continue


@given(st.data())
def test_mutilated_sidecar_raises_only_its_own_errors(data: st.DataObject) -> None:
    mutilated = bytearray(written(*example()))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutilated) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=64))
        mutilated[at : at + len(piece)] = piece
    if data.draw(st.booleans()):
        del mutilated[data.draw(st.integers(0, len(mutilated))) :]
    whole = bytes(mutilated) == VECTOR.read_bytes()
    try:
        assert bool(list(opened(mutilated).verify())) != whole
    except (CorruptImageError, UnsupportedFeatureError):
        assert not whole


@given(st.binary(max_size=10000))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptImageError):
        opened(data)


def test_after_a_power_cut_it_is_whole_or_refused() -> None:
    volume, states = patterned(2 * SPAN + 100), (Extent(0, 10, ExtentKind.HOLE),)
    recorder = PowerCut()
    writer = SidecarWriter(recorder, len(volume), "raw", block_size=BLOCK, identity=IDENTITY)
    for state in states:
        writer.state(state)
    for at in range(0, len(volume), 64 * BLOCK):
        writer.record(at, memoryview(volume)[at : at + 64 * BLOCK])
    writer.finish(METADATA)
    whole = recorder.content()
    assert whole == written(volume, states)
    complete = 0
    for cut in recorder.cuts(subsets=6, torn=True):
        try:
            sidecar = SidecarReader.open(cut.storage)
        except CorruptImageError:
            continue
        complete += 1
        assert bytes(cut.storage.data) == whole, cut.description
        assert list(sidecar.verify()) == []
    assert complete


def test_full_disk_is_a_target_error() -> None:
    class Full(MemoryStorage):
        def pwrite(self, data: bytes | bytearray | memoryview, offset: int, /) -> None:
            if offset:
                raise TargetError("no space left", path=self.name)
            super().pwrite(data, offset)

    writer = SidecarWriter(Full(), 100, block_size=BLOCK)
    writer.record(0, memoryview(b"\1" * 100))
    with pytest.raises(TargetError, match="no space left"):
        writer.finish(METADATA)


# Single blocks.


def test_a_block_is_told_from_another() -> None:
    sidecar = opened(written(b"\1" * BLOCK + bytes(BLOCK) + b"\2" * 10))
    assert sidecar.verify_block(0, memoryview(b"\1" * BLOCK))
    assert not sidecar.verify_block(0, memoryview(b"\2" * BLOCK))
    assert sidecar.verify_block(BLOCK, memoryview(bytes(BLOCK)))
    assert not sidecar.verify_block(BLOCK, memoryview(bytes(BLOCK - 1) + b"\1"))
    assert sidecar.verify_block(2 * BLOCK, memoryview(b"\2" * 10))


@pytest.mark.parametrize(("at", "length"), [(1, BLOCK), (0, 10), (BLOCK, BLOCK)])
def test_piece_of_a_block_cannot_be_verified(at: int, length: int) -> None:
    with pytest.raises(UsageError):
        opened(written(bytes(BLOCK))).verify_block(at, memoryview(bytes(length)))


@pytest.mark.parametrize("size", [0, 1, 511, BLOCK - 1, BLOCK, BLOCK + 1, SPAN - 1, SPAN, SPAN + 1])
def test_independent_reader_finds_what_was_written(size: int) -> None:
    volume = patterned(size)
    found = sidecar_spec.read(written(volume))
    assert (found.volume_size, found.format) == (size, "raw")
    assert found.entries == sidecar_spec.entries_of(bytes(volume), BLOCK)
    assert found.metadata["volume"] == "C:"


@pytest.mark.parametrize("size", [0, 1, 511, BLOCK - 1, BLOCK, BLOCK + 1, SPAN - 1, SPAN, SPAN + 1])
def test_reader_finds_what_was_written(size: int) -> None:
    volume = patterned(size)
    sidecar = opened(written(volume))
    wanted = [
        (number * BLOCK, min(BLOCK, size - number * BLOCK), entry)
        for number, entry in enumerate(sidecar_spec.entries_of(bytes(volume), BLOCK))
    ]
    assert list(sidecar.blocks_of(0, size)) == wanted
    assert list(sidecar.expected()) == [block for block in wanted if any(block[2])]
    assert list(sidecar.verify()) == []


def test_image_tells_the_states_of_its_sidecar() -> None:
    storage = ZeroKnowing(bytes(1000))
    reader = RawFormat().open(storage)
    reader.attach(
        opened(written(bytes(1000), (Extent(100, 50, ExtentKind.HOLE), Extent(300, 1, ExtentKind.EXCLUDED))))
    )
    assert list(reader.extents(120, 300)) == [
        Extent(120, 30, ExtentKind.HOLE),
        Extent(150, 150, ExtentKind.ZERO),
        Extent(300, 1, ExtentKind.EXCLUDED),
        Extent(301, 119, ExtentKind.ZERO),
    ]


def test_damaged_page_is_found_and_the_other_blocks_are_checked() -> None:
    volume = bytearray(os.urandom(2 * SPAN))
    data = bytearray(written(volume))
    data[4096 + 100] ^= 1
    volume[0] ^= 1  # not to be told: its page is damaged
    volume[SPAN] ^= 1
    found = check(image(volume), opened(data))
    assert [(item.structure, item.extent) for item in found] == [
        ("block", Extent(SPAN, BLOCK)),
        ("side-car page", Extent(0, SPAN)),
        ("side-car table", None),
    ]
    assert found[1].offset == 4096
