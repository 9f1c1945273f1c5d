"""What the strategies make is valid by construction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.testing import MemoryReader
from vsssnap.testing.strategies import (
    Cmd,
    Write,
    contents,
    extent_kinds,
    extent_maps,
    mutations,
    ranges,
    sizes,
    snapshot_scripts,
    sparse_extents,
    volumes,
    writes,
)

Found = TypeVar("Found")


def come_to(strategy: st.SearchStrategy[Found], wanted: Callable[[Found], bool]) -> None:
    """Fail unless the strategy makes such a value, within some thousand."""
    find(strategy, wanted, settings=settings(max_examples=5000, phases=[Phase.generate], deadline=None))


@given(sizes(min_size=3, max_size=10_000))
def test_sizes_keep_their_bounds(size: int) -> None:
    assert 3 <= size <= 10_000


@pytest.mark.parametrize("size", [0, 511, 512, 513, 4096, 65_537])
def test_sizes_lie_at_boundaries(size: int) -> None:
    come_to(sizes(), lambda found: found == size)


@given(extent_kinds(unreadable=False))
def test_unreadable_is_left_out_when_asked(kind: ExtentKind) -> None:
    assert kind is not ExtentKind.UNREADABLE


@given(extent_maps(offset=100, max_extents=6, max_length=50))
def test_maps_are_ascending_and_gap_free(extents: list[Extent]) -> None:
    at = 100
    for extent in extents:
        assert (extent.offset, 1 <= extent.length <= 50) == (at, True)
        at = extent.end
    assert len(extents) <= 6


@given(sparse_extents(size=300))
def test_sparse_extents_are_ascending_and_inside(extents: list[Extent]) -> None:
    at = 0
    for extent in extents:
        assert at <= extent.offset < extent.end <= 300
        at = extent.end


@given(ranges(size=100, beyond=5))
def test_ranges_go_a_little_behind_the_end(range_: tuple[int, int]) -> None:
    offset, length = range_
    assert 0 <= offset <= 105
    assert 0 <= length <= max(0, 100 - offset) + 5


@given(st.integers(0, 200).flatmap(lambda size: st.tuples(st.just(size), contents(size=size))))
def test_contents_have_their_size(found: tuple[int, bytes]) -> None:
    assert len(found[1]) == found[0]


@given(writes(size=1000, max_length=64, align=8))
def test_writes_are_aligned_and_inside(write: Write) -> None:
    assert write.offset % 8 == len(write.data) % 8 == 0
    assert 1 <= len(write.data) <= 64
    assert write.offset + len(write.data) <= 1000


@given(volumes(max_size=2000, max_extents=5, unreadable=True))
def test_maps_of_volumes_are_true(volume: tuple[bytes, list[Extent]]) -> None:
    content, extents = volume
    MemoryReader(content, extents).close()
    for extent in extents:
        assert extent.kind is ExtentKind.DATA or not any(content[extent.offset : extent.end])


@given(snapshot_scripts(size=500, max_steps=20, max_snapshots=3))
def test_every_step_of_a_script_is_possible_when_it_comes(script: list[Cmd]) -> None:
    taken, live = 0, set[int]()
    for step in script:
        if step.what == "snapshot":
            live.add(taken)
            taken += 1
            assert len(live) <= 3
        elif step.what in ("read snapshot", "drop"):
            assert step.snapshot in live
            live -= {step.snapshot} if step.what == "drop" else set()
        elif step.what == "write":
            assert step.write is not None
            assert step.write.offset + len(step.write.data) <= 500
        else:
            assert step.what == "read"


@pytest.mark.parametrize("what", ["write", "snapshot", "read", "read snapshot", "drop"])
def test_scripts_come_to_every_step(what: str) -> None:
    come_to(snapshot_scripts(size=50), lambda script: any(step.what == what for step in script))


@pytest.mark.parametrize("change", [lambda n: n == 40, lambda n: 0 < n < 30, lambda n: n > 40])
def test_mutations_change_cut_and_lengthen(change: Callable[[int], bool]) -> None:
    data = bytes(range(40))
    come_to(mutations(data), lambda found: change(len(found)) and found != data)


@given(mutations(b""))
def test_nothing_stays_nothing(found: bytes) -> None:
    assert found == b""
