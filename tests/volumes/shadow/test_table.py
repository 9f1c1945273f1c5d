"""How a store's descriptors are brought together."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from volsnap_model import SparseVolume
from vsssnap.errors import CorruptImageError
from vsssnap.testing import MemoryReader
from vsssnap.volumes.shadow.table import KIND, LOST, OTHER, OWN, Table, read_table

BLOCK = 16384
LIMIT = 1 << 40
IDENTIFIER = bytes.fromhex("6b87083876c1484eb7ae04046e6cc752")

REGULAR, FORWARD, OVERLAY, NOT_USED = 0, 1, 2, 4


def storage_of(descriptors: list[tuple[int, int, int, int, int]], *, blocks: int = 64) -> MemoryReader:
    """A block list that begins at block 1, and room for copies behind it."""
    packed = [struct.pack("<QQQII", *each) for each in descriptors]
    groups = [packed[at : at + 508] for at in range(0, len(packed), 508)] or [[]]
    content = bytearray(blocks * BLOCK)
    for number, group in enumerate(groups, 1):
        following = (number + 1) * BLOCK if number < len(groups) else 0
        struct.pack_into("<16sIIQQQ", content, number * BLOCK, IDENTIFIER, 1, 3, 0, number * BLOCK, following)
        content[number * BLOCK + 128 : number * BLOCK + 128 + 32 * len(group)] = b"".join(group)
    return MemoryReader(bytes(content))


def table_of(*descriptors: tuple[int, int, int, int], kind: int = OWN) -> Table:
    """Of (original, relative, place, flags) in blocks."""
    listed = [
        (original * BLOCK, relative * BLOCK, place * BLOCK, flags, 0xF if flags & OVERLAY else 0)
        for original, relative, place, flags in descriptors
    ]
    return read_table(storage_of(listed), BLOCK, kind, LIMIT)


def copies(table: Table) -> dict[int, int]:
    return {block: source // BLOCK for block, source in zip(table.blocks, table.sources, strict=True)}


def test_copies_are_sorted_and_the_last_one_counts() -> None:
    table = table_of((9, 0, 40, REGULAR), (3, 0, 41, 0x88), (9, 0, 42, REGULAR), kind=OTHER)
    assert copies(table) == {3: 41, 9: 42}
    assert list(table.blocks) == [3, 9]
    assert {source & KIND for source in table.sources} == {OTHER}


def test_descriptors_that_are_not_used_say_nothing() -> None:
    table = table_of((9, 0, 40, REGULAR), (9, 0, 41, NOT_USED), (10, 1, 0, NOT_USED | FORWARD))
    assert copies(table) == {9: 40}
    assert not table.forwards


def test_a_block_that_moved_and_is_copied_there_counts_under_its_first_place() -> None:
    assert copies(table_of((5, 20, 0, FORWARD), (20, 0, 40, REGULAR))) == {5: 40}
    # Twice; and what is at the place afterwards is another block's.
    table = table_of((5, 20, 0, FORWARD), (20, 30, 0, FORWARD), (30, 0, 40, REGULAR), (30, 0, 41, REGULAR))
    assert copies(table) == {5: 40, 30: 41}
    assert not table.forwards
    assert list(table.moved) == [5, 20, 30]


def test_a_move_takes_the_place_of_a_copy_and_a_copy_that_of_a_move() -> None:
    table = table_of((5, 0, 40, REGULAR), (5, 20, 0, FORWARD))
    assert copies(table) == {}
    assert table.forwards == {5: 20}
    table = table_of((5, 20, 0, FORWARD), (5, 0, 40, REGULAR), (20, 0, 41, REGULAR))
    assert copies(table) == {5: 40, 20: 41}


def test_a_block_that_moved_back_was_never_away() -> None:
    table = table_of((5, 20, 0, FORWARD), (20, 5, 0, FORWARD))
    assert not table.forwards
    assert list(table.moved) == [5, 20]
    assert copies(table_of((5, 20, 0, FORWARD), (20, 5, 0, FORWARD), (5, 0, 40, REGULAR))) == {5: 40}


def test_sectors_of_overlays_add_up() -> None:
    listed = [(5 * BLOCK, BLOCK, 40 * BLOCK, 2, 0b1), (5 * BLOCK, 1, 40 * BLOCK, 2, 0b110)]
    table = read_table(storage_of(listed), BLOCK, OWN, LIMIT)
    assert table.overlays == {5: (40 * BLOCK, 0b111)}
    assert copies(table) == {}


@pytest.mark.parametrize("place", [0, 1, 64 * BLOCK, 63 * BLOCK + 512, (1 << 64) - BLOCK])
def test_a_copy_outside_of_the_storage_is_lost(place: int) -> None:
    table = read_table(storage_of([(5 * BLOCK, 0, place, 0, 0)]), BLOCK, OWN, LIMIT)
    assert list(table.sources) == [5 * BLOCK | LOST]
    table = read_table(storage_of([(5 * BLOCK, 0, place, 2, 1)]), BLOCK, OWN, LIMIT)
    assert table.overlays == {5: (None, 1)}


def test_a_move_to_nowhere_is_kept_as_such() -> None:
    for target in (LIMIT, 7, (1 << 64) - BLOCK):
        table = read_table(storage_of([(5 * BLOCK, target, 0, 1, 0)]), BLOCK, OWN, LIMIT)
        assert table.forwards == {5: None}


@pytest.mark.parametrize(
    ("descriptor", "problem"),
    [
        ((512, 0, 40 * BLOCK, 0, 0), "offset 512"),
        ((LIMIT, 0, 40 * BLOCK, 0, 0), f"a volume of {LIMIT} bytes"),
        ((5 * BLOCK, 9 * BLOCK, 0, 3, 0), "forwarder and overlay at once"),
    ],
)
def test_a_descriptor_that_makes_no_sense_is_an_error(
    descriptor: tuple[int, int, int, int, int], problem: str
) -> None:
    good = (5 * BLOCK, 0, 40 * BLOCK, 0, 0)
    with pytest.raises(CorruptImageError, match=f"at {BLOCK}, descriptor 1: .*{problem}") as caught:
        read_table(storage_of([good, descriptor]), BLOCK, OWN, LIMIT)
    assert caught.value.structure == "block list"


def test_more_copies_than_the_storage_has_blocks_are_an_error() -> None:
    for flags, relative in ((0, 0), (2, 1), (1, 3000)):
        many = [
            (5000 * BLOCK + block * BLOCK, (relative + block) * BLOCK, 40 * BLOCK, flags, 1)
            for block in range(2000)
        ]
        with pytest.raises(CorruptImageError, match=r"2000 copies|more than 64"):
            read_table(storage_of(many), BLOCK, OWN, LIMIT)


@pytest.mark.long
def test_a_block_that_is_listed_over_and_over_takes_no_memory() -> None:
    place = 2100 * BLOCK
    storage = storage_of([(5 * BLOCK, 0, place, 0, 0)] * 700_000, blocks=2200)
    tracemalloc.start()
    table = read_table(storage, BLOCK, OWN, LIMIT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert copies(table) == {5: 2100}
    assert peak < 8 << 20  # all pairs would be 11 MB in arrays, and 100 in a dictionary


@pytest.mark.long
def test_many_copies_take_sixteen_bytes_each() -> None:
    count = 300_000
    listed = [((block * 7919 % count) * 8 * BLOCK, 0, 700 * BLOCK, 0, 0) for block in range(count)]
    lists = storage_of(listed, blocks=700)
    blocks = {number: lists.pread(BLOCK, number * BLOCK) for number in range(1, 700)}
    storage = SparseVolume(blocks, count * BLOCK)
    tracemalloc.start()
    table = read_table(storage, BLOCK, OWN, LIMIT)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table.blocks) == count
    assert list(table.blocks[:3]) == [0, 8, 16]
    assert kept < 24 * count
    assert peak < 64 * count  # a dictionary of all of them takes more than 150 each


@pytest.mark.parametrize(
    "last",
    [
        (0, 0, 0, NOT_USED),  # nothing, but it is one that must be looked at
        (3, 0, 62, REGULAR),  # right as it is
        (7, 0, 4000, REGULAR),  # outside of the storage
        (9, 1 << 20, 0, FORWARD),
        (70_000, 0, 50, 0x88),  # in another part of the volume
    ],
)
def test_a_block_of_copies_alone_is_read_as_one_by_one(last: tuple[int, int, int, int]) -> None:
    plain = [(at * 37 % 47, at % 3, 10 + at % 50, 0x88 * (at % 2)) for at in range(1, 508)]
    table = table_of(*plain, last)
    expected = {original: place for original, _, place, _ in plain}
    original, _, place, flags = last
    if flags & FORWARD:
        expected.pop(original, None)
    elif not flags & NOT_USED:
        expected[original] = place if place < 64 else original  # of a lost one its own place
    assert copies(table) == expected
    lost = {block for block, source in zip(table.blocks, table.sources, strict=True) if source & KIND == LOST}
    assert lost == ({7} if place == 4000 else set())


@pytest.mark.parametrize("wrong", [(1, 0, 0), (LIMIT, 0, 0), (LIMIT + BLOCK, 0, 0)])
def test_a_bad_descriptor_among_copies_is_found(wrong: tuple[int, int, int]) -> None:
    good = (BLOCK, 0, 20 * BLOCK, 0, 0)
    with pytest.raises(CorruptImageError, match="descriptor 3"):
        read_table(storage_of([good] * 3 + [(*wrong[:2], 20 * BLOCK, 0, 0), good]), BLOCK, OWN, LIMIT)
