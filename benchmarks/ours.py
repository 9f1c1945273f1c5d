"""What the scenes run of vsssnap, each as a process of its own: ``python ours.py WHAT ARGUMENT ...``."""

from __future__ import annotations

import sys
import time

import vsssnap
from vsssnap.formats import Depth, by_name

SEED = 7


def save(source: str, target: str, level: str = "1") -> None:
    """Save a file that nobody writes; the format is the target's suffix."""
    options = None
    if target.endswith(".vsnap"):
        options = by_name("vsnap").options_type(level=int(level))
    elif level != "0" and target.endswith(".qcow2"):
        options = by_name("qcow2").options_type(compression="zstd", level=int(level))
    elif target.endswith(".raw"):
        options = by_name("raw").options_type(sidecar=False)
    with vsssnap.open_device(source) as reader:
        vsssnap.save_image(reader, target, options=options)


def child(source: str, target: str, parent: str) -> None:
    """Save an increment."""
    with vsssnap.open_device(source) as reader, vsssnap.open_image(parent) as below:
        vsssnap.save_image(reader, target, parent=below)


def verify(image: str, depth: str) -> None:
    """Verify to a depth."""
    report = vsssnap.verify_image(image, depth=Depth[depth.upper()])
    if not report.ok:
        raise SystemExit(f"{image} is damaged")


def restore(image: str, target: str) -> None:
    """Restore to a file."""
    vsssnap.restore_image(image, target)


def offsets(size: int, count: int, taken: str) -> list[int]:
    """Seeded offsets of 4 KiB reads, each in another block of 256 KiB that holds data in a raw file."""
    import random  # as long in coming as a codec of ours, for this alone

    blocks: list[int] = []
    with vsssnap.open_device(taken) as raw:
        for extent in raw.extents():
            if extent.kind is vsssnap.ExtentKind.DATA:
                blocks += range(-(-extent.offset // (256 << 10)), extent.end // (256 << 10))
    source = random.Random(SEED)
    chosen = source.sample(blocks, min(count, len(blocks)))
    return [(block << 18) + source.randrange(64) * 4096 for block in chosen if (block + 1) << 18 <= size]


def random_reads(image: str, raw: str, count: str) -> None:
    """Read 4 KiB at random offsets; prints the seconds that the reads took."""
    with vsssnap.open_image(image) as reader:
        places = offsets(reader.size, int(count), raw)
        started = time.perf_counter()
        for offset in places:
            reader.pread(4096, offset)
        print(f"seconds: {time.perf_counter() - started}")


def sequential(image: str) -> None:
    """Read an image from end to end, 1 MiB at a time; prints the seconds from its opening on."""
    buffer = bytearray(1 << 20)
    vsssnap.open_image(image).close()  # imports
    started = time.perf_counter()
    with vsssnap.open_image(image) as reader:
        for offset in range(0, reader.size, len(buffer)):
            reader.preadinto(buffer, offset)
    print(f"seconds: {time.perf_counter() - started}")


def shadow(volume: str, number: str, unused: str) -> None:
    """Open a shadow copy and read it from end to end, 1 MiB at a time, in one thread; prints seconds."""
    from vsssnap.volumes import ShadowVolume, UnusedBlocks

    buffer = memoryview(bytearray(1 << 20))
    with vsssnap.open_device(volume) as device:
        started = time.perf_counter()
        reader = ShadowVolume(device).stores[int(number) - 1].open(UnusedBlocks(unused))
        for offset in range(0, reader.size, len(buffer)):
            reader.preadinto(buffer, offset)
        print(f"seconds: {time.perf_counter() - started}")


def nothing() -> None:
    """Import the library and end."""


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
