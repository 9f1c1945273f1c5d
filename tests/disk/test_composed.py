from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from foreign import assert_sound, corpus_file, mkntfs, ntfs_put, sfdisk, sfdisk_table
from loops import fused, loop_device, sparse_file
from requirements import require_lab
from sources import BytesReader, noise
from vsssnap import (
    DiskReader,
    ExtentKind,
    ImageMetadata,
    Uncovered,
    as_disk,
    from_disk,
    new_disk_id,
    open_device,
    open_image,
    restore_image,
    save_image,
)
from vsssnap.blocks.extent import Extent
from vsssnap.errors import CorruptImageError, UnknownFormatError, UsageError
from vsssnap.testing import MemoryReader, check_reader
from vsssnap.volumes import Partitions

MIB = 1 << 20
BASIC_DATA = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
LINUX_DATA = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"


@pytest.mark.parametrize("size", [4 * MIB, 4 * MIB + 512, 1, 0, 3 * MIB + 77])
def test_a_wrapped_volume_is_a_sound_disk_and_comes_back(size: int, tmp_path: Path) -> None:
    content = noise(size)
    disk = as_disk(MemoryReader(content), name="data")
    image = tmp_path / "disk.raw"
    save_image(disk, image)
    assert disk.size == image.stat().st_size
    assert disk.size % MIB == 0
    assert_sound(image)
    (entry,) = sfdisk_table(image)["partitions"]
    assert (entry["start"], entry["type"], entry["name"]) == (2048, BASIC_DATA, "data")
    assert entry["size"] == max(1, -(-size // 512))
    part = Partitions(disk)[1].open()
    assert part.pread(size, 0) == content
    assert from_disk(disk).pread(size + 1, 0) == content
    assert from_disk(disk).size == size


def test_a_wrapped_volume_keeps_the_contract_and_its_map() -> None:
    content = noise(8 * 4096)
    given = [Extent(0, 4096), Extent(4096, 8192, ExtentKind.HOLE), Extent(12288, 20480)]
    volume = MemoryReader(content, given)
    disk = as_disk(volume, disk_id=UUID(int=1), partition_id=UUID(int=2))
    whole = disk.pread(disk.size, 0)
    assert whole[MIB : MIB + len(content)] == volume.pread(len(content), 0)
    check_reader(
        lambda: as_disk(MemoryReader(content, given), disk_id=UUID(int=1), partition_id=UUID(int=2)), whole
    )
    kinds = dict.fromkeys(ExtentKind, 0)
    for each in disk.extents():
        kinds[each.kind] += each.length
    assert kinds[ExtentKind.HOLE] == 8192
    assert kinds[ExtentKind.DATA] < len(content) + 40 * 1024


@pytest.mark.parametrize(
    ("name", "kind"), [("ext4", LINUX_DATA), ("ntfs", BASIC_DATA), ("fat12", BASIC_DATA)]
)
def test_the_partition_has_the_type_of_its_file_system(name: str, kind: str, tmp_path: Path) -> None:
    with open_device(corpus_file(f"dfvfs/{name}.raw", tmp_path)) as volume:
        assert Partitions(as_disk(volume))[1].type == UUID(kind)


def test_an_image_of_a_wrapped_volume_says_so_and_is_undone(tmp_path: Path) -> None:
    content = noise(MIB + 512)
    source = BytesReader(content, metadata=ImageMetadata(volume="C:"), origins=("/dev/c",))
    disk = as_disk(source)
    assert disk.origins == ("/dev/c",)
    image, copy = tmp_path / "c.vsnap", tmp_path / "copy.raw"
    save_image(disk, image)
    assert source.confirmed == 1
    with open_image(image) as saved:
        assert saved.metadata.volume == "C:"
        assert "wrapped into a disk" in saved.metadata.notes[-1]
        volume = from_disk(saved)
        assert volume.pread(volume.size, 0) == content
        assert volume.metadata.documents == {}
        restored = new_disk_id(saved)
        assert from_disk(restored).pread(len(content), 0) == content
    save_image(source, tmp_path / "plain.vsnap")
    with open_image(tmp_path / "plain.vsnap") as plain:
        assert from_disk(plain) is plain
        restore_image(plain, copy)
    assert copy.read_bytes() == content


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b"{}",
        b'{"offset": 0, "length": 1, "disk": "00000000-0000-0000-0000-000000000001"}',
        b'{"offset": 1048576, "length": 1e99, "disk": "00000000-0000-0000-0000-000000000001"}',
        b'{"offset": 1048576, "length": -1, "disk": "00000000-0000-0000-0000-000000000001"}',
        b'{"offset": 1048576, "length": 4097, "disk": "00000000-0000-0000-0000-000000000001"}',
        b'{"offset": 1048576, "length": 4096, "disk": "00000000-0000-0000-0000-000000000002"}',
        b'{"offset": 1048576, "length": 4096, "disk": 7}',
    ],
)
def test_metadata_that_do_not_fit_the_disk_are_an_error(said: bytes) -> None:
    disk = as_disk(MemoryReader(noise(4096)), disk_id=UUID(int=1))
    content = disk.pread(disk.size, 0)
    wrong = MemoryReader(content, metadata=ImageMetadata(documents={"wrapped-volume.json": said}))
    with pytest.raises(CorruptImageError, match="not where the metadata say"):
        from_disk(wrong)


def test_closing_a_wrapped_volume_closes_what_it_owns() -> None:
    kept, owned = MemoryReader(bytes(512)), MemoryReader(bytes(512))
    as_disk(kept).close()
    as_disk(owned, owned=True).close()
    assert (kept.closed, owned.closed) == (False, True)


def test_a_name_that_does_not_fit_is_refused() -> None:
    assert Partitions(as_disk(MemoryReader(b"x"), name="n" * 36))[1].name == "n" * 36
    with pytest.raises(UsageError, match="36 characters"):
        as_disk(MemoryReader(b"x"), name="n" * 37)


@pytest.mark.lab
def test_a_wrapped_volume_can_be_mounted(tmp_path: Path) -> None:
    """Also on a disk with sectors of 4096 bytes."""
    require_lab("losetup", "ntfs-3g", "mkntfs", file_systems=("fuseblk",))
    for sector in (512, 4096):
        folder = tmp_path / str(sector)
        folder.mkdir()
        volume = mkntfs(folder / "volume", 16 * MIB, "-s", str(sector))
        ntfs_put(volume, b"hello" * 1000, "hello.txt", folder)
        image = folder / "disk.raw"
        with open_device(volume) as reader:
            reader.sector_size = sector
            save_image(as_disk(reader), image)
        with loop_device(image, sector_size=sector) as device:
            assert_sound(device)
            (entry,) = sfdisk_table(device)["partitions"]
        part = entry["start"] * sector, entry["size"] * sector
        with fused("ntfs-3g", image, folder / "mount", sector_size=sector, part=part) as mount:
            assert (mount / "hello.txt").read_bytes() == b"hello" * 1000


# New ids.


def disk_of(folder: Path, script: str) -> Path:
    disk = sparse_file(folder / "disk.img", 4 * MIB)
    sfdisk(disk, script)
    with disk.open("r+b") as file:
        file.seek(MIB + (64 << 10))  # behind the extended boot record
        file.write(noise(MIB - (64 << 10)))
    return disk


GPT = "label: gpt\nfirst-lba: 64\nstart=64,size=960,name=a\nstart=2048,size=2048,name=b\n"
MBR = "label: dos\nstart=64,size=960,type=7\nstart=2048,size=2048,type=5\nstart=2112,size=512,type=83\n"


def test_a_gpt_gets_new_guids_everywhere_and_nothing_else_changes(tmp_path: Path) -> None:
    path = disk_of(tmp_path, GPT)
    copy = tmp_path / "copy.raw"
    with open_device(path) as disk:
        save_image(new_disk_id(disk), copy)
        before, after = Partitions(disk), Partitions(open_device(copy))
    assert_sound(copy)
    assert after.notes == ()
    assert after.disk_id != before.disk_id
    assert len({each.id for each in (*before, *after)}) == 4
    assert [(p.offset, p.length, p.type, p.name) for p in before] == [
        (p.offset, p.length, p.type, p.name) for p in after
    ]
    old, new = path.read_bytes(), copy.read_bytes()
    differing = {at // 512 for at in range(len(old)) if old[at] != new[at]}
    assert differing == {1, 2, 8192 - 33, 8192 - 1}


def test_an_mbr_gets_a_new_signature_and_nothing_else_changes(tmp_path: Path) -> None:
    path = disk_of(tmp_path, MBR)
    with open_device(path) as disk:
        new = new_disk_id(disk)
        assert Partitions(new).disk_id != Partitions(disk).disk_id
        old = path.read_bytes()
        assert new.pread(440, 0) == old[:440]
        assert new.pread(len(old), 444) == old[444:]


def test_a_damaged_table_gets_no_new_ids(tmp_path: Path) -> None:
    content = bytearray(disk_of(tmp_path, GPT).read_bytes())
    content[-400] ^= 1
    content[-512 + 60] ^= 1
    with pytest.raises(CorruptImageError):
        new_disk_id(MemoryReader(bytes(content)))
    with pytest.raises(UnknownFormatError):
        new_disk_id(MemoryReader(bytes(4096)))


# Disks of several readers.


@pytest.mark.parametrize("script", [GPT, MBR])
def test_a_disk_is_composed_of_its_partitions_readers(script: str, tmp_path: Path) -> None:
    path = disk_of(tmp_path, script)
    old = path.read_bytes()
    with open_device(path) as disk:
        table = [each for each in Partitions(disk) if not each.extended]
        readers = {
            each.number: BytesReader(noise(each.length, seed=each.number), origins=(f"/dev/p{each.number}",))
            for each in table
        }
        expected = bytearray(old)
        for each in table:
            expected[each.offset : each.end] = readers[each.number].pread(each.length, 0)
        whole = DiskReader(disk, readers)
        assert whole.pread(whole.size, 0) == expected
        assert list(Partitions(whole))[-1].open().pread(16, 0) == readers[table[-1].number].pread(16, 0)
        assert set(whole.origins) == {str(path), *(f"/dev/p{each.number}" for each in table)}
        whole.confirm()
        assert [reader.confirmed for reader in readers.values()] == [1] * len(readers)
        check_reader(lambda: DiskReader(open_device(path), readers), bytes(expected))


def test_a_reader_may_end_before_its_partition(tmp_path: Path) -> None:
    path = disk_of(tmp_path, GPT)
    old = path.read_bytes()
    with open_device(path) as disk:
        whole = DiskReader(disk, {1: MemoryReader(b"\1" * 512), 2: MemoryReader(b"\2" * 1000)})
        expected = bytearray(old)
        expected[64 * 512 : 65 * 512] = b"\1" * 512
        expected[MIB : MIB + 1000] = b"\2" * 1000
        assert whole.pread(len(old), 0) == expected


def test_partitions_without_a_reader_need_a_word(tmp_path: Path) -> None:
    path = disk_of(tmp_path, GPT)
    old = path.read_bytes()
    first = MemoryReader(b"\1" * 512)
    with open_device(path) as disk:
        with pytest.raises(UsageError, match="partition 2 has no reader"):
            DiskReader(disk, {1: first})
        read = DiskReader(disk, {1: first}, uncovered=Uncovered.READ)
        assert read.pread(2 * MIB, MIB) == old[MIB : 3 * MIB]
        out = DiskReader(disk, {1: first}, uncovered=Uncovered.LEAVE_OUT)
        assert out.pread(MIB, MIB) == bytes(MIB)
        assert out.pread(MIB, 2 * MIB) == old[2 * MIB : 3 * MIB]
        assert Extent(MIB, MIB, ExtentKind.EXCLUDED) in list(out.extents())
        assert out.metadata.exclusions == ("partition 2",)


def test_readers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with open_device(disk_of(tmp_path, MBR)) as disk:
        small = MemoryReader(bytes(512))
        with pytest.raises(UsageError, match="partition 9"):
            DiskReader(disk, {9: small})
        with pytest.raises(UsageError, match="only contains others"):
            DiskReader(disk, {2: small})
        with pytest.raises(UsageError, match="has 491521 bytes, it has 491520"):
            DiskReader(disk, {1: MemoryReader(bytes(960 * 512 + 1)), 5: small})
    with pytest.raises(UnknownFormatError):
        DiskReader(MemoryReader(bytes(4096)), {})


def test_a_disk_is_saved_with_its_volumes_used_blocks_alone(tmp_path: Path) -> None:
    """From the table of a real disk and a view of a real file system."""
    from vsssnap.volumes import filesystem

    volume = mkntfs(tmp_path / "volume", 4 * MIB)
    ntfs_put(volume, b"hello" * 1000, "hello.txt", tmp_path)
    disk = sparse_file(tmp_path / "disk", 8 * MIB)
    sfdisk(disk, "label: gpt\nstart=2048,size=8192,type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\n")
    with open_device(disk) as base, open_device(volume) as reader:
        fs = filesystem(reader)
        assert fs is not None
        report = save_image(DiskReader(base, {1: fs.view()}), tmp_path / "disk.vsnap")
    assert report.hole + report.zero > 2 * MIB
    with open_image(tmp_path / "disk.vsnap") as image:
        part = Partitions(image)[1].open()
        again = filesystem(part)
        assert again is not None
        assert again.doubt == ""
        assert b"hello" * 800 in part.pread(part.size, 0)
