"""Windows and concatenations keep the contract of readers."""

from __future__ import annotations

import io
import itertools
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources import BytesReader, Plain, mixed, noise
from vsssnap import open_device
from vsssnap.blocks.concat import ConcatReader
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.blocks.reader import BlockReader, as_reader
from vsssnap.blocks.window import WindowReader
from vsssnap.errors import ClosedError, DeviceReadError, SnapshotLostError, UsageError
from vsssnap.testing import MemoryReader, check_reader

DATA = mixed(20_000, seed=5, piece=3000)


def test_a_reader_in_memory_keeps_the_contract() -> None:
    check_reader(lambda: MemoryReader(DATA), DATA)


def test_a_callers_own_source_keeps_the_contract() -> None:
    check_reader(lambda: as_reader(Plain(DATA)), DATA)


@pytest.mark.parametrize(("offset", "length"), [(0, 20_000), (0, 0), (20_000, 0), (1, 19_998), (513, 4096)])
def test_a_window_keeps_the_contract(offset: int, length: int) -> None:
    check_reader(
        lambda: WindowReader(MemoryReader(DATA), offset, length, owned=True), DATA[offset : offset + length]
    )


@pytest.mark.parametrize("cuts", [(), (0,), (20_000,), (1,), (512, 512, 513), (7000, 14_001)])
def test_a_concatenation_keeps_the_contract(cuts: tuple[int, ...]) -> None:
    edges = (0, *cuts, len(DATA))
    check_reader(
        lambda: ConcatReader([MemoryReader(DATA[a:b]) for a, b in itertools.pairwise(edges)], owned=True),
        DATA,
    )


@given(st.lists(st.binary(max_size=50), max_size=6), st.integers(0, 320), st.integers(0, 320))
@settings(max_examples=100)
def test_a_concatenation_reads_as_the_joined_bytes(parts: list[bytes], length: int, offset: int) -> None:
    joined = b"".join(parts)
    with ConcatReader([MemoryReader(part) for part in parts]) as reader:
        assert reader.size == len(joined)
        assert reader.pread(length, offset) == joined[offset : offset + length]
        assert sum(extent.length for extent in reader.extents(offset, length)) == len(
            joined[offset : offset + length]
        )


def test_one_part_may_stand_twice() -> None:
    part = MemoryReader(b"ab")
    with ConcatReader([part, part]) as reader:
        assert reader.readall() == b"abab"


def test_nothing_joined_is_an_empty_volume() -> None:
    with ConcatReader([]) as reader:
        assert (reader.size, reader.pread(10, 0), list(reader.extents())) == (0, b"", [])


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 11), (11, 0), (5, 6)])
def test_a_window_outside_is_refused(offset: int, length: int) -> None:
    with MemoryReader(b"0123456789") as reader, pytest.raises(UsageError):
        reader.window(offset, length)


def test_views_go_with_their_source() -> None:
    source = MemoryReader(DATA)
    window, joined = source.window(10, 100), ConcatReader([source])
    window.close()
    assert source.pread(1, 0) == DATA[:1], "closing a window leaves its source"
    source.close()
    for view in (source.pread, joined.pread):
        with pytest.raises(ClosedError):
            view(1, 0)


def test_views_forward_confirm_and_origins() -> None:
    source = BytesReader(DATA, lost_after=-1, origins=("/dev/x",))
    for view in (source.window(0, 10), ConcatReader([source, source])):
        assert view.origins == ("/dev/x",)
        with pytest.raises(SnapshotLostError):
            view.confirm()


def test_views_forward_kinds_and_errors() -> None:
    extents = [Extent(0, 10), Extent(10, 5, ExtentKind.UNREADABLE), Extent(15, 5, ExtentKind.HOLE)]
    source = BytesReader(bytes(20), extents=extents, bad=[(10, 5)])
    window = source.window(8, 10)
    assert list(window.extents()) == [
        Extent(0, 2),
        Extent(2, 5, ExtentKind.UNREADABLE),
        Extent(7, 3, ExtentKind.HOLE),
    ]
    with pytest.raises(DeviceReadError):
        window.pread(3, 0)


# The reader itself.


def test_blocks_are_whole_views_that_stay() -> None:
    extents = [Extent(0, 1000, ExtentKind.ZERO), Extent(1000, 10), Extent(1010, 3990, ExtentKind.ZERO)]
    data = bytes(1000) + noise(10) + bytes(3990)
    reader = BytesReader(data, extents=extents)
    found = list(reader.blocks(512))
    assert [(offset, bytes(view)) for offset, view in found] == [(512, data[512:1024])]
    assert reader.confirmed == 1
    assert b"".join(bytes(view) for _, view in reader.blocks(512, only_data=False)) == data


def test_the_file_interface_has_a_cursor() -> None:
    reader = MemoryReader(DATA)
    assert reader.read(5) == DATA[:5]
    assert reader.seek(-3, io.SEEK_END) == len(DATA) - 3
    assert reader.read() == DATA[-3:]
    assert reader.read(1) == b""
    assert reader.seek(10_000_000) == 10_000_000
    assert reader.read(1) == b""
    with pytest.raises(UsageError):
        reader.seek(-1)
    reader.close()
    for call in (reader.tell, lambda: reader.seek(0), lambda: reader.read(1), reader.readall):
        with pytest.raises(ClosedError):
            call()


def test_a_read_of_more_than_there_is_allocates_only_that() -> None:
    with MemoryReader(b"abc") as reader:
        assert reader.pread(1 << 62, 1) == b"bc"
        buffer = bytearray(10)
        assert reader.preadinto(buffer, 1) == 2
        assert buffer == b"bc" + bytes(8)


@pytest.mark.parametrize(("length", "offset"), [(-1, 0), (0, -1), (1.5, 0), ("1", 0), (1, None)])
def test_wrong_arguments_are_usage_errors(length: object, offset: object) -> None:
    with MemoryReader(DATA) as reader, pytest.raises(UsageError):
        reader.pread(length, offset)  # type: ignore[arg-type]  # wrong on purpose


def test_a_read_only_buffer_is_refused() -> None:
    with MemoryReader(DATA) as reader, pytest.raises(UsageError, match="read-only"):
        reader.preadinto(b"x", 0)


def test_a_source_that_gives_less_is_found_out() -> None:
    class Short(Plain):
        def pread(self, length: int, offset: int, /) -> bytes:
            return super().pread(length, offset)[:-1]

    with as_reader(Short(DATA)) as reader, pytest.raises(DeviceReadError, match=r"Short\.pread gave 9 of 10"):
        reader.pread(10, 0)


def test_closing_under_a_running_read_lets_it_finish() -> None:
    inside, go, released = threading.Event(), threading.Event(), threading.Event()

    class Slow(BlockReader):
        def _read(self, length: int, offset: int) -> bytes:
            inside.set()
            assert go.wait(30)
            assert not released.is_set()
            return b"x" * length

        def _release(self) -> None:
            released.set()

    reader, got = Slow(10), []
    thread = threading.Thread(target=lambda: got.append(reader.pread(3, 0)))
    thread.start()
    assert inside.wait(30)
    reader.close()
    with pytest.raises(ClosedError):
        reader.pread(1, 0)
    go.set()
    thread.join()
    assert got == [b"xxx"]
    assert released.is_set()


def test_several_reads_at_once_are_the_same_reads(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(noise(100_000))
    ranges = [(0, 10), (99_000, 1000), (5, 50_000), (70_000, 1)]
    with open_device(path) as device, device.window(100, 99_900) as window:
        inside = [(at, count) for at, count in ranges if at + count <= window.size]
        for reader, base, wanted in (
            (device, 0, ranges),
            (window, 100, inside),
            (MemoryReader(noise(100_000)), 0, ranges),
        ):
            buffer = memoryview(bytearray(sum(count for _, count in wanted)))
            parts, done = [], 0
            for at, count in wanted:
                parts.append((buffer[done : done + count], at))
                done += count
            reader._read_parts(parts)
            data = noise(100_000)
            assert buffer == b"".join(data[base + at : base + at + count] for at, count in wanted)
        device.close()
        with pytest.raises(ClosedError):
            window._read_parts([(memoryview(bytearray(1)), 0)])
