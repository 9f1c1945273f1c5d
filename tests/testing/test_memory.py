"""Stand-ins in memory, and lending a driver to the registry.  Their contracts: tests/contract."""

from __future__ import annotations

import gc
import threading

import pytest
from hypothesis import given

from vsssnap import Consistency, Extent, ExtentKind, ImageMetadata, Snapshot, formats, list_snapshots, purge
from vsssnap.errors import DeviceReadError, SnapshotLostError, UsageError
from vsssnap.formats.raw import RawFormat
from vsssnap.providers import available, by_name
from vsssnap.testing import MemoryProvider, MemoryReader, MemoryVolume, check_reader, installed
from vsssnap.testing.strategies import volumes


@given(volumes(unreadable=False))
def test_reader_is_what_it_was_made_of(volume: tuple[bytes, list[Extent]]) -> None:
    content, extents = volume
    with MemoryReader(content, extents) as reader:
        assert reader.readall() == content
        assert sum(extent.length for extent in reader.extents()) == len(content)


def test_reader_gives_zeros_for_what_is_called_zero() -> None:
    extents = [Extent(0, 2), Extent(2, 2, ExtentKind.EXCLUDED), Extent(4, 2, ExtentKind.ZERO)]
    with MemoryReader(b"abcdef", extents) as reader:
        assert reader.readall() == b"ab\0\0\0\0"


def test_unreadable_range_raises_and_says_where() -> None:
    extents = [Extent(0, 2), Extent(2, 2, ExtentKind.UNREADABLE), Extent(4, 2)]
    with MemoryReader(b"abcdef", extents) as reader:
        assert reader.pread(2, 0) + reader.pread(2, 4) == b"abef"
        with pytest.raises(DeviceReadError) as caught:
            reader.readall()
        assert (caught.value.offset, caught.value.length) == (2, 2)


@pytest.mark.parametrize(
    "extents", [[], [Extent(0, 5)], [Extent(1, 5)], [Extent(0, 7)], [Extent(0, 2), Extent(3, 3)]]
)
def test_map_that_does_not_fit_is_refused(extents: list[Extent]) -> None:
    with pytest.raises(UsageError):
        MemoryReader(b"abcdef", extents)


def test_metadata_is_kept() -> None:
    assert MemoryReader(b"", metadata=ImageMetadata(volume="C:")).metadata.volume == "C:"


def test_volume_is_read_written_and_named() -> None:
    volume = MemoryVolume(4, name="db", sector_size=4096)
    assert volume.pwrite(b"ab", 1) == 2
    assert (volume.pread(10, 0), str(volume), volume.sector_size) == (b"\0ab\0", "db", 4096)
    with pytest.raises(UsageError, match="3 bytes at 2 are behind the end, 4"):
        volume.pwrite(b"abc", 2)
    with pytest.raises(UsageError, match="no power of two"):
        MemoryVolume(4, sector_size=520)


def test_volume_is_found_by_itself_and_by_name_until_it_is_gone() -> None:
    volume = MemoryVolume(4, name="found by name")
    assert MemoryVolume.find("found by name") is volume is MemoryVolume.find(volume)
    del volume
    gc.collect()
    assert MemoryVolume.find("found by name") is None
    assert MemoryVolume.find(object()) is None


def test_volumes_have_names_of_their_own() -> None:
    assert MemoryVolume(1).name != MemoryVolume(1).name


def test_taken_away_snapshots_are_lost_with_the_reason() -> None:
    volume = MemoryVolume(b"abc")
    with installed(MemoryProvider), Snapshot(volume) as snapshot, snapshot.open() as reader:
        volume.lose_snapshots("a cosmic ray")
        with pytest.raises(SnapshotLostError, match="a cosmic ray"):
            reader.confirm()


def test_subclass_offers_another_level() -> None:
    class Better(MemoryProvider):
        level = Consistency.FILESYSTEM

    volume = MemoryVolume(b"abc")
    with installed(Better), Snapshot(volume, require=Consistency.FILESYSTEM) as snapshot:
        assert snapshot.consistency is Consistency.FILESYSTEM


def test_subclass_has_a_machine_of_its_own() -> None:
    class Elsewhere(MemoryProvider):
        name = "elsewhere"
        machine = {}  # noqa: RUF012  # that is what is tested

    volume = MemoryVolume(b"abc")
    with installed(Elsewhere):
        with Snapshot(volume, provider="elsewhere", persistent=True) as snapshot:
            pass
        assert [record.snapshot_id for record in list_snapshots()] == [snapshot.id]
        assert MemoryProvider.machine == {}
        purge()


def test_provider_is_lent_and_taken_back() -> None:
    assert "memory" not in available()
    with installed(MemoryProvider):
        assert available()["memory"] == ""
        assert next(iter(available())) == "memory", "it comes before all others"
    assert "memory" not in available()


def test_lent_driver_stands_in_for_one_of_its_name_also_after_an_error() -> None:
    class OtherRaw(RawFormat):
        pass

    def use() -> None:
        with installed(OtherRaw):
            assert type(formats.by_name("raw")) is OtherRaw
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert type(formats.by_name("raw")) is RawFormat


def test_lent_drivers_nest() -> None:
    class Inner(MemoryProvider):
        pass

    with installed(MemoryProvider):
        with installed(Inner):
            assert type(by_name("memory")) is Inner
        assert type(by_name("memory")) is MemoryProvider


def test_volume_is_written_and_read_by_many_at_once() -> None:
    volume = MemoryVolume(bytes(1 << 16))
    torn: list[bytes] = []

    def write(value: int) -> None:
        for _ in range(200):
            volume.pwrite(bytes([value]) * 4096, 0)
            seen = volume.pread(4096, 0)
            torn.extend([seen] if len(set(seen)) > 1 else [])

    threads = [threading.Thread(target=write, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torn == []


def test_snapshot_reader_keeps_the_contract_after_the_provider_is_gone() -> None:
    volume = MemoryVolume(b"abc" * 1000)
    with installed(MemoryProvider):
        snapshot = Snapshot(volume)
        snapshot.create()
    check_reader(snapshot.open, b"abc" * 1000)
    snapshot.close()
