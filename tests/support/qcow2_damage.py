"""Opens, reads and checks damaged QCOW2 images, in a process of its own under a memory limit.

Called with a seed and the number of random changes; prints how many images it tried.  Ends with
a traceback if anything but an error of the library comes out, or if it takes too long.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import sys
import time
from collections.abc import Iterator

import qcow2_images as images
from vsssnap.errors import CorruptImageError, DeviceReadError, ImageError, UsageError
from vsssnap.formats.base import Depth
from vsssnap.formats.qcow2 import Qcow2Options, Qcow2Reader

MEMORY = 1 << 30  # bytes of address space
SLOWEST = 10.0  # seconds of work that one image may take; what waits for ever is ended with the process
MIB = 1 << 20
EDGES = (0, 1, 0x80, 0xFF)
PARENT = images.write(random.Random(2).randbytes(70 << 10), Qcow2Options(cluster_size=4096))


def seeds(folder: str) -> Iterator[bytearray]:
    """Sound images of every kind."""
    dice = random.Random(1)
    volume = dice.randbytes(40 << 10) + bytes(30 << 10) + b"text" * (10 << 10)
    for compression in ("none", "zlib", "zstd"):
        for cluster in (512, 4096):
            yield images.write(volume, Qcow2Options(cluster_size=cluster, compression=compression))
    with images.opened(PARENT) as parent:
        changed = volume[:5000] + bytes(20000) + volume[25000:]
        yield images.write(changed, Qcow2Options(cluster_size=4096, backing_name="base"), parent=parent)
    for name in folder.split(",") if folder else ():
        with open(name, "rb") as file:
            yield bytearray(file.read())


def structures(data: bytearray) -> list[tuple[int, int]]:
    """Where header and tables lie, as ``(first, end)``."""
    size = 1 << images.get(data, images.CLUSTER_BITS, ">I")
    l1 = images.get(data, images.L1_OFFSET)
    entries = images.get(data, images.L1_SIZE, ">I")
    places = [(0, 112), (112, 700), (l1, l1 + 8 * min(4, entries))]
    for index in range(min(4, entries)):
        l2 = images.get(data, l1 + 8 * index) & 0x00FF_FFFF_FFFF_FE00
        if l2:
            places.append((l2, l2 + min(size, 256)))
    table = images.get(data, images.TABLE_OFFSET)
    places.append((table, table + 24))
    block = images.get(data, table)
    places.append((block, block + 64))
    snapshots = images.get(data, images.SNAPSHOTS_OFFSET)
    if snapshots:
        places.append((snapshots, snapshots + 200))
    return [(first, min(end, len(data))) for first, end in places if first < len(data)]


def mutants(data: bytearray, dice: random.Random, count: int) -> Iterator[bytearray]:
    """Every byte of the header and a share of the tables changed, numbers made absurd, ends cut."""
    places = structures(data)
    for at in range(112):
        for value in EDGES:
            yield images.changed(data, at, value, ">B")
    for _ in range(count):
        result = bytearray(data)
        for _ in range(dice.choice([1, 1, 1, 2, 5])):
            first, end = dice.choice(places)
            at = dice.randrange(first, end)
            what = dice.randrange(4)
            if what == 0:
                result[at] ^= 1 << dice.randrange(8)
            elif what == 1:
                result[at] = dice.choice(EDGES)
            elif what == 2 and at + 8 <= len(result):
                number = dice.choice(
                    [0, 1 << 62, 1 << 63, (1 << 64) - 1, len(data), dice.getrandbits(40) << 9]
                )
                result = images.changed(result, at - at % 8, number)
            elif at + 4 <= len(result):
                result = images.changed(result, at - at % 4, dice.getrandbits(32), ">I")
        yield result
    for _ in range(count // 10):
        yield data[: dice.randrange(len(data))]


def use(reader: Qcow2Reader, *refusals: type[Exception]) -> None:
    """All that a caller may ask; an image of damaged size is not read to its end.

    Args:
        reader: The image.
        *refusals: What a read may raise.
    """
    for at in (0, 4096, 50000, reader.size - 700, reader.size // 2 - reader.size // 2 % 512):
        with contextlib.suppress(*refusals):
            reader.pread(70000, max(0, at))
    with contextlib.suppress(CorruptImageError):
        for _ in itertools.islice(reader.extents(), 2000):
            pass
    reader.info()
    for _ in itertools.islice(reader.verify(Depth.STRUCTURE, lambda done: None), 2000):
        pass
    # UsageError: two snapshots of one name.
    with contextlib.suppress(ImageError, DeviceReadError, UsageError):
        for snapshot in reader.snapshots[:5]:
            with reader.open_snapshot(snapshot.id) as inner:
                inner.pread(70000, 0)
        for bitmap in reader.bitmaps[:5]:
            for _ in itertools.islice(reader.dirty_extents(bitmap.name), 2000):
                pass


def main(seed: int, count: int, folder: str) -> None:
    """Try every mutant, as it is and with ``recover``."""
    import resource  # not there on Windows, where this file is imported for its name alone

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    dice = random.Random(seed)
    tried = 0
    for data in seeds(folder):
        for mutant in mutants(data, dice, count):
            tried += 1
            started = time.process_time()
            for recover in (False, True):
                try:
                    reader = images.opened(mutant, images.Folder({"base": PARENT}), recover=recover)
                except (ImageError, KeyError):  # KeyError: a name that the folder does not have
                    continue
                with reader:
                    # In recover mode, what was cut off is a range that cannot be read.
                    use(reader, CorruptImageError, *([DeviceReadError] if recover else []))
            assert time.process_time() - started < SLOWEST, f"{tried}: {time.monotonic() - started:.1f} s"
    print(tried)  # noqa: T201 - the answer


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
