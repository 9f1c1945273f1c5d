"""Volumes of many TiB with some MiB of data, and where to look at them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import oracles
from vsssnap import create_image, open_image

MIB = 1 << 20


def write(
    path: Path, size: int, options: object = None
) -> tuple[list[int], list[tuple[int, int]], list[bytes]]:
    """Save a volume with data in its first and last MiB and in twenty between.

    Returns:
        Which MiB have data; places inside and at the edges of them; what they must hold.
    """
    dice = random.Random(7)
    starts = sorted({0, size - MIB, *(dice.randrange(size // MIB) * MIB for _ in range(20))})
    stored = {start: dice.randbytes(MIB) for start in starts}
    writer = create_image(path, size, options=options)
    for start, data in stored.items():
        writer.pwrite(memoryview(data), start)
    writer.finish()
    spots, wanted = [(size - 512, 512)], [stored[size - MIB][-512:]]
    for _ in range(200):
        start, at = dice.choice(starts), dice.randrange(0, MIB - 4096, 512)
        spots.append((start + at, 4096))
        wanted.append(stored[start][at : at + 4096])
    for start in starts[1:]:
        before = stored.get(start - MIB, bytes(MIB))[-1024:]
        spots.append((start - 1024, 2048))
        wanted.append(before + stored[start][:1024])
    return starts, spots, wanted


def check_map(path: Path, kind: str, stored: Sequence[tuple[int, int]], grain: int) -> None:
    """Hold what we and QEMU tell of an image against what was stored in it.

    Args:
        path: The image.
        kind: As in `oracles.READS`.
        stored: Ranges with data, each from and to, ascending.
        grain: Bytes of what the image stores or leaves out; a range may be told up to its ends.
    """
    allowed = [(first - first % grain, -(-end // grain) * grain) for first, end in stored]
    with open_image(path) as image:
        size = image.size
        ours = [(e.offset, e.end) for e in image.extents() if not e.reads_as_zero]
    around = [(low - low % MIB, min(size - (low - low % MIB), high - low + 3 * MIB)) for low, high in allowed]
    for told in (ours, *([oracles.block_map(path, kind, around)] if kind != "vhdx" else [])):
        for first, end in told:
            assert any(low <= first and end <= high for low, high in joined(allowed)), (first, end)
        for first, end in stored:
            assert any(low <= first and end <= high for low, high in joined(told)), (first, end)


def joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges without those that touch or overlap."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found
