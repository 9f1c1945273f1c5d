from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsssnap import ExtentKind, Snapshot, UnusedPolicy
from vsssnap.errors import SnapshotLostError
from vsssnap.providers.vss import clusters
from vsssnap.providers.vss.clusters import runs
from vsssnap.testing.fake_vss import FakeVolume, FakeVss


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
        assert any("every block is kept" in note for note in disk.metadata.notes)
        assert disk.pread(disk.size, 0) == volume.data


def test_another_file_systems_clusters_lie_behind_its_tables(fake_vss: FakeVss) -> None:
    fake_vss.add_volume("F:\\", filesystem="FAT32", first_cluster=7 * 512, free=((2, 3),))
    with Snapshot("F:") as s, s.open() as disk:
        holes = [extent for extent in disk.extents() if extent.kind is ExtentKind.HOLE]
        assert [(hole.offset, hole.length) for hole in holes] == [(7 * 512 + 2 * 4096, 3 * 4096)]
        assert next(disk.extents()).kind is ExtentKind.DATA


def test_clusters_that_are_more_than_the_volume_are_not_believed(
    fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = fake_vss.add_volume("F:\\", filesystem="FAT32", first_cluster=7 * 512, free=((2, 3),))
    monkeypatch.setattr(FakeVolume, "clusters", volume.clusters + 1)
    with Snapshot("F:") as s, s.open() as disk:
        assert [extent.kind for extent in disk.extents()] == [ExtentKind.DATA]


@pytest.mark.parametrize("skip", [0, 1])
def test_a_bitmap_that_fails_midway_leaves_everything_used(fake_vss: FakeVss, skip: int) -> None:
    fake_vss.most_bitmap = 8
    volume = fake_vss.add_volume("C:\\", free=((3, 60),), data=b"all of it" * 100_000)
    with Snapshot("C:") as s, s.open() as disk:
        fake_vss.faults.fail("FSCTL_GET_VOLUME_BITMAP", 1117, times=10, skip=skip)
        assert [extent.kind for extent in disk.extents()] == [ExtentKind.DATA]
        assert disk.pread(900_000, 0) == volume.data[:900_000]


def test_a_bitmap_of_a_lost_shadow_copy_says_that_it_is_lost(fake_vss: FakeVss) -> None:
    volume = fake_vss.add_volume("C:\\", free=((3, 60),))
    with Snapshot("C:") as s, s.open() as disk:
        fake_vss.lose(volume)
        with pytest.raises(SnapshotLostError):
            list(disk.extents())


def test_free_clusters_are_read_on_demand_and_the_metadata_say_so(fake_vss: FakeVss) -> None:
    volume = fake_vss.add_volume("C:\\", free=((3, 60),), data=b"left over" * 10_000)
    with Snapshot("C:") as s, s.open(unused=UnusedPolicy.READ, exclude=()) as disk:
        assert [extent.kind for extent in disk.extents()] == [ExtentKind.DATA]
        assert disk.pread(90_000, 0) == volume.data[:90_000]
        assert any("nobody promises" in note for note in disk.metadata.notes)


def test_the_map_is_asked_for_once_and_closed_with_the_snapshot(fake_vss: FakeVss) -> None:
    fake_vss.add_volume("C:\\", free=((3, 60),))
    with Snapshot("C:") as s:
        for _ in range(3):
            with s.open() as disk:
                list(disk.extents())
        assert len(fake_vss._handles) <= 3  # the map's device and its event, and a token
    fake_vss.check()
