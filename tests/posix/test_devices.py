"""Opening block devices and files as sources and targets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from loops import loop_device, make_file_system, mounted, run, sparse_file
from requirements import require_lab
from vsssnap._posix import devices
from vsssnap.errors import (
    DeviceReadError,
    SnapshotBusyError,
    SnapshotPermissionError,
    TargetError,
    TargetRefusedError,
    UsageError,
)

MIB = 1 << 20


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[str]:
    """A loop device of 8 MiB."""
    require_lab("losetup")
    with loop_device(sparse_file(tmp_path / "disk.img", 8 * MIB)) as name:
        yield name


@pytest.fixture
def partitioned(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A loop device with one partition from 1 MiB on, and the partition."""
    require_lab("losetup", "addpart", "delpart")
    with loop_device(sparse_file(tmp_path / "disk.img", 16 * MIB), partitions=True) as name:
        run("addpart", name, "1", "2048", str(14 * 2048))  # in sectors; not every kernel reads tables
        try:
            yield name, f"{name}p1"
        finally:
            run("delpart", name, "1")


# Sources.


def test_file_is_opened_with_its_size(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 777)
    opened = devices.open_source(path)
    os.close(opened.fd)
    assert (opened.kind, opened.size, opened.sector_size, opened.path) == ("file", 777, 512, str(path))


def test_descriptor_is_not_inherited(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    opened = devices.open_source(tmp_path / "file")
    inherited = os.get_inheritable(opened.fd)
    os.close(opened.fd)
    assert not inherited


def test_two_names_of_one_file_have_one_identity(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    assert devices.identify(tmp_path / "file") == devices.identify(tmp_path / "link")


def test_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceReadError, match=r"there is no .*/nothing.*error 2.*check the name"):
        devices.open_source(tmp_path / "nothing")


def test_null_byte_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="is no path"):
        devices.open_source("a\0b")


def test_folder_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DeviceReadError, match=r"is a folder.*name the device that holds it"):
        devices.open_source(tmp_path)


def test_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DeviceReadError, match="is a FIFO"):
        devices.open_source(tmp_path / "fifo")


def test_character_device_is_refused() -> None:
    with pytest.raises(DeviceReadError, match="/dev/null is a character device"):
        devices.open_source("/dev/null")


def test_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(DeviceReadError, match="is a socket"):
            devices.open_source(tmp_path / "socket")


def test_missing_right_names_group_and_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # root may read everything
    with pytest.raises(SnapshotPermissionError, match=r"may not be read.*error 13.*run as root"):
        devices.open_source(tmp_path / "file")


@pytest.mark.lab
def test_device_has_its_size_and_number(loop: str) -> None:
    opened = devices.open_source(loop)
    os.close(opened.fd)
    assert (opened.kind, opened.size, opened.sector_size) == ("block", 8 * MIB, 512)
    assert opened.rdev == os.stat(loop).st_rdev


@pytest.mark.lab
def test_device_has_its_logical_sector_size(tmp_path: Path) -> None:
    require_lab("losetup")
    with loop_device(sparse_file(tmp_path / "disk.img", MIB), sector_size=4096) as name:
        opened = devices.open_source(name)
        os.close(opened.fd)
    assert opened.sector_size == 4096


@pytest.mark.lab
def test_exclusive_source_keeps_a_second_one_out(loop: str) -> None:
    opened = devices.open_source(loop, exclusive=True)
    try:
        with pytest.raises(SnapshotBusyError, match=r"is held by the system or another program.*error 16"):
            devices.open_source(loop, exclusive=True)
    finally:
        os.close(opened.fd)


@pytest.mark.lab
def test_device_without_medium_is_no_source(tmp_path: Path) -> None:
    require_lab("losetup")
    remedy = pytest.raises(DeviceReadError, match=r"/dev/loop\d+ has 0 bytes.*put a medium in")
    with loop_device(sparse_file(tmp_path / "disk.img", 0)) as name, remedy:
        devices.open_source(name)


# Targets.


def refusal(path: str | Path) -> str:
    """The message with which a target is refused."""
    with pytest.raises(TargetRefusedError) as caught:
        devices.open_target(path)
    assert caught.value.path == str(path)
    return str(caught.value)


def test_file_is_no_target_device(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is not a block device" in refusal(tmp_path / "file")


def test_missing_target_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"nothing cannot be opened.*check the name"):
        devices.open_target(tmp_path / "nothing")


@pytest.mark.lab
def test_free_device_is_held_exclusively(loop: str) -> None:
    opened = devices.open_target(loop)
    try:
        assert "is held by another program" in refusal(loop)
    finally:
        os.close(opened.fd)


@pytest.mark.lab
def test_device_is_free_again_after_a_refusal_and_a_close(loop: str) -> None:
    first = devices.open_target(loop)
    refusal(loop)
    os.close(first.fd)
    os.close(devices.open_target(loop).fd)


@pytest.mark.lab
def test_mounted_device_is_refused_with_its_mount_point(loop: str, tmp_path: Path) -> None:
    require_lab("mkfs.ext4")
    make_file_system("ext4", loop)
    with mounted(loop, tmp_path / "here"):
        assert f"{loop} is mounted at {tmp_path / 'here'}" in refusal(loop)


@pytest.mark.lab
def test_disk_of_a_mounted_partition_is_refused(partitioned: tuple[str, str], tmp_path: Path) -> None:
    require_lab("mkfs.ext4")
    disk, partition = partitioned
    make_file_system("ext4", partition)
    with mounted(partition, tmp_path / "here"):
        name = Path(partition).name
        assert f"has a partition, {name}, that is mounted at {tmp_path / 'here'}" in refusal(disk)


@pytest.mark.lab
def test_partition_beside_a_mounted_one_can_be_written(partitioned: tuple[str, str], tmp_path: Path) -> None:
    require_lab("mkfs.ext4")
    disk, partition = partitioned
    make_file_system("ext4", partition)
    run("addpart", disk, "2", str(15 * 2048), "1024")
    try:
        with mounted(partition, tmp_path / "here"):
            os.close(devices.open_target(f"{disk}p2").fd)
    finally:
        run("delpart", disk, "2")


@pytest.mark.lab
def test_swap_is_refused(loop: str) -> None:
    require_lab("mkswap", "swapon", "swapoff")
    run("mkswap", loop)
    run("swapon", loop)
    try:
        assert "is used as swap" in refusal(loop)
    finally:
        run("swapoff", loop)


@pytest.mark.lab
def test_device_behind_a_loop_device_is_refused(loop: str) -> None:
    with loop_device(Path(loop)) as upper:
        assert f"is what {upper} shows" in refusal(loop)


@pytest.mark.lab
def test_read_only_device_is_refused(tmp_path: Path) -> None:
    require_lab("losetup")
    with loop_device(sparse_file(tmp_path / "disk.img", MIB), readonly=True) as name:
        assert "is read-only" in refusal(name)


@pytest.mark.lab
def test_file_behind_a_loop_device_is_refused(loop: str, tmp_path: Path) -> None:
    with pytest.raises(TargetRefusedError, match=f"is what {loop} shows"):
        devices.open_target(tmp_path / "disk.img", files=True)


# Zeros.


@pytest.mark.lab
@pytest.mark.parametrize(
    ("offset", "length"), [(0, 8 * MIB), (512, 1024), (1, 1), (100, 5000), (MIB - 1, 2 * MIB + 2), (5, 0)]
)
def test_only_the_range_becomes_zeros(loop: str, offset: int, length: int) -> None:
    opened = devices.open_target(loop)
    try:
        expected = bytearray(b"\xa5" * (8 * MIB))
        os.pwrite(opened.fd, expected, 0)
        devices.zero_out(opened.fd, offset, length)
        expected[offset : offset + length] = bytes(length)
        assert os.pread(opened.fd, 8 * MIB, 0) == expected
    finally:
        os.close(opened.fd)


def test_zeros_are_written_where_there_is_no_command_for_them(tmp_path: Path) -> None:
    path = tmp_path / "file"  # BLKZEROOUT is for block devices: ENOTTY
    path.write_bytes(b"\xa5" * (3 * MIB))
    with path.open("r+b") as file:
        devices.zero_out(file.fileno(), 10, 2 * MIB)
    assert path.read_bytes() == b"\xa5" * 10 + bytes(2 * MIB) + b"\xa5" * (MIB - 10)
