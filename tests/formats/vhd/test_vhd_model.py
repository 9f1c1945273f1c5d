"""VHD against a bytearray, and with damaged structures."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from damaged_images import Change, cuts, flips, problems
from vsssnap import Extent, ExtentKind, ImageMetadata
from vsssnap.errors import ImageError, ImageNotFoundError
from vsssnap.formats import ImageReader, MemoryStorage
from vsssnap.formats.vhd import VhdFormat, VhdOptions
from vsssnap.testing.powercut import PowerCut

FORMAT = VhdFormat()
NOTHING = ImageMetadata()
BLOCK = 512 << 10
SIZE = 2 * BLOCK + 1536
KINDS = [ExtentKind.ZERO, ExtentKind.HOLE, ExtentKind.EXCLUDED, ExtentKind.UNREADABLE]

places = st.one_of(
    st.integers(0, SIZE // 512),
    st.sampled_from([0, 1, 7, 8, BLOCK // 512 - 1, BLOCK // 512, SIZE // 512 - 1]),
)
lengths = st.one_of(st.integers(1, 40), st.sampled_from([128, 256, BLOCK // 512, 5000]))
writes = st.tuples(st.just("write"), places, lengths, st.integers(0, 3))
marks = st.tuples(st.just("mark"), st.integers(0, SIZE), st.integers(1, 3 * BLOCK), st.integers(0, 3))
bytes_marks = st.tuples(st.just("mark"), st.integers(0, SIZE), st.integers(1, 1500), st.integers(0, 3))
steps = st.lists(writes | marks | bytes_marks, max_size=10)

Step = tuple[str, int, int, int]


def resolver(files: dict[str, bytearray]) -> object:
    def resolve(names: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        for name in map(os.path.basename, names):
            if name in files:
                return opened(files, name)
        raise ImageNotFoundError("not there")

    return resolve


def opened(files: dict[str, bytearray], name: str) -> ImageReader:
    return FORMAT.open(MemoryStorage(files[name], name), resolve_parent=resolver(files))  # type: ignore[arg-type]


def apply(writer_steps: list[Step], storage: MemoryStorage, parent: ImageReader | None) -> bytes:
    """Write an image step by step; gives what it must hold."""
    model = bytearray(SIZE)
    options = VhdOptions(block_size=BLOCK)
    writer = FORMAT.create(storage, SIZE, options=options, parent=parent)
    for what, at, length, value in writer_steps:
        if what == "write":
            first = min(at * 512, SIZE - 512)
            length = min(length * 512, SIZE - first)
            # Sectors that are equal to those of an earlier link, and others.
            data = b"".join(bytes([value and 1 + (value + n // 3) % 5]) * 512 for n in range(length // 512))
            writer.pwrite(memoryview(data), first)
        else:
            first = min(at, SIZE - 1)
            length = min(length, SIZE - first)
            writer.mark(Extent(first, length, KINDS[value]))
            data = bytes(length)
        model[first : first + length] = data
    writer.finish(NOTHING)
    writer.close()
    return bytes(model)


@given(st.lists(steps, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_chain_reads_as_the_last_model(links: list[list[Step]], dice: random.Random) -> None:
    """The last write or mark of a byte counts, in a first image and in its children."""
    files: dict[str, bytearray] = {}
    parent: ImageReader | None = None
    model = b""
    for number, link in enumerate(links):
        storage = MemoryStorage(name=f"{number}.vhd")
        model = apply(link, storage, parent)
        files[f"{number}.vhd"] = storage.data
        if parent is not None:
            parent.close()
        parent = opened(files, f"{number}.vhd")
    assert parent is not None
    with parent as image:
        assert image.pread(SIZE, 0) == model
        at = 0
        for extent in image.extents():
            assert extent.offset == at
            at = extent.end
            if extent.reads_as_zero:
                assert not model[extent.offset : extent.end].strip(b"\0")
        assert at == SIZE
        for _ in range(5):
            first = dice.randrange(SIZE)
            length = dice.randrange(SIZE - first) + 1
            assert image.pread(length, first) == model[first : first + length]
        assert list(image.verify(image.depths()[0], lambda _: None)) == []


def sample(*, child: bool) -> tuple[dict[str, bytes], str, bytes]:
    """An image of three blocks, the middle one empty, or a child of one; its files and content."""
    dice = random.Random(11)
    data = bytearray(dice.randbytes(3 * BLOCK))
    data[BLOCK : 2 * BLOCK] = bytes(BLOCK)
    files: dict[str, bytearray] = {}
    options = VhdOptions(block_size=BLOCK, identity=UUID(int=1))
    storage = MemoryStorage(name="parent.vhd")
    writer = FORMAT.create(storage, len(data), options=options)
    writer.pwrite(memoryview(bytes(data)), 0)
    writer.finish(NOTHING)
    files["parent.vhd"] = storage.data
    if not child:
        return {"parent.vhd": bytes(storage.data)}, "parent.vhd", bytes(data)
    with opened(files, "parent.vhd") as parent:
        data[BLOCK + 4096 : BLOCK + 8192] = dice.randbytes(4096)
        data[0:4096] = bytes(4096)
        storage = MemoryStorage(name="child.vhd")
        options = VhdOptions(block_size=BLOCK, identity=UUID(int=2))
        writer = FORMAT.create(storage, len(data), options=options, parent=parent)
        writer.pwrite(memoryview(bytes(data)), 0)
        writer.finish(NOTHING)
    files["child.vhd"] = storage.data
    return {name: bytes(image) for name, image in files.items()}, "child.vhd", bytes(data)


def changes(image: bytes, *, every: bool) -> list[Change]:
    table = 1536
    found = [*cuts(len(image), 200 if every else 20)]
    for first, end in (
        (0, 85),
        (512, 512 + 64),
        (512 + 576, 512 + 768),
        (len(image) - 512, len(image) - 427),
    ):
        found += flips(image, first, end, every=every)
    found += flips(image, 85, 512, every=every, step=1 if every else 61)
    found += flips(image, 512 + 64, 1536, every=every, step=1 if every else 61)
    # Nothing tells a wrong entry from a right one if it names another free place, or a wrong bit.
    found += flips(image, table, table + 12, every=True, silent=True)
    block = int.from_bytes(image[table : table + 4], "big") * 512
    found += flips(image, block, block + 128, every=every, silent=True, step=1 if every else 16)
    found += [
        Change(
            f"entry {number} is {value:#x}", ((table + 4 * number, value.to_bytes(4, "big")),), silent=True
        )
        for number in range(3)
        for value in (0, 1, 3, 4, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
    ]
    found += sealed(image)
    return found


def sealed(image: bytes) -> list[Change]:
    """Absurd values under a right checksum."""
    found = []
    for name, at, size in (
        ("data offset", 16, 8),
        ("current size", 48, 8),
        ("disk type", 60, 4),
        ("table offset", 512 + 16, 8),
        ("entries", 512 + 28, 4),
        ("block size", 512 + 32, 4),
        ("locator length", 512 + 576 + 8, 4),
        ("locator offset", 512 + 576 + 16, 8),
    ):
        most = (1 << (8 * size)) - 1
        for value in (0, 1, 511, 512, 513, 1024, 3 << 19, 1 << 31, most - 511, most - 1, most):
            record = bytearray(image[:512] if at < 512 else image[512:1536])
            within, place = (at, 64) if at < 512 else (at - 512, 36)
            record[within : within + size] = min(value, most).to_bytes(size, "big")
            total = sum(record) - sum(record[place : place + 4])
            record[place : place + 4] = (~total & 0xFFFFFFFF).to_bytes(4, "big")
            patches = (
                [(0, bytes(record)), (len(image) - 512, bytes(record))]
                if at < 512
                else [(512, bytes(record))]
            )
            found.append(Change(f"{name} is {value}", tuple(patches), silent=True))
    return found


@pytest.mark.parametrize("child", [False, True], ids=["dynamic", "child"])
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)], ids=["some", "all"])
def test_damaged_structures_give_right_bytes_or_an_image_error(child: bool, every: bool) -> None:
    files, name, data = sample(child=child)
    assert problems("vhd", files, name, data, changes(files[name], every=every)) == []


def test_child_after_a_power_cut_is_refused_or_whole() -> None:
    files, _, data = sample(child=True)
    below = {"parent.vhd": bytearray(files["parent.vhd"])}
    storage = PowerCut(name="child.vhd")
    with opened(below, "parent.vhd") as parent:
        writer = FORMAT.create(storage, len(data), options=VhdOptions(block_size=BLOCK), parent=parent)
        writer.pwrite(memoryview(data), 0)
        writer.finish(NOTHING)
    assert storage.unflushed == 0
    whole = 0
    for cut in storage.cuts(subsets=4, torn=True, seed=1):
        try:
            image = FORMAT.open(cut.storage, resolve_parent=resolver(below))  # type: ignore[arg-type]
        except ImageError:
            continue
        with image:
            whole += 1
            assert image.pread(len(data), 0) == data, cut.description
    assert whole
