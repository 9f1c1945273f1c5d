"""Runs under the Windows Python: devices of the driver, read and written.

Arguments: the driver and the folder of its files.  Prints what happened as JSON.
"""

from __future__ import annotations

import _thread
import contextlib
import enum
import hashlib
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vsssnap import CopyOptions, Snapshot, open_device, restore_image, save_image
from vsssnap._deadline import Deadline
from vsssnap._win32 import com, dll, slots, targets
from vsssnap._win32 import disks as on_disk
from vsssnap._win32 import files as files_of_windows
from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import FILE_SHARE_READ, GENERIC_READ, OPEN_EXISTING, Control
from vsssnap._win32.devices import RawDevice
from vsssnap._win32.handles import WindowsCallError
from vsssnap._win32.overlapped import OverlappedFile
from vsssnap.blocks.extent import ExtentKind
from vsssnap.errors import VssSnapError
from vsssnap.providers.vss import exclusions
from waiting import until

sys.path.insert(0, os.path.dirname(__file__))  # where the interpreter of the lab does not look
shim: Any = importlib.import_module("shim")
SHADOW, TARGET, DISK = shim.SHADOW, shim.TARGET, shim.DISK


class Lab(enum.IntEnum):
    """What only this driver knows."""

    MOST = 0x222004


def most() -> int:
    """Calls that were under way at once since this was asked last."""
    system = dll.current()
    assert system is not None
    device = OverlappedFile(system, SHADOW)
    out = ffi.new("DWORD *")
    code: Any = Lab.MOST
    device.control(code, out=out)
    device.close()
    return int(out[0])


def raised(run: Callable[[], object]) -> list[object]:
    """The class, code and text of what is raised."""
    try:
        run()
    except VssSnapError as exc:
        return [type(exc).__name__, getattr(exc, "code", None), str(exc)]
    return []


def reading(folder: Path) -> dict[str, object]:
    """One instant by one thread and by several."""
    found: dict[str, object] = {}
    with Snapshot("C:") as s, s.open() as disk:
        found |= {"size": disk.size, "sector": disk.sector_size, "notes": list(disk.metadata.notes)}
        found["digest"] = hashlib.sha256(disk.pread(disk.size, 0)).hexdigest()
        most()
        save_image(disk, folder / "c.vsnap", copy=CopyOptions(workers=3))
        found["three"] = most()
        with open_device(SHADOW) as device:
            found["device"] = hashlib.sha256(device.pread(device.size, 0)).hexdigest() == found["digest"]
            most()
            found["head"] = device.pread(4 << 20, 0)[:11].hex()
            found["one thread"] = most()
    return found


def losing(folder: Path) -> dict[str, object]:
    """A shadow copy that is lost in the midst of reading."""
    (folder / "lose_after").write_text("3000000")
    try:
        with Snapshot("C:") as s, s.open(unused="read") as disk:  # type: ignore[arg-type]  # its value will do
            why = raised(lambda: save_image(disk, folder / "lost.vsnap"))
            again = raised(lambda: disk.pread(512, 0))
    finally:
        (folder / "lose_after").unlink()
        (folder / "lost").unlink(missing_ok=True)
    return {"why": why, "again": again, "left": sorted(name for name in os.listdir(folder) if "lost" in name)}


def writing(folder: Path) -> dict[str, object]:
    """Images restored to a volume."""
    image = folder / "c.vsnap"
    (folder / "in_use").touch()
    found: dict[str, object] = {"in use": raised(lambda: restore_image(image, TARGET))}
    (folder / "in_use").unlink()
    with contextlib.closing(RawDevice(dll.current(), TARGET)):  # type: ignore[arg-type]  # there is one
        found["open elsewhere"] = raised(lambda: restore_image(image, TARGET))
    found["untouched"] = not any((folder / "target").read_bytes())
    with open_device(TARGET, writable=True):
        found["locked"] = raised(lambda: restore_image(image, TARGET))
    most()
    found["verified"] = restore_image(image, TARGET, verify=True).verified
    found["writes"] = most()
    found["shadow copy"] = raised(lambda: open_device(SHADOW, writable=True))
    with open_device(TARGET) as device:  # no lock is left
        found["size"] = device.size
    with open_device(TARGET, writable=True) as device:
        device.seek(1000)
        device.write(b"x" * 5000)
    return found


def left() -> int:
    """Calls that go on; those that end get the time for it."""

    def ended() -> bool:
        slots.reap()
        return not slots._unanswered

    until(ended)
    return len(slots._unanswered)


def hanging(folder: Path) -> dict[str, object]:
    """A device that does not answer."""
    hang, deaf = folder / "hang", folder / "deaf"
    found: dict[str, object] = {}
    vars(slots)["ANSWER"] = 1.0
    hang.touch()
    found["open"] = raised(lambda: open_device(TARGET))
    hang.unlink()
    vars(slots)["ANSWER"] = 300.0
    with open_device(TARGET) as disk:
        hang.touch()
        vars(slots)["ANSWER"] = 1.0
        found["read"] = raised(lambda: disk.pread(1 << 20, 0))
        found["again"] = raised(lambda: disk.pread(512, 0))
        found["left after cancelling"] = left()  # while the device is still silent
        hang.unlink()
        vars(slots)["ANSWER"] = 300.0
    with open_device(TARGET) as disk:
        hang.touch()
        pressed: list[float] = []

        def press() -> None:
            pressed.append(time.monotonic())
            _thread.interrupt_main()

        try:
            threading.Timer(0.35, press).start()
            disk.pread(1 << 20, 0)
        except KeyboardInterrupt:
            found["ctrl-c"] = time.monotonic() - pressed[0]
        hang.unlink()
    with open_device(TARGET) as disk:
        deaf.touch()
        vars(slots)["ANSWER"] = 1.0
        found["deaf"] = raised(lambda: disk.pread(1 << 20, 0))
    found["left running"] = len(slots._unanswered)
    deaf.unlink()
    found["left in the end"] = left()
    vars(slots)["ANSWER"] = 300.0
    with open_device(TARGET) as disk:
        found["size"] = len(disk.pread(1 << 20, 0))
    return found


def files(folder: Path) -> dict[str, object]:
    """A file in place of a device."""
    name = str(folder / "plain")
    Path(name).write_bytes(b"0123456789" * 1000)
    with open_device(name, writable=True) as file:
        file.seek(9995)
        file.write(b"abc")
    with open_device(name) as file:
        tail = file.pread(100, 9990).decode()
    missing = raised(lambda: open_device(name + ".missing"))
    return {"tail": tail, "missing": missing[0], "folder": raised(lambda: open_device(str(folder)))[0]}


def leaving_out(folder: Path) -> dict[str, object]:
    """A page file that lies where the system says so."""
    (folder / "runs.given").rename(folder / "runs")
    system = dll.current()
    assert system is not None
    found = exclusions.Finder(system, SHADOW, shim.VOLUMES[1], deadline=Deadline(60)).find(
        frozenset({"page-file"})
    )
    with Snapshot("C:") as s, s.open() as disk:
        left_out = [extent for extent in disk.extents() if extent.kind is ExtentKind.EXCLUDED]
        digest = hashlib.sha256(disk.pread(disk.size, 0)).hexdigest()
    handle = system.kernel32.CreateFileW(
        com.wide(shim.FILE), GENERIC_READ, FILE_SHARE_READ, ffi.NULL, OPEN_EXISTING, 0, ffi.NULL
    )
    holes = list(files_of_windows.ranges(int(ffi.cast("intptr_t", handle)), 1000, 2 << 20))
    system.kernel32.CloseHandle(handle)
    return {
        "kinds": [one.kind for one in found],
        "extents": [[each.offset, each.length] for one in found for each in one.extents],
        "excluded": [[each.offset, each.length] for each in left_out],
        "digest": digest,
        "holes": holes,
    }


def disks(folder: Path) -> dict[str, object]:
    """A whole disk, with a volume on it."""
    system = dll.current()
    assert system is not None
    image, volume = folder / "disk.raw", shim.VOLUMES[0].rstrip("\\")
    placed = on_disk.volumes_on(system, DISK)
    with contextlib.closing(RawDevice(system, volume)):
        in_use = raised(lambda: restore_image(image, DISK))
    untouched = not any((folder / "disk").read_bytes())
    mounted = 0
    with contextlib.closing(RawDevice(system, DISK, writable=True)) as device:
        try:
            device.write(memoryview(bytes(8192)), 1 << 20, 4096)
        except WindowsCallError as exc:
            mounted = exc.code
    report = restore_image(image, DISK, verify=True)
    with open_device(DISK) as disk:
        digest = hashlib.sha256(disk.pread(disk.size, 0)).hexdigest()
    with contextlib.closing(RawDevice(system, TARGET)) as device:
        spanned = targets.extents(device)
        small = ffi.new("VOLUME_DISK_EXTENTS *")
        one = device.control(Control.IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS, out=small, partial=True)
    return {
        "placed": [[each.offset, each.length, each.name, each.idle, each.reason] for each in placed],
        "in use": in_use,
        "untouched": untouched,
        "mounted": mounted,
        "verified": report.verified,
        "digest": digest,
        "spanned": spanned,
        "first of two": [one, small.NumberOfDiskExtents],
    }


def main() -> dict[str, object]:
    imaging: Any = importlib.import_module("imaging")
    driver, folder = sys.argv[1], Path(sys.argv[2])
    manager = imaging.advapi32.OpenSCManagerW(None, None, 0xF003F)
    with (
        imaging.service(manager, "VSS", imaging.OWN_PROCESS, "vssvc.exe", start=False),
        imaging.service(manager, "vsssnaplab", imaging.KERNEL_DRIVER, driver, start=True),
        dll.lent(shim.System()),
    ):
        imaging.wait_for_device()
        return {
            "reading": reading(folder),
            "losing": losing(folder),
            "writing": writing(folder),
            "leaving out": leaving_out(folder),
            "disks": disks(folder),
            "hanging": hanging(folder),
            "files": files(folder),
        }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main()))
