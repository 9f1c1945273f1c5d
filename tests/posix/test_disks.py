"""What lies on a disk, told from a made-up sysfs: what needs LVM, RAID or encryption to be real."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vsssnap._placed import PlacedVolume
from vsssnap._posix import disks, mounts, topology
from vsssnap.errors import DeviceReadError, UsageError

DISK = os.makedev(8, 0)
SIZE = 4096  # sectors of each partition


class Machine:
    """A disk ``sda`` in a folder that stands for /sys."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top = top
        self.held: dict[int, tuple[str, ...]] = {}
        self.table = b""
        (top / "sda").mkdir(parents=True)
        (top / "sda" / "dev").write_text("8:0\n")
        monkeypatch.setattr(topology, "sysfs", self.folder)
        monkeypatch.setattr(topology, "system_name", lambda rdev: self.folder(rdev).name)
        monkeypatch.setattr(
            topology, "shown_as", lambda rdev: "is used as swap" if rdev == 8 << 8 | 9 else ""
        )
        monkeypatch.setattr(mounts, "holders", lambda rdev: self.held.get(rdev, ()))
        monkeypatch.setattr(mounts, "read", lambda: mounts.parse(self.table))
        monkeypatch.setattr(disks, "CLASS_BLOCK", top)

    def folder(self, rdev: int) -> Path:
        number = os.minor(rdev)
        return self.top / "sda" / f"sda{number}" if number else self.top / "sda"

    def partition(self, number: int, *held: str) -> None:
        here = self.folder(os.makedev(8, number))
        here.mkdir()
        values = {"partition": number, "dev": f"8:{number}", "start": number * SIZE, "size": SIZE}
        for name, value in values.items():
            (here / name).write_text(f"{value}\n")
        self.held[os.makedev(8, number)] = held

    def stacked(
        self, name: str, *below: str, uuid: str = "", called: str = "", raid: bool = False, minor: int = 0
    ) -> None:
        (self.top / name / "slaves").mkdir(parents=True)
        for each in below:
            (self.top / name / "slaves" / each).mkdir()
        if uuid:
            (self.top / name / "dm").mkdir()
            (self.top / name / "dm" / "uuid").write_text(uuid + "\n")
            (self.top / name / "dm" / "name").write_text(called + "\n")
        if raid:
            (self.top / name / "md").mkdir()
        (self.top / name / "dev").write_text(f"253:{minor}\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path / "sys", monkeypatch)


def only() -> PlacedVolume:
    (found,) = disks.volumes_of(DISK)
    return found


def test_a_mounted_partition_is_a_volume_and_an_unused_one_is_idle(machine: Machine) -> None:
    machine.partition(2)
    machine.partition(1)
    machine.table = b"36 35 8:1 / /boot rw - ext4 /dev/sda1 rw\n"
    assert disks.volumes_of(DISK) == [
        PlacedVolume(offset=SIZE * 512, length=SIZE * 512, name="/dev/sda1"),
        PlacedVolume(offset=2 * SIZE * 512, length=SIZE * 512, name="/dev/sda2", idle=True),
    ]


@pytest.mark.parametrize(
    ("uuid", "words"),
    [
        (
            "CRYPT-LUKS2-1",
            "is under the encrypted volume /dev/mapper/vg-root, whose snapshot is not what is below it",
        ),
        ("mpath-1", "is under the multipath device /dev/mapper/vg-root, "),
        ("other", "is under the device /dev/mapper/vg-root, "),
    ],
)
def test_what_lies_under_a_mapped_device_has_no_volume_of_its_own(
    machine: Machine, uuid: str, words: str
) -> None:
    machine.partition(1, "dm-0")
    machine.stacked("dm-0", "sda1", uuid=uuid, called="vg-root")
    assert only().reason.startswith(words)
    assert not only().idle


def test_a_partition_under_lvm_alone_is_told_from_one_under_others_too(machine: Machine) -> None:
    machine.partition(1, "dm-0", "dm-1")
    machine.stacked("dm-0", "sda1", uuid="LVM-abcdef", called="vg-root")
    machine.stacked("dm-1", "sda1", uuid="LVM-ghijkl-cow", called="vg-before-cow")
    assert only() == PlacedVolume(offset=SIZE * 512, length=SIZE * 512, name="/dev/sda1", logical=True)
    machine.stacked("dm-2", "sda1", uuid="CRYPT-PLAIN-x", called="secret")
    machine.held[os.makedev(8, 1)] = ("dm-0", "dm-2")
    assert not only().logical
    assert "the encrypted volume /dev/mapper/secret" in only().reason


def test_a_disk_without_partitions_may_be_under_lvm_itself(machine: Machine) -> None:
    (machine.top / "sda" / "size").write_text("8192\n")
    assert disks.volumes_of(DISK) == []
    machine.stacked("dm-0", "sda", uuid="LVM-abcdef", called="vg-root")
    machine.held[DISK] = ("dm-0",)
    assert only() == PlacedVolume(offset=0, length=8192 * 512, name="/dev/sda", logical=True)
    machine.stacked("dm-1", "sda", uuid="CRYPT-LUKS2-1", called="secret")
    machine.held[DISK] = ("dm-1",)
    assert disks.volumes_of(DISK) == []


def test_logical_volumes_are_found_by_their_ids(machine: Machine) -> None:
    machine.stacked("dm-0", "sda1", uuid="LVM-one", called="vg-root", minor=0)
    machine.stacked("dm-1", "sda1", uuid="LVM-two", called="vg-idle", minor=1)
    machine.stacked("dm-2", "sda1", uuid="LVM-three", called="vg-luks", minor=2)
    machine.stacked("dm-3", "dm-2", uuid="CRYPT-LUKS2-1", called="secret", minor=3)
    machine.held[os.makedev(253, 2)] = ("dm-3",)
    machine.table = b"36 35 253:0 / /mnt rw - ext4 /dev/mapper/vg-root rw\n"
    found = disks.mapped_volumes()
    assert sorted(found) == ["one", "three", "two"]
    assert (found["one"].name, found["one"].idle, found["one"].reason) == ("/dev/dm-0", False, "")
    assert (found["two"].idle, found["two"].reason) == (True, "")
    assert not found["three"].idle
    assert "the encrypted volume /dev/mapper/secret" in found["three"].reason


def test_volumes_that_span_disks_are_named_with_them(machine: Machine) -> None:
    machine.partition(1, "md127", "dm-3")
    machine.stacked("md127", "sda1", "sdb1", raid=True)
    machine.stacked("dm-3", "sda1", "sdc", uuid="LVM-x", called="vg-data")
    assert only().reason == (
        "is under the RAID /dev/md127, which spans sda1, sdb1 and the logical volume /dev/mapper/vg-data,"
        " which spans sda1, sdc, whose snapshot is not what is below it"
    )


def test_a_device_may_have_a_name_in_any_coding(machine: Machine) -> None:
    machine.partition(1, "dm-0")
    machine.stacked("dm-0", "sda1", uuid="CRYPT-PLAIN-x", called="secret")
    (machine.top / "dm-0" / "dm" / "name").write_bytes(b"gr\xf6\xdfe\n")
    assert "the encrypted volume /dev/mapper/gr" in only().reason
    (machine.top / "dm-0" / "dm" / "uuid").write_bytes(b"\xff-1\n")
    assert "the device /dev/mapper/gr" in only().reason
    assert disks.mapped_volumes() == {}


def test_swap_is_neither_idle_nor_a_volume(machine: Machine) -> None:
    machine.partition(9)
    assert (only().idle, only().reason) == (False, "is used as swap")


def test_what_is_no_disk_is_refused(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="no block device"):
        disks.volumes_on(str(tmp_path / "file"))
    with pytest.raises(DeviceReadError):
        disks.volumes_on(str(tmp_path / "nothing"))
    machine.partition(1)
    (machine.folder(os.makedev(8, 1)) / "start").write_text("gone")
    with pytest.raises(DeviceReadError, match="went away"):
        only()
