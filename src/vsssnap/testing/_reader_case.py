"""What the check of a reader knows of it, and its behaviour under threads and after close."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

from vsssnap._units import MAX_SIZE
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import ClosedError
from vsssnap.testing._clauses import Clauses, run_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vsssnap.blocks.reader import BlockReader, SupportsPread

SPAN = 1 << 16  # bytes: the longest of the chosen reads
MANY = 1 << 14  # extents that are looked at


class ReaderCase:
    """A reader, what it should hold, and which of its ranges are UNREADABLE."""

    def __init__(self, reader: BlockReader, content: bytes | SupportsPread, seed: int) -> None:
        self.reader = reader
        self.clauses = Clauses(type(reader).__name__)
        self.size = len(content) if isinstance(content, bytes) else content.size
        self.content = content
        self.dice = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self.bad: list[Extent] = []  # UNREADABLE

    def expected(self, length: int, offset: int) -> bytes:
        if isinstance(self.content, bytes):
            return self.content[offset : offset + length]
        return self.content.pread(length, offset)

    def unreadable(self, length: int, offset: int) -> bool:
        end = offset + length
        return length > 0 and any(bad.offset < end and offset < bad.end for bad in self.bad)

    def chosen(self) -> list[tuple[int, int]]:
        """``(length, offset)`` pairs: edges of the volume and of sectors, and any."""
        edges = {0, 1, 511, 512, 513, 4095, 4096, self.size // 2}
        edges |= {self.size - back for back in (0, 1, 511, 512, 513, 4096)} | {self.size + 1, MAX_SIZE}
        lengths = (0, 1, 2, 511, 512, 4097, SPAN)
        pairs = [
            (length, offset) for offset in sorted(edges) if 0 <= offset <= MAX_SIZE for length in lengths
        ]
        if self.size:
            pairs += [(self.dice.randrange(SPAN), self.dice.randrange(self.size)) for _ in range(50)]
        return pairs

    def extents(self, offset: int, length: int | None) -> list[Extent]:
        """The extents of a range, up to a bound, held to their form."""
        asked = f"extents({offset}, {length})"
        rest = max(0, self.size - offset)
        end = min(offset, self.size) + (rest if length is None else min(length, rest))
        at = min(offset, self.size)
        found: list[Extent] = []
        for extent in self.reader.extents(offset, length):
            seen = f"{asked} gave {extent}"
            self.clauses.require(isinstance(extent.kind, ExtentKind), "kinds are ExtentKind", seen)
            self.clauses.require(extent.length > 0, "an extent has at least one byte", seen)
            self.clauses.require(extent.offset == at, "extents are ascending and gap-free", f"{seen} at {at}")
            self.clauses.require(extent.end <= end, "extents are clipped to the range", f"{seen}, end {end}")
            found.append(extent)
            at = extent.end
            if len(found) == MANY:
                return found
        self.clauses.require(at == end, "extents cover the range", f"{asked} ended at {at}, not at {end}")
        return found

    def together(self, threads: int, timeout: float) -> None:
        def reading(number: int) -> None:
            dice = random.Random(number)  # noqa: S311 - repeatable, not secret
            for _ in range(30):
                offset = dice.randrange(self.size + 1)
                length = dice.randrange(SPAN)
                if not self.unreadable(length, offset):
                    data = self.reader.pread(length, offset)
                    clause = "reads in several threads at once are right"
                    self.clauses.same(
                        data, self.expected(length, offset), clause, f"pread({length}, {offset})"
                    )

        calls: list[Callable[[], object]] = [lambda n=n: reading(n) for n in range(threads)]  # type: ignore[misc] # bound per turn
        for exc in run_threads(calls, timeout):
            if isinstance(exc, AssertionError):
                raise exc
            if exc is not None:
                raise AssertionError(f"{self.clauses.what}: a read in a thread raised {exc!r}") from exc

    def closing(self, threads: int, timeout: float) -> None:
        running = threading.Semaphore(0)

        def reading(number: int) -> None:
            dice = random.Random(number)  # noqa: S311 - repeatable, not secret
            while True:
                offset = dice.randrange(self.size + 1)
                try:
                    data = b"" if self.unreadable(512, offset) else self.reader.pread(512, offset)
                    self.reader.tell()
                except ClosedError:
                    return
                finally:
                    running.release()
                if data:
                    clause = "a read that runs while the reader is closed finishes right"
                    self.clauses.same(data, self.expected(512, offset), clause, f"pread(512, {offset})")

        def closing() -> None:
            for _ in range(8 * threads):  # let them get going
                running.acquire(timeout=timeout)
            self.reader.close()

        iterator = self.reader.extents()
        calls: list[Callable[[], object]] = [lambda n=n: reading(n) for n in range(threads)]  # type: ignore[misc] # bound per turn
        for exc in run_threads([*calls, closing], timeout):
            if isinstance(exc, AssertionError):
                raise exc
            if exc is not None:
                clause = "close() under running reads ends them with ClosedError alone"
                raise AssertionError(f"{self.clauses.what}: {clause}; seen {exc!r}") from exc
        self.closed(iterator)

    def closed(self, iterator: Iterator[Extent]) -> None:
        reader = self.reader
        reader.close()  # again: idempotent
        self.clauses.require(reader.closed, "closed is true after close()")
        calls: dict[str, Callable[[], object]] = {
            "pread": lambda: reader.pread(1, 0),
            "pread of nothing": lambda: reader.pread(0, 0),
            "preadinto": lambda: reader.preadinto(bytearray(1), 0),
            "extents": lambda: list(reader.extents()),
            "blocks": lambda: list(reader.blocks(512)),
            "confirm": lambda: reader.confirm(),
            "read": lambda: reader.read(1),
            "readall": lambda: reader.readall(),
            "seek": lambda: reader.seek(0),
            "tell": lambda: reader.tell(),
            "with": lambda: reader.__enter__(),
        }
        if self.size:
            calls["a window"] = lambda: reader.window(0, 1).pread(1, 0)
            calls["extents begun before"] = lambda: list(iterator)
        for where, call in calls.items():
            self.clauses.raises(ClosedError, call, "a closed reader raises ClosedError", where)
