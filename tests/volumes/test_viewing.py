"""Views of whole disks: every partition by its own file system."""

from __future__ import annotations

from pathlib import Path

import pytest

from foreign import mkntfs, ntfs_put, run_quietly, sfdisk
from loops import sparse_file
from sources import BytesReader
from vsssnap import ExtentKind, OnReadError, Snapshot, UnusedPolicy, open_device, open_image, save_image
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


def test_a_disk_whose_table_cannot_be_read_is_kept_whole(disk: bytes) -> None:
    view = view_of(BytesReader(disk, bad=[(512, 512)]))
    assert view.pread(len(disk) - 1024, 1024) == disk[1024:]
    assert "every block is kept" in view.metadata.notes[-1]
    with pytest.raises(DeviceReadError):
        view.pread(1, 512)


@pytest.mark.parametrize("bad", [1024, 0], ids=["superblock", "first sector"])
def test_a_volume_whose_own_blocks_fail_is_kept_whole(tmp_path: Path, bad: int) -> None:
    # Who images a failing disk wants what can be read of it, not an error about its file system.
    path = sparse_file(tmp_path / "ext4", 4 * MIB)
    run_quietly("mke2fs", "-F", "-q", "-t", "ext4", path)
    data = path.read_bytes()
    source = BytesReader(data, bad=[(bad, 512)])
    report = save_image(view_of(source), tmp_path / "a.vsnap", on_read_error=OnReadError.MARK)
    assert [(extent.offset, extent.length) for extent in report.unreadable] == [(bad, 512)]
    with open_image(tmp_path / "a.vsnap") as image:
        assert image.pread(len(data) - 2048, 2048) == data[2048:]
        assert any("cannot be read" in note for note in image.metadata.notes)


def test_what_a_map_cannot_tell_is_kept(tmp_path: Path) -> None:
    path = sparse_file(tmp_path / "ext4", 64 * MIB)
    run_quietly("mke2fs", "-F", "-q", "-t", "ext4", "-b", "4096", "-g", "1024", path)
    data = path.read_bytes()
    told = run_quietly("dumpe2fs", path)
    bitmap = int(told.split("Group 1:")[1].split("Block bitmap at ")[1].split()[0].rstrip(",")) * 4096
    used = [e for e in view_of(BytesReader(data)).extents() if e.kind is ExtentKind.DATA]
    view = view_of(BytesReader(data, bad=[(bitmap, 512)]))
    kept = list(view.extents())
    first, end = 1024 * 4096, 2048 * 4096  # group 1
    assert all(e.kind is ExtentKind.DATA for e in kept if e.end > first and e.offset < end)
    assert all(
        any(k.offset <= e.offset and e.end <= k.end for k in kept if k.kind is ExtentKind.DATA) for e in used
    )
