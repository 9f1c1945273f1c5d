"""Damage of every kind, at random: an answer, or one of our errors, and soon."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from foreign import corpus_file, mkntfs, ntfs_put, run_quietly, sfdisk
from loops import sparse_file
from vsssnap import ExtentKind
from vsssnap.blocks.extent import Extent
from vsssnap.errors import DeviceReadError, UsageError, VssSnapError
from vsssnap.testing import MemoryReader
from vsssnap.volumes import Partitions, filesystem

MIB = 1 << 20


def ntfs(folder: Path) -> bytes:
    volume = mkntfs(folder / "ntfs", 4 * MIB, "-c", "512")
    for name in ("pagefile.sys", "hiberfil.sys", "a", "b"):
        ntfs_put(volume, name.encode() * 5000, name, folder)
    return volume.read_bytes()


def windows(folder: Path) -> bytes:
    return corpus_file("dfvfs/ntfs.raw", folder).read_bytes()


def ext4(folder: Path) -> bytes:
    volume = sparse_file(folder / "ext4", 12 * MIB)
    run_quietly("mke2fs", "-F", "-q", "-t", "ext4", "-b", "1024", "-g", "2048", volume)
    return volume.read_bytes()


def ext2(folder: Path) -> bytes:
    volume = sparse_file(folder / "ext2", 6 * MIB)
    run_quietly(
        "mke2fs", "-F", "-q", "-t", "ext2", "-b", "1024", "-g", "1024", "-O", "meta_bg,^resize_inode", volume
    )
    return volume.read_bytes()


def fat(folder: Path) -> bytes:
    volume = sparse_file(folder / "fat", 2 * MIB)
    run_quietly("mkfs.fat", "-F", "12", volume)
    return volume.read_bytes()


def fat32(folder: Path) -> bytes:
    volume = sparse_file(folder / "fat32", 8 * MIB)
    run_quietly("mkfs.fat", "-F", "32", "-s", "1", volume)
    return volume.read_bytes()


def exfat(folder: Path) -> bytes:
    volume = sparse_file(folder / "exfat", 6 * MIB)
    run_quietly("mkfs.exfat", volume)
    return volume.read_bytes()


def gpt(folder: Path) -> bytes:
    disk = sparse_file(folder / "gpt", MIB)
    sfdisk(disk, "label: gpt\nfirst-lba: 64\nstart=64, size=64\nstart=128, size=128\n")
    return disk.read_bytes()


def mbr(folder: Path) -> bytes:
    disk = sparse_file(folder / "mbr", MIB)
    sfdisk(
        disk,
        "label: dos\n1: start=64,size=64,type=7\n2: start=128,size=1024,type=5\n"
        "5: start=192,size=64\n6: start=320,size=64\n",
    )
    return disk.read_bytes()


MAKERS = [ntfs, windows, ext4, ext2, fat, fat32, exfat, gpt, mbr]


def look(reader: MemoryReader) -> None:
    """Ask for everything there is."""
    try:
        for partition in Partitions(reader):
            partition.open().pread(16, 0)
    except VssSnapError:
        pass
    try:
        fs = filesystem(reader)
        if fs is None:
            return
        view = fs.view()
        assert sum(extent.length for extent in view.extents()) == reader.size
        view.pread(100_000, reader.size // 3)
    except DeviceReadError:
        pass
    except VssSnapError as exc:
        pytest.fail(f"a damaged file system is one with a doubt, no error: {exc!r}")


def damaged(content: bytes, busy: list[int], rng: random.Random) -> bytes:
    """Some bytes of the sectors that hold anything are other ones, or a part is gone."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 2, 5, 40))):
        sector = rng.choice(busy)
        at = sector + rng.randrange(512)
        what = rng.randrange(5)
        if what == 0:
            data[at] = rng.randrange(256)
        elif what == 1:
            data[at : at + 8] = rng.choice((b"\xff" * 8, b"\x7f" + b"\xff" * 7, bytes(8), b"\0\0\0\x80" * 2))
        elif what == 2:
            data[sector : sector + 512] = rng.randbytes(512)
        elif what == 3:
            other = rng.choice(busy)
            data[sector : sector + 512] = content[other : other + 512]
        else:
            data[at] ^= 1 << rng.randrange(8)
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)) :]
    return bytes(data[: len(content)])


@pytest.mark.parametrize(
    "rounds", [16, pytest.param(3000, marks=[pytest.mark.long, pytest.mark.timeout(3000)])]
)
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_damage_never_surprises(make: object, rounds: int, tmp_path: Path) -> None:
    content = make(tmp_path)  # type: ignore[operator]  # one of the functions above
    busy = [at for at in range(0, len(content), 512) if any(content[at : at + 512])][:400]
    rng = random.Random(rounds)
    for _ in range(rounds):
        look(MemoryReader(damaged(content, busy, rng)))


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_sectors_that_cannot_be_read_are_borne(make: object, tmp_path: Path) -> None:
    content = make(tmp_path)  # type: ignore[operator]  # one of the functions above
    busy = [at for at in range(0, len(content), 512) if any(content[at : at + 512])]
    rng = random.Random(7)
    for _ in range(12):
        at = rng.choice(busy[:200])
        bad = Extent(at, 512, ExtentKind.UNREADABLE)
        extents = [Extent(0, at), bad, Extent(at + 512, len(content) - at - 512)]
        look(MemoryReader(content, [each for each in extents if each.length > 0]))


def test_noise_and_nothing_are_no_file_system() -> None:
    rng = random.Random(3)
    for size in (0, 1, 511, 512, 4096, 70_000, 300_000):
        assert filesystem(MemoryReader(rng.randbytes(size))) is None
        assert filesystem(MemoryReader(bytes(size))) is None


def test_what_is_no_source_is_refused() -> None:
    with pytest.raises(UsageError, match="no source of blocks"):
        filesystem(b"bytes")  # type: ignore[arg-type]  # that is the test
