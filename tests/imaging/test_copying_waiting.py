"""Work that waits for a slow source or a slow target uses next to no processor, with few and many workers.

The processor's time is compared with the wall's, less what the work takes where nothing is waited for:
what spins uses one second each second, however fast or busy the machine is.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from vsssnap.formats import MemoryStorage, PipeStorage, Storage
from vsssnap.imaging.reports import CopyOptions
from vsssnap.imaging.saving import save_image

MIB = 1 << 20
WORKERS = pytest.mark.parametrize("workers", [1, 16])


class SlowSource(MemoryStorage):
    """Answers each read after a while, one read at a time, as a disk does."""

    def __init__(self, data: bytes, seconds: float) -> None:
        super().__init__(data)
        self._seconds = seconds
        self._arm = threading.Lock()

    def pread(self, length: int, offset: int, /) -> bytes:
        with self._arm:
            time.sleep(self._seconds)
        return super().pread(length, offset)


def share(waiting: Callable[[], object], work: Callable[[], object]) -> float:
    """Processor time that waiting takes, for each second of it.

    Args:
        waiting: Some work that waits.
        work: The same without waiting.
    """
    work()  # whatever is done once is done now
    plain = time.process_time()
    work()
    plain = time.process_time() - plain
    wall, used = time.monotonic(), time.process_time()
    waiting()
    wall, used = time.monotonic() - wall, time.process_time() - used
    assert wall > 0.8, "too short to tell"
    return (used - plain) / wall


def saved(source: MemoryStorage, target: Storage, workers: int, rate_limit: int | None = None) -> None:
    save_image(source, target, format="vsnap", copy=CopyOptions(workers=workers, rate_limit=rate_limit))


@pytest.fixture
def slow_pipe() -> Iterator[int]:
    """A pipe that is emptied at about 3 MiB a second."""
    read_end, write_end = os.pipe()

    def empty() -> None:
        while os.read(read_end, 65536):
            time.sleep(0.02)

    thread = threading.Thread(target=empty)
    thread.start()
    yield write_end
    os.close(write_end)
    thread.join()
    os.close(read_end)


@WORKERS
def test_a_slow_source_is_waited_for_without_spinning(workers: int) -> None:
    data = os.urandom(20 * MIB)
    used = share(
        lambda: saved(SlowSource(data, 0.06), MemoryStorage(), workers),
        lambda: saved(MemoryStorage(data), MemoryStorage(), workers),
    )
    assert used < 0.25


@WORKERS
@pytest.mark.parametrize(
    "blocking", [True, pytest.param(False, marks=pytest.mark.posix("there a pipe of os.pipe always waits"))]
)
def test_a_slow_target_is_waited_for_without_spinning(slow_pipe: int, workers: int, blocking: bool) -> None:
    if not blocking:
        os.set_blocking(slow_pipe, False)
    source, pipe = MemoryStorage(os.urandom(4 * MIB)), PipeStorage(slow_pipe, owned=False)
    used = share(
        lambda: saved(source, pipe, workers),
        lambda: saved(source, MemoryStorage(), workers),
    )
    assert used < 0.25


@WORKERS
def test_a_rate_limit_is_kept_without_spinning(workers: int) -> None:
    source = MemoryStorage(os.urandom(4 * MIB))
    used = share(
        lambda: saved(source, MemoryStorage(), workers, rate_limit=3 * MIB),
        lambda: saved(source, MemoryStorage(), workers),
    )
    assert used < 0.25
