"""A resource is let go once, by whoever is the last, and never under a user."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ctrl_c import ctrl_c_at
from vsssnap import CowVolume, open_device, open_image, save_image
from vsssnap._deadline import Deadline
from vsssnap._uses import UseGate
from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import CancelledError, ClosedError, SnapshotTimeoutError
from vsssnap.testing import MemoryReader, MemoryVolume

WAIT = 60.0  # seconds until a test gives a stuck thread up


@pytest.fixture
def released() -> list[str]:
    return []


def test_close_without_users_releases_at_once(released: list[str]) -> None:
    gate = UseGate("thing")
    gate.close(lambda: released.append("x"))
    assert (released, gate.closed) == (["x"], True)


def test_last_user_releases(released: list[str]) -> None:
    gate = UseGate("thing")
    with gate:
        with gate:
            gate.close(lambda: released.append("x"))
        assert released == []
    assert released == ["x"]


def test_closed_gate_refuses_and_names_the_thing() -> None:
    gate = UseGate("the thing")
    gate.close(lambda: None)
    with pytest.raises(ClosedError, match="the thing is closed: open it again"), gate:
        pass


def test_release_runs_once_and_is_the_first_closes(released: list[str]) -> None:
    gate = UseGate("thing")
    with gate:
        gate.close(lambda: released.append("first"))
        gate.close(lambda: released.append("second"))
        with pytest.raises(ClosedError), gate:
            pass
    gate.close(lambda: released.append("third"))
    assert released == ["first"]


def test_user_that_fails_leaves(released: list[str]) -> None:
    gate = UseGate("thing")
    with pytest.raises(ZeroDivisionError), gate:
        raise ZeroDivisionError
    gate.close(lambda: released.append("x"))
    assert released == ["x"]


def test_ctrl_c_anywhere_while_it_is_entered_leaves_no_user(released: list[str]) -> None:
    reached = []
    for place in range(100):
        gate, hit = UseGate("thing"), list[str]()
        try:
            with ctrl_c_at(place, {UseGate.__enter__.__code__}) as hit:
                gate.__enter__()
        except KeyboardInterrupt:
            reached += hit
        else:
            gate.__exit__(None, None, None)
        gate.close(lambda: released.append("x"))
        assert len(released) == place + 1, f"a user stays after Ctrl-C at {hit}"
        if not hit:
            break
    assert 0 < len(reached) < 100


def test_release_that_fails_is_raised_and_counts_as_done() -> None:
    gate = UseGate("thing")

    def release() -> None:
        raise OSError(5, "no")

    with pytest.raises(OSError, match="no"):
        gate.close(release)
    gate.wait_released(Deadline(WAIT), "wait")


def test_waiting_ends_when_the_last_user_has_left(released: list[str]) -> None:
    gate, inside, go = UseGate("thing"), threading.Event(), threading.Event()

    def use() -> None:
        with gate:
            inside.set()
            assert go.wait(WAIT)

    with ThreadPoolExecutor(2) as pool:
        user = pool.submit(use)
        assert inside.wait(WAIT)
        gate.close(lambda: released.append("x"))
        waiting = pool.submit(gate.wait_released, Deadline(WAIT), "wait")
        assert not waiting.done()
        go.set()
        waiting.result(WAIT)
        assert released == ["x"]
        user.result(WAIT)


def test_waiting_ends_at_the_deadline_and_when_cancelled() -> None:
    gate = UseGate("thing")
    with gate:
        gate.close(lambda: None)
        with pytest.raises(SnapshotTimeoutError, match="wait for reads: not done within"):
            gate.wait_released(Deadline(0.01), "wait for reads")
        cancelled = Deadline(WAIT)
        cancelled.cancel()
        with pytest.raises(CancelledError, match="wait for reads"):
            gate.wait_released(cancelled, "wait for reads")


def test_close_may_come_from_a_finalizer_within_the_gate(released: list[str]) -> None:
    """A collection may run at any allocation, also while the gate's own lock is held."""
    gate = UseGate("thing")
    with gate._lock:
        gate.close(lambda: released.append("x"))
    assert released == ["x"]


def test_many_threads_use_and_one_closes() -> None:
    for _ in range(5):
        gate, users, seen = UseGate("thing"), [0], list[int]()

        def use(gate: UseGate = gate, users: list[int] = users) -> None:
            try:
                while True:
                    with gate:
                        users[0] += 1
                        users[0] -= 1
            except ClosedError:
                return

        def look(seen: list[int] = seen, gate: UseGate = gate) -> None:
            seen.append(gate._users)

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        gate.close(look)
        gate.wait_released(Deadline(WAIT), "wait")
        for thread in threads:
            thread.join(WAIT)
        assert seen == [0]


# Owners that are forgotten.


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def open_now() -> int:
    return len(os.listdir("/proc/self/fd"))


def forgotten(make: Callable[[], BlockReader]) -> None:
    """Make a reader, use it, forget it; nothing but its count of references may be needed."""
    before = open_now()
    reader = make()
    reader.pread(10, 0)
    list(reader.extents())
    gone = weakref.ref(reader)
    assert open_now() > before or isinstance(reader, MemoryReader)
    del reader
    assert gone() is None
    assert open_now() == before


@pytest.mark.usefixtures("no_collector")
def test_forgotten_reader_of_a_file_closes_it(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 10_000)
    forgotten(lambda: open_device(path))
    forgotten(lambda: open_device(path, writable=True))


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("suffix", ["raw", "vsnap"])
def test_forgotten_reader_of_an_image_closes_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"disk.{suffix}"
    save_image(MemoryReader(b"x" * 10_000), path)
    gc.collect()
    forgotten(lambda: open_image(path))


@pytest.mark.usefixtures("no_collector")
def test_forgotten_reader_in_memory_goes() -> None:
    forgotten(lambda: MemoryReader(b"x" * 10_000))


@pytest.mark.usefixtures("no_collector")
def test_forgotten_view_lets_its_source_go(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 10_000)
    forgotten(lambda: open_device(path).window(5, 100))


@pytest.mark.usefixtures("no_collector")
def test_forgotten_cow_snapshot_gives_its_storage_back(tmp_path: Path) -> None:
    with CowVolume(MemoryVolume(b"x" * 10_000), shadow_folder=tmp_path) as volume:
        before = open_now()
        snapshot = volume.snapshot()
        volume.pwrite(b"y", 0)
        assert open_now() > before
        with pytest.warns(ResourceWarning, match="was never closed"):
            del snapshot
        assert open_now() == before
