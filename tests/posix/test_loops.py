"""Which part of which file a loop device shows, as losetup made it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loops import loop_device, partition, run, sparse_file
from requirements import require_lab
from vsssnap._posix.loops import Loop, NoLoopError, find

pytestmark = pytest.mark.lab

MIB = 1 << 20


def found(path: str | Path) -> Loop:
    return find(str(path), os.stat(path).st_rdev)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    require_lab("losetup")
    return sparse_file(tmp_path / "disk with space", 8 * MIB)


def test_whole_file(disk: Path) -> None:
    with loop_device(disk) as device:
        assert found(device) == Loop(str(disk), ((0, 8 * MIB),), 512)


def test_sectors_of_4096(disk: Path) -> None:
    with loop_device(disk, sector_size=4096) as device:
        assert found(device).sector_size == 4096


def test_part_of_a_file(disk: Path) -> None:
    device = run("losetup", "--find", "--show", "--offset", "1048576", "--sizelimit", "4096", disk).strip()
    try:
        assert found(device) == Loop(str(disk), ((MIB, 4096),), 512)
    finally:
        run("losetup", "--detach", device)


def test_partition(disk: Path) -> None:
    require_lab("addpart", "delpart")
    with loop_device(disk, partitions=True) as device, partition(device, 1, 2048, 100) as part:
        assert found(part) == Loop(str(disk), ((2048 * 512, 100 * 512),), 512)


def test_file_that_was_renamed_is_found_under_its_new_name(disk: Path) -> None:
    with loop_device(disk) as device:
        disk.rename(disk.with_name("renamed"))
        assert found(device).backing == str(disk.with_name("renamed"))


def test_deleted_file_is_said_so(disk: Path) -> None:
    with loop_device(disk) as device:
        disk.unlink()
        with pytest.raises(NoLoopError, match="is deleted or not visible here"):
            found(device)


def test_file_that_was_replaced_is_not_taken_for_it(disk: Path) -> None:
    with loop_device(disk) as device:
        old = disk.with_name("disk with space (deleted)")
        disk.unlink()
        sparse_file(old, MIB)  # the very name that the kernel shows now
        with pytest.raises(NoLoopError, match="is not the file behind"):
            found(device)


def test_other_devices_are_no_loop_devices() -> None:
    with pytest.raises(NoLoopError, match="/dev/null is on no loop device, so there is no file to clone"):
        find("/dev/null", os.stat("/dev/null").st_rdev)


def test_loop_device_without_a_file_is_said_so(disk: Path) -> None:
    with loop_device(disk) as device:
        rdev = os.stat(device).st_rdev
    with pytest.raises(NoLoopError, match="has no backing file: the loop device is not attached"):
        find(device, rdev)
