"""Random volumes against a bytearray, and every frame that a reader goes through."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsnap_images import FORMAT, findings, image_of, opened, write
from vsssnap.blocks.extent import Extent, ExtentKind, clip, coalesce, overlay
from vsssnap.errors import CorruptImageError, DeviceReadError, ImageError
from vsssnap.formats import MemoryStorage
from vsssnap.formats.base import Depth
from vsssnap.formats.vsnap import VsnapOptions
from vsssnap.metadata import ImageMetadata
from vsssnap.testing.powercut import PowerCut

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


options = st.builds(
    VsnapOptions,
    level=st.sampled_from([0, 1, 3]),
    chunk_size=st.sampled_from([CHUNK, 2 * CHUNK]),
    cell_size=st.sampled_from([4096, 16384, CHUNK]),
    segment_size=st.just(CHUNK),
    digest=st.sampled_from(["blake3", "sha256"]),
    sector_size=st.sampled_from([512, 4096]),
)
sizes = st.sampled_from([0, 1, 511, 4095, 4096, 4097, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 777])


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
    program = shutil.which("zstd")
    assert program is not None, "install zstd"
    size = 3 * CHUNK + 777
    volume = draw.draw(volumes(size=size))
    chosen = VsnapOptions(level=draw.draw(st.sampled_from([0, 1, 9])), chunk_size=CHUNK, cell_size=4096)
    file = image_of(volume.data, volume.marks, options=chosen, metadata=ImageMetadata(volume="C:"))
    done = subprocess.run([program, "-dc"], input=file, capture_output=True, timeout=60, check=True)
    cells = [volume.data[at : at + 4096] for at in range(0, size, 4096)]
    assert done.stdout == b"".join(cell for cell in cells if any(cell))


def test_power_cut_leaves_the_image_whole_or_incomplete() -> None:
    data = bytes(range(256)) * 1024 + bytes(CHUNK) + b"tail" * 3000
    recorder = PowerCut()
    chosen = VsnapOptions(level=1, chunk_size=CHUNK, cell_size=4096)
    write(recorder, data, [Extent(4 * CHUNK, CHUNK, ExtentKind.HOLE)], options=chosen)
    final = recorder.content()
    whole = 0
    for cut in recorder.cuts(subsets=4, torn=True):
        try:
            reader = FORMAT.open(cut.storage)
        except CorruptImageError as exc:
            assert exc.structure == "footer"  # noqa: PT017 - some cuts are refused, others are not
        else:
            with reader:
                whole += 1
                # One of the two footers may be torn; that is seen, and everything is there.
                assert reader.pread(len(data), 0) == data, cut.description
                if bytes(cut.storage.data) == final:
                    assert findings(reader, Depth.CONTENT) == []
                else:
                    assert {f.structure for f in findings(reader)} <= {"footer", "frame"}
    assert whole


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
    import os
    import threading
    from uuid import UUID

    from vsssnap.formats import PipeStorage

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
