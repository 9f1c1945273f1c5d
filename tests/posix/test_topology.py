"""Disks, partitions, and who uses them: asked of the kernel about devices that a lab makes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from loops import loop_device, make_file_system, mounted, partition, run, sparse_file
from requirements import require_lab
from vsssnap._posix import topology

MIB = 1 << 20


@pytest.fixture
def parted(tmp_path: Path) -> Iterator[tuple[str, str, str]]:
    """A loop device with two partitions, and theirs."""
    require_lab("losetup", "addpart", "delpart")
    with (
        loop_device(sparse_file(tmp_path / "disk", 64 * MIB), partitions=True) as device,
        partition(device, 1, 2048, 32_768) as first,
        partition(device, 2, 34_816, 32_768) as second,
    ):
        yield device, first, second


def number(path: str | Path) -> int:
    return os.stat(path).st_rdev


def test_unknown_device_is_named_by_its_numbers() -> None:
    assert topology.system_name(os.makedev(4000, 5)) == "4000:5"
    assert topology.partitions(os.makedev(4000, 5)) == ()
    assert topology.disk_of(os.makedev(4000, 5)) is None


def test_file_that_nobody_uses_is_free(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert topology.usage(os.stat(tmp_path / "file")) == ""


@pytest.mark.lab
def test_disk_and_partitions_know_each_other(parted: tuple[str, str, str]) -> None:
    disk, first, second = map(number, parted)
    assert topology.partitions(disk) == (first, second)
    assert topology.disk_of(first) == topology.disk_of(second) == disk
    assert topology.disk_of(disk) is None
    assert topology.partitions(first) == ()
    assert [topology.system_name(n) for n in (disk, first)] == [os.path.basename(p) for p in parted[:2]]


@pytest.mark.lab
def test_free_device_is_free(parted: tuple[str, str, str]) -> None:
    assert [topology.usage(os.stat(path)) for path in parted] == ["", "", ""]


@pytest.mark.lab
def test_mounted_partition_is_a_use_of_the_disk_and_not_of_its_neighbour(
    parted: tuple[str, str, str], tmp_path: Path
) -> None:
    require_lab("mkfs.ext4", file_systems=("ext4",))
    disk, first, second = parted
    make_file_system("ext4", first)
    with mounted(first, tmp_path / "here"):
        assert topology.usage(os.stat(first)) == f"is mounted at {tmp_path / 'here'}"
        said = topology.usage(os.stat(disk))
        assert said == f"has a partition, {os.path.basename(first)}, that is mounted at {tmp_path / 'here'}"
        assert topology.usage(os.stat(second)) == ""


@pytest.mark.lab
def test_file_behind_a_loop_device_is_in_use(tmp_path: Path) -> None:
    require_lab("losetup")
    disk = sparse_file(tmp_path / "disk", MIB)
    with loop_device(disk) as device:
        assert topology.usage(os.stat(disk)) == f"is what {device} shows"
        with loop_device(Path(device)) as above:
            assert topology.usage(os.stat(device)) == f"is what {above} shows"
    assert topology.usage(os.stat(disk)) == ""


@pytest.mark.lab
def test_swap_is_a_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel's own list; a container may not swap, so the list is given."""
    from vsssnap._posix import mounts

    (tmp_path / "swap").touch()
    monkeypatch.setattr(mounts, "swap_devices", lambda: (mounts.Swap(str(tmp_path / "swap"), "file"),))
    assert topology.usage(os.stat(tmp_path / "swap")) == "is used as swap"


@pytest.mark.lab
@pytest.mark.parametrize("through", ["partition", "disk"])
def test_what_was_written_to_a_neighbour_is_written_out(
    parted: tuple[str, str, str], tmp_path: Path, through: str
) -> None:
    """The kernel caches a disk and its partitions apart; the file behind shows what was written out."""
    disk, first, _ = parted
    path, offset = (first, 4096) if through == "partition" else (disk, 2048 * 512 + 4096)
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, b"written through the " + through.encode(), offset)
        topology.flush_neighbours(number(disk if through == "partition" else first))
        run("sync", "--file-system", tmp_path / "disk")
        with (tmp_path / "disk").open("rb") as file:
            file.seek(2048 * 512 + 4096)
            assert file.read(20) == b"written through the "
    finally:
        os.close(fd)
