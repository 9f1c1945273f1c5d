from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cow_volumes import MemoryVolume, shadow_files
from vsssnap._deadline import Deadline
from vsssnap.blocks.cow import CowVolume
from vsssnap.consistency import Consistency
from vsssnap.errors import (
    ClosedError,
    ConsistencyError,
    ProviderUnavailableError,
    SnapshotError,
    SnapshotLostError,
    SnapshotTimeoutError,
)
from vsssnap.providers import choice
from vsssnap.providers.base import SnapshotRequest
from vsssnap.providers.cow import CowProvider
from vsssnap.snapshot import Snapshot

WAIT = 60.0  # seconds until a test gives a stuck thread up


def volume_of(data: bytes, folder: Path, **options: object) -> CowVolume:
    return CowVolume(MemoryVolume(data), block_size=4096, shadow_folder=folder, **options)  # type: ignore[arg-type]  # options by name


def request(*volumes: object, persistent: bool = False) -> SnapshotRequest:
    return SnapshotRequest(volumes=volumes, require=Consistency.CRASH, persistent=persistent)


def why_not(*volumes: object, persistent: bool = False) -> str:
    offer = CowProvider().probe(request(*volumes, persistent=persistent))
    assert offer.level is None
    return offer.reason


def test_crash_is_offered_for_a_cow_volume(tmp_path: Path) -> None:
    with volume_of(b"abc", tmp_path) as volume:
        assert CowProvider().probe(request(volume)).level is Consistency.CRASH


def test_nothing_is_offered_for_what_is_no_cow_volume(tmp_path: Path) -> None:
    with volume_of(b"abc", tmp_path) as volume:
        assert why_not(volume, "/dev/sda") == "/dev/sda is no CowVolume"


def test_nothing_is_offered_for_a_closed_volume(tmp_path: Path) -> None:
    volume = volume_of(b"abc", tmp_path, name="db")
    volume.close()
    assert why_not(volume) == "db is closed"


def test_nothing_is_offered_for_two_volumes_of_one_name(tmp_path: Path) -> None:
    with volume_of(b"a", tmp_path, name="db") as one, volume_of(b"b", tmp_path, name="db") as two:
        assert "two volumes are named 'db'" in why_not(one, two)


def test_nothing_is_offered_for_a_persistent_snapshot(tmp_path: Path) -> None:
    with volume_of(b"abc", tmp_path) as volume:
        assert "end with the process" in why_not(volume, persistent=True)


def test_nothing_is_offered_for_no_volume() -> None:
    assert why_not() == "no volume is named"


def test_the_registry_chooses_it_for_a_cow_volume(tmp_path: Path) -> None:
    with volume_of(b"abc", tmp_path) as volume:
        assert isinstance(choice.choose(request(volume), only="cow"), CowProvider)


def test_prepare_refuses_what_probe_refuses() -> None:
    provider = CowProvider()
    with pytest.raises(ProviderUnavailableError, match="is no CowVolume"):
        provider.prepare(request("/dev/sda"), Deadline(WAIT))
    provider.release(Deadline(WAIT))


def test_snapshot_of_a_cow_volume_keeps_its_instant(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    with (
        volume_of(b"old" * 5000, tmp_path, name="db") as volume,
        Snapshot(volume, provider="cow") as snapshot,
    ):
        volume.pwrite(b"new", 0)
        with snapshot.open() as reader:
            assert reader.pread(1 << 20, 0) == b"old" * 5000
        assert list(snapshot.volumes) == ["db"]
        assert snapshot.consistency is Consistency.CRASH
        assert snapshot.created is not None
        assert before <= snapshot.created <= datetime.now(UTC)


def test_released_snapshot_gives_its_disk_back(tmp_path: Path) -> None:
    with volume_of(b"old" * 5000, tmp_path) as volume:
        with Snapshot(volume, provider="cow"):
            volume.pwrite(b"new", 0)
            assert shadow_files(tmp_path)
        assert shadow_files(tmp_path) == []


def test_failed_take_leaves_nothing(tmp_path: Path) -> None:
    one, two = volume_of(b"a", tmp_path), volume_of(b"b", tmp_path)
    provider = CowProvider()
    with one:
        provider.prepare(request(one, two), Deadline(WAIT))
        two.close()
        with pytest.raises(SnapshotError, match="is closed"):
            provider.take(Deadline(WAIT))
        provider.release(Deadline(WAIT))
        assert one.pwrite(b"x", 0) == 1
    assert shadow_files(tmp_path) == []


def test_take_before_prepare_is_an_error() -> None:
    with pytest.raises(SnapshotError, match="nothing is prepared"):
        CowProvider().take(Deadline(WAIT))


def test_stuck_write_ends_the_instant_at_its_deadline(tmp_path: Path) -> None:
    go, inside = threading.Event(), threading.Event()

    class Stuck(MemoryVolume):
        def pwrite(self, data: memoryview, offset: int, /) -> None:
            inside.set()
            go.wait(WAIT)
            super().pwrite(data, offset)

    with (
        ThreadPoolExecutor(1) as pool,
        CowVolume(Stuck(b"abc"), shadow_folder=tmp_path) as volume,
        volume_of(b"abc", tmp_path) as other,
    ):
        job = pool.submit(volume.pwrite, b"x", 0)
        assert inside.wait(WAIT)
        try:
            with pytest.raises(SnapshotTimeoutError):
                Snapshot(volume, other, provider="cow", timeout=0.1).create()
            assert other.pwrite(b"y", 0) == 1
        finally:
            go.set()
        job.result(WAIT)
    assert shadow_files(tmp_path) == []


def test_one_volume_named_twice_is_one_snapshot(tmp_path: Path) -> None:
    provider = CowProvider()
    with volume_of(b"abc", tmp_path) as volume:
        provider.prepare(request(volume, volume), Deadline(WAIT))
        taken = provider.take(Deadline(WAIT))
        assert taken.volumes[0] == taken.volumes[1]
        assert len(shadow_files(tmp_path)) == 1
        provider.release(Deadline(WAIT))


def test_several_volumes_are_of_one_instant(tmp_path: Path) -> None:
    stop = threading.Event()
    one, two = volume_of(bytes(8), tmp_path), volume_of(bytes(8), tmp_path)

    def write() -> None:
        number = 0
        while not stop.is_set():  # first into one, then into two
            number += 1
            one.pwrite(number.to_bytes(8, "little"), 0)
            two.pwrite(number.to_bytes(8, "little"), 0)

    with one, two, ThreadPoolExecutor(1) as pool:
        job = pool.submit(write)
        try:
            for _ in range(30):
                with Snapshot(two, one, provider="cow") as snapshot:
                    a, b = (int.from_bytes(snapshot.open(v).pread(8, 0), "little") for v in (one, two))
                assert 0 <= a - b <= 1
        finally:
            stop.set()
        job.result(WAIT)


def test_loss_of_one_volume_is_loss_of_the_snapshot(tmp_path: Path) -> None:
    with volume_of(b"a" * 4096, tmp_path, shadow_limit=0) as one, volume_of(b"b", tmp_path) as two:
        provider = CowProvider()
        provider.prepare(request(one, two), Deadline(WAIT))
        provider.take(Deadline(WAIT))
        provider.alive()
        one.pwrite(b"x", 0)
        for _ in range(2):
            with pytest.raises(SnapshotLostError, match="full"):
                provider.alive()
        provider.release(Deadline(WAIT))


def test_reader_of_a_lost_snapshot_says_so(tmp_path: Path) -> None:
    with (
        volume_of(b"a" * 4096, tmp_path, shadow_limit=0) as volume,
        Snapshot(volume, provider="cow") as snapshot,
        snapshot.open() as reader,
    ):
        volume.pwrite(b"x", 0)
        for call in (reader.confirm, lambda: reader.pread(1, 0)):
            with pytest.raises(SnapshotLostError):
                call()


def test_closed_snapshot_closes_its_readers(tmp_path: Path) -> None:
    with volume_of(b"abc", tmp_path) as volume:
        with Snapshot(volume, provider="cow") as snapshot:
            reader = snapshot.open()
        with pytest.raises(ClosedError):
            reader.pread(1, 0)


def test_more_than_crash_needs_quiesce_managers(tmp_path: Path) -> None:
    with volume_of(b"abc", tmp_path) as volume:
        snapshot = Snapshot(volume, provider="cow", require=Consistency.APPLICATION)
        with pytest.raises(ConsistencyError, match="CRASH is the most there is"):
            snapshot.create()
