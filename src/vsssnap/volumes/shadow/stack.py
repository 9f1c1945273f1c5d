"""The stores of a volume as a stack: each shadow copy needs its own store and all newer ones."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from vsssnap.errors import DeviceReadError, ImageError, UsageError, VssSnapError
from vsssnap.volumes.shadow.bitmap import Bitmap
from vsssnap.volumes.shadow.table import KIND, LOST, Table, read_table
from vsssnap.volumes.shadow.view import View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vsssnap.blocks.reader import BlockReader
    from vsssnap.volumes.shadow.catalog import Boot
    from vsssnap.volumes.shadow.structs import LocationEntry, SnapshotEntry


@dataclass(frozen=True)
class Place:
    """Where a store lies."""

    location: LocationEntry
    storage: BlockReader
    kind: int  # OWN or OTHER


@dataclass(frozen=True)
class Context:
    """What the shadow copies of a volume share."""

    volume: BlockReader
    storage: BlockReader | None
    boot: Boot
    limit: int  # bytes of the volume at its largest
    notes: tuple[str, ...]  # what is wrong with the catalog, for all of them


class Level:
    """The store of one shadow copy, and what is known of the newer ones.  Thread-safe.

    Attributes:
        context: What is common to all.
        number: From 1 for the oldest.
        entry: Of the catalog.
        place: Where the store lies; None if that is not known.
        store_id: Its id.
    """

    def __init__(self, context: Context, number: int, entry: SnapshotEntry, place: Place | None) -> None:
        self.context = context
        self.number = number
        self.entry = entry
        self.place = place
        self.store_id = UUID(bytes_le=entry.store_id)
        self._newer: Level | None = None
        self._refusal: VssSnapError | None = None  # why the store itself cannot be used
        self._chain_refusal: VssSnapError | None = None  # why the ones it depends on are not known
        self._table: Table | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"shadow copy {self.number} ({self.store_id})"

    @property
    def newest(self) -> bool:
        """Whether no other one is newer."""
        return self._newer is None

    def refuse(self, error: VssSnapError, *, chain: bool = False) -> None:
        """Say why it cannot be read; ``chain``: for what is not known of newer ones."""
        if chain:
            self._chain_refusal = self._chain_refusal or error
        else:
            self._refusal = self._refusal or error

    def link(self, newer: Level) -> None:
        """Name the next newer shadow copy."""
        self._newer = newer

    def table(self) -> Table:
        """Its block list, read once.

        Raises:
            CorruptImageError: it, or the store, is damaged.
            DeviceReadError: it cannot be read.
            UsageError: the store lies on another volume that was not given.
        """
        with self._lock:
            if self._refusal is not None:
                raise copy.copy(self._refusal)
            if self._table is None:
                assert self.place is not None  # noqa: S101 - a store without one was refused
                location, storage = self.place.location, self.place.storage
                try:
                    self._table = read_table(
                        storage, location.block_list, self.place.kind, self.context.limit
                    )
                except (ImageError, DeviceReadError) as exc:
                    self._refusal = copy.copy(exc)
                    raise
            return self._table

    def chain(self) -> list[Table]:
        """The tables of this shadow copy and of all newer ones, oldest first.

        Raises:
            CorruptImageError: one of them is damaged or missing; the message says which.
            DeviceReadError, UsageError: see `table`.
        """
        tables = [self.table()]
        one = self
        while True:
            if one._chain_refusal is not None:
                raise copy.copy(one._chain_refusal)
            if one._newer is None:
                return tables
            one = one._newer
            try:
                tables.append(one.table())
            except VssSnapError as exc:
                if isinstance(exc, ImageError | DeviceReadError | UsageError):
                    exc.message = f"{self.name} depends on {one.name}: {exc.message}"
                raise

    def bitmaps(self) -> list[Bitmap]:
        """The bitmaps that tell which blocks it did not protect; none if it has none.

        Raises:
            CorruptImageError: one is damaged.
            DeviceReadError: one cannot be read.
        """
        place = self.place
        if place is None:
            return []
        found = []
        for first, whole in ((place.location.bitmap, True), (place.location.previous_bitmap, False)):
            if first:
                found.append(Bitmap(place.storage, first, self.entry.volume_size, whole=whole))
            elif whole:  # without the first one the second one says nothing
                return []
        return found

    def lost(self) -> int:
        """How many blocks its table knows that lie nowhere."""
        table = self.table()
        count = sum(source & KIND == LOST for source in table.sources)
        count += sum(target is None for target in table.forwards.values())
        return count + sum(patch is None for patch, _ in table.overlays.values())

    def view(self, bitmaps: Sequence[Bitmap]) -> View:
        """The map of its blocks.

        Args:
            bitmaps: What `bitmaps` gave; with none of them every block counts as protected.

        Raises:
            CorruptImageError, DeviceReadError, UsageError: see `chain`.
        """
        chain = self.chain()
        assert self.place is not None  # noqa: S101 - a store without one was refused
        volume, sector_size = self.context.volume, self.context.boot.sector_size
        return View(volume, self.entry.volume_size, chain, self.place.kind, bitmaps, sector_size)
