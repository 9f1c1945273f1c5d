r"""Which shadow copy sets this account's programs made with this library, so that no other is purged.

A record is one file, written before the instant and named by the set: ``SET.taking`` as long as the
`Snapshot` is at work, ``SET.kept`` once it was closed with its shadow copies meant to stay; of others
it is removed.  A process that is killed leaves ``SET.taking`` without its claim: an orphan, if the set
still exists.

The folder is ``%LOCALAPPDATA%\vsssnap\vss``, which belongs to the account alone (with SYSTEM and
the administrators), as each account has shadow copies of its own to look after.  A record is believed
only of a set whose volumes are the recorded ones.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from vsssnap import _claims
from vsssnap._win32 import volumes
from vsssnap._win32.handles import WindowsCallError
from vsssnap.errors import SnapshotError

if TYPE_CHECKING:
    from vsssnap._win32.backup_components import ShadowCopy
    from vsssnap._win32.dll import System

_log = logging.getLogger("vsssnap.vss")

_BASE = "%LOCALAPPDATA%"
_TAKING, _KEPT = ".taking", ".kept"
_NAME = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(\.taking|\.kept)", re.ASCII)
_FRESH = 3600.0  # seconds
_MOST = 1 << 16  # bytes of a record: 64 volume names and some words


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A set that was made.

    Attributes:
        set_id: Which.
        volumes: GUID paths of its volumes; empty if the record was cut off, which is before the instant.
        kept: Whether its snapshot was closed with the shadow copies meant to stay.
        alive: Whether the process that makes or uses it still runs.
        pid: That process.
    """

    set_id: UUID
    volumes: frozenset[str]
    kept: bool
    alive: bool
    pid: int

    def is_of(self, copies: Iterable[ShadowCopy]) -> bool:
        """Whether these shadow copies are what it says."""
        return {copy.volume for copy in copies} <= self.volumes


class Entry:
    """The record of a set that this process makes."""

    def __init__(self, path: str, fd: int, content: bytes) -> None:
        self._path, self._fd, self._content = path, fd, content

    def _close(self) -> bool:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        return fd >= 0

    def keep(self) -> None:
        """The shadow copies stay, and are meant to."""
        if self._fd >= 0:
            # The new record before the claim is given up: between the two others would see an orphan.
            _keep(self._path.removesuffix(_TAKING), self._content)
            self._close()
            _attempt("remove", lambda: os.unlink(self._path))

    def forget(self) -> None:
        """The shadow copies are gone."""
        if self._close():
            _attempt("remove", lambda: os.unlink(self._path))

    def leave(self) -> None:
        """They could not be deleted: an orphan from now on."""
        self._close()


class Journal:
    """The records of this account."""

    def __init__(self, system: System) -> None:
        """Name the folder; nothing is made."""
        try:
            base = volumes.expand(system, _BASE)
        except WindowsCallError as exc:
            _log.warning("there is no journal: %s", exc)
            base = _BASE
        self._folder = "" if base == _BASE else os.path.join(base, "vsssnap", "vss")

    def begin(self, set_id: UUID, names: Iterable[str], *, persistent: bool) -> Entry | None:
        """Write the record of a set that is about to be taken.

        Returns:
            The record; None if it cannot be written and need not be, as the set ends with the process.

        Raises:
            SnapshotError: it cannot be written, and without it the set could be left behind for good.
        """
        content = {
            "pid": os.getpid(),
            "program": os.path.basename(sys.argv[0]) if sys.argv else "",
            "begun": datetime.now(UTC).isoformat(timespec="seconds"),
            "persistent": persistent,
            "volumes": sorted(names),
        }
        path = os.path.join(self._folder, f"{set_id}{_TAKING}")
        try:
            if not self._folder:
                raise FileNotFoundError(f"there is no {_BASE}")
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            encoded = json.dumps(content).encode()
            return Entry(path, _claims.create(path, encoded), encoded)
        except OSError as exc:
            if not persistent:
                _log.warning("the set %s is not in the journal: %s", set_id, exc)
                return None
            raise SnapshotError(
                f"{path}: a persistent shadow copy cannot be put on record: {exc}",
                code=exc.errno,
                hint="make room for it, or take one that is not persistent",
            ) from exc

    def records(self) -> dict[UUID, Record]:
        """All of them; of what cannot be read nothing is believed but that it is there."""
        found: dict[UUID, Record] = {}
        for name in self._names():
            match = _NAME.fullmatch(name)
            if match is None:
                continue
            path = os.path.join(self._folder, name)
            try:
                content, alive = _claims.read(path, _MOST)
                if not content:  # a process may be about to claim it
                    alive = time.time() - os.stat(path).st_mtime < _FRESH
            except OSError as exc:
                _log.info("%s in the journal cannot be read: %s", name, exc)
                continue
            set_id, kept = UUID(match[1]), match[2] == _KEPT
            # Looked for after the claim, which is given up last; see `Entry.keep`.
            kept = kept or os.path.exists(path.removesuffix(_TAKING) + _KEPT)
            found[set_id] = _record(set_id, content, kept=kept, alive=alive)
        return found

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self._folder)) if self._folder else []
        except FileNotFoundError:
            return []
        except OSError as exc:
            _log.warning("the journal cannot be read: %s", exc)
            return []

    def adopt(self, set_id: UUID) -> None:
        """Somebody lays claim to a set that was left behind: it is meant to stay."""
        record = self.records().get(set_id)
        if record is not None and not record.kept and not record.alive:
            path = os.path.join(self._folder, str(set_id))
            with contextlib.suppress(OSError):
                _keep(path, _claims.read(path + _TAKING, _MOST)[0])
                os.unlink(path + _TAKING)

    def forget(self, set_id: UUID) -> None:
        """A set is gone."""
        for suffix in (_TAKING, _KEPT):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._folder, f"{set_id}{suffix}"))


def _keep(path: str, content: bytes) -> None:
    """Write the record of a set that is meant to stay, claimed by nobody."""
    _attempt("keep", lambda: os.close(_claims.create(path + _KEPT, content)))


def _attempt(what: str, change: Callable[[], None]) -> None:
    try:
        change()
    except OSError as exc:
        _log.warning("a record of the journal could not be changed (%s): %s", what, exc)


def _record(set_id: UUID, content: bytes, *, kept: bool, alive: bool) -> Record:
    names: list[str] = []
    pid = 0
    try:
        values = json.loads(content)
        if isinstance(values, Mapping):
            names = [name for name in values.get("volumes", ()) if isinstance(name, str)]
            pid = values["pid"] if isinstance(values.get("pid"), int) else 0
    except (ValueError, RecursionError, TypeError):
        _log.info("the record of %s cannot be understood", set_id)
    return Record(set_id=set_id, volumes=frozenset(names), kept=kept, alive=alive, pid=pid)
