r"""A disk of Windows is taken apart and put together again, on a fake machine.

The partition table is sfdisk's.  The bytes of the disk between the partitions and those of the volumes
are apart on the fake machine, which is how a snapshot's blocks are told from those of the live disk.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foreign import sfdisk
from loops import sparse_file
from sources import noise
from vsssnap import DiskSnapshot, Snapshot, Uncovered, open_image, save_image
from vsssnap._win32 import disks, dll
from vsssnap.errors import SnapshotError, SnapshotPermissionError, UsageError
from vsssnap.testing.fake_vss import FakeVss
from vsssnap.volumes import Partitions

MIB = 1 << 20
DISK = r"\\.\PhysicalDrive1"
PLACES = [(MIB, MIB), (2 * MIB, 2 * MIB), (4 * MIB, MIB)]
MSR = "E3C9E316-0B5C-4DB8-817D-F92DF00215AE"


@pytest.fixture
def machine(fake_vss: FakeVss, tmp_path: Path) -> FakeVss:
    """A disk with the partition of Microsoft, C: and a third one."""
    table = sparse_file(tmp_path / "table", 8 * MIB)
    starts = "\n".join(f"start={at // 512},size={count // 512},type={MSR}" for at, count in PLACES)
    sfdisk(table, f"label: gpt\n{starts}\n")
    fake_vss.add_disk(0)
    disk = fake_vss.add_disk(1, size=8 * MIB)
    disk.data[:] = table.read_bytes()
    disk.data[MIB : MIB + 9] = b"reserved!"
    disk.data[2 * MIB : 2 * MIB + 9] = b"live disk"
    disk.partitions = tuple(PLACES)
    fake_vss.add_volume("C:\\", size=2 * MIB, data=noise(MIB), disk=(1, 2 * MIB))
    fake_vss.add_volume("X:\\", size=MIB, data=b"other disk", disk=(0, MIB))
    return fake_vss


def test_volumes_are_found_by_their_places(machine: FakeVss) -> None:
    d = machine.add_volume("D:\\", size=MIB, disk=(1, 4 * MIB))
    c = machine.volumes[0]
    found = [
        (one.offset, one.length, one.name, one.idle, one.reason) for one in disks.volumes_on(machine, DISK)
    ]
    assert found == [
        (MIB, MIB, "", True, ""),
        (2 * MIB, 2 * MIB, c.guid_path, False, ""),
        (4 * MIB, MIB, d.guid_path, False, ""),
    ]


def test_a_disk_in_use_is_imaged_at_one_instant(machine: FakeVss, tmp_path: Path) -> None:
    d = machine.add_volume("D:\\", size=MIB, data=b"second volume", disk=(1, 4 * MIB))
    c = machine.volumes[0]
    with DiskSnapshot(DISK) as s:
        assert dict(s.volumes) == {2: c.guid_path, 3: d.guid_path}
        c.pwrite(b"written later", 0)
        save_image(s.open(), tmp_path / "disk.vsnap")
    machine.check()
    with open_image(tmp_path / "disk.vsnap") as image:
        table = Partitions(image)
        assert len(table) == 3
        assert table[1].open().pread(9, 0) == b"reserved!"  # nobody uses it: as the disk has it
        assert table[2].open().pread(MIB, 0) == noise(MIB)
        assert table[3].open().pread(13, 0) == b"second volume"
        assert image.metadata.volume == DISK
        assert image.metadata.provider == "vss"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"more": ((0, 3 * MIB, MIB),)}, r"is a piece of .*, which lies in 2 pieces on the disks 0, 1"),
        ({"more": ((1, 6 * MIB, MIB),)}, r"which lies in 2 pieces on the disks 1"),
        ({"filesystem": ""}, "has no file system that Windows knows"),
        ({"disk": (1, 4 * MIB + 512)}, "is not what the system has there"),
    ],
)
def test_what_no_shadow_copy_can_stand_for_is_refused_with_the_reason(
    machine: FakeVss, facts: dict[str, Any], words: str
) -> None:
    given = {"disk": (1, 4 * MIB), **facts}
    machine.add_volume("D:\\", size=MIB - 512 if "disk" in facts else MIB, **given)
    with pytest.raises(UsageError, match=rf"partition 3 .*{words}"):
        DiskSnapshot(DISK).create()
    with DiskSnapshot(DISK, uncovered=Uncovered.LEAVE_OUT) as s, s.open() as reader:
        assert list(s.uncovered) == [3]
        assert Partitions(reader)[2].open().pread(MIB, 0) == noise(MIB)
    machine.check()


def test_a_partition_that_vss_does_not_copy_is_read_as_it_is_if_that_is_said(machine: FakeVss) -> None:
    """The one with FAT that every machine with UEFI starts from."""
    boot = machine.add_volume("S:\\", size=MIB, filesystem="FAT32", supported=False, disk=(1, 4 * MIB))
    machine.disks[1].data[4 * MIB : 4 * MIB + 4] = b"boot"
    with pytest.raises(UsageError, match=r"partition 3 is .*, which no VSS provider can snapshot"):
        DiskSnapshot(DISK).create()
    with DiskSnapshot(DISK, uncovered=Uncovered.READ) as s, s.open() as reader:
        assert dict(s.volumes) == {2: machine.volumes[0].guid_path}
        assert s.uncovered == {3: f"is {boot.guid_path}, which no VSS provider can snapshot"}
        table = Partitions(reader)
        assert table[2].open().pread(MIB, 0) == noise(MIB)
        assert table[3].open().pread(4, 0) == b"boot"
        assert any("partition 3 was read as it is" in note for note in reader.metadata.notes)
    machine.check()


@pytest.mark.parametrize("call", ["CreateVssBackupComponents", "IsVolumeSupported"])
def test_a_vss_that_cannot_be_asked_leaves_no_partition_out(machine: FakeVss, call: str) -> None:
    machine.add_volume("S:\\", size=MIB, filesystem="FAT32", supported=False, disk=(1, 4 * MIB))
    machine.faults.fail(call, 0x80070005, times=9)
    with pytest.raises(SnapshotPermissionError):
        DiskSnapshot(DISK, uncovered=Uncovered.READ).create()
    machine.check()


def test_the_command_takes_such_a_disk_apart(
    machine: FakeVss, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vsssnap.cli.app import run

    d = machine.add_volume("D:\\", size=MIB, disk=(1, 4 * MIB))
    with pytest.raises(SystemExit) as ended:
        run(["save", DISK, str(tmp_path / "disk.vsnap")])
    said = capsys.readouterr()
    assert not ended.value.code, said
    assert f"{machine.volumes[0].guid_path}, {d.guid_path} by vss" in said.out + said.err
    with open_image(tmp_path / "disk.vsnap") as image:
        assert Partitions(image)[2].open().pread(MIB, 0) == noise(MIB)
    machine.check()


def test_what_is_no_disk_is_refused(machine: FakeVss) -> None:
    with pytest.raises(UsageError, match="is no disk"):
        DiskSnapshot("C:").create()
    with pytest.raises(SnapshotError, match="does not say what is on it"):
        DiskSnapshot(r"\\.\PhysicalDrive7").create()
    for call in ("IOCTL_DISK_GET_DRIVE_LAYOUT_EX", "IOCTL_STORAGE_GET_DEVICE_NUMBER"):
        machine.faults.fail(call, code=5)
        with pytest.raises(SnapshotError, match=call):
            DiskSnapshot(DISK).create()
    assert dll.current() is machine
    machine.check()


@pytest.mark.parametrize("encrypted", [True, False])
def test_the_image_says_whether_bitlocker_encrypts_the_volume(machine: FakeVss, encrypted: bool) -> None:
    """The volume is read decrypted; only the disk beneath it tells."""
    begin = b"\xeb\x58\x90-FVE-FS-" if encrypted else b"\xeb\x52\x90NTFS    "
    machine.disks[1].data[2 * MIB : 2 * MIB + len(begin)] = begin
    with Snapshot("C:") as s, s.open() as reader:
        (shadow,) = json.loads(reader.metadata.documents["vss/shadow-copies.json"])
    assert shadow["bitlocker"] is encrypted
    machine.check()
