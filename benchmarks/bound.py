"""What the machine allows: the calls that a copy cannot do without, and nothing around them.

``python bound.py WHAT ARGUMENT ...`` in as many threads as the library would use.  No order,
no index, no file is written, no error is handled: a real copy can only come near.  How near the
writing of a file alone lets it come, is shown by ``save`` with a target.
"""

from __future__ import annotations

import itertools
import mmap
import os
import queue
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


class Output:
    """A file that takes buffers as they come, past the page cache, by a thread of its own."""

    SIZE, COUNT = 4 << 20, 6

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_DIRECT, 0o666)
        self._full: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        self.free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        for _ in range(self.COUNT):
            self.free.put(memoryview(mmap.mmap(-1, self.SIZE)))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while (view := self._full.get()) is not None:
            os.write(self._fd, view)
            self.free.put(view)

    def taker(self) -> Callable[[bytes], None]:
        """What a thread gives its bytes to; the last part of a buffer is left out."""
        view, at = self.free.get(), 0

        def take(data: bytes) -> None:
            nonlocal view, at
            done = 0
            while done < len(data):
                count = min(len(data) - done, self.SIZE - at)
                view[at : at + count] = memoryview(data)[done : done + count]
                at, done = at + count, done + count
                if at == self.SIZE:
                    self._full.put(view)
                    view, at = self.free.get(), 0

        return take

    def finish(self) -> None:
        """Return when all is on the disk."""
        self._full.put(None)
        self._thread.join()
        os.fsync(self._fd)


def save(source: str, level: str, digest: str = "blake3", target: str = "") -> None:
    """Read, zero test, digest, zstd by segments, xxh3 of each; then into a file, if one is named."""
    fd = os.open(source, os.O_RDONLY)
    output = Output(target) if target else None

    def make() -> Callable[[int, int], None]:
        take = output.taker() if output is not None else None
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
                if take is not None:
                    take(packed)

        return work

    in_threads(chunks_with_data(fd), make)
    if output is not None:
        output.finish()


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
