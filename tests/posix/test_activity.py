"""What the kernel counts as written to a device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from loops import loop_device, run, sparse_file
from requirements import require_lab
from vsssnap._posix.activity import Activity, activity, counts_requests, is_counted

MIB = 1 << 20

STILL = Activity(written=100, discarded=7, beside=(5, 6), in_flight=0)


def test_equal_counters_are_no_change() -> None:
    assert not STILL.changed_since(STILL)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (Activity(102, 7, (5, 6), 0), "1024 bytes were written"),
        (Activity(100, 8, (5, 6), 0), "512 bytes were discarded"),
        (Activity(100, 7, (7, 8), 0), "past the partition table"),
        (Activity(100, 7, (5, 6), 1), "a write is under way"),
    ],
)
def test_every_counter_tells_a_change(now: Activity, words: str) -> None:
    assert words in now.changed_since(STILL)


def test_counters_of_a_busy_neighbour_prove_nothing() -> None:
    # The two ranges overlap: the disk may not have been written past its partitions.
    assert not Activity(100, 7, (6, 9), 0).changed_since(STILL)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[str]:
    require_lab("losetup")
    with loop_device(sparse_file(tmp_path / "disk.img", 8 * MIB)) as name:
        yield name


@pytest.mark.lab
def test_flushed_write_is_counted_in_sectors(loop: str) -> None:
    rdev = os.stat(loop).st_rdev
    before = activity(rdev)
    fd = os.open(loop, os.O_WRONLY)
    os.pwrite(fd, b"x" * 8192, MIB)
    os.fsync(fd)
    os.close(fd)
    assert activity(rdev).written - before.written == 16


@pytest.mark.lab
def test_reading_is_no_activity(loop: str) -> None:
    rdev = os.stat(loop).st_rdev
    before = activity(rdev)
    assert len(Path(loop).read_bytes()) == 8 * MIB
    assert activity(rdev) == before


@pytest.mark.lab
def test_device_is_known_to_be_counted(loop: str) -> None:
    fd = os.open(loop, os.O_RDONLY)
    try:
        assert is_counted(fd, os.stat(loop).st_rdev, 512)
    finally:
        os.close(fd)


@pytest.mark.lab
def test_device_with_its_counters_off_is_known(loop: str) -> None:
    rdev = os.stat(loop).st_rdev
    switch = Path("/sys/block") / Path(loop).name / "queue" / "iostats"
    switch.write_text("0")
    try:
        assert not counts_requests(rdev)
    finally:
        switch.write_text("1")


@pytest.mark.lab
def test_write_to_a_partition_past_its_table_entry_is_seen(loop: str) -> None:
    require_lab("addpart", "delpart")
    run("addpart", loop, "1", "2048", "2048")
    try:
        rdev = os.stat(f"{loop}p1").st_rdev
        before = activity(rdev)
        fd = os.open(loop, os.O_WRONLY)
        os.pwrite(fd, b"x" * 512, MIB)  # the first sector of the partition, through the whole disk
        os.fsync(fd)
        os.close(fd)
        assert "past the partition table" in activity(rdev).changed_since(before)
    finally:
        run("delpart", loop, "1")


@pytest.mark.lab
def test_write_to_another_partition_is_no_change(loop: str) -> None:
    require_lab("addpart", "delpart")
    run("addpart", loop, "1", "2048", "2048")
    run("addpart", loop, "2", "4096", "2048")
    try:
        rdev = os.stat(f"{loop}p1").st_rdev
        before = activity(rdev)
        fd = os.open(f"{loop}p2", os.O_WRONLY)
        os.pwrite(fd, b"x" * 512, 0)
        os.fsync(fd)
        os.close(fd)
        assert not activity(rdev).changed_since(before)
    finally:
        run("delpart", loop, "1")
        run("delpart", loop, "2")


def test_a_mapped_device_counts_whatever_the_switch_of_queues_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queue").mkdir()
    (tmp_path / "queue" / "iostats").write_text("0\n")
    monkeypatch.setattr("vsssnap._posix.activity.sysfs", lambda rdev: tmp_path)
    monkeypatch.setattr("vsssnap._posix.activity.disk_of", lambda rdev: None)
    assert not counts_requests(0)
    (tmp_path / "dm").mkdir()
    assert counts_requests(0)
