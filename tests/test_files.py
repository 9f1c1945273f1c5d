"""Positional input and output, and the walk over data and holes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsssnap import _files

PAGE = 4096

pytestmark = pytest.mark.posix("lseek; holes of Windows are tried in tests/win32/test_files.py")


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """Data, a hole of 1 MiB, data, a hole to the end."""
    number = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.pwrite(number, b"x" * PAGE, 0)
    os.pwrite(number, b"y" * PAGE, 1 << 20)
    os.ftruncate(number, 2 << 20)
    yield number
    os.close(number)


WHOLE = [
    (0, PAGE, True),
    (PAGE, (1 << 20) - PAGE, False),
    (1 << 20, PAGE, True),
    ((1 << 20) + PAGE, (1 << 20) - PAGE, False),
]


def test_data_and_holes_are_told_apart(fd: int) -> None:
    assert list(_files.ranges(fd, 0, 2 << 20)) == WHOLE


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, 1, [(0, 1, True)]),
        (PAGE - 1, 2, [(PAGE - 1, 1, True), (PAGE, 1, False)]),
        (5 * PAGE, PAGE, [(5 * PAGE, PAGE, False)]),
        ((1 << 20) - 1, 2, [((1 << 20) - 1, 1, False), (1 << 20, 1, True)]),
        (0, 0, []),
        ((2 << 20) - 1, 10, [((2 << 20) - 1, 10, False)]),
        (3 << 20, 10, [(3 << 20, 10, False)]),
    ],
)
def test_ranges_are_clipped(fd: int, offset: int, length: int, expected: list[tuple[int, int, bool]]) -> None:
    assert list(_files.ranges(fd, offset, length)) == expected


@given(st.data())
def test_ranges_are_gap_free_and_holes_are_zeros(data: st.DataObject) -> None:
    content = bytearray()
    pieces = data.draw(st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=8))
    fd = os.memfd_create("ranges")
    try:
        for is_data, pages in pieces:
            if is_data:
                os.pwrite(fd, b"d" * PAGE * pages, len(content))
            content += (b"d" if is_data else b"\0") * PAGE * pages
        os.ftruncate(fd, len(content))
        offset = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, len(content) - offset))
        at = offset
        for start, count, is_data in _files.ranges(fd, offset, length):
            assert start == at
            assert count > 0
            assert is_data or not any(content[start : start + count])
            at += count
        assert at == offset + length
    finally:
        os.close(fd)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ESPIPE, errno.EOPNOTSUPP])
def test_what_cannot_tell_is_all_data(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(fd: int, offset: int, whence: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "lseek", refuse)
    assert list(_files.ranges(0, 5, 10)) == [(5, 10, True)]


def test_pipe_is_all_data() -> None:
    one, two = os.pipe()
    try:
        assert list(_files.ranges(one, 0, 10)) == [(0, 10, True)]
    finally:
        os.close(one)
        os.close(two)


def test_other_failures_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, offset: int, whence: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "lseek", fail)
    with pytest.raises(OSError, match="Input/output error"):
        list(_files.ranges(0, 0, 10))


def test_file_that_is_cut_under_the_walk_is_data_to_the_end(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look for data and the look for a hole; reading shows what became of it."""
    seek = os.lseek

    def cutting(number: int, offset: int, whence: int) -> int:
        if whence == os.SEEK_HOLE:
            os.ftruncate(number, 0)
        return seek(number, offset, whence)

    monkeypatch.setattr(os, "lseek", cutting)
    assert list(_files.ranges(fd, 0, 2 << 20)) == [(0, 2 << 20, True)]


def test_hole_that_moves_before_its_data_does_not_stop_the_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is written meanwhile may show its hole where it has just shown data."""
    answers = iter([0, 0, 5, 5, 6, 10])

    def lseek(fd: int, offset: int, whence: int) -> int:
        return next(answers)

    monkeypatch.setattr(os, "lseek", lseek)
    found = list(_files.ranges(0, 0, 10))
    assert found[0] == (0, 1, True)
    assert found[-1][0] + found[-1][1] == 10


def test_positional_calls_leave_the_cursor(fd: int) -> None:
    os.lseek(fd, 7, os.SEEK_SET)
    assert _files.pread(fd, 3, PAGE - 1) == b"x\0\0"
    buffer = bytearray(4)
    assert _files.preadinto(fd, memoryview(buffer)[1:3], 1 << 20) == 2
    assert bytes(buffer) == b"\0yy\0"
    assert _files.pwrite(fd, memoryview(b"z"), 0) == 1
    assert os.lseek(fd, 0, os.SEEK_CUR) == 7


def test_starting_to_write_keeps_what_was_written(fd: int) -> None:
    data = bytes(range(256)) * 4096
    os.pwrite(fd, data, 0)
    _files.start_writing(fd, 0, len(data))
    assert os.pread(fd, len(data), 0) == data
    _files.start_writing(-1, 0, 1)  # an advice cannot fail
