"""Views of whole disks: every partition by its own file system."""

from __future__ import annotations

from pathlib import Path

import pytest

from foreign import mkntfs, ntfs_put, run_quietly, sfdisk
from loops import sparse_file
from sources import BytesReader
from vsssnap import ExtentKind, Snapshot, UnusedPolicy, open_device
from vsssnap.errors import DeviceReadError
from vsssnap.testing import MemoryReader, check_reader
from vsssnap.volumes import Partitions, filesystem, view_of

MIB = 1 << 20


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """NTFS with a page file, ext4, and a partition with something unknown; noise in every free block."""
    folder = tmp_path_factory.mktemp("disk")
    windows = mkntfs(folder / "ntfs", 4 * MIB)
    ntfs_put(windows, b"page" * 100_000, "pagefile.sys", folder)
    ntfs_put(windows, b"data" * 100_000, "kept.bin", folder)
    linux = sparse_file(folder / "ext4", 4 * MIB)
    run_quietly("mke2fs", "-F", "-q", "-t", "ext4", linux)
    path = sparse_file(folder / "disk", 16 * MIB)
    sfdisk(path, "label: gpt\nstart=2048,size=8192\nstart=10240,size=8192\n4: start=20480,size=2048\n")
    content = bytearray(path.read_bytes())
    for at, volume in ((MIB, windows), (5 * MIB, linux)):
        raw = bytearray(volume.read_bytes())
        with open_device(volume) as reader:
            fs = filesystem(reader)
            assert fs is not None
            for each in fs.allocation():
                if each.kind is ExtentKind.HOLE:
                    raw[each.offset : each.end] = b"\xee" * each.length
        content[at : at + len(raw)] = raw
    content[10 * MIB : 11 * MIB] = b"\xdd" * MIB
    content[15 * MIB : 15 * MIB + 512] = b"\xcc" * 512  # between the partitions
    return bytes(content)


def expected(disk: bytes) -> bytes:
    """The disk with zeros for what the file systems of its partitions leave out."""
    reader = MemoryReader(disk)
    whole = bytearray(disk)
    for number in (1, 2):
        part = Partitions(reader)[number]
        fs = filesystem(part.open())
        assert fs is not None
        whole[part.offset : part.end] = fs.view().pread(part.length, 0)
    return bytes(whole)


def test_a_disk_is_viewed_partition_by_partition(disk: bytes) -> None:
    view = view_of(MemoryReader(disk))
    content = view.pread(len(disk), 0)
    assert content == expected(disk)
    assert b"\xee" * 512 not in content
    assert b"page" * 1000 not in content
    assert b"data" * 99_000 in content
    assert content[10 * MIB : 11 * MIB] == b"\xdd" * MIB
    assert content[15 * MIB : 15 * MIB + 512] == b"\xcc" * 512
    assert content[:MIB] == disk[:MIB]
    assert content[-33 * 512 :] == disk[-33 * 512 :]
    assert view.metadata.exclusions == ("partition 1: \\pagefile.sys",)
    notes = "\n".join(view.metadata.notes)
    assert "partition 1: blocks that the ntfs file system calls free are left out" in notes
    assert "partition 2: blocks that the ext4 file system calls free are left out" in notes
    assert "partition 4: every block is kept" in notes
    check_reader(lambda: view_of(MemoryReader(disk)), content)


def test_a_snapshot_of_a_disk_leaves_out_the_same(disk: bytes, tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(disk)
    with Snapshot(path, provider="static") as s, s.open() as reader:
        assert reader.pread(len(disk), 0) == expected(disk)
        found = {each.kind for each in reader.extents()}
        assert found >= {ExtentKind.HOLE, ExtentKind.EXCLUDED, ExtentKind.DATA}
        with s.open(unused=UnusedPolicy.READ, exclude=()) as everything:
            assert everything.pread(len(disk), 0) == disk


def test_a_disk_that_cannot_be_taken_apart_is_kept(disk: bytes) -> None:
    broken = bytearray(disk)
    broken[512 + 60] ^= 1
    broken[-512 + 60] ^= 1
    for content in (bytes(broken), disk[: 10 * MIB + 512], disk[:1000]):
        view = view_of(MemoryReader(content))
        assert view.pread(len(content), 0) == content
        assert "every block is kept" in view.metadata.notes[-1]


def test_a_view_closes_and_asks_what_it_should(disk: bytes) -> None:
    source = BytesReader(disk, origins=("/dev/x",))
    view = view_of(source)
    assert view.origins == ("/dev/x",)
    view.confirm()
    assert source.confirmed == 1
    view.close()
    assert not source.closed
    view_of(source, owned=True).close()
    assert source.closed


def test_a_sector_of_a_table_that_cannot_be_read_is_an_error(disk: bytes) -> None:
    with pytest.raises(DeviceReadError):
        view_of(BytesReader(disk, bad=[(512, 512)]))
