"""Devices and files as readers, and as what is written."""

from __future__ import annotations

import dataclasses
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from loops import loop_device, sparse_file
from requirements import require_lab
from vsssnap import _files
from vsssnap._posix import devices
from vsssnap.blocks import _retry
from vsssnap.blocks.device import DeviceReader, open_path, open_writable
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import ClosedError, DeviceReadError, SourceChangedError, TargetRefusedError, UsageError
from vsssnap.testing import check_reader

MIB = 1 << 20


@pytest.fixture
def content() -> bytes:
    return bytes(range(256)) * 4096 + b"tail"  # 1 MiB and 4 bytes: no multiple of the sector


@pytest.fixture
def path(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[tuple[str, bytes]]:
    """A loop device of 40 MiB and what it holds: more than is kept in the cache behind a reader."""
    require_lab("losetup")
    data = os.urandom(4 * MIB) * 10
    backing = tmp_path / "disk.img"
    backing.write_bytes(data)
    with loop_device(backing) as name:
        yield name, data


# Reading.


def test_file_keeps_the_contract_of_readers(path: Path, content: bytes) -> None:
    check_reader(lambda: open_path(path), content)


@pytest.mark.lab
def test_device_keeps_the_contract_of_readers(loop: tuple[str, bytes]) -> None:
    check_reader(lambda: open_path(loop[0]), loop[1])


def test_empty_file_is_an_empty_reader(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with open_path(tmp_path / "empty") as reader:
        assert (reader.size, reader.pread(10, 0), list(reader.extents())) == (0, b"", [])


def test_holes_of_a_file_are_zero(tmp_path: Path) -> None:
    path = sparse_file(tmp_path / "sparse", 8 * MIB)
    with path.open("r+b") as file:
        file.seek(4 * MIB)
        file.write(b"x" * MIB)
    with open_path(path) as reader:
        assert list(reader.extents()) == [
            Extent(0, 4 * MIB, ExtentKind.ZERO),
            Extent(4 * MIB, MIB, ExtentKind.DATA),
            Extent(5 * MIB, 3 * MIB, ExtentKind.ZERO),
        ]


def test_two_walks_over_holes_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = sparse_file(tmp_path / "sparse", 64 * MIB)
    with path.open("r+b") as file:
        for offset in range(0, 64 * MIB, 2 * MIB):
            file.seek(offset)
            file.write(b"x" * MIB)
    found: list[list[Extent]] = []
    with open_path(path) as reader:
        walks = [threading.Thread(target=lambda: found.append(list(reader.extents()))) for _ in range(4)]
        for walk in walks:
            walk.start()
        for walk in walks:
            walk.join()
    expected = [Extent(at * MIB, MIB, ExtentKind.ZERO if at % 2 else ExtentKind.DATA) for at in range(64)]
    assert found == [expected] * 4


@pytest.mark.lab
def test_device_is_all_data(loop: tuple[str, bytes]) -> None:
    with open_path(loop[0]) as reader:
        assert list(reader.extents()) == [Extent(0, len(loop[1]), ExtentKind.DATA)]


def test_reader_names_its_path_as_origin(path: Path) -> None:
    with open_path(path) as reader:
        assert reader.origins == (str(path),)
        assert reader.metadata.device == str(path)


def test_short_reads_of_the_system_are_continued(
    path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_pread, whole_into = _files.pread, _files.preadinto
    monkeypatch.setattr(_files, "pread", lambda fd, length, offset: whole_pread(fd, min(length, 999), offset))
    monkeypatch.setattr(_files, "preadinto", lambda fd, view, at: whole_into(fd, view[:1001], at))
    buffer = bytearray(5000)
    with open_path(path) as reader:
        assert reader.pread(5000, 77) == content[77:5077]
        reader.preadinto(buffer, 77)
    assert buffer == content[77:5077]


# Sources that change.


def test_file_that_became_shorter_says_both_sizes_when_read(path: Path, content: bytes) -> None:
    with open_path(path) as reader:
        os.truncate(path, 1000)
        with pytest.raises(SourceChangedError, match=f"has 1000 bytes, it had {len(content)}"):
            reader.pread(2000, 0)


def test_file_that_became_longer_fails_to_confirm(path: Path, content: bytes) -> None:
    with open_path(path) as reader:
        os.truncate(path, len(content) + 1)
        with pytest.raises(SourceChangedError, match=f"has {len(content) + 1} bytes"):
            reader.confirm()


def test_unchanged_file_is_confirmed(path: Path) -> None:
    with open_path(path) as reader:
        reader.confirm()


# Failing devices.


@pytest.mark.lab
def test_first_bad_sector_and_the_run_behind_it_are_named(tmp_path: Path) -> None:
    # The kernel answers EIO for what the backing file of a loop device no longer has.
    require_lab("losetup")
    backing = tmp_path / "disk.img"
    backing.write_bytes(os.urandom(2 * MIB))
    with loop_device(backing) as name, open_path(name) as reader:
        os.truncate(backing, MIB + 8192)
        with pytest.raises(DeviceReadError) as caught:
            reader.pread(MIB, MIB - 4096)
        error = caught.value
        assert (error.offset, error.length, error.errno) == (MIB + 8192, MIB - 8192 - 4096, errno.EIO)
        assert f"{name}: cannot read {error.length} bytes at {MIB + 8192}" in str(error)
        assert "OnReadError.MARK" in str(error)


@pytest.mark.lab
def test_good_sectors_before_a_bad_one_can_still_be_read(tmp_path: Path) -> None:
    require_lab("losetup")
    backing = tmp_path / "disk.img"
    data = os.urandom(2 * MIB)
    backing.write_bytes(data)
    with loop_device(backing) as name, open_path(name) as reader:
        os.truncate(backing, MIB + 4096 + 512)
        assert reader.pread(512, MIB + 4096) == data[MIB + 4096 : MIB + 4608]
        with pytest.raises(DeviceReadError) as caught:
            reader.pread(512, MIB + 4608)
        assert (caught.value.offset, caught.value.length) == (MIB + 4608, 512)


class Bad:
    """Reads of a descriptor that fail where sectors are bad."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, bad: set[int], code: int = errno.EIO) -> None:
        self.bad = bad
        self.code = code
        self.pread, self.preadinto = _files.pread, _files.preadinto
        monkeypatch.setattr(_files, "pread", self.read)
        monkeypatch.setattr(_files, "preadinto", self.read_into)

    def check(self, length: int, offset: int) -> None:
        if self.bad & set(range(offset // 512, -(-(offset + length) // 512))):
            raise OSError(self.code, os.strerror(self.code))

    def read(self, fd: int, length: int, offset: int) -> bytes:
        self.check(length, offset)
        return self.pread(fd, length, offset)

    def read_into(self, fd: int, view: memoryview, offset: int) -> int:
        self.check(len(view), offset)
        return self.preadinto(fd, view, offset)


def test_only_the_first_run_of_bad_sectors_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Bad(monkeypatch, {100, 101, 102, 300})
    with open_path(path) as reader, pytest.raises(DeviceReadError) as caught:
        reader.preadinto(bytearray(MIB), 0)
    assert (caught.value.offset, caught.value.length) == (100 * 512, 3 * 512)


def test_bad_range_is_clipped_to_what_was_asked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Bad(monkeypatch, {10})
    with open_path(path) as reader, pytest.raises(DeviceReadError) as caught:
        reader.pread(100, 10 * 512 + 7)
    assert (caught.value.offset, caught.value.length) == (10 * 512 + 7, 100)


def test_read_that_succeeds_the_second_time_is_exact(
    path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Bad(monkeypatch, {5})
    check = device.check

    def once(length: int, offset: int) -> None:
        try:
            check(length, offset)
        finally:
            device.bad = set()

    monkeypatch.setattr(device, "check", once)
    with open_path(path) as reader:
        assert reader.pread(len(content) - 3, 3) == content[3:]


def test_device_that_was_taken_away_is_not_asked_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Bad(monkeypatch, {5}, errno.ENODEV)
    monkeypatch.setattr(_retry, "_Closer", None)  # would fail if it were used
    with open_path(path) as reader, pytest.raises(DeviceReadError, match="taken away") as caught:
        reader.pread(8192, 512)
    assert (caught.value.offset, caught.value.length, caught.value.errno) == (512, 8192, errno.ENODEV)


def test_search_for_the_end_of_a_bad_run_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Bad(monkeypatch, set(range(2000)))
    monkeypatch.setattr(_retry, "_PATIENCE", 0.0)
    with open_path(path) as reader, pytest.raises(DeviceReadError) as caught:
        reader.pread(MIB, 0)
    assert (caught.value.offset, caught.value.length) == (0, 512)


# Closing.


def test_closed_reader_says_so(path: Path) -> None:
    reader = open_path(path)
    reader.close()
    with pytest.raises(ClosedError):
        reader.pread(1, 0)


def test_closing_under_reads_never_reads_a_recycled_descriptor(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_bytes(b"\xaa" * 65536)
    theirs.write_bytes(b"\xbb" * 65536)
    wrong: list[bytes] = []
    recycled = 0

    def read(reader: DeviceReader, started: threading.Barrier) -> None:
        started.wait()
        try:
            while True:
                data = reader.pread(4096, 8192)
                if data != b"\xaa" * 4096:
                    wrong.append(data)
        except ClosedError:
            pass

    for _ in range(150):
        reader = open_path(ours)
        assert isinstance(reader, DeviceReader)
        number = reader._fd
        started = threading.Barrier(5)
        threads = [threading.Thread(target=read, args=(reader, started)) for _ in range(4)]
        for thread in threads:
            thread.start()
        started.wait()
        reader.close()
        # The lowest free number is given out next: as soon as it is closed, one of these has it.
        others = [os.open(theirs, os.O_RDONLY) for _ in range(20)]
        for thread in threads:
            thread.join()
        others.append(os.open(theirs, os.O_RDONLY))
        recycled += number in others
        for fd in others:
            os.close(fd)
    assert not wrong
    assert recycled > 100  # else the test proves nothing


def test_failing_constructor_closes_the_descriptor(path: Path) -> None:
    opened = dataclasses.replace(devices.open_source(path), sector_size=3)
    with pytest.raises(UsageError, match="sector_size is 3"):
        DeviceReader(opened)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened.fd)


# Writing.


def test_writable_file_reads_what_was_written(path: Path, content: bytes) -> None:
    with open_writable(path) as device:
        assert device.pwrite(b"new", 100) == 3
        device.flush()
        assert device.pread(5, 99) == content[99:100] + b"new" + content[103:104]


def test_writing_past_the_end_is_refused_before_a_byte_is_written(path: Path, content: bytes) -> None:
    refused = pytest.raises(UsageError, match=f"4 bytes at {len(content) - 1} are not inside")
    with open_writable(path) as device, refused:
        device.pwrite(b"past", len(content) - 1)
    assert path.read_bytes() == content


def test_file_interface_writes_at_the_cursor(path: Path, content: bytes) -> None:
    with open_writable(path) as device:
        device.seek(10)
        device.write(b"ab")
        device.write(b"cd")
        assert device.tell() == 14
    assert path.read_bytes()[9:15] == content[9:10] + b"abcd" + content[14:15]


def test_writable_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetRefusedError, match="is not a block device or a regular file"):
        open_writable(tmp_path)


@pytest.mark.lab
def test_writable_device_is_exclusive(loop: tuple[str, bytes]) -> None:
    with open_writable(loop[0]), pytest.raises(TargetRefusedError, match="held by another program"):
        open_writable(loop[0])
