"""Runs under the Windows Python: devices of the driver, read and written.

Arguments: the driver and the folder of its files.  Prints what happened as JSON.
"""

from __future__ import annotations

import enum
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vsssnap import CopyOptions, Snapshot, open_device, restore_image, save_image
from vsssnap._win32 import dll
from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import Control
from vsssnap._win32.devices import RawDevice
from vsssnap._win32.handles import WindowsCallError
from vsssnap._win32.overlapped import OverlappedFile
from vsssnap.blocks import windows
from vsssnap.errors import VssSnapError

ERROR_BAD_DEV_TYPE = 66
SHADOW = "\\\\?\\GLOBALROOT\\Device\\HarddiskVolumeShadowCopy7"
TARGET = "\\\\?\\GLOBALROOT\\Device\\HarddiskVolume9"


class Lab(enum.IntEnum):
    """What only this driver knows."""

    MOST = 0x222004


class Wine(RawDevice):
    """Wine asks its own mount manager, too, once the driver has dismounted; that knows no such device."""

    def control(self, code: Control, **rest: Any) -> int:  # noqa: ANN401 - those of its base
        try:
            return super().control(code, **rest)
        except WindowsCallError as exc:
            if code != Control.FSCTL_DISMOUNT_VOLUME or exc.code != ERROR_BAD_DEV_TYPE:
                raise
            return 0


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


def main() -> dict[str, object]:
    sys.path.insert(0, os.path.dirname(__file__))  # where the interpreter of the lab does not look
    imaging: Any = importlib.import_module("imaging")
    vars(windows)["RawDevice"] = Wine
    driver, folder = sys.argv[1], Path(sys.argv[2])
    manager = imaging.advapi32.OpenSCManagerW(None, None, 0xF003F)
    with (
        imaging.service(manager, "VSS", imaging.OWN_PROCESS, "vssvc.exe", start=False),
        imaging.service(manager, "vsssnaplab", imaging.KERNEL_DRIVER, driver, start=True),
    ):
        imaging.wait_for_device()
        return {
            "reading": reading(folder),
            "losing": losing(folder),
            "writing": writing(folder),
            "files": files(folder),
        }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main()))
