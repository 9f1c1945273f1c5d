from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsssnap import _files
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import ClosedError, CorruptImageError, DeviceReadError, TargetError, UsageError
from vsssnap.formats.pipe import PipeStorage
from vsssnap.formats.storage import FileStorage, MemoryStorage, Storage

New = Callable[[], Storage]


@pytest.fixture(params=["file", "memory"])
def new(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[New]:
    made: list[Storage] = []

    def make() -> Storage:
        if request.param == "memory":
            storage: Storage = MemoryStorage(name="x")
        else:
            path = tmp_path / str(len(made))
            storage = FileStorage(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "x")
        made.append(storage)
        return storage

    yield make
    for storage in made:
        storage.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[FileStorage]:
    storage = FileStorage(os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT, 0o600), "f")
    yield storage
    storage.close()


def broken(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    module, _, name = call.rpartition(".")
    monkeypatch.setattr(_files if module == "_files" else os, name, fail)


def pipe() -> tuple[int, PipeStorage]:
    read_end, write_end = os.pipe()
    return read_end, PipeStorage(write_end, "p")


# What all that can seek do alike.


def test_new_storage_is_empty(new: New) -> None:
    assert new().size == 0


def test_written_bytes_come_back(new: New) -> None:
    storage = new()
    storage.pwrite(b"hello", 3)
    assert (storage.size, storage.pread(8, 0)) == (8, b"\0\0\0hello")
    view = bytearray(5)
    storage.preadinto(memoryview(view), 3)
    assert view == b"hello"


def test_nothing_written_behind_the_end_changes_nothing(new: New) -> None:
    storage = new()
    storage.pwrite(b"", 100)
    assert storage.size == 0


def test_append_returns_where_it_begins(new: New) -> None:
    storage = new()
    assert storage.append([b"ab", bytearray(b"c"), memoryview(b"de")]) == 0
    assert storage.append([b"f"]) == 5
    assert storage.append([]) == 6
    assert storage.pread(6, 0) == b"abcdef"


@pytest.mark.parametrize(("size", "content"), [(3, b"abc"), (8, b"abcdef\0\0"), (0, b"")])
def test_truncate_cuts_and_extends(new: New, size: int, content: bytes) -> None:
    storage = new()
    storage.pwrite(b"abcdef", 0)
    storage.truncate(size)
    assert (storage.size, storage.pread(size, 0)) == (size, content)


def test_what_was_cut_off_is_zero_when_it_comes_back(new: New) -> None:
    storage = new()
    storage.pwrite(b"abcdef", 0)
    storage.truncate(2)
    storage.truncate(6)
    assert storage.pread(6, 0) == b"ab\0\0\0\0"


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_allocate_extends_with_zeros(new: New, size: int) -> None:
    storage = new()
    storage.allocate(size)
    assert (storage.size, storage.pread(size, 0)) == (size, bytes(size))


@pytest.mark.parametrize(("length", "offset"), [(7, 0), (1, 6), (0, 7), (1, 1 << 62)])
def test_read_behind_the_end_is_a_corrupt_image(new: New, length: int, offset: int) -> None:
    storage = new()
    storage.pwrite(b"abcdef", 0)
    for read in (
        lambda: storage.pread(length, offset),
        lambda: storage.preadinto(memoryview(bytearray(length)), offset),
    ):
        with pytest.raises(
            CorruptImageError, match=rf"x ends at byte 6, {length} bytes at {offset}"
        ) as caught:
            read()
        assert (caught.value.path, caught.value.offset) == ("x", offset)


def test_extents_cover_the_range(new: New) -> None:
    storage = new()
    storage.truncate(1 << 20)
    storage.pwrite(b"\1", 500_000)
    found = list(storage.extents(1000, 900_000))
    assert found[0].offset == 1000
    assert [extent.offset for extent in found[1:]] == [extent.end for extent in found[:-1]]
    assert found[-1].end == 901_000
    assert any(e.offset <= 500_000 < e.end and e.kind is ExtentKind.DATA for e in found)
    assert list(storage.extents(5, 0)) == []


steps = st.lists(
    st.one_of(
        st.tuples(st.just("pwrite"), st.integers(0, 300), st.binary(max_size=200)),
        st.tuples(st.just("append"), st.just(0), st.binary(max_size=200)),
        st.tuples(st.just("truncate"), st.integers(0, 400), st.just(b"")),
    ),
    max_size=20,
)


@given(steps)
def test_memory_equals_a_bytearray(calls: list[tuple[str, int, bytes]]) -> None:
    model = bytearray()
    storage = MemoryStorage()
    for call, at, data in calls:
        if call == "truncate":
            storage.truncate(at)
            model[:] = model[:at].ljust(at, b"\0")
            continue
        if call == "append":
            at = len(model)
            storage.append([data[:3], data[3:]])
        else:
            storage.pwrite(data, at)
        if data:
            model[:] = model.ljust(at, b"\0")
            model[at : at + len(data)] = data
    assert storage.data == model


def test_reads_and_growing_writes_on_several_threads_do_not_disturb_each_other(new: New) -> None:
    storage = new()
    storage.pwrite(b"\1" * 1000, 0)
    failures: list[BaseException] = []

    def guarded(work: Callable[[int], object]) -> None:
        try:
            for turn in range(300):
                work(turn)
        except BaseException as exc:
            failures.append(exc)

    def read(_: int) -> None:
        assert storage.pread(1000, 0) == b"\1" * 1000

    threads = [
        threading.Thread(target=guarded, args=(work,))
        for work in (read, read, lambda turn: storage.pwrite(b"\2" * 100, 1000 + 100 * turn))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert storage.size == 31_000


# Files.


def test_closed_file_is_refused_by_every_call(file: FileStorage) -> None:
    file.truncate(10)
    walk = file.extents(0, 10)
    file.close()
    file.close()
    calls: list[Callable[[], object]] = [
        lambda: file.pread(1, 0),
        lambda: file.preadinto(memoryview(bytearray(1)), 0),
        lambda: file.pwrite(b"x", 0),
        lambda: file.append([b"x"]),
        lambda: file.truncate(1),
        lambda: file.allocate(1),
        file.flush,
        lambda: next(walk),
    ]
    for call in calls:
        with pytest.raises(ClosedError, match="f is closed"):
            call()


def test_file_that_is_cut_while_open_is_a_corrupt_image(file: FileStorage, tmp_path: Path) -> None:
    file.pwrite(b"abcdef", 0)
    os.truncate(tmp_path / "f", 4)
    with pytest.raises(CorruptImageError, match="f was cut to 4 bytes while it was open"):
        file.pread(6, 0)


def test_short_reads_are_completed(file: FileStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    file.pwrite(b"abcdefghij", 0)
    pread, preadinto = _files.pread, _files.preadinto
    monkeypatch.setattr(_files, "pread", lambda fd, length, at: pread(fd, min(length, 3), at))
    monkeypatch.setattr(_files, "preadinto", lambda fd, view, at: preadinto(fd, view[:3], at))
    assert file.pread(10, 0) == b"abcdefghij"


def test_short_writes_are_completed(file: FileStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = _files.pwrite
    monkeypatch.setattr(_files, "pwritev", lambda fd, parts, at: pwrite(fd, parts[0][:3], at))
    file.pwrite(b"abcdefghij", 2)
    assert file.pread(12, 0) == b"\0\0abcdefghij"


def test_short_appends_are_completed(file: FileStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = _files.pwrite
    monkeypatch.setattr(
        _files, "pwritev", lambda fd, parts, at: pwrite(fd, memoryview(b"".join(parts))[:3], at)
    )
    assert file.append([b"ab", b"", b"cdefg", b"h"]) == 0
    assert file.append([b"ij"]) == 8
    assert file.pread(10, 0) == b"abcdefghij"


def test_more_pieces_than_the_system_takes_at_once_are_appended(file: FileStorage) -> None:
    pieces = [bytes([number % 251]) * (number % 3) for number in range(5000)]
    assert file.append(pieces) == 0
    assert file.pread(file.size, 0) == b"".join(pieces)


@pytest.mark.parametrize("call", ["_files.pread", "_files.preadinto"])
def test_failing_read_is_a_device_error(
    file: FileStorage, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    file.truncate(1000)
    broken(monkeypatch, call, errno.EIO)
    into = memoryview(bytearray(10))
    with pytest.raises(DeviceReadError, match="f: cannot read 10 bytes at 100: Input/output error") as caught:
        file.preadinto(into, 100) if call.endswith("into") else file.pread(10, 100)
    assert (caught.value.offset, caught.value.length, caught.value.code) == (100, 10, errno.EIO)


@pytest.mark.posix("a map is asked for otherwise")
def test_failing_map_is_a_device_error(file: FileStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    file.truncate(1000)
    broken(monkeypatch, "os.lseek", errno.EIO)
    with pytest.raises(DeviceReadError, match="Input/output error"):
        list(file.extents(0, 1000))


@pytest.mark.parametrize(
    ("call", "use"),
    [
        ("_files.pwritev", lambda file: file.pwrite(b"abc", 7)),
        ("_files.pwritev", lambda file: file.append([b"abc"])),
        ("os.ftruncate", lambda file: file.truncate(7)),
        pytest.param(
            "os.posix_fallocate",
            lambda file: file.allocate(7),
            marks=pytest.mark.posix("room is not reserved"),
        ),
        ("os.fsync", lambda file: file.flush()),
    ],
)
@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.ENOSPC, "make room"), (errno.EDQUOT, "make room"), (errno.EIO, "disk is failing")],
)
def test_failing_write_is_a_target_error_with_the_remedy(
    file: FileStorage,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    use: Callable[[FileStorage], object],
    number: int,
    hint: str,
) -> None:
    broken(monkeypatch, call, number)
    with pytest.raises(TargetError, match=f"f: cannot .*{os.strerror(number)}.*{hint}") as caught:
        use(file)
    assert (caught.value.path, caught.value.code) == ("f", number)


@pytest.mark.posix("/dev/full")
def test_full_device_is_a_target_error() -> None:
    storage = FileStorage(os.open("/dev/full", os.O_RDWR), "/dev/full")
    with pytest.raises(TargetError, match="cannot write 3 bytes at 0: No space left on device"):
        storage.pwrite(b"abc", 0)
    storage.close()


# Pipes.


def test_pipe_gets_bytes_in_order_and_counts_them() -> None:
    read_end, storage = pipe()
    assert storage.append([b"ab", b"c"]) == 0
    assert storage.append([b"d"]) == 3
    assert storage.size == 4
    storage.flush()
    storage.close()
    assert os.read(read_end, 100) == b"abcd"
    os.close(read_end)


def test_pipe_refuses_to_seek_read_or_resize() -> None:
    read_end, storage = pipe()
    for call, words in (
        (lambda: storage.pread(1, 0), "p cannot be read back"),
        (lambda: storage.pwrite(b"x", 0), "p cannot seek"),
        (lambda: storage.truncate(1), "p cannot be resized"),
        (lambda: storage.allocate(1), "p cannot reserve space"),
    ):
        with pytest.raises(UsageError, match=words):
            call()
    storage.close()
    os.close(read_end)


def test_pipe_without_a_reader_is_a_target_error() -> None:
    read_end, storage = pipe()
    os.close(read_end)
    with pytest.raises(TargetError, match=r"p: cannot write at byte 0: Broken pipe.*has ended"):
        storage.append([b"x"])
    storage.close()


if sys.platform != "win32":

    def test_non_blocking_pipe_is_waited_for() -> None:
        read_end, write_end = os.pipe()
        import fcntl

        os.set_blocking(write_end, False)
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
        storage = PipeStorage(write_end, "p")
        received = bytearray()

        def receive() -> None:
            while piece := os.read(read_end, 65536):
                received.extend(piece)

        thread = threading.Thread(target=receive)
        thread.start()
        data = os.urandom(300_000)
        storage.append([data])
        storage.close()
        thread.join()
        os.close(read_end)
        assert received == data


@pytest.mark.parametrize("owned", [True, False])
def test_pipe_closes_only_what_it_owns(owned: bool) -> None:
    read_end, write_end = os.pipe()
    storage = PipeStorage(write_end, owned=owned)
    storage.close()
    storage.close()
    with pytest.raises(ClosedError, match="pipe is closed"):
        storage.append([b"x"])
    if owned:
        with pytest.raises(OSError, match=r"Bad file descriptor|Invalid handle|handle is invalid"):
            os.fstat(write_end)
    else:
        os.close(write_end)
    os.close(read_end)


# Memory.


def test_memory_is_shared_with_the_caller() -> None:
    data = bytearray(b"abc")
    storage = MemoryStorage(data)
    storage.pwrite(b"X", 1)
    assert data == b"aXc"


def test_memory_is_all_data() -> None:
    assert list(MemoryStorage(bytes(10)).extents(2, 5)) == [Extent(2, 5)]
