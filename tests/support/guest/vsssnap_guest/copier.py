"""The provider ``copier``: keeps one regular file as it is by copying it.

A copy takes time, so it is a snapshot only of a file that nobody writes meanwhile; a change is
noticed and refused.  Snapshots live in a folder of their own, one folder each, and may be kept
when their process ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import sys
import threading
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vsssnap import BlockReader, Consistency
from vsssnap.errors import (
    DeviceReadError,
    ProviderUnavailableError,
    SnapshotLostError,
    SourceChangedError,
    TargetError,
    UsageError,
    VssSnapError,
)
from vsssnap.providers import (
    Deadline,
    Offer,
    Provider,
    SnapshotRecord,
    SnapshotRequest,
    SnapshotVolume,
    Taken,
)

FOLDER = "VSSSNAP_GUEST_FOLDER"  # environment: where snapshots are kept
FACTS = "snapshot.json"  # written last: a folder without it is half a snapshot
COPY = "volume"
PIECE = 1 << 20


class CopyReader(BlockReader):
    """A finished copy."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by _release
        self._lock = threading.Lock()  # one cursor, several threads
        try:
            super().__init__(os.fstat(self._file.fileno()).st_size)
        except BaseException:
            self._file.close()
            raise

    def _read_into(self, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            try:
                with self._lock:
                    self._file.seek(offset + done)
                    count = self._file.readinto(view[done:]) or 0
            except OSError as exc:
                raise DeviceReadError(
                    f"the copy cannot be read: {exc}", offset=offset, length=len(view)
                ) from exc
            if not count:
                raise DeviceReadError("the copy was cut short", offset=offset, length=len(view))
            done += count

    def _release(self) -> None:
        self._file.close()


class CopierProvider(Provider):
    """What the entry point names; one object takes one snapshot."""

    api = 1
    name = "copier"

    def __init__(self) -> None:
        self._source = ""
        self._names: tuple[str, ...] = ()
        self._folder: Path | None = None  # of this snapshot
        self._keep = False
        self._lost: SnapshotLostError | None = None

    def unusable(self) -> str:
        return "" if registry() is not None else f"set {FOLDER} to a folder for its copies"

    def probe(self, request: SnapshotRequest, /) -> Offer:
        names = paths(request)
        if not names or len(names) != len(request.volumes):
            return Offer(None, "it copies files, by their path")
        if len(set(map(os.path.realpath, names))) > 1:  # two spellings of one file are one
            return Offer(None, "two files copied one after the other are not of one instant")
        try:
            found = os.stat(names[0])
        except OSError as exc:
            return Offer(None, f"{names[0]}: {exc.strerror}")
        if not stat.S_ISREG(found.st_mode):
            return Offer(None, f"{names[0]} is no regular file")
        return Offer(Consistency.CRASH, "it cannot make a file system write itself out")

    def prepare(self, request: SnapshotRequest, deadline: Deadline, /) -> None:
        deadline.check("prepare a copy")
        home, offer = registry(), self.probe(request)
        if home is None or offer.level is None:
            reason = self.unusable() or offer.reason
            raise ProviderUnavailableError(reason, reasons={self.name: reason})
        self._names = paths(request)
        self._source = os.path.realpath(self._names[0])
        self._keep = request.persistent
        folder = home / uuid.uuid4().hex
        try:
            folder.mkdir(mode=0o700)
        except OSError as exc:
            raise TargetError(f"{folder} cannot be made: {exc.strerror}", path=str(folder)) from exc
        self._folder = folder

    def take(self, deadline: Deadline, /) -> Taken:
        if self._folder is None:
            raise UsageError("take() came before prepare()")
        deadline.check("copy a file")
        created = datetime.now(UTC)
        try:
            size = self._copy(deadline)
            volumes = tuple(SnapshotVolume(name=name, device=self._source, size=size) for name in self._names)
            facts = {
                "created": created.isoformat(),
                "pid": os.getpid(),
                "volumes": [asdict(volume) for volume in volumes],
            }
            partial = self._folder / f"{FACTS}.partial"
            with open(partial, "x", opener=private) as file:
                json.dump(facts, file)
            partial.rename(self._folder / FACTS)
        except VssSnapError:
            raise  # some of them are OSErrors too
        except OSError as exc:
            raise TargetError(f"{self._source} cannot be copied: {exc}", path=str(self._folder)) from exc
        return Taken(snapshot_id=self._folder.name, created=created, level=Consistency.CRASH, volumes=volumes)

    def _copy(self, deadline: Deadline) -> int:
        assert self._folder is not None
        with (
            open(self._source, "rb", buffering=0) as source,
            open(self._folder / COPY, "xb", opener=private) as copy,
        ):
            before = facts_of(source.fileno())
            while piece := source.read(PIECE):
                deadline.check("copy a file")
                copy.write(piece)
            copied = copy.tell()
            if facts_of(source.fileno()) != before or copied != before[0]:
                raise SourceChangedError(
                    f"{self._source} was written while it was copied", hint="stop its writer"
                )
            return copied

    def open(self, volume: SnapshotVolume, /) -> BlockReader:
        self.alive()
        if self._folder is None or volume.device != self._source:
            raise UsageError(f"{volume.name} is no volume of this snapshot")
        return CopyReader(self._folder / COPY)

    def alive(self) -> None:
        if self._lost is None and (self._folder is None or not (self._folder / FACTS).is_file()):
            self._lost = SnapshotLostError(f"the copy of {self._source} was removed", hint="take a new one")
        if self._lost is not None:
            raise self._lost

    def release(self, deadline: Deadline, /) -> None:
        folder, self._folder = self._folder, None
        # One that did not get as far as its facts goes, also if it was to be kept.
        if folder is not None and not (self._keep and (folder / FACTS).is_file()):
            remove(folder)

    def attach(self, snapshot_id: str, /, *, own: bool) -> Taken:
        home = registry()
        folder = None if home is None or os.path.basename(snapshot_id) != snapshot_id else home / snapshot_id
        facts = None if folder is None else read_facts(folder)
        if folder is None or facts is None:
            raise ProviderUnavailableError(
                f"there is no snapshot {snapshot_id!r}", reasons={self.name: "it was removed, or never was"}
            )
        volumes = tuple(SnapshotVolume(**volume) for volume in facts["volumes"])
        self._folder, self._keep = folder, not own
        self._source = volumes[0].device
        return Taken(
            snapshot_id=snapshot_id,
            created=datetime.fromisoformat(facts["created"]),
            level=Consistency.CRASH,
            volumes=volumes,
        )

    def list(self) -> Sequence[SnapshotRecord]:
        home = registry()
        found = []
        for folder in sorted(home.iterdir()) if home is not None else []:
            facts = read_facts(folder)
            if facts is not None:
                found.append(
                    SnapshotRecord(
                        provider=self.name,
                        snapshot_id=folder.name,
                        volumes=tuple(volume["name"] for volume in facts["volumes"]),
                        created=datetime.fromisoformat(facts["created"]),
                        owned=True,
                        owner_alive=runs(facts["pid"]),
                    )
                )
        return found

    def purge(self, record: SnapshotRecord, deadline: Deadline, /) -> None:
        home = registry()
        if home is None or os.path.basename(record.snapshot_id) != record.snapshot_id:
            raise UsageError(f"{record.snapshot_id!r} is no snapshot of {self.name}")
        remove(home / record.snapshot_id)


def paths(request: SnapshotRequest) -> tuple[str, ...]:
    """The volumes that are named by a path."""
    return tuple(str(os.fspath(v)) for v in request.volumes if isinstance(v, str | os.PathLike))


def private(path: str, flags: int) -> int:
    """Open a file that nobody else may read: it holds somebody's disk."""
    return os.open(path, flags, 0o600)


def registry() -> Path | None:
    """The folder of all snapshots, if one is set."""
    named = os.environ.get(FOLDER)
    return Path(named) if named and os.path.isdir(named) else None


def facts_of(fd: int) -> tuple[int, int]:
    """What changes when a file is written."""
    found = os.fstat(fd)
    return found.st_size, found.st_mtime_ns


def read_facts(folder: Path) -> dict[str, Any] | None:
    """What was written of a snapshot; None for half of one, or something else."""
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
        for volume in facts["volumes"]:
            SnapshotVolume(**volume)
        datetime.fromisoformat(facts["created"])
        int(facts["pid"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return facts


def runs(pid: int) -> bool:
    """Whether a process of this number exists; on Windows, where that is harder to ask, yes."""
    if sys.platform != "win32":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
    return True


def remove(folder: Path) -> None:
    """Remove a snapshot, its facts first, so that half of one is never listed."""
    with contextlib.suppress(FileNotFoundError):
        (folder / FACTS).unlink()
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise TargetError(f"{folder} cannot be removed", path=str(folder), hint="remove it by hand")
