"""One shadow copy: what the catalog and its store say of it, whether it can be read, and its blocks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from vsssnap.errors import DeviceReadError, ImageError, UsageError
from vsssnap.volumes.shadow.nodes import read_node
from vsssnap.volumes.shadow.reader import ShadowReader, UnusedBlocks
from vsssnap.volumes.shadow.structs import (
    NODE_SIZE,
    NodeHeader,
    RecordType,
    ShadowAttributes,
    ShadowFlags,
    StoreInformation,
)

if TYPE_CHECKING:
    from vsssnap.volumes.shadow.stack import Level, Place
    from vsssnap.volumes.shadow.view import View

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

    def __init__(self, level: Level) -> None:
        """Made by `ShadowVolume`."""
        entry, place = level.entry, level.place
        self._level = level
        self._notes: list[str] = []
        self.number = level.number
        self.position = entry.stack_position
        self.store_id = level.store_id
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
        if self.scoped:
            self._notes.append("it is scoped: files that Windows left out of it have lost their content")

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
        level, context = self._level, self._level.context
        reasons = [*context.notes, *self._notes]
        try:
            level.chain()
        except (ImageError, DeviceReadError, UsageError) as exc:
            return ShadowHealth(readable=False, reasons=(*reasons, str(exc)))
        try:
            level.bitmaps()
        except (ImageError, DeviceReadError) as exc:
            reasons.append(f"it opens with unused=UnusedBlocks.CURRENT only: {exc}")
        missing = self.size - context.volume.size
        if 0 < missing <= context.boot.sector_size:
            reasons.append(f"the last {missing} bytes of the volume are not there and read as zeros")
        elif missing > 0:
            reasons.append(f"{missing} bytes behind the end of the volume are lost unless a store has them")
        if lost := level.lost():
            reasons.append(f"{lost} of its blocks lie outside of the shadow storage and are lost")
        return ShadowHealth(readable=True, reasons=tuple(reasons))

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
        level, volume = self._level, self._level.context.volume
        view, problem = self._view(policy)
        shows_unused = policy is UnusedBlocks.CURRENT or (
            policy is UnusedBlocks.WINDOWS and not level.newest and not self.scoped
        )
        notes = [
            f"{level.name} read from its store, unused blocks: {policy}",
            *level.context.notes,
            *self._notes,
        ]
        if problem:
            notes.append(f"which blocks were not in use is not known: {problem}")
        return ShadowReader(
            view,
            volume,
            level.context.storage,
            name=level.name,
            unused=policy,
            shows_unused=shows_unused,
            # What the volume's image says of its own instant says nothing of this one.
            metadata=volume.metadata.replace(
                provider="vss",
                snapshot_id=str(self.copy_id or self.store_id),
                created=self.created,
                consistency=None,
                writers=(),
                documents={},
                notes=(*volume.metadata.notes, *notes),
            ),
        )

    def _view(self, policy: UnusedBlocks) -> tuple[View, str]:
        """The map of its blocks, and why it may not tell which were not in use."""
        self._level.chain()  # without it there is nothing to read
        try:
            bitmaps = self._level.bitmaps()
        except (ImageError, DeviceReadError) as exc:
            if policy is UnusedBlocks.CURRENT:
                return self._level.view(()), str(exc)
            exc.message = f"{self._level.name}: {exc.message}"
            exc.hint = "unused=UnusedBlocks.CURRENT does without it"
            raise
        return self._level.view(bitmaps), ""


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
