from __future__ import annotations

import random
from pathlib import Path

import pytest

from foreign import corpus_file, free_of, run_quietly, tsk_free
from sources import Patched
from vsssnap import ExtentKind, open_device
from vsssnap.testing import MemoryReader
from vsssnap.volumes import FileSystem, filesystem

MIB = 1 << 20


def made(folder: Path, size: int, *options: str) -> Path:
    """A volume with files, some of which were removed again."""
    volume = folder / "v.img"
    with volume.open("xb") as file:
        file.truncate(size)
    run_quietly("mkfs.fat", "-n", "LABEL", "-i", "1234ABCD", *options, volume)
    rng = random.Random(1)
    for index in range(24):
        (folder / f"f{index}").write_bytes(rng.randbytes(rng.randrange(1, size // 60)))
        run_quietly("mcopy", "-i", volume, folder / f"f{index}", f"::f{index}")
    for index in range(0, 24, 3):
        run_quietly("mdel", "-i", volume, f"::f{index}")
    return volume


def free(fs: FileSystem) -> list[tuple[int, int]]:
    return [(each.offset, each.end) for each in fs.allocation() if each.kind is ExtentKind.HOLE]


def found(content: bytes) -> FileSystem:
    fs = filesystem(MemoryReader(content))
    assert fs is not None
    return fs


CASES = [
    ("fat12", 4 * MIB, "-F 12"),
    ("fat12", 1440 * 1024, "-F 12 -s 1"),
    ("fat16", 40 * MIB, "-F 16"),
    ("fat16", 20 * MIB, "-F 16 -f 1 -s 2"),
    ("fat32", 40 * MIB, "-F 32 -s 1"),
    ("fat32", 300 * MIB, "-F 32 -S 4096 -s 1"),
]


@pytest.mark.parametrize(("name", "size", "options"), CASES)
def test_the_map_is_what_the_sleuth_kit_and_fsck_say(
    name: str, size: int, options: str, tmp_path: Path
) -> None:
    volume = made(tmp_path, size, *options.split())
    sector = 4096 if "4096" in options else 512
    with open_device(volume) as reader:
        fs = filesystem(reader)
        assert fs is not None
        assert (fs.name, fs.label, fs.serial, fs.doubt) == (name, "LABEL", "1234-ABCD", "")
        # "v.img: 16 files, 123/8167 clusters"
        used, _, total = run_quietly("fsck.fat", "-n", volume).split()[-2].partition("/")
        assert sum(end - start for start, end in free(fs)) == (int(total) - int(used)) * fs.block_size
    listed = tsk_free(volume, sector, name)
    assert free_of(volume) == [(start, min(end, fs.size)) for start, end in listed if start < fs.size]


def test_the_map_of_a_volume_of_the_corpus(tmp_path: Path) -> None:
    volume = corpus_file("dfvfs/fat12.raw", tmp_path)
    ranges = free_of(volume)
    assert ranges
    end = ranges[-1][1]
    assert ranges == [
        (start, min(stop, end)) for start, stop in tsk_free(volume, 512, "fat12") if start < end
    ]


@pytest.mark.parametrize(("name", "size", "options"), [CASES[2], CASES[4]])
def test_a_volume_in_use_keeps_every_block(name: str, size: int, options: str, tmp_path: Path) -> None:
    content = made(tmp_path, size, *options.split()).read_bytes()
    width = int(name[3:]) // 8
    table = int.from_bytes(content[14:16], "little") * 512
    for place, flip in ((37 if width == 2 else 65, 1), (table + 2 * width - 1, 0x80 if width == 2 else 8)):
        fs = filesystem(Patched(content, place, flip))
        assert fs is not None
        assert fs.dirty
        assert "in use" in fs.doubt
        assert free(fs) == []


def test_a_cluster_is_used_if_either_table_says_so_and_bad_ones_are_free(tmp_path: Path) -> None:
    volume = made(tmp_path, 40 * MIB, "-F", "32", "-s", "1")
    content = bytearray(volume.read_bytes())
    before = free_of(volume)
    reserved = int.from_bytes(content[14:16], "little") * 512
    length = int.from_bytes(content[36:40], "little") * 512
    heap = reserved + 2 * length
    cluster = (before[-1][1] - heap) // 512 + 1  # the last one
    at = reserved + length + cluster * 4  # in the second table alone
    content[at : at + 4] = (0x0FFF_FFFF).to_bytes(4, "little")
    assert free(found(bytes(content)))[-1][1] == before[-1][1] - 512
    for table in (reserved, reserved + length):
        content[table + cluster * 4 : table + cluster * 4 + 4] = (0x0FFF_FFF7).to_bytes(4, "little")
    assert free(found(bytes(content))) == before
    content[at : at + 4] = (0xF000_0000).to_bytes(4, "little")  # the highest bits are not the entry's
    assert free(found(bytes(content))) == before


def test_every_mutation_of_the_boot_sector_and_the_table_is_borne(tmp_path: Path) -> None:
    volume = made(tmp_path, 40 * MIB, "-F", "32", "-s", "1")
    content = volume.read_bytes()
    truth = {at for start, end in free_of(volume) for at in range(start, end, 512)}
    for place in range(3, 90):
        for flip in (0x01, 0xFF):
            fs = filesystem(Patched(content, place, flip))
            # The copy of the boot sector guards it.
            if fs is not None and not fs.doubt:
                now = {at for start, end in free(fs) for at in range(start, end, 512)}
                assert now == truth, f"byte {place}"


def test_a_volume_cut_short_keeps_what_is_there(tmp_path: Path) -> None:
    content = made(tmp_path, 4 * MIB, "-F", "12").read_bytes()
    for size in (512, 2048, 2 * MIB):
        fs = found(content[:size])
        assert fs.doubt
        assert free(fs) == []
