"""The contract of a snapshot provider.

One object takes one snapshot (of one or several volumes at one instant)::

    offer = provider.probe(request)        cheap, touches nothing, says why not
    provider.prepare(request, deadline)    everything slow and reversible
    provider.instant(deadline)             the instant alone, if it can be had alone
    taken = provider.take(deadline)        the instant, if it is not over, and what became of it
    reader = provider.open(volume)         any number of times, any thread
    provider.alive()                       raises SnapshotLostError if it no longer exists
    provider.complete(deadline)            the body ended well: the copies are made and good
    provider.release(deadline)             whatever was begun, also after a failed step

Only ``instant`` lies inside the quiesce managers, and ``take`` if that has returned False.

A provider keeps in its snapshot everything that was written to the volumes' files by
calls that had returned before the instant was asked for: it flushes what must be flushed.
``release`` is called by the process that called `prepare`, even if `prepare` or `take` raised;
it is given a budget of its own, and doing it once more does nothing.  Where there is no
snapshot, before `take` and after `release`, `alive` raises SnapshotLostError.  A deadline that
is over, or cancelled, ends `prepare` and `take`.  `vsssnap.testing.check_provider` holds a
provider to all this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from vsssnap.errors import ProviderUnavailableError

if TYPE_CHECKING:
    from datetime import datetime

    from vsssnap._deadline import Deadline
    from vsssnap.blocks.extent import Extent
    from vsssnap.blocks.reader import BlockReader
    from vsssnap.consistency import Consistency
    from vsssnap.metadata import WriterReport

__all__ = [
    "AllocationMap",
    "LeftOut",
    "Offer",
    "PROVIDER_API",
    "Provider",
    "ProviderStep",
    "SnapshotRecord",
    "SnapshotRequest",
    "SnapshotVolume",
    "Taken",
]

AllocationMap: TypeAlias = Callable[[int, int], Iterable["Extent"]]
"""What a system knows of a volume: a range (offset, length) to its extents, DATA and HOLE."""

PROVIDER_API = 1
"""The version of this contract; a guest provider carries the same number in ``api``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRequest:
    """What is asked of a provider.

    Attributes:
        volumes: In the caller's order: paths as text, or objects such as a `CowVolume`.
            Two spellings may mean one volume.
        require: The least consistency.  What quiesce managers add is not the provider's affair.
        quiesced: Whether quiesce managers raise the result to APPLICATION.
        persistent: Whether the snapshot outlives this process until it is purged.
        options: The provider's own options, or None.
    """

    volumes: tuple[object, ...]
    require: Consistency
    quiesced: bool = False
    persistent: bool = False
    options: object = None


@dataclass(frozen=True, slots=True)
class ProviderStep:
    """Something that a provider did within `Provider.prepare`, ``take`` or ``complete``.

    Attributes:
        name: What, in lower case.
        seconds: How long it took.
        code: 0 if it went well, else the number of the error, or None if it has none.
        detail: What went wrong, for people.
    """

    name: str
    seconds: float
    code: int | None = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """A provider's answer to a request.

    Attributes:
        level: The consistency it can give these volumes by itself, or None if it cannot.
        reason: Why not, or why not more; a sentence for people.
        denied: Whether it is for lack of a right of this process that it cannot.
        unrelated: Whether it is for volumes of another kind, so that its reason helps nobody here.
    """

    level: Consistency | None
    reason: str = ""
    denied: bool = False
    unrelated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotVolume:
    """One volume of a snapshot.

    Attributes:
        name: The caller's spelling.
        device: The device or file that was snapshotted; equal for two spellings of one volume.
        size: Bytes.
        sector_size: Logical sector size, bytes.
        filesystem: Its type (``"ext4"``), or "" if none is known.
        mount_point: Where it was mounted, or "".
        still: Whether nobody had it open for writing, so that it is as its last user left it.
    """

    name: str
    device: str
    size: int
    sector_size: int = 512
    filesystem: str = ""
    mount_point: str = ""
    still: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A snapshot that exists.

    Attributes:
        snapshot_id: Its id, unique on this machine; what `Snapshot.attach` takes.
        created: The instant, with time zone.
        level: The consistency that was reached without quiesce managers.
        volumes: One for each of the request's, in its order.
        writers: Reports of the applications that took part.
        documents: Attachments for the images' metadata.
        notes: What a reader of the images should know, a sentence each.
    """

    snapshot_id: str
    created: datetime
    level: Consistency
    volumes: tuple[SnapshotVolume, ...]
    writers: tuple[WriterReport, ...] = ()
    documents: Mapping[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """What an image need not hold, as the system names it.

    Attributes:
        kind: Why, a value of `vsssnap.Exclusion`.
        path: What the metadata say: a path on the volume, or the pattern that found it.
        extents: Where it lies, ascending.
        notes: What a reader of the image should know of it, a sentence each.
    """

    kind: str
    path: str
    extents: tuple[Extent, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRecord:
    """A snapshot that exists on this machine, whoever made it.

    Attributes:
        provider: Name of its provider.
        snapshot_id: What `Snapshot.attach` takes.
        volumes: What it is a snapshot of.
        created: When, if known.
        owned: Whether this library made it, so that `purge` may remove it.
        owner_alive: Whether the process that made it still runs.
        kept: Whether it was left on purpose: `vsssnap.purge` passes it by.
    """

    provider: str
    snapshot_id: str
    volumes: tuple[str, ...] = ()
    created: datetime | None = None
    owned: bool = False
    owner_alive: bool = False
    kept: bool = False


class Provider(ABC):
    """A driver that takes snapshots; made without arguments, one object per snapshot.

    Attributes:
        api: Version of this contract that the class was written for.
        name: Registry name, lower case.
        options_type: Frozen dataclass of its options, or None if it has none; passing such
            options to `Snapshot` chooses the provider.
        platforms: The values of ``sys.platform`` where it can ever be used; () for all.  Elsewhere
            messages do not speak of it.
        completing: Seconds that `complete` may take.
    """

    api: ClassVar[int] = PROVIDER_API
    name: ClassVar[str]
    options_type: ClassVar[type | None] = None
    platforms: tuple[str, ...] = ()
    completing: float = 60.0

    def unusable(self) -> str:
        """Why this machine or process cannot use the provider at all, or ""; cheap."""
        return ""

    @abstractmethod
    def probe(self, request: SnapshotRequest, /) -> Offer:
        """Whether these volumes can be snapshotted, and how consistently.  Touches nothing."""

    @abstractmethod
    def prepare(self, request: SnapshotRequest, deadline: Deadline, /) -> None:
        """Do all that is slow and can be undone by `release`.

        Raises:
            SnapshotError: the subclass that says what the caller can do.
        """

    def instant(self, deadline: Deadline, /) -> bool:
        """Take the snapshot and no more, if much is to be done after that: applications wait for this alone.

        Returns:
            Whether it did, so that `take` is called when applications go on; else it is called at once.
        """
        return False

    @abstractmethod
    def take(self, deadline: Deadline, /) -> Taken:
        """The instant, if `instant` has not been called or returned False; and what became of it."""

    @abstractmethod
    def open(self, volume: SnapshotVolume, /) -> BlockReader:
        """A reader of one volume as it was; closing it leaves the snapshot."""

    def allocation(self, volume: SnapshotVolume, /) -> AllocationMap | None:
        """The system's own map of what is used on a volume as it was; None if there is none.

        It is asked for ranges (offset, length) and gives extents over each, gap-free: DATA is used,
        HOLE is free.  Readers leave out what both this map and the one that the library reads from
        the volume call free; where only this one is known, it decides.
        """
        return None

    def excluded(self, volume: SnapshotVolume, kinds: frozenset[str], /) -> Sequence[LeftOut]:
        """What the system itself knows to leave out of a volume as it was; nothing if it does not.

        Readers leave it out beside what the library finds in the file system.

        Args:
            volume: One of the snapshot.
            kinds: Which, values of `vsssnap.Exclusion`.
        """
        return ()

    @abstractmethod
    def alive(self) -> None:
        """Return if the snapshot still exists and holds.

        Raises:
            SnapshotLostError: it does not; so for every later call.
        """

    def complete(self, deadline: Deadline, /) -> Sequence[WriterReport]:
        """Tell whoever wants to know that the copies are made and good; called before `release`.

        Not called if the body of the ``with`` block raised, or the snapshot was forgotten.  What fails
        here is logged and takes nothing back.

        Returns:
            New reports of the applications that took part, or nothing.
        """
        return ()

    def steps(self) -> Sequence[ProviderStep]:
        """What was done since this was last called, in its order, for whoever watches.

        Called when `prepare`, `take` (outside the instant) or `release` has ended, well or not.
        """
        return ()

    @abstractmethod
    def release(self, deadline: Deadline, /) -> None:
        """Undo what `prepare` and `take` did; readers are closed by then.

        A persistent snapshot stays; only what this process holds of it goes.
        """

    def attach(self, snapshot_id: str, /, *, own: bool) -> Taken:
        """Find a persistent snapshot again, instead of `prepare` and `take`.

        Args:
            snapshot_id: `Taken.snapshot_id`.
            own: Whether `release` removes it.

        Raises:
            ProviderUnavailableError: there is none of this id, or the provider keeps none.
        """
        raise ProviderUnavailableError(
            f"provider {self.name!r} keeps no snapshot {snapshot_id!r}",
            reasons={self.name: "its snapshots end with the process that took them"},
        )

    def list(self) -> Sequence[SnapshotRecord]:
        """The snapshots of this provider that exist on this machine.

        Raises:
            SnapshotPermissionError: this process may not see them.
        """
        return ()

    def purge(self, record: SnapshotRecord, deadline: Deadline, /) -> None:
        """Remove a snapshot that `list` gave with ``owned``."""
        raise ProviderUnavailableError(
            f"provider {self.name!r} removes no snapshots", reasons={self.name: "it leaves none behind"}
        )
