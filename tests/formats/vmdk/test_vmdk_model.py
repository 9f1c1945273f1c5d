"""VMDK against a bytearray."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from image_models import reads_as
from vsssnap import Depth, Extent, ExtentKind, ImageMetadata
from vsssnap.formats import MemoryStorage
from vsssnap.formats.vmdk import VmdkFormat, VmdkOptions

FORMAT = VmdkFormat()
NOTHING = ImageMetadata()
GRAIN = 8192
SPAN = GRAIN * 512
SIZE = SPAN + 3 * GRAIN + 1536  # two tables, and a grain that is not whole
KINDS = [ExtentKind.ZERO, ExtentKind.HOLE, ExtentKind.EXCLUDED, ExtentKind.UNREADABLE]

edges = [0, GRAIN - 1, GRAIN, SPAN - 1, SPAN, SIZE - 1]
places = st.one_of(st.integers(0, SIZE - 1), st.sampled_from(edges))
lengths = st.one_of(st.integers(1, 3 * GRAIN), st.sampled_from([1, 512, GRAIN, SPAN]))
steps = st.lists(
    st.tuples(st.sampled_from(["write", "mark"]), places, lengths, st.integers(0, 3)), max_size=12
)

Step = tuple[str, int, int, int]


@given(steps, st.integers(0, 1 << 32))
def test_last_write_or_mark_of_a_byte_counts(todo: list[Step], seed: int) -> None:
    model, dice = bytearray(SIZE), random.Random(seed)
    storage = MemoryStorage()
    writer = FORMAT.create(storage, SIZE, options=VmdkOptions(grain_size=GRAIN))
    for what, at, length, value in todo:
        length = min(length, SIZE - at)
        data = bytes(length)
        if what == "write":
            data = bytes([value]) * length
            writer.pwrite(memoryview(data), at)
        else:
            writer.mark(Extent(at, length, KINDS[value]))
        model[at : at + length] = data
    writer.finish(NOTHING)
    reads_as(FORMAT.open(storage), bytes(model), dice, Depth.STRUCTURE)


@given(st.sets(st.integers(0, SIZE // GRAIN), max_size=8), st.integers(0, 1 << 32))
def test_stream_holds_the_grains_that_it_was_given(grains: set[int], seed: int) -> None:
    model, dice = bytearray(SIZE), random.Random(seed)
    storage = MemoryStorage()
    writer = FORMAT.create(storage, SIZE, options=VmdkOptions(kind="streamOptimized", grain_size=GRAIN))
    for grain in sorted(grains):
        at = grain * GRAIN
        length = min(GRAIN * dice.choice([1, 1, 3]), SIZE - at)
        if at < writer._at:  # type: ignore[attr-defined]
            continue
        data = dice.randbytes(length) if dice.random() < 0.8 else bytes(length)
        writer.pwrite(memoryview(data), at)
        model[at : at + length] = data
    writer.finish(NOTHING)
    reads_as(FORMAT.open(storage), bytes(model), dice, Depth.CONTENT)
