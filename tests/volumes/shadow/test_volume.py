"""Which shadow copies are found, in which order, and what is said of those that cannot be read."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from uuid import UUID

import pytest

from volsnap_model import BLOCK, HEADER, IDENTIFIER, Copy, Disk, SparseVolume, model_of, without_header
from vsssnap.blocks.extent import ExtentKind
from vsssnap.errors import (
    CorruptImageError,
    DeviceReadError,
    UnsupportedFeatureError,
    UsageError,
    VssSnapError,
)
from vsssnap.volumes import (
    ShadowAttributes,
    ShadowFlags,
    ShadowReader,
    ShadowStore,
    ShadowVolume,
    UnusedBlocks,
)


def patch(disk: Disk, place: int, offset: int, data: bytes, *, storage: bool = False) -> None:
    """Write into a block."""
    blocks = disk.storage if storage and disk.storage is not None else disk.volume
    block = blocks[place]
    blocks[place] = block[:offset] + data + block[offset + len(data) :]


def entry(disk: Disk, number: int, *, location: bool = False) -> int:
    """Where the catalog entry of a shadow copy begins in its block (unshuffled, one catalog block)."""
    return 128 + 128 * (2 * (number - 1) + location)


def readable(volume: ShadowVolume) -> list[bool]:
    return [store.health.readable for store in volume.stores]


def check_readable(disk: Disk, volume: ShadowVolume, expected: list[bool]) -> None:
    """The right ones can be read and are right, the others are refused with an error of ours."""
    assert readable(volume) == expected
    for store, copy, good in zip(volume.stores, disk.model.copies, expected, strict=True):
        if not good:
            assert store.health.reasons
            with pytest.raises(VssSnapError):
                store.open()
            continue
        with store.open() as reader:
            for block in copy.truth:
                data = reader.pread(min(BLOCK, copy.size - block * BLOCK), block * BLOCK)
                assert without_header(block, data) == disk.expected(copy, block)


def test_facts_of_the_volume_and_its_stores() -> None:
    model = model_of(1, copies=2)
    model.copies[1].flags = 0x340
    disk = model.export()
    patch(disk, 0, HEADER + 56, struct.pack("<Q", 77 << 20))
    volume = ShadowVolume(disk.reader())
    assert volume.enabled
    assert not volume.redirected
    assert volume.volume_id == volume.storage_id == model.volume_id
    assert volume.maximum_size == 77 << 20
    one, two = volume.stores
    assert (one.number, one.position, two.number, two.position) == (1, 1, 2, 2)
    assert two.flags == 0x340  # bits without a name are kept
    assert ShadowFlags.OFFLINE in two.flags
    assert one.attributes == 0x2001D
    assert ShadowAttributes.DIFFERENTIAL | ShadowAttributes.NO_WRITERS in one.attributes
    assert (one.context, one.machine, one.service_machine) == (0x1D, "MODEL", "MODEL")
    assert one.created is not None
    assert one.created.tzinfo is UTC
    assert one.file_reference == 1 << 48 | 41
    assert str(one.store_id) in repr(one)


def test_shadow_copies_are_found_by_number_and_id() -> None:
    volume = ShadowVolume(model_of(2, copies=3).export().reader())
    store = volume.stores[1]
    for name in (2, store, store.store_id, store.copy_id, str(store.copy_id), f"{{{store.store_id}}}"):
        assert name is not None
        assert volume.find(name) is store
    for name in (0, 4, -1, UUID(int=1), "2x", ""):
        assert volume.find(name) is None
    assert ShadowVolume(model_of(2, copies=3).export().reader()).find(store) is None


def test_shadow_copies_switched_on_and_none_taken() -> None:
    disk = model_of(3, copies=1).export()
    patch(disk, 0, HEADER + 48, bytes(8))
    volume = ShadowVolume(disk.reader())
    assert volume.enabled
    assert volume.stores == ()


@pytest.mark.parametrize(
    ("offset", "data", "error"),
    [
        (20, struct.pack("<I", 2), CorruptImageError),
        (32, struct.pack("<Q", 0x1C00), CorruptImageError),
        (16, struct.pack("<I", 9), UnsupportedFeatureError),
    ],
)
def test_a_damaged_volume_header_is_an_error(offset: int, data: bytes, error: type[VssSnapError]) -> None:
    disk = model_of(4, copies=1).export()
    patch(disk, 0, HEADER + offset, data)
    with pytest.raises(error, match="volume header"):
        ShadowVolume(disk.reader())


def test_version_2_is_read() -> None:
    disk = model_of(5, copies=2).export()
    for places in disk.metadata.values():
        for place in places:
            patch(disk, place, 16, struct.pack("<I", 2))
    patch(disk, 0, HEADER + 16, struct.pack("<I", 2))
    check_readable(disk, ShadowVolume(disk.reader()), [True, True])


def test_a_broken_store_hides_older_ones_only() -> None:
    for number in range(1, 5):
        disk = model_of(6, copies=4).export()
        (place,) = disk.metadata[f"block list {number}"]
        patch(disk, place, 0, bytes(16))
        volume = ShadowVolume(disk.reader())
        check_readable(disk, volume, [one > number for one in range(1, 5)])
        for store in volume.stores[: number - 1]:
            assert f"depends on shadow copy {number}" in store.health.reasons[-1]
            assert "there is no metadata block" in store.health.reasons[-1]


def test_without_its_header_a_store_lacks_only_names() -> None:
    disk = model_of(7, copies=2).export()
    (place,) = disk.metadata["store header 1"]
    patch(disk, place, 0, bytes(16))
    volume = ShadowVolume(disk.reader())
    check_readable(disk, volume, [True, True])
    store = volume.stores[0]
    assert (store.copy_id, store.set_id, store.attributes, store.machine) == (None, None, 0, "")
    assert "ids and attributes are not known" in store.health.reasons[0]
    with store.open() as reader:
        assert reader.metadata.snapshot_id == str(store.store_id)


@pytest.mark.parametrize("name", ["bitmap 1", "previous bitmap 2"])
def test_without_its_bitmap_a_copy_opens_with_current_blocks_only(name: str) -> None:
    disk = model_of(8, copies=3).export()
    number = int(name[-1])
    (place,) = disk.metadata[name]
    patch(disk, place, 20, b"\7")
    volume = ShadowVolume(disk.reader())
    assert readable(volume) == [True, True, True]
    store, copy = volume.stores[number - 1], disk.model.copies[number - 1]
    assert "CURRENT only" in store.health.reasons[0]
    for policy in (UnusedBlocks.ZERO, UnusedBlocks.WINDOWS, UnusedBlocks.ERROR):
        with pytest.raises(CorruptImageError, match="CURRENT does without it"):
            store.open(policy)
    with store.open(UnusedBlocks.CURRENT) as reader:
        for block in copy.truth:
            data = reader.pread(min(BLOCK, copy.size - block * BLOCK), block * BLOCK)
            assert without_header(block, data) == disk.expected(copy, block)
        assert any("not known" in note for note in reader.metadata.notes)
    for other in volume.stores:
        assert other is store or other.health.reasons == ()


def test_a_bitmap_that_is_too_short_is_no_bitmap() -> None:
    disk = model_of(9, copies=1, far=130_048).export()
    first, _ = disk.metadata["bitmap 1"]
    patch(disk, first, 40, bytes(8))
    with pytest.raises(CorruptImageError, match="it has 1 blocks"):
        ShadowVolume(disk.reader()).stores[0].open()


def test_a_chain_that_comes_back_is_an_error() -> None:
    disk = model_of(10, copies=3, descriptors_apart=True).export()
    places = disk.metadata["block list 2"]
    patch(disk, places[-1], 40, struct.pack("<Q", places[0] * BLOCK))
    patch(disk, disk.metadata["bitmap 3"][0], 40, struct.pack("<Q", disk.metadata["bitmap 3"][0] * BLOCK))
    volume = ShadowVolume(disk.reader())
    # A bitmap is followed only as far as the volume goes.
    check_readable(disk, volume, [False, False, True])
    assert "the chain comes back to it" in volume.stores[1].health.reasons[0]


def test_a_chain_into_another_store_is_an_error() -> None:
    disk = model_of(11, copies=2).export()
    patch(disk, disk.metadata["block list 1"][0], 40, struct.pack("<Q", disk.metadata["bitmap 2"][0] * BLOCK))
    volume = ShadowVolume(disk.reader())
    check_readable(disk, volume, [False, True])
    assert "is of type 6" in volume.stores[0].health.reasons[0]


def test_a_block_that_belongs_elsewhere_is_an_error() -> None:
    disk = model_of(12, copies=2).export()
    place = disk.metadata["block list 2"][0]
    patch(disk, place, 32, struct.pack("<Q", (place + 1) * BLOCK))
    volume = ShadowVolume(disk.reader())
    check_readable(disk, volume, [False, False])
    assert "belongs at" in volume.stores[1].health.reasons[0]


def test_a_gap_in_the_stack_hides_what_is_older() -> None:
    model = model_of(13, copies=4)
    gone = model.copies.pop(2)
    disk = model.export()
    volume = ShadowVolume(disk.reader())
    check_readable(disk, volume, [False, False, True])
    assert (
        f"stack position {gone.position}, which is not in the catalog" in volume.stores[1].health.reasons[0]
    )
    assert readable(ShadowVolume(disk.reader(), recover=True)) == [True, True, True]


def test_two_copies_at_one_stack_position_are_both_refused() -> None:
    disk = model_of(14, copies=4).export()
    (catalog,) = disk.metadata["catalog"]
    patch(disk, catalog, entry(disk, 3) + 32, struct.pack("<Q", 2))
    volume = ShadowVolume(disk.reader())
    assert [store.position for store in volume.stores] == [1, 2, 2, 4]
    assert readable(volume) == [False, False, False, True]


def test_a_store_named_twice_is_refused() -> None:
    for location in (False, True):
        disk = model_of(15, copies=3).export()
        (catalog,) = disk.metadata["catalog"]
        at = entry(disk, 2, location=location)
        double = disk.volume[catalog][at : at + 128]
        patch(disk, catalog, entry(disk, 4), double)
        volume = ShadowVolume(disk.reader())
        second = [store for store in volume.stores if store.store_id == disk.model.copies[1].store_id]
        assert second
        assert all("more than once" in store.health.reasons[-1] for store in second)
        assert volume.stores[-1].health.readable


def test_a_copy_without_a_location_hides_older_ones() -> None:
    disk = model_of(16, copies=3).export()
    (catalog,) = disk.metadata["catalog"]
    patch(disk, catalog, entry(disk, 2, location=True), struct.pack("<I", 1))
    volume = ShadowVolume(disk.reader())
    check_readable(disk, volume, [False, False, True])
    assert "no catalog says where its store lies" in volume.stores[1].health.reasons[0]
    assert volume.stores[1].file_reference is None


@pytest.mark.parametrize("what", ["next", "identifier", "type", "unreadable"])
def test_a_catalog_that_ends_early_hides_everything_unless_asked_otherwise(what: str) -> None:
    disk = model_of(17, copies=5).export(shuffled=True)
    broken = disk.metadata["catalog"][1]
    if what == "next":
        patch(disk, disk.metadata["catalog"][0], 40, struct.pack("<Q", disk.size // BLOCK * BLOCK))
    elif what == "identifier":
        patch(disk, broken, 3, b"\0\0")
    elif what == "type":
        patch(disk, broken, 128 + 5 * 128, struct.pack("<I", 5))
    reader = _BadBlock(disk.volume, disk.size)
    if what == "unreadable":
        reader.bad = broken
    volume = ShadowVolume(reader)
    assert volume.problems
    assert volume.stores
    assert not any(readable(volume))
    for store in volume.stores:
        assert store.health.reasons[0] == volume.problems[0]
    recovered = ShadowVolume(reader, recover=True)
    assert any(readable(recovered))
    good = next(store for store in recovered.stores if store.health.readable)
    with good.open() as opened:
        assert any("catalog" in note for note in opened.metadata.notes)


class _BadBlock(SparseVolume):
    bad = -1

    def _read_into(self, view: memoryview, offset: int) -> None:
        if offset < (self.bad + 1) * BLOCK and self.bad * BLOCK < offset + len(view):
            raise DeviceReadError("a bad sector", offset=self.bad * BLOCK, length=512)
        super()._read_into(view, offset)


def test_catalog_blocks_that_point_at_each_other_are_no_loop() -> None:
    disk = model_of(18, copies=3, redirected=True).export(shuffled=True)
    assert disk.storage is not None
    own, other = disk.metadata["catalog"], disk.metadata["storage catalog"]
    patch(disk, own[-1], 40, struct.pack("<Q", own[0] * BLOCK))
    patch(disk, other[-1], 40, struct.pack("<Q", other[1] * BLOCK), storage=True)
    volume = ShadowVolume(disk.reader(), disk.storage_reader())
    assert "the chain comes back to it" in volume.problems[0]
    assert readable(volume) == [False] * 3
    # Each was read once before that was noticed.
    check_readable(disk, ShadowVolume(disk.reader(), disk.storage_reader(), recover=True), [True] * 3)


def test_a_broken_catalog_of_the_storage_hides_what_it_does_not_name() -> None:
    disk = model_of(18, copies=4, redirected=True).export(shuffled=True)
    assert disk.storage is not None
    patch(disk, disk.metadata["storage catalog"][1], 0, bytes(16), storage=True)
    volume = ShadowVolume(disk.reader(), disk.storage_reader())
    assert not volume.problems
    named = [store.file_reference is not None for store in volume.stores]
    assert True in named
    assert False in named
    newest_missing = max(number for number, known in enumerate(named) if not known)
    check_readable(disk, volume, [number > newest_missing for number in range(4)])
    assert "there is no metadata block" in volume.stores[newest_missing].health.reasons[0]


def test_the_storage_must_be_the_one_the_header_names() -> None:
    disk = model_of(19, copies=2, redirected=True).export()
    storage = disk.storage_reader()
    assert storage is not None
    check_readable(disk, ShadowVolume(disk.reader(), storage), [True, True])
    alone = ShadowVolume(disk.reader())
    check_readable(disk, alone, [False, False])
    assert "pass that volume as storage" in alone.stores[0].health.reasons[0]
    for wrong in (model_of(20, copies=1).export().reader(), SparseVolume({}, 1 << 20)):
        with pytest.raises(UsageError, match=str(disk.model.storage_id)):
            ShadowVolume(disk.reader(), wrong)
    # The storage volume has none of its own.
    assert ShadowVolume(storage).stores == ()


def test_a_volume_without_its_last_sector_is_read() -> None:
    disk = model_of(21, copies=3).export()
    size = disk.size - 512
    volume = ShadowVolume(disk.reader(size))
    for store, copy in zip(volume.stores, disk.model.copies, strict=True):
        assert store.health.readable
        assert "the last 512 bytes of the volume are not there and read as zeros" in store.health.reasons
        with store.open() as reader:
            assert reader.size == copy.size
            last = reader.pread(3072, size - 2560)
            assert last == copy.truth[disk.model.last][:2560] + bytes(512)
            assert list(reader.extents())[-1].kind is ExtentKind.HOLE


def test_a_volume_cut_short_gives_what_is_there() -> None:
    disk = model_of(22, copies=3).export()
    metadata = max(place for places in disk.metadata.values() for place in places)
    for end in range(0, disk.model.last, 37):
        reader = disk.reader(end * BLOCK + 100)
        volume = ShadowVolume(reader)  # where the header is missing it never had any
        assert volume.enabled == (end > 0)
        for store, copy in zip(volume.stores, disk.model.copies, strict=False):
            if not store.health.readable:
                continue
            assert store.health.reasons
            with store.open(UnusedBlocks.CURRENT) as opened:
                _right_or_unreadable(opened, copy)
        if end > metadata:
            assert readable(volume) == [True, True, True]


def _right_or_unreadable(reader: ShadowReader, copy: Copy) -> None:
    for block in copy.truth:
        try:
            data = reader.pread(min(BLOCK, copy.size - block * BLOCK), block * BLOCK)
        except DeviceReadError:
            continue
        assert without_header(block, data) == Disk.expected(copy, block)


def test_a_copy_outside_of_the_storage_loses_one_block() -> None:
    model = model_of(23, copies=2, steps=30)
    disk = model.export()
    store = ShadowVolume(disk.reader()).stores[1]
    block = next(block for block in store._level.table().blocks if block in model.copies[1].truth)
    for place in disk.metadata["block list 2"]:
        for at in range(128, BLOCK, 32):
            original, _, _, flags, _ = struct.unpack_from("<QQQII", disk.volume[place], at)
            if original == block * BLOCK and not flags & 7:
                patch(disk, place, at + 16, struct.pack("<Q", disk.size + BLOCK))
    store = ShadowVolume(disk.reader()).stores[1]
    assert store.health.readable
    assert "1 of its blocks lie outside" in store.health.reasons[0]
    with store.open() as reader:
        assert next(reader.extents(block * BLOCK, 1)).kind is ExtentKind.UNREADABLE
        with pytest.raises(DeviceReadError, match="lost"):
            reader.pread(1, block * BLOCK)
        for other in model.copies[1].truth:
            if other != block:
                data = reader.pread(min(BLOCK, disk.size - other * BLOCK), other * BLOCK)
                assert without_header(other, data) == disk.expected(model.copies[1], other)


@pytest.mark.parametrize("size", [0, 1 << 54, (1 << 64) - 1])
def test_an_absurd_size_is_refused(size: int) -> None:
    disk = model_of(24, copies=2).export()
    (catalog,) = disk.metadata["catalog"]
    patch(disk, catalog, entry(disk, 1) + 8, struct.pack("<Q", size))
    volume = ShadowVolume(disk.reader())
    assert readable(volume) == [False, True]
    assert f"{size} bytes" in volume.stores[0].health.reasons[0]


def test_a_size_that_was_made_up_costs_nothing() -> None:
    disk = model_of(25, copies=2).export()
    (catalog,) = disk.metadata["catalog"]
    patch(disk, catalog, entry(disk, 2) + 8, struct.pack("<Q", 1 << 53))
    with pytest.raises(CorruptImageError, match="volume need"):
        ShadowVolume(disk.reader()).stores[1].open()
    patch(disk, catalog, entry(disk, 2, location=True) + 48, bytes(8))
    with ShadowVolume(disk.reader()).stores[1].open() as reader:
        *_, last = reader.extents()
        assert (last.end, last.kind) == (1 << 53, ExtentKind.UNREADABLE)


@pytest.mark.parametrize("filetime", [0, 1, 10, (1 << 64) - 1])
def test_any_time_is_taken(filetime: int) -> None:
    disk = model_of(26, copies=1).export()
    (catalog,) = disk.metadata["catalog"]
    patch(disk, catalog, entry(disk, 1) + 48, struct.pack("<Q", filetime))
    (store,) = ShadowVolume(disk.reader()).stores
    assert store.created_filetime == filetime
    expected = {1: datetime(1601, 1, 1, tzinfo=UTC), 10: datetime(1601, 1, 1, 0, 0, 0, 1, UTC)}
    assert store.created == expected.get(filetime)
    assert store.health.readable
    with store.open():
        pass


def test_a_strange_name_of_a_machine_is_left_out() -> None:
    for data in (b"\xff\xff", b"\3\0abc", struct.pack("<H", 4) + b"\0\xd8\0\xd8", b"\0\0" * 40):
        disk = model_of(27, copies=1).export()
        (place,) = disk.metadata["store header 1"]
        patch(disk, place, 128 + 64, data + bytes(40))
        (store,) = ShadowVolume(disk.reader()).stores
        assert (store.machine, store.service_machine) == ("", "")
        assert store.copy_id == disk.model.copies[0].copy_id
        check_readable(disk, ShadowVolume(disk.reader()), [True])


def test_health_asked_again_says_the_same() -> None:
    disk = model_of(28, copies=2).export()
    patch(disk, disk.metadata["block list 2"][0], 0, bytes(16))
    store: ShadowStore = ShadowVolume(disk.reader()).stores[0]
    assert store.health == store.health
    for _ in range(3):  # the same error, not one that grows
        with pytest.raises(CorruptImageError) as caught:
            store.open()
        assert str(caught.value).count("depends on") == 1


@pytest.mark.parametrize("kind", [2, 3, 9])
def test_an_endless_catalog_ends(kind: int) -> None:
    disk = model_of(29, copies=1).export()
    blocks, count = dict(disk.volume), 1000
    first = disk.size // BLOCK + 1
    for number in range(first, first + count):
        entries = (struct.pack("<QQQQ", kind, 1 << 20, number << 8 | slot, number) for slot in range(127))
        header = struct.pack("<16sIIQQQ", IDENTIFIER, 1, 2, 0, number * BLOCK, (number + 1) * BLOCK)
        blocks[number] = header.ljust(128, b"\0") + b"".join(entry.ljust(128, b"\0") for entry in entries)
    (catalog,) = disk.metadata["catalog"]
    patched = bytearray(blocks[catalog])
    struct.pack_into("<Q", patched, 40, first * BLOCK)
    blocks[catalog] = bytes(patched)
    volume = ShadowVolume(SparseVolume(blocks, (first + count + 1) * BLOCK))
    assert "more entries than can be" in volume.problems[-1]
    assert len(volume.stores) <= 1025
