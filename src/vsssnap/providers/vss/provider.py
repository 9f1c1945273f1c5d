"""The provider ``vss``: shadow copies of volumes of this Windows."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar
from uuid import UUID

from vsssnap._deadline import Deadline
from vsssnap._win32 import dll, volumes
from vsssnap._win32.handles import WindowsCallError
from vsssnap.consistency import Consistency
from vsssnap.errors import (
    ProviderUnavailableError,
    SnapshotError,
    SnapshotLostError,
    SnapshotPermissionError,
    SnapshotTimeoutError,
)
from vsssnap.providers.base import (
    LeftOut,
    Offer,
    Provider,
    ProviderStep,
    SnapshotRecord,
    SnapshotRequest,
    SnapshotVolume,
    Taken,
)
from vsssnap.providers.vss import existing, names, offering, sequence, writers
from vsssnap.providers.vss.clusters import ClusterMap
from vsssnap.providers.vss.exclusions import Finder
from vsssnap.providers.vss.existing import Attached
from vsssnap.providers.vss.options import VssOptions
from vsssnap.providers.vss.reader import ShadowReader
from vsssnap.providers.vss.requester import Requester
from vsssnap.providers.vss.storage_watch import StorageWatch
from vsssnap.providers.vss.watched import WatchedReader
from vsssnap.providers.vss.worker import Worker, finish, run_once, start

if TYPE_CHECKING:
    from vsssnap.blocks.reader import BlockReader
    from vsssnap.metadata import WriterReport
    from vsssnap.providers.base import AllocationMap
    from vsssnap.providers.vss.names import Named

__all__ = ["VssProvider"]

_log = logging.getLogger("vsssnap.vss")

_ASK_BUDGET = 30.0  # seconds for asking whether shadow copies exist
_LOOK_BUDGET = 600.0  # seconds for finding files to leave out, where nobody has said how long


class VssProvider(Provider):
    """Snapshots by the Volume Shadow Copy Service, of any number of volumes up to 64 at one instant.

    APPLICATION if every VSS writer that took part is well; else, and without writers, FILESYSTEM: VSS
    flushes and holds file systems.
    """

    name: ClassVar[str] = "vss"
    options_type: ClassVar[type | None] = VssOptions

    def __init__(self) -> None:
        self._system = dll.current()
        self.platforms = ("win32",) if self._system is None else ()  # a stand-in that is lent is enough
        self._worker: Worker | None = None
        self._requester: Requester | Attached | None = None
        self._storage: StorageWatch | None = None
        self._named: list[Named] = []
        self._maps: dict[str, ClusterMap | None] = {}
        self._left_out: dict[tuple[str, frozenset[str]], tuple[LeftOut, ...]] = {}
        self._mapping = threading.Lock()
        self._looking = _LOOK_BUDGET
        self._over = False  # the instant
        self._lost: SnapshotLostError | None = None
        self._released = threading.Event()
        self._steps: list[ProviderStep] = []

    def unusable(self) -> str:
        """Not Windows, a 32-bit process on a 64-bit Windows, or a service that is off."""
        if self._system is None:
            return "the Volume Shadow Copy Service is a part of Windows"
        return offering.unusable(self._system)

    def probe(self, request: SnapshotRequest, /) -> Offer:
        """See `Provider`."""
        if self._system is None:
            return Offer(None, self.unusable())
        return offering.offer(self._system, request)

    def prepare(self, request: SnapshotRequest, deadline: Deadline, /) -> None:
        """See `Provider`.

        Raises:
            ProviderUnavailableError: as `probe` says, or VSS cannot copy a volume.
            SnapshotPermissionError: the process may not.
            SnapshotBusyError: another program was creating a shadow copy until the deadline.
            WriterFailedError: a writer failed, and the request needs it.
            SnapshotError: otherwise not; the HRESULT is its ``code``.
        """
        system = self._system
        if system is None:
            raise ProviderUnavailableError("VSS is not here", reasons={self.name: self.unusable()})
        options = offering.options_of(request)
        if not options.allow_unelevated and not offering.is_elevated(system):
            raise SnapshotPermissionError(f"no shadow copy: {offering.UNELEVATED}")
        self._named = names.resolve(system, request.volumes)
        self._looking = deadline.seconds
        self.completing += options.timeouts.backup_complete + options.timeouts.ask_writers
        self._requester = requester = Requester(
            system=system,
            names=tuple(dict.fromkeys(named.volume for named in self._named)),
            options=options,
            persistent=request.persistent,
            need_writers=request.require >= Consistency.APPLICATION and not request.quiesced,
            log=self._steps,
        )
        self._worker = worker = start(system, secure=False)  # its options say who does that
        self._storage = StorageWatch(system, worker, requester.names)
        self._call(lambda: requester.run(sequence.PREPARE, deadline), deadline, "prepare a shadow copy")

    def _call(self, run: Callable[[], None], deadline: Deadline, step: str) -> None:
        if self._worker is None:
            raise SnapshotError("nothing is prepared", hint="call prepare first")
        self._worker.call(run, deadline, step)

    def instant(self, deadline: Deadline, /) -> bool:
        """DoSnapshotSet; see `Provider`."""
        requester = self._prepared()
        self._call(lambda: requester.run(sequence.INSTANT, deadline), deadline, "DoSnapshotSet")
        self._over = True
        return True

    def _prepared(self) -> Requester:
        if not isinstance(self._requester, Requester):
            raise SnapshotError("nothing is prepared", hint="call prepare first")
        return self._requester

    def take(self, deadline: Deadline, /) -> Taken:
        """See `Provider`."""
        requester = self._prepared()
        if not self._over:
            self.instant(deadline)
        self._call(lambda: requester.run(sequence.TAKE, deadline), deadline, "read what was taken")
        notes: list[str] = []
        found: dict[str, SnapshotVolume] = {}
        for volume in requester.names:
            deadline.check("open the shadow copies")
            found[volume] = self._describe(volume, notes)
        healthy = bool(requester.statuses) and not any(map(writers.has_failed, requester.statuses))
        failed = [status.name for status in requester.statuses if writers.has_failed(status)]
        if failed:
            notes.append(f"These VSS writers failed: {', '.join(failed)}.")
        if requester.lacks_right:
            notes.append(f"Taken without the right to back up: {requester.lacks_right}.")
        if requester.choice is not None:
            notes += requester.choice.notes
        copies = list(requester.copies.values())
        requester.kept = requester.persistent
        return Taken(
            snapshot_id=str(copies[0].set_id),
            created=max(copy.created for copy in copies),
            level=Consistency.APPLICATION if healthy else Consistency.FILESYSTEM,
            volumes=tuple(dataclasses.replace(found[named.volume], name=named.name) for named in self._named),
            writers=tuple(map(writers.report, requester.statuses)),
            documents=self._documents(requester),
            notes=tuple(notes),
        )

    def _describe(self, volume: str, notes: list[str]) -> SnapshotVolume:
        """The facts of one volume, from its shadow copy."""
        assert self._system is not None and self._requester is not None  # noqa: S101, PT018 - take has checked
        copy = self._requester.copies[volume]
        mounted = names.mounted(self._system, volume)
        shown = mounted[0] if mounted else volume
        with ShadowReader(self._system, copy.device) as reader:
            if not reader.tail_captured:
                notes.append(f"{shown} is without its backup boot sector (tail_captured=False).")
            return SnapshotVolume(
                name=shown,
                device=volume,
                size=reader.size,
                sector_size=reader.sector_size,
                filesystem=volumes.filesystem(self._system, copy.device + "\\"),
                mount_point=mounted[0] if mounted else "",
            )

    def _documents(self, requester: Requester) -> dict[str, bytes]:
        """What a restore needs beside the blocks."""
        assert self._system is not None  # noqa: S101 - it made the requester
        found = {
            f"vss/writers/{known.instance_id}.xml": known.document.encode("utf-8", "surrogatepass")
            for known in requester.metadata
        }
        found["vss/shadow-copies.json"] = existing.facts(
            self._system, requester.copies.values(), backup_privilege=not requester.lacks_right
        )
        if requester.choice is not None:
            found["vss/components.json"] = requester.choice.document()
        if requester.document:
            found["vss/backup-components.xml"] = requester.document.encode("utf-8", "surrogatepass")
        return found

    def open(self, volume: SnapshotVolume, /) -> BlockReader:
        """See `Provider`."""
        if self._requester is None or self._system is None or volume.device not in self._requester.copies:
            raise SnapshotError(f"{volume.name} is not in this snapshot")
        requester = self._requester

        def device() -> str:
            self.alive()
            return requester.copies[volume.device].device

        path = requester.copies[volume.device].device
        if isinstance(requester, Requester):
            watch = self._storage
            return WatchedReader(self._system, path, volume.device, requester.unread, device, watch)
        return ShadowReader(self._system, path, device)

    def allocation(self, volume: SnapshotVolume, /) -> AllocationMap | None:
        """What the shadow copy itself says (FSCTL_GET_VOLUME_BITMAP); see `Provider`."""
        if self._requester is None or self._system is None or volume.device not in self._requester.copies:
            return None
        with self._mapping:
            if volume.device not in self._maps:
                device = self._requester.copies[volume.device].device
                try:
                    self._maps[volume.device] = ClusterMap.open(self._system, device, self.alive)
                except WindowsCallError as exc:
                    self.alive()
                    _log.warning("%s: its clusters are not known: %s", volume.name, exc)
                    return None
            found = self._maps[volume.device]
        if found is not None and self._released.is_set():
            found.close()  # whoever released did not wait for it
        return None if found is None else found.extents

    def excluded(self, volume: SnapshotVolume, kinds: frozenset[str], /) -> Sequence[LeftOut]:
        """The files that Windows names, by where the shadow copy has them; see `Provider`."""
        if self._requester is None or self._system is None or volume.device not in self._requester.copies:
            return ()
        with self._mapping:
            if (volume.device, kinds) not in self._left_out:
                device = self._requester.copies[volume.device].device
                finder = Finder(
                    self._system,
                    device,
                    volume.device,
                    deadline=Deadline(self._looking, cancelled=self._released),
                    owners=self._requester.owned_files() if isinstance(self._requester, Requester) else (),
                )
                self._left_out[volume.device, kinds] = finder.find(kinds) if kinds else ()
            return self._left_out[volume.device, kinds]

    def alive(self) -> None:
        """See `Provider`.

        Raises:
            SnapshotLostError: a shadow copy is gone, or VSS does not answer.
        """
        requester = self._requester
        if requester is None:
            raise SnapshotLostError("there is no shadow copy: it was not taken, or released")
        if self._lost is not None:
            raise self._lost.with_traceback(None)
        try:
            self._call(requester.alive, Deadline(_ASK_BUDGET), "ask whether the shadow copy exists")
        except SnapshotLostError as exc:
            self._lost = exc  # whoever reads beside this need not ask again for what happened
            raise
        except SnapshotTimeoutError as exc:
            raise SnapshotLostError(
                "VSS does not say whether the shadow copy exists", hint="restart the service VSS"
            ) from exc

    def complete(self, deadline: Deadline, /) -> Sequence[WriterReport]:
        """Tell the writers that the backup is done (BackupComplete), and ask them how that went."""
        requester = self._requester
        if not isinstance(requester, Requester):
            return ()
        self._call(lambda: requester.complete(deadline), deadline, "BackupComplete")
        return tuple(map(writers.report, requester.statuses))

    def attach(self, snapshot_id: str, /, *, own: bool) -> Taken:
        """See `Provider`; ``snapshot_id`` is that of a shadow copy set."""
        system, set_id = self._system, _set_id(snapshot_id)
        if system is None or set_id is None:
            raise _no_set(snapshot_id, "it is no id of a shadow copy set")
        self._requester = attached = Attached(system, set_id, own)
        self._worker = start(system)
        self._call(attached.find, Deadline(_ASK_BUDGET), "look for the shadow copy")
        if not attached.copies:
            raise _no_set(snapshot_id, "VSS knows no shadow copy of this set")
        notes: list[str] = []
        return Taken(
            snapshot_id=snapshot_id,
            created=max(copy.created for copy in attached.copies.values()),
            level=Consistency.CRASH,  # what writers said then is not kept by VSS
            volumes=tuple(self._describe(volume, notes) for volume in attached.copies),
            notes=tuple(notes),
        )

    def list(self) -> Sequence[SnapshotRecord]:
        """All shadow copies of this machine, by their set.

        Raises:
            SnapshotPermissionError: this process may not see them.
        """
        system = self._system
        if system is None:
            return ()
        if not offering.is_elevated(system):
            raise SnapshotPermissionError(f"shadow copies are not seen: {offering.UNELEVATED}")
        found: list[SnapshotRecord] = []

        def ask() -> None:
            found.extend(existing.listed(system, known) for known in existing.all_sets(system))

        run_once(system, ask, Deadline(_ASK_BUDGET), "list shadow copies")
        return tuple(found)

    def purge(self, record: SnapshotRecord, deadline: Deadline, /) -> None:
        """See `Provider`; what is not in this account's journal is never deleted.

        Raises:
            SnapshotError: it is not ours, or a running process uses it, or VSS does not delete it.
        """
        system, set_id = self._system, _set_id(record.snapshot_id)
        if system is None or set_id is None:
            raise _no_set(record.snapshot_id, "it is no id of a shadow copy set")
        run_once(system, lambda: existing.purge_set(system, set_id), deadline, "purge a shadow copy set")

    def steps(self) -> Sequence[ProviderStep]:
        """Each step of `vsssnap.providers.vss.sequence`, with its HRESULT; see `Provider`."""
        found = self._steps[:]
        del self._steps[: len(found)]  # the worker may have added one since
        return found

    def release(self, deadline: Deadline, /) -> None:
        """Abort what was not completed, and release; this ends the shadow copies but persistent ones.

        Raises:
            SnapshotTimeoutError: VSS hangs; it is done by the worker's thread as soon as it does not.
            SnapshotError: AbortBackup failed; everything is released all the same.
        """
        self._released.set()  # ends what is looked for meanwhile
        # Without the lock: who has it may wait for a device that does not answer, and sees the event then.
        for known in list(self._maps.values()):
            if known is not None:
                known.close()
        worker, self._worker = self._worker, None
        requester, self._requester = self._requester, None
        if worker is None or requester is None:
            return
        try:
            worker.call(requester.end, deadline, "release the shadow copy")
        finally:
            finish(worker)


def _no_set(snapshot_id: str, why: str) -> ProviderUnavailableError:
    return ProviderUnavailableError(
        f"provider 'vss' has no snapshot {snapshot_id!r}",
        reasons={"vss": why},
        hint="list_snapshots() shows those there are",
    )


def _set_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
