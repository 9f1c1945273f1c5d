"""Increments: what a link costs, and that reading never walks the chain."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest

from vsnap_images import FORMAT, findings, frame_bounds, image_of, noise, opened, resolver, write
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import ClosedError, CorruptImageError, DeviceReadError, ParentMismatchError, UsageError
from vsssnap.formats import MemoryStorage
from vsssnap.formats.base import Depth, ImageReader, ResolveParent
from vsssnap.formats.vsnap import VsnapOptions
from vsssnap.formats.vsnap.reader import VsnapReader
from vsssnap.metadata import ImageMetadata

CHUNK = 1 << 20
CELL = 1 << 16


class CountingStorage(MemoryStorage):
    """Counts reads."""

    def __init__(self, data: bytearray, counts: dict[str, int], name: str) -> None:
        super().__init__(data, name)
        self.counts = counts

    def pread(self, length: int, offset: int, /) -> bytes:
        self.counts[self.name] = self.counts.get(self.name, 0) + 1
        return super().pread(length, offset)


class Chain:
    """A volume whose cells change from link to link; contents are known without keeping them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.files: list[bytearray] = []
        self.generation = [0] * (size // CELL)
        self.counts: dict[str, int] = {}

    def cell(self, number: int) -> bytes:
        return random.Random(self.generation[number] << 32 | number).randbytes(512) * (CELL // 512)

    def open(self, number: int = -1) -> VsnapReader:
        number %= len(self.files)
        storage = CountingStorage(self.files[number], self.counts, f"{number}.vsnap")
        reader = FORMAT.open(storage, resolve_parent=self.resolve)
        assert isinstance(reader, VsnapReader)
        return reader

    def resolve(self, names: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        return self.open(int(names[0].partition(".")[0]))

    def add(self, changed: Sequence[int]) -> int:
        """Add a link; its size in bytes."""
        for number in changed:
            self.generation[number] = len(self.files) + 1
        storage = MemoryStorage()
        parent = self.open() if self.files else None
        writer = FORMAT.create(storage, self.size, options=VsnapOptions(level=1), parent=parent)
        per = CHUNK // CELL
        for chunk in sorted({number // per for number in changed}):
            view = memoryview(b"".join(self.cell(n) for n in range(chunk * per, (chunk + 1) * per)))
            writer.store(writer.encode(view, chunk * CHUNK))
        writer.finish(ImageMetadata())
        if parent is not None:
            parent.close()
        self.files.append(storage.data)
        return storage.size


def grow(size: int, links: int) -> tuple[Chain, list[int], int]:
    """A chain with 2 % of the cells changed a link; sizes of the links, cells changed in each."""
    dice = random.Random(3)
    chain = Chain(size)
    cells = size // CELL
    chain.add(range(cells))
    count = max(1, cells // 50)
    return chain, [chain.add(sorted(dice.sample(range(cells), count))) for _ in range(links)], count


def reads_of_last_link(chain: Chain, offset: int) -> dict[str, int]:
    chain.counts.clear()
    with chain.open() as reader:
        reader.pread(4096, offset)
    return dict(chain.counts)


def check_chain(chain: Chain) -> None:
    with chain.open() as reader:
        for number in range(0, chain.size // CELL, 7):
            assert reader.pread(CELL, number * CELL) == chain.cell(number)


def check_reads(chain: Chain) -> None:
    """Opening and one read: two footers, metadata and table; a page a level and file; box and segment."""
    for offset in range(0, chain.size, chain.size // 13):
        counts = reads_of_last_link(chain, offset)
        # The last link, and at most one file for each page of the index and for the data.
        assert len(counts) <= 1 + 2 + 1
        assert sum(counts.values()) <= 30


def test_last_of_many_links_reads_right_with_few_reads() -> None:
    chain, sizes, count = grow(64 << 20, 40)
    check_chain(chain)
    check_reads(chain)
    # 512 random bytes a cell compress to little; a page of 64 busy chunks is about 20 KiB.
    assert max(sizes) < count * 2048 + 45_000


@pytest.fixture(scope="module")
def long_chain() -> tuple[Chain, list[int], random.Random]:
    chain = Chain(1 << 30)
    chain.add(range(chain.size // CELL))
    return chain, [], random.Random(3)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(10))
def test_300_links_of_a_gibibyte(part: int, long_chain: tuple[Chain, list[int], random.Random]) -> None:
    """In parts of 30 links, each of which a hung test would not outlast."""
    chain, sizes, dice = long_chain
    cells = chain.size // CELL
    count = cells // 50
    for _ in range(30):
        sizes.append(chain.add(sorted(dice.sample(range(cells), count))))
    check_chain(chain)
    check_reads(chain)
    # What is changed costs 512 bytes and a frame's header.  The file table (100 bytes an ancestor)
    # and the pieces (22 bytes, 16 a chunk at most) are what grows with the depth.
    assert sizes[-1] < count * CELL * 0.05


def test_bytes_of_a_link_are_near_what_changed() -> None:
    """Incompressible data: 2 % of the cells changed cost 2 % of the volume and at most 6 % of that more."""
    size, dice = 64 << 20, random.Random(4)
    data = bytearray(noise(1, size))
    base = image_of(data, options=VsnapOptions(level=1))
    cells = dice.sample(range(size // CELL), size // CELL // 50)
    for cell in cells:
        data[cell * CELL : (cell + 1) * CELL] = noise(cell + 2, CELL)
    with opened(base) as parent:
        parent.path = "0.vsnap"
        units = sorted({cell * CELL // CHUNK for cell in cells})
        child = image_of(data, options=VsnapOptions(level=1), parent=parent, only=units)
    assert len(child) < len(cells) * CELL * 1.06
    with opened(child, parents=[base]) as reader:
        assert reader.pread(size, 0) == data
        assert findings(reader, Depth.CONTENT) == []


@pytest.mark.long
@pytest.mark.timeout(600)
def test_bytes_of_a_link_stay_near_what_changed_at_any_depth() -> None:
    """As above, 300 links deep: docs/decisions/0011 says what fewer pieces an entry would cost."""
    size, dice = 64 << 20, random.Random(3)
    data = bytearray(noise(1, size))
    files = [image_of(data, options=VsnapOptions(level=1))]
    count = size // CELL // 50
    sizes = []
    for _ in range(300):
        cells = dice.sample(range(size // CELL), count)
        for cell in cells:
            data[cell * CELL : (cell + 1) * CELL] = dice.randbytes(CELL)
        units = sorted({cell * CELL // CHUNK for cell in cells})
        with opened(files[-1], parents=files[:-1]) as parent:
            parent.path = f"{len(files) - 1}.vsnap"
            files.append(image_of(data, options=VsnapOptions(level=1), parent=parent, only=units))
        sizes.append(len(files[-1]))
    assert max(sizes) < count * CELL * 1.06
    with opened(files[-1], parents=files[:-1]) as reader:
        assert reader.pread(size, 0) == data


def test_whole_source_with_a_parent_stores_only_what_differs() -> None:
    data = bytearray(noise(1, 3 * CHUNK))
    base = image_of(data, options=VsnapOptions(level=1))
    data[CHUNK + 5 * CELL] ^= 1
    with opened(base) as parent:
        parent.path = "0.vsnap"
        child = image_of(data, options=VsnapOptions(level=1), parent=parent)
    with opened(child, parents=[base]) as reader:
        assert reader.footer is not None
        assert (reader.footer.body.data_frames, reader.footer.body.plain_bytes) == (1, CELL)
        assert reader.pread(3 * CHUNK, 0) == data


def test_unchanged_child_has_the_parents_root_and_no_pages() -> None:
    data = noise(1, 3 * CHUNK)
    base = image_of(data, options=VsnapOptions(level=1))
    with opened(base) as parent:
        parent.path = "0.vsnap"
        child = image_of(data, options=VsnapOptions(level=1), parent=parent)
        root = parent.content_root
    assert len(child) < 10_000
    with opened(child, parents=[base]) as reader:
        assert reader.content_root == root
        assert reader.pread(3 * CHUNK, 0) == data


def test_smallest_pieces_are_stored_again_when_there_would_be_too_many() -> None:
    data = bytearray(noise(1, CHUNK))
    small = VsnapOptions(level=1, cell_size=4096)
    files = [image_of(data, options=small)]
    counts = []
    for link in range(24):
        data[(7 * link % 256) * 4096] ^= 1
        with opened(files[-1], parents=files[:-1]) as parent:
            parent.path = f"{len(files) - 1}.vsnap"
            file = image_of(data, options=VsnapOptions(level=1), parent=parent)
        with opened(file, parents=files) as reader:
            counts.append(len(reader.tree.entry(0).pieces))
            assert reader.pread(CHUNK, 0) == data
        files.append(file)
        assert len(file) < 40_000
    assert counts == [*range(2, 17), *[16] * 9]


def pair() -> tuple[bytes, bytes]:
    data = bytearray(noise(1, 2 * CHUNK))
    base = image_of(data, options=VsnapOptions(level=1))
    data[0] ^= 1
    with opened(base) as parent:
        parent.path = "0.vsnap"
        return base, image_of(data, options=VsnapOptions(level=1), parent=parent)


def test_child_without_a_way_to_its_parent_is_refused() -> None:
    with pytest.raises(ParentMismatchError, match="no way to open it"):
        opened(pair()[1])


def test_another_image_in_the_parents_place_is_refused() -> None:
    _, child = pair()
    other = image_of(noise(1, 2 * CHUNK), options=VsnapOptions(level=1))
    with opened(child, parents=[other]) as reader, pytest.raises(ParentMismatchError, match="found image"):
        reader.pread(10, CHUNK)


def test_a_parent_of_the_same_id_and_length_but_other_content_is_refused() -> None:
    """As a program makes it that gives one id twice: every frame fits, and every byte is another."""
    chosen = VsnapOptions(level=0, image_id=UUID(int=7))
    base, other = (image_of(noise(n, 2 * CHUNK), options=chosen) for n in (1, 2))
    assert len(base) == len(other)
    with opened(base) as parent:
        parent.path = "0.vsnap"
        child = image_of(noise(1, 2 * CHUNK), options=VsnapOptions(level=0), parent=parent, only=[])
    with opened(child, parents=[other]) as reader, pytest.raises(ParentMismatchError, match="content root"):
        reader.pread(10, CHUNK)
    with opened(child, parents=[other], recover=True) as reader:
        assert [extent.kind for extent in reader.extents()] == [ExtentKind.UNREADABLE]


def test_a_refused_parent_is_closed_again_each_time() -> None:
    base, child = pair()
    stranger = image_of(noise(1, 2 * CHUNK), options=VsnapOptions(level=1))
    assert base
    readers: list[ImageReader] = []

    def resolve(names: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        readers.append(FORMAT.open(MemoryStorage(stranger)))
        return readers[-1]

    with FORMAT.open(MemoryStorage(child), resolve_parent=resolve) as reader:
        for _ in range(3):
            with pytest.raises(ParentMismatchError):
                reader.pread(10, CHUNK)
        assert len(readers) == 3
        assert all(each.closed for each in readers)


def test_a_damaged_parent_is_looked_at_once() -> None:
    """It takes a walk through its file to say until where it is sound."""
    base, child = pair()
    asked: list[Sequence[str]] = []

    def resolve(names: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        asked.append(names)
        return FORMAT.open(MemoryStorage(base[:-100], name="0.vsnap"))

    with FORMAT.open(MemoryStorage(child), resolve_parent=resolve) as reader:
        found = findings(reader, Depth.CONTENT)
        said = set()
        for _ in range(3):
            with pytest.raises(CorruptImageError, match="vsnap is incomplete or damaged") as caught:
                reader.pread(10, CHUNK)
            said.add(caught.value.message)
            assert caught.value.path == "0.vsnap"
    assert len(asked) == len(said) == 1
    assert {each.message for each in found} == said
    assert [each.extent for each in found] == [None, Extent(0, CHUNK), Extent(CHUNK, CHUNK)]


def test_no_ancestor_is_opened_after_the_image_was_closed() -> None:
    base, child = pair()
    reader = opened(child, parents=[base])
    looking = reader.verify(Depth.STORED, lambda count: None)
    reader.close()
    assert isinstance(reader, VsnapReader)
    with pytest.raises(ClosedError):
        list(looking)
    with pytest.raises(ClosedError):
        reader.chain[0]


def test_verification_names_a_missing_parent() -> None:
    _, child = pair()
    other = image_of(noise(2, 2 * CHUNK), options=VsnapOptions(level=1))
    # It is no damage of this image, and every chunk would say so again.
    with opened(child, parents=[other]) as reader, pytest.raises(ParentMismatchError, match="found image"):
        findings(reader, Depth.STRUCTURE)


def test_damage_in_an_ancestor_is_found() -> None:
    base, child = pair()
    bad = bytearray(base)
    bad[len(bad) // 2] ^= 16
    with opened(child, parents=[bytes(bad)]) as reader:
        assert findings(reader, Depth.STRUCTURE) == []
        assert findings(reader, Depth.STORED) != []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (VsnapOptions(chunk_size=1 << 21), "chunk_size is 2097152, the parent has 1048576"),
        (VsnapOptions(digest="sha256"), "digest is 2"),
        (VsnapOptions(cell_size=4096), "cell_size is 4096"),
    ],
)
def test_child_of_another_geometry_is_refused(change: VsnapOptions, words: str) -> None:
    with opened(pair()[0]) as parent, pytest.raises(UsageError, match=words):
        FORMAT.create(MemoryStorage(), 2 * CHUNK, options=change, parent=parent)


def test_child_of_another_size_is_refused() -> None:
    with opened(pair()[0]) as parent, pytest.raises(UsageError, match="size is 7, the parent has 2097152"):
        FORMAT.create(MemoryStorage(), 7, parent=parent)


@pytest.mark.parametrize("depth", [Depth.STORED, Depth.CONTENT])
def test_damage_that_a_child_hides_is_found_though_both_have_one_id(depth: Depth) -> None:
    chosen = VsnapOptions(level=0, image_id=UUID(int=7))
    data = bytearray(noise(1, 4 * CHUNK))
    base = bytearray(image_of(data, options=chosen))
    data[:CHUNK] = noise(2, CHUNK)
    with opened(bytes(base)) as parent:
        parent.path = "0.vsnap"
        child = image_of(data, options=chosen, parent=parent)
    start, end = next(place for place in frame_bounds(bytes(base)) if base[place[0] + 16] == 2)
    base[(start + end) // 2] ^= 1
    with opened(child, parents=[bytes(base)]) as reader:
        (found,) = findings(reader, depth)
        assert (found.offset, found.structure) == (start, "data frame")
        assert reader.pread(4 * CHUNK, 0) == data


def test_marks_in_a_child_leave_the_rest_as_in_the_parent() -> None:
    data = bytearray(noise(1, 2 * CHUNK))
    base = image_of(data, options=VsnapOptions(level=1))
    marks = [
        Extent(100, 200, ExtentKind.ZERO),
        Extent(CHUNK - 50, 100, ExtentKind.HOLE),
        Extent(CHUNK + 3 * CELL, CELL, ExtentKind.EXCLUDED),
    ]
    with opened(base) as parent:
        parent.path = "0.vsnap"
        storage = MemoryStorage()
        write(storage, bytes(data), marks, options=VsnapOptions(level=1), parent=parent, only=[])
    for mark in marks:
        data[mark.offset : mark.end] = bytes(mark.length)
    with opened(bytes(storage.data), parents=[base]) as reader:
        assert reader.pread(2 * CHUNK, 0) == data
        assert Extent(CHUNK + 3 * CELL, CELL, ExtentKind.EXCLUDED) in list(reader.extents())
        assert findings(reader, Depth.CONTENT) == []


@pytest.mark.parametrize("recover", [False, True])
def test_marks_in_a_child_leave_the_rest_of_an_unreadable_range_unreadable(recover: bool) -> None:
    lost = Extent(3 * CELL + 100, CELL, ExtentKind.UNREADABLE)
    data = bytearray(noise(1, CHUNK))
    data[lost.offset : lost.end] = bytes(lost.length)
    base = image_of(data, [lost], options=VsnapOptions(level=1))
    mark = Extent(3 * CELL + 50, 100, ExtentKind.ZERO)
    with opened(base) as parent:
        parent.path = "0.vsnap"
        child = image_of(data, [mark], options=VsnapOptions(level=1), parent=parent, only=[])
    data[mark.offset : mark.end] = bytes(mark.length)
    with opened(child, parents=[base], recover=recover) as reader:
        bad = [e for e in reader.extents() if e.kind is ExtentKind.UNREADABLE]
        assert bad == [Extent(mark.end, lost.end - mark.end, ExtentKind.UNREADABLE)]
        assert reader.pread(mark.end, 0) == data[: mark.end]
        assert reader.pread(CHUNK, lost.end) == data[lost.end :]
        with pytest.raises(DeviceReadError):
            reader.pread(1, mark.end)


def test_broken_off_child_is_recovered_over_its_parent() -> None:
    base, child = pair()
    cut = child[: len(child) - 8192]
    with opened(cut, parents=[base], recover=True) as reader, opened(child, parents=[base]) as whole:
        assert reader.pread(2 * CHUNK, 0) == whole.pread(2 * CHUNK, 0)
        assert list(reader.extents()) == list(whole.extents())


def test_names_of_ancestors_follow_the_folders(tmp_path: Path) -> None:
    from vsssnap.imaging.opening import open_image
    from vsssnap.imaging.saving import save_image

    (tmp_path / "full").mkdir()
    (tmp_path / "daily").mkdir()
    data = bytearray(noise(1, CHUNK))
    names = [tmp_path / "full" / "a.vsnap", tmp_path / "daily" / "b.vsnap", tmp_path / "daily" / "c.vsnap"]
    parent: ImageReader | None = None
    for index, name in enumerate(names):
        data[index * CELL] ^= 1
        save_image(_Bytes(bytes(data)), name, parent=parent)
        if parent is not None:
            parent.close()
        parent = open_image(name)
    assert parent is not None
    with parent:
        assert [item["name"] for item in parent.info()["parents"]] == ["b.vsnap", "../full/a.vsnap"]
        assert parent.pread(CHUNK, 0) == data


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def pread(self, length: int, offset: int, /) -> bytes:
        return self.data[offset : offset + length]


def test_circular_resolver_ends() -> None:
    """A parent's name that leads back to the child finds another id, not an endless walk."""
    base, child = pair()
    assert base

    def resolve(names: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        return FORMAT.open(MemoryStorage(child), resolve_parent=resolve)

    found: ResolveParent = resolve
    reader = FORMAT.open(MemoryStorage(child), resolve_parent=found)
    with reader, pytest.raises((ParentMismatchError, CorruptImageError)):
        reader.pread(10, CHUNK)
    assert resolver([base])(["0.vsnap"]).size == 2 * CHUNK
