"""Readers of disk images that are not ours: ``python foreign.py WHAT IMAGE ...``."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import Any

STEP = 1 << 20


def _opened(family: str, image: str) -> tuple[int, Any]:
    """Size and a file object."""
    kind = Path(image).suffix[1:]
    if family == "libyal":
        library: Any = importlib.import_module({"vhd": "pyvhdi", "vhdx": "pyvhdi", "qcow2": "pyqcow"}[kind])
        file = library.file()
        file.open(image)
        return int(file.get_media_size()), file
    module: Any = importlib.import_module(f"dissect.hypervisor.disk.{kind}")
    if kind == "qcow2":
        disk = module.QCow2(Path(image))
        return int(disk.size), disk.open()
    disk = module.VHD(Path(image).open("rb")) if kind == "vhd" else module.VHDX(Path(image))  # noqa: SIM115
    return int(disk.size), disk


def sequential(family: str, image: str) -> None:
    """Read an image from end to end, 1 MiB at a time; prints the seconds from its opening on."""
    _opened(family, image)  # imports
    started = time.perf_counter()
    size, file = _opened(family, image)
    for offset in range(0, size, STEP):
        file.seek(offset)
        file.read(min(STEP, size - offset))
    print(f"seconds: {time.perf_counter() - started}")


def random_reads(family: str, image: str, places: str) -> None:
    """Read 4 KiB at offsets listed in a file; prints seconds."""
    offsets = [int(line) for line in Path(places).read_text().split()]
    _, file = _opened(family, image)
    started = time.perf_counter()
    for offset in offsets:
        file.seek(offset)
        file.read(4096)
    print(f"seconds: {time.perf_counter() - started}")


def shadow(volume: str, number: str) -> None:
    """Open a shadow copy through libvshadow and read it, 1 MiB at a time; prints seconds."""
    library: Any = importlib.import_module("pyvshadow")
    started = time.perf_counter()
    file = library.volume()
    file.open(volume)
    store = file.get_store(int(number) - 1)
    left = store.get_size()
    while left > 0:
        left -= len(store.read(STEP))
    print(f"seconds: {time.perf_counter() - started}")


def plain(path: str) -> None:
    """Read a file from end to end, 1 MiB at a time; prints seconds."""
    buffer = bytearray(STEP)
    started = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    print(f"seconds: {time.perf_counter() - started}")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
