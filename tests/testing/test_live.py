"""A disk that is written while it is read, and what tells a torn image of it."""

from __future__ import annotations

import random
import threading
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsssnap.errors import UsageError
from vsssnap.testing import LiveDisk, MemoryVolume, naive_copy, torn
from vsssnap.testing.live import BODY, SECTOR


def content(disk: LiveDisk) -> bytes:
    return disk.pread(disk.size, 0)


def test_disk_is_whole_at_every_moment() -> None:
    disk = LiveDisk(BODY + 16 * SECTOR, records_per_commit=4)
    assert torn(content(disk)) is None
    for _ in range(10):  # more than once around
        for _ in disk.writes():
            assert torn(content(disk)) is None
    assert disk.commits == 10


def test_commit_that_was_cut_off_is_done_again() -> None:
    disk = LiveDisk(BODY + 16 * SECTOR, records_per_commit=4)
    disk.commit(2)
    for done in disk.writes():
        if done == 3:
            break
    assert disk.commits == 2
    assert torn(content(disk)) is None
    disk.commit()
    assert (disk.commits, torn(content(disk))) == (3, None)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, BODY + 24 * SECTOR))
def test_image_of_two_times_is_torn_or_the_same_as_one(first: int, second: int, cut: int) -> None:
    """Whatever is told whole must be what a power cut could have left: at most one commit apart."""
    disk = LiveDisk(BODY + 24 * SECTOR, records_per_commit=4)
    disk.commit(min(first, second))
    old = content(disk)
    disk.commit(abs(first - second))
    new = content(disk)
    mixed = old[:cut] + new[cut:]
    if mixed in (old, new):
        assert torn(mixed) is None
    elif abs(first - second) > 1 and torn(mixed) is None:
        # The header is the old one's, and of the body only records of the next commit are new.
        changed = [n for n in range(BODY, len(mixed), SECTOR) if mixed[n : n + SECTOR] != old[n : n + SECTOR]]
        assert len(changed) <= 4


@given(st.integers(0, BODY + 16 * SECTOR - 1), st.integers(1, 255), st.integers(0, 9))
def test_changed_byte_of_header_or_record_is_found(place: int, change: int, commits: int) -> None:
    disk = LiveDisk(BODY + 16 * SECTOR)
    disk.commit(commits)
    data = bytearray(content(disk))
    data[place] ^= change
    if place < 48 or place >= BODY:  # between them lies nothing that is looked at
        assert torn(bytes(data)) is not None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[: BODY // 2], "ends inside the body"),
        (lambda data: b"", "no header"),
        (lambda data: bytes(len(data)), "no header"),
        (lambda data: data[:8] + b"\xff" + data[9:], "header fails its checksum"),
        (lambda data: data[: BODY + 100] + b"\xff" + data[BODY + 101 :], "holds no whole record"),
        (lambda data: data[:BODY] + bytes(len(data) - BODY), "holds no whole record"),
    ],
)
def test_damage_is_said_in_words(damage: Any, said: str) -> None:
    disk = LiveDisk(BODY + 16 * SECTOR)
    disk.commit(3)
    why = torn(damage(content(disk)))
    assert why is not None
    assert said in why


def test_naive_copy_over_two_commits_is_torn_by_construction() -> None:
    disk = LiveDisk(1 << 16)
    disk.commit(5)
    copy = naive_copy(disk, stop_at=BODY, between=lambda: disk.commit(2))
    why = torn(copy)
    assert why == "the header counts 20 records, and the body holds record 24, of a later commit"
    assert torn(content(disk)) is None


def test_naive_copy_of_a_still_disk_is_whole() -> None:
    disk = LiveDisk(1 << 16)
    disk.commit(5)
    called = []
    assert naive_copy(disk, stop_at=10_000, between=lambda: called.append(1)) == content(disk)
    assert called == [1]
    assert naive_copy(disk, stop_at=1 << 30, between=lambda: called.append(2)) == content(disk)
    assert called == [1, 2]


def test_same_seed_same_records() -> None:
    one, two, other = LiveDisk(seed=1), LiveDisk(seed=1), LiveDisk(seed=2)
    for disk in (one, two, other):
        disk.commit(7)
    assert content(one) == content(two) != content(other)


def test_disk_is_written_to_a_target() -> None:
    volume = MemoryVolume(1 << 16)
    disk = LiveDisk(target=volume)
    disk.commit(3)
    assert torn(volume) is None
    assert disk.size == 1 << 16
    with pytest.raises(UsageError, match="writes to a target"):
        disk.pread(1, 0)


def test_image_may_be_longer_than_the_disk() -> None:
    disk = LiveDisk(1 << 16)
    disk.commit(3)
    assert torn(content(disk) + b"more") is None


def test_readers_and_writers_at_once_see_whole_disks() -> None:
    disk, stop, seen = LiveDisk(BODY + 64 * SECTOR), threading.Event(), list[str | None]()

    def read() -> None:
        while not stop.is_set():
            seen.append(torn(disk.pread(disk.size, 0)))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    disk.commit(200)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(seen) == {None}


def test_damage_is_put_in_past_the_application() -> None:
    disk = LiveDisk(1 << 16)
    disk.commit(1)
    disk.pwrite(b"\xff", BODY)
    assert torn(disk) is not None
    with pytest.raises(UsageError, match="behind the end"):
        disk.pwrite(b"x", 1 << 16)


def test_disk_without_room_for_two_commits_is_refused() -> None:
    with pytest.raises(UsageError, match=f"take at least {BODY + 8 * SECTOR} bytes"):
        LiveDisk(BODY + 8 * SECTOR - 1)
    LiveDisk(BODY + 8 * SECTOR)


def test_record_carries_its_own_checksum() -> None:
    """As the module says: a CRC-32 in the last four bytes of a sector."""
    disk = LiveDisk(1 << 16, seed=random.Random(1).randrange(1 << 64))
    disk.commit(1)
    sector = disk.pread(SECTOR, BODY)
    assert int.from_bytes(sector[-4:], "little") == zlib.crc32(sector[:-4])
