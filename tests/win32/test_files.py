"""Holes of files as Windows tells them, against a stand-in that keeps the documented rules."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsssnap._win32 import files
from vsssnap._win32._ffi import ffi
from vsssnap._win32.codes import Control, Win32Error
from vsssnap._win32.dll import System

CLUSTER = 4096


class FakeFile:
    """A file of some clusters; gives a few of its ranges at a time, as whole runs of clusters."""

    def __init__(self, clusters: Sequence[bool], *, at_once: int = 2, code: int = 0) -> None:
        self.clusters, self.at_once, self.code = clusters, at_once, code
        self.asked: list[tuple[int, int]] = []
        self.sparse = False
        self.kernel32 = SimpleNamespace(DeviceIoControl=self.control)
        self.error = 0

    def last_error(self) -> int:
        return self.error

    def runs(self) -> list[tuple[int, int]]:
        """First byte and the one behind, of each run that has clusters."""
        edges = [False, *self.clusters, False]
        turns = [n * CLUSTER for n in range(len(edges) - 1) if edges[n] != edges[n + 1]]
        return list(zip(turns[::2], turns[1::2], strict=True))

    def control(self, handle: Any, code: int, source: Any, size: int, out: Any, room: int, *rest: Any) -> int:  # noqa: ANN401 - of cffi
        done, over = rest
        assert over
        assert done
        assert int(ffi.cast("intptr_t", handle)) == 7
        self.error = self.code
        if self.code:
            return 0
        if code == Control.FSCTL_SET_SPARSE:
            assert not any((source, size, out, room))  # no input means true
            self.sparse = True
            return 1
        assert (code, size) == (Control.FSCTL_QUERY_ALLOCATED_RANGES, 16)
        offset, length = source.FileOffset, source.Length
        self.asked.append((offset, length))
        assert length > 0
        found = [(a, b) for a, b in self.runs() if a < offset + length and offset < b]
        given_now = found[: min(self.at_once, room // 16)]
        for index, (start, end) in enumerate(given_now):
            out[index].FileOffset, out[index].Length = start, end - start
        done[0] = 16 * len(given_now)
        if len(given_now) == len(found):
            return 1
        self.error = Win32Error.ERROR_MORE_DATA
        return 0

    def ranges(self, offset: int, length: int) -> list[tuple[int, int, bool]]:
        return list(files.ranges(7, offset, length, system=cast("System", self)))


@given(st.data())
def test_ranges_are_the_clusters_and_nothing_else(data: st.DataObject) -> None:
    clusters = data.draw(st.lists(st.booleans(), max_size=20))
    file = FakeFile(clusters, at_once=data.draw(st.integers(1, 4)))
    end = len(clusters) * CLUSTER
    offset = data.draw(st.integers(0, end))
    length = data.draw(st.integers(0, end - offset + 100))
    at = offset
    for start, count, is_data in file.ranges(offset, length):
        assert start == at
        assert count > 0
        at += count
        own = clusters[start // CLUSTER : -(-at // CLUSTER)]
        assert all(own) if is_data else not any(own)
    assert at == offset + length


def test_the_rest_is_asked_for_from_behind_the_last_range() -> None:
    file = FakeFile([True, False] * 3, at_once=1)
    assert [each[2] for each in file.ranges(0, 6 * CLUSTER)] == [True, False] * 3
    assert [offset for offset, _ in file.asked] == [0, CLUSTER, 3 * CLUSTER]


def test_a_file_without_holes_is_asked_once() -> None:
    file = FakeFile([True] * 100)
    assert file.ranges(0, 100 * CLUSTER) == [(0, 100 * CLUSTER, True)]
    assert len(file.asked) == 1


def test_more_that_never_comes_is_data() -> None:
    assert FakeFile([False, True], at_once=0).ranges(0, 2 * CLUSTER) == [(0, 2 * CLUSTER, True)]


@pytest.mark.parametrize(
    "code",
    [Win32Error.ERROR_INVALID_FUNCTION, Win32Error.ERROR_NOT_SUPPORTED, Win32Error.ERROR_INVALID_PARAMETER],
)
def test_a_file_system_that_cannot_tell_has_all_data(code: int) -> None:
    assert FakeFile([False], code=code).ranges(5, 10) == [(5, 10, True)]


def test_a_failing_disk_is_no_hole() -> None:
    with pytest.raises(OSError, match="23"):
        FakeFile([False], code=Win32Error.ERROR_CRC).ranges(0, 1)


def test_a_file_is_made_sparse_where_that_can_be() -> None:
    able, unable = FakeFile([]), FakeFile([], code=Win32Error.ERROR_INVALID_FUNCTION)
    assert files.make_sparse(7, system=cast("System", able))
    assert able.sparse
    assert not files.make_sparse(7, system=cast("System", unable))
