"""What recover mode makes of broken, missing and hostile files: the right bytes, in bounded time."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence

import pytest

from vsnap_images import FORMAT, SMALL, every_kind, image_of, noise, opened
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import CorruptImageError, DeviceReadError, ImageNotFoundError
from vsssnap.formats import MemoryStorage
from vsssnap.formats.base import Depth, ImageReader, ResolveParent
from vsssnap.formats.vsnap import VsnapOptions, frames, structs
from vsssnap.formats.vsnap.reader import VsnapReader
from vsssnap.formats.vsnap.structs import StateBody
from vsssnap.metadata import ImageMetadata

UNIT = 1 << 16
CELL = 4096


class Watched(MemoryStorage):
    """Counts what is read, fails where a sector is bad, knows whether it was closed."""

    def __init__(self, data: bytes, name: str = "watched", bad: Sequence[int] = ()) -> None:
        super().__init__(data, name)
        self.bytes_read = 0
        self.bad = bad
        self.closed = False

    def pread(self, length: int, offset: int, /) -> bytes:
        self.bytes_read += length
        if any(offset < sector + 512 and sector < offset + length for sector in self.bad):
            raise DeviceReadError(f"cannot read at {offset}", offset=offset, length=length)
        return super().pread(length, offset)

    def close(self) -> None:
        self.closed = True


def recovered(storage: MemoryStorage, resolve: ResolveParent | None = None) -> VsnapReader:
    reader = FORMAT.open(storage, recover=True, resolve_parent=resolve)
    assert isinstance(reader, VsnapReader)
    return reader


def kinds(reader: ImageReader) -> list[tuple[int, ExtentKind]]:
    return [(extent.offset, extent.kind) for extent in reader.extents()]


def first_frames(size: int, *more: tuple[int, bytes]) -> bytes:
    """A file of a header and frames with the given types and bodies, and then nothing."""
    storage = MemoryStorage()
    writer = FORMAT.create(storage, size, options=SMALL)
    writer.close()
    assert SMALL.image_id is not None
    for kind, body in more:
        storage.append(frames.build(kind, storage.size, SMALL.image_id.bytes, [body]))
    return bytes(storage.data)


def run(state: int, cells: int) -> bytes:
    return (cells << 8 | state).to_bytes(8, "little")


def test_a_petabyte_of_which_nothing_is_left_is_one_extent() -> None:
    """Told chunk by chunk it would take days."""
    with recovered(MemoryStorage(first_frames(structs.MAX_VOLUME))) as reader:
        assert list(reader.extents()) == [Extent(0, structs.MAX_VOLUME, ExtentKind.UNREADABLE)]
        with pytest.raises(DeviceReadError, match="are lost"):
            reader.pread(10, 1 << 59)


@pytest.mark.parametrize("state", [structs.DATA, structs.HOLE, structs.ZERO])
def test_a_state_frame_of_a_petabyte_is_one_extent(state: int) -> None:
    cells = structs.MAX_VOLUME // CELL
    body = StateBody(0, cells, 1, 0).pack() + run(state, cells)
    with recovered(MemoryStorage(first_frames(structs.MAX_VOLUME, (structs.STATE_FRAME, body)))) as reader:
        kind = {structs.DATA: ExtentKind.UNREADABLE, structs.HOLE: ExtentKind.HOLE}.get(
            state, ExtentKind.ZERO
        )
        assert list(reader.extents()) == [Extent(0, structs.MAX_VOLUME, kind)]


def test_frames_that_all_reach_to_the_end_do_not_cost_the_square_of_the_file() -> None:
    size = 1 << 20
    heads = bytearray(first_frames(5 * UNIT))
    while len(heads) < size:
        head = bytearray(b"".join(map(bytes, frames.build(77, len(heads), bytes(16), [], critical=False))))
        head[4:8] = (size - len(heads) - 8).to_bytes(4, "little")
        heads += head
    storage = Watched(bytes(heads[:size]))
    with recovered(storage) as reader:
        assert [kind for _, kind in kinds(reader)] == [ExtentKind.UNREADABLE]
    assert storage.bytes_read < 150 << 20


def test_the_whole_file_is_not_read_to_say_that_it_is_incomplete() -> None:
    storage = Watched(bytes(64 << 20))
    with pytest.raises(CorruptImageError, match="whole up to byte 0"):
        FORMAT.open(storage)
    assert storage.bytes_read < 64 << 10
    assert storage.closed


def test_bad_sectors_cost_what_lies_in_them() -> None:
    data = noise(1, 6 * UNIT)
    file = image_of(data, options=VsnapOptions(level=0, chunk_size=UNIT, cell_size=CELL))
    place = file.index(data[2 * UNIT + 1000 : 2 * UNIT + 1100])
    with recovered(Watched(file, bad=[place])) as reader:
        lost = ExtentKind.UNREADABLE
        assert kinds(reader) == [(0, ExtentKind.DATA), (2 * UNIT, lost), (3 * UNIT, ExtentKind.DATA)]
        assert reader.pread(2 * UNIT, 0) == data[: 2 * UNIT]
        assert reader.pread(3 * UNIT, 3 * UNIT) == data[3 * UNIT :]


def test_a_bad_sector_in_a_box_costs_that_frame() -> None:
    data = noise(1, 3 * UNIT)
    file = image_of(data, options=VsnapOptions(level=0, chunk_size=UNIT, cell_size=CELL))
    second = file.index(structs.MAGIC, file.index(data[:64])) - 8
    with recovered(Watched(file, bad=[second])) as reader:
        lost = ExtentKind.UNREADABLE
        assert kinds(reader) == [(0, ExtentKind.DATA), (UNIT, lost), (2 * UNIT, ExtentKind.DATA)]
        assert reader.pread(UNIT, 2 * UNIT) == data[2 * UNIT :]


def test_verification_goes_on_behind_bad_sectors() -> None:
    data = noise(1, 6 * UNIT)
    file = image_of(data, options=VsnapOptions(level=0, chunk_size=UNIT, cell_size=CELL))
    payload = file.index(data[2 * UNIT + 1000 : 2 * UNIT + 1100])
    box = file.index(structs.MAGIC, file.index(data[4 * UNIT - 100 : 4 * UNIT])) - 8  # of chunk 4
    with FORMAT.open(Watched(file, bad=[payload, box])) as reader:
        found = list(reader.verify(Depth.STORED, lambda count: None))
        assert [finding.structure for finding in found] == ["data frame", "frame"]
        assert found[0].extent == Extent(2 * UNIT, UNIT)
        content = list(reader.verify(Depth.CONTENT, lambda count: None))
        lost = {finding.extent.offset for finding in content if finding.extent is not None}
        assert lost == {2 * UNIT, 4 * UNIT}


@pytest.mark.parametrize("copy", [0, 1])
def test_one_footer_in_a_bad_sector_is_not_needed(copy: int) -> None:
    data = noise(1, UNIT)
    file = image_of(data)
    with FORMAT.open(Watched(file, bad=[len(file) - 8192 + copy * 4096])) as reader:
        assert reader.pread(UNIT, 0) == data
        assert "footer" in {f.structure for f in reader.verify(Depth.STORED, lambda count: None)}


def test_two_footers_in_bad_sectors_are_said_to_be_unread() -> None:
    file = image_of(noise(1, UNIT))
    storage = Watched(file, bad=[len(file) - 8192, len(file) - 4096])
    with pytest.raises(DeviceReadError):
        FORMAT.open(storage)
    assert storage.closed


def test_an_image_that_was_copied_halfway_over_another_is_refused() -> None:
    """Old and new have one size; the old one's end would vouch for the new one's start."""
    old, new = (image_of(noise(n, 4 * UNIT), options=VsnapOptions(level=0)) for n in (1, 2))
    assert len(old) == len(new)
    file = new[:100_000] + old[100_000:]
    with pytest.raises(CorruptImageError, match="one was written over another"):
        opened(file)
    with opened(file, recover=True) as reader:
        assert any("one was written over another" in line for line in reader.info()["damage"])


# Chains.


class Links:
    """A chain of small images; each changes one cell."""

    def __init__(self, links: int, size: int = 3 * UNIT) -> None:
        self.data = bytearray(noise(1, size))
        self.files: list[bytes] = []
        self.opened: list[Watched] = []
        self.missing: set[int] = set()
        self.recover = True
        small = VsnapOptions(level=0, chunk_size=UNIT, cell_size=CELL)
        for number in range(links):
            cell = number * 7 % (size // CELL)
            self.data[cell * CELL : cell * CELL + 8] = number.to_bytes(8, "big")
            parent = self.open(number - 1, recover=False) if number else None
            storage = MemoryStorage(name=f"{number}.vsnap")
            chosen = small if parent is None else VsnapOptions(level=0)
            writer = FORMAT.create(storage, size, options=chosen, parent=parent)
            unit = cell * CELL // UNIT * UNIT
            for at in range(0, size, UNIT) if parent is None else (unit,):
                writer.store(writer.encode(memoryview(bytes(self.data[at : at + UNIT])), at))
            writer.finish(ImageMetadata())
            if parent is not None:
                parent.close()
            self.files.append(bytes(storage.data))
        self.opened.clear()

    def open(self, number: int, *, recover: bool) -> VsnapReader:
        storage = Watched(self.files[number], f"{number}.vsnap")
        self.opened.append(storage)
        reader = FORMAT.open(storage, resolve_parent=self.resolve, recover=recover)
        assert isinstance(reader, VsnapReader)
        return reader

    def resolve(self, names: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        number = int(names[0].partition(".")[0])
        if number in self.missing:
            raise ImageNotFoundError(f"there is no image {number}")
        return self.open(number, recover=self.recover)


def test_recovery_of_a_long_chain_needs_no_deep_stack() -> None:
    links = Links(150)
    with links.open(149, recover=True) as reader:
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(len(inspect.stack()) + 100)
        try:
            assert reader.pread(reader.size, 0) == links.data
            assert kinds(reader) == [(0, ExtentKind.DATA)]
        finally:
            sys.setrecursionlimit(before)
        names = [storage.name for storage in links.opened]
        assert len(names) == len(set(names)) > 40, "an ancestor was read twice"
    assert all(storage.closed for storage in links.opened)


@pytest.mark.parametrize("recover", [False, True])
def test_recovered_child_reads_what_its_parents_hold(recover: bool) -> None:
    """Parents may be opened either way."""
    links = Links(5)
    links.recover = recover
    links.files[-1] = links.files[-1][:-8192]
    with links.open(4, recover=True) as reader:
        assert reader.pread(reader.size, 0) == links.data


def test_what_a_missing_parent_holds_is_unreadable() -> None:
    links = Links(2)
    links.missing = {0}
    with links.open(1, recover=True) as reader:
        cell = 7 * CELL
        lost = ExtentKind.UNREADABLE
        assert kinds(reader) == [(0, lost), (cell, ExtentKind.DATA), (cell + CELL, lost)]
        assert reader.pread(CELL, cell) == links.data[cell : cell + CELL]
        damage = reader.info()["damage"]
        assert sum("there is no image 0" in line for line in damage) == 1


def test_a_parent_that_broke_off_gives_what_it_has() -> None:
    links = Links(2)
    links.files[0] = links.files[0][: len(links.files[0]) // 2]
    with links.open(1, recover=True) as reader:
        good = sum(e.length for e in reader.extents() if e.kind is ExtentKind.DATA)
        assert UNIT <= good < reader.size
        assert reader.pread(UNIT, 0) == links.data[:UNIT]


def test_unreadable_ranges_and_states_of_a_parent_come_through() -> None:
    data, marks = every_kind()
    base = image_of(data, marks)
    with opened(base) as parent:
        parent.path = "0.vsnap"
        child = image_of(data, parent=parent, only=[], options=None)
        whole = list(parent.extents())
    with opened(child, parents=[base], recover=True) as reader:
        assert list(reader.extents()) == whole
