"""One snapshot of a copy-on-write volume, and its readers."""

from __future__ import annotations

import os
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from vsssnap._uses import UseGate
from vsssnap.blocks.reader import BlockReader
from vsssnap.consistency import Consistency
from vsssnap.errors import UsageError
from vsssnap.metadata import ImageMetadata

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from vsssnap.blocks.cow.engine import CowEngine
    from vsssnap.blocks.cow.store import ShadowStore
    from vsssnap.blocks.extent import Extent


def new_id() -> str:
    """A fresh id of a snapshot."""
    import uuid  # which asks the system what it is: a tenth of the library's import

    return str(uuid.uuid4())


class CowSnapshot:
    """A `CowVolume` as it was at one instant; made by `CowVolume.snapshot`.

    Thread-safe.  Close it, or use it in a ``with`` statement: until then the originals of every
    overwritten block are kept.  It ends with its volume: when that is closed, it is lost.

    Attributes:
        snapshot_id: Its id; snapshots of several volumes taken at one instant share it.
        created: The instant.
        name: Name of the volume.
        size: Bytes.
    """

    def __init__(
        self, engine: CowEngine, store: ShadowStore, *, snapshot_id: str = "", created: datetime | None = None
    ) -> None:
        self._engine = engine
        self._store = store
        self._pid = os.getpid()
        self.name = engine.name
        self.size = engine.backing.size
        self.snapshot_id = snapshot_id or new_id()
        self.created = created if created is not None else datetime.now(UTC)
        self._uses = UseGate(f"the snapshot of {self.name}")

    def open(self) -> BlockReader:
        """A reader of the volume as it was; any number of them.

        Closing the snapshot makes its readers raise ClosedError; reads that run finish.

        Raises:
            ClosedError: the snapshot is closed.
            SnapshotLostError: it is lost.
        """
        self.confirm()
        return _CowReader(self, self._engine, self._store, self._uses)

    def confirm(self) -> None:
        """Return if the snapshot is whole.

        Raises:
            ClosedError: it is closed.
            SnapshotLostError: it is lost; so for every later call.
        """
        with self._uses:
            self._engine.check_process()
            self._engine.check(self._store)

    @property
    def lost(self) -> str:
        """Why the snapshot is lost, or ""."""
        return self._store.lost

    def close(self) -> None:
        """Let the originals go that no older snapshot needs.  Idempotent; running reads finish first."""
        self._uses.close(self._release)

    def _release(self) -> None:
        if os.getpid() == self._pid:
            self._engine.chain.release(self._store)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A constructor that failed leaves no gate; a fork leaves a copy that owns nothing.
        uses = getattr(self, "_uses", None)
        if uses is None or uses.closed or os.getpid() != self._pid:
            return
        began = self._store.living
        uses.close(self._release)
        if began:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        state = " closed" if self._uses.closed else " lost" if self._store.lost else ""
        return f"<CowSnapshot of {self.name!r} at {self.created.isoformat(timespec='milliseconds')}{state}>"

    def __reduce_ex__(self, protocol: Any, /) -> Any:  # noqa: ANN401 - object's own signature
        """A snapshot belongs to its process."""
        raise UsageError("a CowSnapshot cannot be pickled or copied", hint="pass what was read from it")


class _CowReader(BlockReader):
    """Reads a snapshot; keeps it from being collected."""

    def __init__(self, snapshot: CowSnapshot, engine: CowEngine, store: ShadowStore, uses: UseGate) -> None:
        backing = engine.backing
        super().__init__(
            backing.size,
            sector_size=backing.sector_size,
            metadata=ImageMetadata(
                volume=engine.name,
                device=backing.origins[0] if backing.origins else "",
                provider="cow",
                snapshot_id=snapshot.snapshot_id,
                created=snapshot.created,
                consistency=Consistency.CRASH,
            ),
        )
        self._snapshot = snapshot
        self._engine = engine
        self._store = store
        self._uses = uses

    @property
    def origins(self) -> tuple[str, ...]:
        """The file or device behind the volume."""
        return self._engine.backing.origins

    def _read_into(self, view: memoryview, offset: int) -> None:
        with self._uses:
            self._engine.read_snapshot(self._store, view, offset)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        extents = self._engine.snapshot_extents(self._store, offset, length)
        while True:
            with self._uses:
                extent = next(extents, None)
            if extent is None:
                return
            yield extent

    def _confirm(self) -> None:
        self._snapshot.confirm()
