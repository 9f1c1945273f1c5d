"""Small sources for tests: bytes with a map, and ones that misbehave."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence

from vsssnap.blocks.extent import Extent, ExtentKind, clip
from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import DeviceReadError, SnapshotLostError
from vsssnap.metadata import ImageMetadata


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)


def mixed(size: int, seed: int = 1, *, piece: int = 37_123) -> bytes:
    """Runs of noise and of zeros, of uneven lengths."""
    rng, parts, length = random.Random(seed), [], 0
    while length < size:
        count = min(size - length, rng.randrange(1, piece))
        parts.append(rng.randbytes(count) if rng.random() < 0.6 else bytes(count))
        length += count
    return b"".join(parts)


class BytesReader(BlockReader):
    """Bytes as a reader, with a map, failing ranges and a snapshot that can be lost."""

    def __init__(
        self,
        data: bytes,
        *,
        extents: Sequence[Extent] | None = None,
        bad: Sequence[tuple[int, int]] = (),
        lost_after: int | None = None,
        metadata: ImageMetadata | None = None,
        origins: tuple[str, ...] = (),
        before_read: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(len(data), metadata=metadata)
        self._data = data
        self._map = extents
        self._bad = bad
        self._lost_after = lost_after
        self._origins = origins
        self._before_read = before_read
        self._lock = threading.Lock()
        self.reads: list[tuple[int, int]] = []
        self.confirmed = 0

    @property
    def origins(self) -> tuple[str, ...]:
        return self._origins

    def _read(self, length: int, offset: int) -> bytes:
        if self._before_read is not None:
            self._before_read(offset)
        with self._lock:
            self.reads.append((offset, length))
        for start, count in self._bad:
            if start < offset + length and offset < start + count:
                raise DeviceReadError(
                    f"bad at {start}", offset=max(start, offset), length=count, call="pread", code=5
                )
        return self._data[offset : offset + length]

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        if self._map is None:
            yield Extent(offset, length, ExtentKind.DATA)
        else:
            yield from clip(self._map, offset, length)

    def _confirm(self) -> None:
        self.confirmed += 1
        if self._lost_after is not None and sum(length for _, length in self.reads) > self._lost_after:
            raise SnapshotLostError("the shadow storage is full", hint="take a new snapshot")


class Plain:
    """The least that is a source: size and pread, no base class."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def pread(self, length: int, offset: int, /) -> bytes:
        return self.data[offset : offset + length]


class Patched:
    """Bytes with one other byte, which costs no copy of them."""

    def __init__(self, data: bytes, place: int, flip: int) -> None:
        self._data = data
        self._place = place
        self._byte = bytes([data[place] ^ flip])
        self.size = len(data)

    def pread(self, length: int, offset: int, /) -> bytes:
        part = self._data[offset : offset + length]
        at = self._place - offset
        return part[:at] + self._byte + part[at + 1 :] if 0 <= at < len(part) else part
