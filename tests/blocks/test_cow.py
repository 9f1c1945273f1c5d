"""What snapshots of a CowVolume show, its arguments and its files."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from cow_volumes import BLOCK, MemoryVolume, pattern, shadow_files, shadow_on_disk, volume_of
from vsssnap.blocks.cow import CowVolume
from vsssnap.blocks.cow.bitmap import Bitmap, full, runs
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import SnapshotError, SnapshotPermissionError, TargetError, UsageError

# What a snapshot shows.


def test_snapshot_shows_what_was_and_volume_what_is(tmp_path: Path) -> None:
    old = pattern(8, tail=100)
    with volume_of(old, tmp_path) as volume, volume.snapshot() as snapshot, snapshot.open() as reader:
        volume.pwrite(b"new" * 3000, 5000)
        assert reader.pread(1 << 20, 0) == old
        assert volume.pread(1 << 20, 0) == old[:5000] + b"new" * 3000 + old[14000:]


def test_short_last_block_is_saved(tmp_path: Path) -> None:
    old = pattern(2, tail=7)
    with volume_of(old, tmp_path) as volume, volume.snapshot() as snapshot, snapshot.open() as reader:
        volume.pwrite(b"x" * 7, 2 * BLOCK)
        assert reader.pread(100, 2 * BLOCK) == b"T" * 7


def test_volume_smaller_than_a_block_is_saved(tmp_path: Path) -> None:
    with volume_of(b"abc", tmp_path) as volume, volume.snapshot() as snapshot, snapshot.open() as reader:
        volume.pwrite(b"x", 1)
        assert (reader.pread(9, 0), volume.pread(9, 0)) == (b"abc", b"axc")


def test_empty_volume_can_be_snapshotted(tmp_path: Path) -> None:
    with volume_of(b"", tmp_path) as volume, volume.snapshot() as snapshot, snapshot.open() as reader:
        assert volume.pwrite(b"", 0) == 0
        assert (reader.size, reader.pread(1, 0), list(reader.extents())) == (0, b"", [])


def test_older_snapshot_finds_originals_in_newer_ones(tmp_path: Path) -> None:
    with volume_of(b"a" * BLOCK, tmp_path) as volume:
        first, second, third = volume.snapshot(), volume.snapshot(), volume.snapshot()
        with first, second, third:
            volume.pwrite(b"b" * BLOCK, 0)
            assert [s.open().pread(1, 0) for s in (first, second, third)] == [b"a"] * 3


def test_released_newer_snapshot_leaves_originals_to_older_one(tmp_path: Path) -> None:
    with volume_of(b"a" * BLOCK, tmp_path) as volume, volume.snapshot() as older:
        with volume.snapshot():
            volume.pwrite(b"b" * BLOCK, 0)
        volume.pwrite(b"c" * BLOCK, 0)
        with older.open() as reader:
            assert reader.pread(1, 0) == b"a"


def test_original_is_read_and_saved_once_for_all_snapshots(tmp_path: Path) -> None:
    backing = MemoryVolume(pattern(4))
    with volume_of(backing, tmp_path) as volume:
        snapshots = [volume.snapshot() for _ in range(5)]
        for _ in range(3):
            volume.pwrite(b"x" * BLOCK, BLOCK)
        assert backing.reads == [(BLOCK, BLOCK)]
        assert shadow_on_disk(tmp_path) == BLOCK
        for snapshot in snapshots:
            snapshot.close()


def test_without_a_snapshot_a_write_reads_nothing(tmp_path: Path) -> None:
    backing = MemoryVolume(pattern(4))
    with volume_of(backing, tmp_path) as volume:
        with volume.snapshot():
            pass
        volume.pwrite(b"x" * BLOCK, 0)
    assert backing.reads == []


def test_original_is_saved_before_the_block_is_written(tmp_path: Path) -> None:
    seen: list[int] = []

    class Watching(MemoryVolume):
        def pwrite(self, data: memoryview, offset: int, /) -> None:
            seen.append(shadow_on_disk(tmp_path))
            super().pwrite(data, offset)

    with volume_of(Watching(pattern(2)), tmp_path) as volume, volume.snapshot():
        volume.pwrite(b"x", 0)
    assert seen == [BLOCK]


def test_zero_originals_take_no_disk(tmp_path: Path) -> None:
    with volume_of(bytes(64 * BLOCK), tmp_path) as volume, volume.snapshot() as snapshot:
        volume.pwrite(b"x" * 64 * BLOCK, 0)
        assert shadow_on_disk(tmp_path) == 0
        assert snapshot.open().pread(64 * BLOCK, 0) == bytes(64 * BLOCK)


def test_extents_of_a_snapshot_are_those_of_its_instant(tmp_path: Path) -> None:
    old = bytes(BLOCK) + b"d" * BLOCK + bytes(BLOCK) + b"e" * BLOCK
    with volume_of(old, tmp_path) as volume, volume.snapshot() as snapshot, snapshot.open() as reader:
        volume.pwrite(b"x" * BLOCK + bytes(BLOCK), 0)
        data, zero = ExtentKind.DATA, ExtentKind.ZERO
        assert list(reader.extents()) == [
            Extent(BLOCK * index, BLOCK, kind) for index, kind in enumerate((zero, data, zero, data))
        ]


def test_extents_of_a_volume_are_those_of_now(tmp_path: Path) -> None:
    with volume_of(bytes(2 * BLOCK), tmp_path) as volume, volume.snapshot():
        volume.pwrite(b"x" * BLOCK, 0)
        kinds = {extent.offset // BLOCK: extent.kind for extent in volume.extents()}
        assert kinds == {0: ExtentKind.DATA, 1: ExtentKind.ZERO}


def test_file_holes_are_zero_extents(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(b"")
    os.truncate(path, 1 << 20)
    with CowVolume(path) as volume, volume.snapshot() as snapshot, snapshot.open() as reader:
        volume.pwrite(b"x" * 65536, 65536)
        assert list(reader.extents()) == [Extent(0, 1 << 20, ExtentKind.ZERO)]


def test_range_longer_than_one_look_is_read_whole(tmp_path: Path) -> None:
    # More than the 4096 blocks that are looked up at once, with a border inside a read.
    path = tmp_path / "disk.img"
    size = 5000 * BLOCK
    path.write_bytes(b"o" * size)
    with CowVolume(path, block_size=BLOCK) as volume, volume.snapshot() as snapshot:
        for block in (0, 4095, 4096, 4999):
            volume.pwrite(b"n" * BLOCK, block * BLOCK)
        with snapshot.open() as reader:
            assert reader.pread(size, 0) == b"o" * size
            assert list(reader.extents()) == [Extent(0, size)]


def test_reader_says_where_its_blocks_come_from(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(BLOCK))
    with CowVolume(path, name="db") as volume, volume.snapshot() as snapshot, snapshot.open() as reader:
        metadata = reader.metadata
        assert (metadata.volume, metadata.device, metadata.provider) == ("db", str(path), "cow")
        assert reader.origins == (str(path),)


def test_flush_reaches_the_object_behind_the_volume(tmp_path: Path) -> None:
    flushed: list[bool] = []

    class Flushing(MemoryVolume):
        def flush(self) -> None:
            flushed.append(True)

    with volume_of(Flushing(b"a"), tmp_path) as volume:
        volume.flush()
    assert flushed == [True]


# Arguments.


def test_write_past_the_end_is_refused_whole(tmp_path: Path) -> None:
    with volume_of(pattern(1), tmp_path, name="db") as volume:
        with pytest.raises(UsageError, match="db: 2 bytes at 4095 go past the end at 4096"):
            volume.pwrite(b"xy", 4095)
        assert volume.pread(BLOCK, 0) == pattern(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": 2048}, "block_size is 2048, outside 4096..16777216"),
        ({"block_size": 32 << 20}, "block_size is 33554432"),
        ({"block_size": 12288}, "no power of two"),
        ({"shadow_limit": -1}, "shadow_limit is -1"),
        ({"when_full": "explode"}, "when_full is 'explode'"),
        ({"name": ""}, "name is ''"),
        ({"name": 5}, "name is int, no str"),
        ({"shadow_folder": 5}, "int is no path"),
        ({"shadow_folder": "a\0b"}, "is no path"),
    ],
)
def test_wrong_option_is_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        volume_of(b"", tmp_path, **options)


@pytest.mark.parametrize("backing", [object(), 7, b"/dev/null", None])
def test_object_without_block_calls_is_refused(backing: object) -> None:
    with pytest.raises(UsageError, match="is no volume: pass a path, or an object with size"):
        CowVolume(backing)  # type: ignore[arg-type]  # that is the point


def test_path_that_is_no_volume_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path, "/dev/null", "x\0y", ""):
        with pytest.raises(UsageError):
            CowVolume(path)


def test_wrong_option_leaves_no_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "volume"
    path.write_bytes(pattern(1))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(UsageError, match="is no path"):
        CowVolume(path, shadow_folder=7)  # type: ignore[arg-type]  # that is the point
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_path_of_bytes_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "volume"
    path.write_bytes(pattern(1))

    class Named:
        def __fspath__(self) -> bytes:
            return os.fsencode(path)

    with CowVolume(Named()) as volume:  # type: ignore[arg-type]  # os.PathLike[bytes]
        assert (volume.name, volume.pread(1, 0)) == (str(path), pattern(1)[:1])


def test_data_that_was_released_is_refused(tmp_path: Path) -> None:
    view = memoryview(bytes(4))
    view.release()
    with volume_of(pattern(1), tmp_path) as volume, pytest.raises(UsageError, match="not contiguous bytes"):
        volume.pwrite(view, 0)


@pytest.mark.parametrize("data", ["text", 5, memoryview(b"abcdef")[::2]])
def test_data_that_is_no_buffer_is_refused(tmp_path: Path, data: object) -> None:
    with volume_of(pattern(1), tmp_path) as volume, pytest.raises(UsageError, match="not contiguous bytes"):
        volume.pwrite(data, 0)  # type: ignore[arg-type]  # that is the point


def test_short_writes_of_an_object_are_continued(tmp_path: Path) -> None:
    class Short(MemoryVolume):
        def pwrite(self, data: memoryview, offset: int, /) -> int:  # type: ignore[override]  # as os.pwrite
            super().pwrite(data[:1000], offset)
            return min(1000, len(data))

    with volume_of(Short(bytes(BLOCK)), tmp_path) as volume:
        volume.pwrite(b"x" * 3500, 10)
        assert volume.pread(BLOCK, 0) == bytes(10) + b"x" * 3500 + bytes(586)


@pytest.mark.parametrize("count", [0, -1, 7])
def test_object_that_miscounts_its_writes_is_an_error(tmp_path: Path, count: int) -> None:
    class Wrong(MemoryVolume):
        def pwrite(self, data: memoryview, offset: int, /) -> int:  # type: ignore[override]  # as os.pwrite
            return count

    message = rf"Wrong: pwrite took {count} of 3 bytes at 5"
    with volume_of(Wrong(bytes(BLOCK)), tmp_path) as volume, pytest.raises(TargetError, match=message):
        volume.pwrite(b"abc", 5)


# Files.


def test_missing_shadow_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    message = rf"shadow storage .* in {folder}.*error {errno.ENOENT}.*shadow_folder="
    with volume_of(pattern(1), folder) as volume, pytest.raises(SnapshotError, match=message):
        volume.snapshot()


def test_shadow_folder_without_rights_is_a_permission_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("vsssnap.blocks.cow.store._unnamed", refuse)
    with (
        volume_of(pattern(1), tmp_path) as volume,
        pytest.raises(SnapshotPermissionError, match="shadow_folder="),
    ):
        volume.snapshot()


def test_shadow_storage_has_no_name_and_no_rights_for_others(tmp_path: Path) -> None:
    with volume_of(pattern(1), tmp_path) as volume, volume.snapshot():
        volume.pwrite(b"x", 0)
        assert list(tmp_path.iterdir()) == []
        (status,) = shadow_files(tmp_path)
        assert stat.S_IMODE(status.st_mode) == 0o600


def test_shadow_storage_is_unnamed_without_o_tmpfile_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    with volume_of(pattern(1), tmp_path) as volume, volume.snapshot() as snapshot:
        volume.pwrite(b"x", 0)
        assert list(tmp_path.iterdir()) == []
        (status,) = shadow_files(tmp_path)
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert snapshot.open().pread(BLOCK, 0) == pattern(1)


def test_shadow_storage_lies_beside_a_file_by_default(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(BLOCK))
    with CowVolume(path) as volume, volume.snapshot():
        assert len(shadow_files(tmp_path)) == 1


# Masks.


def test_bitmap_gives_back_what_was_set_across_pages() -> None:
    bitmap = Bitmap()
    border = 4096 * 8
    bitmap.set(border - 3, 0b101101)
    assert bitmap.get(border - 5, 10) == 0b10110100
    assert bitmap.get(0, 3 * border) == 0b101101 << (border - 3)


def test_runs_are_the_unbroken_parts_of_a_mask() -> None:
    assert list(runs(0b1110011010)) == [(1, 1), (3, 2), (7, 3)]
    assert list(runs(full(1000) << 7)) == [(7, 1000)]
    assert list(runs(0)) == []
