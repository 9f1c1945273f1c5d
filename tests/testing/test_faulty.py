"""Wrappers that fail as `Faults` says, and are like what they wrap where it says nothing."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import ClassVar

import pytest

from vsssnap import Snapshot, save_image
from vsssnap._deadline import Deadline
from vsssnap.errors import DeviceReadError, SnapshotError, SnapshotLostError, TargetError
from vsssnap.formats import MemoryStorage
from vsssnap.metadata import WriterReport
from vsssnap.providers import Provider
from vsssnap.testing import (
    Faults,
    FaultyProvider,
    FaultyReader,
    FaultyStorage,
    MemoryProvider,
    MemoryReader,
    MemoryVolume,
    faulty_provider,
    installed,
)

DATA = bytes(range(256)) * 64


@pytest.fixture
def faults() -> Faults:
    return Faults()


# Readers.


def test_reader_notices_a_source_that_is_short(faults: Faults) -> None:
    faults.shorten(by=1)
    with (
        FaultyReader(MemoryReader(DATA), faults) as reader,
        pytest.raises(DeviceReadError, match="gave 9 of 10 bytes at 5") as caught,
    ):
        reader.pread(10, 5)
    assert (caught.value.offset, caught.value.length) == (5, 10)


def test_reader_fails_where_it_is_told_to(faults: Faults) -> None:
    faults.fail("pread", errno.EIO, over=(4096, 512))
    with FaultyReader(MemoryReader(DATA), faults) as reader:
        assert reader.pread(4096, 0) == DATA[:4096]
        with pytest.raises(DeviceReadError, match="cannot read 10 bytes at 4600"):
            reader.pread(10, 4600)
        assert reader.pread(10, 4608) == DATA[4608:4618]


@pytest.mark.parametrize("method", ["extents", "confirm"])
def test_reader_fails_in_its_other_calls(faults: Faults, method: str) -> None:
    faults.fail(method, errno.EIO)
    with FaultyReader(MemoryReader(DATA), faults) as reader, pytest.raises(DeviceReadError):
        list(reader.extents()) if method == "extents" else reader.confirm()
    faults.verify_all_exercised()


def test_closing_the_reader_closes_what_it_wraps(faults: Faults) -> None:
    inner = MemoryReader(DATA, sector_size=4096)
    reader = FaultyReader(inner, faults)
    assert (reader.size, reader.sector_size, reader.metadata) == (len(DATA), 4096, inner.metadata)
    reader.close()
    assert inner.closed


# Storages.


def test_full_storage_keeps_what_there_was_room_for(faults: Faults) -> None:
    inner = MemoryStorage()
    storage = FaultyStorage(inner, faults)
    faults.fill(after_bytes=10)
    assert storage.append([b"0123", b"4567"]) == 0
    with pytest.raises(TargetError) as caught:
        storage.append([b"89", b"ab"])
    assert caught.value.errno == errno.ENOSPC
    assert bytes(inner.data) == b"0123456789"
    with pytest.raises(TargetError):
        storage.pwrite(b"x", 0)
    assert bytes(inner.data) == b"0123456789"


def test_full_storage_is_full_for_reserving_too(faults: Faults) -> None:
    storage = FaultyStorage(MemoryStorage(), faults)
    faults.fill(after_bytes=10)
    with pytest.raises(TargetError, match="allocate"):
        storage.allocate(11)


@pytest.mark.parametrize("method", ["append", "pwrite", "truncate", "allocate", "flush"])
def test_failing_storage_names_the_call(faults: Faults, method: str) -> None:
    storage = FaultyStorage(MemoryStorage(), faults)
    faults.fail(method, errno.EIO)
    calls: dict[str, Callable[[], object]] = {
        "append": lambda: storage.append([b"x"]),
        "pwrite": lambda: storage.pwrite(b"x", 0),
        "truncate": lambda: storage.truncate(5),
        "allocate": lambda: storage.allocate(5),
        "flush": lambda: storage.flush(),
    }
    with pytest.raises(TargetError, match=f"{method} failed: Input/output error") as caught:
        calls[method]()
    assert (caught.value.call, caught.value.errno) == (method, errno.EIO)
    assert storage.size == 0


def test_failing_read_of_a_storage_is_a_read_error(faults: Faults) -> None:
    storage = FaultyStorage(MemoryStorage(DATA), faults)
    faults.fail("pread", errno.EIO)
    with pytest.raises(DeviceReadError, match="cannot read 5 bytes at 7"):
        storage.pread(5, 7)


def test_what_a_storage_wraps_is_closed_also_when_closing_fails(faults: Faults) -> None:
    closed = []

    class Closing(MemoryStorage):
        def close(self) -> None:
            closed.append(True)

    faults.fail("close", errno.EIO)
    with pytest.raises(TargetError):
        FaultyStorage(Closing(), faults).close()
    assert closed == [True]


def test_storage_without_faults_is_like_what_it_wraps(faults: Faults) -> None:
    inner = MemoryStorage(name="inner")
    storage = FaultyStorage(inner, faults)
    storage.truncate(10)
    storage.pwrite(b"abc", 2)
    storage.flush()
    storage.allocate(12)
    assert (storage.name, storage.size, storage.seekable) == ("inner", 12, True)
    assert storage.pread(3, 2) == b"abc"
    assert sum(extent.length for extent in storage.extents(0, 12)) == 12


# Providers.


@pytest.mark.parametrize("step", ["probe", "prepare", "take", "open", "alive", "release"])
def test_provider_fails_in_any_step(faults: Faults, step: str) -> None:
    volume = MemoryVolume(DATA)
    faults.fail(step, errno.EIO, nth=1)
    with (
        installed(faulty_provider(MemoryProvider, faults)),
        pytest.raises(SnapshotError, match=f"{step} failed"),
        Snapshot(volume) as snapshot,
    ):
        snapshot.open().close()
    faults.verify_all_exercised()


@pytest.mark.parametrize("step", ["attach", "list", "purge", "unusable"])
def test_provider_fails_in_its_other_steps(faults: Faults, step: str) -> None:
    faults.fail(step, SnapshotError("as ordered"))
    provider = FaultyProvider(MemoryProvider(), faults)
    calls: dict[str, Callable[[], object]] = {
        "attach": lambda: provider.attach("1", own=False),
        "list": lambda: provider.list(),
        "purge": lambda: provider.purge(None, None),  # type: ignore[arg-type]  # never looked at
        "unusable": lambda: provider.unusable(),
    }
    with pytest.raises(SnapshotError, match="as ordered"):
        calls[step]()


def test_provider_passes_on_every_method(faults: Faults) -> None:
    methods = {name for name, what in vars(Provider).items() if callable(what) and not name.startswith("_")}
    assert methods <= vars(FaultyProvider).keys()
    told: list[str] = []

    class Telling(MemoryProvider):
        def complete(self, deadline: Deadline, /) -> Sequence[WriterReport]:
            told.append("complete")
            return ()

        def instant(self, deadline: Deadline, /) -> bool:
            told.append("instant")
            return False

    with installed(faulty_provider(Telling, faults)), Snapshot(MemoryVolume(DATA), quiesce=[nullcontext()]):
        pass
    assert told == ["instant", "complete"]


def test_provider_keeps_the_name_and_options_of_what_it_wraps(faults: Faults) -> None:
    class Options:
        pass

    class Choosy(MemoryProvider):
        name = "choosy"
        options_type: ClassVar[type | None] = Options

    made = faulty_provider(Choosy, faults)
    assert (made.name, made.options_type, made.api) == ("choosy", Options, Choosy.api)


def test_release_that_fails_has_released(faults: Faults) -> None:
    volume = MemoryVolume(DATA)
    faults.fail("release", errno.EIO)
    with installed(faulty_provider(MemoryProvider, faults)):
        snapshot = Snapshot(volume, persistent=False)
        snapshot.create()
        with pytest.raises(SnapshotError, match="release failed"):
            snapshot.close()
    assert not list(volume._snapshots) or all(frozen.lost for frozen in volume._snapshots)


def test_silently_lost_snapshot_leaves_no_image(faults: Faults, tmp_path: Path) -> None:
    volume = MemoryVolume(DATA)
    faults.lose(after_bytes=len(DATA) // 2, silently=True)
    with (
        installed(faulty_provider(MemoryProvider, faults)),
        Snapshot(volume) as snapshot,
        pytest.raises(SnapshotLostError),
    ):
        save_image(snapshot.open(), tmp_path / "x.raw")
    assert list(tmp_path.iterdir()) == []
