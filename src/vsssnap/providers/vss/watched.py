"""A shadow copy that remembers whether something of it could not be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap.errors import DeviceReadError, SnapshotLostError
from vsssnap.providers.vss.reader import ShadowReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from vsssnap._win32.dll import System
    from vsssnap.providers.vss.storage_watch import StorageWatch


class WatchedReader(ShadowReader):
    """Tells its requester, so that writers are not told of a backup that lacks something of theirs."""

    def __init__(
        self,
        system: System,
        path: str,
        volume: str,
        unread: set[str],
        on_failure: Callable[[], str] | None = None,
        storage: StorageWatch | None = None,
    ) -> None:
        """Open it.

        Args:
            system: The libraries.
            path: The device, without a backslash at its end.
            volume: What is added to ``unread`` when a read fails.
            unread: Shared with the requester.
            on_failure: See `ShadowReader`.
            storage: Told of each read.
        """
        super().__init__(system, path, on_failure)
        self._storage = storage
        self._watched_volume, self._failed_volumes = volume, unread

    def _read_into(self, view: memoryview, offset: int) -> None:
        try:
            super()._read_into(view, offset)
        except (DeviceReadError, SnapshotLostError):
            self._failed_volumes.add(self._watched_volume)
            raise
        if self._storage is not None:
            self._storage.look()
