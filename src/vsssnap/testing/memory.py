"""Volumes, readers and snapshots in memory: stand-ins that keep the contracts."""

from __future__ import annotations

import itertools
import threading
import uuid
import weakref
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

from vsssnap._units import is_power_of_two, whole
from vsssnap.blocks.extent import Extent, ExtentKind, clip, coalesce
from vsssnap.blocks.reader import BlockReader
from vsssnap.consistency import Consistency
from vsssnap.errors import DeviceReadError, ProviderUnavailableError, SnapshotLostError, UsageError
from vsssnap.formats.base import ImageFormat
from vsssnap.formats.registry import _REGISTRY as _FORMATS
from vsssnap.providers.base import (
    Offer,
    Provider,
    SnapshotRecord,
    SnapshotRequest,
    SnapshotVolume,
    Taken,
)
from vsssnap.providers.choice import _REGISTRY as _PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vsssnap._deadline import Deadline
    from vsssnap.metadata import ImageMetadata


class MemoryReader(BlockReader):
    """Bytes as a reader, with extents of the test's choice.

    UNREADABLE ranges raise, and kinds that read as zeros do so whatever the bytes are.
    """

    def __init__(
        self,
        content: bytes,
        extents: Sequence[Extent] | None = None,
        *,
        sector_size: int = 512,
        metadata: ImageMetadata | None = None,
    ) -> None:
        """Wrap bytes.

        Args:
            content: The volume.
            extents: Ascending and gap-free over it; None for all DATA.
            sector_size: Of the volume.
            metadata: Of the volume.

        Raises:
            UsageError: the extents have gaps or another size.
        """
        super().__init__(len(content), sector_size=sector_size, metadata=metadata)
        plain = [Extent(0, len(content))] if content else []
        self._map = plain if extents is None else list(coalesce(extents))
        at = 0
        data = bytearray(content)
        for extent in self._map:
            if extent.offset != at or extent.end > len(content):
                raise UsageError(f"extents have {extent.offset}+{extent.length} where {at} had to begin")
            at = extent.end
            if extent.reads_as_zero:
                data[extent.offset : at] = bytes(extent.length)
        if at != len(content):
            raise UsageError(f"extents end at {at}, the content at {len(content)}")
        self._content = bytes(data)

    def _read(self, length: int, offset: int) -> bytes:
        for extent in clip(self._map, offset, length):
            if extent.kind is ExtentKind.UNREADABLE:
                raise DeviceReadError(
                    f"cannot read {extent.length} bytes at {extent.offset}",
                    offset=extent.offset,
                    length=extent.length,
                    hint="the range is marked UNREADABLE",
                )
        return self._content[offset : offset + length]

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        return clip(self._map, offset, length)


class MemoryVolume:
    """A volume in memory that is read, written and snapshotted.  Thread-safe.

    A source (``size``, ``pread``) and a target (``pwrite``).  `MemoryProvider` finds it as an
    object or by its name.
    """

    _named: ClassVar[weakref.WeakValueDictionary[str, MemoryVolume]] = weakref.WeakValueDictionary()
    _numbers: ClassVar[Iterator[int]] = itertools.count(1)

    def __init__(self, content: int | bytes, *, name: str = "", sector_size: int = 512) -> None:
        """Make a volume.

        Args:
            content: Its bytes, or its size for zeros.
            name: What a provider finds it by; "" for one of its own.
            sector_size: A power of two.
        """
        self._data = bytearray(whole(content, "content") if not isinstance(content, bytes) else content)
        self.size = len(self._data)
        self.sector_size = whole(sector_size, "sector_size", least=1)
        if not is_power_of_two(self.sector_size):
            raise UsageError(f"sector_size is {sector_size}, no power of two")
        self.name = name or f"memory:{next(self._numbers)}"
        self._lock = threading.RLock()
        self._snapshots: weakref.WeakSet[_Frozen] = weakref.WeakSet()
        self._named[self.name] = self

    def __str__(self) -> str:
        return self.name

    def pread(self, length: int, offset: int, /) -> bytes:
        """What it holds at this moment."""
        with self._lock:
            return bytes(self._data[whole(offset, "offset") : offset + whole(length, "length")])

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int, /) -> int:
        """Overwrite; the volume keeps its size."""
        if whole(offset, "offset") + len(data) > self.size:
            raise UsageError(f"{len(data)} bytes at {offset} are behind the end, {self.size}")
        with self._lock:
            self._data[offset : offset + len(data)] = data
        return len(data)

    def lose_snapshots(self, reason: str = "no room for the copy-on-write data") -> None:
        """Take away every snapshot of this volume, as a system does that runs out of room."""
        with self._lock:
            for frozen in self._snapshots:
                frozen.lost = reason

    @classmethod
    def find(cls, volume: object) -> MemoryVolume | None:
        """A volume itself or by its name; None if there is none."""
        if isinstance(volume, MemoryVolume):
            return volume
        return cls._named.get(volume) if isinstance(volume, str) else None

    def _freeze(self, frozen: _Frozen) -> bytes:
        self._snapshots.add(frozen)
        return bytes(self._data)


@dataclass(eq=False)
class _Frozen:
    """One snapshot: of some volumes, at one instant."""

    taken: Taken
    contents: dict[str, bytes]
    persistent: bool
    lost: str | None = None

    def check(self) -> None:
        if self.lost is not None:
            raise SnapshotLostError(
                f"snapshot {self.taken.snapshot_id} is lost: {self.lost}",
                hint="discard the copy and take the snapshot again",
            )


class _FrozenReader(MemoryReader):
    def __init__(self, frozen: _Frozen, volume: SnapshotVolume) -> None:
        super().__init__(frozen.contents[volume.device], sector_size=volume.sector_size)
        self._frozen = frozen

    def _read(self, length: int, offset: int) -> bytes:
        self._frozen.check()
        return super()._read(length, offset)

    def _confirm(self) -> None:
        self._frozen.check()


class MemoryProvider(Provider):
    """Snapshots of `MemoryVolume`: a provider for tests of what uses providers.

    Several volumes are of one instant.  A subclass may set ``level`` (what it offers) and
    ``machine`` (where persistent snapshots are kept).  `installed` makes `Snapshot` find it, and
    `faulty_provider` makes it fail.
    """

    name = "memory"
    level: ClassVar[Consistency] = Consistency.CRASH
    machine: ClassVar[dict[str, _Frozen]] = {}

    def __init__(self) -> None:
        self._request: SnapshotRequest | None = None
        self._frozen: _Frozen | None = None
        self._own = False  # whether release removes a persistent snapshot

    def probe(self, request: SnapshotRequest, /) -> Offer:
        """See `Provider`."""
        for volume in request.volumes:
            if MemoryVolume.find(volume) is None:
                return Offer(None, f"{volume} is no MemoryVolume", unrelated=True)
        return Offer(self.level) if request.volumes else Offer(None, "no volume is asked for")

    def prepare(self, request: SnapshotRequest, deadline: Deadline, /) -> None:
        """See `Provider`."""
        deadline.check("prepare a snapshot in memory")
        offer = self.probe(request)
        if offer.level is None:
            raise ProviderUnavailableError("cannot snapshot in memory", reasons={self.name: offer.reason})
        self._request = request

    def take(self, deadline: Deadline, /) -> Taken:
        """See `Provider`."""
        deadline.check("take a snapshot in memory")
        if self._request is None:
            raise UsageError("take() came before prepare()")
        volumes = [v for v in map(MemoryVolume.find, self._request.volumes) if v is not None]
        if len(volumes) < len(self._request.volumes):
            raise SnapshotLostError("a volume is gone", hint="keep the MemoryVolume while it is snapshotted")
        taken = Taken(
            snapshot_id=str(uuid.uuid4()),
            created=datetime.now(UTC),
            level=self.level,
            volumes=tuple(
                SnapshotVolume(name=str(asked), device=v.name, size=v.size, sector_size=v.sector_size)
                for asked, v in zip(self._request.volumes, volumes, strict=True)
            ),
        )
        frozen = _Frozen(taken, {}, self._request.persistent)
        with ExitStack() as stack:
            # All locks at once: that is the instant.  In one order, so that two takers cannot block
            # each other.
            for volume in sorted(set(volumes), key=id):
                stack.enter_context(volume._lock)  # noqa: SLF001 - a class of this module
            for volume in set(volumes):
                frozen.contents[volume.name] = volume._freeze(frozen)  # noqa: SLF001 - as above
        if frozen.persistent:
            self.machine[taken.snapshot_id] = frozen
        self._frozen = frozen
        return taken

    def open(self, volume: SnapshotVolume, /) -> BlockReader:
        """See `Provider`."""
        frozen = self._live()
        if volume.device not in frozen.contents:
            raise UsageError(f"{volume.name} is no volume of this snapshot")
        return _FrozenReader(frozen, volume)

    def alive(self) -> None:
        """See `Provider`."""
        self._live()

    def _live(self) -> _Frozen:
        if self._frozen is None:
            raise SnapshotLostError("there is no snapshot: it was not taken, or released")
        self._frozen.check()
        return self._frozen

    def release(self, deadline: Deadline, /) -> None:
        """See `Provider`; harmless when there is nothing to release."""
        frozen, self._frozen, self._request = self._frozen, None, None
        if frozen is not None and (self._own or not frozen.persistent):
            frozen.lost = frozen.lost or "it was released"
            self.machine.pop(frozen.taken.snapshot_id, None)

    def attach(self, snapshot_id: str, /, *, own: bool) -> Taken:
        """See `Provider`."""
        frozen = self.machine.get(snapshot_id)
        if frozen is None:
            return super().attach(snapshot_id, own=own)
        self._frozen, self._own = frozen, own
        return frozen.taken

    def list(self) -> Sequence[SnapshotRecord]:
        """See `Provider`: the persistent ones."""
        return tuple(
            SnapshotRecord(
                provider=self.name,
                snapshot_id=frozen.taken.snapshot_id,
                volumes=tuple(volume.name for volume in frozen.taken.volumes),
                created=frozen.taken.created,
                owned=True,
            )
            for frozen in list(self.machine.values())
        )

    def purge(self, record: SnapshotRecord, deadline: Deadline, /) -> None:
        """See `Provider`."""
        deadline.check("purge a snapshot in memory")
        frozen = self.machine.pop(record.snapshot_id, None)
        if frozen is None:
            super().purge(record, deadline)
        else:
            frozen.lost = frozen.lost or "it was purged"


@contextmanager
def installed(driver: type[Provider | ImageFormat], /) -> Iterator[None]:
    """Have a provider or format found by its name, as if its package were installed.

    It comes before all others, and in place of one of the same name.

    Args:
        driver: The class; made without arguments whenever one is needed.
    """
    registry = _FORMATS if issubclass(driver, ImageFormat) else _PROVIDERS
    with registry.lent(driver.name, driver):
        yield
