"""Where two sources differ."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources import BytesReader, Plain, mixed, noise
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import SnapshotLostError
from vsssnap.imaging.comparing import compare_blocks
from vsssnap.imaging.opening import open_image
from vsssnap.imaging.reports import Progress
from vsssnap.imaging.saving import save_image

MIB = 1 << 20


def by_hand(a: bytes, b: bytes) -> set[int]:
    """Sectors of 512 bytes that differ."""
    return {n // 512 for n in range(0, max(len(a), len(b)), 512) if a[n : n + 512] != b[n : n + 512]}


def sectors(extents: list[Extent]) -> set[int]:
    return {n for extent in extents for n in range(extent.offset // 512, -(-extent.end // 512))}


@given(st.data())
def test_the_differences_are_those_that_a_plain_loop_finds(data: st.DataObject) -> None:
    a = bytearray(mixed(data.draw(st.integers(0, 40_000)), seed=3))
    b = bytearray(a)
    for offset in data.draw(st.lists(st.integers(0, max(0, len(b) - 1)), max_size=5)) if b else []:
        b[offset] ^= 0xFF
    found = list(compare_blocks(Plain(bytes(a)), Plain(bytes(b))))
    assert sectors(found) == by_hand(bytes(a), bytes(b))
    assert all(x.end < y.offset for x, y in itertools.pairwise(found))


def test_across_pieces_too() -> None:
    a = noise(5 * MIB + 13)
    b = bytearray(a)
    for offset in (0, MIB - 1, MIB, 3 * MIB + 700, len(a) - 1):
        b[offset] ^= 1
    found = list(compare_blocks(Plain(a), Plain(bytes(b))))
    assert found == [
        Extent(0, 512),
        Extent(MIB - 512, 1024),
        Extent(3 * MIB + 512, 512),
        Extent(5 * MIB, 13),
    ]


def test_kinds_that_read_as_zeros_are_equal_to_zeros() -> None:
    zeros = bytes(3 * MIB)
    kinds = (ExtentKind.ZERO, ExtentKind.HOLE, ExtentKind.EXCLUDED, ExtentKind.DATA)
    readers = [BytesReader(zeros, extents=[Extent(0, 3 * MIB, kind)]) for kind in kinds]
    for a, b in itertools.combinations(readers[:3], 2):
        assert list(compare_blocks(a, b)) == []
    assert [reader.reads for reader in readers[:3]] == [[], [], []]
    assert list(compare_blocks(readers[0], readers[3])) == []


def test_what_lies_behind_the_shorter_one_differs() -> None:
    assert list(compare_blocks(Plain(b"ab"), Plain(b"abcd"))) == [Extent(2, 2)]
    assert list(compare_blocks(Plain(b""), Plain(b""))) == []


def test_an_unreadable_range_is_told_and_the_rest_compared() -> None:
    data = noise(4096)
    other = bytearray(data)
    other[4000] ^= 1
    found = list(compare_blocks(BytesReader(data, bad=[(1024, 512)]), Plain(bytes(other))))
    assert found == [Extent(1024, 512, ExtentKind.UNREADABLE), Extent(3584, 512)]


@pytest.mark.parametrize("cut", [False, True])
def test_blocks_that_are_not_what_was_saved_are_unreadable(tmp_path: Path, cut: bool) -> None:
    image, data = tmp_path / "a.raw", noise(3 * MIB)
    save_image(Plain(data), image)
    with image.open("r+b") as file:
        if cut:
            file.truncate(2 * MIB)
        else:
            file.seek(2 * MIB)
            file.write(bytes([data[2 * MIB] ^ 1]))
    with open_image(image, recover=True) as reader:
        (found,) = compare_blocks(reader, Plain(data))
    assert found.kind is ExtentKind.UNREADABLE
    assert found.offset == 2 * MIB
    assert found.length == MIB if cut else 0 < found.length < MIB


def test_a_lost_snapshot_is_no_equality() -> None:
    with pytest.raises(SnapshotLostError):
        list(compare_blocks(BytesReader(noise(100), lost_after=0), Plain(noise(100))))


def test_progress_reaches_the_end() -> None:
    seen: list[Progress] = []
    list(compare_blocks(Plain(noise(3 * MIB)), Plain(noise(3 * MIB)), progress=seen.append))
    assert seen[-1].state == "done"
    assert seen[-1].done == 3 * MIB
