"""VMDK images that we write, as other programs read them, and theirs as we read them."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

import corpus_images
import huge
import oracles
from requirements import require_program
from vsssnap import Depth, Extent, ExtentKind, open_image, save_image, verify_image
from vsssnap.errors import CorruptImageError
from vsssnap.formats import PipeStorage
from vsssnap.formats.vmdk import VmdkOptions

MIB = 1 << 20
GRAIN = 64 << 10
SESPARSE = "dissect.hypervisor/disk/vmdk/sesparse.vmdk"
WHOLE = ["dfvfs/ext2.vmdk", "plaso/image.vmdk"]
KINDS = {"monolithicSparse": "vmdk", "streamOptimized": "vmdk-stream"}


def seen_by_us(path: Path, *, recover: bool = False) -> oracles.Content:
    with open_image(path, recover=recover) as image:
        blocks = ((at, bytes(block)) for at, block in image.blocks(oracles.BLOCK))
        return oracles.Content(image.size, oracles.digest_of(blocks))


@pytest.mark.parametrize("name", WHOLE)
def test_image_of_the_corpus_reads_as_expected(name: str) -> None:
    known = corpus_images.expected()[name]
    assert seen_by_us(corpus_images.image(name)) == oracles.Content(known.size, known.digest)
    assert verify_image(corpus_images.image(name)).ok


def test_space_efficient_extent_reads_as_expected(tmp_path: Path) -> None:
    """The corpus has the extent alone; on a datastore a descriptor lies beside it."""
    known = corpus_images.expected()[SESPARSE]
    path = corpus_images.image(SESPARSE)
    with pytest.raises(CorruptImageError, match="a part of a disk"):
        open_image(path)
    assert seen_by_us(path, recover=True) == oracles.Content(known.size, known.digest)

    (tmp_path / "disk-sesparse.vmdk").symlink_to(path)
    (tmp_path / "disk.vmdk").write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        f'createType="seSparse"\nRW {known.size // 512} SESPARSE "disk-sesparse.vmdk"\n'
    )
    assert seen_by_us(tmp_path / "disk.vmdk") == oracles.Content(known.size, known.digest)
    assert verify_image(tmp_path / "disk.vmdk").ok


def test_every_vmdk_of_the_corpus_is_tried() -> None:
    assert sorted([*WHOLE, SESPARSE]) == sorted(
        name for name, known in corpus_images.expected().items() if known.format == "vmdk"
    )


# What we write.


def volume(size: int, pattern: str, seed: int) -> bytes:
    dice = random.Random(seed)
    if pattern == "empty":
        return bytes(size)
    if pattern == "noise":
        return dice.randbytes(size)
    data = bytearray(size)
    if pattern == "alternating":
        for at in range(0, size, 2 * GRAIN):
            piece = min(GRAIN, size - at)
            data[at : at + piece] = (dice.randbytes(32) * 2048)[:piece]
    else:  # "sparse": some sectors, among them the last one
        for sector in [*(dice.randrange(size // 512) for _ in range(12)), size // 512 - 1]:
            data[sector * 512 : sector * 512 + 512] = dice.randbytes(512)
    return bytes(data)


def save(folder: Path, name: str, data: bytes, options: VmdkOptions) -> Path:
    source = folder / f"{name}.raw"
    source.write_bytes(data)
    target = folder / f"{name}.vmdk"
    with open_image(source) as disk:
        save_image(disk, target, options=options)
    return target


def assert_all_read(
    path: Path, kind: str, wanted: oracles.Content, parents: list[Path] | None = None
) -> None:
    # dissect fails at the end of other volumes.
    families = [family for family in oracles.readers(kind) if family != "dissect" or not wanted.size % 8192]
    assert len(families) >= 2
    for family in families:
        assert oracles.content(family, path, kind, parents=parents or []) == wanted, family


SMALL = [
    (512, "noise", "monolithicSparse", GRAIN),
    (4 * MIB + 512, "alternating", "monolithicSparse", GRAIN),
    (35 * MIB + 1536, "sparse", "monolithicSparse", GRAIN),
    (3 * MIB, "noise", "monolithicSparse", 8 << 10),
    (512, "noise", "streamOptimized", GRAIN),
    (4 * MIB + 512, "alternating", "streamOptimized", GRAIN),
    (67 * MIB + 1536, "sparse", "streamOptimized", GRAIN),
    (2 * MIB, "noise", "streamOptimized", GRAIN),
    (3 * MIB, "empty", "streamOptimized", GRAIN),
]
FULL = [
    (size, pattern, kind, grain)
    for size in (512, 1024, 102_400, MIB, 32 * MIB, 32 * MIB + 512, 67 * MIB + 512)
    for pattern in ("empty", "noise", "sparse", "alternating")
    for kind in KINDS
    for grain in (8 << 10, GRAIN, MIB)
]


def case(size: int, pattern: str, kind: str, grain: int, folder: Path) -> None:
    data = volume(size, pattern, size)
    options = VmdkOptions(kind=kind, grain_size=grain)  # type: ignore[arg-type]  # one of its literals
    path = save(folder, "image", data, options)

    wanted = oracles.content_of(data)
    assert seen_by_us(path) == wanted
    assert verify_image(path, depth=Depth.CONTENT if kind == "streamOptimized" else None).ok
    assert_all_read(path, KINDS[kind], wanted)
    assert oracles.complaints(path, KINDS[kind]) == []


@pytest.mark.parametrize(("size", "pattern", "kind", "grain"), SMALL)
def test_others_read_what_we_write(size: int, pattern: str, kind: str, grain: int, tmp_path: Path) -> None:
    case(size, pattern, kind, grain, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(("size", "pattern", "kind", "grain"), FULL)
def test_others_read_all_that_we_write(
    size: int, pattern: str, kind: str, grain: int, tmp_path: Path
) -> None:
    case(size, pattern, kind, grain, tmp_path)


def test_stream_through_a_pipe_is_the_same_file(tmp_path: Path) -> None:
    data = volume(5 * MIB, "alternating", 2)
    options = VmdkOptions(kind="streamOptimized", cid=0x1234)
    path = save(tmp_path, "image", data, options)
    piped = tmp_path / "piped.vmdk"
    read_end, write_end = os.pipe()
    with open(piped, "wb") as file, subprocess.Popen(["cat"], stdin=read_end, stdout=file) as cat:
        os.close(read_end)
        with open_image(tmp_path / "image.raw") as disk:
            save_image(disk, PipeStorage(write_end, "image.vmdk"), format="vmdk", options=options)
        assert cat.wait(60) == 0
    assert piped.read_bytes() == path.read_bytes()


def test_stream_is_the_disk_of_an_appliance(tmp_path: Path) -> None:
    """An OVA is a tar of a description and its disks; 7-Zip and qemu take the disk out of it."""
    data = volume(4 * MIB, "alternating", 3)
    path = save(tmp_path, "disk", data, VmdkOptions(kind="streamOptimized"))
    description = tmp_path / "disk.ovf"
    description.write_text(
        "<Envelope><References>"
        f'<File href="disk.vmdk" id="file1" size="{path.stat().st_size}"/></References><DiskSection>'
        f'<Disk capacity="{len(data)}" diskId="disk1" fileRef="file1"'
        ' format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>'
        "</DiskSection></Envelope>"
    )
    with tarfile.open(tmp_path / "disk.ova", "w", format=tarfile.USTAR_FORMAT) as ova:
        ova.add(description, "disk.ovf")
        ova.add(path, "disk.vmdk")
    with tarfile.open(tmp_path / "disk.ova") as ova:
        start = ova.getmember("disk.vmdk").offset_data
    node = f"driver=raw,offset={start},size={path.stat().st_size},file.filename={tmp_path / 'disk.ova'}"
    command = [require_program("qemu-img"), "convert", "-O", "raw", "--image-opts"]
    options = ",".join(f"file.{option}" for option in node.split(","))
    oracles.run([*command, f"driver=vmdk,{options}", tmp_path / "out.raw"])
    assert (tmp_path / "out.raw").read_bytes() == data


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("monolithicSparse", 2032 << 30),
        ("streamOptimized", 4 << 40),
        pytest.param("streamOptimized", 62 << 40, marks=pytest.mark.long),
    ],
)
def test_largest_volume_is_read_by_others(kind: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / "huge.vmdk"
    starts, spots, wanted = huge.write(path, size, VmdkOptions(kind=kind))  # type: ignore[arg-type]  # one of two

    with open_image(path) as image:
        assert image.size == size
        assert [image.pread(length, at) for at, length in spots] == wanted
    for family in ("qemu", "libyal", "dissect"):
        assert oracles.spots(family, path, KINDS[kind], spots) == wanted, family
    assert oracles.complaints(path, KINDS[kind], huge=True) == []
    huge.check_map(path, KINDS[kind], [(start, start + MIB) for start in starts], GRAIN)


def test_others_find_a_flipped_bit_of_a_stream(tmp_path: Path) -> None:
    """As we do: a grain carries the checksum of zlib."""
    path = save(tmp_path, "image", volume(MIB, "noise", 4), VmdkOptions(kind="streamOptimized"))
    with open(path, "r+b") as file:
        file.seek(100_000)
        byte = file.read(1)[0]
        file.seek(100_000)
        file.write(bytes([byte ^ 4]))
    assert verify_image(path).ok  # of the structure: nothing is decompressed unless that is asked for
    assert not verify_image(path, depth=Depth.CONTENT).ok
    with pytest.raises(oracles.OracleError):
        oracles.content("qemu", path, "vmdk-stream")


# What others write.


def qemu_img(*arguments: str | Path, cwd: Path) -> None:
    oracles.run([require_program("qemu-img"), *arguments], cwd=cwd)


@pytest.mark.parametrize(
    "subformat",
    ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"],
)
@pytest.mark.parametrize("size", [512, 5 * MIB + 512, (4 << 30) + 3 * MIB])
def test_images_made_by_qemu_read_right(subformat: str, size: int, tmp_path: Path) -> None:
    dice = random.Random(size)
    raw = tmp_path / "content.raw"
    with open(raw, "wb") as file:
        file.truncate(size)
        for at in (0, size // 2 // 512 * 512, size - 512, (2 << 30) - 512, 2 << 30):
            if at < size:
                file.seek(at)
                file.write(dice.randbytes(512))
    convert = ["convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}"]
    qemu_img(*convert, "content.raw", "image.vmdk", cwd=tmp_path)

    assert seen_by_us(tmp_path / "image.vmdk") == oracles.content_of_file(raw)
    assert verify_image(tmp_path / "image.vmdk").ok


@pytest.mark.parametrize("zeroed", ["on", "off"])
@pytest.mark.parametrize("compat6", ["on", "off"])
def test_child_made_by_qemu_reads_right(zeroed: str, compat6: str, tmp_path: Path) -> None:
    data = bytearray(volume(3 * MIB, "noise", 5))
    parent = save(tmp_path, "parent", bytes(data), VmdkOptions())
    options = f"zeroed_grain={zeroed},compat6={compat6},hwversion={6 if compat6 == 'on' else 4}"
    if compat6 == "on":
        options = f"zeroed_grain={zeroed},compat6=on"
    backing = ["-b", "parent.vmdk", "-F", "vmdk"]
    qemu_img("create", "-q", "-f", "vmdk", "-o", options, *backing, "child.vmdk", cwd=tmp_path)
    script = f"write -P 7 65000 5000\nwrite -z {MIB} {GRAIN}\nwrite -P 9 {2 * MIB} 512\n"
    oracles.run([require_program("qemu-io"), "-f", "vmdk", tmp_path / "child.vmdk"], text=script)
    data[65000:70000] = b"\7" * 5000
    data[MIB : MIB + GRAIN] = bytes(GRAIN)
    data[2 * MIB : 2 * MIB + 512] = b"\x09" * 512

    child = tmp_path / "child.vmdk"
    assert seen_by_us(child) == oracles.content_of(bytes(data))
    assert verify_image(child).ok
    if zeroed == "off":
        assert_all_read(child, "vmdk-backing", oracles.content_of(bytes(data)), [parent])
    with open_image(child) as image:
        assert image.origins == (str(child), str(parent))


def test_compressed_grains_of_qemu_are_verified(tmp_path: Path) -> None:
    (tmp_path / "content.raw").write_bytes(volume(3 * MIB, "noise", 6))
    convert = ["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized"]
    qemu_img(*convert, "content.raw", "image.vmdk", cwd=tmp_path)
    assert verify_image(tmp_path / "image.vmdk", depth=Depth.CONTENT).ok
    size = (tmp_path / "image.vmdk").stat().st_size
    with open(tmp_path / "image.vmdk", "r+b") as file:
        file.seek(size // 2)
        byte = file.read(1)[0]
        file.seek(size // 2)
        file.write(bytes([byte ^ 4]))
    assert not verify_image(tmp_path / "image.vmdk", depth=Depth.CONTENT).ok


def test_holes_survive(tmp_path: Path) -> None:
    data = bytes(MIB) + b"x" * GRAIN + bytes(7 * MIB)
    for kind in KINDS:
        path = save(tmp_path, kind, data, VmdkOptions(kind=kind))  # type: ignore[arg-type]  # one of two
        with open_image(path) as image:
            assert list(image.extents()) == [
                Extent(0, MIB, ExtentKind.ZERO),
                Extent(MIB, GRAIN),
                Extent(MIB + GRAIN, 7 * MIB, ExtentKind.ZERO),
            ]
        assert path.stat().st_size < MIB


def test_renamed_image_opens(tmp_path: Path) -> None:
    """The name in the descriptor of a single file is only that which it was given first."""
    path = save(tmp_path, "image", volume(MIB, "noise", 8), VmdkOptions())
    shutil.move(path, tmp_path / "other")
    assert seen_by_us(tmp_path / "other") == oracles.content_of(volume(MIB, "noise", 8))
