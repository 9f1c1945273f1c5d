"""Conversions between any two formats: QEMU finds no difference, and zeros stay zeros without data."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest

import oracles
from vsssnap import CopyReport, Extent, ExtentKind, ImageReader, open_image, save_image
from vsssnap.formats.qcow2 import Qcow2Options
from vsssnap.formats.raw import RawOptions
from vsssnap.formats.vhd import VhdOptions
from vsssnap.formats.vhdx import VhdxOptions
from vsssnap.formats.vmdk import VmdkOptions
from vsssnap.testing.memory import MemoryReader

MIB = 1 << 20
LEFT_OUT = (ExtentKind.HOLE, ExtentKind.EXCLUDED)


@dataclass(frozen=True)
class Kind:
    """A way to store a volume.

    Attributes:
        suffix: Of the file, which chooses the format.
        qemu: The kind that `oracles` calls it, or raw; "" if QEMU does not know it.
        options: What it is made with.
        grain: Bytes of the smallest piece that it stores or leaves out.
    """

    suffix: str
    qemu: str
    options: object = None
    grain: int = 64 << 10


KINDS = {
    "raw": Kind("raw", "raw", RawOptions(sidecar=False)),
    "vsnap": Kind("vsnap", ""),
    "vhd": Kind("vhd", "vhd"),
    "vhdx": Kind("vhdx", "vhdx", VhdxOptions(block_size=MIB)),
    "qcow2": Kind("qcow2", "qcow2"),
    "vmdk": Kind("vmdk", "vmdk"),
}
MORE = KINDS | {
    "raw+": Kind("raw", "raw", RawOptions(sidecar=True)),
    "vhd-fixed": Kind("vhd", "vhd", VhdOptions(kind="fixed")),
    "vhd-small": Kind("vhd", "vhd", VhdOptions(block_size=512 << 10)),
    "vhdx-fixed": Kind("vhdx", "vhdx", VhdxOptions(fixed=True)),
    "vhdx-256M": Kind("vhdx", "vhdx", VhdxOptions(block_size=256 * MIB, sidecar=True)),
    "qcow2-512": Kind("qcow2", "qcow2", Qcow2Options(cluster_size=512)),
    "qcow2-zstd": Kind("qcow2", "qcow2", Qcow2Options(compression="zstd", cluster_size=2 * MIB), 2 * MIB),
    "vmdk-stream": Kind("vmdk", "vmdk", VmdkOptions(kind="streamOptimized")),
}


def volume(size: int, seed: int) -> MemoryReader:
    """Data and zeros in pieces of any size; what is left out is whole MiB, which every format can say."""
    dice = random.Random(seed)
    content = bytearray()
    extents: list[Extent] = []
    while len(content) < size:
        kind = dice.choice(
            [ExtentKind.DATA, ExtentKind.DATA, ExtentKind.ZERO, ExtentKind.HOLE, ExtentKind.EXCLUDED]
        )
        if kind in LEFT_OUT:
            gap = -len(content) % MIB
            extents.append(Extent(len(content), gap, ExtentKind.ZERO))
            content += bytes(gap)
            length = dice.choice([MIB, 2 * MIB])
        else:
            length = dice.choice([512, 4096, 70_144, 300_032, MIB, 2 * MIB])
        extents.append(Extent(len(content), length, kind))
        content += dice.randbytes(length) if kind is ExtentKind.DATA else bytes(length)
    whole = MemoryReader(bytes(content), [extent for extent in extents if extent.length])
    return MemoryReader(bytes(content[:size]), list(whole.extents(0, size)))


def bytes_of(reader: ImageReader | MemoryReader, kind: ExtentKind) -> int:
    return sum(extent.length for extent in reader.extents() if extent.kind is kind)


def accounted(source: ImageReader | MemoryReader, path: Path, report: CopyReport, grain: int) -> None:
    """What the target does not say any more is in the report; no zeros became data but beside it."""
    with open_image(path) as image:
        for kind in LEFT_OUT:
            marked, lost = bytes_of(source, kind), report.flattened.get(kind, 0)
            assert 0 <= lost <= marked
            assert bytes_of(image, kind) + lost >= marked, kind
        stored = {
            unit
            for extent in source.extents()
            if extent.kind is ExtentKind.DATA
            for unit in range(extent.offset // grain, -(-extent.end // grain))
        }
        stored.add((source.size - 1) // grain)  # in a block of the file system that a footer shares
        for extent in image.extents():
            if extent.kind is ExtentKind.DATA:
                assert stored.issuperset(range(extent.offset // grain, -(-extent.end // grain))), extent


def convert(folder: Path, source: MemoryReader, first: Kind, then: Kind) -> None:
    expected = folder / "expected.raw"
    expected.write_bytes(source.pread(source.size, 0))
    one, other = folder / f"one.{first.suffix}", folder / f"other.{then.suffix}"
    accounted(source, one, save_image(source, one, options=first.options), first.grain)
    with open_image(one) as image:
        accounted(image, other, save_image(image, other, options=then.options), then.grain)
    for path, kind in ((one, first), (other, then)):
        if kind.qemu:
            oracles.compare(path, kind.qemu, expected, "raw")
    if first.qemu and then.qemu:
        oracles.compare(one, first.qemu, other, then.qemu)
    with open_image(other) as image:
        assert image.pread(image.size, 0) == source.pread(source.size, 0)


@pytest.mark.parametrize("then", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_a_converted_image_is_the_same(first: str, then: str, tmp_path: Path) -> None:
    convert(tmp_path, volume(14 * MIB + 512, 2), KINDS[first], KINDS[then])


@pytest.mark.long
@pytest.mark.parametrize("size", [512, 4 * MIB, 40 * MIB + 69_120])
@pytest.mark.parametrize("then", MORE)
@pytest.mark.parametrize("first", MORE)
def test_every_conversion_is_the_same(first: str, then: str, size: int, tmp_path: Path) -> None:
    convert(tmp_path, volume(size, size), MORE[first], MORE[then])
