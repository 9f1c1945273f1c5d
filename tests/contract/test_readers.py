"""Every kind of reader that is handed out keeps the contract of `BlockReader`."""

from __future__ import annotations

from pathlib import Path

import pytest

from vsssnap import CowVolume, Snapshot, open_device, open_image, save_image
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.testing import (
    Faults,
    FaultyReader,
    MemoryProvider,
    MemoryReader,
    MemoryVolume,
    SeededDisk,
    check_reader,
    installed,
)

DATA = bytes(range(1, 256)) * 300 + bytes(70_000) + b"end" * 1001
MAP = [Extent(0, 76_500), Extent(76_500, 70_000, ExtentKind.HOLE), Extent(146_500, 3003)]


def test_reader_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(DATA)
    check_reader(lambda: open_device(path), DATA)


def test_reader_of_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "disk").touch()
    check_reader(lambda: open_device(tmp_path / "disk"), b"")


@pytest.mark.parametrize("suffix", ["raw", "vsnap"])
def test_reader_of_an_image(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"disk.{suffix}"
    save_image(MemoryReader(DATA, MAP), path)
    check_reader(lambda: open_image(path), DATA)


def test_reader_of_a_snapshot() -> None:
    volume = MemoryVolume(DATA)
    with installed(MemoryProvider), Snapshot(volume) as snapshot:
        check_reader(snapshot.open, DATA)


def test_reader_of_a_cow_snapshot(tmp_path: Path) -> None:
    backing = MemoryVolume(DATA)
    with CowVolume(backing, shadow_folder=tmp_path, block_size=4096) as volume, volume.snapshot() as taken:
        volume.pwrite(b"overwritten" * 1000, 70_000)
        check_reader(taken.open, DATA)


def test_reader_with_unreadable_ranges() -> None:
    bad = [Extent(0, 5000), Extent(5000, 512, ExtentKind.UNREADABLE), Extent(5512, len(DATA) - 5512)]
    check_reader(lambda: MemoryReader(DATA, bad), DATA)


def test_reader_with_faults_that_are_not_ordered() -> None:
    check_reader(lambda: FaultyReader(MemoryReader(DATA), Faults()), DATA)


@pytest.mark.parametrize("size", [0, 1, 513, 300_001, 1 << 40, (1 << 63) - 1])
def test_seeded_disk(size: int) -> None:
    class Expected:
        """What the disk works out in its other way."""

        def __init__(self) -> None:
            self.size = size
            self.pread = SeededDisk(size, 7, align=1).expected

    check_reader(lambda: SeededDisk(size, 7, align=1), Expected())
