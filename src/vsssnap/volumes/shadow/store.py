"""One shadow copy: what the catalog and its store say of it, whether it can be read, and its blocks."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from vsssnap.errors import DeviceReadError, ImageError, UsageError, VssSnapError
from vsssnap.volumes.shadow.bitmap import Bitmap
from vsssnap.volumes.shadow.nodes import read_node
from vsssnap.volumes.shadow.reader import ShadowReader, UnusedBlocks
from vsssnap.volumes.shadow.structs import (
    NODE_SIZE,
    LocationEntry,
    NodeHeader,
    RecordType,
    ShadowAttributes,
    ShadowFlags,
    SnapshotEntry,
    StoreInformation,
)
from vsssnap.volumes.shadow.table import KIND, LOST, Table, read_table
from vsssnap.volumes.shadow.view import View

if TYPE_CHECKING:
    from vsssnap.blocks.reader import BlockReader
    from vsssnap.volumes.shadow.catalog import Boot

MAX_VOLUME: Final = 1 << 53
"""Bytes of the largest NTFS volume: 2**32 clusters of 2 MiB."""
_EPOCH: Final = datetime(1601, 1, 1, tzinfo=UTC)
_SMALL: Final = 1 << 12  # bytes: no name of a machine is longer


@dataclass(frozen=True, slots=True)
class ShadowHealth:
    """Whether a shadow copy can be read.

    Attributes:
        readable: Whether `ShadowStore.open` works.
        reasons: What is wrong, a sentence each; with ``readable`` it concerns details or single blocks.
    """

    readable: bool
    reasons: tuple[str, ...]


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


class ShadowStore:
    """A shadow copy of a volume, and the store that keeps it.  Thread-safe.

    Attributes:
        number: Its place among `ShadowVolume.stores`, 1 for the oldest.
        position: Its stack position, by which Windows orders them.
        store_id: Names the store; the catalog pairs by it.
        copy_id: The shadow copy id that Windows shows; None if the store header cannot be read.
        set_id: Shadow copies with the same one are of the same instant; None likewise.
        created: The instant, UTC, in microseconds; None if the catalog holds no time.
        created_filetime: The same as it stands there, in units of 100 ns since 1601.
        size: Bytes of the volume then.
        flags: Of the store.
        attributes: VSS_VOLUME_SNAPSHOT_ATTRIBUTES; 0 if the store header cannot be read.
        context: VSS_CTX_* with which it was taken.
        snapshot_count: Shadow copies in its set.
        kind: GUID of what kind of shadow copy it is.
        machine: The computer that took it, or "".
        service_machine: The computer that served it, or "".
        file_reference: Of the file that holds the store: record number in the lower 48 bits; None if
            the store was not found.
        allocated_size: Bytes of that file; 0 where Windows does not say.
    """

    def __init__(self, context: Context, number: int, entry: SnapshotEntry, place: Place | None) -> None:
        """Made by `ShadowVolume`."""
        self._context = context
        self._place = place
        self._newer: ShadowStore | None = None
        self._refusal: VssSnapError | None = None  # why the store itself cannot be used
        self._chain_refusal: VssSnapError | None = None  # why the ones it depends on are not known
        self._notes: list[str] = []
        self._lock = threading.Lock()
        self._table: Table | None = None
        self.number = number
        self.position = entry.stack_position
        self.store_id = UUID(bytes_le=entry.store_id)
        self.size = entry.volume_size
        self.flags = ShadowFlags(entry.flags)
        self.created_filetime = entry.created
        self.created = self._time(entry.created)
        self.copy_id: UUID | None = None
        self.set_id: UUID | None = None
        self.kind: UUID | None = None
        self.attributes = ShadowAttributes(0)
        self.context = self.snapshot_count = 0
        self.machine = self.service_machine = ""
        self.file_reference = place.location.file_reference if place else None
        self.allocated_size = place.location.allocated_size if place else 0
        if place is not None:
            self._read_information(place)

    def __repr__(self) -> str:
        return f"<ShadowStore {self.number} {self.store_id} of {self.created}>"

    # What it says of itself.

    @property
    def offline(self) -> bool:
        """Whether its user deleted it; Windows shows it no more and keeps it for older ones."""
        return ShadowFlags.OFFLINE in self.flags

    @property
    def scoped(self) -> bool:
        """Whether it may leave out blocks of files that were in use (restore points since Windows 8)."""
        return ShadowFlags.UNUSED_READS_ZERO in self.flags

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"shadow copy {self.number} ({self.store_id})"

    def _time(self, filetime: int) -> datetime | None:
        try:
            return _EPOCH + timedelta(microseconds=filetime // 10) if filetime else None
        except OverflowError:
            self._notes.append(f"its time is {filetime}, behind every calendar")
            return None

    def _read_information(self, place: Place) -> None:
        """Read the store header, as far as it can be; the blocks do not depend on it."""
        try:
            block, _ = read_node(place.storage, place.location.store_header, RecordType.STORE_HEADER)
            known = StoreInformation.unpack(block, NODE_SIZE)
        except (ImageError, DeviceReadError) as exc:
            self._notes.append(f"its ids and attributes are not known: {exc}")
            return
        self.kind, self.copy_id, self.set_id = (
            UUID(bytes_le=value) for value in (known.kind, known.copy_id, known.set_id)
        )
        self.context, self.snapshot_count = known.context, known.snapshot_count
        self.attributes = ShadowAttributes(known.attributes)
        # Some versions put other things before the names; those are then left out.
        size = int.from_bytes(block[NodeHeader.SIZE : NodeHeader.SIZE + 8], "little")
        rest = bytes(block[NODE_SIZE + StoreInformation.SIZE : NODE_SIZE + min(size, len(block))])
        self.machine, rest = _text(rest)
        self.service_machine, _ = _text(rest)

    @property
    def health(self) -> ShadowHealth:
        """Whether it can be read, and what is wrong; reads the tables of it and of all newer ones."""
        reasons = [*self._context.notes, *self._notes]
        readable = True
        try:
            self.chain()
        except VssSnapError as exc:
            if not isinstance(exc, ImageError | DeviceReadError | UsageError):
                raise
            return ShadowHealth(readable=False, reasons=(*reasons, str(exc)))
        try:
            self.bitmaps()
        except (ImageError, DeviceReadError) as exc:
            reasons.append(f"it opens with unused=UnusedBlocks.CURRENT only: {exc}")
        missing = self.size - self._context.volume.size
        if 0 < missing <= self._context.boot.sector_size:
            reasons.append(f"the last {missing} bytes of the volume are not there and read as zeros")
        elif missing > 0:
            reasons.append(f"{missing} bytes behind the end of the volume are lost unless a store has them")
        lost = self._lost()
        if lost:
            reasons.append(f"{lost} of its blocks lie outside of the shadow storage and are lost")
        return ShadowHealth(readable, tuple(reasons))

    def _lost(self) -> int:
        table = self.table()
        return sum(1 for source in table.sources if source & KIND == LOST) + sum(
            1 for patch, _ in table.overlays.values() if patch is None
        )

    # Its tables.

    def refuse(self, error: VssSnapError, *, chain: bool = False) -> None:
        """Say why it cannot be read; ``chain``: for what is not known of newer ones."""
        if chain:
            self._chain_refusal = self._chain_refusal or error
        else:
            self._refusal = self._refusal or error

    def link(self, newer: ShadowStore) -> None:
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
                assert self._place is not None  # noqa: S101 - a store without one was refused
                location, storage = self._place.location, self._place.storage
                try:
                    self._table = read_table(
                        storage, location.block_list, self._place.kind, self._context.limit
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
        place = self._place
        if place is None:
            return []
        found = []
        for first, whole in ((place.location.bitmap, True), (place.location.previous_bitmap, False)):
            if first:
                found.append(Bitmap(place.storage, first, self.size, whole=whole))
            elif whole:  # without the first one the second one says nothing
                return []
        return found

    # Its blocks.

    def open(self, unused: UnusedBlocks = UnusedBlocks.ZERO) -> ShadowReader:
        """The volume as it was.

        Args:
            unused: What is given for blocks that were not in use.

        Raises:
            CorruptImageError: its store, or that of a newer shadow copy, is damaged.
            DeviceReadError: one of them cannot be read.
            UsageError: its store lies on another volume, which was not given; or no such policy.
        """
        policy = _policy(unused)
        view, bitmaps_missing = self._view(policy)
        older = self._newer is not None
        shows_unused = policy is UnusedBlocks.CURRENT or (
            policy is UnusedBlocks.WINDOWS and older and not self.scoped
        )
        notes = [*self._context.notes, *self._notes]
        if bitmaps_missing:
            notes.append(f"which blocks were not in use is not known: {bitmaps_missing}")
        if self.scoped:
            notes.append("a scoped shadow copy: files that Windows left out of it have lost their content")
        volume = self._context.volume
        return ShadowReader(
            view,
            volume,
            self._context.storage,
            name=self.name,
            unused=policy,
            shows_unused=shows_unused,
            metadata=volume.metadata.replace(
                provider="vss",
                snapshot_id=str(self.copy_id or self.store_id),
                created=self.created,
                notes=(
                    *volume.metadata.notes,
                    f"{self.name} read from its store, unused blocks: {policy}",
                    *notes,
                ),
            ),
        )

    def _view(self, policy: UnusedBlocks) -> tuple[View, str]:
        chain = self.chain()
        problem = ""
        try:
            bitmaps = self.bitmaps()
        except (ImageError, DeviceReadError) as exc:
            if policy is not UnusedBlocks.CURRENT:
                exc.message = f"{self.name}: {exc.message}"
                exc.hint = "unused=UnusedBlocks.CURRENT does without it"
                raise
            bitmaps, problem = [], str(exc)
        assert self._place is not None  # noqa: S101 - chain() refused it
        context = self._context
        sector = context.boot.sector_size
        return View(context.volume, self.size, chain, self._place.kind, bitmaps, sector), problem

    def view(self) -> View:
        """The map of its blocks, with its bitmaps.

        Raises:
            CorruptImageError, DeviceReadError, UsageError: see `open`.
        """
        return self._view(UnusedBlocks.ZERO)[0]


def _policy(unused: str) -> UnusedBlocks:
    try:
        return UnusedBlocks(unused)
    except ValueError:
        names = ", ".join(policy.name for policy in UnusedBlocks)
        raise UsageError(f"unused is {unused!r}", hint=f"use one of UnusedBlocks: {names}") from None


def _text(data: bytes) -> tuple[str, bytes]:
    """A string with its length in bytes before it, and what follows; "" for anything else."""
    length = int.from_bytes(data[:2], "little")
    if not 0 < length <= min(_SMALL, len(data) - 2) or length % 2:
        return "", data[2:]
    try:
        text = data[2 : 2 + length].decode("utf-16-le")
    except UnicodeDecodeError:
        return "", b""
    return text.rstrip("\0"), data[2 + length :]
