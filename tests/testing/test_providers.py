"""`check_provider` finds every way in which a provider can break its contract: one a clause."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from vsssnap._deadline import Deadline
from vsssnap.blocks.reader import BlockReader
from vsssnap.consistency import Consistency
from vsssnap.errors import (
    SnapshotError,
    SnapshotLostError,
    SnapshotTimeoutError,
    SourceChangedError,
    UsageError,
)
from vsssnap.providers import Offer, Provider, SnapshotRecord, SnapshotRequest, SnapshotVolume, Taken
from vsssnap.testing import CheckedVolume, MemoryProvider, MemoryReader, MemoryVolume, check_provider

SIZE = 66_048  # bytes

BROKEN: list[tuple[str, type[MemoryProvider]]] = []


def breaks(clause: str) -> Callable[[type[MemoryProvider]], type[MemoryProvider]]:
    """Have a class checked: ``clause`` must be what is said of it."""

    def note(provider: type[MemoryProvider]) -> type[MemoryProvider]:
        BROKEN.append((clause, provider))
        return provider

    return note


def volumes() -> list[MemoryVolume]:
    return [MemoryVolume(os.urandom(SIZE)), MemoryVolume(os.urandom(SIZE), sector_size=4096)]


def checked(volume: MemoryVolume) -> CheckedVolume:
    return CheckedVolume(volume=volume, write=volume.pwrite, read=lambda: volume.pread(volume.size, 0))


# Facts.


@breaks("api is that of this vsssnap")
class OtherApi(MemoryProvider):
    api = 2


@breaks("name is lower case")
class Shouting(MemoryProvider):
    name = "MEMORY"


@breaks("options_type is a frozen dataclass or None")
class LooseOptions(MemoryProvider):
    options_type: ClassVar[type | None] = dict


@breaks('unusable() is "" where the provider is used')
class Unusable(MemoryProvider):
    def unusable(self) -> str:
        return "not on Mondays"


# Probing.


class Probing(MemoryProvider):
    def probe(self, request: SnapshotRequest, /) -> Any:
        return self.other(super().probe(request), request)

    def other(self, right: Offer, request: SnapshotRequest) -> Any:
        raise NotImplementedError


@breaks("probe() gives an Offer")
class OffersWords(Probing):
    def other(self, right: Offer, request: SnapshotRequest) -> Any:
        return "yes"


@breaks("an offer's level is a Consistency or None")
class OffersNumbers(Probing):
    def other(self, right: Offer, request: SnapshotRequest) -> Any:
        return Offer(right.level and int(right.level), right.reason)  # type: ignore[arg-type]  # the fault


@breaks("probe() says why not")
class NoReason(Probing):
    def other(self, right: Offer, request: SnapshotRequest) -> Any:
        return Offer(right.level)


@breaks("probe() says the same again")
class Moody(Probing):
    turn = 0

    def other(self, right: Offer, request: SnapshotRequest) -> Any:
        self.turn += 1
        return Offer(right.level, f"answer {self.turn}")


@breaks("probe() offers to snapshot it")
class Unwilling(Probing):
    def other(self, right: Offer, request: SnapshotRequest) -> Any:
        return Offer(None, "not today")


@breaks("probe() says no to what it cannot snapshot, and never raises")
class OffersAnything(Probing):
    def other(self, right: Offer, request: SnapshotRequest) -> Any:
        return Offer(Consistency.CRASH)


@breaks("probe() says no to what it cannot snapshot, and never raises")
class RaisesOnProbe(Probing):
    def other(self, right: Offer, request: SnapshotRequest) -> Any:
        if right.level is None:
            raise SnapshotError(right.reason)
        return right


@breaks("a released snapshot leaves nothing; probe of")
class KeepsDescriptors(Probing):
    def other(self, right: Offer, request: SnapshotRequest) -> Any:
        self.machine_files.append(tempfile.TemporaryFile())  # noqa: SIM115  # that is the fault
        return right

    machine_files: ClassVar[list[Any]] = []


# The order of steps.


@breaks("prepare() or take() raises what the library raises for a volume that is gone")
class NotYetWritten(MemoryProvider):
    def prepare(self, request: SnapshotRequest, deadline: Deadline, /) -> None:
        raise NotImplementedError("soon")


@breaks("prepare() or take() raises what the library raises for a volume that is gone")
class KeyErrorForWhatIsGone(MemoryProvider):
    def prepare(self, request: SnapshotRequest, deadline: Deadline, /) -> None:
        if super().probe(request).level is None:
            raise KeyError(request.volumes[0])
        super().prepare(request, deadline)


@breaks("alive() raises SnapshotLostError when there is no snapshot; a provider that nothing")
class AliveBeforeTake(MemoryProvider):
    def alive(self) -> None:
        if self._frozen is not None:
            super().alive()


@breaks("alive() raises SnapshotLostError when there is no snapshot; a snapshot of")
class AliveAfterRelease(MemoryProvider):
    released = False

    def release(self, deadline: Deadline, /) -> None:
        self.released = self._frozen is not None or self.released
        super().release(deadline)

    def alive(self) -> None:
        if not self.released:
            super().alive()


@breaks("open() raises what the library raises when there is no snapshot")
class OpensNothing(MemoryProvider):
    def open(self, volume: SnapshotVolume, /) -> BlockReader:
        assert self._frozen is not None
        return super().open(volume)


@breaks("take() before prepare() raises what the library raises")
class TakesUnprepared(MemoryProvider):
    def take(self, deadline: Deadline, /) -> Taken:
        assert self._request is not None
        return super().take(deadline)


@breaks("release() undoes whatever was begun, and once more does nothing")
class ReleasesOnce(MemoryProvider):
    def release(self, deadline: Deadline, /) -> None:
        if self._request is None:
            raise UsageError("released twice")
        super().release(deadline)


@breaks("prepare() or take() ends with its deadline")
class IgnoresDeadlines(MemoryProvider):
    def prepare(self, request: SnapshotRequest, deadline: Deadline, /) -> None:
        super().prepare(request, Deadline(60))

    def take(self, deadline: Deadline, /) -> Taken:
        return super().take(Deadline(60))


@breaks("prepare() or take() ends with its deadline; take() with a deadline that is cancelled")
class IgnoresCancelInTake(MemoryProvider):
    def take(self, deadline: Deadline, /) -> Taken:
        return super().take(deadline if not deadline.cancelled else Deadline(60))


# What is taken.


class Taking(MemoryProvider):
    def take(self, deadline: Deadline, /) -> Any:
        return self.other(super().take(deadline))

    def other(self, right: Taken) -> Any:
        raise NotImplementedError


@breaks("take() gives a Taken")
class GivesDict(Taking):
    def other(self, right: Taken) -> Any:
        return {"snapshot_id": "1"}


@breaks("a snapshot has an id of its own")
class OneIdForAll(Taking):
    def other(self, right: Taken) -> Any:
        return dataclasses.replace(right, snapshot_id="snapshot")


@breaks("created has a time zone")
class NaiveTime(Taking):
    def other(self, right: Taken) -> Any:
        return dataclasses.replace(right, created=datetime.now())  # that is the fault


@breaks("created is the instant")
class Yesterday(Taking):
    def other(self, right: Taken) -> Any:
        return dataclasses.replace(right, created=datetime(2020, 1, 1, tzinfo=UTC))


@breaks("take() reaches what probe() offered")
class Boaster(Probing):
    def other(self, right: Offer, request: SnapshotRequest) -> Any:
        return Offer(right.level and Consistency.FILESYSTEM, right.reason)


@breaks("writers are WriterReport objects")
class WritersByName(Taking):
    def other(self, right: Taken) -> Any:
        return dataclasses.replace(right, writers=("SqlServerWriter",))  # type: ignore[arg-type]  # the fault


@breaks("documents are bytes by name")
class DocumentsAsText(Taking):
    def other(self, right: Taken) -> Any:
        return dataclasses.replace(right, documents={"bcd.xml": "<xml/>"})  # type: ignore[dict-item]  # the fault


@breaks("notes are sentences")
class OneNote(Taking):
    def other(self, right: Taken) -> Any:
        return dataclasses.replace(right, notes="a note")  # type: ignore[arg-type]  # the fault


@breaks("there is one volume for each that was asked for, in that order and spelling")
class EachDeviceOnce(Taking):
    def other(self, right: Taken) -> Any:
        return dataclasses.replace(right, volumes=right.volumes[:1])


@breaks("two spellings of one volume have one device")
class DeviceBySpelling(Taking):
    def other(self, right: Taken) -> Any:
        volumes = [
            dataclasses.replace(volume, device=f"{volume.device}/{number}")
            for number, volume in enumerate(right.volumes)
        ]
        return dataclasses.replace(right, volumes=tuple(volumes))


class Describing(Taking):
    wrong: ClassVar[dict[str, Any]] = {}

    def other(self, right: Taken) -> Any:
        return dataclasses.replace(
            right, volumes=tuple(dataclasses.replace(volume, **self.wrong) for volume in right.volumes)
        )


@breaks("a volume names the device that was snapshotted")
class Nameless(Describing):
    wrong: ClassVar[dict[str, Any]] = {"device": ""}


@breaks("sector_size is a power of two")
class OddSectors(Describing):
    wrong: ClassVar[dict[str, Any]] = {"sector_size": 520}


@breaks("size is that of the volume at the instant")
class OtherSize(Describing):
    wrong: ClassVar[dict[str, Any]] = {"size": SIZE - 1}


# Reading.


@breaks("open() gives a BlockReader")
class OpensFiles(MemoryProvider):
    def open(self, volume: SnapshotVolume, /) -> Any:
        super().open(volume).close()
        return contextlib.nullcontext(self)


@breaks("a reader has the size and the sector size of its volume")
class ReaderOfOtherSectors(MemoryProvider):
    def open(self, volume: SnapshotVolume, /) -> BlockReader:
        with super().open(volume) as reader:
            return MemoryReader(reader.readall(), sector_size=1024)


@breaks("what was written before take() is in the snapshot")
class FreezesTooEarly(MemoryProvider):
    """Copies in `prepare`, so that what is written until the instant is missing."""

    def prepare(self, request: SnapshotRequest, deadline: Deadline, /) -> None:
        super().prepare(request, deadline)
        self.taken = super().take(deadline)

    def take(self, deadline: Deadline, /) -> Taken:
        if self._request is None:
            raise UsageError("take() came before prepare()")
        deadline.check("take")
        return dataclasses.replace(self.taken, created=datetime.now(UTC))

    def alive(self) -> None:
        if self._frozen is None or not hasattr(self, "taken"):
            raise SnapshotLostError("not taken")
        super().alive()


# It is alive after prepare(), which is another fault of the one above.
BROKEN[-1] = ("alive() raises SnapshotLostError when there is no snapshot; after prepare()", BROKEN[-1][1])


@breaks("what was written before take() is in the snapshot")
class LosesTheLastWrite(MemoryProvider):
    """As one that does not flush: it has each volume as it was one write ago."""

    def take(self, deadline: Deadline, /) -> Taken:
        taken = super().take(deadline)
        assert self._frozen is not None
        for name in self._frozen.contents:
            self._frozen.contents[name] = self.before[name]
        return taken

    def prepare(self, request: SnapshotRequest, deadline: Deadline, /) -> None:
        super().prepare(request, deadline)
        found = [MemoryVolume.find(volume) for volume in request.volumes]
        self.before = {volume.name: volume.pread(volume.size, 0) for volume in found if volume is not None}


@breaks("open() and alive() work in several threads at once")
class OneReaderAtATime(MemoryProvider):
    opened = 0

    def __init__(self) -> None:
        super().__init__()
        self.another = threading.Event()

    def open(self, volume: SnapshotVolume, /) -> BlockReader:
        reader = super().open(volume)
        if self.opened:
            self.another.set()
            raise SnapshotError("only one reader at a time")
        self.opened += 1
        if threading.current_thread() is not threading.main_thread():
            self.another.wait(60)  # several threads open at once, and this is the first
        release = reader._release

        def closing() -> None:
            self.opened -= 1
            release()

        reader._release = closing  # type: ignore[method-assign]  # to count
        return reader


@breaks("a reader gives the instant while the volume is written")
class ReadsTheVolume(MemoryProvider):
    """There is no snapshot at all."""

    def open(self, volume: SnapshotVolume, /) -> BlockReader:
        live = MemoryVolume.find(volume.device)
        if live is None:
            return super().open(volume)
        super().open(volume).close()
        read = live.pread

        class Live(BlockReader):
            def _read(self, length: int, offset: int) -> bytes:
                return read(length, offset)

        return Live(volume.size, sector_size=volume.sector_size)


@breaks("open() of a volume that is not in the snapshot raises what the library raises")
class OpensTheFirst(MemoryProvider):
    def open(self, volume: SnapshotVolume, /) -> BlockReader:
        frozen = self._live()
        return super().open(volume if volume.device in frozen.contents else frozen.taken.volumes[0])


class Slowly(MemoryProvider):
    """Copies a volume in two halves, the second first, or volumes one after the other."""

    halves = False

    def take(self, deadline: Deadline, /) -> Taken:
        taken = super().take(deadline)
        assert self._frozen is not None
        for name in sorted(self._frozen.contents, reverse=True):
            volume = MemoryVolume.find(name)
            assert volume is not None
            whole = volume.pread(SIZE, 0)
            if self.halves:
                time.sleep(0.02)
                whole = volume.pread(2048, 0) + whole[2048:]
            self._frozen.contents[name] = whole
            time.sleep(0.02)
        return taken


@breaks("all that a snapshot holds is of one instant")
class TwoHalves(Slowly):
    halves = True


@breaks("all that a snapshot holds is of one instant")
class OneAfterTheOther(Slowly):
    """Right for one volume, not for two."""


# Persistent snapshots.


@breaks("attach() of an id that there is not raises ProviderUnavailableError")
class AttachesNothing(MemoryProvider):
    def attach(self, snapshot_id: str, /, *, own: bool) -> Taken:
        return self.machine[snapshot_id].taken


@breaks("list() names a persistent snapshot once")
class ListsNothing(MemoryProvider):
    def list(self) -> Sequence[SnapshotRecord]:
        return ()


@breaks("list() gives SnapshotRecord objects")
class ListsIds(MemoryProvider):
    def list(self) -> Any:
        return list(self.machine)


@breaks("a snapshot of ours is listed as owned by its provider")
class ListsAsForeign(MemoryProvider):
    def list(self) -> Sequence[SnapshotRecord]:
        return [dataclasses.replace(record, owned=False) for record in super().list()]


@breaks("attach() finds a persistent snapshot")
class ForgetsOnRelease(MemoryProvider):
    def attach(self, snapshot_id: str, /, *, own: bool) -> Taken:
        return Provider.attach(self, snapshot_id, own=own)


@breaks("attach() gives the snapshot that was taken")
class AttachesAnother(MemoryProvider):
    def attach(self, snapshot_id: str, /, *, own: bool) -> Taken:
        return dataclasses.replace(super().attach(snapshot_id, own=own), snapshot_id="another")


@breaks("attach() finds a persistent snapshot")
class RemovesWhatItDoesNotOwn(MemoryProvider):
    def attach(self, snapshot_id: str, /, *, own: bool) -> Taken:
        return super().attach(snapshot_id, own=True)


@breaks("a persistent snapshot holds what it held")
class PersistentlyLive(MemoryProvider):
    def attach(self, snapshot_id: str, /, *, own: bool) -> Taken:
        taken = super().attach(snapshot_id, own=own)
        frozen = self._live()
        frozen.contents.update({name: bytes(SIZE) for name in frozen.contents})
        return taken


@breaks("a removed snapshot is not listed")
class KeepsWhatItOwns(MemoryProvider):
    def attach(self, snapshot_id: str, /, *, own: bool) -> Taken:
        return super().attach(snapshot_id, own=False)


@breaks("purge() removes what list() gave")
class CannotPurge(MemoryProvider):
    def purge(self, record: SnapshotRecord, deadline: Deadline, /) -> None:
        Provider.purge(self, record, deadline)


# What is left.


@breaks("a released snapshot leaves nothing; ")
class LeavesThreads(MemoryProvider):
    go: ClassVar[threading.Event] = threading.Event()

    def take(self, deadline: Deadline, /) -> Taken:
        taken = super().take(deadline)
        threading.Thread(target=self.go.wait, args=(60,), daemon=True).start()
        return taken


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    MemoryProvider.machine.clear()
    LeavesThreads.go.clear()
    yield
    MemoryProvider.machine.clear()
    LeavesThreads.go.set()
    while KeepsDescriptors.machine_files:
        KeepsDescriptors.machine_files.pop().close()


@pytest.mark.parametrize(("clause", "provider"), BROKEN, ids=[provider.__name__ for _, provider in BROKEN])
def test_broken_provider_is_found(clause: str, provider: type[MemoryProvider]) -> None:
    kept = volumes()[: 2 if provider is OneAfterTheOther else 1]
    with pytest.raises(AssertionError) as caught:
        check_provider(provider, [checked(volume) for volume in kept], threads=2)
    assert str(caught.value).startswith(f"{provider.__name__}: {clause}"), caught.value


def found(provider: type[Provider], **more: Any) -> str:
    kept = volumes()[:1]
    with pytest.raises(AssertionError) as caught:
        check_provider(provider, [checked(kept[0])], threads=2, **more)
    return str(caught.value)


def test_what_is_no_provider_is_said_so() -> None:
    class Other:
        api, name, options_type = 1, "other", None

    assert "Other: a provider is a Provider" in found(Other)  # type: ignore[arg-type]  # that is the test


def test_what_is_left_elsewhere_is_found() -> None:
    files: list[str] = []

    class LeavesFiles(MemoryProvider):
        def take(self, deadline: Deadline, /) -> Taken:
            files.append("shadow file")
            return super().take(deadline)

    assert "what left= shows" in found(LeavesFiles, left=lambda: list(files))


def test_snapshot_that_shows_later_writes_is_found_without_knowing_the_content() -> None:
    volume = volumes()[0]
    one = CheckedVolume(volume=volume, write=volume.pwrite)
    clause = "ReadsTheVolume: what is written after take\\(\\) is not in the snapshot"
    with pytest.raises(AssertionError, match=clause):
        check_provider(ReadsTheVolume, [one])


def test_instants_are_compared_without_knowing_the_content() -> None:
    kept = volumes()
    check_provider(MemoryProvider, [CheckedVolume(volume=v, write=v.pwrite) for v in kept])
    with pytest.raises(AssertionError, match="OneAfterTheOther: all that a snapshot holds is of one instant"):
        check_provider(OneAfterTheOther, [CheckedVolume(volume=v, write=v.pwrite) for v in kept])


# Snapshots that end.


def test_loss_that_is_not_noticed_is_found() -> None:
    volume = volumes()[0]

    class Unaware(MemoryProvider):
        def _live(self) -> Any:
            if self._frozen is None:
                raise SnapshotLostError("nothing")
            return self._frozen

    with pytest.raises(AssertionError, match="Unaware: alive\\(\\) says that the snapshot is gone"):
        check_provider(Unaware, [checked(volume)], lose=volume.lose_snapshots)


def test_loss_that_is_told_once_is_found() -> None:
    volume = volumes()[0]

    class Recovers(MemoryProvider):
        def alive(self) -> None:
            lost, frozen = None, self._frozen
            if frozen is not None:
                lost, frozen.lost = frozen.lost, None
            if lost or frozen is None:
                raise SnapshotLostError("only now")

    with pytest.raises(AssertionError, match=r"and so for every later call; .* raised nothing"):
        check_provider(Recovers, [checked(volume)], lose=volume.lose_snapshots)


def test_lost_snapshot_that_is_opened_is_found() -> None:
    volume = volumes()[0]

    class OpensWhatIsLost(MemoryProvider):
        def open(self, volume: SnapshotVolume, /) -> BlockReader:
            if self._frozen is not None and volume.device in self._frozen.contents:
                return MemoryReader(self._frozen.contents[volume.device], sector_size=volume.sector_size)
            return super().open(volume)

    with pytest.raises(AssertionError, match="open\\(\\) of a snapshot that is gone says so"):
        check_provider(OpensWhatIsLost, [checked(volume)], lose=volume.lose_snapshots)


def test_reader_that_fails_in_its_own_way_when_lost_is_found() -> None:
    volume = volumes()[0]

    class Failing(MemoryProvider):
        def open(self, volume: SnapshotVolume, /) -> BlockReader:
            reader, frozen = super().open(volume), self._live()
            read = reader._read

            def failing(length: int, offset: int) -> bytes:
                if frozen.lost:
                    raise OSError(5, "input/output error")
                return read(length, offset)

            reader._read = failing  # type: ignore[method-assign]  # the fault
            return reader

    clause = "a reader of a lost snapshot gives bytes or raises what the library raises"
    with pytest.raises(AssertionError, match=clause):
        check_provider(Failing, [checked(volume)], lose=volume.lose_snapshots)


class Watching(MemoryProvider):
    """Takes no copy: a write to the volume ends its snapshot, which `alive` notices."""

    watches = True

    changed: SourceChangedError | None = None

    def alive(self) -> None:
        super().alive()
        assert self._frozen is not None
        for name, before in self._frozen.contents.items():
            volume = MemoryVolume.find(name)
            if self.watches and volume is not None and volume.pread(SIZE, 0) != before:
                self.changed = SourceChangedError(f"{name} was written")
        if self.changed is not None:
            raise self.changed

    def open(self, volume: SnapshotVolume, /) -> BlockReader:
        self.alive()
        return super().open(volume)


def test_provider_that_watches_is_left_alone() -> None:
    check_provider(Watching, [checked(volume) for volume in volumes()], still=True)


def test_provider_that_does_not_watch_is_found() -> None:
    class Blind(Watching):
        watches = False

    assert "Blind: alive() says that the snapshot is gone" in found(Blind, still=True)


# Busy volumes.


@contextlib.contextmanager
def nothing() -> Iterator[None]:
    yield


def test_volume_that_is_not_busy_is_found() -> None:
    assert "a volume that stays busy is given up at the deadline" in found(MemoryProvider, busy=nothing)


@pytest.mark.parametrize("blind", ["deadline", "cancel"])
def test_provider_that_waits_too_long_is_found(blind: str) -> None:
    volume = volumes()[0]
    taken = threading.Event()

    @contextlib.contextmanager
    def busy() -> Iterator[None]:
        taken.set()
        yield
        taken.clear()

    class Waiting(MemoryProvider):
        def take(self, deadline: Deadline, /) -> Taken:
            while taken.is_set():
                if blind == "deadline" and deadline.cancelled:
                    deadline.check("wait")
                if blind == "cancel" and not deadline.left():
                    raise SnapshotTimeoutError("waited too long")
                time.sleep(0.001)
            return super().take(deadline)

    late = r"a call has not ended after 2 s|given up at the deadline or when cancelled; .*waited too long"
    with pytest.raises(AssertionError, match=late):
        check_provider(Waiting, [checked(volume)], busy=busy, timeout=2)
    taken.clear()


# Arguments.


def test_volume_that_is_too_small_is_refused() -> None:
    volume = MemoryVolume(1000)
    with pytest.raises(UsageError, match="has 1000 bytes, and the check writes in the first 65536"):
        check_provider(MemoryProvider, [checked(volume)])


def test_small_volume_that_is_not_written_is_checked() -> None:
    volume = MemoryVolume(b"x" * 1000)
    check_provider(MemoryProvider, [CheckedVolume(volume=volume, read=lambda: volume.pread(1000, 0))])
