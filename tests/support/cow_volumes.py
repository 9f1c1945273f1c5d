"""Volumes in memory for the tests of CowVolume, and what its shadow storage really takes on disk."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vsssnap.blocks.cow import CowVolume
from vsssnap.blocks.extent import Extent, ExtentKind

BLOCK = 4096  # block size of the volumes under test
WAIT = 60.0  # seconds until a test gives a stuck thread up
PIECE = 512  # bytes that move at once, so that a torn read has somewhere to tear


class MemoryVolume:
    """Bytes in memory.

    Args:
        data: What it holds.
        slow: Whether every read and write lets other threads in between its pieces.
    """

    def __init__(self, data: bytes, *, slow: bool = False) -> None:
        self.data = bytearray(data)
        self.slow = slow
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        return len(self.data)

    def pread(self, length: int, offset: int, /) -> bytes:
        with self._lock:
            self.reads.append((length, offset))
        if not self.slow:
            return bytes(self.data[offset : offset + length])
        result = b""
        for at in range(offset, offset + length, PIECE):
            result += self.data[at : min(at + PIECE, offset + length)]
            time.sleep(0)
        return result

    def pwrite(self, data: memoryview, offset: int, /) -> None:
        with self._lock:
            self.writes.append((len(data), offset))
        for at in range(0, len(data), PIECE if self.slow else max(1, len(data))):
            piece = data[at : at + PIECE] if self.slow else data
            self.data[offset + at : offset + at + len(piece)] = piece
            if self.slow:
                time.sleep(0)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """ZERO for every aligned piece that is all zero at this moment."""
        end = offset + length
        while offset < end:
            stop = min(end, offset - offset % PIECE + PIECE)
            zero = not any(self.data[offset:stop])
            yield Extent(offset, stop - offset, ExtentKind.ZERO if zero else ExtentKind.DATA)
            offset = stop


def pattern(blocks: int, tail: int = 0) -> bytes:
    """Blocks of different content, none of them zero."""
    return b"".join(bytes([index % 251 + 1]) * BLOCK for index in range(blocks)) + b"T" * tail


def volume_of(
    data: bytes | MemoryVolume,
    folder: Path,
    **options: Any,  # noqa: ANN401 - the constructor's own
) -> CowVolume:
    """A volume with small blocks over ``data``."""
    backing = data if isinstance(data, MemoryVolume) else MemoryVolume(data)
    return CowVolume(backing, **{"block_size": BLOCK, "shadow_folder": folder, **options})


def shadow_files(folder: Path) -> list[Any]:
    """The `os.stat_result` of each unnamed file that this process holds in a folder; not on Windows."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            name, status = os.readlink(entry), entry.stat()
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
        if name.startswith(f"{folder}/") and not status.st_nlink:
            found.append(status)
    return found


def shadow_on_disk(folder: Path) -> int:
    """Bytes that those files take on disk."""
    return sum(status.st_blocks * 512 for status in shadow_files(folder))
