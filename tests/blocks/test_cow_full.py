"""What a CowVolume does when an original cannot be saved."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cow_volumes import BLOCK, WAIT, MemoryVolume, pattern, shadow_files, shadow_on_disk, volume_of
from requirements import require_lab
from vsssnap.blocks.cow import WhenFull
from vsssnap.blocks.cow.store import ShadowStore
from vsssnap.errors import DeviceReadError, InsufficientStorageError, SnapshotLostError

STORE = 16 << 10  # bytes that a store is charged with once, beside its blocks
SAVED = BLOCK + 64  # bytes that an original is charged with


def test_full_shadow_storage_loses_the_snapshot_and_the_write_goes_on(tmp_path: Path) -> None:
    with volume_of(pattern(64), tmp_path, shadow_limit=100_000) as volume, volume.snapshot() as snapshot:
        reader = snapshot.open()
        volume.pwrite(b"x" * 64 * BLOCK, 0)
        assert volume.pread(64 * BLOCK, 0) == b"x" * 64 * BLOCK
        message = r"full .* of 97\.7 KiB.*block \d+ .*shadow_limit=.*take another"
        with pytest.raises(SnapshotLostError, match=message):
            reader.pread(1, 0)


def test_lost_snapshot_stays_lost(tmp_path: Path) -> None:
    with volume_of(pattern(4), tmp_path, shadow_limit=0) as volume, volume.snapshot() as snapshot:
        reader = snapshot.open()
        walk = snapshot.open().extents()
        volume.pwrite(b"x", 0)
        calls: list[Callable[[], object]] = [
            lambda: reader.pread(1, 3 * BLOCK),
            reader.confirm,
            snapshot.confirm,
            snapshot.open,
            lambda: list(reader.extents()),
            lambda: list(reader.blocks(BLOCK)),
        ]
        for call in calls * 2:
            with pytest.raises(SnapshotLostError):
                call()
        with pytest.raises(SnapshotLostError):
            next(walk)


def test_oldest_snapshot_is_lost_first_and_makes_room(tmp_path: Path) -> None:
    limit = 2 * STORE + 3 * SAVED  # two blocks of one and two of the other do not fit
    with volume_of(pattern(8), tmp_path, shadow_limit=limit) as volume, volume.snapshot() as older:
        volume.pwrite(b"x" * 2 * BLOCK, 0)
        with volume.snapshot() as newer:
            volume.pwrite(b"y" * 2 * BLOCK, 4 * BLOCK)
            assert (bool(older.lost), newer.lost) == (True, "")
            assert newer.open().pread(8 * BLOCK, 0) == b"x" * 2 * BLOCK + pattern(8)[2 * BLOCK :]
            assert shadow_on_disk(tmp_path) == 2 * BLOCK


def test_lost_snapshot_gives_its_disk_back_at_once(tmp_path: Path) -> None:
    with volume_of(pattern(64), tmp_path, shadow_limit=100_000) as volume, volume.snapshot() as snapshot:
        volume.pwrite(b"x" * 16 * BLOCK, 0)
        assert shadow_on_disk(tmp_path) == 16 * BLOCK
        volume.pwrite(b"x" * 64 * BLOCK, 0)
        assert snapshot.lost
        assert shadow_files(tmp_path) == []


def test_interrupted_loss_leaves_no_writer_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = ShadowStore.empty

    def interrupted(store: ShadowStore) -> None:
        monkeypatch.setattr(ShadowStore, "empty", empty)
        raise KeyboardInterrupt  # as from a truncation that takes long

    with volume_of(pattern(64), tmp_path, shadow_limit=2 * STORE + 3 * SAVED) as volume:
        older, newer = volume.snapshot(), volume.snapshot()
        volume.pwrite(b"x" * 2 * BLOCK, 0)
        monkeypatch.setattr(ShadowStore, "empty", interrupted)
        with pytest.raises(KeyboardInterrupt):
            volume.pwrite(b"y" * 16 * BLOCK, 8 * BLOCK)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(volume.pwrite, b"z" * 16 * BLOCK, 32 * BLOCK).result(WAIT)
        older.close()
        newer.close()
        assert (volume.shadow_used, shadow_files(tmp_path)) == (0, [])


def test_full_shadow_storage_fails_the_write_when_asked_to(tmp_path: Path) -> None:
    old = pattern(64)
    with (
        volume_of(old, tmp_path, shadow_limit=100_000, when_full=WhenFull.FAIL_WRITE, name="db") as volume,
        volume.snapshot() as snapshot,
    ):
        with pytest.raises(InsufficientStorageError, match=r"db: .* full .* was not written.*shadow_limit="):
            volume.pwrite(b"x" * 64 * BLOCK, 0)
        assert volume.pread(64 * BLOCK, 0) == old
        assert snapshot.open().pread(64 * BLOCK, 0) == old


def test_failed_write_succeeds_once_snapshots_are_closed(tmp_path: Path) -> None:
    with volume_of(pattern(4), tmp_path, shadow_limit=0, when_full=WhenFull.FAIL_WRITE) as volume:
        with volume.snapshot(), pytest.raises(InsufficientStorageError):
            volume.pwrite(b"x", 0)
        assert volume.pwrite(b"x", 0) == 1


def test_saved_blocks_can_be_written_though_shadow_storage_is_full(tmp_path: Path) -> None:
    with (
        volume_of(pattern(64), tmp_path, shadow_limit=60_000, when_full=WhenFull.FAIL_WRITE) as volume,
        volume.snapshot(),
    ):
        volume.pwrite(b"x", 0)
        with pytest.raises(InsufficientStorageError):
            volume.pwrite(b"x" * 60 * BLOCK, BLOCK)
        assert volume.pwrite(b"y" * BLOCK, 0) == BLOCK


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_full_shadow_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full_disk(fd: int, data: object, offset: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("vsssnap._files.pwrite", full_disk)
    with volume_of(pattern(1), tmp_path) as volume, volume.snapshot() as snapshot:
        volume.pwrite(b"x", 0)
        assert "disk of shadow storage" in snapshot.lost
    with volume_of(pattern(1), tmp_path, when_full=WhenFull.FAIL_WRITE) as volume, volume.snapshot():
        for _ in range(10):
            with pytest.raises(InsufficientStorageError, match=f"{tmp_path} .*error {code}"):
                volume.pwrite(b"x", 0)
        assert volume.shadow_used <= STORE  # and nothing for each try


@pytest.mark.lab
def test_disk_that_really_runs_full_loses_the_oldest_snapshot(tmp_path: Path) -> None:
    require_lab("mount", "umount", file_systems=("tmpfs",))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    try:
        with volume_of(pattern(400), tmp_path) as volume, volume.snapshot() as older:
            volume.pwrite(b"x" * 200 * BLOCK, 0)
            with volume.snapshot() as newer:
                volume.pwrite(b"y" * 200 * BLOCK, 0)
                assert (bool(older.lost), newer.lost) == (True, "")
                assert newer.open().pread(BLOCK, 199 * BLOCK) == b"x" * BLOCK
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_one_loss_serves_all_writers_that_found_no_room(tmp_path: Path) -> None:
    # Room for the newer store with all 16 blocks, but not with the two of the older one beside it.
    limit = 2 * STORE + 17 * SAVED
    for _ in range(20):
        with (
            ThreadPoolExecutor(16) as threads,
            volume_of(MemoryVolume(pattern(16), slow=True), tmp_path, shadow_limit=limit) as volume,
            volume.snapshot() as older,
        ):
            volume.pwrite(b"x" * 2 * BLOCK, 0)
            with volume.snapshot() as newer:
                jobs = [threads.submit(volume.pwrite, b"y" * BLOCK, index * BLOCK) for index in range(16)]
                for job in jobs:
                    job.result(WAIT)
                assert (bool(older.lost), newer.lost) == (True, "")


# Originals that cannot be read, or not be saved for another reason.


class Unreadable(MemoryVolume):
    """Block 1 cannot be read."""

    def pread(self, length: int, offset: int, /) -> bytes:
        if offset < 2 * BLOCK and offset + length > BLOCK:
            raise DeviceReadError("bad block", offset=BLOCK, length=BLOCK)
        return super().pread(length, offset)


def test_unreadable_original_loses_the_snapshots_that_need_it(tmp_path: Path) -> None:
    with volume_of(Unreadable(pattern(4)), tmp_path) as volume, volume.snapshot() as snapshot:
        assert volume.pwrite(b"x" * 4 * BLOCK, 0) == 4 * BLOCK
        assert "bad block" in snapshot.lost


def test_unreadable_original_spares_older_snapshots_that_have_theirs(tmp_path: Path) -> None:
    backing = MemoryVolume(pattern(4))
    with volume_of(backing, tmp_path) as volume, volume.snapshot() as older:
        volume.pwrite(b"x" * BLOCK, BLOCK)
        with volume.snapshot() as newer:
            backing.__class__ = Unreadable
            volume.pwrite(b"y" * BLOCK, BLOCK)
            assert newer.lost
            assert older.open().pread(BLOCK, BLOCK) == pattern(4)[BLOCK : 2 * BLOCK]


def test_unreadable_original_fails_the_write_when_asked_to(tmp_path: Path) -> None:
    backing = Unreadable(pattern(4))
    with volume_of(backing, tmp_path, when_full=WhenFull.FAIL_WRITE) as volume, volume.snapshot() as snapshot:
        with pytest.raises(DeviceReadError, match="bad block"):
            volume.pwrite(b"x" * 4 * BLOCK, 0)
        assert not backing.writes
        snapshot.confirm()


def test_unreadable_block_that_was_saved_is_read_from_shadow_storage(tmp_path: Path) -> None:
    backing = MemoryVolume(pattern(4))
    with volume_of(backing, tmp_path) as volume, volume.snapshot() as snapshot:
        volume.pwrite(b"x" * BLOCK, BLOCK)
        backing.__class__ = Unreadable
        assert snapshot.open().pread(4 * BLOCK, 0) == pattern(4)


def test_failing_read_of_a_snapshot_raises_and_the_snapshot_lives(tmp_path: Path) -> None:
    with volume_of(Unreadable(pattern(4)), tmp_path) as volume, volume.snapshot() as snapshot:
        with pytest.raises(DeviceReadError):
            snapshot.open().pread(4 * BLOCK, 0)
        snapshot.confirm()


def test_failing_shadow_storage_loses_the_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int, data: object, offset: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with volume_of(pattern(1), tmp_path) as volume, volume.snapshot() as snapshot:
        monkeypatch.setattr("vsssnap._files.pwrite", broken)
        volume.pwrite(b"x", 0)
        assert "Input/output error" in snapshot.lost


def test_failing_volume_write_leaves_snapshots_whole(tmp_path: Path) -> None:
    class Broken(MemoryVolume):
        def pwrite(self, data: memoryview, offset: int, /) -> None:
            raise RuntimeError("the caller's own")

    with volume_of(Broken(pattern(2)), tmp_path) as volume, volume.snapshot() as snapshot:
        with pytest.raises(RuntimeError, match="the caller's own"):
            volume.pwrite(b"x", 0)
        assert snapshot.open().pread(2 * BLOCK, 0) == pattern(2)
