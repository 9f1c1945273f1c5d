"""Disks that are made up as they are read.  Their contract: tests/contract/test_readers.py."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsssnap import ExtentKind
from vsssnap.errors import UsageError
from vsssnap.testing import SeededDisk

SIZE = 1 << 20


def whole(**options: object) -> bytes:
    with SeededDisk(SIZE, **options) as disk:  # type: ignore[arg-type]  # options by name
        return disk.readall()


def test_same_seed_same_disk_for_ever() -> None:
    """Pinned: images of such disks are compared across versions."""
    assert whole(seed=1) == whole(seed=1)
    digest = hashlib.sha256(whole(seed=1)).hexdigest()
    assert digest == "bb7f19247deba0d756c49489c966cbfbdfc837dfbdd0f68399b7e2505eea1025"


def test_other_seed_other_disk() -> None:
    assert len({whole(seed=n) for n in range(5)}) == 5


@given(st.integers(0, SIZE), st.integers(0, SIZE), st.integers(0, 3))
def test_any_range_is_a_piece_of_the_whole(offset: int, length: int, seed: int) -> None:
    with SeededDisk(SIZE, seed, align=1) as disk:
        assert disk.pread(length, offset) == disk.readall()[offset : offset + length]
        assert disk.expected(length, offset) == disk.pread(length, offset)


def test_data_lies_where_the_map_says_alone() -> None:
    kinds = set()
    with SeededDisk(SIZE, 3) as disk:
        data = disk.readall()
        for extent in disk.extents():
            kinds.add(extent.kind)
            if extent.kind is not ExtentKind.DATA:
                assert not any(data[extent.offset : extent.end])
            assert extent.offset % 512 == 0
    assert kinds == {ExtentKind.DATA, ExtentKind.ZERO, ExtentKind.HOLE}


def test_there_are_noise_patterns_and_zeros_that_are_called_data() -> None:
    looks = set()
    with SeededDisk(1 << 22, 5) as disk:
        for extent in disk.extents():
            if extent.kind is ExtentKind.DATA and extent.length >= 4096:
                piece = disk.pread(4096, extent.offset)
                looks.add("zeros" if not any(piece) else "pattern" if len(set(piece)) < 40 else "noise")
    assert looks == {"zeros", "pattern", "noise"}


def test_largest_disk_has_few_extents_and_little_data() -> None:
    with SeededDisk((1 << 63) - 1) as disk:
        extents = list(disk.extents())
        data = sum(extent.length for extent in extents if extent.kind is ExtentKind.DATA)
        assert len(extents) <= 3 * 1024 + 3
        assert 0 < data <= 1024 * 65536
        assert extents[-1].end == (1 << 63) - 1


def test_gaps_are_of_the_kinds_asked_for() -> None:
    with SeededDisk(SIZE, gaps=(ExtentKind.EXCLUDED,)) as disk:
        assert {extent.kind for extent in disk.extents()} == {ExtentKind.DATA, ExtentKind.EXCLUDED}


@pytest.mark.parametrize(
    "options",
    [
        {"gaps": ()},
        {"gaps": (ExtentKind.DATA,)},
        {"gaps": (ExtentKind.UNREADABLE,)},
        {"align": 0},
        {"island": 0},
        {"regions": 0},
        {"sector_size": 500},
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        SeededDisk(SIZE, **options)  # type: ignore[arg-type]  # wrong on purpose


def test_empty_disk() -> None:
    with SeededDisk(0) as disk:
        assert (disk.readall(), list(disk.extents()), disk.expected(5, 0)) == (b"", [], b"")
