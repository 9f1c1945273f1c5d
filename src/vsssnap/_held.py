"""What keeps a snapshot alive, and the readers that do.

A `Held` refers to a provider whose snapshot exists; `Snapshot` and every reader refer to the
`Held`.  When the last of them is collected, or the interpreter exits, a finalizer releases
the snapshot, in the process that took it and in no other.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import weakref
from functools import partial
from typing import TYPE_CHECKING

from vsssnap._deadline import Deadline
from vsssnap._uses import UseGate
from vsssnap.blocks.extent import checked
from vsssnap.blocks.reader import BlockReader
from vsssnap.consistency import Consistency
from vsssnap.errors import ClosedError, DeviceReadError, SnapshotError, SnapshotLostError
from vsssnap.metadata import ImageMetadata
from vsssnap.volumes.base import checked_exclusions, checked_policy
from vsssnap.volumes.policy import UnusedPolicy
from vsssnap.volumes.view import FileSystemView
from vsssnap.volumes.viewing import make_view

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from vsssnap.blocks.extent import Extent
    from vsssnap.metadata import WriterReport
    from vsssnap.providers.base import AllocationMap, Provider, SnapshotVolume, Taken
    from vsssnap.volumes.base import FileSystem
    from vsssnap.volumes.policy import Exclusion
_log = logging.getLogger("vsssnap.snapshot")

_RELEASE_BUDGET = 60.0  # seconds for giving back what a snapshot holds


def _release(provider: Provider, pid: int, step: str) -> None:
    """Give back what a provider holds, if this is the process that may."""
    if os.getpid() == pid:
        _log.debug("%s: release", step)
        provider.release(Deadline(_RELEASE_BUDGET))


class Held:
    """A provider whose snapshot somebody still uses."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.pid = os.getpid()
        self.lost: SnapshotLostError | None = None
        self.readers: weakref.WeakSet[SnapshotReader] = weakref.WeakSet()
        self.opening = UseGate("the snapshot")  # held while a reader is opened
        self._finalizer = weakref.finalize(self, _release, provider, self.pid, "forgotten snapshot")

    def alive(self) -> None:
        """Raise SnapshotLostError if the snapshot is gone; once gone it stays gone."""
        if self.lost is None:
            try:
                self.provider.alive()
            except SnapshotLostError as exc:
                self.lost = exc
        if self.lost is not None:
            raise self.lost.with_traceback(None)

    def release(self, *, complete: bool = False) -> Sequence[WriterReport]:
        """Close the readers, let running calls finish, give the snapshot back.  Idempotent.

        Args:
            complete: Whether to tell the provider before that the copies are made and good.

        Returns:
            What it said to that.
        """
        self.opening.close(lambda: None)
        mine = os.getpid() == self.pid and self._finalizer.detach() is not None
        late: SnapshotError | None = None
        reports: Sequence[WriterReport] = ()
        # Whatever ends the waiting, Ctrl-C too: nothing but this releases any more.
        try:
            budget = Deadline(_RELEASE_BUDGET)
            late = self._settle(budget, wait=mine)
            if mine and complete and late is None:
                reports = self._complete(Deadline(self.provider.completing))
        finally:
            if mine:
                self._give_back(late)
        if late is not None:
            raise late
        return reports

    def _settle(self, budget: Deadline, *, wait: bool) -> SnapshotError | None:
        """Close the readers, and wait until nothing runs in them; what is late is returned."""
        late: SnapshotError | None = None
        if wait:  # a reader that is being opened is one to close
            late = _late(lambda: self.opening.wait_released(budget, "close snapshot: wait for open()"))
        readers = list(self.readers)
        for reader in readers:
            reader.close()
        if wait:
            for reader in readers:
                late = _late(partial(reader.wait_released, budget)) or late
        return late

    def _complete(self, budget: Deadline) -> Sequence[WriterReport]:
        try:
            return self.provider.complete(budget)
        except SnapshotError as exc:
            _log.warning("the copies are made, but the end could not be told: %s", exc)
            return ()

    def _give_back(self, late: SnapshotError | None) -> None:
        try:
            _release(self.provider, self.pid, "close")
        except BaseException as exc:
            if late is not None:
                exc.add_note(f"before that: {late}")
            raise


def _late(wait: Callable[[], None]) -> SnapshotError | None:
    try:
        wait()
    except SnapshotError as exc:
        return exc
    return None


class SnapshotReader(BlockReader):
    """A volume of a snapshot; keeps the snapshot alive."""

    def __init__(
        self, held: Held, inner: BlockReader, metadata: ImageMetadata, origins: tuple[str, ...]
    ) -> None:
        super().__init__(inner.size, sector_size=inner.sector_size, metadata=metadata)
        self._held = held
        self._inner = inner
        self._origins = origins
        held.readers.add(self)

    @property
    def origins(self) -> tuple[str, ...]:
        """The volume that was snapshotted, and what holds its blocks."""
        return (*self._origins, *self._inner.origins)

    def _read(self, length: int, offset: int) -> bytes:
        if self._held.lost is not None:
            self._held.alive()
        try:
            return self._inner.pread(length, offset)
        except (DeviceReadError, SnapshotLostError):
            self._held.alive()  # a lost snapshot shows itself as a failing device, and stays lost
            raise

    def _read_into(self, view: memoryview, offset: int) -> None:
        if self._held.lost is not None:
            self._held.alive()
        try:
            self._inner.preadinto(view, offset)
        except (DeviceReadError, SnapshotLostError):
            self._held.alive()
            raise

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        try:
            yield from self._inner.extents(offset, length)
        except (DeviceReadError, SnapshotLostError):
            self._held.alive()
            raise

    def _confirm(self) -> None:
        self._inner.confirm()
        self._held.alive()

    def _release(self) -> None:
        self._inner.close()

    def wait_released(self, deadline: Deadline) -> None:
        """Wait for the calls that run in a reader that was closed."""
        self._gate.wait_released(deadline, "close snapshot: wait for running reads")


def open_volume(
    held: Held,
    taken: Taken,
    volume: SnapshotVolume,
    consistency: Consistency | None,
    *,
    unused: UnusedPolicy,
    exclude: Collection[Exclusion],
) -> SnapshotReader:
    """A reader of one volume of a snapshot, without what an image need not hold.

    Raises:
        UsageError: ``unused`` or ``exclude`` is none of its kind.
        ClosedError: the snapshot is being released.
        SnapshotLostError: the snapshot is gone.
    """
    unused, exclude = checked_policy(unused), checked_exclusions(exclude)
    with held.opening:
        try:
            reader = _open(held, taken, volume, consistency, unused, exclude)
        except SnapshotLostError as exc:
            if held.opening.closed:
                raise ClosedError("the snapshot was closed meanwhile", hint="take a new one") from exc
            raise
    if held.opening.closed:  # and whoever closed it may not have waited for this reader
        reader.close()
    return reader


def _open(
    held: Held,
    taken: Taken,
    volume: SnapshotVolume,
    consistency: Consistency | None,
    unused: UnusedPolicy,
    exclude: Collection[Exclusion],
) -> SnapshotReader:
    held.alive()
    metadata = ImageMetadata(
        volume=volume.name,
        device=volume.device,
        filesystem=volume.filesystem,
        provider=held.provider.name,
        snapshot_id=taken.snapshot_id,
        created=taken.created,
        consistency=consistency,
        writers=taken.writers,
        notes=taken.notes,
        documents=taken.documents,
    )
    inner = held.provider.open(volume)
    frozen = taken.level >= Consistency.FILESYSTEM or volume.still
    try:
        given = held.provider.allocation(volume)
        if given is None and unused is UnusedPolicy.READ and not exclude:
            return SnapshotReader(held, inner, metadata, (volume.device,))
        left_out, notes = _left_out(held, inner, volume, exclude)
        metadata = dataclasses.replace(metadata, notes=(*metadata.notes, *notes))
        view = _view(held, inner, given, left_out, metadata, unused, exclude, frozen=frozen)
    except BaseException:
        inner.close()
        raise
    return SnapshotReader(held, view, view.metadata, (volume.device,))


def _left_out(
    held: Held, inner: BlockReader, volume: SnapshotVolume, exclude: Collection[Exclusion]
) -> tuple[list[tuple[Exclusion, str, Sequence[Extent]]], list[str]]:
    """What the provider leaves out, of what is asked for, and what it says of that.

    Raises:
        SnapshotError: it names what lies behind the volume.
    """
    asked = {str(kind): kind for kind in exclude}
    found: list[tuple[Exclusion, str, Sequence[Extent]]] = []
    notes: list[str] = []
    for each in held.provider.excluded(volume, frozenset(asked)):
        behind = [extent for extent in each.extents if extent.end > inner.size]
        if behind:
            raise SnapshotError(
                f"provider {held.provider.name} leaves out {each.path}, which ends at {behind[0].end}: "
                f"{volume.name} has {inner.size} bytes"
            )
        if each.kind in asked:
            found.append((asked[each.kind], each.path, each.extents))
            notes += each.notes
    return found, notes


def _view(
    held: Held,
    inner: BlockReader,
    given: AllocationMap | None,
    left_out: Sequence[tuple[Exclusion, str, Sequence[Extent]]],
    metadata: ImageMetadata,
    unused: UnusedPolicy,
    exclude: Collection[Exclusion],
    *,
    frozen: bool,
) -> BlockReader:
    def system_map(offset: int, length: int) -> Iterable[Extent]:
        assert given is not None  # noqa: S101 - it is passed on only then
        return checked(given(offset, length), offset, length, f"provider {held.provider.name}")

    def judge(fs: FileSystem) -> None:
        if not (fs.marks_use or frozen):
            fs.doubt = fs.doubt or "it may have been in use: its driver leaves no mark, and it was not frozen"

    known = system_map if given is not None else None
    try:
        return make_view(
            inner,
            unused=unused,
            exclude=exclude,
            system_map=known,
            left_out=left_out,
            metadata=metadata,
            judge=judge,
            owned=True,
        )
    except DeviceReadError:
        held.alive()
        # The copy will meet the failing range again, and its caller decides what becomes of it.
        return FileSystemView(
            inner, None, unused=unused, exclude=exclude, system_map=known, metadata=metadata, owned=True
        )
