"""Devices that do not answer, on a fake one: every wait ends, and no memory is freed that is in use."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from vsssnap import Snapshot, open_device
from vsssnap._win32 import blocking, listing, slots, targets, volumes
from vsssnap._win32.codes import Win32Error
from vsssnap._win32.devices import RawDevice
from vsssnap._win32.dll import System
from vsssnap._win32.handles import WindowsCallError
from vsssnap.blocks.target import open_target
from vsssnap.errors import DeviceReadError, TargetError
from vsssnap.testing.fake_vss import FakeFile, FakeVolume, FakeVss
from vsssnap.testing.fake_vss.faults import Plan
from waiting import Late, until

MIB = 1 << 20


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SLICE", 0.02)
    monkeypatch.setattr(slots, "GIVE_UP", 30.0)  # what listens ends at once


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """For calls that do not listen when they are cancelled."""
    monkeypatch.setattr(slots, "GIVE_UP", 0.05)


@pytest.fixture(autouse=True)
def volume(fake_vss: FakeVss) -> FakeVolume:
    return fake_vss.add_volume("E:\\", size=4 * MIB, data=b"x" * MIB)


def silent(
    vss: FakeVss, monkeypatch: pytest.MonkeyPatch, call: str, *, deaf: float | None = None
) -> list[str]:
    """Have a call not be answered, and be late once it has begun; it is noted each time that it begins."""
    begun: list[str] = []
    plan = vss.faults.plan

    def noting(name: str) -> Plan:
        begun.extend([name] * (name == call))
        return plan(name)

    vss.faults.delay(call, deaf=deaf)
    monkeypatch.setattr(vss.faults, "plan", noting)
    clock = Late(lambda: len(begun), looks=1)
    for module in (slots, blocking):
        monkeypatch.setattr(module, "time", clock)
    return begun


def settle() -> None:
    """Wait until the last call has ended that ran on."""

    def ended() -> bool:
        slots.reap()
        return not slots._unanswered

    assert until(ended)


@pytest.mark.parametrize("call", ["CreateFileW", "IOCTL_DISK_GET_LENGTH_INFO"])
def test_a_device_that_does_not_answer_is_not_opened(
    fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    silent(fake_vss, monkeypatch, call)
    with pytest.raises(DeviceReadError, match="E: does not answer") as caught:
        open_device("E:")
    assert caught.value.code == Win32Error.ERROR_TIMEOUT
    assert call in str(caught.value.call)
    assert "event log" in caught.value.hint
    fake_vss.check()


def ended() -> None:
    """Wait until the calls have ended that were left behind."""
    for thread in threading.enumerate():
        if isinstance(thread, blocking._Call):
            thread.join(60)


@pytest.mark.usefixtures("deaf")
@pytest.mark.parametrize(
    ("call", "ask"),
    [
        ("GetVolumeNameForVolumeMountPointW", lambda vss: volumes.volume_guid_path(vss, "E:\\folder")),
        ("GetVolumePathNameW", lambda vss: volumes.volume_of_path(vss, "E:\\folder")),
        ("FindFirstVolumeW", targets.volumes),
    ],
)
def test_names_of_volumes_are_not_waited_for_without_end(
    fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch, call: str, ask: Callable[[FakeVss], object]
) -> None:
    silent(fake_vss, monkeypatch, call, deaf=0.3)
    with pytest.raises(WindowsCallError, match=f"{call}: ERROR_TIMEOUT"):
        ask(fake_vss)
    ended()
    fake_vss.check()


@pytest.mark.usefixtures("deaf")
def test_a_file_system_that_does_not_answer_is_not_known(
    fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent(fake_vss, monkeypatch, "GetVolumeInformationW", deaf=0.3)
    assert volumes.information(fake_vss, "E:\\") == ("", None)
    ended()
    fake_vss.check()


@pytest.mark.usefixtures("deaf")
@pytest.mark.parametrize("call", ["FindFirstFileW", "FindNextFileW", "GetDiskFreeSpaceW"])
def test_a_shadow_copy_that_does_not_answer_is_not_waited_for(
    fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    fat = fake_vss.add_volume("F:\\", filesystem="FAT32", first_cluster=7 * 512)
    fat.files = {"\\a": FakeFile()}

    def ask(shadow: str) -> list[str]:
        with contextlib.closing(RawDevice(fake_vss, shadow)) as device:
            device.clusters()
        return [each.name for each in listing.entries(fake_vss, shadow)]

    with Snapshot("F:"):
        (shadow,) = fake_vss.shadows.values()
        assert ask(shadow.device) == ["a"]
        silent(fake_vss, monkeypatch, call, deaf=0.3)
        with pytest.raises(WindowsCallError, match=f"{call}.*ERROR_TIMEOUT"):
            ask(shadow.device)
        ended()
    fake_vss.check()


def test_a_folder_with_many_names_is_listed_whole(
    fake_vss: FakeVss, volume: FakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_SOME", 3)
    for count in (1, 2, 3, 6):  # with those of the folder itself and above
        volume.files = {f"\\f\\{number}": FakeFile() for number in range(count)}
        with Snapshot("E:"):
            (shadow,) = fake_vss.shadows.values()
            found = [each.name for each in listing.entries(fake_vss, shadow.device + "\\f")]
        assert found == [str(number) for number in range(count)]
    for some in listing.entries(fake_vss, "nowhere"):
        raise AssertionError(some)
    fake_vss.check()


def test_what_a_call_raises_is_raised_where_it_was_made(fake_vss: FakeVss) -> None:
    def call() -> int:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        blocking.answered(fake_vss, "call", call)


def test_where_no_thread_can_be_started_that_is_said(
    fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(blocking._Call, "start", refuse)
    with pytest.raises(DeviceReadError, match="ERROR_NO_SYSTEM_RESOURCES"):
        open_device("E:")
    fake_vss.check()


def test_a_read_that_is_not_answered_ends_and_the_device_is_not_asked_again(
    fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_device("E:") as disk:
        begun = silent(fake_vss, monkeypatch, "ReadFile")
        with pytest.raises(DeviceReadError, match="ERROR_TIMEOUT") as caught:
            disk.pread(2 * MIB, 100)
        assert (caught.value.offset, caught.value.length) == (100, 2 * MIB)
        assert "did not answer for 300 s" in caught.value.hint
        asked = len(begun)
        with pytest.raises(DeviceReadError, match="did not answer before"):
            disk.pread(512, 0)
        assert len(begun) == asked > 0
    fake_vss.check()


@pytest.mark.usefixtures("deaf")
def test_memory_of_a_call_that_nobody_can_stop_is_kept_until_it_ends(
    fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent(fake_vss, monkeypatch, "ReadFile", deaf=2.0)
    disk = open_device("E:")
    memory = bytearray(2 * MIB)
    with memoryview(memory) as view, pytest.raises(DeviceReadError, match="ERROR_TIMEOUT"):
        disk.preadinto(view, 0)
    disk.close()
    with pytest.raises(AssertionError, match="not given back"):
        fake_vss.check()
    settle()
    assert fake_vss.ledger.outstanding() == {}


@pytest.mark.usefixtures("deaf")
def test_a_device_that_is_opened_too_late_is_closed(
    fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent(fake_vss, monkeypatch, "CreateFileW", deaf=0.3)
    with pytest.raises(DeviceReadError, match="does not answer"):
        open_device("E:")
    for thread in threading.enumerate():
        if thread.name.startswith("vsssnap CreateFileW"):
            thread.join(60)
    fake_vss.check()


@pytest.mark.usefixtures("deaf")
def test_a_disk_that_is_never_flushed_is_no_success(
    fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent(fake_vss, monkeypatch, "FlushFileBuffers", deaf=math.inf)
    writer = open_target("E:")
    writer.pwrite(b"y" * MIB, MIB)
    with pytest.raises(TargetError, match="ERROR_TIMEOUT"):
        writer.flush()
    writer.close()


def test_a_write_that_is_not_answered_ends(fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch) -> None:
    silent(fake_vss, monkeypatch, "WriteFile")
    writer = open_target("E:")
    with pytest.raises(TargetError, match="ERROR_TIMEOUT"):
        writer.pwrite(b"y" * MIB, 2 * MIB)
    writer.close()
    fake_vss.check()


class Interrupted:
    """The libraries of a fake machine; Ctrl-C comes while a device is waited for."""

    def __init__(self, machine: FakeVss) -> None:
        self._machine, self.kernel32, self._times = machine, self, 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of cffi
        own = getattr(self._machine.kernel32, name, None)
        return own if own is not None else getattr(self._machine, name)

    def WaitForSingleObject(self, handle: Any, milliseconds: int) -> int:  # noqa: ANN401, N802 - of cffi
        self._times += 1
        if self._times == 2:
            raise KeyboardInterrupt
        return int(self._machine.kernel32.WaitForSingleObject(handle, milliseconds))


@pytest.mark.parametrize("deaf", [None, 0.3])
def test_ctrl_c_cancels_the_call(
    fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch, deaf: float | None
) -> None:
    if deaf is not None:
        monkeypatch.setattr(slots, "GIVE_UP", 0.05)
    fake_vss.faults.delay("IOCTL_DISK_GET_LENGTH_INFO", deaf=deaf)
    device = RawDevice(cast("System", Interrupted(fake_vss)), r"\\.\E:")
    with pytest.raises(KeyboardInterrupt):
        device.length()
    device.close()
    settle()
    fake_vss.check()


def test_ctrl_c_ends_an_open(fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch) -> None:
    joins: list[float | None] = []
    join = threading.Thread.join

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        join(self, timeout)
        joins.append(timeout)
        if len(joins) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(blocking._Call, "join", interrupted)
    fake_vss.faults.delay("CreateFileW")
    with pytest.raises(KeyboardInterrupt):
        open_device("E:")
    fake_vss.check()


def test_an_open_that_ends_just_when_ctrl_c_comes_is_closed(
    fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def interrupted(self: threading.Thread) -> bool:
        self.join()
        asked.append(self)
        if len(asked) == 1:
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(blocking._Call, "is_alive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_device("E:")
    fake_vss.check()
