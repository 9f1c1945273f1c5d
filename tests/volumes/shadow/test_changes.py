"""What changed between shadow copies: nothing is missed, and what cannot be known is refused."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest

from volsnap_model import BLOCK, Disk, Volsnap, model_of, without_header
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import ChangesUnknownError, DeviceReadError, UsageError
from vsssnap.volumes import Exclusion, FileSystem, ShadowVolume, UnusedBlocks
from vsssnap.volumes._runs import Runs, of_bytes
from vsssnap.volumes.shadow import changes

ZEROS = bytes(BLOCK)


def numbers(extents: Iterable[Extent], kind: ExtentKind) -> set[int]:
    return {
        block
        for extent in extents
        if extent.kind is kind
        for block in range(extent.offset // BLOCK, -(-extent.end // BLOCK))
    }


def missed(disk: Disk, older: int, newer: int | None, *, exact: bool) -> list[int]:
    """Blocks in which an image of the older state, brought up to date, differs from the newer state.

    The image of the older state is what it held at its instant, with zeros for what was not in use.
    """
    model = disk.model
    volume = ShadowVolume(disk.reader(), disk.storage_reader())
    image = dict(model.copies[older - 1].truth)
    if newer is None:
        now = {block: model.blocks[block] for block in model.used}
        allocated = [
            Extent(block * BLOCK, BLOCK, ExtentKind.DATA)
            for block in sorted(model.used)
            if block != model.last
        ]
        allocated.append(Extent(model.last * BLOCK, model.size - model.last * BLOCK, ExtentKind.DATA))
        found = list(volume.changed_extents(older, None, allocated=allocated, exact=exact))
        source: BlockReader = disk.reader()
    else:
        now = dict(model.copies[newer - 1].truth)
        found = list(volume.changed_extents(older, newer, exact=exact))
        source = volume.stores[newer - 1].open()
    for extent in found:
        assert extent.kind in (ExtentKind.DATA, ExtentKind.ZERO)
        assert extent.offset % BLOCK == 0
    assert [e.offset for e in found] == sorted(e.offset for e in found)
    for block in numbers(found, ExtentKind.DATA):
        image[block] = source.pread(BLOCK, block * BLOCK)
    for block in numbers(found, ExtentKind.ZERO):
        image.pop(block, None)
        assert block not in now
    wrong = [
        block
        for block in now
        if without_header(block, image.get(block, ZEROS))[: model.size - block * BLOCK]
        != without_header(block, now[block])[: model.size - block * BLOCK]
    ]
    if newer is not None:
        # Bit for bit what a full image of the newer one has, also where nobody uses it any more.
        with volume.stores[newer - 1].open() as view:
            for block in range(model.last):
                if {extent.kind for extent in view.extents(block * BLOCK, BLOCK)} == {ExtentKind.HOLE}:
                    assert block not in image, block
    return wrong


@pytest.mark.parametrize("exact", [False, True])
def test_nothing_that_changed_is_missed(exact: bool) -> None:
    for seed in range(10):
        disk = model_of(seed, copies=3, redirected=seed % 4 == 3).export()
        for older in range(1, 4):
            for newer in (*range(older + 1, 4), None):
                assert not missed(disk, older, newer, exact=exact), (seed, older, newer)


@pytest.mark.long
@pytest.mark.parametrize("exact", [False, True])
def test_nothing_that_changed_is_missed_on_many_volumes(exact: bool) -> None:
    pairs = 0
    for seed in range(500, 700):
        disk = model_of(seed, copies=2 + seed % 4, redirected=seed % 4 == 3).export(shuffled=True)
        count = len(disk.model.copies)
        for older in range(1, count + 1):
            for newer in (*range(older + 1, count + 1), None):
                assert not missed(disk, older, newer, exact=exact), (seed, older, newer)
                pairs += 1
    assert pairs > 1000


def test_a_block_that_was_free_and_written_in_between_counts() -> None:
    # No store lists it, and comparing the two shadow copies shows no difference.
    model = Volsnap(1)
    free = next(block for block in model.places if block not in model.used)
    model.snapshot()
    model.write(free)
    model.snapshot()
    disk = model.export()
    volume = ShadowVolume(disk.reader())
    assert not volume.stores[0]._level.table().blocks
    before, after = (store.open(UnusedBlocks.CURRENT) for store in volume.stores)
    assert before.pread(BLOCK, free * BLOCK) == after.pread(BLOCK, free * BLOCK)
    assert numbers(volume.changed_extents(1, 2), ExtentKind.DATA) == {0, free}


def test_a_block_that_was_freed_becomes_zeros() -> None:
    model = Volsnap(2)
    used = next(block for block in model.places if block in model.used)
    other = next(block for block in model.places if block in model.used and block != used)
    model.snapshot()
    model.write(used)
    model.free(used)
    model.free(other)  # the older shadow copy still needs it, so the newer one shows it, too
    model.snapshot()
    volume = ShadowVolume(model.export().reader())
    assert numbers(volume.changed_extents(1, 2), ExtentKind.ZERO) == {used}
    # Without an allocation map nobody says that it is free now.
    assert not numbers(volume.changed_extents(1), ExtentKind.ZERO)


def test_exact_leaves_out_what_was_only_copied_in_advance() -> None:
    model = Volsnap(3)
    one, other = [block for block in model.places if block in model.used][:2]
    model.snapshot()
    model.precopy(one)
    model.write(other)
    model.snapshot()
    volume = ShadowVolume(model.export().reader())
    assert numbers(volume.changed_extents(1, 2), ExtentKind.DATA) == {0, one, other}
    assert numbers(volume.changed_extents(1, 2, exact=True), ExtentKind.DATA) == {0, other}


def test_without_an_allocation_map_every_unprotected_block_may_have_changed() -> None:
    model = Volsnap(4)
    model.snapshot()
    disk = model.export()
    volume = ShadowVolume(disk.reader())
    free = {block for block in range(model.last + 1) if block not in model.copies[0].truth}
    assert numbers(volume.changed_extents(1), ExtentKind.DATA) == {0} | free


def test_ranges_end_with_the_volume() -> None:
    model = Volsnap(5)
    model.snapshot()
    model.write(model.last, model.blocks[model.last])
    model.snapshot()
    volume = ShadowVolume(model.export().reader())
    assert list(volume.changed_extents(1, 2))[-1] == Extent(model.last * BLOCK, 3072, ExtentKind.DATA)


def test_shadow_copies_are_named_in_several_ways() -> None:
    disk = model_of(6, copies=3).export()
    volume = ShadowVolume(disk.reader())
    one, other = volume.stores[0], volume.stores[2]
    expected = list(volume.changed_extents(1, 3))
    assert expected
    names: list[Any] = [one, one.store_id, one.copy_id, str(one.copy_id), f"{{{one.store_id}}}", 1]
    for name in names:
        assert list(volume.changed_extents(name, other.copy_id)) == expected


def test_a_base_that_is_gone_asks_for_a_full_image() -> None:
    volume = ShadowVolume(model_of(7, copies=4).export().reader())
    gone = UUID(int=7)
    with pytest.raises(
        ChangesUnknownError, match=f"no shadow copy {gone} on the volume any more: take a full"
    ):
        volume.changed_extents(gone)


def test_a_resize_asks_for_a_full_image() -> None:
    model = model_of(8, copies=1, redirected=True)
    model.resize(190)
    model.snapshot()
    disk = model.export()
    volume = ShadowVolume(disk.reader(), disk.storage_reader())
    with pytest.raises(ChangesUnknownError, match="was resized"):
        volume.changed_extents(1, 2)
    model.resize(150)
    disk = model.export()
    with pytest.raises(ChangesUnknownError, match=r"was resized.*the volume has"):
        ShadowVolume(disk.reader(), disk.storage_reader()).changed_extents(2)


def test_a_gap_in_the_stack_asks_for_a_full_image() -> None:
    model = model_of(9, copies=4)
    del model.copies[1]
    volume = ShadowVolume(model.export().reader())
    with pytest.raises(ChangesUnknownError, match="missing"):
        volume.changed_extents(1, 3)
    assert list(volume.changed_extents(2, 3))


@pytest.mark.parametrize("name", ["bitmap 2", "previous bitmap 2", "block list 2", "block list 4", "catalog"])
def test_damage_asks_for_a_full_image(name: str) -> None:
    disk = model_of(10, copies=4).export()
    (place,) = disk.metadata[name]
    disk.volume[place] = bytes(16) + disk.volume[place][16:]
    volume = ShadowVolume(disk.reader(), recover=True)
    with pytest.raises(ChangesUnknownError, match="take a full image"):
        volume.changed_extents(1, 3)


def test_a_store_without_a_bitmap_asks_for_a_full_image() -> None:
    disk = model_of(11, copies=2).export()
    (place,) = disk.metadata["catalog"]
    block = bytearray(disk.volume[place])
    assert block[256] == 3
    block[256 + 48 : 256 + 56] = bytes(8)
    disk.volume[place] = bytes(block)
    with pytest.raises(ChangesUnknownError, match="no bitmap"):
        ShadowVolume(disk.reader()).changed_extents(1, 2)


def test_wrong_arguments_are_usage_errors() -> None:
    volume = ShadowVolume(model_of(12, copies=4).export().reader())
    wrong: list[tuple[Any, Any, Any]] = [
        (2, 1, None),
        (2, 2, None),
        (1, uuid4(), None),
        (1, 2, [Extent(0, BLOCK)]),
    ]
    for older, newer, allocated in wrong:
        with pytest.raises(UsageError):
            volume.changed_extents(older, newer, allocated=allocated)
    for bad in ([Extent(BLOCK, BLOCK), Extent(0, BLOCK)], ["everything"]):
        with pytest.raises(UsageError, match="ascending extents"):
            list(volume.changed_extents(1, allocated=bad))  # type: ignore[arg-type]  # that is the test


class Files(FileSystem):
    """A file system that uses every third block, and has a page file in the blocks 3 to 5."""

    name = "ntfs"

    def __init__(self, volume: BlockReader, doubt: str = "") -> None:
        super().__init__(volume)
        self.doubt = doubt
        self.size = volume.size
        self.block_size = BLOCK
        self._blocks = volume.size // BLOCK

    def _page(self, first: int, count: int) -> Runs:
        return of_bytes(bytes(number % 3 == 0 for number in range(first, first + count)), count)

    def excluded(
        self, exclude: Collection[Exclusion], /
    ) -> Sequence[tuple[Exclusion, str, Sequence[Extent]]]:
        assert set(exclude) == set(Exclusion)
        where = [Extent(3 * BLOCK, 3 * BLOCK, ExtentKind.EXCLUDED)]
        return [(Exclusion.PAGE_FILE, "pagefile.sys", where)]


def test_the_present_file_system_tells_what_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Volsnap(4)
    model.snapshot()
    volume = ShadowVolume(model.export().reader())
    free = {block for block in range(model.last + 1) if block not in model.copies[0].truth}
    monkeypatch.setattr(changes, "filesystem", Files)
    used = {*range(0, model.last, 3), model.last} - {3, 4, 5}
    found = numbers(volume.changed_extents(1), ExtentKind.DATA)
    assert found == ({0} | free) & used
    assert found < {0} | free


def test_a_map_with_a_doubt_says_nothing_of_what_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Volsnap(4)
    model.snapshot()
    volume = ShadowVolume(model.export().reader())
    free = {block for block in range(model.last + 1) if block not in model.copies[0].truth}

    def doubtful(reader: BlockReader) -> Files:
        return Files(reader, doubt="the volume is marked dirty")

    def unreadable(reader: BlockReader) -> Files:
        raise DeviceReadError("bad sector")

    for found in (doubtful, unreadable, lambda reader: None):
        monkeypatch.setattr(changes, "filesystem", found)
        assert numbers(volume.changed_extents(1), ExtentKind.DATA) == {0} | free
