"""A `Storage` that remembers every write, and what a power cut would have left of them."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap._units import whole
from vsssnap.formats.storage import MemoryStorage, Storage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SECTOR = 512


@dataclass(frozen=True, slots=True)
class Cut:
    """What a machine finds after its power failed.

    Attributes:
        after: How many operations had been asked for.
        lost: Which of those never reached the disk (their numbers), rising.
        description: Both in words, for a test's message.
        storage: The image's file as it is then.
    """

    after: int
    lost: tuple[int, ...]
    description: str
    storage: MemoryStorage


@dataclass(frozen=True, slots=True)
class _Write:
    data: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class _Truncate:
    size: int


class PowerCut(Storage):
    """Bytes in memory that record every `append`, `pwrite`, `truncate` and `flush`.

    Write an image to it, then open what `cuts` gives: each is to be refused, or recognised as
    incomplete, or whole and right.  Operations are numbered from 0; a flush is one.
    """

    def __init__(self, data: bytes = b"", name: str = "power-cut recorder") -> None:
        """Begin with a file that is safely on disk.

        Args:
            data: What it holds.
            name: For messages.
        """
        self.name = name
        self._first = bytes(data)
        self._now = MemoryStorage(data, name)
        self._log: list[_Write | _Truncate | None] = []  # None: a flush
        self.closed = False

    @property
    def size(self) -> int:
        """Bytes now, if the power stays on."""
        return self._now.size

    @property
    def operations(self) -> int:
        """How many were recorded."""
        return len(self._log)

    @property
    def unflushed(self) -> int:
        """How many were recorded since the last flush: what a power cut now may lose."""
        return len(self._log) - self._safe(len(self._log))

    def pread(self, length: int, offset: int, /) -> bytes:
        """See `Storage`."""
        return self._now.pread(length, offset)

    def append(self, parts: Sequence[bytes | bytearray | memoryview], /) -> int:
        """See `Storage`; one operation, however many parts."""
        start = self._now.append(parts)
        self._log.append(_Write(b"".join(parts), start))
        return start

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int, /) -> None:
        """See `Storage`."""
        self._now.pwrite(data, offset)
        self._log.append(_Write(bytes(data), offset))

    def truncate(self, size: int, /) -> None:
        """See `Storage`."""
        self._now.truncate(size)
        self._log.append(_Truncate(size))

    def allocate(self, size: int, /) -> None:
        """See `Storage`; recorded as growing."""
        if size > self.size:
            self.truncate(size)

    def flush(self) -> None:
        """See `Storage`: all before it survives."""
        self._log.append(None)

    def close(self) -> None:
        """See `Storage`; what was recorded stays."""
        self.closed = True

    def content(self) -> bytes:
        """What the file holds if the power stays on."""
        return bytes(self._now.data)

    def cuts(
        self,
        *,
        subsets: int = 0,
        torn: bool = False,
        seed: int = 0,
        moments: Iterable[int] | None = None,
    ) -> Iterator[Cut]:
        """Every state that a power cut may leave, one after another.

        First the plain ones: the power fails after each operation, and all before it is on the
        disk.  A disk may also write in another order what was not flushed yet, and half of a
        write; ask for those with the arguments.

        Args:
            subsets: For each moment, how many times a random choice of the operations since the
                last flush is lost; among them always the case that all of them are.
            torn: Whether, at each moment, also a part of the last write is lost: sectors of 512
                bytes, behind a random place, and here and there.
            seed: Of the random choices.
            moments: After how many operations the power fails; by default after each number of them.

        Yields:
            A `Cut`; each has a storage of its own.
        """
        dice = random.Random(seed)  # noqa: S311 - repeatable, not secret
        for after in range(len(self._log) + 1) if moments is None else moments:
            yield self._cut(after, (), "")
            safe = self._safe(after)
            if after > safe:
                yield from self._losses(after, range(safe, after), whole(subsets, "subsets"), dice)
            last = self._log[after - 1] if after else None
            if torn and isinstance(last, _Write) and last.data:
                yield from self._torn(after, last, dice)

    def _losses(self, after: int, open_: range, subsets: int, dice: random.Random) -> Iterator[Cut]:
        seen: set[tuple[int, ...]] = {()}
        for turn in range(subsets):
            lost = tuple(open_) if turn == 0 else tuple(n for n in open_ if dice.random() < 0.5)
            if lost not in seen:
                seen.add(lost)
                yield self._cut(after, lost, "")

    def _torn(self, after: int, last: _Write, dice: random.Random) -> Iterator[Cut]:
        # A sector is whole: a write is torn only where the file's sectors meet.
        first = -last.offset % SECTOR
        bounds = [0, *range(first or SECTOR, len(last.data), SECTOR), len(last.data)]
        pieces = list(itertools.pairwise(bounds))
        if len(pieces) < 2:
            return
        kept = pieces[: dice.randrange(1, len(pieces))]
        yield self._cut(after, (), f"the last write only up to byte {kept[-1][1]} of it", kept)
        kept = [piece for piece in pieces if dice.random() < 0.5]
        yield self._cut(after, (), f"{len(kept)} of {len(pieces)} sectors of the last write", kept)

    def _cut(
        self, after: int, lost: tuple[int, ...], part: str, kept: list[tuple[int, int]] | None = None
    ) -> Cut:
        storage = MemoryStorage(self._first, f"{self.name}, cut after {after}")
        gone = set(lost)
        for number, operation in enumerate(self._log[:after]):
            if number in gone:
                continue
            if isinstance(operation, _Truncate):
                storage.truncate(operation.size)
            elif operation is not None:
                pieces = kept if kept is not None and number == after - 1 else [(0, len(operation.data))]
                for start, end in pieces:
                    storage.pwrite(operation.data[start:end], operation.offset + start)
        words = f"power cut after {after} of {len(self._log)} operations"
        words += f", {len(lost)} unflushed ones lost ({', '.join(map(str, lost))})" if lost else ""
        return Cut(after, lost, words + (f", {part}" if part else ""), storage)

    def _safe(self, after: int) -> int:
        """Operations that surely are on the disk when the power fails after ``after`` of them."""
        return max((n + 1 for n in range(after) if self._log[n] is None), default=0)
