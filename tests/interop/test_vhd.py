"""VHD images that we write, as other programs read them, and theirs as we read them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import corpus_images
import huge
import oracles
from requirements import require_program
from vsssnap import Extent, ExtentKind, open_image, save_image
from vsssnap.formats.vhd import VhdFormat, VhdOptions

MIB = 1 << 20
CORPUS = [
    "dissect.hypervisor/disk/vhd/dynamic.vhd",
    "dissect.hypervisor/disk/vhd/fixed.vhd",
    "dfvfs/ntfs-parent.vhd",
    "dfvfs/ntfs-dynamic.vhd",
    "dfvfs/ntfs-fixed.vhd",
    "dfvfs/ntfs-differential.vhd",
    "dfvfs/image.vhd",
    "plaso/image.vhd",
]


def seen_by_us(path: Path, *, recover: bool = False) -> oracles.Content:
    with open_image(path, recover=recover) as image:
        blocks = ((at, bytes(block)) for at, block in image.blocks(oracles.BLOCK))
        return oracles.Content(image.size, oracles.digest_of(blocks))


@pytest.mark.parametrize("name", CORPUS)
def test_image_of_the_corpus_reads_as_expected(name: str) -> None:
    known = corpus_images.expected()[name]
    path = corpus_images.image(name)
    for parent in known.parents:
        corpus_images.image(parent)

    seen = seen_by_us(path, recover=name == "dfvfs/image.vhd")  # its checksums are wrong

    assert seen == oracles.Content(known.size, known.digest)


def test_every_vhd_of_the_corpus_is_tried() -> None:
    assert sorted(CORPUS) == sorted(
        name for name, known in corpus_images.expected().items() if known.format == "vpc"
    )


def volume(size: int, pattern: str, seed: int) -> bytes:
    dice = random.Random(seed)
    if pattern == "empty":
        return bytes(size)
    if pattern == "noise":
        return dice.randbytes(size)
    data = bytearray(size)
    if pattern == "alternating":
        for at in range(0, size, 128 << 10):
            piece = min(64 << 10, size - at)
            data[at : at + piece] = dice.randbytes(piece)
    else:  # "sparse": some sectors, among them the last one
        for sector in [*(dice.randrange(size // 512) for _ in range(12)), size // 512 - 1]:
            data[sector * 512 : sector * 512 + 512] = dice.randbytes(512)
    return bytes(data)


def save(
    folder: Path, name: str, data: bytes, options: VhdOptions | None, parent: Path | None = None
) -> Path:
    source = folder / f"{name}.raw"
    source.write_bytes(data)
    target = folder / f"{name}.vhd"
    with open_image(source) as disk:
        if parent is None:
            save_image(disk, target, options=options)
        else:
            with open_image(parent) as below:
                save_image(disk, target, options=options, parent=below)
    return target


def assert_all_read(path: Path, kind: str, data: bytes, parents: list[Path] | None = None) -> None:
    wanted = oracles.content_of(data)
    families = oracles.readers(kind)
    assert len(families) >= 2
    for family in families:
        assert oracles.content(family, path, kind, parents=parents or []) == wanted, family
    assert oracles.complaints(path, kind) == []


SMALL = [
    (512, "noise", "dynamic", 2 * MIB),
    (104_448, "noise", "dynamic", 2 * MIB),
    (4 * MIB + 512, "alternating", "dynamic", 2 * MIB),
    (5 * MIB, "sparse", "dynamic", 512 << 10),
    (3 * MIB, "empty", "dynamic", 2 * MIB),
    (5 * MIB + 512, "sparse", "fixed", 2 * MIB),
]
FULL = [
    (size, pattern, kind, block)
    for size in (512, 1024, 104_448, 2 * MIB, 2 * MIB + 512, 9 * MIB + 1536, 67 * MIB + 512)
    for pattern in ("empty", "noise", "sparse", "alternating")
    for kind, block in (("dynamic", 2 * MIB), ("dynamic", 512 << 10), ("fixed", 2 * MIB))
]


def case(size: int, pattern: str, kind: str, block: int, folder: Path) -> None:
    data = volume(size, pattern, size)
    options = VhdOptions(kind=kind, block_size=block)  # type: ignore[arg-type]  # one of its literals
    path = save(folder, "image", data, options)

    assert_all_read(path, "vhd", data)
    assert seen_by_us(path) == oracles.content_of(data)


@pytest.mark.parametrize(("size", "pattern", "kind", "block"), SMALL)
def test_others_read_what_we_write(size: int, pattern: str, kind: str, block: int, tmp_path: Path) -> None:
    case(size, pattern, kind, block, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(("size", "pattern", "kind", "block"), FULL)
def test_others_read_all_that_we_write(
    size: int, pattern: str, kind: str, block: int, tmp_path: Path
) -> None:
    case(size, pattern, kind, block, tmp_path)


def chain(folder: Path, size: int, block: int) -> tuple[list[Path], list[bytes]]:
    """Three images behind one another: each changes, adds and zeroes some of the one before."""
    options = VhdOptions(block_size=block)
    dice = random.Random(size)
    data = bytearray(volume(size, "alternating", 1))
    paths, contents = [save(folder, "first", bytes(data), options)], [bytes(data)]
    for name in ("second", "third"):
        for _ in range(6):
            at = dice.randrange(size // 512) * 512
            length = min(dice.choice([512, 1536, 65536, 700 * 512]), size - at)
            data[at : at + length] = dice.choice([bytes(length), dice.randbytes(length)])
        paths.append(save(folder, name, bytes(data), options, paths[-1]))
        contents.append(bytes(data))
    return paths, contents


@pytest.mark.parametrize(
    ("size", "block"),
    [
        (5 * MIB + 512, 2 * MIB),
        pytest.param(6 * MIB, 512 << 10, marks=pytest.mark.long),
        pytest.param(512, 2 * MIB, marks=pytest.mark.long),
        pytest.param(65 * MIB, 2 * MIB, marks=pytest.mark.long),
    ],
)
def test_others_read_our_chains(size: int, block: int, tmp_path: Path) -> None:
    paths, contents = chain(tmp_path, size, block)

    for number in (1, 2):
        assert_all_read(paths[number], "vhd-diff", contents[number], paths[number - 1 :: -1])
        assert seen_by_us(paths[number]) == oracles.content_of(contents[number])


@pytest.mark.parametrize("subformat", ["dynamic", "fixed"])
@pytest.mark.parametrize("force", ["on", "off"])
@pytest.mark.parametrize("size", [512, 10 * MIB, 3 << 30])
def test_images_made_by_qemu_have_the_size_that_qemu_sees(
    subformat: str, force: str, size: int, tmp_path: Path
) -> None:
    """Without force_size QEMU makes a geometry and means that; with it the creator is ``qem2``."""
    path = tmp_path / "image.vhd"
    qemu = require_program("qemu-img")
    options = f"subformat={subformat},force_size={force}"
    oracles.run([qemu, "create", "-q", "-f", "vpc", "-o", options, path, str(size)])
    said = oracles.run([qemu, "measure", "-f", "vpc", "-O", "raw", path]).stdout
    wanted = int(said.split("required size: ")[1].split()[0])

    with open_image(path) as image:
        assert image.size == wanted
        assert image.size == size or force == "off"


def test_content_written_by_qemu_reads_right(tmp_path: Path) -> None:
    data = volume(34 * MIB, "sparse", 6)
    raw, path = tmp_path / "content.raw", tmp_path / "image.vhd"
    raw.write_bytes(data)
    options = ["-f", "raw", "-O", "vpc", "-o", "force_size=on"]
    oracles.run([require_program("qemu-img"), "convert", *options, raw, path])

    assert seen_by_us(path) == oracles.content_of(data)


def test_largest_volume_is_read_by_others(tmp_path: Path) -> None:
    size = 2040 << 30
    path = tmp_path / "huge.vhd"
    starts, spots, wanted = huge.write(path, size)

    with open_image(path) as image:
        assert image.size == size
        assert [image.pread(length, at) for at, length in spots] == wanted
    for family in ("qemu", "libyal", "dissect"):
        assert oracles.spots(family, path, "vhd", spots) == wanted, family
    assert oracles.complaints(path, "vhd", huge=True) == []
    huge.check_map(path, "vhd", [(start, start + MIB) for start in starts], 2 * MIB)


def test_holes_survive(tmp_path: Path) -> None:
    path = save(tmp_path, "image", bytes(MIB) + b"x" * 65536 + bytes(7 * MIB), None)
    with open_image(path) as image:
        assert list(image.extents()) == [
            Extent(0, MIB, ExtentKind.ZERO),
            Extent(MIB, 65536),
            Extent(MIB + 65536, 7 * MIB, ExtentKind.ZERO),
        ]
    assert path.stat().st_size < 3 * MIB


def test_recognised_without_a_suffix(tmp_path: Path) -> None:
    found: Iterator[Path] = (tmp_path / name for name in ("a", "b"))
    for kind, path in zip(("fixed", "dynamic"), found, strict=True):
        save(tmp_path, "image", bytes(MIB), VhdOptions(kind=kind)).rename(path)  # type: ignore[arg-type]
        with open_image(path) as image:
            assert image.format == VhdFormat.name
