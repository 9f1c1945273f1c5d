from __future__ import annotations

import os
import random
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import ClosedError, TargetError, UsageError
from vsssnap.formats import _zero
from vsssnap.formats.base import Depth, ImageWriter, Probe, WriteOrder
from vsssnap.formats.pipe import PipeStorage
from vsssnap.formats.raw import RawFormat, RawOptions
from vsssnap.formats.sidecar import SidecarReader, SidecarWriter, verify_with_sidecar, with_sidecar
from vsssnap.formats.storage import FileStorage, MemoryStorage
from vsssnap.formats.vhd import VhdFormat
from vsssnap.formats.vhdx import VhdxFormat
from vsssnap.metadata import ImageMetadata

MIB = 1 << 20
PIECE = 64 << 10
NOTHING = ImageMetadata()

needs_holes = pytest.mark.posix("files are sparse there only on request")


def new_file(path: Path) -> FileStorage:
    return FileStorage(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), str(path))


def put(writer: ImageWriter, volume: bytes | bytearray) -> None:
    for at in range(0, len(volume), writer.unit):
        writer.pwrite(memoryview(volume)[at : at + writer.unit], at)


def used(path: Path) -> int:
    if sys.platform != "win32":
        return path.stat().st_blocks * 512
    raise AssertionError("block counts are not told there")


# Zeros.


@pytest.mark.parametrize("size", [0, 1, 511, PIECE - 1, PIECE, PIECE + 1, MIB, MIB + 1])
def test_zeros_are_zero(size: int) -> None:
    assert _zero.is_zero(memoryview(bytearray(size)))
    assert list(_zero.data_runs(memoryview(bytearray(size)))) == []


@pytest.mark.parametrize("size", [1, 511, PIECE - 1, PIECE, PIECE + 1, MIB, MIB + 1])
def test_one_byte_anywhere_is_data(size: int) -> None:
    for at in {0, size // 2, size - 1}:
        data = bytearray(size)
        data[at] = 128
        first = at // PIECE * PIECE
        assert not _zero.is_zero(memoryview(data))
        assert list(_zero.data_runs(memoryview(data))) == [(first, min(size, first + PIECE))]


def test_runs_of_data_are_joined() -> None:
    data = bytearray(6 * PIECE)
    for piece in (1, 2, 5):
        data[piece * PIECE + 7] = 1
    assert list(_zero.data_runs(memoryview(data))) == [(PIECE, 3 * PIECE), (5 * PIECE, 6 * PIECE)]


# Writing.


@pytest.mark.parametrize("preallocate", [False, True])
@pytest.mark.parametrize("size", [0, 1, 511, PIECE - 1, PIECE + 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 5])
def test_file_is_the_volume(tmp_path: Path, size: int, preallocate: bool) -> None:
    volume = bytearray(random.Random(size).randbytes(size))
    volume[size // 3 : size // 2] = bytes(size // 2 - size // 3)
    path = tmp_path / "x.raw"
    options = RawOptions(preallocate=preallocate)
    writer = RawFormat().create(new_file(path), size, options=options)
    put(writer, volume)
    writer.finish(NOTHING)
    writer.close()
    assert path.read_bytes() == volume


def test_untouched_volume_is_zeros_of_its_size(tmp_path: Path) -> None:
    writer = RawFormat().create(new_file(tmp_path / "x.raw"), 12345)
    writer.mark(Extent(0, 12345, ExtentKind.HOLE))
    writer.finish(NOTHING)
    writer.close()
    assert (tmp_path / "x.raw").read_bytes() == bytes(12345)


@needs_holes
def test_zeros_take_no_space(tmp_path: Path) -> None:
    path = tmp_path / "x.raw"
    volume = bytearray(8 * MIB)
    volume[5 * MIB + 70000] = 1
    writer = RawFormat().create(new_file(path), len(volume))
    put(writer, volume)
    writer.finish(NOTHING)
    writer.close()
    assert path.stat().st_size == 8 * MIB
    assert 0 < used(path) <= 2 * PIECE


@needs_holes
def test_preallocated_file_has_its_space_at_once(tmp_path: Path) -> None:
    writer = RawFormat().create(new_file(tmp_path / "x.raw"), 8 * MIB, options=RawOptions(preallocate=True))
    assert used(tmp_path / "x.raw") >= 8 * MIB
    writer.close()


class Told(MemoryStorage):
    """Writes down in which order it is told to be sparse and made long."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def make_sparse(self) -> None:
        self.calls.append("make_sparse")

    def truncate(self, size: int, /) -> None:
        self.calls.append("truncate")
        super().truncate(size)

    def allocate(self, size: int, /) -> None:
        self.calls.append("allocate")


@pytest.mark.parametrize(
    ("preallocate", "calls"), [(False, ["make_sparse", "truncate"]), (True, ["allocate"])]
)
def test_file_is_made_sparse_while_it_is_empty_unless_its_space_is_reserved(
    *, preallocate: bool, calls: list[str]
) -> None:
    storage = Told()
    RawFormat().create(storage, MIB, options=RawOptions(preallocate=preallocate)).close()
    assert storage.calls == calls


@pytest.mark.parametrize("made", [VhdFormat(), VhdxFormat()], ids=["vhd", "vhdx"])
def test_disk_for_hyper_v_is_never_made_sparse(made: VhdFormat | VhdxFormat) -> None:
    """Hyper-V attaches no virtual disk whose file is sparse."""
    storage = Told()
    made.create(storage, 8 * MIB).close()
    assert "make_sparse" not in storage.calls


class Full(MemoryStorage):
    """A disk without room."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def allocate(self, size: int, /) -> None:
        raise TargetError("cannot reserve: no space left on device", path="full", code=28)

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int, /) -> None:
        self.calls.append("pwrite")

    def close(self) -> None:
        self.calls.append("close")


def test_full_disk_is_noticed_before_anything_is_written() -> None:
    storage = Full()
    with pytest.raises(TargetError, match="no space left on device"):
        RawFormat().create(storage, 8 * MIB, options=RawOptions(preallocate=True))
    assert storage.calls == ["close"]


def test_blocks_from_several_threads_make_the_volume(tmp_path: Path) -> None:
    volume = random.Random(3).randbytes(20 * MIB + 77)
    path = tmp_path / "x.raw"
    writer = RawFormat().create(new_file(path), len(volume))
    assert writer.write_order is WriteOrder.ANY
    places = list(range(0, len(volume), writer.unit))
    random.Random(4).shuffle(places)

    def work(mine: list[int]) -> None:
        for at in mine:
            writer.pwrite(memoryview(volume)[at : at + writer.unit], at)

    threads = [threading.Thread(target=work, args=(places[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.finish(NOTHING)
    writer.close()
    assert path.read_bytes() == volume


SIZE = 3 * PIECE + 100
writes = st.tuples(st.just("write"), st.integers(0, SIZE), st.integers(0, 2 * PIECE), st.integers(0, 1))
marks = st.tuples(st.just("mark"), st.integers(0, SIZE), st.integers(0, 2 * PIECE), st.integers(0, 3))
KINDS = [ExtentKind.ZERO, ExtentKind.HOLE, ExtentKind.EXCLUDED, ExtentKind.UNREADABLE]


@given(st.lists(writes | marks, max_size=12))
def test_last_write_or_mark_of_a_byte_counts(steps: list[tuple[str, int, int, int]]) -> None:
    model = bytearray(SIZE)
    storage = MemoryStorage()
    writer = RawFormat().create(storage, SIZE)
    for step, at, length, value in steps:
        length = min(length, SIZE - at)
        if step == "write":
            data = bytes([value]) * length
            writer.pwrite(memoryview(data), at)
        elif length:
            data = bytes(length)
            writer.mark(Extent(at, length, KINDS[value]))
        else:
            continue
        model[at : at + length] = data
    writer.finish(NOTHING)
    assert storage.data == model


def test_what_raw_cannot_say_is_counted() -> None:
    writer = RawFormat().create(MemoryStorage(), 1000)
    for extent in (
        Extent(0, 10, ExtentKind.ZERO),
        Extent(10, 20, ExtentKind.HOLE),
        Extent(30, 30, ExtentKind.EXCLUDED),
        Extent(60, 40, ExtentKind.UNREADABLE),
        Extent(100, 5, ExtentKind.HOLE),
    ):
        writer.mark(extent)
    assert writer.flattened() == {"hole": 25, "excluded": 30, "unreadable": 40}


@pytest.mark.parametrize(("at", "length"), [(-1, 5), (96, 5), (101, 0)])
def test_block_outside_the_volume_is_refused(at: int, length: int) -> None:
    writer = RawFormat().create(MemoryStorage(), 100)
    with pytest.raises(UsageError, match=f"{length} bytes at {at} are not inside a volume of 100 bytes"):
        writer.pwrite(memoryview(bytes(length)), at)


def test_parent_is_refused() -> None:
    parent = RawFormat().open(MemoryStorage(bytes(100)))
    with pytest.raises(UsageError, match="a raw image has no parent"):
        RawFormat().create(MemoryStorage(), 100, parent=parent)


def test_storage_with_content_is_refused() -> None:
    with pytest.raises(UsageError, match="is not empty: it has 3 bytes"):
        RawFormat().create(MemoryStorage(b"abc"), 100)


def test_options_of_another_format_are_refused() -> None:
    with pytest.raises(UsageError, match="str is no options of 'raw'"):
        RawFormat().create(MemoryStorage(), 100, options="preallocate")


def test_refused_storage_is_closed() -> None:
    storage = Full()
    with pytest.raises(UsageError):
        RawFormat().create(storage, -1)
    assert storage.calls == ["close"]


# Pipes.


class Stream(PipeStorage):
    """A pipe that keeps what goes into it."""

    def __init__(self) -> None:
        super().__init__(-1, "stream", owned=False)
        self.data = bytearray()

    def _write(self, view: memoryview) -> int:
        self.data += view
        return len(view)


@pytest.mark.parametrize("size", [0, 1, MIB, 3 * MIB + 7])
def test_pipe_gets_every_byte_in_order(size: int) -> None:
    stream = Stream()
    writer = RawFormat().create(stream, size)
    assert writer.write_order is WriteOrder.ASCENDING
    volume = bytearray(size)
    if size > 2 * MIB:
        block = os.urandom(MIB)
        volume[MIB : 2 * MIB] = block
        writer.mark(Extent(0, MIB, ExtentKind.EXCLUDED))
        writer.pwrite(memoryview(block), MIB)
        writer.mark(Extent(2 * MIB, 10, ExtentKind.HOLE))
        assert writer.flattened() == {"excluded": MIB, "hole": 10}
    writer.finish(NOTHING)
    writer.close()
    assert stream.data == volume


def test_pipe_refuses_to_go_back() -> None:
    writer = RawFormat().create(Stream(), MIB)
    writer.pwrite(memoryview(bytes(100)), 200)
    with pytest.raises(UsageError, match="stream got a block at 299 after byte 300"):
        writer.pwrite(memoryview(bytes(1)), 299)


def test_pipe_cannot_be_preallocated() -> None:
    with pytest.raises(UsageError, match="stream cannot be preallocated"):
        RawFormat().create(Stream(), MIB, options=RawOptions(preallocate=True))


# Reading.


@needs_holes
def test_holes_of_the_file_are_zero(tmp_path: Path) -> None:
    path = tmp_path / "x.raw"
    with open(path, "wb") as file:
        file.truncate(4 * MIB)
        file.seek(2 * MIB)
        file.write(b"\1" * PIECE)
    with RawFormat().open(FileStorage(os.open(path, os.O_RDONLY))) as reader:
        assert list(reader.extents()) == [
            Extent(0, 2 * MIB, ExtentKind.ZERO),
            Extent(2 * MIB, PIECE),
            Extent(2 * MIB + PIECE, 2 * MIB - PIECE, ExtentKind.ZERO),
        ]
        assert reader.pread(4, 2 * MIB - 2) == b"\0\0\1\1"
        buffer = bytearray(4)
        assert reader.preadinto(buffer, 2 * MIB - 2) == 4
        assert buffer == b"\0\0\1\1"


def test_size_is_the_files() -> None:
    reader = RawFormat().open(MemoryStorage(bytes(12345)))
    assert (reader.size, reader.format, reader.depths()) == (12345, "raw", (Depth.STRUCTURE,))
    assert reader.info()["stored_size"] == 12345


def test_closed_reader_raises(tmp_path: Path) -> None:
    storage = new_file(tmp_path / "x.raw")
    storage.truncate(10)
    reader = RawFormat().open(storage)
    reader.close()
    with pytest.raises(ClosedError):
        reader.pread(1, 0)
    with pytest.raises(ClosedError):
        storage.pread(1, 0)


@pytest.mark.parametrize(
    ("name", "score"), [("x.raw", 10), ("X.RAW", 10), ("x.dd", 10), ("x.img", 0), ("x.qcow2", 0), ("", 0)]
)
def test_it_is_recognised_by_name_alone(name: str, score: int) -> None:
    assert RawFormat().probe(Probe(b"QFI\xfb", b"", name, 4)) == score


def test_sidecar_is_wanted_unless_declined() -> None:
    assert RawFormat().wants_sidecar(None)
    assert not RawFormat().wants_sidecar(RawOptions(sidecar=False))


# With its side-car.


@given(st.data())
def test_image_and_sidecar_give_back_what_was_saved(data: st.DataObject) -> None:
    """Random data and marks, each byte once, in a random order; the model keeps bytes and kinds."""
    size = data.draw(st.sampled_from([0, 1, 511, 4095, 4096, 4097, 3 * PIECE + 11]))
    block = 4096
    raw, side = MemoryStorage(), MemoryStorage()
    writer = with_sidecar(RawFormat().create(raw, size), SidecarWriter(side, size, "raw", block_size=block))
    volume = bytearray(size)
    lost: list[Extent] = []
    places = list(range(0, size, block))
    for at in data.draw(st.permutations(places)):
        length = min(block, size - at)
        what = data.draw(st.sampled_from(["data", "zero", "hole", "unreadable", "partly unreadable"]))
        if what == "data":
            volume[at : at + length] = bytes([1 + at % 255]) * length
        if what in ("hole", "unreadable"):
            extent = Extent(at, length, ExtentKind(what))
            writer.mark(extent)
            lost += [extent] if what == "unreadable" else []
            continue
        if what == "partly unreadable":
            extent = Extent(at + length // 2, length - length // 2, ExtentKind.UNREADABLE)
            volume[at : at + length // 2] = b"\7" * (length // 2)
            writer.mark(extent)
            lost.append(extent)
        writer.pwrite(memoryview(volume)[at : at + length], at)
    metadata = ImageMetadata(volume="/dev/x", user={"n": size})
    writer.finish(metadata)
    writer.close()
    reader = RawFormat().open(raw)
    reader.attach(SidecarReader.open(MemoryStorage(side.data)))
    assert raw.data == volume
    assert reader.metadata == metadata
    found = [extent for extent in reader.extents() if extent.kind is ExtentKind.UNREADABLE]
    assert {at for e in found for at in range(e.offset, e.end)} == {
        at for e in lost for at in range(e.offset, e.end)
    }
    assert reader.sidecar is not None
    assert list(verify_with_sidecar(reader, reader.sidecar, lambda count: None)) == []
