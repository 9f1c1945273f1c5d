"""Every provider keeps the contract of `Provider`; those that need a kernel feature are in test_reflink."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from vsssnap import CowVolume
from vsssnap.providers import by_name
from vsssnap.testing import CheckedVolume, MemoryProvider, MemoryVolume, check_provider

SIZE = 192 * 1024 + 512  # bytes: whole sectors, no whole blocks of 64 KiB


def cow(data: bytes | MemoryVolume, folder: Path, *, limit: int | None = None) -> CowVolume:
    backing = data if isinstance(data, MemoryVolume) else MemoryVolume(data)
    return CowVolume(backing, shadow_folder=folder, block_size=4096, shadow_limit=limit)


def checked_cow(volume: CowVolume) -> CheckedVolume:
    return CheckedVolume(volume=volume, write=volume.pwrite, read=lambda: volume.pread(volume.size, 0))


def checked_file(path: Path) -> CheckedVolume:
    """A file that is open only while it is written."""

    def write(data: bytes, offset: int) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    return CheckedVolume(volume=str(path), write=write, read=path.read_bytes)


def checked_memory(volume: MemoryVolume) -> CheckedVolume:
    return CheckedVolume(volume=volume, write=volume.pwrite, read=lambda: volume.pread(volume.size, 0))


def test_memory_keeps_the_contract() -> None:
    one, two = MemoryVolume(os.urandom(SIZE)), MemoryVolume(os.urandom(SIZE), sector_size=4096)
    check_provider(
        MemoryProvider,
        [checked_memory(one), checked_memory(two)],
        lose=one.lose_snapshots,
        left=lambda: sorted(MemoryProvider.machine),
    )


def test_cow_keeps_the_contract(tmp_path: Path) -> None:
    with cow(os.urandom(SIZE), tmp_path) as one, cow(os.urandom(SIZE), tmp_path) as two:
        check_provider(
            lambda: by_name("cow"),
            [checked_cow(one), checked_cow(two)],
            lose=one.close,  # a snapshot ends with its volume
            left=lambda: os.listdir(tmp_path),
        )


def test_cow_that_is_full_keeps_the_contract(tmp_path: Path) -> None:
    with cow(os.urandom(SIZE), tmp_path, limit=4096) as volume:
        check_provider(
            lambda: by_name("cow"),
            [CheckedVolume(volume=volume, read=lambda: volume.pread(SIZE, 0))],
            lose=lambda: volume.pwrite(bytes(8192), 0),
        )


def test_cow_with_a_stuck_write_keeps_the_contract(tmp_path: Path) -> None:
    go = threading.Event()
    go.set()
    inside = threading.Semaphore(0)

    class Stuck(MemoryVolume):
        def pwrite(self, data: bytes | bytearray | memoryview, offset: int, /) -> int:
            inside.release()
            assert go.wait(60)
            return super().pwrite(data, offset)

    with cow(Stuck(os.urandom(SIZE)), tmp_path) as volume:

        @contextlib.contextmanager
        def stuck() -> Iterator[None]:
            go.clear()
            while inside.acquire(blocking=False):
                pass
            writer = threading.Thread(target=volume.pwrite, args=(b"x", 0))
            writer.start()
            assert inside.acquire(timeout=60)
            try:
                yield
            finally:
                go.set()
                writer.join()

        check_provider(lambda: by_name("cow"), [checked_cow(volume)], busy=stuck)


def test_static_keeps_the_contract(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(os.urandom(SIZE))
    two.write_bytes(os.urandom(SIZE // 2))

    @contextlib.contextmanager
    def written() -> Iterator[None]:
        with one.open("r+b"):
            yield

    check_provider(
        lambda: by_name("static"),
        [checked_file(one), checked_file(two)],
        still=True,
        busy=written,
        left=lambda: sorted(os.listdir(tmp_path)),
    )
