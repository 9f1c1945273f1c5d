"""Runs under the Windows Python: images of a volume that is being written, through all of the library.

Arguments: the driver, the live volume's device, a folder for images, and the file whose being there
loses the shadow copy.  Prints what happened as JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from ctypes import wintypes
from typing import Any

from vsssnap import Consistency, Snapshot, open_device, save_image
from vsssnap._win32 import dll
from vsssnap._win32._ffi import ffi
from vsssnap._win32.devices import RawDevice
from vsssnap._win32.handles import WindowsCallError
from vsssnap.errors import SnapshotError
from vsssnap.vss import StepTimeouts, VssOptions
from waiting import until

KERNEL_DRIVER, OWN_PROCESS, DEMAND_START = 1, 16, 3
ALL_ACCESS = 0xF01FF

STOP = 1
HURRIED = VssOptions(timeouts=StepTimeouts(do_snapshot_set=1.0))
TRANSIENT = (1053, 1055)  # ERROR_SERVICE_REQUEST_TIMEOUT, ERROR_SERVICE_DATABASE_LOCKED


class Lab(enum.IntEnum):
    """What only the driver of the laboratory knows."""

    COPIED = 0x22200C


advapi32: Any = getattr(ctypes, "WinDLL")("advapi32", use_last_error=True)  # noqa: B009 - types of Linux do not know it
_TEXT, _NUMBER, _HANDLE = wintypes.LPCWSTR, wintypes.DWORD, wintypes.HANDLE
for name, arguments in {
    "OpenSCManagerW": (_TEXT, _TEXT, _NUMBER),
    "CreateServiceW": (_HANDLE, _TEXT, _TEXT, *[_NUMBER] * 4, _TEXT, _TEXT, wintypes.LPVOID, *[_TEXT] * 3),
    "OpenServiceW": (_HANDLE, _TEXT, _NUMBER),
}.items():
    getattr(advapi32, name).argtypes, getattr(advapi32, name).restype = arguments, _HANDLE
advapi32.StartServiceW.argtypes = (_HANDLE, _NUMBER, wintypes.LPVOID)
advapi32.ControlService.argtypes = (_HANDLE, _NUMBER, wintypes.LPVOID)
advapi32.DeleteService.argtypes = advapi32.CloseServiceHandle.argtypes = (_HANDLE,)


@contextlib.contextmanager
def service(manager: int, name: str, kind: int, path: str, *, start: bool) -> Iterator[None]:
    """A service for a while."""
    rest = (None, None, None, None, None)
    made = advapi32.CreateServiceW(manager, name, name, ALL_ACCESS, kind, DEMAND_START, 0, path, *rest)
    assert made, f"{name} cannot be made"
    try:
        if start:
            start_service(made, name)
        yield
    finally:
        advapi32.ControlService(made, STOP, ctypes.create_string_buffer(64))
        advapi32.DeleteService(made)
        advapi32.CloseServiceHandle(made)


def start_service(made: int, name: str) -> None:
    """Start it; again while the system starts others, when it tells everybody to come back."""
    end = time.monotonic() + 100.0
    while not advapi32.StartServiceW(made, 0, None):
        code = ctypes.get_last_error()  # type: ignore[attr-defined]  # on Windows alone
        assert code in TRANSIENT, f"{name} does not start: error {code}"
        assert time.monotonic() < end, f"{name} does not start for 100 s: error {code}"
        time.sleep(0.1)


def wait_for_device() -> None:
    """StartService returns before DriverEntry has run."""
    system = dll.current()
    assert system is not None
    for _ in range(600):
        try:
            RawDevice(system, "\\\\?\\GLOBALROOT\\Device\\HarddiskVolumeShadowCopy7").close()
        except WindowsCallError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the driver has made no device")


def live_volume(path: str) -> RawDevice:
    """The volume that is written while its shadow copy is read."""
    system = dll.current()
    assert system is not None
    return RawDevice(system, path, writable=True)


def copied(volume: RawDevice) -> int:
    """Clusters that the driver has kept since the instant."""
    out = ffi.new("DWORD *")
    code: Any = Lab.COPIED
    volume.control(code, out=out)
    return int(out[0])


def churn(volume: RawDevice, size: int, stop: threading.Event) -> None:
    """Write over the whole volume, again and again, through the driver."""
    number = 0
    while not stop.is_set():
        number += 1
        volume.write(memoryview(number.to_bytes(8, "little") * 4096), number * 7 * 32768 % size, 512)


def images(live: str, folder: str) -> dict[str, object]:
    """Save one instant in two formats while the volume is written."""
    stop = threading.Event()
    found: dict[str, object] = {}
    with Snapshot("C:") as s, contextlib.closing(live_volume(live)) as volume:
        writer = threading.Thread(target=churn, args=(volume, 16 << 20, stop))
        before = copied(volume)
        writer.start()
        try:
            until(lambda: copied(volume) > 200)  # enough for a copy past the shadow copy to be torn
            disk = s.open()
            digests = {hashlib.sha256(disk.pread(disk.size, 0)).hexdigest() for _ in range(2)}
            found |= {"size": disk.size, "digests": sorted(digests), "level": s.consistency.name}
            found["notes"] = list(disk.metadata.notes)
            for suffix in ("raw", "vsnap"):
                report = save_image(disk, os.path.join(folder, f"c.{suffix}"))
                found[suffix] = [report.data, report.hole]
            with open_device(live) as past:  # what a reader gets that does not read the shadow copy
                save_image(past, os.path.join(folder, "torn.raw"))
                found["past it"] = hashlib.sha256(past.pread(past.size, 0)).hexdigest()
            found["copied"] = [before, copied(volume)]
            shutil.copy(os.path.join(folder, "..", "kept"), folder)
        finally:
            stop.set()
            writer.join()
    found["reports"] = [[report.name, report.state] for report in s.writers]
    return found


def lost(folder: str, mark: str) -> dict[str, object]:
    """Lose the shadow copy while it is saved."""
    target = os.path.join(folder, "lost.vsnap")

    def lose(progress: object) -> None:
        open(mark, "wb").close()

    try:
        with Snapshot("C:") as s:
            save_image(s.open(), target, progress=lose)
    except SnapshotError as exc:
        return {"error": type(exc).__name__, "left": sorted(os.listdir(folder))}
    finally:
        os.unlink(mark)
    return {"error": ""}


def failing() -> list[list[object]]:
    """Failures of operations, from another program's code."""
    found: list[list[object]] = []
    scenes: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("VSSSNAP_LAB_FAIL", "PrepareForBackup", {"timeout": 12.0}),
        ("VSSSNAP_LAB_HANG", "DoSnapshotSet", {"options": HURRIED}),
        ("", "", {"require": Consistency.APPLICATION, "timeout": 12.0}),
        ("VSSSNAP_LAB_HANG", "GatherWriterMetadata", {"options": VssOptions(writers=False)}),
    )
    for variable, step, arguments in scenes:
        setenv(variable, step)
        try:
            with Snapshot("C:", **arguments):
                found.append(["", None])
        except SnapshotError as exc:
            found.append([type(exc).__name__, exc.code])
        setenv(variable, "")
    return found


def setenv(name: str, value: str) -> None:
    """For the C library of the other code, which has an environment of its own."""
    if name:
        ctypes.CDLL("msvcrt")._putenv(f"{name}={value}".encode())


def main() -> dict[str, object]:
    driver, live, folder, mark = sys.argv[1:]
    manager = advapi32.OpenSCManagerW(None, None, 0xF003F)
    with (
        service(manager, "VSS", OWN_PROCESS, "vssvc.exe", start=False),
        service(manager, "vsssnaplab", KERNEL_DRIVER, driver, start=True),
    ):
        wait_for_device()
        return {"images": images(live, folder), "lost": lost(folder, mark), "failing": failing()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main()))
