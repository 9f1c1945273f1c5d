"""Work that waits for a slow source or a slow target uses next to no processor, with few and many workers.

Of the processor's time it is compared with the wall's: what spins uses one second each second.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from vsssnap.formats import MemoryStorage, PipeStorage
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


def share(work: Callable[[], object]) -> float:
    """Processor time of this process for each second that some work takes."""
    wall, used = time.monotonic(), time.process_time()
    work()
    wall, used = time.monotonic() - wall, time.process_time() - used
    assert wall > 0.8, "too short to tell"
    return used / wall


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
    source = SlowSource(os.urandom(20 * MIB), 0.06)
    used = share(
        lambda: save_image(source, MemoryStorage(), format="vsnap", copy=CopyOptions(workers=workers))
    )
    assert used < 0.25


@WORKERS
@pytest.mark.parametrize(
    "blocking", [True, pytest.param(False, marks=pytest.mark.posix("there a pipe of os.pipe always waits"))]
)
def test_a_slow_target_is_waited_for_without_spinning(slow_pipe: int, workers: int, blocking: bool) -> None:
    if not blocking:
        os.set_blocking(slow_pipe, False)
    source = MemoryStorage(os.urandom(4 * MIB))
    pipe = PipeStorage(slow_pipe, owned=False)
    used = share(lambda: save_image(source, pipe, format="vsnap", copy=CopyOptions(workers=workers)))
    assert used < 0.25


@WORKERS
def test_a_rate_limit_is_kept_without_spinning(workers: int) -> None:
    source = MemoryStorage(os.urandom(4 * MIB))
    options = CopyOptions(workers=workers, rate_limit=3 * MIB)
    used = share(lambda: save_image(source, MemoryStorage(), format="vsnap", copy=options))
    assert used < 0.25
