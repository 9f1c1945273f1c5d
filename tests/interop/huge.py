"""Volumes of many TiB with some MiB of data, and where to look at them."""

from __future__ import annotations

import random
from pathlib import Path

from vsssnap import create_image

MIB = 1 << 20


def write(path: Path, size: int, options: object = None) -> tuple[int, list[tuple[int, int]], list[bytes]]:
    """Save a volume with data in its first and last MiB and in twenty between.

    Returns:
        How many MiB have data; places inside and at the edges of them; what they must hold.
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
    return len(starts), spots, wanted
