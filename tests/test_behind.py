"""Writing behind the writer: the same bytes whatever way they take, and every error reported."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsssnap import _behind, _files
from vsssnap._behind import WriteBehind, WriteFailed
from vsssnap.errors import TargetError
from vsssnap.formats.storage import FileStorage
from waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there anything is held back")

PIECE = 64 << 10


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    number = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    yield number
    os.close(number)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Buffers that a test fills; and no thread is left when it ends."""
    monkeypatch.setattr(_behind, "_FIRST", PIECE)
    monkeypatch.setattr(_behind, "_BUFFER", 4 * PIECE)
    monkeypatch.setattr(_behind, "_DIRECT", 4096)
    yield
    gc.collect()
    assert until(lambda: not _threads())


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "vsssnap-behind"]


def is_direct(fd: int) -> bool:
    """Whether the file system of the tests lies on a block device."""
    return os.major(os.fstat(fd).st_dev) != 0


def content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def beyond_the_first(behind: WriteBehind) -> bytes:
    """What makes it hold back from now on."""
    data = random.Random(1).randbytes(PIECE)
    behind.write([memoryview(data)], 0)
    return data


def test_large_files_are_written_past_the_cache(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, int, int]] = []
    pwrite, pwritev = _files.pwrite, _files.pwritev
    data = random.Random(2).randbytes(9 * PIECE + 777)

    def direct(number: int, view: memoryview, offset: int) -> int:
        flags = int(Path(f"/proc/self/fdinfo/{number}").read_text().split("flags:")[1].split()[0], 8)
        seen.append((bool(flags & os.O_DIRECT), offset, len(view)))
        return pwrite(number, view, offset)

    def cached(number: int, parts: list[memoryview], offset: int) -> int:
        seen.append((False, offset, sum(map(len, parts))))
        return pwritev(number, parts, offset)

    monkeypatch.setattr(_files, "pwrite", direct)
    monkeypatch.setattr(_files, "pwritev", cached)
    behind = WriteBehind(fd)
    first = memoryview(data)[: PIECE + 100]
    behind.write([first[:50], first[50:100]], 0)
    behind.write([first[100:]], 100)
    behind.write([memoryview(data)[PIECE + 100 : 2 * PIECE]], PIECE + 100)
    behind.write([memoryview(data)[2 * PIECE :]], 2 * PIECE)
    assert behind.pending == is_direct(fd)
    behind.drain()
    assert not behind.pending
    assert content(fd) == data
    if is_direct(fd):
        # What is not a whole sector goes through the cache, everything else past it.
        assert seen == [
            (False, 0, 100),
            (False, 100, 4096 - 100),
            (True, 4096, 4 * PIECE - 4096),
            (True, 4 * PIECE, 4 * PIECE),
            (True, 8 * PIECE, PIECE),
            (False, 9 * PIECE, 777),
        ]


def test_small_files_need_no_thread(fd: int) -> None:
    behind = WriteBehind(fd)
    behind.write([memoryview(b"abc"), memoryview(b"de")], 7)
    assert not behind.pending
    assert content(fd) == bytes(7) + b"abcde"


def test_after_a_drain_everything_is_written_at_once(fd: int) -> None:
    behind = WriteBehind(fd)
    data = beyond_the_first(behind)
    behind.drain()
    behind.write([memoryview(b"x" * 3 * PIECE)], PIECE)
    assert not behind.pending
    assert content(fd) == data + b"x" * 3 * PIECE


@given(
    st.lists(
        st.tuples(
            st.integers(0, 12 * PIECE),
            st.integers(1, 6 * PIECE) | st.integers(1, 5000) | st.integers(1, 6).map(PIECE.__mul__),
            st.booleans(),
        ),
        max_size=12,
    ),
    st.integers(0, 1 << 30),
)
@settings(deadline=None, max_examples=150)
def test_writes_in_any_order_and_over_each_other_give_the_bytes_of_the_last(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, int, bool]], seed: int
) -> None:
    dice = random.Random(seed)
    model = bytearray()
    path = tmp_path_factory.mktemp("model") / "file"
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    behind = WriteBehind(fd)
    try:
        at = 0
        for offset, length, follows in writes:
            at = at if follows else offset
            data = dice.randbytes(length)
            cut = dice.randrange(length + 1)
            behind.write([memoryview(data)[:cut], memoryview(data)[cut:]], at)
            model.extend(bytes(max(0, at + length - len(model))))
            model[at : at + length] = data
            at += length
        behind.drain()
        assert content(fd) == bytes(model)
    finally:
        behind.close()
        os.close(fd)
        path.unlink()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_without_direct_writes_gets_plain_ones(
    fd: int, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    calls: list[int] = []

    def refuse(number: int, view: memoryview, offset: int) -> int:
        calls.append(offset)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(_files, "pwrite", refuse)
    behind = WriteBehind(fd)
    data = beyond_the_first(behind) + random.Random(3).randbytes(11 * PIECE + 1)
    behind.write([memoryview(data)[PIECE:]], PIECE)
    behind.drain()
    assert content(fd) == data
    assert len(calls) <= 1


@pytest.mark.parametrize("taken", [4096, 1000, 0])
def test_a_direct_write_that_takes_less_is_continued(
    fd: int, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    monkeypatch.setattr(_files, "pwrite", lambda number, view, offset: os.pwrite(fd, view[:taken], offset))
    behind = WriteBehind(fd)
    data = beyond_the_first(behind) + random.Random(4).randbytes(9 * PIECE)
    behind.write([memoryview(data)[PIECE:]], PIECE)
    behind.drain()
    assert content(fd) == data


def test_a_failed_write_is_told_to_every_later_call(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_direct(fd):
        pytest.fail("the tests' folder must lie on a file system with a block device")

    def full(number: int, view: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_files, "pwrite", full)
    behind = WriteBehind(fd)
    beyond_the_first(behind)

    def fill() -> None:
        for number in range(1, 100):
            behind.write([memoryview(bytes(PIECE))], number * PIECE)

    with pytest.raises(WriteFailed) as caught:
        fill()
    assert (caught.value.error.errno, caught.value.offset) == (errno.ENOSPC, 0)
    for _ in range(2):
        with pytest.raises(WriteFailed, match="28"):
            behind.drain()
    behind.close()


def test_a_full_disk_is_the_error_of_a_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int, view: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    monkeypatch.setattr(_files, "pwrite", full)
    with FileStorage(fd, "the-image") as storage:
        storage.append([bytes(2 * PIECE)])
        storage.append([bytes(PIECE)])
        with pytest.raises(
            TargetError, match=r"the-image: cannot write \d+ bytes at 0: No space left"
        ) as caught:
            storage.flush()
        assert caught.value.code == errno.ENOSPC
        assert caught.value.hint == "make room or choose another target"


def test_a_storage_reads_and_measures_what_it_wrote(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    data = random.Random(5).randbytes(20 * PIECE)
    with FileStorage(fd, "image") as storage:
        for at in range(0, len(data), PIECE):
            assert storage.append([data[at : at + 100], memoryview(data)[at + 100 : at + PIECE]]) == at
            assert storage.size == at + PIECE
            if at % (5 * PIECE) == 0:
                assert storage.pread(PIECE, at) == data[at : at + PIECE]
        storage.pwrite(b"!" * 5000, 30 * PIECE)
        into = bytearray(5000)
        storage.preadinto(memoryview(into), 30 * PIECE)
        assert into == b"!" * 5000
        assert sum(extent.length for extent in storage.extents(0, storage.size)) == storage.size
        storage.truncate(21 * PIECE)
        storage.flush()
        assert (tmp_path / "file").read_bytes() == data + bytes(PIECE)


def test_a_storage_that_is_closed_or_forgotten_leaves_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for forgotten in (False, True):
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
        storage = FileStorage(fd, "image")
        storage.append([bytes(9 * PIECE)])
        if not forgotten:
            storage.close()
        del storage
        gc.collect()
        if forgotten:
            os.close(fd)
    assert until(lambda: not _threads())
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_a_thread_it_goes_on_as_ever(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(threading.Thread, "start", none)
    behind = WriteBehind(fd)
    data = beyond_the_first(behind)
    assert not behind.pending
    assert content(fd) == data
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_writer_waits_for_a_slow_disk_and_does_not_spin(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than the buffers are held, and waiting takes no processor time."""
    if not is_direct(fd):
        pytest.fail("the tests' folder must lie on a file system with a block device")
    pwrite, go = _files.pwrite, threading.Event()
    done: list[int] = []

    def slow(number: int, view: memoryview, offset: int) -> int:
        assert go.wait(60)
        done.append(offset)
        return pwrite(number, view, offset)

    monkeypatch.setattr(_files, "pwrite", slow)
    behind = WriteBehind(fd)
    beyond_the_first(behind)
    reached = 0

    def fill() -> None:
        nonlocal reached
        part = memoryview(bytes(PIECE))
        for number in range(1, 40):
            behind.write([part], number * PIECE)
            reached = number

    writer = threading.Thread(target=fill)
    writer.start()
    time.sleep(0.2)
    started = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - started < 0.1
    assert reached < 4 * _behind._BUFFERS
    go.set()
    writer.join(60)
    behind.drain()
    assert reached == 39
    assert len(content(fd)) == 40 * PIECE


def test_where_nothing_is_held_back_the_disk_begins_behind_the_writer(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(_files, "start_writing", lambda fd, offset, length: begun.append((offset, length)))
    monkeypatch.setattr(_files, "pwritev", lambda fd, parts, offset: sum(map(len, parts)))
    monkeypatch.setattr(_behind, "_stage", lambda fd: None)
    behind = WriteBehind(fd)
    step, mib = _behind.STEP, memoryview(bytes(1 << 20))
    for offset in range(0, 2 * step, 1 << 20):
        behind.write([mib], offset)
    assert begun == [(0, step), (step, step)]
    behind.write([memoryview(bytes(step - 1))], 7)
    assert len(begun) == 2
    behind.write([memoryview(b"x")], step + 6)
    assert begun[2:] == [(7, step)]
    for number in range(1000):  # scattered: left to the system
        behind.write([mib], number << 30)
    assert len(begun) == 3


def test_appends_of_any_length_meet_without_a_seam(tmp_path: Path) -> None:
    """Edges through the cache and the rest past it meet in one file."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    with contextlib.closing(FileStorage(fd, "image")) as storage:
        dice = random.Random(6)
        model = bytearray()
        for _ in range(300):
            part = dice.randbytes(dice.choice((1, 511, 4095, 4096, 5000, PIECE, PIECE + 1)))
            storage.append([part])
            model += part
        storage.flush()
        assert (tmp_path / "file").read_bytes() == model


def test_whatever_ends_the_thread_is_told(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_direct(fd):
        pytest.fail("the tests' folder must lie on a file system with a block device")

    def broken(number: int, view: memoryview, offset: int) -> int:
        raise MemoryError("none left")

    monkeypatch.setattr(_files, "pwrite", broken)
    behind = WriteBehind(fd)
    beyond_the_first(behind)
    behind.write([memoryview(bytes(PIECE))], PIECE)
    with pytest.raises(WriteFailed, match="MemoryError: none left"):
        behind.drain()
    behind.close()


def test_without_memory_it_is_told_as_that(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_direct(fd):
        return  # there is no buffer then

    def refused(*_: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    behind = WriteBehind(fd)
    with monkeypatch.context() as without:
        without.setattr("mmap.mmap", refused)
        for _ in range(_behind._BUFFERS + 1):  # none of them takes the place of a buffer
            with pytest.raises(MemoryError):
                beyond_the_first(behind)
    data = beyond_the_first(behind)
    behind.drain()
    assert content(fd) == data


def test_a_forked_child_does_not_ask_for_the_lock_when_it_ends(fd: int) -> None:
    behind = WriteBehind(fd)
    beyond_the_first(behind)
    if behind._stage is not None:
        # What `weakref` runs at exit it runs in a child too, where another thread's lock is never let go.
        assert not behind._stage._forgotten.atexit
    behind.close()
