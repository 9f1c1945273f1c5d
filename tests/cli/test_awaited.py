"""What the main thread reads, others read for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.blocks.reader import BlockReader
from vsssnap.cli.awaited import Awaited
from vsssnap.errors import ClosedError, DeviceReadError, SnapshotLostError

T = TypeVar("T")

UNIT = 512
COUNT = 1000
CONTENT = b"".join(n.to_bytes(2, "big") * (UNIT // 2) if n % 2 else bytes(UNIT) for n in range(COUNT))


class Watched(BlockReader):
    """Tells which threads read it; every other unit is zero."""

    def __init__(self) -> None:
        super().__init__(len(CONTENT), sector_size=4096)
        self.threads: set[int] = set()
        self.bad = -1
        self.lost = False
        self.released = False

    def _read(self, length: int, offset: int) -> bytes:
        self.threads.add(threading.get_ident())
        if offset <= self.bad < offset + length:
            raise DeviceReadError("it fails", offset=offset, length=length)
        return CONTENT[offset : offset + length]

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        at = offset
        while at < offset + length:
            self.threads.add(threading.get_ident())
            stop = min(at - at % UNIT + UNIT, offset + length)
            yield Extent(at, stop - at, ExtentKind.DATA if at // UNIT % 2 else ExtentKind.ZERO)
            at = stop

    def _confirm(self) -> None:
        self.threads.add(threading.get_ident())
        if self.lost:
            raise SnapshotLostError("it is gone")

    def _release(self) -> None:
        self.released = True


def here(work: Callable[[], T]) -> T:
    return work()


def elsewhere(work: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@pytest.mark.parametrize("where", [here, elsewhere])
def test_it_gives_what_its_source_gives(where: Callable[[Callable[[], object]], object]) -> None:
    source = Watched()
    reader = Awaited(source)
    buffer = bytearray(3000)
    assert where(lambda: reader.pread(5000, 700)) == CONTENT[700:5700]
    assert where(lambda: reader.preadinto(buffer, len(CONTENT) - 2000)) == 2000
    assert buffer[:2000] == CONTENT[-2000:]
    assert where(lambda: reader.window(100, 5000).pread(4000, 50)) == CONTENT[150:4150]
    assert where(lambda: list(reader.extents(100, 300_000))) == list(source.extents(100, 300_000))
    assert where(reader.confirm) is None
    assert (reader.size, reader.sector_size) == (len(CONTENT), 4096)


def test_the_main_thread_reads_nothing_itself_and_others_do() -> None:
    source = Watched()
    reader = Awaited(source)
    reader.pread(10, 0)
    reader.preadinto(bytearray(10), 0)
    reader._read_parts([(memoryview(bytearray(10)), 0)])
    list(reader.extents())
    reader.confirm()
    assert source.threads
    assert threading.get_ident() not in source.threads
    source.threads.clear()

    def read() -> int:
        reader.pread(10, 0)
        reader._read_parts([(memoryview(bytearray(10)), 0)])
        list(reader.extents())
        return threading.get_ident()

    own = elsewhere(read)
    assert source.threads == {own}


def test_errors_pass_as_they_are_and_a_buffer_is_left_alone() -> None:
    source = Watched()
    source.bad, source.lost = 700, True
    reader = Awaited(source)
    buffer = bytearray(b"x" * 1000)
    with pytest.raises(DeviceReadError, match="it fails"):
        reader.preadinto(buffer, 0)
    assert buffer == b"x" * 1000
    with pytest.raises(SnapshotLostError, match="it is gone"):
        reader.confirm()


@pytest.mark.parametrize("owned", [False, True])
def test_it_closes_its_source_if_it_owns_it(owned: bool) -> None:
    source = Watched()
    reader = Awaited(source, owned=owned)
    reader.close()
    assert source.released is owned
    with pytest.raises(ClosedError):
        reader.pread(1, 0)
