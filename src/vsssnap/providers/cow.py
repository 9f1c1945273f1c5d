"""Snapshots of `CowVolume` objects: volumes that this program serves itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vsssnap.blocks.cow import CowInstant, CowSnapshot, CowVolume
from vsssnap.blocks.cow.store import sparse_problem
from vsssnap.consistency import Consistency
from vsssnap.errors import ClosedError, ProviderUnavailableError, SnapshotError, SnapshotLostError
from vsssnap.providers.base import Offer, Provider, SnapshotRequest, SnapshotVolume, Taken

if TYPE_CHECKING:
    from vsssnap._deadline import Deadline
    from vsssnap.blocks.reader import BlockReader

__all__ = ["CowProvider"]


class CowProvider(Provider):
    """Copy-on-write inside the process; any number of `CowVolume` at one instant.

    The level is CRASH: the volume knows nothing of what is on it.  Quiesce managers of the
    program that serves it can make it APPLICATION.
    """

    name: ClassVar[str] = "cow"

    def __init__(self) -> None:
        self._instant: CowInstant | None = None
        self._volumes: tuple[CowVolume, ...] = ()
        self._taken: dict[str, CowSnapshot] = {}

    def unusable(self) -> str:
        """Only where a sparse file cannot be made."""
        return sparse_problem()

    def probe(self, request: SnapshotRequest, /) -> Offer:
        """CRASH for open `CowVolume` objects, nothing for anything else."""
        reason = self._why_not(request)
        if reason:
            other = not any(isinstance(volume, CowVolume) for volume in request.volumes)
            return Offer(None, reason, unrelated=other)
        return Offer(Consistency.CRASH, "a CowVolume knows nothing of the file system on it")

    def _why_not(self, request: SnapshotRequest) -> str:
        named: dict[str, CowVolume] = {}
        for volume in request.volumes:
            if not isinstance(volume, CowVolume):
                return f"{volume} is no CowVolume"
            if volume.closed:
                return f"{volume.name} is closed"
            if named.setdefault(volume.name, volume) is not volume:
                return f"two volumes are named {volume.name!r}: give them names of their own"
        if not named:
            return "no volume is named"
        return "its snapshots end with the process, so none is persistent" if request.persistent else ""

    def prepare(self, request: SnapshotRequest, deadline: Deadline, /) -> None:
        """Create shadow storage.

        Raises:
            ProviderUnavailableError: as `probe` says.
            SnapshotError: shadow storage cannot be created.
        """
        deadline.check("prepare")
        reason = self._why_not(request)
        if reason:
            raise ProviderUnavailableError(
                f"provider {self.name!r} cannot snapshot this: {reason}", reasons={self.name: reason}
            )
        self._volumes = tuple(volume for volume in request.volumes if isinstance(volume, CowVolume))
        try:
            self._instant = CowInstant(tuple(dict.fromkeys(self._volumes)))
        except ClosedError as exc:
            raise _gone(exc) from exc

    def take(self, deadline: Deadline, /) -> Taken:
        """Wait for the writes that run, keep others out, and begin every snapshot."""
        if self._instant is None:
            raise SnapshotError("nothing is prepared", hint="call prepare first")
        deadline.check("take")
        try:
            taken = self._instant.take(deadline)
        except ClosedError as exc:
            raise _gone(exc) from exc
        self._taken = {snapshot.name: snapshot for snapshot in taken}
        return Taken(
            snapshot_id=taken[0].snapshot_id,
            created=taken[0].created,
            level=Consistency.CRASH,
            volumes=tuple(
                SnapshotVolume(
                    name=volume.name,
                    device=volume.origins[0] if volume.origins else volume.name,
                    size=volume.size,
                    sector_size=volume.sector_size,
                )
                for volume in self._volumes
            ),
        )

    def open(self, volume: SnapshotVolume, /) -> BlockReader:
        """A reader of the volume at the instant."""
        self.alive()
        snapshot = self._taken.get(volume.name)
        if snapshot is None:
            raise SnapshotError(
                f"{volume.name} is not in this snapshot", hint=f"open one of: {', '.join(self._taken)}"
            )
        return snapshot.open()

    def alive(self) -> None:
        """Raise SnapshotLostError once any of the volumes is lost: they are of one instant."""
        if not self._taken:
            raise SnapshotLostError("there is no snapshot: it was not taken, or released")
        for snapshot in self._taken.values():
            snapshot.confirm()

    def release(self, deadline: Deadline, /) -> None:
        """Let the originals go."""
        instant, self._instant = self._instant, None
        taken, self._taken = self._taken, {}
        if instant is not None:
            instant.close()
        for snapshot in taken.values():
            snapshot.close()


def _gone(exc: ClosedError) -> SnapshotError:
    return SnapshotError(f"no snapshot: {exc.message}", hint="keep the volume open until it is imaged")
