"""Sources that nobody writes, read as they are.

There is no copy-on-write here: the source is watched, and a change makes what was read
worthless and is said so.  **It is detection, not prevention.**

* A block device is held exclusively (no mount, no device on top, no swap, no other program
  that asks for the same), and what the kernel counts as written to it must not change.  A
  program that writes past the exclusive open is seen when `alive` is asked.
* A regular file is held under a read lease: it is not open for writing, and the first one to
  open it so, or to cut it, ends the lease.  Its size and times must not change either.

As nothing changed from `take` to the last `alive`, all volumes were read at one instant.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
import sys
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vsssnap.consistency import Consistency
from vsssnap.errors import (
    ProviderUnavailableError,
    SnapshotError,
    SnapshotLostError,
    SnapshotPermissionError,
    SourceChangedError,
    UsageError,
    VssSnapError,
)
from vsssnap.providers.base import Offer, Provider, SnapshotRequest, SnapshotVolume, Taken

assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest

from vsssnap._posix import activity, devices, leases, topology  # noqa: E402 - only readable on Linux
from vsssnap.blocks.device import DeviceReader  # noqa: E402 - likewise

if TYPE_CHECKING:
    from vsssnap._deadline import Deadline
    from vsssnap.blocks.reader import BlockReader

__all__ = ["StaticProvider"]

_HINT = "stop what writes it, or take a snapshot with another provider"


@dataclass(slots=True)
class _Source:
    """One device or file; two spellings of it are one source."""

    opened: devices.Opened
    device: str
    before: activity.Activity | os.stat_result | None = None


class StaticProvider(Provider):
    """Watches block devices and files that nobody writes.

    Consistency is CRASH: what the last writer left, as after a power cut.
    """

    name = "static"

    def __init__(self) -> None:
        self._sources: dict[tuple[str, int, int], _Source] = {}
        self._order: list[tuple[str, _Source]] = []
        self._leases: leases.ReadLeases | None = None
        self._changed: SnapshotError | None = None
        self._taken = False

    def probe(self, request: SnapshotRequest, /) -> Offer:
        """See `Provider`."""
        if request.persistent:
            return Offer(None, "it cannot outlive this process, which is what watches the source")
        for volume in request.volumes:
            if (refusal := _refusal(volume)) is not None:
                return refusal
        return Offer(Consistency.CRASH, "it watches a source, and neither flushes nor freezes what wrote it")

    def prepare(self, request: SnapshotRequest, deadline: Deadline, /) -> None:
        """See `Provider`.

        Raises:
            SnapshotBusyError: a device is held by somebody, a file is open for writing.
            ProviderUnavailableError: it cannot be watched.
            SnapshotPermissionError: the process may not read it.
            DeviceReadError: there is no such device or file.
        """
        for volume in request.volumes:
            deadline.check("watch sources")
            if not isinstance(volume, str | bytes | os.PathLike):
                raise ProviderUnavailableError("no path", reasons={self.name: _no_path(volume)})
            self._add(os.fsdecode(volume))

    def _add(self, path: str) -> None:
        known = self._sources.get(devices.identify(path))  # we ourselves hold it exclusively
        self._order.append((path, known if known is not None else self._watch(path)))

    def _watch(self, path: str) -> _Source:
        opened = devices.open_source(path, exclusive=True)
        if opened.identity in self._sources:  # the name was given to a file that is watched already
            os.close(opened.fd)
            return self._sources[opened.identity]
        source = _Source(opened, os.path.realpath(path))
        self._sources[opened.identity] = source  # from here on `release` closes it
        if opened.kind == "block":
            self._check_device(opened)
        else:
            if self._leases is None:
                self._leases = leases.ReadLeases()
            self._leases.add(opened.fd, path)
        return source

    def _check_device(self, opened: devices.Opened) -> None:
        """What O_EXCL does not know of, and whether writes are counted at all."""
        try:
            reason = topology.usage(os.fstat(opened.fd))
            if not reason and not activity.is_counted(opened.fd, opened.rdev, opened.sector_size):
                reason = "has no counters in the kernel that tell whether it is written"
        except OSError as exc:
            reason = f"cannot be watched: {exc.strerror}"
        if reason:
            raise ProviderUnavailableError(
                f"{opened.path} {reason}", reasons={self.name: f"{opened.path} {reason}"}, hint=_HINT
            )

    def take(self, deadline: Deadline, /) -> Taken:
        """See `Provider`."""
        if not self._sources:
            raise UsageError("take() came before prepare()")
        for source in self._sources.values():
            deadline.check("note the state of the sources")
            try:
                source.before = _state(source.opened)
            except OSError as exc:
                raise SnapshotError(
                    f"{source.opened.path} cannot be watched: {exc.strerror}",
                    code=exc.errno,
                    hint="look at the kernel's log",
                ) from exc
        self._taken = True
        self.alive()
        return Taken(
            snapshot_id=f"static-{uuid.uuid4()}",
            created=datetime.now(UTC),
            level=Consistency.CRASH,
            volumes=tuple(
                SnapshotVolume(
                    name=name,
                    device=source.device,
                    size=source.opened.size,
                    sector_size=source.opened.sector_size,
                    still=True,
                )
                for name, source in self._order
            ),
            notes=("The source was read in place and watched: it was not written meanwhile.",),
        )

    def open(self, volume: SnapshotVolume, /) -> BlockReader:
        """See `Provider`."""
        self.alive()
        opened = next((source.opened for _, source in self._order if source.device == volume.device), None)
        if opened is None:
            raise UsageError(f"{volume.name} is not in this snapshot", hint="open one of its volumes")
        try:
            if opened.kind == "block":
                fd = os.dup(opened.fd)
            else:  # a description of its own: the walk over holes moves the file's cursor
                fd = os.open(f"/proc/self/fd/{opened.fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise SnapshotError(
                f"{opened.path} cannot be opened once more: {exc.strerror}",
                code=exc.errno,
                hint="close readers, or raise the limit of open files (ulimit -n)",
            ) from exc
        return DeviceReader(dataclasses.replace(opened, fd=fd))

    def alive(self) -> None:
        """Return if no source was written since `take`.

        Raises:
            SourceChangedError: one was, or may have been; so for every later call.
            SnapshotLostError: one is gone, or the provider was released; so for every later call.
        """
        if self._changed is None and not self._taken:
            self._changed = SnapshotLostError("nothing is watched: it was not taken, or released")
        if self._changed is None:
            try:
                self._changed = self._look()
            except OSError as exc:
                self._changed = SnapshotLostError(
                    f"a source is gone or failing: {exc}", code=exc.errno, hint="look at the kernel's log"
                )
        if self._changed is not None:
            raise self._changed.with_traceback(None)

    def _look(self) -> SourceChangedError | None:
        # The leases last: a writer who comes after a look at the times still shows in them.
        for source in self._sources.values():
            if change := _difference(source.before, _state(source.opened)):
                return SourceChangedError(
                    f"{source.opened.path} was written while it was read: {change}", hint=_HINT
                )
        for path in self._leases.broken() if self._leases is not None else ():
            return SourceChangedError(f"{path} was opened for writing while it was read", hint=_HINT)
        return None

    def release(self, deadline: Deadline, /) -> None:
        """See `Provider`."""
        self._taken = False
        held, self._leases = self._leases, None
        sources, self._sources = self._sources, {}
        self._order = []
        try:
            if held is not None:
                held.close()
        finally:
            for source in sources.values():
                os.close(source.opened.fd)


def _no_path(volume: object) -> str:
    return f"{type(volume).__name__} is no path of a block device or a file"


def _refusal(volume: object) -> Offer | None:
    """Why a volume cannot be watched, if so; a file is opened for a moment, a device is not."""
    if not isinstance(volume, str | bytes | os.PathLike):
        return Offer(None, _no_path(volume), unrelated=True)
    path = os.fsdecode(volume)
    reason, denied = "", False
    try:
        found = os.stat(path)
        if stat.S_ISREG(found.st_mode):
            opened = devices.open_source(path)
            try:
                reason = leases.why_no_lease(opened.fd, path)
            finally:
                os.close(opened.fd)
        elif not stat.S_ISBLK(found.st_mode):
            reason = f"{path} is neither a block device nor a regular file"
        elif not os.access(path, os.R_OK, effective_ids=True):
            reason, denied = f"{path} may not be read by this user", True
        elif used := topology.usage(found):
            reason = f"{path} {used}"
        elif not activity.counts_requests(found.st_rdev):
            reason = f"{path} is not counted by the kernel (queue/iostats is 0)"
    except VssSnapError as exc:
        reason, denied = exc.message, isinstance(exc, SnapshotPermissionError)
    except OSError as exc:
        reason = f"there is no {path}" if exc.errno == errno.ENOENT else f"{path}: {exc.strerror}"
        denied = isinstance(exc, PermissionError)
    except ValueError as exc:
        reason = f"{path!r} is no path: {exc}"
    return Offer(None, reason, denied=denied) if reason else None


def _state(opened: devices.Opened) -> activity.Activity | os.stat_result:
    """What must not change; of a device after everything that is cached was written out."""
    if opened.kind == "file":
        return os.fstat(opened.fd)
    os.fsync(opened.fd)
    topology.flush_neighbours(opened.rdev)
    return activity.activity(opened.rdev)


def _difference(before: object, now: activity.Activity | os.stat_result) -> str:
    """What tells that a source was written between two states, or ""."""
    if isinstance(now, activity.Activity) and isinstance(before, activity.Activity):
        return now.changed_since(before)
    if isinstance(now, os.stat_result) and isinstance(before, os.stat_result):
        if now.st_size != before.st_size:
            return f"it had {before.st_size} bytes and has {now.st_size}"
        if now.st_mtime_ns != before.st_mtime_ns:
            return "its time of modification is another"
        if now.st_ctime_ns != before.st_ctime_ns:
            return "its time of status change is another (written, renamed, or its rights changed)"
    return ""
