from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsssnap import ExtentKind, Snapshot, UnusedPolicy
from vsssnap.errors import DeviceReadError
from vsssnap.providers.vss import clusters
from vsssnap.providers.vss.clusters import runs
from vsssnap.testing.fake_vss import FakeVss


@given(st.lists(st.booleans(), max_size=200), st.integers(0, 7))
def test_runs_are_the_bits(bits: list[bool], tail: int) -> None:
    raw = bytearray(-(-(len(bits) + tail) // 8))
    for index, bit in enumerate(bits):
        raw[index // 8] |= bit << index % 8
    found: list[bool] = []
    for first, length, value in runs(bytes(raw), len(bits)):
        assert first == len(found)
        assert length > 0
        found += [value] * length
    assert found == bits


@pytest.mark.parametrize(("most", "page"), [(1 << 30, 8), (3, 4), (1, 2), (1 << 30, 65536)])
def test_a_bitmap_in_pieces_is_the_same(
    fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch, most: int, page: int
) -> None:
    monkeypatch.setattr(clusters, "_PAGE_BITS", page * 8)
    monkeypatch.setattr(clusters, "_HELD", 2)
    fake_vss.most_bitmap = most
    free = ((3, 1), (17, 40), (90, 30), (200, 4))
    volume = fake_vss.add_volume("C:\\", free=free)
    with Snapshot("C:") as s, s.open() as disk:
        holes = [(e.offset // 4096, e.length // 4096) for e in disk.extents() if e.kind is ExtentKind.HOLE]
        assert holes == list(free)
        middle = list(disk.extents(17 * 4096 + 100, 50 * 4096))
        assert middle[0].offset == 17 * 4096 + 100
        assert middle[0].end == 57 * 4096
        assert sum(extent.length for extent in disk.extents()) == len(volume.data)


def test_what_lies_behind_the_last_cluster_is_data(fake_vss: FakeVss) -> None:
    volume = fake_vss.add_volume("C:\\", size=64 * 4096 + 512, free=((63, 1),))
    volume.pwrite(b"backup boot sector", 64 * 4096)
    with Snapshot("C:") as s, s.open() as disk:
        assert [extent.kind for extent in disk.extents()] == [
            ExtentKind.DATA,
            ExtentKind.HOLE,
            ExtentKind.DATA,
        ]
        assert disk.pread(18, 64 * 4096) == b"backup boot sector"


def test_where_there_is_no_bitmap_everything_is_read(fake_vss: FakeVss) -> None:
    volume = fake_vss.add_volume("C:\\", free=((10, 20),), data=b"all of it" * 10_000)
    fake_vss.faults.fail("FSCTL_GET_VOLUME_BITMAP", 1, times=10)
    with Snapshot("C:") as s, s.open() as disk:
        assert [extent.kind for extent in disk.extents()] == [ExtentKind.DATA]
        assert any("no cluster bitmap" in note for note in disk.metadata.notes)
        assert disk.pread(disk.size, 0) == volume.data


def test_a_bitmap_that_fails_is_an_error_of_the_device(fake_vss: FakeVss) -> None:
    fake_vss.add_volume("C:\\")
    # As it is: looking for a file system would have the bitmap read before it fails.
    with Snapshot("C:") as s, s.open(unused=UnusedPolicy.READ, exclude=()) as disk:
        fake_vss.faults.fail("FSCTL_GET_VOLUME_BITMAP", 1117, times=10)
        with pytest.raises(DeviceReadError, match="bitmap"):
            list(disk.extents())
