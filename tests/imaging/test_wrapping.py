"""A volume in a disk format becomes the only partition of a disk, and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from foreign import assert_sound, mkntfs, ntfs_put, run_quietly, sfdisk, sfdisk_table
from loops import fused, sparse_file
from requirements import require_lab
from sources import BytesReader, noise
from vsssnap import (
    CopyReport,
    DiskReader,
    Extent,
    ImageMetadata,
    Snapshot,
    as_disk,
    from_disk,
    new_disk_id,
    open_device,
    open_image,
    restore_image,
    save_image,
)
from vsssnap.errors import CorruptImageError, UsageError
from vsssnap.formats.vhdx import VhdxOptions
from vsssnap.volumes import Partitions

MIB = 1 << 20
DISKS = ["vhd", "vhdx", "vmdk"]


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NTFS with a file; its size is an odd number of sectors."""
    folder = tmp_path_factory.mktemp("ntfs")
    made = mkntfs(folder / "volume.img", 8 * MIB + 512)
    ntfs_put(made, b"hello" * 100_000, "hello.txt", folder)
    return made


def save(volume: Path, image: Path, **given: object) -> CopyReport:
    with open_device(volume) as reader:
        return save_image(reader, image, **given)  # type: ignore[arg-type]


def as_raw(image: Path, raw: Path) -> Path:
    """What another program reads in an image."""
    run_quietly("qemu-img", "convert", "-O", "raw", image, raw)
    return raw


@pytest.mark.parametrize("suffix", DISKS)
def test_a_volume_is_the_partition_of_a_sound_disk_and_is_restored(
    suffix: str, volume: Path, tmp_path: Path
) -> None:
    image = tmp_path / f"c.{suffix}"
    report = save(volume, image)
    assert report.wrapped
    raw = as_raw(image, tmp_path / "other.raw")
    assert report.size == raw.stat().st_size
    assert_sound(raw)
    (entry,) = sfdisk_table(raw)["partitions"]
    start = entry["start"] * 512
    content = volume.read_bytes()
    assert raw.read_bytes()[start : start + len(content)] == content
    restored = restore_image(image, tmp_path / "back.raw")
    assert restored.size == len(content)
    assert (tmp_path / "back.raw").read_bytes() == content
    # No side-car and another program in between: the table itself says what it is.
    restore_image(raw, tmp_path / "again.raw")
    assert (tmp_path / "again.raw").read_bytes() == content
    restore_image(image, tmp_path / "disk.raw", unwrap=False)
    assert (tmp_path / "disk.raw").read_bytes() == raw.read_bytes()


@pytest.mark.lab
@pytest.mark.parametrize("suffix", DISKS)
def test_the_partition_is_mounted(suffix: str, volume: Path, tmp_path: Path) -> None:
    require_lab("losetup", "ntfs-3g", "qemu-img", file_systems=("fuseblk",))
    save(volume, tmp_path / f"c.{suffix}")
    raw = as_raw(tmp_path / f"c.{suffix}", tmp_path / "other.raw")
    (entry,) = sfdisk_table(raw)["partitions"]
    part = entry["start"] * 512, entry["size"] * 512
    with fused("ntfs-3g", raw, tmp_path / "mount", part=part) as mount:
        assert (mount / "hello.txt").read_bytes() == b"hello" * 100_000


@pytest.mark.parametrize("suffix", DISKS)
def test_a_disk_stays_as_it_is(suffix: str, volume: Path, tmp_path: Path) -> None:
    disk = sparse_file(tmp_path / "disk", 12 * MIB)
    sfdisk(disk, "label: dos\nstart=2048,size=17000,type=7\n")
    expected = bytearray(disk.read_bytes())
    content = volume.read_bytes()
    expected[MIB : MIB + len(content)] = content
    with open_device(disk) as base, open_device(volume) as part:
        report = save_image(DiskReader(base, {1: part}), tmp_path / f"d.{suffix}")
    assert not report.wrapped
    assert as_raw(tmp_path / f"d.{suffix}", tmp_path / "other.raw").read_bytes() == expected


@pytest.mark.parametrize("suffix", DISKS)
def test_bytes_that_are_no_volume_and_volumes_by_request_stay_bare(
    suffix: str, volume: Path, tmp_path: Path
) -> None:
    assert not save_image(BytesReader(noise(MIB)), tmp_path / f"noise.{suffix}").wrapped
    assert not save(volume, tmp_path / f"bare.{suffix}", wrap=False).wrapped
    with open_image(tmp_path / f"bare.{suffix}") as image:
        assert image.pread(8 * MIB + 512, 0) == volume.read_bytes()
    restore_image(tmp_path / f"bare.{suffix}", tmp_path / "back.raw")
    assert (tmp_path / "back.raw").read_bytes() == volume.read_bytes()


@pytest.mark.parametrize("suffix", ["vsnap", "raw", "qcow2"])
def test_other_formats_hold_the_bare_volume_unless_told(suffix: str, volume: Path, tmp_path: Path) -> None:
    assert not save(volume, tmp_path / f"c.{suffix}").wrapped
    assert save(volume, tmp_path / f"d.{suffix}", wrap=True).wrapped
    restore_image(tmp_path / f"d.{suffix}", tmp_path / "back.img")
    assert (tmp_path / "back.img").read_bytes() == volume.read_bytes()


def test_the_volume_of_a_snapshot_is_a_volume_whatever_is_on_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(noise(MIB))
    with Snapshot(source) as s:
        assert save_image(s.open(), tmp_path / "c.vhdx").wrapped
    # The same when it was saved as something else before.
    with Snapshot(source) as s:
        save_image(s.open(), tmp_path / "c.vsnap")
    with open_image(tmp_path / "c.vsnap") as image:
        assert save_image(image, tmp_path / "d.vhdx").wrapped
    restore_image(tmp_path / "d.vhdx", tmp_path / "back.raw")
    assert (tmp_path / "back.raw").read_bytes() == source.read_bytes()


def test_metadata_speak_of_the_disk_and_no_more_when_it_is_gone(volume: Path, tmp_path: Path) -> None:
    given = ImageMetadata(volume="C:", user={"job": 7})
    save(volume, tmp_path / "c.vhdx", metadata=given, options=VhdxOptions(sidecar=True))
    with open_image(tmp_path / "c.vhdx") as image:
        assert (image.metadata.volume, image.metadata.user) == ("C:", {"job": 7})
        assert image.metadata.notes == ("the volume was wrapped into a disk with one partition",)
        assert from_disk(image).metadata == given
        save_image(image, tmp_path / "d.vsnap")
    with open_image(tmp_path / "d.vsnap") as image:
        assert from_disk(image).pread(9 * MIB, 0) == volume.read_bytes()


def test_sectors_are_those_that_the_image_shows(volume: Path, tmp_path: Path) -> None:
    save(volume, tmp_path / "c.vhdx", options=VhdxOptions(logical_sector_size=4096))
    with open_image(tmp_path / "c.vhdx") as image:
        table = Partitions(image)
        assert (image.sector_size, table.sector_size, table[1].offset) == (4096, 4096, MIB)
        assert from_disk(image).pread(9 * MIB, 0) == volume.read_bytes()
    with pytest.raises(UsageError, match="512 or 4096"):
        as_disk(BytesReader(b"x"), sector_size=1024)


def test_new_ids_go_on_saying_what_the_disk_is(volume: Path, tmp_path: Path) -> None:
    save(volume, tmp_path / "c.vhdx")
    with open_image(tmp_path / "c.vhdx") as image:
        save_image(new_disk_id(image), tmp_path / "d.vhd")
    with open_image(tmp_path / "c.vhdx") as old, open_image(tmp_path / "d.vhd") as new:
        assert Partitions(old).disk_id != Partitions(new).disk_id
        assert from_disk(new).pread(9 * MIB, 0) == volume.read_bytes()


def test_a_partition_of_another_id_is_not_taken_for_a_wrapped_volume(volume: Path) -> None:
    with open_device(volume) as reader:
        disk = as_disk(reader)
        content = bytearray(disk.pread(disk.size, 0))
    plain = BytesReader(bytes(content))
    assert from_disk(plain).size == volume.stat().st_size
    table = Partitions(plain)
    assert table[1].id is not None
    own = content.replace(table[1].id.bytes_le, bytes(range(16)))
    other = BytesReader(bytes(own))
    assert from_disk(other) is other  # its checksums are wrong now, so that there is no table


@pytest.mark.parametrize("suffix", ["vhd", "vhdx", "vsnap"])
def test_an_increment_is_the_same_disk(suffix: str, volume: Path, tmp_path: Path) -> None:
    first, second = tmp_path / f"1.{suffix}", tmp_path / f"2.{suffix}"
    save(volume, first, wrap=True)
    changed = bytearray(volume.read_bytes())
    changed[5 * MIB : 5 * MIB + 4096] = noise(4096)
    source = BytesReader(bytes(changed))
    with open_image(first) as parent:
        save_image(source, second, parent=parent, changes=[Extent(5 * MIB, 4096)], wrap=True)
        assert sum(length for _, length in source.reads) < 5 * MIB
        ids = Partitions(parent).disk_id, Partitions(parent)[1].id
    with open_image(second) as child:
        table = Partitions(child)
        assert (table.disk_id, table[1].id, table.notes) == (*ids, ())
    restore_image(second, tmp_path / "back.raw")
    assert (tmp_path / "back.raw").read_bytes() == changed


def test_an_increment_is_wrapped_as_its_parent_is(volume: Path, tmp_path: Path) -> None:
    save(volume, tmp_path / "1.vhd")
    changed = tmp_path / "changed.img"
    changed.write_bytes(volume.read_bytes()[: 5 * MIB] + noise(4096) + volume.read_bytes()[5 * MIB + 4096 :])
    with open_image(tmp_path / "1.vhd") as parent:
        assert save(changed, tmp_path / "2.vhd", parent=parent).wrapped
    restore_image(tmp_path / "2.vhd", tmp_path / "back.raw")
    assert (tmp_path / "back.raw").read_bytes() == changed.read_bytes()


def test_an_increment_of_a_bare_volume_is_bare(volume: Path, tmp_path: Path) -> None:
    save(volume, tmp_path / "1.vhdx", wrap=False)
    with open_image(tmp_path / "1.vhdx") as parent:
        assert not save(volume, tmp_path / "2.vhdx", parent=parent).wrapped


def test_a_volume_that_was_resized_has_no_increment(volume: Path, tmp_path: Path) -> None:
    save(volume, tmp_path / "1.vhdx")
    larger = BytesReader(volume.read_bytes() + bytes(512))
    with open_image(tmp_path / "1.vhdx") as parent:
        with pytest.raises(UsageError, match="8389632 bytes, that in the parent 8389120"):
            save_image(larger, tmp_path / "2.vhdx", parent=parent)
        with pytest.raises(UsageError, match="not in a volume of 8389120"):
            save_image(
                BytesReader(volume.read_bytes()),
                tmp_path / "2.vhdx",
                parent=parent,
                changes=[Extent(8 * MIB, 1024)],
            )
    assert not (tmp_path / "2.vhdx").exists()


def test_a_disk_that_was_changed_is_restored_only_as_it_is(volume: Path, tmp_path: Path) -> None:
    with open_device(volume) as reader:
        disk = as_disk(reader)
        content, said = disk.pread(disk.size, 0), disk.metadata
    other = BytesReader(bytes(MIB) + content[MIB:], metadata=said)
    with pytest.raises(CorruptImageError, match="not where the metadata say") as caught:
        restore_image(other, tmp_path / "back.raw")
    assert "unwrap=False" in caught.value.hint
    assert restore_image(other, tmp_path / "back.raw", unwrap=False).size == len(content)
