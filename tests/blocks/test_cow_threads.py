"""CowVolume under many threads: what overlaps, what waits, and what a snapshot may show."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cow_volumes import BLOCK, WAIT, MemoryVolume, pattern, shadow_files, volume_of
from vsssnap._deadline import Deadline
from vsssnap.blocks.cow import CowInstant, CowVolume, WhenFull
from vsssnap.blocks.extent import Extent
from vsssnap.errors import SnapshotLostError, SnapshotTimeoutError

SLOTS = 8  # of a writer; write number n goes to slot n % SLOTS
RECORD = 2 * BLOCK + 808  # bytes of one write: over several blocks, shared with its neighbours


class StuckVolume(MemoryVolume):
    """Writes to offset 0, or every read, stop until `go` is set."""

    def __init__(self, data: bytes, *, reads: bool = False) -> None:
        super().__init__(data)
        self.stuck_reads = reads
        self.inside, self.go = threading.Event(), threading.Event()

    def _stop(self) -> None:
        self.inside.set()
        assert self.go.wait(WAIT)

    def pread(self, length: int, offset: int, /) -> bytes:
        if self.stuck_reads:
            self._stop()
        return super().pread(length, offset)

    def pwrite(self, data: memoryview, offset: int, /) -> None:
        if not self.stuck_reads and not offset:
            self.data[offset] = 0  # half of a write
            self._stop()
        super().pwrite(data, offset)


class OvertakenVolume(MemoryVolume):
    """Does something else right before its next read."""

    overtake: Callable[[], object] | None = None

    def pread(self, length: int, offset: int, /) -> bytes:
        hook, self.overtake = self.overtake, None
        if hook is not None:
            hook()
        return super().pread(length, offset)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def test_writes_of_different_blocks_save_and_write_at_the_same_time(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    together = threading.Barrier(4)  # breaks, and fails the test, unless four threads are inside at once

    class Meeting(MemoryVolume):
        def pread(self, length: int, offset: int, /) -> bytes:
            together.wait(WAIT)
            return super().pread(length, offset)

        def pwrite(self, data: memoryview, offset: int, /) -> None:
            together.wait(WAIT)
            super().pwrite(data, offset)

    with (
        volume_of(Meeting(pattern(4)), tmp_path, when_full=WhenFull.FAIL_WRITE) as volume,
        volume.snapshot(),
    ):
        jobs = [threads.submit(volume.pwrite, b"x" * BLOCK, index * BLOCK) for index in range(4)]
        assert [job.result(2 * WAIT) for job in jobs] == [BLOCK] * 4


def test_snapshot_is_read_while_a_write_of_the_same_block_is_stuck(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    old = pattern(2)
    backing = StuckVolume(old)
    with volume_of(backing, tmp_path) as volume, volume.snapshot() as snapshot:
        job = threads.submit(volume.pwrite, b"x" * BLOCK, 0)
        assert backing.inside.wait(WAIT)
        try:
            assert snapshot.open().pread(2 * BLOCK, 0) == old
        finally:
            backing.go.set()
        job.result(WAIT)


def test_many_writers_of_one_block_save_it_once(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    backing = MemoryVolume(pattern(1), slow=True)
    with volume_of(backing, tmp_path) as volume, volume.snapshot() as snapshot:
        jobs = [threads.submit(volume.pwrite, bytes([n]), n) for n in range(16)]
        for job in jobs:
            job.result(WAIT)
        assert len(backing.reads) == 1
        assert snapshot.open().pread(BLOCK, 0) == pattern(1)


def test_block_that_changes_under_a_read_is_read_again(tmp_path: Path) -> None:
    old = pattern(2)
    backing = OvertakenVolume(old)
    with volume_of(backing, tmp_path) as volume, volume.snapshot() as snapshot, snapshot.open() as reader:
        # The reader has found block 0 unsaved and is about to read it from the volume.
        backing.overtake = lambda: volume.pwrite(b"new" * 100, 0)
        assert reader.pread(2 * BLOCK, 0) == old


def test_block_that_changes_under_extents_is_not_called_zero_for_it(tmp_path: Path) -> None:
    class Overtaken(MemoryVolume):
        def extents(self, offset: int, length: int) -> Iterator[Extent]:
            volume.pwrite(bytes(2 * BLOCK), 0)  # now it is zero, and was not
            return super().extents(offset, length)

    with volume_of(Overtaken(pattern(2)), tmp_path) as volume, volume.snapshot() as snapshot:
        assert list(snapshot.open().extents()) == [Extent(0, 2 * BLOCK)]


def test_snapshot_lost_under_a_read_gives_no_bytes(tmp_path: Path) -> None:
    backing = OvertakenVolume(pattern(2))
    with (
        volume_of(backing, tmp_path, shadow_limit=0) as volume,
        volume.snapshot() as snapshot,
        snapshot.open() as reader,
    ):
        backing.overtake = lambda: volume.pwrite(b"new" * 100, 0)
        with pytest.raises(SnapshotLostError):
            reader.pread(2 * BLOCK, 0)


def test_snapshot_waits_for_a_running_write(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    backing = StuckVolume(pattern(1))
    with volume_of(backing, tmp_path) as volume:
        job = threads.submit(volume.pwrite, b"x" * BLOCK, 0)
        assert backing.inside.wait(WAIT)
        later = threads.submit(volume.snapshot)
        with pytest.raises(TimeoutError):
            later.result(0.05)
        backing.go.set()
        job.result(WAIT)
        with later.result(WAIT) as snapshot:
            assert snapshot.open().pread(BLOCK, 0) == b"x" * BLOCK


def test_snapshot_gives_up_on_a_stuck_write_and_writes_go_on(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    backing = StuckVolume(pattern(2))
    with volume_of(backing, tmp_path) as volume:
        job = threads.submit(volume.pwrite, b"x", 0)
        assert backing.inside.wait(WAIT)
        try:
            with pytest.raises(SnapshotTimeoutError, match="wait for writes"):
                volume.snapshot(timeout=0.05)
            assert volume.pwrite(b"y", BLOCK) == 1
        finally:
            backing.go.set()
        job.result(WAIT)
        assert shadow_files(tmp_path) == []


def test_read_that_runs_while_its_snapshot_is_closed_finishes(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    backing = StuckVolume(pattern(2), reads=True)
    with volume_of(backing, tmp_path) as volume:
        snapshot = volume.snapshot()
        job = threads.submit(snapshot.open().pread, 2 * BLOCK, 0)
        assert backing.inside.wait(WAIT)
        snapshot.close()
        backing.go.set()
        assert job.result(WAIT) == pattern(2)
        assert shadow_files(tmp_path) == []


def check_cut(data: bytes, writers: int) -> int:
    """Hold a snapshot to the law, of each writer a prefix of its writes, each whole; gives their number."""
    seen = 0
    for writer in range(writers):
        numbers = []
        for slot in range(SLOTS):
            begin = (writer * SLOTS + slot) * RECORD
            record = data[begin : begin + RECORD]
            number = int.from_bytes(record[:8], "little")
            assert record == number.to_bytes(8, "little") * (RECORD // 8), "a write shows in part"
            numbers.append(number)
        last = max(numbers)
        prefix = [0] * SLOTS
        for number in range(max(1, last - SLOTS + 1), last + 1):
            prefix[number % SLOTS] = number
        assert numbers == prefix
        seen += last
    return seen


def test_every_snapshot_under_load_is_a_consistent_cut(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    writers, stop = 4, threading.Event()
    backing = MemoryVolume(bytes(writers * SLOTS * RECORD), slow=True)

    def write(volume: CowVolume, writer: int) -> int:
        number = 0
        while not stop.is_set():
            number += 1
            place = (writer * SLOTS + number % SLOTS) * RECORD
            volume.pwrite(number.to_bytes(8, "little") * (RECORD // 8), place)
        return number

    with volume_of(backing, tmp_path) as volume:
        jobs = [threads.submit(write, volume, writer) for writer in range(writers)]
        seen: list[int] = []
        held = []
        try:
            for turn in range(15):
                if turn < 12:
                    snapshot = volume.snapshot(timeout=WAIT)
                    held.append((snapshot, threads.submit(snapshot.open().pread, volume.size, 0)))
                if len(held) > 3 or turn >= 12:
                    # From the middle too: its originals go on serving the older ones.
                    snapshot, reading = held.pop(turn % min(3, len(held)))
                    with snapshot:
                        seen.append(check_cut(reading.result(WAIT), writers))
                        assert snapshot.open().pread(volume.size, 0) == reading.result(), "it has changed"
        finally:
            stop.set()
            for snapshot, _ in held:
                snapshot.close()
        assert all(job.result(WAIT) > 0 for job in jobs)
        assert max(seen) > 0
        assert volume.shadow_used == 0
        assert shadow_files(tmp_path) == []


def test_volumes_taken_together_show_one_instant(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    stop = threading.Event()
    one, two = (volume_of(MemoryVolume(bytes(BLOCK), slow=True), tmp_path) for _ in range(2))

    def write() -> None:
        number = 0
        while not stop.is_set():  # first into one, then into two
            number += 1
            one.pwrite(number.to_bytes(8, "little"), 0)
            two.pwrite(number.to_bytes(8, "little"), 0)

    with one, two:
        job = threads.submit(write)
        try:
            for turn in range(50):
                with CowInstant((two, one) if turn % 2 else (one, two)) as instant:
                    taken = {snapshot.name: snapshot for snapshot in instant.take(Deadline(WAIT))}
                with taken[one.name] as first, taken[two.name] as second:
                    a, b = (int.from_bytes(s.open().pread(8, 0), "little") for s in (first, second))
                assert 0 <= a - b <= 1
        finally:
            stop.set()
        job.result(WAIT)


def test_instants_over_the_same_volumes_in_any_order_do_not_wait_for_each_other(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    one, two = volume_of(b"1", tmp_path), volume_of(b"2", tmp_path)

    def take(*volumes: CowVolume) -> None:
        for _ in range(20):
            with CowInstant(volumes) as instant:
                for snapshot in instant.take(Deadline(WAIT)):
                    snapshot.close()

    with one, two:
        jobs = [threads.submit(take, *order) for order in ((one, two), (two, one)) * 2]
        for job in jobs:
            job.result(2 * WAIT)
