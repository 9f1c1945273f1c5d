"""Devices of Windows, on a fake one."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vsssnap import Snapshot, open_device, restore_image, save_image
from vsssnap._win32 import targets
from vsssnap._win32.device_names import device_path, is_disk
from vsssnap.blocks import windows, windows_device
from vsssnap.blocks.target import open_target
from vsssnap.errors import (
    DeviceReadError,
    SnapshotBusyError,
    SnapshotPermissionError,
    TargetError,
    TargetRefusedError,
    VssSnapError,
)
from vsssnap.testing import MemoryReader, check_reader
from vsssnap.testing.fake_vss import FakeVolume, FakeVss

MIB = 1 << 20
CONTENT = random.Random(5).randbytes(3 * MIB)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_device, "_PAUSE", 0.001)
    monkeypatch.setattr(targets, "_PAUSE", 0.001)


@pytest.fixture
def volume(fake_vss: FakeVss) -> FakeVolume:
    return fake_vss.add_volume("E:\\", size=4 * MIB, data=CONTENT)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("C:", r"\\.\C:"),
        ("c:\\", r"\\.\c:"),
        (r"\\.\C:", r"\\.\C:"),
        (r"\\?\C:", r"\\?\C:"),
        (r"\\.\PhysicalDrive12", r"\\.\PhysicalDrive12"),
        ("\\\\?\\Volume{a-b}\\", r"\\?\Volume{a-b}"),
        (
            "\\\\?\\GLOBALROOT\\Device\\HarddiskVolumeShadowCopy3\\",
            r"\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy3",
        ),
        (
            r"\\?\GLOBALROOT\Device\Harddisk0\Partition2",
            r"\\?\GLOBALROOT\Device\Harddisk0\Partition2",
        ),
        (r"\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy3\disk.vhd", None),
        (r"\\?\C:\disk.vhd", None),
        (r"\\server\share", None),
        ("disk.raw", None),
        (r"C:\disk.raw", None),
        ("C:disk.raw", None),
    ],
)
def test_names_of_devices_are_no_names_of_files(name: str, path: str | None) -> None:
    assert device_path(name) == path


def test_whole_disks_are_known_by_name() -> None:
    assert is_disk(r"\\.\physicaldrive0")
    assert is_disk(r"\\?\GLOBALROOT\Device\Harddisk0\DR0")
    assert is_disk(r"\\?\GLOBALROOT\Device\Harddisk0\Partition0")
    assert not is_disk(r"\\?\GLOBALROOT\Device\Harddisk0\Partition1")
    assert not is_disk(r"\\.\C:")


def test_a_volume_is_read_to_the_end_of_its_partition(fake_vss: FakeVss, volume: FakeVolume) -> None:
    for name in ("E:", r"\\.\E:", volume.guid_path):
        with open_device(name) as disk:
            assert (disk.size, disk.sector_size) == (4 * MIB, 512)
            assert disk.pread(2 * MIB + 5, 777) == CONTENT[777 : 2 * MIB + 782]
            assert disk.metadata.volume == name
    fake_vss.check()


def test_a_disk_is_read(fake_vss: FakeVss) -> None:
    disk = fake_vss.add_disk(3, size=MIB, sector_size=4096)
    disk.data[5000:5005] = b"hello"
    with open_device(r"\\.\PhysicalDrive3") as reader:
        assert (reader.size, reader.sector_size) == (MIB, 4096)
        assert reader.pread(5, 5000) == b"hello"
        assert reader.metadata.notes == ()
    fake_vss.check()


def test_what_cannot_be_opened_is_named(fake_vss: FakeVss, volume: FakeVolume) -> None:
    def refused(name: str, wanted: type[VssSnapError], text: str) -> None:
        with pytest.raises(wanted, match=text):
            open_device(name)

    refused("Q:", DeviceReadError, "there is no Q:")
    for code, wanted, text in (
        (5, SnapshotBusyError, "held by another program"),
        (32, SnapshotBusyError, "held by another program"),
        (21, DeviceReadError, "no medium"),
        (1117, DeviceReadError, "cannot be opened"),
    ):
        fake_vss.faults.fail("CreateFileW", code)
        refused("E:", wanted, text)
    fake_vss.elevated = False
    refused("E:", SnapshotPermissionError, "may not be read")
    with pytest.raises(SnapshotPermissionError, match="may not be written"):
        open_target("E:")
    fake_vss.elevated = True
    fake_vss.faults.fail("IOCTL_DISK_GET_LENGTH_INFO", 1)
    refused("E:", DeviceReadError, "no volume or disk")
    fake_vss.add_disk(1, size=0)
    refused(r"\\.\PhysicalDrive1", DeviceReadError, "0 bytes")
    fake_vss.check()


def test_a_device_that_was_taken_away_is_not_searched_for_sectors(
    fake_vss: FakeVss, volume: FakeVolume
) -> None:
    with open_device("E:") as disk:
        fake_vss.bad_sectors(0, 4 * MIB, 1167)
        with pytest.raises(DeviceReadError, match="DEVICE_NOT_CONNECTED") as caught:
            disk.pread(MIB, 0)
    assert caught.value.hint == "the device was taken away"
    assert (caught.value.offset, caught.value.length) == (0, MIB)


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize(
    ("offset", "length"), [(0, 4096), (1, 1), (511, 2), (4095, 5000), (4096, 3), (100, MIB + 7), (MIB, MIB)]
)
def test_any_range_is_written(fake_vss: FakeVss, sector_size: int, offset: int, length: int) -> None:
    volume = fake_vss.add_volume("E:\\", size=4 * MIB, data=CONTENT, sector_size=sector_size)
    data = random.Random(9).randbytes(length)
    with open_target("E:") as writer:
        assert writer.pwrite(data, offset) == length
        writer.flush()
    expected = CONTENT[:offset] + data + CONTENT[offset + length :]
    assert bytes(volume.data) == expected + bytes(MIB)
    fake_vss.check()


def test_threads_that_share_a_sector_lose_nothing(fake_vss: FakeVss) -> None:
    volume = fake_vss.add_volume("E:\\", size=MIB, sector_size=4096)
    with open_target("E:") as writer, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: writer.pwrite(bytes([number % 255 + 1]) * 10, number * 10), range(800)))
    assert bytes(volume.data[:8000]) == b"".join(bytes([number % 255 + 1]) * 10 for number in range(800))


def test_a_volume_is_locked_while_it_is_written(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with open_device("E:", writable=True) as disk:
        assert volume.locked
        disk.write(b"one")
        assert disk.pread(3, 0) == b"one"
        with pytest.raises(TargetRefusedError, match="another program has locked it"):
            open_device("E:", writable=True)
    assert not any(known.locked for known in fake_vss.volumes)
    assert volume.data[:3] == b"one"
    fake_vss.check()


def test_a_volume_in_use_is_refused_by_name(fake_vss: FakeVss, volume: FakeVolume) -> None:
    volume.in_use = True
    with pytest.raises(TargetRefusedError, match="E: is in use") as caught:
        restore_image(MemoryReader(b"x" * MIB), "E:")
    assert "close the programs" in (caught.value.hint or "")
    assert volume.data[: 3 * MIB] == CONTENT, "nothing was touched"
    volume.in_use, volume.readonly = False, True
    with pytest.raises(TargetRefusedError, match="read-only"):
        restore_image(MemoryReader(b"x" * MIB), "E:")
    fake_vss.check()


def test_a_volume_that_is_let_go_meanwhile_is_locked(fake_vss: FakeVss, volume: FakeVolume) -> None:
    fake_vss.faults.fail("FSCTL_LOCK_VOLUME", 5, times=3)
    with open_target("E:"):
        assert volume.locked


@pytest.mark.parametrize("verify", [False, True])
def test_an_image_is_restored_to_a_volume(
    fake_vss: FakeVss, volume: FakeVolume, tmp_path: Path, verify: bool
) -> None:
    save_image(MemoryReader(CONTENT), tmp_path / "image.vsnap")
    volume.data[:] = b"\xff" * len(volume.data)
    report = restore_image(tmp_path / "image.vsnap", r"\\.\E:", verify=verify)
    assert report.verified is verify
    assert bytes(volume.data) == CONTENT + b"\xff" * MIB, "what lies behind the image stays"
    assert not volume.locked
    fake_vss.check()


def test_both_ends_stay_blank_until_all_is_written(fake_vss: FakeVss, volume: FakeVolume) -> None:
    class Breaking(MemoryReader):
        def _read_into(self, view: memoryview, offset: int) -> None:
            if offset >= 2 * MIB:
                raise DeviceReadError("broken", offset=offset, length=len(view))
            super()._read_into(view, offset)

    with pytest.raises(DeviceReadError):
        restore_image(Breaking(b"\x11" * (4 * MIB)), "E:")
    assert not any(volume.data[:MIB])
    assert not any(volume.data[3 * MIB :])
    assert not volume.locked


def test_a_target_that_is_too_small_or_read_from_is_refused(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with pytest.raises(TargetRefusedError, match="the image needs"):
        restore_image(MemoryReader(bytes(5 * MIB)), "E:")
    disk = fake_vss.add_disk(0, size=8 * MIB)
    with Snapshot("E:") as s, s.open() as reader:
        for target in ("E:", r"\\.\PhysicalDrive0"):
            with pytest.raises(TargetRefusedError, match="is what is being read"):
                restore_image(reader, target)
    assert volume.data[: 3 * MIB] == CONTENT
    assert not any(disk.data)
    fake_vss.check()


def test_a_volume_without_a_number_is_known_by_its_name(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with Snapshot("E:") as s, s.open() as reader:
        fake_vss.faults.fail("IOCTL_STORAGE_GET_DEVICE_NUMBER", 1, times=9)  # it lies on several disks
        with pytest.raises(TargetRefusedError, match="is what is being read"):
            restore_image(reader, "e:")


def test_a_volume_that_is_open_elsewhere_is_refused(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with open_device("E:") as disk:
        with pytest.raises(TargetRefusedError, match="FSCTL_LOCK_VOLUME"):
            open_device("E:", writable=True)
        assert disk.pread(10, 0) == CONTENT[:10]
    open_device("E:", writable=True).close()
    fake_vss.check()


def test_a_disk_is_written_with_its_volumes_locked(fake_vss: FakeVss, volume: FakeVolume) -> None:
    disk = fake_vss.add_disk(0, size=8 * MIB)
    fake_vss.add_volume("F:\\", disk=(1, MIB))
    restore_image(MemoryReader(CONTENT), r"\\.\PhysicalDrive0", verify=True)
    assert bytes(disk.data) == CONTENT + bytes(5 * MIB)
    assert disk.updated == 1
    assert not any(known.locked for known in fake_vss.volumes)
    fake_vss.check()


def test_a_disk_with_a_volume_in_use_is_refused_naming_it(fake_vss: FakeVss, volume: FakeVolume) -> None:
    disk = fake_vss.add_disk(0, size=8 * MIB)
    fake_vss.add_volume("G:\\", disk=(0, 6 * MIB))
    volume.in_use = True
    with pytest.raises(TargetRefusedError, match=str(volume.id)):
        restore_image(MemoryReader(CONTENT), r"\\.\PhysicalDrive0")
    assert not any(disk.data)
    assert not any(known.locked for known in fake_vss.volumes)
    fake_vss.check()


def test_a_shadow_copy_is_no_target(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with Snapshot("E:"):
        device = next(iter(fake_vss.shadows.values())).device
        with open_device(device) as reader:
            assert reader.pread(100, 0) == CONTENT[:100]
        with pytest.raises(TargetRefusedError, match="it is a shadow copy"):
            restore_image(MemoryReader(CONTENT), device)


def test_a_failing_target_is_an_error_of_the_target(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with open_target("E:") as writer:
        fake_vss.faults.fail("WriteFile", 1117)
        with pytest.raises(TargetError, match="ERROR_IO_DEVICE"):
            writer.pwrite(bytes(2 * MIB), 0)
        fake_vss.faults.fail("FlushFileBuffers", 1117)
        for _ in range(2):
            with pytest.raises(TargetError, match="to the disk"):
                writer.flush()
    fake_vss.check()


def test_what_is_no_volume_is_no_target(fake_vss: FakeVss, volume: FakeVolume) -> None:
    fake_vss.faults.fail("FSCTL_LOCK_VOLUME", 1)
    with pytest.raises(TargetRefusedError, match="no volume or disk"):
        open_target("E:")
    with pytest.raises(TargetError, match="there is no Q:"):
        open_target("Q:")
    fake_vss.check()


FILES: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: folder / "missing", "there is no"),
    (lambda folder: folder, "is not a block device or a regular file"),
]


@pytest.mark.parametrize(("name", "text"), FILES)
def test_a_file_that_is_none_is_named(name: Callable[[Path], object], text: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceReadError, match=text):
        windows.open_file(str(name(tmp_path)), writable=False)
    with pytest.raises(TargetRefusedError, match=text):
        windows.open_file(str(name(tmp_path)), writable=True)


def test_it_keeps_the_contract_of_readers(fake_vss: FakeVss, volume: FakeVolume) -> None:
    check_reader(lambda: open_device("E:"), bytes(volume.data))
    with open_device("E:") as disk:
        assert disk.origins == (r"\\.\E:",)
