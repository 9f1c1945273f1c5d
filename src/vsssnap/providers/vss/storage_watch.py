"""How much shadow storage a shadow copy takes while it is read: the log says so before Windows drops it.

Windows tells how full the storage of a volume is, with all its shadow copies.  Only the youngest of them
takes more and more, and where there is no room the oldest are deleted, so full storage is nothing to speak
of: what it has grown by since this shadow copy was made counts.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from vsssnap._win32.management import ShadowStorageManager
from vsssnap.errors import SnapshotError
from vsssnap.providers.vss import existing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vsssnap._win32.dll import System
    from vsssnap.providers.vss.worker import Worker

_log = logging.getLogger("vsssnap.vss")

_PAUSE = 10.0  # seconds between two looks
_MUCH: Final = (0.8, 0.95)  # parts of the limit that are worth a warning


class StorageWatch:
    """Looks every ten seconds, as long as somebody reads; whoever reads does not wait for that."""

    def __init__(self, system: System, worker: Worker, volumes: Sequence[str]) -> None:
        """Look for the first time in ten seconds.

        Args:
            system: The libraries.
            worker: Whose thread asks VSS.
            volumes: Their GUID paths.
        """
        self._system = system
        self._worker = worker
        self._volumes = volumes
        self._next = time.monotonic() + _PAUSE
        self._used: dict[str, int] = {}  # bytes, when it was looked at last
        self._grown = dict.fromkeys(volumes, 0)  # bytes, at least
        self._told = dict.fromkeys(volumes, 0.0)  # the highest part of `_MUCH` that was reached
        self._asking = False

    def look(self) -> None:
        """Something was read: have VSS asked, if it is time.  From any thread; never waits or fails."""
        now = time.monotonic()
        if now < self._next or self._asking:
            return
        self._next, self._asking = now + _PAUSE, True
        self._worker.post(self._ask)

    def _ask(self) -> None:
        """For the worker's thread alone."""
        try:
            manager = ShadowStorageManager(self._system)
            try:
                for volume in self._volumes:
                    for area in manager.areas(volume):
                        self._judge(volume, area.used, area.maximum)
            finally:
                manager.release()
        except SnapshotError as exc:
            _log.info("shadow storage is not looked at: %s", exc)
        finally:
            self._asking = False

    def _judge(self, volume: str, used: int, maximum: int | None) -> None:
        # It shrinks when older ones are deleted.
        self._grown[volume] += max(0, used - self._used.get(volume, used))
        self._used[volume] = used
        part = self._grown[volume] / maximum if maximum else 0.0
        reached = max((much for much in _MUCH if much <= part), default=0.0)
        if reached > self._told[volume]:
            self._told[volume] = reached
            _log.warning(
                "%s: its shadow copy takes %d %% of the limit of shadow storage, and Windows drops it when "
                "that is full. Raise the limit: resize_shadow_storage, vssadmin resize shadowstorage",
                existing.shown(self._system, volume),
                min(100, int(part * 100)),
            )
