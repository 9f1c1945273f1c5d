from __future__ import annotations

from pathlib import Path

import pytest

from foreign import free_ranges, run_quietly
from sources import Patched
from vsssnap import ExtentKind, open_device
from vsssnap.testing import MemoryReader
from vsssnap.volumes import FileSystem, filesystem

MIB = 1 << 20


def made(folder: Path, size: int, *options: str) -> Path:
    volume = folder / "v.img"
    with volume.open("xb") as file:
        file.truncate(size)
    run_quietly("mkfs.exfat", "-L", "label\u00e4", *options, volume)
    return volume


def free(fs: FileSystem) -> list[tuple[int, int]]:
    return [(each.offset, each.end) for each in fs.allocation() if each.kind is ExtentKind.HOLE]


def dumped(volume: Path) -> dict[str, int]:
    """The numbers that dump.exfat shows, by name."""
    numbers = {}
    for line in run_quietly("dump.exfat", volume).splitlines():
        name, _, value = line.partition(":")
        if value.strip().isdigit():
            numbers[name.strip()] = int(value)
    return numbers


@pytest.mark.parametrize(
    ("size", "options"),
    [(16 * MIB, "-c 512"), (64 * MIB, "-c 4K"), (300 * MIB, "-c 1M"), (64 * MIB, "-b 64K")],
)
def test_the_map_is_what_dump_exfat_says(size: int, options: str, tmp_path: Path) -> None:
    volume = made(tmp_path, size, *options.split())
    said = dumped(volume)
    with open_device(volume) as reader:
        fs = filesystem(reader)
        assert fs is not None
        assert (fs.name, fs.label, fs.doubt) == ("exfat", "label\u00e4", "")
        assert fs.block_size == said["Cluster size"]
        assert sum(end - start for start, end in free(fs)) == said["Free Clusters"] * fs.block_size
        heap = said["Cluster Heap Offset (sector offset)"] * 512
        at = heap + (said["Bitmap start cluster"] - 2) * fs.block_size  # contiguous in a new volume
        bitmap = reader.pread(said["Bitmap size"], at)
        assert free(fs) == free_ranges(bitmap, said["Cluster Count"], fs.block_size, heap)


def scattered(volume: Path) -> bytes:
    """The volume with bits set here and there, as files would."""
    said = dumped(volume)
    content = bytearray(volume.read_bytes())
    at = said["Cluster Heap Offset (sector offset)"] * 512
    at += (said["Bitmap start cluster"] - 2) * said["Cluster size"]
    for byte in range(100, said["Bitmap size"], 7):
        content[at + byte] = byte % 256
    return bytes(content)


def test_scattered_bits_are_scattered_clusters(tmp_path: Path) -> None:
    volume = made(tmp_path, 64 * MIB, "-c", "4K")
    content = scattered(volume)
    said = dumped(volume)
    heap = said["Cluster Heap Offset (sector offset)"] * 512
    at = heap + (said["Bitmap start cluster"] - 2) * 4096
    fs = filesystem(MemoryReader(content))
    assert fs is not None
    bitmap = content[at : at + said["Bitmap size"]]
    assert free(fs) == free_ranges(bitmap, said["Cluster Count"], 4096, heap)
    assert len(free(fs)) > 100


def test_a_dirty_volume_keeps_every_block(tmp_path: Path) -> None:
    content = made(tmp_path, 16 * MIB).read_bytes()
    fs = filesystem(Patched(content, 106, 2))
    assert fs is not None
    assert fs.dirty
    assert "dirty" in fs.doubt
    assert free(fs) == []


def test_every_mutation_gives_the_right_map_or_a_doubt(tmp_path: Path) -> None:
    volume = made(tmp_path, 16 * MIB, "-c", "4K")
    content = volume.read_bytes()
    fs = filesystem(MemoryReader(content))
    assert fs is not None
    truth = free(fs)
    said = dumped(volume)
    root = (
        said["Cluster Heap Offset (sector offset)"] * 512 + (said["Root Cluster (cluster offset)"] - 2) * 4096
    )
    table = said["FAT Offset(sector offset)"] * 512
    places = [*range(64, 114), 2000, 11 * 512 + 3, *range(root, root + 96, 1), *range(table, table + 24)]
    doubted = 0
    for place in places:
        fs = filesystem(Patched(content, place, 0xFF))
        assert fs is not None
        doubted += bool(fs.doubt)
        assert free(fs) == ([] if fs.doubt else truth), f"byte {place}"
    assert doubted > 50


def test_a_volume_cut_short_keeps_what_is_there(tmp_path: Path) -> None:
    content = made(tmp_path, 16 * MIB).read_bytes()
    for size in (512, 6144, 8 * MIB):
        fs = filesystem(MemoryReader(content[:size]))
        assert fs is not None
        assert fs.doubt
        assert free(fs) == []
