"""Reads and writes at a place, on every system."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vsssnap import _files

CONTENT = bytes(number * 31 % 253 for number in range(100_000))


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    number = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    yield number
    os.close(number)


def test_bytes_are_read_at_a_place(fd: int) -> None:
    assert _files.pread(fd, 10, 99_000) == CONTENT[99_000:99_010]
    buffer = bytearray(b"....")
    assert _files.preadinto(fd, memoryview(buffer)[1:3], 7) == 2
    assert buffer == b"." + CONTENT[7:9] + b"."


def test_the_end_gives_what_is_left(fd: int) -> None:
    assert _files.pread(fd, 10, len(CONTENT) - 4) == CONTENT[-4:]
    assert _files.pread(fd, 10, len(CONTENT)) == b""
    assert _files.pread(fd, 10, 1 << 32) == b""
    assert _files.pread(fd, 0, 0) == b""


def test_bytes_are_written_at_a_place(fd: int) -> None:
    assert _files.pwrite(fd, memoryview(b"new"), 50) == 3
    assert _files.pwrite(fd, memoryview(b"end"), len(CONTENT) + 2) == 3
    assert _files.pread(fd, 200_000, 0) == CONTENT[:50] + b"new" + CONTENT[53:] + b"\0\0end"


def test_threads_do_not_move_one_anothers_place(fd: int) -> None:
    places = [number * 997 % 99_000 for number in range(400)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda place: _files.pread(fd, 500, place), places))
    assert found == [CONTENT[place : place + 500] for place in places]


def test_a_closed_descriptor_is_an_oserror() -> None:
    with pytest.raises(OSError, match="descriptor"):
        _files.pread(9999, 1, 0)


if sys.platform == "win32":  # elsewhere pread refuses a pipe

    def test_a_read_that_waits_stops_no_other_one(fd: int) -> None:
        source, sink = os.pipe()
        found = bytearray(1)
        waiting = threading.Thread(target=lambda: _files.preadinto(source, memoryview(found), 0))
        waiting.start()
        assert _files.pread(fd, 5, 5) == CONTENT[5:10]
        assert _files.pwrite(fd, memoryview(b"x"), 0) == 1
        os.write(sink, b"!")
        waiting.join()
        assert found == b"!"
        os.close(source)
        os.close(sink)
