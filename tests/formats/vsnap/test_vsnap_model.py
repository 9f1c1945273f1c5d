"""Random volumes against a bytearray, and every frame that a reader goes through."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requirements import require_program
from vsnap_images import FORMAT, findings, image_of, opened, write
from vsssnap.blocks.extent import Extent, ExtentKind, clip, coalesce, overlay
from vsssnap.errors import DeviceReadError, ImageError
from vsssnap.formats import MemoryStorage, PipeStorage
from vsssnap.formats.base import Depth
from vsssnap.formats.vsnap import VsnapOptions
from vsssnap.imaging.reports import CopyOptions, OnReadError
from vsssnap.imaging.saving import save_image
from vsssnap.metadata import ImageMetadata
from vsssnap.testing.powercut import PowerCut
from vsssnap.testing.strategies import contents, sparse_extents

CHUNK = 1 << 16


@dataclass(frozen=True)
class Volume:
    """A volume as a list of extents that cover it, and its bytes."""

    data: bytes = field(repr=False)  # a quarter of a megabyte
    extents: list[Extent]

    @property
    def marks(self) -> list[Extent]:
        """What is not DATA."""
        return [extent for extent in self.extents if extent.kind is not ExtentKind.DATA]


@st.composite
def volumes(draw: st.DrawFn, *, size: int) -> Volume:
    """Volumes whose extents begin and end anywhere."""
    cuts = draw(st.sets(st.integers(0, size), max_size=12))
    near = [cut - cut % 4096 for cut in draw(st.sets(st.integers(0, size), max_size=6))]
    edges = sorted({0, size, *cuts, *near})
    data, extents = bytearray(size), []
    for first, last in itertools.pairwise(edges):
        kind = draw(st.sampled_from(ExtentKind))
        extents.append(Extent(first, last - first, kind))
        if kind is ExtentKind.DATA and draw(st.booleans()):
            seed = draw(st.binary(min_size=1, max_size=6))
            data[first:last] = (seed * (1 + (last - first) // len(seed)))[: last - first]
    return Volume(bytes(data), extents)


@st.composite
def option_sets(draw: st.DrawFn) -> VsnapOptions:
    """Options of all kinds; sizes that fit one another."""
    chunk = draw(st.sampled_from([CHUNK, 2 * CHUNK, 16 * CHUNK]))
    return VsnapOptions(
        level=draw(st.sampled_from([1, 0, 3, 19, -7])),
        chunk_size=chunk,
        cell_size=draw(st.sampled_from([size for size in (4096, 16384, CHUNK, 2 * CHUNK) if size <= chunk])),
        segment_size=draw(st.sampled_from([size for size in (CHUNK, 2 * CHUNK) if size <= chunk])),
        digest=draw(st.sampled_from(["blake3", "sha256"])),
        sector_size=draw(st.sampled_from([512, 4096])),
    )


options = option_sets()
sizes = st.one_of(
    st.sampled_from([0, 1, 511, 4095, 4096, 4097, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 777]),
    st.integers(0, 4 * CHUNK),
)


def expected(volume: Volume, cell_size: int) -> list[Extent]:
    """States by section 1 of the specification: each cell has the strongest that any byte of it has."""
    strongest = (ExtentKind.ZERO, ExtentKind.EXCLUDED, ExtentKind.HOLE)
    size, cells = len(volume.data), []
    for at in range(0, size, cell_size):
        length = min(cell_size, size - at)
        kinds = {extent.kind for extent in clip(volume.extents, at, length)} - {ExtentKind.UNREADABLE}
        if any(volume.data[at : at + length]):
            cells.append(Extent(at, length, ExtentKind.DATA))
        else:
            kinds = {ExtentKind.ZERO if kind is ExtentKind.DATA else kind for kind in kinds}
            cells.append(Extent(at, length, next((k for k in strongest if k in kinds), ExtentKind.ZERO)))
    bad = [extent for extent in volume.extents if extent.kind is ExtentKind.UNREADABLE]
    return list(coalesce(overlay(cells, bad)))


def check(reader_file: bytes, parents: list[bytes], volume: Volume, *, recover: bool = False) -> None:
    """Bytes and states of an image against the volume it was made of."""
    data = volume.data
    with opened(reader_file, parents=parents, recover=recover) as reader:
        bad = [extent for extent in volume.extents if extent.kind is ExtentKind.UNREADABLE]
        found = list(reader.extents())
        assert [e.offset for e in found] == [0, *(e.end for e in found)][: len(found)]
        unreadable = [(e.offset, e.end) for e in found if e.kind is ExtentKind.UNREADABLE]
        joined: list[tuple[int, int]] = []
        for extent in bad:
            if joined and joined[-1][1] == extent.offset:
                joined[-1] = (joined[-1][0], extent.end)
            else:
                joined.append((extent.offset, extent.end))
        assert unreadable == joined
        for extent in found:
            if extent.kind is ExtentKind.UNREADABLE:
                with pytest.raises(DeviceReadError):
                    reader.pread(1, extent.offset)
                continue
            assert reader.pread(extent.length, extent.offset) == data[extent.offset : extent.end]
            if extent.reads_as_zero:
                assert not any(data[extent.offset : extent.end])
        assert found == expected(volume, reader.geometry.cell_size)
        if not recover:
            assert findings(reader, Depth.CONTENT) == []


@given(size=sizes, chosen=options, draw=st.data())
def test_image_is_what_went_in(size: int, chosen: VsnapOptions, draw: st.DataObject) -> None:
    volume = draw.draw(volumes(size=size))
    file = image_of(volume.data, volume.marks, options=chosen)
    check(file, [], volume)


@given(size=sizes, chosen=options, draw=st.data())
def test_rebuilt_image_is_what_went_in(size: int, chosen: VsnapOptions, draw: st.DataObject) -> None:
    volume = draw.draw(volumes(size=size))
    file = image_of(volume.data, volume.marks, options=chosen)
    check(file, [], volume, recover=True)
    with opened(file) as whole, opened(file, recover=True) as rebuilt:
        count = whole.geometry.chunk_count
        assert [whole.tree.entry(n) for n in range(count)] == [rebuilt.tree.entry(n) for n in range(count)]


class Source:
    """A volume as a source of the copy pipeline."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.size = len(volume.data)

    def pread(self, length: int, offset: int, /) -> bytes:
        bad = [extent for extent in self.volume.extents if extent.kind is ExtentKind.UNREADABLE]
        assert not any(e.offset < offset + length and offset < e.end for e in bad)
        return self.volume.data[offset : offset + length]

    def extents(self, offset: int = 0, length: int | None = None) -> Iterator[Extent]:
        return clip(self.volume.extents, offset, self.size if length is None else length)


@given(size=sizes, chosen=options, workers=st.integers(1, 3), draw=st.data())
def test_pipeline_saves_what_the_source_holds(
    size: int, chosen: VsnapOptions, workers: int, draw: st.DataObject
) -> None:
    """With threads and in increments, as `save_image` is used; the second time over the first image."""
    files: list[bytes] = []
    for _ in range(2):
        volume = draw.draw(volumes(size=size))
        storage = MemoryStorage(name=f"{len(files)}.vsnap")
        source, copy = Source(volume), CopyOptions(workers=workers)
        with opened(files[0]) if files else contextlib.nullcontext() as parent:
            if parent is not None:
                parent.path = "0.vsnap"
            save_image(
                source,
                storage,
                format="vsnap",
                options=chosen if parent is None else None,
                parent=parent,
                on_read_error=OnReadError.MARK,
                copy=copy,
            )
        check(bytes(storage.data), files, volume)
        check(bytes(storage.data), files, volume, recover=True)
        files.append(bytes(storage.data))


@given(size=sizes, chosen=options, draw=st.data())
def test_chain_gives_each_state(size: int, chosen: VsnapOptions, draw: st.DataObject) -> None:
    files: list[bytes] = []
    for number in range(3):
        volume = draw.draw(volumes(size=size))
        if not files:
            files.append(image_of(volume.data, volume.marks, options=chosen))
            continue
        with opened(files[-1], parents=files[:-1]) as parent:
            parent.path = f"{number - 1}.vsnap"
            units = range(-(-size // parent.geometry.chunk_size))
            child = VsnapOptions(level=chosen.level)
            file = image_of(volume.data, volume.marks, options=child, parent=parent, only=units)
        files.append(file)
        check(file, files[:-1], volume)
        check(file, files[:-1], volume, recover=True)


@given(size=sizes, chosen=options, draw=st.data())
def test_what_a_child_neither_stores_nor_marks_is_as_in_its_parent(
    size: int, chosen: VsnapOptions, draw: st.DataObject
) -> None:
    """Bytes and unreadable bytes, one by one."""
    below = draw.draw(volumes(size=size))
    base = image_of(below.data, below.marks, options=chosen)
    marks = [e for e in draw.draw(sparse_extents(size=size)) if e.kind is not ExtentKind.DATA]
    with opened(base) as parent:
        parent.path = "0.vsnap"
        unit = parent.geometry.chunk_size
        units = (
            draw.draw(st.sets(st.integers(0, max(0, -(-size // unit) - 1)), max_size=2)) if size else set()
        )
        data, lost = bytearray(below.data), bytearray(size)
        for extent in below.extents:
            if extent.kind is ExtentKind.UNREADABLE:
                lost[extent.offset : extent.end] = b"\1" * extent.length
        for number in units:
            at, length = number * unit, min(unit, size - number * unit)
            data[at : at + length] = draw.draw(contents(size=length))
            lost[at : at + length] = bytes(length)
        for extent in marks:
            data[extent.offset : extent.end] = bytes(extent.length)
            flag = b"\1" if extent.kind is ExtentKind.UNREADABLE else b"\0"
            lost[extent.offset : extent.end] = flag * extent.length
        child = image_of(data, marks, options=VsnapOptions(level=1), parent=parent, only=sorted(units))
    for recover in (False, True):
        with opened(child, parents=[base], recover=recover) as reader:
            found = bytearray(size)
            for extent in reader.extents():
                if extent.kind is ExtentKind.UNREADABLE:
                    found[extent.offset : extent.end] = b"\1" * extent.length
                else:
                    part = data[extent.offset : extent.end]
                    assert reader.pread(extent.length, extent.offset) == part
                    assert not extent.reads_as_zero or not any(part)
            assert found == lost
            if not recover:
                assert findings(reader, Depth.CONTENT) == []


@given(size=sizes, draw=st.data())
def test_content_root_knows_content_alone(size: int, draw: st.DataObject) -> None:
    """Compression, segments, the file and the chain do not enter."""
    volume = draw.draw(volumes(size=size))
    plain = VsnapOptions(level=0, chunk_size=2 * CHUNK, cell_size=4096, segment_size=CHUNK)
    other = VsnapOptions(level=5, chunk_size=2 * CHUNK, cell_size=4096, segment_size=2 * CHUNK)
    first, second = (image_of(volume.data, volume.marks, options=chosen) for chosen in (plain, other))
    before = image_of(draw.draw(volumes(size=size)).data, options=plain)
    with opened(before) as parent:
        parent.path = "0.vsnap"
        units = range(-(-size // (2 * CHUNK)))
        third = image_of(volume.data, volume.marks, options=VsnapOptions(level=3), parent=parent, only=units)
    roots = {opened(first).content_root, opened(second).content_root}
    # A child keeps what is neither stored nor marked; here all is, but for zeros that are DATA.
    roots.add(opened(third, parents=[before]).content_root)
    assert len(roots) == 1


@given(draw=st.data())
def test_any_range_is_read_right(draw: st.DataObject) -> None:
    size = 3 * CHUNK + 777
    volume = draw.draw(volumes(size=size))
    bad = [extent for extent in volume.extents if extent.kind is ExtentKind.UNREADABLE]
    chosen = VsnapOptions(level=1, chunk_size=2 * CHUNK, cell_size=4096, segment_size=CHUNK)
    with opened(image_of(volume.data, volume.marks, options=chosen)) as reader:
        for offset, length in draw.draw(st.lists(st.tuples(st.integers(0, size + 9), st.integers(0, size)))):
            if length and any(e.offset < offset + length and offset < e.end for e in bad):
                with pytest.raises(DeviceReadError):
                    reader.pread(length, offset)
            else:
                assert reader.pread(length, offset) == volume.data[offset : offset + length]


@given(draw=st.data())
def test_the_zstd_program_gives_the_stored_cells(draw: st.DataObject) -> None:
    program = require_program("zstd")
    size = 3 * CHUNK + 777
    volume = draw.draw(volumes(size=size))
    chosen = VsnapOptions(level=draw.draw(st.sampled_from([0, 1, 9])), chunk_size=CHUNK, cell_size=4096)
    file = image_of(volume.data, volume.marks, options=chosen, metadata=ImageMetadata(volume="C:"))
    done = subprocess.run([program, "-dc"], input=file, capture_output=True, timeout=60, check=True)
    cells = [volume.data[at : at + 4096] for at in range(0, size, 4096)]
    assert done.stdout == b"".join(cell for cell in cells if any(cell))


def test_power_cut_image_gives_what_was_written() -> None:
    data = bytes(range(1, 256)) * 2048
    recorder = PowerCut()
    write(recorder, data, options=VsnapOptions(level=1, chunk_size=CHUNK, cell_size=4096))
    best = 0
    for cut in recorder.cuts():
        try:
            reader = FORMAT.open(cut.storage, recover=True)
        except ImageError:
            assert not best
            continue
        with reader:
            got = 0
            for extent in reader.extents():
                if extent.kind is ExtentKind.DATA:
                    assert reader.pread(extent.length, extent.offset) == data[extent.offset : extent.end]
                    got += extent.length
                else:
                    assert extent.kind is ExtentKind.UNREADABLE
            assert got >= best
            best = got
    assert best == len(data)


def test_a_storage_in_memory_and_a_pipe_get_the_same_bytes() -> None:
    data = bytes(range(256)) * 3000
    chosen = VsnapOptions(chunk_size=CHUNK, cell_size=4096, image_id=UUID(int=1))
    there, here = os.pipe()
    received = bytearray()

    def drain() -> None:
        while piece := os.read(there, 1 << 16):
            received.extend(piece)

    thread = threading.Thread(target=drain)
    thread.start()
    write(PipeStorage(here), data, options=chosen)
    thread.join(30)
    os.close(there)
    memory = MemoryStorage()
    write(memory, data, options=chosen)
    assert received == memory.data
