from __future__ import annotations

import random
from pathlib import Path

import pytest

from foreign import corpus_file, dumpe2fs_free, free_of, run_quietly, tsk_free
from sources import Patched
from vsssnap import ExtentKind, open_device
from vsssnap.testing import MemoryReader
from vsssnap.volumes import FileSystem, filesystem

MIB = 1 << 20


def made(folder: Path, size: int, *options: str) -> Path:
    """A volume with files, some of which were removed again."""
    volume, content = folder / "v.img", folder / "content"
    content.mkdir()
    rng = random.Random(1)
    for index in range(30):
        (content / f"f{index}").write_bytes(rng.randbytes(rng.randrange(1, 400_000)))
    with volume.open("xb") as file:
        file.truncate(size)
    run_quietly("mke2fs", "-F", "-q", "-L", "label", "-d", content, *options, volume)
    for index in range(0, 30, 3):
        run_quietly("debugfs", "-w", "-R", f"rm /f{index}", volume)
    return volume


def free(fs: FileSystem) -> list[tuple[int, int]]:
    return [(each.offset, each.end) for each in fs.allocation() if each.kind is ExtentKind.HOLE]


@pytest.mark.parametrize(
    ("name", "options", "cluster"),
    [
        ("ext2", "-t ext2", 1024),
        ("ext2", "-t ext2 -r 0 -O none", 1024),
        ("ext2", "-t ext2 -b 4096 -g 2048", 4096),
        ("ext3", "-t ext3", 1024),
        ("ext4", "-t ext4", 1024),
        ("ext4", "-t ext4 -b 4096 -g 1024", 4096),
        ("ext4", "-t ext4 -O ^metadata_csum,uninit_bg", 1024),
        ("ext4", "-t ext4 -O ^flex_bg", 1024),
        ("ext4", "-t ext4 -O ^flex_bg,^metadata_csum,uninit_bg,^64bit", 1024),
        ("ext4", "-t ext4 -O meta_bg,^resize_inode", 1024),
        ("ext4", "-t ext4 -b 4096 -g 256 -O meta_bg,^resize_inode", 4096),
        ("ext4", "-t ext4 -O bigalloc", 16384),
        ("ext4", "-t ext4 -b 4096 -O bigalloc -C 65536", 65536),
        ("ext4", "-t ext4 -b 1024 -O bigalloc,meta_bg,^resize_inode -C 4096", 4096),
        ("ext4", "-t ext4 -O sparse_super2", 1024),
        ("ext4", "-t ext4 -O ^sparse_super,^resize_inode", 1024),
        ("ext4", "-t ext4 -O metadata_csum_seed,orphan_file", 1024),
    ],
)
def test_the_map_is_what_dumpe2fs_says(name: str, options: str, cluster: int, tmp_path: Path) -> None:
    # Five groups and a part of one, so that several are untouched.
    volume = made(tmp_path, 45 * MIB + 5 * 1024, *options.split())
    assert free_of(volume) == dumpe2fs_free(volume, cluster)
    with open_device(volume) as reader:
        fs = filesystem(reader)
        assert fs is not None
        uuid = run_quietly("dumpe2fs", "-h", volume).split("Filesystem UUID:")[1].split()[0]
        assert (fs.name, fs.label, fs.serial, fs.dirty, fs.block_size) == (
            name,
            "label",
            uuid,
            False,
            cluster,
        )


def test_the_map_of_a_volume_of_the_corpus(tmp_path: Path) -> None:
    volume = corpus_file("dfvfs/ext4.raw", tmp_path)
    assert free_of(volume) == dumpe2fs_free(volume, 1024) == tsk_free(volume, 1024, "ext")


def test_what_follows_the_file_system_is_kept(tmp_path: Path) -> None:
    volume = made(tmp_path, 20 * MIB, "-t", "ext4")
    with volume.open("ab") as file:
        file.write(b"tail" * 1000)
    with open_device(volume) as reader:
        fs = filesystem(reader)
        assert fs is not None
        assert fs.size == 20 * MIB
        assert fs.view().pread(4000, 20 * MIB) == b"tail" * 1000


@pytest.mark.parametrize(
    ("command", "doubt"),
    [
        ("feature needs_recovery", "its journal needs recovery"),
        ("set_super_value state 0", "needs e2fsck"),
        ("set_super_value state 3", "needs e2fsck"),
        ("set_super_value feature_incompat 0x802c2", "features 0x80000 and 0x0 are not known"),
        ("set_super_value feature_ro_compat 0x2000046b", "features 0x0 and 0x20000000 are not known"),
    ],
)
def test_what_was_not_closed_or_is_not_known_keeps_every_block(
    command: str, doubt: str, tmp_path: Path
) -> None:
    volume = made(tmp_path, 20 * MIB, "-t", "ext4")
    run_quietly("debugfs", "-w", "-R", command, volume)
    content = volume.read_bytes()
    fs = filesystem(MemoryReader(content))
    assert fs is not None
    assert doubt in fs.doubt
    assert free(fs) == []
    assert fs.view().pread(len(content), 0) == content
    assert doubt in fs.view().metadata.notes[-1]


@pytest.mark.parametrize("options", ["-t ext4", "-t ext4 -O ^metadata_csum,uninit_bg"])
def test_every_mutation_of_what_has_a_checksum_frees_nothing(options: str, tmp_path: Path) -> None:
    volume = made(tmp_path, 20 * MIB, "-b", "1024", *options.split())
    content = volume.read_bytes()
    truth = sectors(free_of(volume))
    places = [*range(2048, 2048 + 64 * 3)]
    if "^metadata_csum" not in options:
        bitmap = int.from_bytes(content[2048:2052], "little") * 1024
        places += [*range(1024, 2048, 5), *range(bitmap, bitmap + 1024, 7)]
    shrunk = 0
    for place in places:
        fs = filesystem(Patched(content, place, 0xFF))
        if fs is not None:
            now = sectors(free(fs))
            assert now <= truth, f"byte {place}"
            shrunk += now < truth
    assert shrunk > len(places) // 2


def test_every_mutation_of_what_has_none_is_borne(tmp_path: Path) -> None:
    volume = made(tmp_path, 20 * MIB, "-t", "ext2", "-b", "1024")
    content = volume.read_bytes()
    truth = sectors(free_of(volume))
    bitmap = int.from_bytes(content[2048:2052], "little") * 1024
    for place in range(bitmap, bitmap + 1024, 3):  # the descriptor counts the free blocks
        fs = filesystem(Patched(content, place, 0x10))
        assert fs is not None
        assert sectors(free(fs)) < truth
    for place in (*range(1024, 1024 + 264), *range(2048, 2048 + 96)):
        for flip in (0x01, 0xFF):
            fs = filesystem(Patched(content, place, flip))
            if fs is not None:
                extents = list(fs.allocation())
                assert sum(each.length for each in extents) == len(content)


def sectors(ranges: list[tuple[int, int]]) -> set[int]:
    return {at for start, end in ranges for at in range(start, end, 1024)}


def test_a_volume_cut_short_keeps_what_is_there(tmp_path: Path) -> None:
    content = made(tmp_path, 20 * MIB, "-t", "ext4").read_bytes()
    for size in (2048, 4096, 10 * MIB, 20 * MIB - 1024):
        fs = filesystem(MemoryReader(content[:size]))
        assert fs is not None
        assert free(fs) == []
        assert fs.doubt


def test_zeros_are_no_file_system() -> None:
    assert filesystem(MemoryReader(bytes(4096))) is None
    assert filesystem(MemoryReader(bytes(1500))) is None


def test_the_checksum_of_descriptors_is_the_kernels_crc16() -> None:
    from vsssnap.volumes.ext.checksums import crc16

    assert crc16(0, b"123456789") == 0xBB3D  # CRC-16/ARC
    assert crc16(0xFFFF, b"123456789") == 0x4B37  # CRC-16/MODBUS


def test_memory_does_not_grow_with_the_volume(tmp_path: Path) -> None:
    import tracemalloc

    volume = tmp_path / "large.img"
    with volume.open("xb") as file:
        file.truncate(64 << 30)  # 512 groups
    options = ["-E", "lazy_itable_init=1,nodiscard", "-O", "^has_journal,^resize_inode"]
    run_quietly("mke2fs", "-F", "-q", "-t", "ext4", "-b", "4096", "-N", "100000", *options, volume)
    with open_device(volume) as reader:
        fs = filesystem(reader)
        assert fs is not None
        tracemalloc.start()
        kept = sum(each.length for each in fs.allocation() if each.kind is ExtentKind.DATA)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert 0 < kept < 1 << 29
    assert peak < 2 * MIB
