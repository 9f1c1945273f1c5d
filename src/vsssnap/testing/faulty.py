"""Readers, storages and providers that fail as `Faults` says."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar

from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import DeviceReadError, SnapshotError
from vsssnap.formats.storage import Storage
from vsssnap.providers.base import Provider
from vsssnap.testing.faults import Faults, FaultySource, write_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vsssnap._deadline import Deadline
    from vsssnap.blocks.extent import Extent
    from vsssnap.blocks.reader import SupportsPread
    from vsssnap.metadata import WriterReport
    from vsssnap.providers.base import (
        AllocationMap,
        LeftOut,
        Offer,
        ProviderStep,
        SnapshotRecord,
        SnapshotRequest,
        SnapshotVolume,
        Taken,
    )


class FaultyReader(BlockReader):
    """A reader with faults: what it raises is what a reader may raise.

    Closing it closes what it wraps, if that is a reader.
    """

    def __init__(self, source: SupportsPread, faults: Faults) -> None:
        """Wrap a source.

        Args:
            source: What is read.
            faults: Rules for ``pread``, ``extents`` and ``confirm``, and `Faults.lose`.
        """
        self._faulty = FaultySource(source, faults)
        self._inner = source
        super().__init__(source.size, sector_size=self._faulty.sector_size, metadata=self._faulty.metadata)

    @property
    def origins(self) -> tuple[str, ...]:
        """Those of what it wraps."""
        return self._inner.origins if isinstance(self._inner, BlockReader) else ()

    def _read(self, length: int, offset: int) -> bytes:
        data = self._faulty.pread(length, offset)
        if len(data) != length:
            raise DeviceReadError(
                f"the device gave {len(data)} of {length} bytes at {offset}",
                offset=offset,
                length=length,
                call="pread",
                hint="the fault was ordered by a test",
            )
        return data

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        return self._faulty.extents(offset, length)

    def _confirm(self) -> None:
        self._faulty.confirm()

    def _release(self) -> None:
        if isinstance(self._inner, BlockReader):
            self._inner.close()


class FaultyStorage(Storage):
    """A storage with faults: a full disk, a failing one, one that cannot be flushed.

    Closing it closes what it wraps.
    """

    def __init__(self, storage: Storage, faults: Faults) -> None:
        """Wrap a storage.

        Args:
            storage: Where the bytes go.
            faults: Rules for ``pread``, ``append``, ``pwrite``, ``truncate``, ``allocate``,
                ``flush`` and ``close``, and `Faults.fill`.
        """
        self._inner = storage
        self._faults = faults
        self.name = storage.name
        self.seekable = storage.seekable

    @property
    def size(self) -> int:
        """See `Storage`."""
        return self._inner.size

    def pread(self, length: int, offset: int, /) -> bytes:
        """See `Storage`."""
        self._hit("pread", offset, length)
        return self._inner.pread(length, offset)

    def append(self, parts: Sequence[bytes | bytearray | memoryview], /) -> int:
        """See `Storage`."""
        self._hit("append", self.size, sum(map(len, parts)))
        start = self.size
        for part in parts:
            room = self._faults.room(len(part))
            self._inner.append([memoryview(part)[:room]])
            if room < len(part):
                raise write_error(errno.ENOSPC, self.name, "append")
        return start

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int, /) -> None:
        """See `Storage`."""
        self._hit("pwrite", offset, len(data))
        room = self._faults.room(len(data))
        self._inner.pwrite(memoryview(data)[:room], offset)
        if room < len(data):
            raise write_error(errno.ENOSPC, self.name, "pwrite")

    def truncate(self, size: int, /) -> None:
        """See `Storage`."""
        self._hit("truncate")
        self._inner.truncate(size)

    def allocate(self, size: int, /) -> None:
        """See `Storage`."""
        self._hit("allocate")
        grown = max(0, size - self.size)
        if self._faults.room(grown) < grown:
            raise write_error(errno.ENOSPC, self.name, "allocate")
        self._inner.allocate(size)

    def flush(self) -> None:
        """See `Storage`."""
        self._hit("flush")
        self._inner.flush()

    def extents(self, offset: int, length: int, /) -> Iterator[Extent]:
        """See `Storage`."""
        return self._inner.extents(offset, length)

    def close(self) -> None:
        """See `Storage`; what it wraps is closed also if a rule makes this raise."""
        try:
            self._hit("close")
        finally:
            self._inner.close()

    def _hit(self, call: str, offset: int = 0, length: int = 0) -> None:
        def reading(number: int) -> BaseException:
            return DeviceReadError(
                f"{self.name}: cannot read {length} bytes at {offset}",
                offset=offset,
                length=length,
                call="pread",
                code=number,
                hint="the fault was ordered by a test",
            )

        def writing(number: int) -> BaseException:
            return write_error(number, self.name, call)

        self._faults.hit(call, offset, length, wrap=reading if call == "pread" else writing)


class FaultyProvider(Provider):
    """A provider with faults in any step, and readers with the same `Faults`.

    A rule for ``release`` raises after what it wraps was released, so that a test leaves nothing.
    """

    name = "faulty"

    def __init__(self, provider: Provider, faults: Faults) -> None:
        """Wrap a provider.

        Args:
            provider: What takes the snapshots.
            faults: Rules for its methods and for its readers', and `Faults.lose`.
        """
        self._inner = provider
        self._faults = faults

    def unusable(self) -> str:
        """See `Provider`."""
        self._hit("unusable")
        return self._inner.unusable()

    def probe(self, request: SnapshotRequest, /) -> Offer:
        """See `Provider`."""
        self._hit("probe")
        return self._inner.probe(request)

    def prepare(self, request: SnapshotRequest, deadline: Deadline, /) -> None:
        """See `Provider`."""
        self._hit("prepare")
        self._inner.prepare(request, deadline)
        self.completing = self._inner.completing

    def instant(self, deadline: Deadline, /) -> bool:
        """See `Provider`."""
        self._hit("instant")
        return self._inner.instant(deadline)

    def take(self, deadline: Deadline, /) -> Taken:
        """See `Provider`."""
        self._hit("take")
        return self._inner.take(deadline)

    def open(self, volume: SnapshotVolume, /) -> BlockReader:
        """See `Provider`."""
        self._hit("open")
        return FaultyReader(self._inner.open(volume), self._faults)

    def allocation(self, volume: SnapshotVolume, /) -> AllocationMap | None:
        """See `Provider`."""
        self._hit("allocation")
        return self._inner.allocation(volume)

    def excluded(self, volume: SnapshotVolume, kinds: frozenset[str], /) -> Sequence[LeftOut]:
        """See `Provider`."""
        self._hit("excluded")
        return self._inner.excluded(volume, kinds)

    def complete(self, deadline: Deadline, /) -> Sequence[WriterReport]:
        """See `Provider`."""
        self._hit("complete")
        return self._inner.complete(deadline)

    def steps(self) -> Sequence[ProviderStep]:
        """See `Provider`; it never fails."""
        return self._inner.steps()

    def alive(self) -> None:
        """See `Provider`."""
        self._hit("alive")
        self._faults.check_lost()
        self._inner.alive()

    def release(self, deadline: Deadline, /) -> None:
        """See `Provider`."""
        self._inner.release(deadline)
        self._hit("release")

    def attach(self, snapshot_id: str, /, *, own: bool) -> Taken:
        """See `Provider`."""
        self._hit("attach")
        return self._inner.attach(snapshot_id, own=own)

    def list(self) -> Sequence[SnapshotRecord]:
        """See `Provider`."""
        self._hit("list")
        return self._inner.list()

    def purge(self, record: SnapshotRecord, deadline: Deadline, /) -> None:
        """See `Provider`."""
        self._hit("purge")
        self._inner.purge(record, deadline)

    def _hit(self, step: str) -> None:
        def failed(number: int) -> BaseException:
            return SnapshotError(f"{step} failed", call=step, code=number, hint="a test ordered it")

        self._faults.hit(step, wrap=failed)


def faulty_provider(provider: type[Provider], faults: Faults, /) -> type[Provider]:
    """A provider class of the same name whose objects fail as ``faults`` says; for `installed`."""
    named = provider

    class Faulty(FaultyProvider):
        name: ClassVar[str] = named.name
        options_type: ClassVar[type | None] = named.options_type

        def __init__(self) -> None:
            super().__init__(named(), faults)

    return Faulty
