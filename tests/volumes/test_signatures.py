from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from foreign import free_of, mkntfs, run_quietly
from loops import sparse_file
from requirements import require_program
from vsssnap import ExtentKind, open_device
from vsssnap.testing import MemoryReader
from vsssnap.volumes import filesystem

MIB = 1 << 20


@pytest.fixture(scope="module")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    volume = sparse_file(tmp_path_factory.mktemp("ext4") / "v.img", 16 * MIB)
    run_quietly("mke2fs", "-F", "-q", "-t", "ext4", volume)
    assert free_of(volume)
    return volume.read_bytes()


def old_map(content: bytes) -> str:
    """The doubt about what is found; nothing may be left out."""
    fs = filesystem(MemoryReader(content))
    assert fs is not None
    assert [each.kind for each in fs.allocation()] == [ExtentKind.DATA]
    assert fs.view().pread(len(content), 0) == content
    return fs.doubt


@pytest.mark.parametrize("script", ["label: dos\nstart=2048\n", "label: gpt\nstart=2048\n"])
def test_an_old_ext4_under_a_partition_table_leaves_nothing_out(
    script: str, ext4: bytes, tmp_path: Path
) -> None:
    """A partition table has nothing where the super block lies, and need not erase it."""
    disk = tmp_path / "disk"
    disk.write_bytes(ext4)
    subprocess.run(
        [require_program("sfdisk"), "--no-reread", "--no-tell-kernel", "--wipe", "never", str(disk)],
        input=script,
        check=True,
        capture_output=True,
        text=True,
    )
    content = disk.read_bytes()
    if "gpt" in script:
        # The entries of a GPT lie over the super block: it is not found, or not alone.
        with open_device(disk) as reader:
            fs = filesystem(reader)
        assert fs is None or fs.doubt
    else:
        assert content[1080:1082] == b"\x53\xef"
        assert old_map(content) == "the volume seems to hold a partition table too"


def test_an_old_ntfs_under_a_partition_table_leaves_nothing_out(tmp_path: Path) -> None:
    """Fdisk leaves the boot code before the table as it is, and with it the name of NTFS."""
    content = bytearray(mkntfs(tmp_path / "v", 16 * MIB).read_bytes())
    content[446:510] = (
        b"\x80\0\0\0\x83\0\0\0" + (2048).to_bytes(4, "little") + (8192).to_bytes(4, "little") + bytes(48)
    )
    assert content[3:7] == b"NTFS"
    assert old_map(bytes(content)) == "the volume seems to hold a partition table too"


@pytest.mark.parametrize(
    ("place", "magic", "name"),
    [
        (0, b"LUKS\xba\xbe", "LUKS"),
        (512, b"LABELONE", "LVM"),
        (4096, b"\xfc\x4e\x2b\xa9", "Linux RAID"),
        (4086, b"SWAPSPACE2", "swap"),
        (65536 + 64, b"_BHRfS_M", "Btrfs"),
        (128 * 1024 + 5 * 1024, b"\x0c\xb1\xba\0\0\0\0\0", "ZFS"),
        (8192 + 0x55C, b"\x19\x01\x54\x19", "UFS"),
        (3, b"-FVE-FS-", "BitLocker"),
    ],
)
def test_an_old_ext4_under_something_else_leaves_nothing_out(
    place: int, magic: bytes, name: str, ext4: bytes
) -> None:
    content = bytearray(ext4)
    content[place : place + len(magic)] = magic
    assert name in old_map(bytes(content))


@pytest.mark.parametrize(("tool", "kind"), [("mkfs.xfs", "XFS"), ("mkfs.btrfs", "Btrfs"), ("mkswap", "swap")])
def test_what_is_made_over_an_old_ext4_is_not_taken_for_it(
    tool: str, kind: str, ext4: bytes, tmp_path: Path
) -> None:
    volume = tmp_path / "v"
    volume.write_bytes(ext4)
    with volume.open("r+b") as file:
        file.truncate(320 * MIB)
    force = [] if tool == "mkswap" else ["-f"]
    run_quietly(tool, *force, volume)
    content = bytearray(volume.read_bytes()[: 16 * MIB])
    content[1024:2048] = ext4[1024:2048]  # and if its super block had survived
    fs = filesystem(MemoryReader(bytes(content)))
    assert fs is not None
    assert kind in fs.doubt


def test_two_file_systems_at_once_leave_nothing_out(ext4: bytes, tmp_path: Path) -> None:
    """FAT32 reserves sectors that it does not use, and an old super block may lie in them."""
    volume = sparse_file(tmp_path / "v", 64 * MIB)
    run_quietly("mkfs.fat", "-F", "32", volume)
    content = bytearray(volume.read_bytes())
    content[1024:2048] = ext4[1024:2048]
    fs = filesystem(MemoryReader(bytes(content)))
    assert fs is not None
    assert (fs.name, fs.doubt) == ("fat32", "the volume seems to hold ext4 too")
