"""The naive copier, stopped where it hurts."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

PIECE = 1 << 20


def physical_extents(path: Path) -> list[tuple[int, int]]:
    """Where a file's bytes lie on its device: ``(offset, length)`` in bytes, by filefrag's word."""
    shown = subprocess.run(
        ["filefrag", "-b1", "-v", str(path)], check=True, capture_output=True, text=True
    ).stdout
    rows = re.findall(r"^\s*\d+:\s*\d+\.\.\s*\d+:\s*(\d+)\.\.\s*\d+:\s*(\d+):", shown, re.MULTILINE)
    assert rows, shown
    return [(int(start), int(length)) for start, length in rows]


def middle(path: Path) -> int:
    """The byte of the device that has half of a file below it."""
    extents = sorted(physical_extents(path))
    half = sum(length for _, length in extents) // 2
    for start, length in extents:
        if half < length:
            return start + half
        half -= length
    raise AssertionError("no extents")


def naive_copy(source: str, target: Path, *, stop_at: int, meanwhile: Callable[[], None]) -> None:
    """Copy a device front to back, as dd does; at one offset the world goes on.

    Reads bypass the page cache, so that what is copied is what lies on the device.
    """
    stop_at -= stop_at % PIECE
    with open(target, "xb") as out:
        fd = os.open(source, os.O_RDONLY)
        try:
            offset = 0
            while True:
                if offset == stop_at:
                    meanwhile()
                os.posix_fadvise(fd, offset, PIECE, os.POSIX_FADV_DONTNEED)
                data = os.pread(fd, PIECE, offset)
                if not data:
                    break
                if data.count(0) == len(data):
                    out.seek(len(data), os.SEEK_CUR)
                else:
                    out.write(data)
                offset += len(data)
            out.truncate(offset)
        finally:
            os.close(fd)
