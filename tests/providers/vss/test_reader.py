from __future__ import annotations

import mmap
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import pytest

from vsssnap import Snapshot
from vsssnap._win32 import overlapped, slots
from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import Control
from vsssnap.blocks import windows_device
from vsssnap.blocks.windows import open_path
from vsssnap.errors import DeviceReadError, SnapshotError, SnapshotLostError
from vsssnap.providers.vss.reader import ShadowReader
from vsssnap.testing.fake_vss import FakeVolume, FakeVss

if TYPE_CHECKING:
    from vsssnap._win32.dll import System


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_device, "_PAUSE", 0.001)


@pytest.fixture(params=[512, 4096])
def volume(fake_vss: FakeVss, request: pytest.FixtureRequest) -> FakeVolume:
    data = bytes(number * 37 % 251 for number in range(300_000))
    size = 3 << 20
    return fake_vss.add_volume("C:\\", size=size, data=data, sector_size=request.param)


@pytest.mark.parametrize(
    ("length", "offset"), [(1, 0), (513, 511), (5000, 4095), (1 << 20, 3), (2_500_000, 100)]
)
def test_any_range_is_read_in_aligned_pieces(
    fake_vss: FakeVss, volume: FakeVolume, length: int, offset: int
) -> None:
    with Snapshot("C:") as s, s.open() as disk:
        assert disk.pread(length, offset) == volume.data[offset : offset + length]


def test_aligned_memory_is_read_into_directly(
    fake_vss: FakeVss, volume: FakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Snapshot("C:") as s, s.open() as disk, mmap.mmap(-1, 1 << 20) as memory:
        monkeypatch.setattr(slots.Slot, "room", lambda _: pytest.fail("a copy was made"))
        assert disk.preadinto(memory, 1 << 20) == 1 << 20
        assert memory[:] == volume.data[1 << 20 : 2 << 20]


def test_one_range_is_read_by_several_calls_at_once(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with Snapshot("C:") as s, s.open() as disk:
        fake_vss.most_reads, fake_vss.gathered_reads = 0, overlapped.DEPTH
        assert disk.pread(2 << 20, 100) == volume.data[100 : (2 << 20) + 100]
    assert fake_vss.most_reads == overlapped.DEPTH > 1


def test_threads_read_at_once(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with Snapshot("C:") as s, s.open() as disk, ThreadPoolExecutor(3) as pool:
        fake_vss.most_reads, fake_vss.gathered_reads = 0, 3  # of one call each
        found = list(pool.map(lambda offset: disk.pread(1000, offset), (0, 5000, 100_000)))
    assert found == [volume.data[offset : offset + 1000] for offset in (0, 5000, 100_000)]
    assert fake_vss.most_reads == 3


def test_a_failing_read_waits_for_those_beside_it(fake_vss: FakeVss, volume: FakeVolume) -> None:
    fake_vss.bad_sectors(0, 4096)
    with Snapshot("C:") as s, s.open() as disk, pytest.raises(DeviceReadError):
        disk.pread(1 << 20, 0)
    fake_vss.check()  # it notes calls that were still under way when the handle was closed


def test_short_reads_are_continued(fake_vss: FakeVss, volume: FakeVolume) -> None:
    fake_vss.most_read = 4096
    with Snapshot("C:") as s, s.open() as disk:
        assert disk.pread(100_000, 7) == volume.data[7:100_007]


def test_a_bad_sector_is_named_and_the_rest_is_read(fake_vss: FakeVss, volume: FakeVolume) -> None:
    fake_vss.bad_sectors(8192, 4096)
    with Snapshot("C:") as s, s.open() as disk:
        with pytest.raises(DeviceReadError) as caught:
            disk.pread(4096, 8192)
        assert (caught.value.offset, caught.value.length, caught.value.code) == (8192, 4096, 23)
        assert disk.pread(4096, 4096) == volume.data[4096:8192]
        disk.confirm()


def test_a_read_that_fails_once_is_tried_again(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with Snapshot("C:") as s, s.open() as disk:
        fake_vss.faults.fail("ReadFile", 1117, times=2)
        assert disk.pread(100, 0) == volume.data[:100]


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(windows_device, "time", found)
    return found


def test_a_read_is_tried_three_times_with_a_pause_between(
    fake_vss: FakeVss, volume: FakeVolume, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows_device, "_PAUSE", 0.2)
    fake_vss.bad_sectors(8192, volume.sector_size)
    with Snapshot("C:") as s, s.open() as disk, pytest.raises(DeviceReadError):
        disk.pread(volume.sector_size, 8192)
    assert clock.slept == [0.2, 0.2]


def test_a_shadow_copy_that_is_gone_is_not_waited_for(
    fake_vss: FakeVss, volume: FakeVolume, clock: Clock
) -> None:
    with Snapshot("C:") as s, s.open() as disk:
        fake_vss.lose(volume)
        for _ in range(2):
            with pytest.raises(SnapshotLostError):
                disk.pread(512, 0)
    assert clock.slept == []


def test_bad_sectors_are_waited_for_until_three_stayed_bad_and_again_a_minute_later(
    fake_vss: FakeVss, volume: FakeVolume, clock: Clock
) -> None:
    for number in range(1, 9):
        fake_vss.bad_sectors(number * 8192, volume.sector_size)
    counts = []
    with Snapshot("C:") as s, s.open() as disk:
        for number in range(1, 9):
            clock.now += 61.0 if number == 7 else 1.0
            with pytest.raises(DeviceReadError) as caught:
                disk.pread(8192, number * 8192)
            assert (caught.value.offset, caught.value.length) == (number * 8192, volume.sector_size)
            counts.append(len(clock.slept))
            clock.slept.clear()
    assert counts == [2, 2, 2, 0, 0, 0, 2, 2]


def test_a_device_that_was_away_is_opened_again_by_the_id_of_the_shadow_copy(
    fake_vss: FakeVss, volume: FakeVolume
) -> None:
    other = fake_vss.add_volume("D:\\", size=len(volume.data), data=b"D" * 100_000)
    with Snapshot("C:", "D:") as s, s.open("C:") as disk, ThreadPoolExecutor(4) as pool:
        (mine,) = (shadow for shadow in fake_vss.shadows.values() if shadow.volume is volume)
        (theirs,) = (shadow for shadow in fake_vss.shadows.values() if shadow.volume is other)
        opened, number = len(fake_vss.all_opened("device")), mine.number
        fake_vss.reconnect(volume)
        theirs.number = number  # and the name that C: had is now that of D:
        offsets = range(0, 80_000, 10_000)
        found = list(pool.map(lambda offset: disk.pread(10_000, offset), offsets))
        assert found == [volume.data[offset : offset + 10_000] for offset in offsets]
        assert len(fake_vss.all_opened("device")) == opened + 1, "once for all threads"
        disk.confirm()
    assert fake_vss.all_opened("device") == []


def test_a_device_is_not_opened_again_without_end(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with Snapshot("C:") as s, s.open() as disk:
        for _ in range(16):
            fake_vss.reconnect(volume)
            assert disk.pread(100, 0) == volume.data[:100]
        fake_vss.reconnect(volume)
        with pytest.raises(DeviceReadError, match="taken away") as caught:
            disk.pread(100, 0)
        assert caught.value.code == 55
    assert fake_vss.all_opened("device") == []


@pytest.mark.parametrize("call", ["CreateFileW", "IOCTL_DISK_GET_LENGTH_INFO"])
def test_a_device_that_cannot_be_opened_again_is_an_error_of_the_device(
    fake_vss: FakeVss, volume: FakeVolume, call: str
) -> None:
    with Snapshot("C:") as s, s.open() as disk:
        fake_vss.reconnect(volume)
        fake_vss.faults.fail(call, 5)
        with pytest.raises(DeviceReadError, match="taken away"):
            disk.pread(100, 0)
        assert disk.pread(100, 0) == volume.data[:100], "it can be by now"


def test_a_device_of_another_size_is_another_volume(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with Snapshot("C:") as s, s.open() as disk:
        (shadow,) = fake_vss.shadows.values()
        fake_vss.reconnect(volume)
        shadow.data = shadow.data[: 1 << 20]
        with pytest.raises(DeviceReadError, match="taken away"):
            disk.pread(100, 0)


class Nonsense:
    """The libraries of a fake machine whose driver says that sectors have no bytes."""

    def __init__(self, machine: FakeVss) -> None:
        self._machine, self.kernel32 = machine, self

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of cffi
        own = getattr(self._machine.kernel32, name, None)
        return own if own is not None else getattr(self._machine, name)

    def DeviceIoControl(self, handle: Any, code: int, *rest: Any) -> int:  # noqa: ANN401, N802 - of cffi
        done = int(self._machine.kernel32.DeviceIoControl(handle, code, *rest))
        out = rest[2]
        if code in (Control.FSCTL_GET_NTFS_VOLUME_DATA, Control.IOCTL_DISK_GET_DRIVE_GEOMETRY):
            ffi.cast(ffi.typeof(out), out).BytesPerSector = 0
        return done


def test_sectors_of_no_bytes_are_an_error_of_the_snapshot(fake_vss: FakeVss, volume: FakeVolume) -> None:
    with Snapshot("C:"):
        (shadow,) = fake_vss.shadows.values()
        system = cast("System", Nonsense(fake_vss))
        with pytest.raises(SnapshotError, match="in sectors of 0"):
            ShadowReader(system, shadow.device)
        with pytest.raises(DeviceReadError, match="sectors of 0 bytes"):
            open_path(system, shadow.device)


def test_a_device_that_ends_with_its_file_system_is_said_so(fake_vss: FakeVss, volume: FakeVolume) -> None:
    fake_vss.faults.fail("FSCTL_ALLOW_EXTENDED_DASD_IO", 1, times=10)
    with Snapshot("C:") as s, s.open() as disk:
        assert disk.size == len(volume.data) - volume.sector_size
        assert any("backup boot sector" in note for note in disk.metadata.notes)
        disk.pread(disk.size, 0)


def test_a_last_sector_that_cannot_be_read_is_left_out_and_said_so(
    fake_vss: FakeVss, volume: FakeVolume
) -> None:
    fake_vss.bad_sectors(len(volume.data) - volume.sector_size, volume.sector_size, 87)
    with Snapshot("C:") as s, s.open() as disk:
        assert disk.size == len(volume.data) - volume.sector_size
        assert any("backup boot sector" in note for note in disk.metadata.notes)


def test_a_backup_boot_sector_that_is_there_is_no_matter_for_notes(
    fake_vss: FakeVss, volume: FakeVolume
) -> None:
    boot = b"\xeb\x52\x90NTFS    ".ljust(510, b"\0") + b"\x55\xaa"
    volume.pwrite(boot, len(volume.data) - volume.sector_size)
    with Snapshot("C:") as s, s.open() as disk:
        assert disk.size == len(volume.data)
        assert disk.pread(512, len(volume.data) - volume.sector_size) == boot
        assert not any("boot sector" in note for note in disk.metadata.notes)


def test_one_bad_sector_in_a_large_read_is_named_alone(fake_vss: FakeVss, volume: FakeVolume) -> None:
    fake_vss.bad_sectors(700 * 4096, volume.sector_size)
    with Snapshot("C:") as s, s.open() as disk:
        with pytest.raises(DeviceReadError) as caught:
            disk.pread(2 << 20, 2 << 20)
        assert (caught.value.offset, caught.value.length) == (700 * 4096, volume.sector_size)
        assert caught.value.call == "ReadFile"


def test_another_file_system_is_all_data(fake_vss: FakeVss) -> None:
    volume = fake_vss.add_volume("R:\\", filesystem="ReFS", data=b"resilient")
    with Snapshot("R:") as s, s.open() as disk:
        assert disk.size == len(volume.data)
        assert [extent.length for extent in disk.extents()] == [len(volume.data)]
        assert any("every block is kept" in note for note in disk.metadata.notes)
        assert disk.pread(9, 0) == b"resilient"


def test_a_device_that_does_not_say_its_length_is_no_volume(fake_vss: FakeVss, volume: FakeVolume) -> None:
    from vsssnap.errors import SnapshotError

    fake_vss.faults.fail("IOCTL_DISK_GET_LENGTH_INFO", 50)
    with pytest.raises(SnapshotError, match="cannot be opened"):
        Snapshot("C:").create()
