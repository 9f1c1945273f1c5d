"""Random writes and marks against a bytearray, through a chain of three."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from vhdx_images import FORMAT, MIB, content, opened
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.formats import ImageReader, MemoryStorage
from vsssnap.formats.base import Depth
from vsssnap.formats.vhdx import VhdxOptions
from vsssnap.metadata import ImageMetadata

SECTOR = 4096
SECTORS = 3 * MIB // SECTOR + 5
KINDS = (ExtentKind.ZERO, ExtentKind.HOLE, ExtentKind.EXCLUDED, ExtentKind.UNREADABLE)

# Near the edges of units and blocks, where the numbers are hard.
places = st.one_of(
    st.integers(0, SECTORS - 1),
    st.sampled_from([0, 1, 255, 256, 257, 511, 512, 513, 767, 768, SECTORS - 2, SECTORS - 1]),
)
steps = st.tuples(places, st.sampled_from([1, 2, 7, 8, 9, 250, 256, 300, 512]), st.integers(-4, 3))
images = st.tuples(
    st.lists(steps, max_size=8), st.sampled_from([MIB, 2 * MIB, 4 * MIB]), st.sampled_from([512, 4096])
)


def build(
    actions: list[tuple[int, int, int]], block: int, sector: int, parent: ImageReader | None
) -> tuple[bytes, bytes]:
    """Write an image; gives its file and what it must hold."""
    size = SECTORS * SECTOR
    below = parent.pread(size, 0) if parent is not None else bytes(size)
    model = bytearray(below)
    storage = MemoryStorage(name="test.vhdx")
    options = VhdxOptions(block_size=block, logical_sector_size=sector)
    writer = FORMAT.create(storage, size, options=options, parent=parent)
    for place, count, what in actions:
        at = place * SECTOR
        length = min(count * SECTOR, size - at)
        if what < 0:
            if at % 5 == 0 and length > 700:  # marks need not lie on sectors
                at, length = at + 100, length - 700
            writer.mark(Extent(at, length, KINDS[what]))
            data = bytes(length)
        else:
            data = (
                bytes(length),
                random.Random(place).randbytes(length),
                below[at : at + length],
                below[at : at + length // 2 // 512 * 512] + b"\3" * (length - length // 2 // 512 * 512),
            )[what]
            writer.pwrite(memoryview(data), at)
        model[at : at + length] = data
    writer.finish(ImageMetadata())
    return bytes(storage.data), bytes(model)


@settings(max_examples=settings().max_examples // 3)  # an example is three images of some MiB
@given(images, images, images)
def test_chain_of_three_holds_what_was_written(
    first: tuple[list[tuple[int, int, int]], int, int],
    second: tuple[list[tuple[int, int, int]], int, int],
    third: tuple[list[tuple[int, int, int]], int, int],
) -> None:
    sector = first[2]
    base, wanted = build(first[0], first[1], sector, None)
    assert content(base) == wanted
    with opened(base) as parent:
        child, wanted = build(second[0], second[1], sector, parent)
    assert content(child, base) == wanted
    with opened(child, base) as parent:
        grandchild, wanted = build(third[0], third[1], sector, parent)
    with opened(grandchild, child, base) as reader:
        assert reader.pread(reader.size, 0) == wanted
        at = 0
        for extent in reader.extents():
            assert extent.offset == at
            at = extent.end
            assert extent.kind is ExtentKind.DATA or not any(wanted[extent.offset : extent.end])
        assert at == reader.size
        assert not list(reader.verify(Depth.STRUCTURE, lambda _: None))
        for start in range(0, reader.size, 300_001):
            assert reader.pread(5000, start) == wanted[start : start + 5000]
