"""Restoring to files and devices."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loops import loop_device, make_file_system, mounted, partition, sparse_file
from requirements import require_lab
from sources import BytesReader, Plain, mixed, noise
from vsssnap import OnReadError, open_image, restore_image, save_image
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.blocks.target import DeviceWriter
from vsssnap.errors import (
    CorruptImageError,
    DeviceReadError,
    ImageNotFoundError,
    SnapshotLostError,
    TargetError,
    TargetRefusedError,
)
from vsssnap.imaging import restoring

if TYPE_CHECKING:
    from typing_extensions import Buffer

MIB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.raw"
    save_image(Plain(mixed(5 * MIB + 77)), path)
    return path


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# To a file.


def test_a_file_holds_the_volume(image: Path, tmp_path: Path) -> None:
    report = restore_image(image, tmp_path / "out.raw", verify=True)
    assert (tmp_path / "out.raw").read_bytes() == image.read_bytes()
    assert report.verified
    assert report.size == report.stored == 5 * MIB + 77
    assert "out.raw.vsssnap" not in listing(tmp_path), "a restored volume is no image: it has no side-car"


def test_a_restored_file_is_sparse(tmp_path: Path) -> None:
    restore_image(Plain(bytes(64 * MIB) + b"x"), tmp_path / "out.raw")
    assert (tmp_path / "out.raw").stat().st_blocks * 512 < MIB


def test_an_existing_file_is_kept_unless_replace(image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.raw"
    out.write_text("precious")
    with pytest.raises(TargetRefusedError, match=r"out\.raw exists"):
        restore_image(image, out)
    assert out.read_text() == "precious"
    restore_image(image, out, replace=True)
    assert out.read_bytes() == image.read_bytes()


def test_the_image_itself_is_no_target(image: Path) -> None:
    before = image.read_bytes()
    with pytest.raises(TargetRefusedError, match="is what is being read"):
        restore_image(image, image, replace=True)
    assert image.read_bytes() == before


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFoundError, match="there is no image"):
        restore_image(tmp_path / "none.raw", tmp_path / "out.raw")


def test_an_ancestor_that_is_still_needed_is_not_replaced(tmp_path: Path) -> None:
    """Also where nothing of it was read yet: an index names files that are opened when they are needed."""
    base, child = tmp_path / "base.vsnap", tmp_path / "child.vsnap"
    save_image(Plain(noise(2 * MIB)), base)
    with open_image(base) as parent:
        save_image(Plain(noise(2 * MIB)[:MIB] + bytes(MIB)), child, parent=parent)
    before = base.read_bytes()
    refusal = r"base\.vsnap is what is being read"
    with pytest.raises(TargetRefusedError, match=refusal):
        restore_image(child, base, replace=True)
    with open_image(child) as parent, pytest.raises(TargetRefusedError, match=refusal):
        save_image(Plain(noise(2 * MIB)), base, parent=parent, replace=True)
    assert base.read_bytes() == before


def test_what_is_left_of_an_image_whose_begin_is_lost_is_restored(tmp_path: Path) -> None:
    """Nobody can look then whether it is the disk around a volume."""
    lost = Extent(0, MIB, ExtentKind.UNREADABLE)
    source = BytesReader(bytes(MIB) + noise(MIB), extents=(lost, Extent(MIB, MIB)), bad=[(0, MIB)])
    with pytest.raises(DeviceReadError):
        restore_image(source, tmp_path / "a.raw")
    report = restore_image(source, tmp_path / "a.raw", on_read_error=OnReadError.MARK)
    assert report.unreadable == (lost,)
    assert (tmp_path / "a.raw").read_bytes() == bytes(MIB) + noise(MIB)


def test_damage_that_a_sidecar_knows_of_is_not_restored_or_converted(tmp_path: Path) -> None:
    image = tmp_path / "image.raw"
    save_image(Plain(noise(4 * MIB)), image)
    at = 2 * MIB + 3
    with open(image, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    where = "bytes 2097152 to 2359296 of the volume are not what was saved"
    with pytest.raises(CorruptImageError, match=where):
        restore_image(image, tmp_path / "out.raw", verify=True)
    with open_image(image) as source:
        with pytest.raises(CorruptImageError, match=where):
            save_image(source, tmp_path / "out.vsnap")
        assert listing(tmp_path) == ["image.raw", "image.raw.vsssnap"]
        report = save_image(source, tmp_path / "out.vsnap", on_read_error=OnReadError.MARK)
    lost = Extent(2 * MIB, 256 << 10, ExtentKind.UNREADABLE)
    assert report.unreadable == (lost,)
    with open_image(tmp_path / "out.vsnap") as saved:
        assert [extent for extent in saved.extents() if extent.kind is ExtentKind.UNREADABLE] == [lost]


def test_an_unreadable_range_ends_the_restore_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DeviceReadError):
        restore_image(BytesReader(noise(3 * MIB), bad=[(2 * MIB, 512)]), tmp_path / "out.raw")
    assert listing(tmp_path) == []


def test_a_target_that_forgets_what_it_was_given_is_found_by_verify(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget(fd: int) -> None:
        os.pwrite(fd, b"\xff" * 512, MIB)

    monkeypatch.setattr(restoring, "_drop_cache", forget)
    with pytest.raises(TargetError, match=r"does not hold what was written: 512 bytes differ at 1048576"):
        restore_image(image, tmp_path / "out.raw", verify=True)
    assert "out.raw" not in listing(tmp_path)
    assert "out.raw.partial" not in listing(tmp_path)


# To a device.


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A loop device of 8 MiB full of old bytes."""
    require_lab("losetup")
    backing = tmp_path / "device.img"
    backing.write_bytes(b"\xaa" * (8 * MIB))
    with loop_device(backing) as name:
        yield name


def content(device: str) -> bytes:
    with open(device, "rb") as file:
        return file.read()


@pytest.mark.lab
@pytest.mark.parametrize(
    "size", [0, 1, 511, 4096, MIB, MIB + 1, 2 * MIB, 2 * MIB + 512, 5 * MIB + 77, 8 * MIB]
)
def test_a_device_holds_the_volume_and_keeps_what_lies_behind(device: str, size: int) -> None:
    data = mixed(size, seed=size)
    report = restore_image(Plain(data), device, verify=True)
    assert content(device) == data + b"\xaa" * (8 * MIB - size)
    assert report.verified


@pytest.mark.lab
def test_zeros_are_written_where_the_device_held_something(device: str) -> None:
    kinds = [ExtentKind.ZERO, ExtentKind.HOLE, ExtentKind.EXCLUDED, ExtentKind.ZERO]
    extents = [Extent(n * 2 * MIB, 2 * MIB, kind) for n, kind in enumerate(kinds)]
    restore_image(BytesReader(bytes(8 * MIB), extents=extents), device)
    assert content(device) == bytes(8 * MIB)


@pytest.mark.lab
def test_a_half_restored_device_looks_like_nothing(device: str) -> None:
    source = BytesReader(noise(6 * MIB), bad=[(4 * MIB, 512)])
    with pytest.raises(DeviceReadError):
        restore_image(source, device)
    now = content(device)
    assert now[:MIB] == bytes(MIB)
    assert now[5 * MIB : 6 * MIB] == bytes(MIB)
    assert now[6 * MIB :] == b"\xaa" * (2 * MIB)


@pytest.mark.lab
def test_both_ends_are_blank_while_the_body_is_written_and_come_last(device: str) -> None:
    data = noise(6 * MIB)
    seen: list[tuple[bool, bool]] = []

    def look(offset: int) -> None:
        now = content(device)
        seen.append((now[:MIB] == bytes(MIB), now[5 * MIB : 6 * MIB] == bytes(MIB)))

    restore_image(BytesReader(data, before_read=look), device)
    first = seen.index((True, True))
    assert set(seen[:first]) <= {(False, False)}  # a look at the source before anything is touched
    assert set(seen[first:]) == {(True, True)}
    assert content(device)[: 6 * MIB] == data


@pytest.mark.lab
def test_a_lost_source_leaves_a_blank_device(device: str) -> None:
    with pytest.raises(SnapshotLostError):
        restore_image(BytesReader(noise(6 * MIB), lost_after=0), device)
    assert content(device)[:MIB] == bytes(MIB)


@pytest.mark.lab
def test_a_device_that_is_too_small_is_refused_untouched(device: str) -> None:
    with pytest.raises(
        TargetRefusedError, match=rf"{device} has {8 * MIB} bytes, the image needs {8 * MIB + 1}"
    ):
        restore_image(Plain(bytes(8 * MIB + 1)), device)
    assert content(device) == b"\xaa" * (8 * MIB)


@pytest.mark.lab
def test_a_device_is_no_target_of_itself(device: str) -> None:
    with pytest.raises(TargetRefusedError, match="is what is being read"):
        restore_image(BytesReader(bytes(8 * MIB), origins=(device,)), device)
    assert content(device) == b"\xaa" * (8 * MIB)


@pytest.mark.lab
def test_a_device_that_shows_the_image_is_no_target(image: Path) -> None:
    require_lab("losetup")
    before = image.read_bytes()
    with (
        loop_device(image) as name,
        pytest.raises(TargetRefusedError, match=rf"{name} lies on .*{image.name}, which is being read"),
    ):
        restore_image(image, name)
    assert image.read_bytes() == before


@pytest.mark.lab
def test_a_disk_is_no_target_of_its_partition_nor_the_other_way_round(tmp_path: Path) -> None:
    require_lab("losetup", "addpart")
    backing = tmp_path / "disk.img"
    backing.write_bytes(b"\xaa" * (8 * MIB))
    with (
        loop_device(backing, partitions=True) as disk,
        partition(disk, 1, 2048, 4096) as first,
        partition(disk, 2, 6144, 4096) as second,
    ):
        for source, target in ((disk, first), (first, disk)):
            with pytest.raises(TargetRefusedError, match=rf"{target} lies on {source}"):
                restore_image(BytesReader(bytes(MIB), origins=(source,)), target)
        assert content(disk) == b"\xaa" * (8 * MIB)
        restore_image(BytesReader(bytes(MIB), origins=(first,)), second)
        assert content(second) == bytes(MIB) + b"\xaa" * MIB


@pytest.mark.lab
def test_a_device_that_fails_at_the_end_looks_like_nothing(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = DeviceWriter.pwrite

    def half(self: DeviceWriter, data: Buffer, offset: int, /) -> int:
        if offset == 0:
            write(self, memoryview(data)[:4096], 0)
            raise TargetError("the device failed", path=device, hint="use another one")
        return write(self, data, offset)

    monkeypatch.setattr(DeviceWriter, "pwrite", half)
    with pytest.raises(TargetError, match="the device failed"):
        restore_image(Plain(noise(6 * MIB)), device)
    now = content(device)
    assert (now[:MIB], now[5 * MIB : 6 * MIB]) == (bytes(MIB), bytes(MIB))


@pytest.mark.lab
def test_a_mounted_device_is_refused_untouched(tmp_path: Path) -> None:
    require_lab("mkfs.ext4")
    with loop_device(sparse_file(tmp_path / "fs.img", 16 * MIB)) as name:
        make_file_system("ext4", name)
        # Read-only: ext4 writes its journal by itself a few seconds after it was mounted.
        with mounted(name, tmp_path / "at", options="ro"):
            before = content(name)
            with pytest.raises(TargetRefusedError, match="mounted"):
                restore_image(Plain(bytes(MIB)), name)
            assert hashlib.sha256(content(name)).digest() == hashlib.sha256(before).digest()


@pytest.mark.lab
def test_a_device_that_somebody_holds_is_refused(device: str) -> None:
    fd = os.open(device, os.O_RDWR | os.O_EXCL)
    try:
        with pytest.raises(TargetRefusedError):
            restore_image(Plain(bytes(MIB)), device)
    finally:
        os.close(fd)
    assert content(device) == b"\xaa" * (8 * MIB)


@pytest.mark.lab
def test_a_read_only_device_is_refused(tmp_path: Path) -> None:
    require_lab("losetup")
    backing = tmp_path / "device.img"
    backing.write_bytes(b"\xaa" * MIB)
    with loop_device(backing, readonly=True) as name, pytest.raises(TargetRefusedError):
        restore_image(Plain(bytes(512)), name)
