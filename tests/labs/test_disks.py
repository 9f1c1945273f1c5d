"""A disk in use is taken apart, snapshotted and put together again."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import said as vsssnap
from foreign import assert_sound, run_quietly, sfdisk, sfdisk_table
from loops import file_system, loop_device, make_file_system, mounted, partition, run, sparse_file
from requirements import require_lab
from sources import noise
from vsssnap import (
    Consistency,
    DiskSnapshot,
    Snapshot,
    Uncovered,
    open_image,
    restore_image,
    save_image,
)
from vsssnap.errors import ConsistencyError, SnapshotLostError, SourceChangedError, UsageError
from vsssnap.volumes import Partitions

pytestmark = pytest.mark.lab

MIB = 1 << 20
PARTITIONS = [(2048, 32768), (34816, 8192), (43008, 8192)]  # first sector and count
SCRIPT = "label: gpt\n" + "".join(f"start={first},size={count}\n" for first, count in PARTITIONS)


@pytest.fixture(scope="module")
def store() -> Iterator[Path]:
    """A folder on XFS, where files can be cloned."""
    require_lab("losetup", "mkfs.xfs", "mkfs.ext4", "sfdisk", "addpart", file_systems=("xfs", "ext4"))
    with (
        tempfile.TemporaryDirectory(prefix="vsssnap-disks-") as name,
        file_system("xfs", Path(name), 400 * MIB) as (mount, _),
    ):
        yield mount


@pytest.fixture
def disk(store: Path) -> Iterator[str]:
    """A loop device with three partitions: ext4, something nobody uses, and a third one."""
    backing = sparse_file(store / "disk.img", 32 * MIB)
    sfdisk(backing, SCRIPT)
    with backing.open("r+b") as file:
        file.seek(512 * 1024)
        file.write(b"a boot loader between table and partitions")
        file.seek(34816 * 512)
        file.write(noise(4 * MIB, seed=2))
    with loop_device(backing, partitions=True) as device, contextlib.ExitStack() as stack:
        for number, (first, count) in enumerate(PARTITIONS, 1):
            stack.enter_context(partition(device, number, first, count))
        make_file_system("ext4", f"{device}p1")
        yield device
    backing.unlink()


def part_of(image: Path, number: int, target: Path) -> Path:
    """A partition of an image, by its place in the table, in a file of its own."""
    first, count = PARTITIONS[number - 1]
    with image.open("rb") as file:
        file.seek(first * 512)
        target.write_bytes(file.read(count * 512))
    return target


def run_bytes(*command: str) -> bytes:
    return subprocess.run(command, capture_output=True, check=True).stdout


def test_a_disk_in_use_is_imaged_at_one_instant(disk: str, tmp_path: Path) -> None:
    with mounted(f"{disk}p1", tmp_path / "mnt") as mount:
        (mount / "file").write_text("before")
        with DiskSnapshot(disk, require=Consistency.FILESYSTEM) as s:
            assert dict(s.volumes) == {1: f"{disk}p1", 2: f"{disk}p2", 3: f"{disk}p3"}
            assert not s.uncovered
            assert s.snapshot is not None
            assert list(s.snapshot.volumes) == [f"{disk}p1"]
            (mount / "file").write_text("after!")
            run("sync", "-f", mount)
            with s.open() as reader:
                report = save_image(reader, tmp_path / "server.vhdx")
            assert not report.wrapped
            assert report.data < 20 * MIB  # without the free blocks of ext4
            save_image(s.open(), tmp_path / "server.vsnap")
    with open_image(tmp_path / "server.vsnap") as saved:
        said = saved.metadata
        assert (said.volume, said.provider, said.consistency) == (disk, "reflink", Consistency.FILESYSTEM)
        assert any(note.startswith("partition 2: ") for note in said.notes)
        assert len(Partitions(saved)) == 3
    run_quietly("qemu-img", "convert", "-O", "raw", tmp_path / "server.vhdx", tmp_path / "other.raw")
    restore_image(tmp_path / "server.vsnap", tmp_path / "ours.raw")
    for image in (tmp_path / "other.raw", tmp_path / "ours.raw"):
        assert_sound(image)
        with image.open("rb") as file:
            file.seek(512 * 1024)
            assert file.read(13) == b"a boot loader"
        root = part_of(image, 1, tmp_path / "root")
        run_quietly("e2fsck", "-fn", root)
        with loop_device(root) as device, mounted(device, tmp_path / "restored") as mount:
            assert (mount / "file").read_text() == "before"
        assert part_of(image, 2, tmp_path / "idle").read_bytes() == noise(4 * MIB, seed=2)


def test_a_logical_partition_of_an_mbr_is_imaged_at_one_instant(store: Path, tmp_path: Path) -> None:
    backing = sparse_file(store / "mbr.img", 16 * MIB)
    sfdisk(backing, "label: dos\nstart=2048,size=4096\nstart=8192,type=extended\nstart=10240,size=20480\n")
    with (
        loop_device(backing, partitions=True) as device,
        partition(device, 1, 2048, 4096),
        partition(device, 2, 8192, 2),  # as much as Linux shows of an extended one
        partition(device, 5, 10240, 20480),
    ):
        make_file_system("ext4", f"{device}p5")
        with mounted(f"{device}p5", tmp_path / "mnt") as mount:
            (mount / "file").write_text("before")
            with DiskSnapshot(device) as s:
                assert dict(s.volumes) == {1: f"{device}p1", 5: f"{device}p5"}
                (mount / "file").write_text("after!")
                run("sync", "-f", mount)
                save_image(s.open(), tmp_path / "mbr.vhdx")
    run_quietly("qemu-img", "convert", "-O", "raw", tmp_path / "mbr.vhdx", tmp_path / "mbr.raw")
    assert sfdisk_table(tmp_path / "mbr.raw")["partitions"][-1]["start"] == 10240
    root = tmp_path / "root"
    with (tmp_path / "mbr.raw").open("rb") as file:
        file.seek(10240 * 512)
        root.write_bytes(file.read(20480 * 512))
    run_quietly("e2fsck", "-fn", root)
    assert run("debugfs", "-R", "cat file", root) == "before"


def test_a_write_to_a_partition_that_nobody_used_is_an_error(disk: str, tmp_path: Path) -> None:
    with mounted(f"{disk}p1", tmp_path / "mnt"), DiskSnapshot(disk) as s:
        run("dd", "if=/dev/urandom", f"of={disk}p2", "bs=4096", "count=1", "oflag=direct", "status=none")
        with pytest.raises((SourceChangedError, SnapshotLostError)):
            save_image(s.open(), tmp_path / "torn.vsnap")
    assert not list(tmp_path.glob("torn*"))


def test_what_no_snapshot_can_stand_for_is_refused_with_the_reason(disk: str, tmp_path: Path) -> None:
    with mounted(f"{disk}p1", tmp_path / "mnt"), loop_device(Path(f"{disk}p3")) as shown:
        with pytest.raises(UsageError, match=f"partition 3 is what {shown} shows") as caught:
            DiskSnapshot(disk).create()
        assert "Uncovered.READ" in caught.value.hint
        with DiskSnapshot(disk, uncovered=Uncovered.LEAVE_OUT) as s:
            assert list(s.volumes) == [1, 2]
            assert s.uncovered == {3: f"is what {shown} shows"}
            report = save_image(s.open(), tmp_path / "d.vsnap")
            assert report.excluded == 4 * MIB
        run("dd", "if=/dev/urandom", f"of={disk}p3", "bs=4096", "count=1", "oflag=direct", "status=none")
        with DiskSnapshot(disk, uncovered=Uncovered.READ) as s, s.open() as reader:
            third = Partitions(reader)[3].open()
            assert third.pread(4096, 0) == run_bytes("head", "-c", "4096", f"{disk}p3")
            assert f"partition 3 was read as it is: it is what {shown} shows" in reader.metadata.notes


def test_a_file_system_over_two_partitions_is_refused(disk: str, tmp_path: Path) -> None:
    require_lab("mkfs.btrfs", file_systems=("btrfs",))
    with contextlib.ExitStack() as stack:
        first, second = (
            stack.enter_context(loop_device(sparse_file(tmp_path / name, 128 * MIB), partitions=True))
            for name in "ab"
        )
        for each in (first, second):
            sfdisk(each, "label: gpt\nstart=2048\n")
            count = int(run("sfdisk", "--dump", each).split("size=")[1].split(",")[0])
            stack.enter_context(partition(each, 1, 2048, count))
        run("mkfs.btrfs", "-q", f"{first}p1", f"{second}p1")
        run("btrfs", "device", "scan", f"{first}p1", f"{second}p1")
        with mounted(f"{first}p1", tmp_path / "mnt"), pytest.raises(UsageError, match="spans loop"):
            DiskSnapshot(second).create()


def test_a_partition_that_the_system_does_not_know_needs_a_word(disk: str) -> None:
    run("delpart", disk, "3")
    try:
        with pytest.raises(UsageError, match="partition 3 is not known to the system"):
            DiskSnapshot(disk).create()
    finally:
        run("addpart", disk, "3", "43008", "8192")


def test_what_is_no_disk_is_refused_and_nothing_is_held(disk: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"is a partition of {disk}"):
        DiskSnapshot(f"{disk}p1").create()
    with pytest.raises(ConsistencyError, match="no partition is mounted"):
        DiskSnapshot(disk, require=Consistency.FILESYSTEM).create()
    # Nobody holds the partitions any more.
    with Snapshot(f"{disk}p2", provider="static"):
        pass
    with DiskSnapshot(disk) as s:
        reader = s.open()
        assert s.snapshot is None
    with pytest.raises(ValueError, match="closed"):
        reader.pread(1, 34816 * 512)
    with pytest.raises(ValueError, match="not taken"):
        s.open()


def test_the_command_saves_a_disk_in_use(disk: str, tmp_path: Path) -> None:
    with mounted(f"{disk}p1", tmp_path / "mnt") as mount, loop_device(Path(f"{disk}p3")):
        (mount / "file").write_text("kept")
        said = vsssnap("save", disk, tmp_path / "d.vhdx", status=2)
        assert "partition 3 is what" in said
        assert "--uncovered" in said
        said = vsssnap("save", disk, tmp_path / "d.vhdx", "--uncovered", "leave-out")
        assert f"snapshot of {disk}p1, {disk}p2 by reflink" in said
        assert "partition 3 is left out" in said
        assert "which is being imaged" not in said
        inside = mount / "d.vsnap"
        said = vsssnap("save", disk, inside, "--uncovered", "leave-out")
        assert f"{inside} lies on {disk}p1, which is being imaged" in said
    with open_image(tmp_path / "d.vhdx") as image:
        assert len(Partitions(image)) == 3
