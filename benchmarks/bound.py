"""What the machine allows: the calls that a copy cannot do without, and nothing around them.

``python bound.py WHAT ARGUMENT ...`` in as many threads as the library would use.  No order,
no index, no file is written, no error is handled: a real copy can only come near.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence

import xxhash
import zstandard
from blake3 import blake3

CHUNK, CELL, SEGMENT = 1 << 20, 64 << 10, 256 << 10
ZEROS = bytes(CELL)


def in_threads(items: Sequence[tuple[int, int]], make: Callable[[], Callable[[int, int], None]]) -> None:
    """Give every item to one of the threads, as they come free; each thread has its own worker."""
    shared = iter(items)
    lock = threading.Lock()

    def run() -> None:
        work = make()
        while True:
            with lock:
                item = next(shared, None)
            if item is None:
                return
            work(*item)

    threads = [threading.Thread(target=run) for _ in range(len(os.sched_getaffinity(0)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def chunks_with_data(fd: int) -> list[tuple[int, int]]:
    """The chunks of a file that are not in a hole."""
    size, at, found = os.fstat(fd).st_size, 0, []
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        end = os.lseek(fd, at, os.SEEK_HOLE)
        found += [(start, min(CHUNK, size - start)) for start in range(at - at % CHUNK, end, CHUNK)]
        at = end
    return sorted(set(found))


def save(source: str, level: str, digest: str = "blake3") -> None:
    """Read, zero test, digest, zstd by segments, xxh3 of each."""
    fd = os.open(source, os.O_RDONLY)

    def make() -> Callable[[int, int], None]:
        buffer = bytearray(CHUNK)
        compressor = zstandard.ZstdCompressor(level=int(level))

        def work(offset: int, length: int) -> None:
            view = memoryview(buffer)[:length]
            os.preadv(fd, [view], offset)
            cells = [at for at in range(0, length, CELL) if not ZEROS.startswith(view[at : at + CELL])]
            if not cells:
                return
            if digest == "blake3":
                blake3(view).digest()
            plain = view
            if len(cells) * CELL < length:
                plain = memoryview(b"".join(view[at : at + CELL] for at in cells))
            for at in range(0, len(plain), SEGMENT):
                packed = compressor.compress(plain[at : at + SEGMENT])
                if digest == "blake3":
                    xxhash.xxh3_128_digest(packed)

        return work

    in_threads(chunks_with_data(fd), make)


def segments(image: str) -> list[tuple[int, int]]:
    """Where the segments of a `.vsnap` lie: by its index, through the library."""
    import vsssnap
    from vsssnap.formats.vsnap.reader import VsnapReader

    found = []
    with vsssnap.open_image(image) as reader:
        assert isinstance(reader, VsnapReader)
        for _, _, entry in reader.tree.walk(0, reader.geometry.chunk_count):
            for piece in entry.pieces:
                frame = reader.chain[piece.file].data_frame(piece.offset, piece.box_length)
                ends = [frame.payload_at + end for end in frame.ends]
                found += [(first, last - first) for first, last in itertools.pairwise(ends)]
    return found


def content(image: str) -> None:
    """Read every segment, check, decompress, digest; prints seconds."""
    places = segments(image)
    fd = os.open(image, os.O_RDONLY)

    def make() -> Callable[[int, int], None]:
        buffer = bytearray(2 * SEGMENT)
        decompressor = zstandard.ZstdDecompressor()

        def work(offset: int, length: int) -> None:
            view = memoryview(buffer)[:length]
            os.preadv(fd, [view], offset)
            xxhash.xxh3_128_digest(view)
            blake3(decompressor.decompress(view)).digest()

        return work

    started = time.perf_counter()
    in_threads(places, make)
    print(f"seconds: {time.perf_counter() - started}")


def random_decodes(image: str, count: str) -> None:
    """Read and decompress some segments in a seeded order, one thread; prints seconds."""
    import random

    places = segments(image)
    chosen = random.Random(7).sample(places, min(int(count), len(places)))
    fd = os.open(image, os.O_RDONLY)
    decompressor = zstandard.ZstdDecompressor()
    started = time.perf_counter()
    for offset, length in chosen:
        data = os.pread(fd, length, offset)
        xxhash.xxh3_128_digest(data)
        decompressor.decompress(data)
    print(f"seconds: {time.perf_counter() - started}")


def read(path: str) -> None:
    """Read a file once, in one thread."""
    fd = os.open(path, os.O_RDONLY)
    buffer = bytearray(1 << 20)
    for offset in itertools.count(0, len(buffer)):
        if not os.preadv(fd, [buffer], offset):
            return


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
