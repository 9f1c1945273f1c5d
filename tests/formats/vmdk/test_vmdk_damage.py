"""VMDK images with damaged structures."""

from __future__ import annotations

import random
import struct
import zlib

import pytest

from damaged_images import Change, cuts, flips, problems
from vmdk_images import descriptor, space_efficient
from vsssnap import ImageMetadata
from vsssnap.formats import MemoryStorage
from vsssnap.formats.vmdk import VmdkFormat, VmdkOptions

FORMAT = VmdkFormat()
NOTHING = ImageMetadata()
GRAIN = 8192
MIB = 1 << 20


def content(size: int) -> bytes:
    dice = random.Random(11)
    data = bytearray(dice.randbytes(size))
    data[size // 3 : 2 * size // 3] = bytes(2 * size // 3 - size // 3)
    return bytes(data)


def image_of(data: bytes, options: VmdkOptions) -> bytes:
    storage = MemoryStorage()
    writer = FORMAT.create(storage, len(data), options=options)
    writer.pwrite(memoryview(data), 0)
    writer.finish(NOTHING)
    return bytes(storage.data)


def values(image: bytes, fields: dict[str, tuple[int, int]], *, silent: bool) -> list[Change]:
    """Absurd values in some fields: name to offset and bytes."""
    found = []
    for name, (at, size) in fields.items():
        most = (1 << (8 * size)) - 1
        for value in (0, 1, 2, 7, 127, 128, 129, 511, 1 << 31, most // 2, most - 1, most):
            value = min(value, most)
            found.append(Change(f"{name} is {value}", ((at, value.to_bytes(size, "little")),), silent=silent))
    return found


HEADER = {
    "version": (4, 4),
    "flags": (8, 4),
    "capacity": (12, 8),
    "grain size": (20, 8),
    "descriptor offset": (28, 8),
    "descriptor size": (36, 8),
    "table entries": (44, 4),
    "redundant offset": (48, 8),
    "directory offset": (56, 8),
    "overhead": (64, 8),
    "compression": (77, 2),
}


def sparse_changes(image: bytes, every: bool) -> list[Change]:
    redundant, directory = (struct.unpack_from("<Q", image, at)[0] * 512 for at in (48, 56))
    first, second = (struct.unpack_from("<I", image, at)[0] * 512 for at in (redundant, directory))
    found = [*cuts(len(image), 100 if every else 10)]
    # A header has no checksum: a wrong grain size or directory is another image, which may be a right one.
    found += flips(image, 0, 79, every=every, silent=True)
    found += flips(image, 512, 512 + 400, every=every, silent=True, step=1 if every else 3)
    found += values(image, HEADER, silent=True)
    # Of each table there are two: one of them may be anything.
    for table in (redundant, first, directory, second):
        found += flips(image, table, table + 4, every=True)
        found += flips(image, table, table + 4 * 16, every=every, step=1 if every else 7)
    for value in (1, 2, 20, 21, 0x7FFFFFFF, 0xFFFFFFFF):
        both = tuple((at, value.to_bytes(4, "little")) for at in (first, second))
        found.append(Change(f"entries are {value}", both, silent=value >= 21))
    return found


def stream_changes(image: bytes, every: bool) -> list[Change]:
    found = [*cuts(len(image), 100 if every else 10)]
    found += flips(image, 0, 79, every=every, silent=True)
    found += flips(image, 512, 512 + 400, every=every, silent=True, step=1 if every else 3)
    found += values(image, HEADER, silent=True)
    end = len(image)
    directory = struct.unpack_from("<Q", image, end - 1024 + 56)[0] * 512
    table = struct.unpack_from("<I", image, directory)[0] * 512
    footer = {name: (end - 1024 + at, size) for name, (at, size) in HEADER.items()}
    found += values(image, footer, silent=True)
    found += flips(image, end - 1536, end - 1536 + 16, every=every, silent=True)
    found += flips(image, end - 1024, end - 1024 + 79, every=every, silent=True)
    # An entry of 0 is an empty grain; all others are held against the grain's marker.
    found += flips(image, table, table + 4, every=True, silent=True)
    found += flips(image, table + 4, table + 64, every=every)
    found += flips(image, directory, directory + 4, every=True, silent=True)
    start = 64 << 10
    found += flips(image, start, start + 400, every=every, step=1 if every else 5)
    found += flips(image, start + 400, table - 512, step=509)
    found.append(Change("a grain that grows for ever", ((start, bomb()),)))
    return found


def bomb() -> bytes:
    """A grain of few bytes that decompresses to many."""
    packed = zlib.compress(bytes(60 << 20), 9)
    return bytes(8) + len(packed).to_bytes(4, "little") + packed


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)], ids=["some", "all"])
@pytest.mark.parametrize("kind", ["monolithicSparse", "streamOptimized"])
def test_damaged_structures_give_right_bytes_or_an_image_error(kind: str, every: bool) -> None:
    data = content(20 * GRAIN + 1536)
    options = VmdkOptions(kind=kind, cid=1, grain_size=GRAIN)  # type: ignore[arg-type]  # one of two
    image = image_of(data, options)
    changes = (sparse_changes if kind == "monolithicSparse" else stream_changes)(image, every)
    assert problems("vmdk", {"x.vmdk": image}, "x.vmdk", data, changes) == []


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)], ids=["some", "all"])
def test_damaged_descriptor_gives_right_bytes_or_an_image_error(every: bool) -> None:
    data = content(96 * 512)
    text = descriptor(['RW 64 FLAT "x-flat" 0', "RW 16 ZERO", 'RW 16 FLAT "x-flat" 80'])
    wanted = data[: 64 * 512] + bytes(16 * 512) + data[80 * 512 :]
    files = {"x.vmdk": text, "x-flat": data}
    # Text has no checksum: another number of sectors is another disk.
    changes = [*flips(text, 0, len(text), every=every, silent=True), *cuts(len(text), 40, silent=True)]
    changes += [
        Change(f"{old!r} is {new!r}", ((text.index(old), new),), silent=True)
        for old in (b"RW 64", b"FLAT", b"x-flat", b"version=1")
        for new in (b"\0", b"\xff\xfe", b'"""', b"RW RW", b"9" * 20, b"%n%n", b"\n\n\n\n\n", b"../x")
    ]
    assert problems("vmdk", files, "x.vmdk", wanted, changes) == []


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)], ids=["some", "all"])
def test_damaged_space_efficient_extent_gives_right_bytes_or_an_image_error(every: bool) -> None:
    dice = random.Random(12)
    grains = {n: dice.randbytes(4096) for n in (0, 1, 5)}
    image = space_efficient(grains, size=MIB, zero=(2,))
    wanted = bytearray(MIB)
    for number, data in grains.items():
        wanted[number * 4096 : number * 4096 + 4096] = data
    files = {"x.vmdk": descriptor(['RW 2048 SESPARSE "s"']), "s": image}
    changes = [*cuts(len(image), 20), *flips(image, 0, 208, every=every, silent=True)]
    changes += flips(image, 512, 544, every=every, silent=True)
    changes += flips(image, 2048, 2056, every=True, silent=True)
    changes += flips(image, 4096, 4096 + 48, every=every, silent=True)
    names = [f"field {at}" for at in range(0, 208, 8)]
    changes += values(image, {name: (8 * n, 8) for n, name in enumerate(names)}, silent=True)
    assert problems("vmdk", files, "x.vmdk", bytes(wanted), changes, target="s") == []
