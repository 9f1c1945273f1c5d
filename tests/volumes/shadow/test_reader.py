"""A shadow copy as a reader: the contract, the policies for unused blocks, and what it refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from volsnap_model import BLOCK, Disk, SparseVolume, Volsnap, model_of
from vsssnap.blocks.concat import ConcatReader
from vsssnap.blocks.extent import Extent, ExtentKind, clip, overlay
from vsssnap.errors import ClosedError, DeviceReadError, UsageError
from vsssnap.testing import Faults, FaultyReader, MemoryReader, check_reader
from vsssnap.volumes import BlockSource, ShadowReader, ShadowVolume, SourceExtent, UnusedBlocks


@pytest.fixture(scope="module")
def disk() -> Disk:
    return model_of(21, copies=3).export()


def opened(disk: Disk, number: int, unused: UnusedBlocks = UnusedBlocks.ZERO) -> ShadowReader:
    return ShadowVolume(disk.reader(), disk.storage_reader()).stores[number - 1].open(unused)


@pytest.mark.parametrize("policy", list(UnusedBlocks))
@pytest.mark.parametrize("number", [1, 3])
def test_it_keeps_the_contract_of_readers(disk: Disk, number: int, policy: UnusedBlocks) -> None:
    # What it holds is put together block by block here; that this is right is another test's matter.
    with opened(disk, number, policy) as reader:
        size = reader.size
        bad = [extent for extent in reader.extents() if extent.kind is ExtentKind.UNREADABLE]
        assert bool(bad) == (policy is UnusedBlocks.ERROR)
        pieces, at = [], 0
        for extent in reader.extents():
            unreadable = extent.kind is ExtentKind.UNREADABLE
            pieces.append(bytes(extent.length) if unreadable else reader.pread(extent.length, extent.offset))
            at = extent.end
        assert at == size
    check_reader(lambda: opened(disk, number, policy), b"".join(pieces))


def test_unused_blocks_follow_the_policy() -> None:
    model = Volsnap(1)
    free = next(block for block in model.places if block not in model.used)
    model.write(free, old := model.content())
    model.free(free)
    model.snapshot()
    model.write(free, now := model.content())
    model.free(free)
    model.snapshot()
    zeros = bytes(BLOCK)
    expected = {
        UnusedBlocks.ZERO: (zeros, zeros),
        UnusedBlocks.WINDOWS: (now, zeros),  # zeros only in the newest one
        UnusedBlocks.CURRENT: (now, now),
    }
    assert old != now
    disk = model.export()
    for policy, contents in expected.items():
        for number, content in enumerate(contents, 1):
            with opened(disk, number, policy) as reader:
                assert reader.pread(BLOCK, free * BLOCK) == content, (policy, number)
                kind = next(reader.extents(free * BLOCK, BLOCK)).kind
                assert kind is (ExtentKind.DATA if any(content) else ExtentKind.HOLE)
                part = next(reader.sources(free * BLOCK, BLOCK))
                assert part.source is BlockSource.UNUSED
                assert part.source_offset == (free * BLOCK if any(content) else None)
    with opened(disk, 2, UnusedBlocks.ERROR) as reader:
        with pytest.raises(DeviceReadError, match="not in use") as caught:
            reader.pread(1, free * BLOCK + 5)
        assert (caught.value.offset, caught.value.length) == (free * BLOCK + 5, 1)


def test_sectors_written_in_the_copy_lie_over_an_unused_block() -> None:
    model = Volsnap(2)
    free = next(block for block in model.places if block not in model.used)
    model.write(free)
    model.free(free)
    copy = model.snapshot()
    model.overlay(copy, free, 0b1010)
    patch = model.storage[copy.overlays[free][0]]
    disk = model.export()
    at = free * BLOCK
    with opened(disk, 1) as reader:
        assert reader.pread(2048, at) == bytes(512) + patch[512:1024] + bytes(512) + patch[1536:2048]
    with opened(disk, 1, UnusedBlocks.ERROR) as reader:
        assert reader.pread(512, at + 512) == patch[512:1024]
        with pytest.raises(DeviceReadError):
            reader.pread(513, at + 512)
        assert [(e.offset - at, e.length, e.kind) for e in reader.extents(at + 500, 1000)] == [
            (500, 12, ExtentKind.UNREADABLE),
            (512, 512, ExtentKind.DATA),
            (1024, 476, ExtentKind.UNREADABLE),
        ]


def test_sources_are_clipped_and_checked() -> None:
    model = Volsnap(3)
    one = next(block for block in model.places if block in model.used)
    model.snapshot()
    model.write(one)
    disk = model.export()
    with opened(disk, 1) as reader:
        (part,) = reader.sources(one * BLOCK + 7, 100)
        kept = part.source_offset
        assert kept is not None
        assert part == SourceExtent(one * BLOCK + 7, 100, BlockSource.STORE, kept)
        assert disk.volume[kept // BLOCK][7:107] == reader.pread(100, one * BLOCK + 7)
        assert list(reader.sources(reader.size, 10)) == []
        assert list(reader.sources(reader.size - 1))[-1].end == reader.size
        for wrong in ((-1, 1), (0, -1)):
            with pytest.raises(UsageError):
                reader.sources(*wrong)
    with pytest.raises(ClosedError):
        reader.sources()


def test_holes_of_the_volume_are_zeros_of_the_copy() -> None:
    model = Volsnap(4)
    free = [block for block in model.places if block not in model.used][:2]
    for block in free:
        model.used.add(block)  # a file uses it and it holds zeros: the volume's file has a hole there
    model.snapshot()
    disk = model.export()
    assert not set(free) & set(disk.volume)
    with opened(disk, 1) as reader:
        assert {next(reader.extents(block * BLOCK, BLOCK)).kind for block in free} == {ExtentKind.ZERO}


def test_what_an_image_of_the_volume_left_out_is_not_taken_for_zeros() -> None:
    model = Volsnap(5)
    used = [block for block in model.places if block in model.used]
    model.snapshot()
    model.free(used[0])  # so an image of what is in use leaves it out
    model.move(used[1], next(block for block in model.places if block not in model.used))
    moved = model.copies[0].descriptors[0][1] // BLOCK
    disk = model.export()

    left_out = [Extent(block * BLOCK, BLOCK, ExtentKind.HOLE) for block in sorted((used[0], moved))]

    class Partial(SparseVolume):
        def _extents(self, offset: int, length: int) -> Iterator[Extent]:
            return overlay(super()._extents(offset, length), clip(left_out, offset, length))

    with ShadowVolume(Partial(disk.volume, disk.size)).stores[0].open() as reader:
        for block in used[:2]:
            assert next(reader.extents(block * BLOCK, BLOCK)).kind is ExtentKind.UNREADABLE
            assert next(reader.sources(block * BLOCK, BLOCK)).source is BlockSource.LOST
            with pytest.raises(DeviceReadError, match="lost"):
                reader.pread(1, block * BLOCK)
        assert reader.pread(BLOCK, used[2] * BLOCK) == model.copies[0].truth[used[2]]


def test_it_says_where_it_comes_from(disk: Disk) -> None:
    store = ShadowVolume(disk.reader()).stores[1]
    with store.open() as reader:
        metadata = reader.metadata
        assert (metadata.provider, metadata.created) == ("vss", store.created)
        assert metadata.snapshot_id == str(store.copy_id)
        assert any("unused blocks: zero" in note for note in metadata.notes)


def test_closing_it_leaves_the_volume_open_and_the_other_way_round(disk: Disk) -> None:
    volume = disk.reader()
    store = ShadowVolume(volume).stores[0]
    with store.open() as one:
        pass
    assert one.closed
    other = store.open()
    assert other.pread(4, 0)
    volume.close()
    with pytest.raises(ClosedError):
        other.pread(4, 0)
    other.close()


def test_an_error_of_the_volume_passes_through(disk: Disk) -> None:
    faults = Faults()
    with FaultyReader(disk.reader(), faults) as volume:
        store = ShadowVolume(volume).stores[2]
        used = next(
            block
            for block in disk.model.copies[2].truth
            if next(store.open().sources(block * BLOCK, BLOCK)).source is BlockSource.VOLUME
        )
        with store.open() as reader:
            good = reader.pread(BLOCK, used * BLOCK)
            faults.fail(
                "pread", DeviceReadError("bad sector", offset=used * BLOCK, length=512), nth=1, times=1
            )
            with pytest.raises(DeviceReadError, match="bad sector"):
                reader.pread(BLOCK, used * BLOCK)
            assert reader.pread(BLOCK, used * BLOCK) == good


def test_the_policy_is_checked(disk: Disk) -> None:
    store = ShadowVolume(disk.reader()).stores[0]
    with store.open("current") as reader:  # type: ignore[arg-type]  # a string will do
        assert reader.unused is UnusedBlocks.CURRENT
    with pytest.raises(UsageError, match="use one of"):
        store.open("nothing")  # type: ignore[arg-type]  # that is the test


def test_a_view_is_not_taken_for_a_volume(disk: Disk) -> None:
    # Every shadow copy shows the header of the present, and so the shadow copies of its own volume.
    with opened(disk, 1, UnusedBlocks.CURRENT) as view:
        assert view.pread(16, 0x1E00) == disk.volume[0][0x1E00:0x1E10]
        wrapped = ConcatReader([view.window(0, 100_000), view.window(100_000, view.size - 100_000)])
        for reader in (view, view.window(0, view.size), wrapped):
            with pytest.raises(UsageError, match=r"view of a shadow copy.*open the volume itself"):
                ShadowVolume(reader)
        with pytest.raises(UsageError, match="view of a shadow copy"):
            ShadowVolume(disk.reader(), view)


def test_a_volume_inside_of_a_file_on_a_shadow_copy_is_a_volume() -> None:
    inner = Volsnap(7, blocks=40, storage_blocks=120)
    inner.snapshot()
    content = inner.export()
    outer = Volsnap(8, blocks=400)
    first = 20
    for block in range(inner.last + 1):
        outer.write(first + block, content.volume.get(block, bytes(BLOCK)))
    outer.snapshot()
    with opened(outer.export(), 1) as view:
        nested = ShadowVolume(view.window(first * BLOCK, inner.size))
        assert [store.store_id for store in nested.stores] == [inner.copies[0].store_id]


def test_a_long_read_is_the_same_as_short_ones(disk: Disk) -> None:
    with opened(disk, 1, UnusedBlocks.CURRENT) as reader:
        whole = reader.pread(reader.size, 0)
        state = hashlib.sha256()
        for offset in range(0, reader.size, 7_777):
            state.update(reader.pread(7_777, offset))
        assert state.digest() == hashlib.sha256(whole).digest()
        buffer = bytearray(reader.size)
        assert reader.preadinto(buffer, 0) == reader.size
        assert buffer == whole


def test_a_volume_that_never_had_shadow_copies_has_none() -> None:
    for content in (b"", bytes(100), bytes(0x1E00), bytes(BLOCK * 2)):
        volume = ShadowVolume(MemoryReader(content))
        assert not volume.enabled
        assert volume.stores == ()
        assert (volume.volume_id, volume.storage_id) == (None, None)
