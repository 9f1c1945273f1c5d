"""VHD against a bytearray, and after a power cut."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from image_models import reads_as
from vhd_images import opened, resolver, sample
from vsssnap import Depth, Extent, ExtentKind, ImageMetadata
from vsssnap.errors import ImageError
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


def apply(
    writer_steps: list[Step], storage: MemoryStorage, parent: ImageReader | None, below: bytes
) -> bytes:
    """Write an image step by step; gives what it must hold if its parent holds ``below``."""
    model = bytearray(below)
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
    model = bytes(SIZE)
    for number, link in enumerate(links):
        storage = MemoryStorage(name=f"{number}.vhd")
        model = apply(link, storage, parent, model)
        files[f"{number}.vhd"] = storage.data
        if parent is not None:
            parent.close()
        parent = opened(files, f"{number}.vhd")
    assert parent is not None
    reads_as(parent, model, dice, Depth.STRUCTURE)


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
