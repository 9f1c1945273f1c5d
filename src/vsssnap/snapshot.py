"""`Snapshot`: volumes as they were at one instant; `vsssnap._held` tells who keeps it alive."""

from __future__ import annotations

import dataclasses
import enum
import os
import threading
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, cast

from vsssnap._deadline import Deadline
from vsssnap._event import Events, SnapshotEvent
from vsssnap._held import Held, open_volume
from vsssnap._inventory import survey
from vsssnap._quieted import Quieted, all_claim
from vsssnap._retries import Retries
from vsssnap._volume import find, name_of
from vsssnap.consistency import Consistency, level_of
from vsssnap.errors import (
    ClosedError,
    ConsistencyError,
    SnapshotError,
    SnapshotPermissionError,
    UsageError,
)
from vsssnap.providers import choice
from vsssnap.providers.base import Provider, SnapshotRequest, SnapshotVolume, Taken
from vsssnap.quiesce import QuiesceManager
from vsssnap.volumes.policy import DEFAULT_EXCLUSIONS, Exclusion, UnusedPolicy

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType

    from vsssnap.blocks.reader import BlockReader
    from vsssnap.metadata import WriterReport

__all__ = ["Snapshot", "SnapshotEvent"]


class _State(enum.Enum):
    NEW = "not created"
    CREATING = "being created"
    LIVE = "live"
    CLOSED = "closed"


class Snapshot:
    """One or several volumes as they were at one instant, while they go on being written.

    ::

        with Snapshot("/dev/vg0/data") as s:
            save_image(s.open(), "data.vsnap")

    The constructor touches nothing; `create` (or ``with``) takes the snapshot and `close` gives
    it back.  If the asked-for consistency cannot be had, it raises: there is no fallback to the
    live volume.  Use from one thread, but for `cancel`, `close`, `open` and the readers.
    """

    # For __del__ after a constructor that failed, or was not even entered.
    _state = _State.NEW
    _held: Held | None = None

    def __init_subclass__(cls) -> None:
        raise TypeError("Snapshot is final: write a provider instead")

    def __init__(
        self,
        volume: str | os.PathLike[str] | object,
        /,
        *more: str | os.PathLike[str] | object,
        provider: str | None = None,
        require: Consistency = Consistency.CRASH,
        quiesce: Sequence[QuiesceManager] = (),
        timeout: float = 600.0,
        persistent: bool = False,
        options: object = None,
        on_event: Callable[[SnapshotEvent], None] | None = None,
    ) -> None:
        """Describe a snapshot.

        Args:
            volume: A device, a mount point, a file, a drive letter; or an object that a provider
                knows, such as a `CowVolume`.
            *more: Further volumes, of the same instant.
            provider: Name of the only provider to ask; by default the first that offers enough.
            require: The least consistency; `create` raises ConsistencyError if it cannot be had.
            quiesce: Context managers that quiet applications for the instant; see `vsssnap.quiesce`.
            timeout: Seconds for `create` as a whole.
            persistent: Keep the snapshot when this process ends; `attach` finds it again.
            options: A provider's options; choose that provider.
            on_event: Called at each step, in the thread that creates or closes.

        Raises:
            UsageError: an argument is wrong in itself.
        """
        self._names: dict[str, object] = {}
        for item in (volume, *more):
            name = name_of(item)
            self._names.setdefault(name, name if isinstance(item, str | bytes | os.PathLike) else item)
        self._require = level_of(require)
        self._quiesce = tuple(quiesce)
        for manager in self._quiesce:
            if not isinstance(manager, QuiesceManager):
                raise UsageError(f"quiesce: {type(manager).__name__} is no context manager")
        self._timeout = Deadline(timeout).seconds
        self._only = provider if provider is not None or options is None else choice.for_options(options)
        self._persistent = bool(persistent)
        self._options = options
        self._events = Events(self._names, on_event)
        self._cancelled = threading.Event()
        self._lock, self._creating = threading.Lock(), threading.RLock()  # the latter while `create` runs
        self._taken: Taken | None = None
        self._volumes: Mapping[str, SnapshotVolume] = MappingProxyType({})
        self._consistency: Consistency | None = None
        self._provider_name = ""

    # Life.

    def create(self) -> None:
        """Take the snapshot; what ``with`` does.

        A busy volume, and what else may pass, is tried again, with the applications running meanwhile.

        Raises:
            ProviderUnavailableError: no provider can; ``.reasons`` says why for each.
            ConsistencyError: not as consistently as required.
            SnapshotTimeoutError: not within ``timeout``.
            CancelledError: `cancel` was called.
            SnapshotError: otherwise not; the subclass and ``hint`` say what to do.
            QuiesceError: an application could not be quieted or let go.
        """
        with self._lock:
            if self._state is not _State.NEW:
                raise UsageError(f"the snapshot is {self._state.value}", hint="make a new Snapshot")
            self._state = _State.CREATING
        with self._creating:
            self._create()

    def _create(self) -> None:
        self._events.begin()
        deadline = Deadline(self._timeout, cancelled=self._cancelled)
        retries = Retries()
        try:
            while not self._attempt(deadline, retries):
                pass
            self._state = _State.LIVE
            self._events.tell("ready", str(self._consistency and self._consistency.name))
        except BaseException as exc:
            self._state = _State.CLOSED
            self._undo(exc)
            raise

    def _attempt(self, deadline: Deadline, retries: Retries) -> bool:
        """Try once; False if it makes sense to try again and there is time for it."""
        deadline.check("create snapshot")
        request = SnapshotRequest(
            volumes=tuple(self._names.values()),
            require=self._require,
            quiesced=all_claim(self._quiesce, Consistency.APPLICATION),
            persistent=self._persistent,
            options=self._options,
        )
        self._events.tell("probe")
        provider = choice.choose(request, only=self._only)
        self._held = Held(provider)
        self._provider_name = provider.name
        try:
            self._events.tell("prepare", provider.name)
            provider.prepare(request, deadline)
            self._events.steps(provider)
            taken = self._take(provider, deadline)
            self._events.steps(provider)
        except SnapshotError as exc:
            self._events.steps(provider)
            if exc.retryable:
                self._undo(exc)
            wait = retries.pause(exc, deadline)
            self._events.tell("busy", str(exc))
            deadline.sleep(wait, "wait before the next try")
            return False
        self._accept(taken, quiesced=request.quiesced)
        return True

    def _take(self, provider: Provider, deadline: Deadline) -> Taken:
        if not self._quiesce:
            self._events.tell("take")
            return provider.take(deadline)
        self._events.tell("quiesce")
        with Quieted(self._quiesce, deadline):
            self._events.tell("take")
            taken = None if provider.instant(deadline) else provider.take(deadline)
        self._events.tell("resume")
        return taken or provider.take(deadline)

    def _accept(self, taken: Taken, *, quiesced: bool) -> None:
        level = Consistency.APPLICATION if quiesced else taken.level
        if level < self._require:
            raise ConsistencyError(
                f"{self._require.name} is required and only {level.name} was reached",
                wanted=self._require.name,
                offered=level.name,
                hint="look at the writers' reports, if any took part, or lower require=",
            )
        if len(taken.volumes) != len(self._names):
            raise SnapshotError(f"the provider gave {len(taken.volumes)} volumes for {len(self._names)}")
        self._taken = taken
        self._consistency = level
        self._volumes = MappingProxyType(dict(zip(self._names, taken.volumes, strict=True)))

    def _undo(self, first: BaseException) -> None:
        """Release after a failure; what fails here becomes a note of the first error."""
        held, self._held = self._held, None
        if held is not None:
            try:
                held.release()
            except Exception as exc:  # the first error is the one that is raised
                first.add_note(f"releasing it failed too: {exc}")

    def close(self) -> None:
        """Close the readers and give the snapshot back.  Idempotent; not bound by ``timeout``.

        Calls that run in readers finish first, and a `create` in another thread is cancelled.
        Applications that took part are told that the backup is done, but if the ``with`` block is
        left by an exception.  A forked child closes only its own.

        Raises:
            SnapshotError: the system did not take it back; it says what is left.
        """
        self._close(complete=True)

    def _close(self, *, complete: bool) -> None:
        if self._state is _State.CREATING:
            self.cancel()
        with self._creating, self._lock:
            state, self._state = self._state, _State.CLOSED
            held, self._held = self._held, None
        if held is not None:
            if state is _State.LIVE:
                self._events.begin()
                self._events.tell("release")
            reports = held.release(complete=complete and state is _State.LIVE)
            if reports and self._taken is not None:
                self._taken = dataclasses.replace(self._taken, writers=tuple(reports))
            self._events.steps(held.provider)

    def cancel(self) -> None:
        """Make a `create` that runs in another thread, or comes later, raise CancelledError."""
        self._cancelled.set()

    def __enter__(self) -> Self:
        if self._state is _State.NEW:
            self.create()
        elif self._state is not _State.LIVE:
            raise ClosedError(f"the snapshot is {self._state.value}", hint="make a new Snapshot")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        try:
            self._close(complete=kind is None)
        except Exception as exc:
            if value is None:
                raise
            value.add_note(f"closing the snapshot failed too: {exc}")

    def __del__(self) -> None:
        if self._state is _State.LIVE and self._held is not None and os.getpid() == self._held.pid:
            warnings.warn(f"forgotten {self!r}", ResourceWarning, stacklevel=2, source=self)

    def __reduce_ex__(self, protocol: Any, /) -> Any:  # noqa: ANN401 - object's own signature
        """Snapshots hold system resources and cannot be copied or pickled."""
        raise UsageError(
            "a Snapshot cannot be pickled or copied", hint="make it persistent and attach by its id"
        )

    def __repr__(self) -> str:
        return f"<Snapshot of {', '.join(self._names)}: {self._state.value}>"

    @classmethod
    def attach(cls, snapshot_id: str, /, *, provider: str | None = None, own: bool = False) -> Snapshot:
        """A persistent snapshot that was taken earlier, by any process.

        Args:
            snapshot_id: Its `id`.
            provider: Name of its provider; by default all are asked.
            own: Whether `close` removes it.

        Raises:
            SnapshotError: no provider has it.
        """
        if provider is None:
            records, unseen = survey()
            provider = next(
                (record.provider for record in records if record.snapshot_id == snapshot_id), None
            )
            if provider is None and unseen:
                raise SnapshotPermissionError(
                    f"there is no snapshot {snapshot_id!r} that this process may see", reasons=unseen
                )
            if provider is None:
                raise SnapshotError(
                    f"there is no snapshot {snapshot_id!r}", hint="list_snapshots() shows those there are"
                )
        driver = choice.by_name(provider)
        held = Held(driver)
        try:
            taken = driver.attach(snapshot_id, own=own)
            self = cls(*(volume.name for volume in taken.volumes), provider=provider)
            self._accept(taken, quiesced=False)
        except BaseException:
            held.release()
            raise
        self._held = held
        self._provider_name = provider
        self._state = _State.LIVE
        return self

    # Reading.

    def open(
        self,
        volume: str | os.PathLike[str] | object = None,
        /,
        *,
        unused: UnusedPolicy = UnusedPolicy.ZERO,
        exclude: Collection[Exclusion] = DEFAULT_EXCLUSIONS,
    ) -> BlockReader:
        """A reader of one volume as it was at the instant; any number, any thread.

        The reader keeps the snapshot alive; `close` closes it.  Its metadata say what is left out.

        Args:
            volume: One of those given to the constructor, in the same spelling; may be left out if
                there is only one.
            unused: What becomes of blocks that no file uses.  Where no map of them can be trusted
                every block is DATA.
            exclude: Files of Windows whose contents are left out; ``()`` for none.

        Raises:
            UsageError: the snapshot has no such volume, or several and none is named.
            ClosedError: the snapshot is not live.
            SnapshotLostError: it no longer exists.
        """
        held, taken = self._held, self._taken
        if self._state is not _State.LIVE or held is None or taken is None:
            raise ClosedError(
                f"the snapshot is {self._state.value}", hint="open readers inside the with block"
            )
        chosen = find(self._volumes, volume)
        return open_volume(held, taken, chosen, self._consistency, unused=unused, exclude=exclude)

    # Facts.

    @property
    def id(self) -> str:
        """The snapshot's id; all volumes of one snapshot have the same."""
        return self._made().snapshot_id

    @property
    def volumes(self) -> Mapping[str, SnapshotVolume]:
        """The volumes by the caller's spelling, in the caller's order."""
        self._made()
        return self._volumes

    @property
    def provider(self) -> str:
        """Name of the provider that took it."""
        self._made()
        return self._provider_name

    @property
    def consistency(self) -> Consistency:
        """What was reached; at least what was required."""
        self._made()
        return cast("Consistency", self._consistency)

    @property
    def created(self) -> datetime:
        """The instant, with time zone."""
        return self._made().created

    @property
    def writers(self) -> Sequence[WriterReport]:
        """Reports of the applications that took part."""
        return self._made().writers

    def _made(self) -> Taken:
        if self._taken is None:
            raise UsageError(
                f"the snapshot is {self._state.value}", hint="call create() or use it in a with block"
            )
        return self._taken
