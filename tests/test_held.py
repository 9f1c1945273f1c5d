"""What keeps a snapshot alive, and what happens when it ends."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from vsssnap import ImageMetadata
from vsssnap._deadline import Deadline
from vsssnap._held import Held, SnapshotReader, open_volume
from vsssnap.blocks.reader import BlockReader
from vsssnap.consistency import Consistency
from vsssnap.errors import (
    ClosedError,
    DeviceReadError,
    SnapshotBusyError,
    SnapshotError,
    SnapshotLostError,
    SnapshotTimeoutError,
)
from vsssnap.providers.base import SnapshotVolume, Taken
from vsssnap.testing import MemoryProvider, MemoryReader
from vsssnap.volumes.policy import UnusedPolicy
from waiting import until

WAIT = 60.0  # seconds until a test gives a stuck thread up


class Provider(MemoryProvider):
    """Counts its releases; ``gone`` is what `alive` raises."""

    def __init__(self) -> None:
        super().__init__()
        self.released = 0
        self.asked = 0
        self.gone: SnapshotError | None = None

    def alive(self) -> None:
        self.asked += 1
        if self.gone is not None:
            raise self.gone

    def release(self, deadline: Deadline, /) -> None:
        self.released += 1


def reader_of(held: Held, inner: BlockReader | None = None) -> SnapshotReader:
    inner = inner if inner is not None else MemoryReader(b"before" * 100)
    return SnapshotReader(held, inner, ImageMetadata(volume="db"), ("/dev/db",))


@pytest.fixture
def provider() -> Provider:
    return Provider()


def test_release_closes_readers_first(provider: Provider) -> None:
    held = Held(provider)
    inner = MemoryReader(b"x")
    reader = reader_of(held, inner)
    held.release()
    assert (reader.closed, inner.closed, provider.released) == (True, True, 1)


def test_release_is_done_once(provider: Provider) -> None:
    held = Held(provider)
    held.release()
    held.release()
    assert provider.released == 1


def test_forgotten_one_is_released_by_its_last_reference(provider: Provider) -> None:
    held = Held(provider)
    reader = reader_of(held)
    del held
    assert provider.released == 0, "a reader holds it"
    del reader
    assert provider.released == 1


def test_reader_that_is_closed_still_holds_nothing_open_but_the_snapshot(provider: Provider) -> None:
    held = Held(provider)
    reader = reader_of(held)
    reader.close()
    assert provider.released == 0
    held.release()
    assert provider.released == 1


def test_another_process_releases_nothing(provider: Provider) -> None:
    held = Held(provider)
    reader = reader_of(held)
    held.pid = os.getpid() + 1  # as in a child
    held.release()
    assert reader.closed, "its own descriptors go"
    assert provider.released == 0


def test_lost_is_lost_for_ever(provider: Provider) -> None:
    held = Held(provider)
    held.alive()
    provider.gone = SnapshotLostError("the shadow storage is full")
    for _ in range(3):
        with pytest.raises(SnapshotLostError, match="is full"):
            held.alive()
    provider.gone = None
    asked = provider.asked
    with pytest.raises(SnapshotLostError, match="is full"):
        held.alive()
    assert provider.asked == asked, "it is not asked again"
    held.release()


def test_other_errors_of_alive_pass_and_are_not_kept(provider: Provider) -> None:
    held = Held(provider)
    provider.gone = SnapshotBusyError("try again")
    with pytest.raises(SnapshotBusyError):
        held.alive()
    provider.gone = None
    held.alive()
    held.release()


READS: dict[str, Callable[[SnapshotReader], object]] = {
    "pread": lambda reader: reader.pread(6, 0),
    "preadinto": lambda reader: reader.preadinto(bytearray(6), 0),
}


@pytest.mark.parametrize("call", READS)
def test_failing_device_of_a_living_snapshot_is_a_read_error(provider: Provider, call: str) -> None:
    held = Held(provider)

    class Failing(MemoryReader):
        def _read(self, length: int, offset: int) -> bytes:
            raise DeviceReadError("input/output error", offset=offset, length=length)

    reader = reader_of(held, Failing(bytes(600)))
    with pytest.raises(DeviceReadError):
        READS[call](reader)
    provider.gone = SnapshotLostError("gone")
    for _ in range(2):  # asked by the failing read, then remembered
        with pytest.raises(SnapshotLostError):
            READS[call](reader)
    held.release()


@pytest.mark.parametrize("call", READS)
def test_reader_of_a_lost_snapshot_reads_no_more(provider: Provider, call: str) -> None:
    held = Held(provider)
    reader = reader_of(held)
    READS[call](reader)
    provider.gone = SnapshotLostError("gone")
    with pytest.raises(SnapshotLostError):
        reader.confirm()
    with pytest.raises(SnapshotLostError):
        READS[call](reader)
    held.release()


def test_reader_tells_where_it_comes_from(provider: Provider) -> None:
    held = Held(provider)

    class Inner(MemoryReader):
        @property
        def origins(self) -> tuple[str, ...]:
            return ("/srv/disk.img",)

    reader = reader_of(held, Inner(bytes(512), sector_size=4096))
    assert reader.origins == ("/dev/db", "/srv/disk.img")
    assert (reader.size, reader.sector_size, reader.metadata.volume) == (512, 4096, "db")
    held.release()


def test_running_read_is_waited_for_and_what_it_reads_is_right(provider: Provider) -> None:
    inside, go = threading.Event(), threading.Event()

    class Slow(MemoryReader):
        def _read(self, length: int, offset: int) -> bytes:
            inside.set()
            assert go.wait(WAIT)
            return super()._read(length, offset)

    held, seen = Held(provider), list[bytes]()
    reader = reader_of(held, Slow(b"before" * 100))
    reading = threading.Thread(target=lambda: seen.append(reader.pread(6, 0)))
    reading.start()
    assert inside.wait(WAIT)
    releasing = threading.Thread(target=held.release)
    releasing.start()
    assert until(lambda: reader._gate.closed)
    assert provider.released == 0
    with pytest.raises(ClosedError):
        reader.pread(1, 0)
    go.set()
    reading.join(WAIT)
    releasing.join(WAIT)
    assert (seen, provider.released) == ([b"before"], 1)


def test_read_that_never_ends_does_not_keep_the_snapshot_for_ever(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsssnap._held._RELEASE_BUDGET", 0.05)
    held = Held(provider)
    reader = reader_of(held)
    with reader._gate, pytest.raises(SnapshotTimeoutError, match="wait for running reads"):
        held.release()
    assert provider.released == 1, "it is given back all the same"


def test_both_failures_of_a_release_are_told(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsssnap._held._RELEASE_BUDGET", 0.05)

    def release(deadline: Deadline) -> None:
        raise SnapshotError("will not go")

    monkeypatch.setattr(provider, "release", release)
    held = Held(provider)
    reader = reader_of(held)
    with reader._gate, pytest.raises(SnapshotError, match="will not go") as caught:
        held.release()
    assert any("wait for running reads" in note for note in caught.value.__notes__)


def test_release_has_a_budget_of_its_own(monkeypatch: pytest.MonkeyPatch, provider: Provider) -> None:
    given: list[float] = []
    monkeypatch.setattr(provider, "release", lambda deadline: given.append(deadline.seconds))
    Held(provider).release()
    assert given == [60.0]


def test_step_is_logged(provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "vsssnap"):
        Held(provider).release()
        held = Held(provider)
        del held
        gc.collect()
    assert [record.message for record in caplog.records] == ["close: release", "forgotten snapshot: release"]


@pytest.mark.parametrize("ended", [KeyboardInterrupt, RuntimeError])
def test_what_ends_the_waiting_does_not_keep_it_from_being_released(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, ended: type[BaseException]
) -> None:
    held = Held(provider)
    reader = reader_of(held)

    def interrupted(deadline: Deadline) -> None:
        raise ended

    monkeypatch.setattr(reader, "wait_released", interrupted)
    with pytest.raises(ended):
        held.release()
    assert provider.released == 1
    held.release()
    assert provider.released == 1


def test_what_ends_the_completion_does_not_keep_it_from_being_released(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(deadline: Deadline) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(provider, "complete", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Held(provider).release(complete=True)
    assert provider.released == 1


def test_a_reader_that_is_being_opened_is_closed_before_the_release(provider: Provider) -> None:
    held = Held(provider)
    opening, go_on = threading.Event(), threading.Event()
    given: list[BlockReader] = []
    inner = MemoryReader(b"before" * 100)

    def slow(volume: SnapshotVolume) -> BlockReader:
        opening.set()
        assert go_on.wait(WAIT)
        assert provider.released == 0
        return inner

    provider.open = slow  # type: ignore[method-assign]
    taken = Taken(
        snapshot_id="1",
        created=datetime.now(UTC),
        level=Consistency.CRASH,
        volumes=(SnapshotVolume(name="db", device="/dev/db", size=600),),
    )

    def open_one() -> None:
        given.append(
            open_volume(
                held, taken, taken.volumes[0], Consistency.CRASH, unused=UnusedPolicy.READ, exclude=()
            )
        )

    opener = threading.Thread(target=open_one)
    opener.start()
    assert opening.wait(WAIT)
    closer = threading.Thread(target=held.release)
    closer.start()
    assert until(lambda: held.opening.closed)
    closer.join(0.2)
    assert closer.is_alive(), "it must wait for the reader"
    with pytest.raises(ClosedError, match="the snapshot is closed"):
        open_one()
    go_on.set()
    opener.join(WAIT)
    closer.join(WAIT)
    assert (provider.released, given[0].closed, inner.closed) == (1, True, True)
