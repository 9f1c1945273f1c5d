"""VHDX against strangers: their images read right here, and ours there.

Fixed sizes and fills are a small matrix in the normal run, a large one with ``--long``.  Images
above 16 GiB are sparse; they are checked as a whole and read in seeded places.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import corpus_images
import huge
import oracles
import vhdx_spec
from requirements import require_program
from vhdx_images import MIB, SECTOR, Data, Zero, log_entry, map_of, with_log, write
from vsssnap import create_image, open_image, verify_image
from vsssnap.errors import CorruptImageError
from vsssnap.formats import ImageReader
from vsssnap.formats.vhdx import VhdxFormat, VhdxOptions
from vsssnap.metadata import ImageMetadata
from vsssnap.testing.powercut import PowerCut

FILLS = ("empty", "full", "sparse", "alternating")


def seen(reader: ImageReader) -> oracles.Content:
    """What we read."""

    def blocks() -> Iterator[tuple[int, bytes]]:
        for offset, block in reader.blocks(oracles.BLOCK):
            yield offset, bytes(block)

    return oracles.Content(reader.size, oracles.digest_of(blocks()))


def disk(size: int, fill: str, seed: int = 0) -> bytearray:
    """A disk of a fill."""
    dice = random.Random(f"{size} {fill} {seed}")
    if fill == "full":
        return bytearray(dice.randbytes(size))
    data = bytearray(size)
    if fill == "sparse":
        for _ in range(1 + size // MIB):
            at = dice.randrange(size // 512) * 512
            length = min(512 * dice.randrange(1, 300), size - at)
            data[at : at + length] = dice.randbytes(length)
    elif fill == "alternating":
        for at in range(0, size, 1024):
            data[at : at + 512] = dice.randbytes(min(512, size - at))
    return data


def save(path: Path, data: bytes | bytearray, options: VhdxOptions, parent: Path | None = None) -> None:
    below = open_image(parent) if parent is not None else None
    writer = create_image(path, len(data), format="vhdx", options=options, parent=below)
    for at in range(0, len(data), writer.unit):
        writer.pwrite(memoryview(data)[at : at + writer.unit], at)
    writer.finish()
    if below is not None:
        below.close()


def agree(path: Path, kind: str, data: bytes | bytearray, *parents: Path) -> None:
    """Checkers say nothing, and every family that reads this kind reads ``data``."""
    assert verify_image(path).ok
    assert not oracles.complaints(path, kind)
    wanted = oracles.content_of(bytes(data))
    for family in oracles.readers(kind):
        assert oracles.content(family, path, kind, parents=list(parents)) == wanted, family


# Their images.


CORPUS = [
    "dfvfs/ntfs-parent.vhdx",
    "dfvfs/ntfs-dynamic.vhdx",
    "dfvfs/ntfs-fixed.vhdx",
    "dfvfs/ntfs-differential.vhdx",  # a child made by Windows
    "DiscUtils/btrfs.vhdx",
    "DiscUtils/swap.vhdx",
    "DiscUtils/vhdx-log-replay.vhdx",  # an empty disk unless its log is replayed
]


def test_every_vhdx_of_the_corpus_is_tried() -> None:
    known = corpus_images.expected().items()
    assert sorted(CORPUS) == sorted(name for name, image in known if image.format == "vhdx")


@pytest.mark.parametrize("name", CORPUS)
def test_images_of_windows_read_right(name: str) -> None:
    known = corpus_images.expected()[name]
    path = corpus_images.image(name)
    before = path.stat().st_mtime_ns
    for parent in known.parents:
        corpus_images.image(parent)

    with open_image(path) as reader:
        assert seen(reader) == oracles.Content(known.size, known.digest)

    assert verify_image(path).ok
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize("subformat", ["dynamic", "fixed"])
def test_images_of_qemu_read_right(tmp_path: Path, subformat: str) -> None:
    raw, path = tmp_path / "a.raw", tmp_path / "a.vhdx"
    raw.write_bytes(disk(33 * MIB + 512, "sparse"))
    command = [require_program("qemu-img"), "convert", "-f", "raw", "-O", "vhdx"]
    oracles.run([*command, "-o", f"subformat={subformat}", raw, path])

    with open_image(path) as reader:
        assert seen(reader) == oracles.content_of_file(raw)
    assert verify_image(path).ok


def test_the_log_is_replayed_as_qemu_does(tmp_path: Path) -> None:
    """Data, zeros, later entries over earlier ones, a tail in the midst of them."""
    data = disk(4 * MIB, "full")
    image = write(data, VhdxOptions(block_size=MIB))
    where = map_of(image)
    start = where.payload(image, 0)[1]
    dice = random.Random(3)
    offset = 20 * SECTOR
    tail, entries = offset, []
    for sequence, count in enumerate((1, 5, 100, 1, 5, 3, 2), 5):
        writes: list[Zero | Data] = [
            Data(start + dice.randrange(1024) * SECTOR, dice.randbytes(SECTOR))
            if dice.random() < 0.6
            else Zero(start + dice.randrange(1000) * SECTOR, dice.randrange(1, 20) * SECTOR)
            for _ in range(count)
        ]
        # One goes into the BAT: block 3 loses its place.
        bat = bytearray(image[where.bat : where.bat + SECTOR])
        bat[24:32] = bytes(8)
        writes.append(Data(where.bat, bytes(bat)))
        entry = log_entry(sequence, tail, writes, flushed=len(image), last=len(image))
        entries.append((offset, entry))
        offset = (offset + len(entry)) % MIB
    path = tmp_path / "log.vhdx"
    path.write_bytes(with_log(image, entries))

    with open_image(path) as reader:
        assert reader.info()["log"] == "replayed"
        assert seen(reader) == oracles.content("qemu-replay", path, "vhdx-log")
        assert reader.pread(MIB, 3 * MIB) == bytes(MIB)


# Ours.

SMALL_MATRIX = [
    (MIB, "sparse", VhdxOptions()),
    (37 * MIB + 4096, "sparse", VhdxOptions()),
    (9 * MIB, "full", VhdxOptions(block_size=MIB)),
    (5 * MIB + 8192, "alternating", VhdxOptions(fixed=True)),
    (40 * MIB, "empty", VhdxOptions(block_size=256 * MIB)),
]


@pytest.mark.parametrize(("size", "fill", "options"), SMALL_MATRIX)
def test_ours_are_read_by_all(tmp_path: Path, size: int, fill: str, options: VhdxOptions) -> None:
    data = disk(size, fill)
    save(tmp_path / "a.vhdx", data, options)
    agree(tmp_path / "a.vhdx", "vhdx", data)


def test_an_image_cut_off_by_a_power_cut_is_refused_or_whole_for_qemu_too(tmp_path: Path) -> None:
    """At each of the writes; the log that we left is replayed by qemu into the file."""
    data = disk(600 * MIB, "empty")
    for at in (0, 3 * MIB, 599 * MIB):
        data[at : at + 4096] = disk(4096, "full", seed=at)
    recorder = PowerCut()
    writer = VhdxFormat().create(recorder, len(data), options=VhdxOptions(block_size=MIB))
    for at in (0, 3 * MIB, 599 * MIB):
        writer.pwrite(memoryview(data)[at : at + MIB], at)
    writer.finish(ImageMetadata())
    wanted = oracles.content_of(bytes(data))
    path = tmp_path / "cut.vhdx"
    logs = []
    for cut in recorder.cuts():
        path.write_bytes(cut.storage.data)
        try:
            with open_image(path) as reader:
                logs.append(reader.info()["log"])
                assert seen(reader) == wanted, cut.description
        except CorruptImageError:
            assert not logs, cut.description  # whole once, whole ever after
            with pytest.raises(oracles.OracleError):
                oracles.content("qemu-replay", path, "vhdx")
            continue
        kind = "qemu-replay" if logs[-1] == "replayed" else "qemu"
        assert oracles.content(kind, path, "vhdx") == wanted, cut.description
    assert set(logs) == {"replayed", "empty"}


@pytest.mark.parametrize("size", [512, 3 * MIB + 512])
def test_ours_of_odd_sizes_are_read(tmp_path: Path, size: int) -> None:
    data = disk(size, "full")
    save(tmp_path / "a.vhdx", data, VhdxOptions())
    agree(tmp_path / "a.vhdx", "vhdx-odd", data)


def test_ours_of_large_sectors_are_read(tmp_path: Path) -> None:
    for kind, size in (("vhdx-4kn", 5 * MIB), ("vhdx-4kn-odd", 5 * MIB + 4096)):
        data = disk(size, "alternating")
        save(tmp_path / kind, data, VhdxOptions(logical_sector_size=4096))
        agree(tmp_path / kind, kind, data)


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("block_size", [MIB, 32 * MIB])
def test_a_chain_of_ours_is_read(tmp_path: Path, block_size: int, sector: int) -> None:
    options = VhdxOptions(block_size=block_size, logical_sector_size=sector)
    base = disk(12 * MIB + 8 * sector, "full")
    child, grandchild = bytearray(base), bytearray(base)
    dice = random.Random(6)
    for _ in range(60):
        at, length = dice.randrange(len(base)), dice.randrange(1, 40000)
        piece = dice.choice([dice.randbytes(length), bytes(length)])[: len(base) - at]
        child[at : at + len(piece)] = piece
        grandchild[at : at + len(piece) // 2] = piece[: len(piece) // 2]
    child[4 * MIB : 8 * MIB] = bytes(4 * MIB)
    names = [tmp_path / name for name in ("base.vhdx", "child.vhdx", "grandchild.vhdx")]
    save(names[0], base, options)
    save(names[1], child, options, names[0])
    save(names[2], grandchild, options, names[1])

    agree(names[1], "vhdx-diff-zero" if block_size == MIB else "vhdx-diff", child, names[0])
    assert vhdx_spec.read(names[1].read_bytes(), names[0].read_bytes()) == child
    agree(names[2], "vhdx-diff-chain", grandchild, names[1], names[0])
    assert vhdx_spec.read(*(name.read_bytes() for name in names[::-1])) == grandchild


@pytest.mark.parametrize(
    "size", [pytest.param((2 << 40) + 4096, marks=pytest.mark.long), 64 << 40], ids=["2TiB", "64TiB"]
)
def test_ours_of_huge_sizes_are_read_in_places(tmp_path: Path, size: int) -> None:
    dice = random.Random(size)
    places = sorted({0, size - MIB, *(dice.randrange(size // MIB) * MIB for _ in range(20))})
    path = tmp_path / "huge.vhdx"
    writer = create_image(path, size)
    stored = {at: dice.randbytes(MIB) for at in places}
    for at, data in stored.items():
        writer.pwrite(memoryview(data)[: size - at], at)
    writer.finish()
    assert not oracles.complaints(path, "vhdx", huge=True)
    assert verify_image(path).ok
    spots = []
    for _ in range(200):
        at = dice.choice(places) + dice.randrange(-2000, MIB) if dice.random() < 0.7 else dice.randrange(size)
        at = max(0, min(at, size - 4096)) // 512 * 512
        spots.append((at, 4096))
    with open_image(path) as reader:
        block_size = reader.info()["block_size"]
        ours = [reader.pread(length, at) for at, length in spots]
    for (at, length), data in zip(spots, ours, strict=True):
        wanted = bytearray(length)
        for place, block in stored.items():
            first, last = max(at, place), min(at + length, place + MIB)
            if first < last:
                wanted[first - at : last - at] = block[first - place : last - place]
        assert data == wanted
    for family in ("qemu", "libyal", "dissect"):
        assert oracles.spots(family, path, "vhdx", spots) == ours, family
    huge.check_map(path, "vhdx", [(at, min(at + MIB, size)) for at in places], block_size)


@pytest.mark.long
@pytest.mark.parametrize("block_size", [MIB << n for n in range(9)])
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("size", [512, 4096, MIB - 512, MIB, 2 * MIB + 512, 70 * MIB + 4096])
def test_full_matrix(tmp_path: Path, size: int, fill: str, block_size: int) -> None:
    data = disk(size, fill)
    kind = "vhdx-odd" if size % 4096 else "vhdx"
    for number, (fixed, sector) in enumerate(itertools.product((False, True), (512, 4096))):
        if sector == 4096 and size % 4096:
            continue
        path = tmp_path / f"{number}.vhdx"
        save(path, data, VhdxOptions(block_size=block_size, fixed=fixed, logical_sector_size=sector))
        agree(path, kind if sector == 512 else "vhdx-4kn-odd" if size % 32768 else "vhdx-4kn", data)
        path.unlink()


@pytest.mark.long
@pytest.mark.parametrize("block_size", [MIB << n for n in range(9)])
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("size", [4096, 2 * MIB + 512, 70 * MIB + 4096])
def test_full_matrix_of_children(tmp_path: Path, size: int, fill: str, block_size: int) -> None:
    base = disk(size, fill)
    kind = "vhdx-diff-zero-odd" if size % 4096 else "vhdx-diff-zero"
    options = VhdxOptions(block_size=block_size)
    save(tmp_path / "base.vhdx", base, VhdxOptions())
    below = (tmp_path / "base.vhdx").read_bytes()
    for over in FILLS:
        data = disk(size, over, seed=1)
        half = size // 1024 * 512
        for number, child in enumerate((data, base[:half] + data[half:])):
            path = tmp_path / f"{over}-{number}.vhdx"
            save(path, child, options, tmp_path / "base.vhdx")
            agree(path, kind, child, tmp_path / "base.vhdx")
            assert vhdx_spec.read(path.read_bytes(), below) == child
            path.unlink()
