"""Writing and reading images for the check of a format."""

from __future__ import annotations

import difflib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vsssnap.blocks.extent import Extent, ExtentKind, clip, coalesce
from vsssnap.blocks.pipeline import Unit, plan
from vsssnap.errors import UsageError
from vsssnap.formats.base import ImageFormat, ImageReader, ImageWriter, WriteOrder
from vsssnap.formats.storage import MemoryStorage
from vsssnap.metadata import ImageMetadata
from vsssnap.testing._clauses import run_threads
from vsssnap.testing.seeded import SeededDisk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from vsssnap.formats.storage import Storage

METADATA = ImageMetadata(
    volume="checked volume", notes=("a note",), documents={"a document": b"\0\1\2"}, user={"number": 7}
)

# What a range may have been that is of a kind in an image.  A format with a granularity says of a
# whole piece the strongest of what is in it: DATA, ZERO, EXCLUDED, HOLE; UNREADABLE is exact.
_MAY_COME_FROM = {
    ExtentKind.HOLE: frozenset({ExtentKind.HOLE}),
    ExtentKind.EXCLUDED: frozenset({ExtentKind.EXCLUDED, ExtentKind.HOLE}),
    ExtentKind.UNREADABLE: frozenset({ExtentKind.UNREADABLE}),
}


class StreamStorage(MemoryStorage):
    """Memory that only takes bytes in order, as a pipe does."""

    seekable = False

    def pread(self, length: int, offset: int, /) -> bytes:
        """Refused."""
        raise UsageError("a pipe cannot be read back")

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int, /) -> None:
        """Refused."""
        raise UsageError("a pipe cannot seek")

    def truncate(self, size: int, /) -> None:
        """Refused."""
        raise UsageError("a pipe cannot be resized")


class ClosingStorage(MemoryStorage):
    """Memory that knows whether it was closed."""

    closed = False

    def close(self) -> None:
        """Remember it."""
        self.closed = True


@dataclass(frozen=True)
class Pattern:
    """A small volume to write.

    Attributes:
        name: For messages.
        content: Its bytes; zeros where it is no DATA.
        extents: Its map.
    """

    name: str
    content: bytes
    extents: tuple[Extent, ...]

    def of(self, kind: ExtentKind) -> int:
        """Bytes of a kind."""
        return sum(extent.length for extent in self.extents if extent.kind is kind)


def patterns(size: int, unit: int, seed: int) -> Iterator[Pattern]:
    """Volumes of one size: nothing, all data, zeros called data, islands, and every kind."""
    dice = random.Random(seed)  # noqa: S311 - repeatable, not secret
    whole = (Extent(0, size),) if size else ()
    yield Pattern("zeros", bytes(size), (Extent(0, size, ExtentKind.ZERO),) if size else ())
    if not size:
        return
    yield Pattern("noise", dice.randbytes(size), whole)
    yield Pattern("zeros that are called DATA", bytes(size), whole)
    disk = SeededDisk(size, seed, regions=64, gaps=(ExtentKind.ZERO,))
    yield Pattern("islands", disk.expected(size, 0), tuple(disk.extents()))
    yield _pieces("whole units of every kind", size, [unit], dice)
    yield _pieces("pieces of every kind", size, [1, 511, 4096, 65536, unit // 2], dice)


def _pieces(name: str, size: int, lengths: Sequence[int], dice: random.Random) -> Pattern:
    extents: list[Extent] = []
    parts: list[bytes] = []
    at, turn = 0, 0
    kinds = list(ExtentKind)
    dice.shuffle(kinds)
    while at < size:
        kind = kinds[turn % len(kinds)] if len(extents) < 40 else ExtentKind.DATA
        length = min(dice.choice(list(lengths)) if len(extents) < 40 else size, size - at)
        extents.append(Extent(at, length, kind))
        parts.append(dice.randbytes(length) if kind is ExtentKind.DATA else bytes(length))
        at += length
        turn += 1
    return Pattern(name, b"".join(parts), tuple(coalesce(extents)))


def weaker(found: Iterable[Extent], pattern: Pattern) -> str:
    """The first range of an image whose kind promises less than its mark did, or ""."""
    for extent in found:
        for part in clip(pattern.extents, extent.offset, extent.length):
            if part.kind not in _MAY_COME_FROM.get(extent.kind, ExtentKind):
                return f"{part.offset}+{part.length} was {part.kind.name} and is {extent.kind.name}"
    return ""


_FACTS: dict[type, tuple[str, ...]] = {
    ImageFormat: ("api", "name", "suffixes", "options_type", "features"),
    ImageWriter: ("size", "unit", "write_order", "keeps_data"),
    ImageReader: ("format", "plain"),
}


def misnamed(thing: object, contract: type) -> str:
    """An attribute that seems to be meant for one of the contract under another name, or "".

    Under another name it says nothing, and what the contract has by default holds.

    Args:
        thing: A format, or a writer or reader of one.
        contract: Which of the three.
    """
    ours = set(contract.__mro__)
    own = [vars(kind) for kind in type(thing).__mro__ if kind not in ours]
    said = {name for names in [*own, getattr(thing, "__dict__", {})] for name in names}
    unsaid = [name for name in _FACTS[contract] if name not in said]
    for names in own:
        for name, value in names.items():
            if (
                name.startswith("_")
                or hasattr(contract, name)
                or callable(value)
                or hasattr(value, "__get__")
            ):
                continue
            close = difflib.get_close_matches(name, unsaid, n=1, cutoff=0.75)
            if isinstance(value, WriteOrder) and "write_order" in unsaid:
                close = ["write_order"]
            if close:
                return f"{type(thing).__name__}.{name} is none of them, {close[0]} may be meant"
    return ""


def write_image(
    fmt: ImageFormat,
    storage: Storage,
    pattern: Pattern,
    *,
    options: object = None,
    seed: int = 0,
    threads: int = 4,
    timeout: float = 60.0,
    finish: bool = True,
) -> dict[str, int]:
    """Write a volume as the contract says a writer is used; gives `ImageWriter.flattened`."""
    writer = fmt.create(storage, len(pattern.content), options=options)
    try:
        feed(writer, pattern, seed=seed, threads=threads, timeout=timeout)
        flattened = dict(writer.flattened())
        if finish:
            writer.finish(METADATA)
            flattened = dict(writer.flattened())
    finally:
        writer.close()
        writer.close()  # idempotent
    return flattened


def feed(writer: ImageWriter, pattern: Pattern, *, seed: int, threads: int, timeout: float) -> None:
    """Encode in several threads in any order; store and mark in the order that the writer declares."""
    dice = random.Random(seed)  # noqa: S311 - repeatable, not secret
    items = list(plan(pattern.extents, writer.unit, writer.size))
    units = [item for item in items if isinstance(item, Unit)]
    dice.shuffle(units)
    encoded: dict[int, Any] = {}
    buffers: dict[int, bytearray] = {}

    def encode(number: int) -> None:
        for unit in units[number::threads]:
            buffer = buffers[unit.offset] = bytearray(
                memoryview(pattern.content)[unit.offset : unit.offset + unit.length]
            )
            # Read-only: a writer that changes what it is given fails here.
            encoded[unit.offset] = writer.encode(memoryview(buffer).toreadonly(), unit.offset)
            if not writer.keeps_data:
                spoil(unit.offset)

    def spoil(offset: int) -> None:
        # A copy reads the next block into the same memory: what is kept of this one had to be copied.
        buffer = buffers.pop(offset)
        buffer[:] = b"\xdd" * len(buffer)

    def put(item: Unit | Extent) -> None:
        if isinstance(item, Extent):
            if item.kind is not ExtentKind.ZERO or item.offset % 2048:  # unmarked is ZERO as well
                writer.mark(item)
            return
        for mark in item.marks:
            writer.mark(mark)
        writer.store(encoded.pop(item.offset))
        if writer.keeps_data:
            spoil(item.offset)

    def put_all(number: int) -> None:
        for item in items[number::threads]:
            put(item)

    _raise_first(run_threads([lambda n=n: encode(n) for n in range(threads)], timeout))  # type: ignore[misc] # bound per turn
    if writer.write_order is WriteOrder.ASCENDING:
        for item in items:
            put(item)
    else:
        dice.shuffle(items)
        _raise_first(run_threads([lambda n=n: put_all(n) for n in range(threads)], timeout))  # type: ignore[misc] # bound per turn


def _raise_first(raised: list[BaseException | None]) -> None:
    for exc in raised:
        if exc is not None:
            raise exc


def read_all(reader: ImageReader, unit: int = 1 << 20) -> bytes:
    """Everything, UNREADABLE ranges as zeros."""
    result = bytearray(reader.size)
    for extent in reader.extents():
        if extent.kind is not ExtentKind.UNREADABLE:
            for offset in range(extent.offset, extent.end, unit):
                length = min(unit, extent.end - offset)
                result[offset : offset + length] = reader.pread(length, offset)
    return bytes(result)


def opener(fmt: ImageFormat, data: bytes) -> Callable[[], ImageReader]:
    """Opens an image anew at each call."""
    return lambda: fmt.open(MemoryStorage(data, "checked image"))
