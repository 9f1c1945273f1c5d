"""Saving an increment from a list of changes: the same image as by comparing everything, with fewer reads."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from sources import BytesReader, noise
from vsssnap._units import MIB
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import UsageError
from vsssnap.formats import by_name
from vsssnap.imaging.opening import open_image
from vsssnap.imaging.saving import save_image

SIZE = 8 * MIB + 4096


def saved(folder: Path, data: bytes, changes: Sequence[Extent] | None) -> BytesReader:
    """Save the next version as a child of ``old.vsnap``; the reader that was asked."""
    source = BytesReader(data)
    with open_image(folder / "old.vsnap") as parent:
        save_image(source, folder / "new.vsnap", parent=parent, changes=changes)
    return source


@pytest.fixture
def old(tmp_path: Path) -> bytes:
    data = noise(SIZE)
    save_image(BytesReader(data), tmp_path / "old.vsnap")
    return data


def content(path: Path) -> bytes:
    with open_image(path) as reader:
        return reader.pread(reader.size, 0)


def test_only_units_with_changes_are_read(tmp_path: Path, old: bytes) -> None:
    data = bytearray(old)
    data[5 * MIB + 100 : 5 * MIB + 200] = noise(100, seed=2)
    source = saved(tmp_path, bytes(data), [Extent(5 * MIB + 64, 4096)])
    assert content(tmp_path / "new.vsnap") == data
    assert source.reads
    assert all(offset >= 5 * MIB and offset + length <= 6 * MIB for offset, length in source.reads)


def test_what_is_not_named_is_as_in_the_parent(tmp_path: Path, old: bytes) -> None:
    # The list is believed: a source of changes that lies makes an image of what it said.
    saved(tmp_path, noise(SIZE, seed=3), [Extent(2 * MIB, MIB)])
    expected = old[: 2 * MIB] + noise(SIZE, seed=3)[2 * MIB : 3 * MIB] + old[3 * MIB :]
    assert content(tmp_path / "new.vsnap") == expected


@pytest.mark.parametrize("seed", range(5))
def test_the_image_is_that_of_a_full_comparison(tmp_path: Path, old: bytes, seed: int) -> None:
    rng = random.Random(seed)
    data, changes, at = bytearray(old), [], 0
    while (at := at + rng.randrange(2 * MIB)) < SIZE:
        length = min(rng.randrange(1, MIB), SIZE - at)
        kind = rng.choice([ExtentKind.DATA, ExtentKind.ZERO])
        data[at : at + length] = rng.randbytes(length) if kind is ExtentKind.DATA else bytes(length)
        changes.append(Extent(at, length, kind))
        at += length
    saved(tmp_path, bytes(data), changes)
    (tmp_path / "new.vsnap").rename(tmp_path / "list.vsnap")
    saved(tmp_path, bytes(data), None)
    with open_image(tmp_path / "list.vsnap") as by_list, open_image(tmp_path / "new.vsnap") as by_comparison:
        assert by_list.pread(SIZE, 0) == bytes(data)
        assert by_list.info()["identity"] == by_comparison.info()["identity"]


def test_no_changes_make_an_image_equal_to_the_parent(tmp_path: Path, old: bytes) -> None:
    source = saved(tmp_path, old, [])
    assert source.reads == []
    with open_image(tmp_path / "new.vsnap") as new, open_image(tmp_path / "old.vsnap") as parent:
        assert new.info()["identity"] == parent.info()["identity"]


def test_the_report_counts_what_was_not_looked_at(tmp_path: Path, old: bytes) -> None:
    with open_image(tmp_path / "old.vsnap") as parent:
        report = save_image(
            BytesReader(old), tmp_path / "new.vsnap", parent=parent, changes=[Extent(SIZE - 1, 1)]
        )
    assert (report.unchanged, report.data) == (8 * MIB, 4096)


@pytest.mark.parametrize(
    "changes",
    [
        [Extent(MIB, 10), Extent(MIB + 5, 10)],
        [Extent(MIB, 10), Extent(0, 10)],
        [Extent(SIZE - 5, 6)],
        [Extent(-1, 5)],
    ],
)
def test_changes_that_do_not_ascend_are_refused(tmp_path: Path, old: bytes, changes: list[Extent]) -> None:
    with pytest.raises(UsageError, match=r"changes: \d+ bytes at -?\d+") as caught:
        saved(tmp_path, old, changes)
    assert "ascending" in (caught.value.hint or "")
    assert not (tmp_path / "new.vsnap").exists()


def test_changes_without_a_parent_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without a parent"):
        save_image(BytesReader(noise(4096)), tmp_path / "a.vsnap", changes=[])
    assert list(tmp_path.iterdir()) == []


def test_changes_do_not_go_with_a_side_car(tmp_path: Path) -> None:
    data = noise(4 * MIB)
    save_image(BytesReader(data), tmp_path / "old.vhdx")
    options = by_name("vhdx").options_type(sidecar=True)
    with (
        open_image(tmp_path / "old.vhdx") as parent,
        pytest.raises(UsageError, match="checksum of every block") as caught,
    ):
        save_image(BytesReader(data), tmp_path / "new.vhdx", parent=parent, changes=[], options=options)
    assert "leave out changes" in (caught.value.hint or "")
    assert [path.name for path in tmp_path.iterdir()] == ["old.vhdx"]


@pytest.mark.parametrize("changes", [5, [(0, 5)], [None]])
def test_changes_that_are_no_extents_are_refused(tmp_path: Path, old: bytes, changes: object) -> None:
    with (
        open_image(tmp_path / "old.vsnap") as parent,
        pytest.raises(UsageError, match=r"changes is .*: give Extent objects"),
    ):
        save_image(BytesReader(old), tmp_path / "new.vsnap", parent=parent, changes=changes)  # type: ignore[arg-type]  # that is the point
    assert not (tmp_path / "new.vsnap").exists()
