"""Many snapshots and many threads; nobody waits for the input and output of somebody else's block."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cow_volumes import BLOCK, WAIT, MemoryVolume, pattern, shadow_files, volume_of
from vsssnap.blocks.cow import CowVolume
from vsssnap.blocks.cow.store import ShadowStore

BLOCKS = 24


class Halting(MemoryVolume):
    """One call, the next that `halt` is asked for, stops until `go` is set."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.inside, self.go = threading.Event(), threading.Event()
        self.halted = ""

    def halt(self, call: str) -> None:
        self.halted = call

    def _stop(self, call: str) -> None:
        if self.halted == call:
            self.halted = ""
            self.inside.set()
            assert self.go.wait(WAIT)

    def pread(self, length: int, offset: int, /) -> bytes:
        self._stop("pread")
        return super().pread(length, offset)

    def pwrite(self, data: memoryview, offset: int, /) -> None:
        self._stop("pwrite")
        super().pwrite(data, offset)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def elsewhere(volume: CowVolume) -> dict[str, Callable[[], object]]:
    """What must not wait for a call that is stuck over block 0; instants do wait for writes."""
    return {
        "read another block": lambda: volume.pread(BLOCK, 3 * BLOCK),
        "read the same block": lambda: volume.pread(BLOCK, 0),
        "write another block": lambda: volume.pwrite(b"elsewhere", 3 * BLOCK),
        "extents": lambda: list(volume.extents(2 * BLOCK, BLOCK)),
        "facts": lambda: (volume.shadow_used, volume.closed),
        "flush": volume.flush,
    }


@pytest.mark.parametrize("call", ["pread", "pwrite"])
def test_stuck_write_stops_nobody_else(tmp_path: Path, threads: ThreadPoolExecutor, call: str) -> None:
    """Stuck while its original is read (pread), or while it is written itself (pwrite)."""
    backing = Halting(pattern(BLOCKS))
    with volume_of(backing, tmp_path) as volume, volume.snapshot() as snapshot, snapshot.open() as reader:
        other = volume.snapshot()
        backing.halt(call)
        stuck = threads.submit(volume.pwrite, b"x" * BLOCK, 0)
        assert backing.inside.wait(WAIT)
        try:
            for name, step in elsewhere(volume).items():
                assert threads.submit(step).exception(WAIT) is None, name
            threads.submit(other.close).result(WAIT)
            assert (
                threads.submit(reader.pread, BLOCK, 3 * BLOCK).result(WAIT)
                == pattern(BLOCKS)[3 * BLOCK : 4 * BLOCK]
            )
        finally:
            backing.go.set()
        assert stuck.result(WAIT) == BLOCK
        assert reader.readall() == pattern(BLOCKS)


def test_stuck_read_of_a_snapshot_stops_nobody(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    backing = Halting(pattern(BLOCKS))
    with volume_of(backing, tmp_path) as volume, volume.snapshot() as snapshot, snapshot.open() as reader:
        backing.halt("pread")
        stuck = threads.submit(reader.pread, BLOCK, 0)
        assert backing.inside.wait(WAIT)
        try:
            for name, step in elsewhere(volume).items():
                assert threads.submit(step).exception(WAIT) is None, name
            threads.submit(volume.pwrite, b"over what is being read", 0).result(WAIT)
            with threads.submit(volume.snapshot).result(WAIT) as another:
                assert another.open().pread(4, 0) == b"over"
        finally:
            backing.go.set()
        assert stuck.result(WAIT) == pattern(BLOCKS)[:BLOCK], "the block was overwritten meanwhile"


@pytest.mark.parametrize("call", ["write", "read_into"])
def test_stuck_shadow_storage_stops_only_who_needs_that_block(
    tmp_path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    inside, go = threading.Event(), threading.Event()
    right = getattr(ShadowStore, call)

    def halting(self: ShadowStore, view: memoryview, offset: int) -> None:
        if not offset and not inside.is_set():
            inside.set()
            assert go.wait(WAIT)
        right(self, view, offset)

    with (
        volume_of(pattern(BLOCKS), tmp_path) as volume,
        volume.snapshot() as snapshot,
        snapshot.open() as reader,
    ):
        if call == "read_into":
            volume.pwrite(b"x" * BLOCK, 0)
        monkeypatch.setattr(ShadowStore, call, halting)
        stuck = threads.submit(reader.pread if call == "read_into" else volume.pwrite,
                               *((BLOCK, 0) if call == "read_into" else (b"x" * BLOCK, 0)))  # fmt: skip
        assert inside.wait(WAIT)
        try:
            for name, step in elsewhere(volume).items():
                assert threads.submit(step).exception(WAIT) is None, name
            for block in range(4, BLOCKS):
                assert threads.submit(volume.pwrite, b"y" * BLOCK, block * BLOCK).result(WAIT) == BLOCK
        finally:
            go.set()
        stuck.result(WAIT)
        assert reader.readall() == pattern(BLOCKS)


def test_hundreds_of_snapshots_each_keep_their_instant(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    dice, count = random.Random(1), 300
    with volume_of(pattern(BLOCKS, 99), tmp_path) as volume:
        kept = []
        for number in range(count):
            for _ in range(dice.randrange(4)):
                length = dice.randrange(1, 3 * BLOCK)
                volume.pwrite(bytes([number % 256]) * length, dice.randrange(volume.size - length + 1))
            kept.append((volume.snapshot(), volume.pread(volume.size, 0)))
        stop = threading.Event()

        def scribble(seed: int) -> None:
            own = random.Random(seed)
            while not stop.is_set():
                volume.pwrite(own.randbytes(500), own.randrange(volume.size - 500))

        def check(index: int) -> bool:
            snapshot, content = kept[index]
            with snapshot.open() as reader:
                return reader.readall() == content

        writers = [threads.submit(scribble, n) for n in range(4)]
        try:
            assert all(threads.map(check, range(count)))
            dice.shuffle(kept)
            for snapshot, _ in kept[: count // 2]:
                snapshot.close()
            del kept[: count // 2]
            assert all(threads.map(check, range(len(kept))))
        finally:
            stop.set()
            for snapshot, _ in kept:
                snapshot.close()
        for writer in writers:
            writer.result(WAIT)
        assert (volume.shadow_used, shadow_files(tmp_path)) == (0, [])
