"""`check_format` finds every way in which a format can break its contract: one broken format a clause."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import pytest
from vsssnap_guest.box import MAGIC, BoxFormat, BoxReader, BoxWriter

from vsssnap import Extent, ExtentKind, ImageMetadata
from vsssnap.errors import CorruptImageError, TargetError, UsageError
from vsssnap.formats import Depth, Finding, ImageFormat, ImageReader, ImageWriter, Probe, Storage, WriteOrder
from vsssnap.formats.raw import RawFormat
from vsssnap.formats.storage import MemoryStorage
from vsssnap.formats.vsnap import VsnapFormat
from vsssnap.testing import check_format

SIZES = (0, 513, 70_000)

ThingT = TypeVar("ThingT")

BROKEN: list[tuple[str, type[ImageFormat]]] = []


def breaks(clause: str) -> Callable[[type[ImageFormat]], type[ImageFormat]]:
    """Have a class checked: ``clause`` must be what is said of it."""

    def note(fmt: type[ImageFormat]) -> type[ImageFormat]:
        BROKEN.append((clause, fmt))
        return fmt

    return note


class Box(BoxFormat):
    """The guest's format, with readers and writers that a fault can be put into."""

    def read(self, reader: ImageReader) -> ImageReader:
        return reader

    def wrote(self, writer: ImageWriter) -> ImageWriter:
        return writer

    def open(self, storage: Storage, /, **more: Any) -> Any:
        return self.read(super().open(storage, **more))

    def create(self, storage: Storage, size: int, /, **more: Any) -> Any:
        return self.wrote(super().create(storage, size, **more))


def changed(thing: ThingT, **members: Any) -> ThingT:
    """An object with other members; functions get what they replace as their first argument."""
    for name, member in members.items():
        if callable(member):
            before = getattr(thing, name)
            member = lambda *args, f=member, b=before: f(b, *args)  # noqa: E731 - bound per turn
        setattr(thing, name, member)
    return thing


@dataclass
class Mutable:
    """Options that can be changed under a writer."""

    label: str = ""


# Facts.


@breaks("api is that of this vsssnap")
class OtherApi(Box):
    api = 2


@breaks("name is lower case")
class Shouting(Box):
    name = "BOX"


@breaks("suffixes is a tuple, each with its dot")
class NoDot(Box):
    suffixes: ClassVar[tuple[str, ...]] = ("box",)


@breaks("features are known words")
class Inventive(Box):
    features = frozenset({"holes", "metadata", "teleport"})


@breaks("options_type is a dataclass")
class NoOptions(Box):
    options_type: ClassVar[type] = dict


@breaks("options_type is frozen and has a default for everything")
class MutableOptions(Box):
    options_type: ClassVar[type] = Mutable


@breaks("attributes have the names of the contract")
class OneSuffix(ImageFormat):
    name = "box"
    sufixes: ClassVar[tuple[str, ...]] = (".box",)
    options_type: ClassVar[type] = Mutable
    probe, open, create = Box.probe, Box.open, Box.create


@breaks("a format has name and options_type")
class Nameless(ImageFormat):
    probe, open, create = Box.probe, Box.open, Box.create


class OrderedWriter(BoxWriter):
    order = WriteOrder.ASCENDING


class SpelledWriter(BoxWriter):
    write_order = "ascending"  # type: ignore[assignment]  # the fault


class OtherWriter(Box):
    writer: ClassVar[type[BoxWriter]]

    def wrote(self, writer: ImageWriter) -> ImageWriter:
        writer.__class__ = self.writer
        return writer


@breaks("attributes have the names of the contract")
class OrderByAnotherName(OtherWriter):
    writer: ClassVar[type[BoxWriter]] = OrderedWriter


@breaks("write_order is a WriteOrder")
class OrderByAWord(OtherWriter):
    writer: ClassVar[type[BoxWriter]] = SpelledWriter


# Probing.


class Probing(Box):
    def probe(self, seen: Probe, /) -> int:
        return self.score(super().probe(seen), seen)

    def score(self, right: int, seen: Probe) -> int:
        raise NotImplementedError


@breaks("unit is 64 KiB to 16 MiB")
class TinyUnit(Box):
    def wrote(self, writer: ImageWriter) -> ImageWriter:
        return changed(writer, unit=512)


@breaks("probe() knows an image of its own")
class Forgetful(Probing):
    def score(self, right: int, seen: Probe) -> int:
        return 0


@breaks("a suffix only makes probe() surer")
class ShyOfSuffixes(Probing):
    def score(self, right: int, seen: Probe) -> int:
        return 20 if right and seen.name else right


@breaks("probe() says no to bytes that are not its own")
class Greedy(Probing):
    def score(self, right: int, seen: Probe) -> int:
        return right or 1


@breaks("probe() gives at most 10 by suffix alone")
class SureBySuffix(Probing):
    def score(self, right: int, seen: Probe) -> int:
        return right or (50 if seen.name.endswith(".box") else 0)


@breaks("probe() gives 0 to 100")
class Certain(Probing):
    def score(self, right: int, seen: Probe) -> int:
        return right * 2


@breaks("nothing is raised but what the contract says")
class TripsOverShortHeads(Probing):
    def score(self, right: int, seen: Probe) -> int:
        return right if len(seen.head) != 37 else seen.head[40]


# Writing and reading.


@breaks("close() closes the storage")
class LeavesOpen(Box):
    def wrote(self, writer: ImageWriter) -> ImageWriter:
        return changed(writer, close=lambda _: None)


@breaks("it takes volumes of some sizes")
class TakesNothing(Box):
    def create(self, storage: Storage, size: int, /, **more: Any) -> Any:
        if size in SIZES:
            raise UsageError("not this size")
        return super().create(storage, size, **more)


@breaks("finish() flushes what it writes")
class NeverFlushes(Box):
    def create(self, storage: Storage, size: int, /, **more: Any) -> Any:
        return super().create(changed(storage, flush=lambda _: None), size, **more)


@breaks("an image has its volume's size")
class RoundsUp(Box):
    def read(self, reader: ImageReader) -> ImageReader:
        return changed(reader, size=-(-reader.size // 512) * 512)


@breaks("reader.format is the format's name")
class OtherName(Box):
    def read(self, reader: ImageReader) -> ImageReader:
        return changed(reader, format="chest")


@breaks("open() gives an ImageReader")
class NoImageReader(Box):
    def open(self, storage: Storage, /, **more: Any) -> Any:
        reader = super().open(storage, **more)
        return reader.window(0, reader.size)


@breaks("an image reads as its volume")
class LosesTheLastByte(Box):
    def wrote(self, writer: ImageWriter) -> ImageWriter:
        def encode(right: Any, data: memoryview, offset: int) -> Any:
            return right(memoryview(bytes(data[:-1]) + b"\0"), offset)

        return changed(writer, encode=encode)


@breaks("nothing is raised but what the contract says")
class WritesIntoItsInput(Box):
    def wrote(self, writer: ImageWriter) -> ImageWriter:
        def encode(right: Any, data: memoryview, offset: int) -> Any:
            data[:] = data
            return right(data, offset)

        return changed(writer, encode=encode)


@breaks("an image reads as its volume")
class WritesItsInputLater(Box):
    """What it was given belongs to the copy again when `store` has returned."""

    def wrote(self, writer: ImageWriter) -> ImageWriter:
        kept: list[Any] = []

        def finish(right: Any, metadata: ImageMetadata) -> None:
            for encoded in kept:
                type(writer).store(writer, encoded)
            right(metadata)

        return changed(writer, store=lambda _, encoded: kept.append(encoded), finish=finish)


@breaks("info() holds JSON values only")
class BytesInInfo(Box):
    def read(self, reader: ImageReader) -> ImageReader:
        return changed(reader, info=lambda _: {"identity": b"\0"})


@breaks("info()'s stored_size is the file's")
class OtherStoredSize(Box):
    def read(self, reader: ImageReader) -> ImageReader:
        return changed(reader, info=lambda _: {"stored_size": 1})


@breaks("a finished image is complete")
class NeverComplete(Box):
    def read(self, reader: ImageReader) -> ImageReader:
        return changed(reader, info=lambda _: {"complete": False})


@breaks("metadata comes back as it was given to finish()")
class NoMetadata(Box):
    def read(self, reader: ImageReader) -> ImageReader:
        return changed(reader, metadata=ImageMetadata())


@breaks("no range gets a weaker kind than it was marked with")
class CallsZerosHoles(Box):
    def read(self, reader: ImageReader) -> ImageReader:
        def extents(right: Any, offset: int, length: int) -> Iterator[Extent]:
            zeros = not any(reader._read(length, offset))
            return iter([Extent(offset, length, ExtentKind.HOLE)]) if zeros else right(offset, length)

        return changed(reader, _extents=extents)


@breaks("what flattened() does not count is kept")
class Hushes(Box):
    def wrote(self, writer: ImageWriter) -> ImageWriter:
        return changed(writer, flattened=lambda _: {})


@breaks('a format with the feature "unreadable" keeps every such byte')
class CountsUnreadable(Box):
    features = frozenset({"holes", "metadata", "unreadable"})


@breaks("depths() rises")
class FallingDepths(Box):
    def read(self, reader: ImageReader) -> ImageReader:
        return changed(reader, depths=lambda _: (Depth.STORED, Depth.STRUCTURE))


@breaks("depths() rises")
class NoDepths(Box):
    def read(self, reader: ImageReader) -> ImageReader:
        return changed(reader, depths=lambda _: ())


@breaks("verify() finds nothing in a sound image")
class FalseAlarm(Box):
    def read(self, reader: ImageReader) -> ImageReader:
        return changed(reader, verify=lambda *_: iter([Finding("header", 0, "I do not like it")]))


@breaks("progress only goes forward")
class BackwardProgress(Box):
    def read(self, reader: ImageReader) -> ImageReader:
        def verify(right: Any, depth: Depth, progress: Callable[[int], None]) -> Iterator[Finding]:
            progress(-1)
            found: Iterator[Finding] = right(depth, progress)
            return found

        return changed(reader, verify=verify)


@breaks("closing the reader closes the storage")
class KeepsTheStorage(Box):
    def read(self, reader: ImageReader) -> ImageReader:
        assert isinstance(reader, BoxReader)
        changed(reader._storage, close=lambda _: None)
        return reader


# Refusing.


@breaks("create() refuses with UsageError what it cannot do")
class TakesAnyOptions(Box):
    def create(self, storage: Storage, size: int, /, **more: Any) -> Any:
        return super().create(storage, size, parent=more.get("parent"))


@breaks("create() refuses with UsageError what it cannot do")
class TakesAnySize(Box):
    def create(self, storage: Storage, size: int, /, **more: Any) -> Any:
        return super().create(storage, abs(size), **more)


@breaks("create() refuses with UsageError what it cannot do")
class TakesAnyParent(Box):
    def create(self, storage: Storage, size: int, /, **more: Any) -> Any:
        return super().create(storage, size, options=more.get("options"))


@breaks("create() closes the storage when it raises")
class KeepsTheStorageItRefused(Box):
    def create(self, storage: Storage, size: int, /, **more: Any) -> Any:
        if size < 0:
            raise UsageError("not this size")
        return super().create(storage, size, **more)


@breaks("nothing is raised but what the contract says; writing to a stream")
class ClaimsToStream(Box):
    features = frozenset({"holes", "metadata", "streaming"})


@breaks("an image in a file reads as its volume")
class NeedsMemory(Box):
    def read(self, reader: ImageReader) -> ImageReader:
        assert isinstance(reader, BoxReader)
        if not isinstance(reader._storage, MemoryStorage):
            changed(reader, _read=lambda _, length, offset: bytes(length))
        return reader


# Incomplete and damaged images.


@breaks("an image without finish() is refused with ImageError, or info() says it is not complete")
class CompleteFromTheStart(Box):
    def wrote(self, writer: ImageWriter) -> ImageWriter:
        assert isinstance(writer, BoxWriter)
        text = ImageMetadata().encode()
        writer._storage.pwrite(text, 4096 + writer.size)
        writer._storage.pwrite(MAGIC + writer.size.to_bytes(8, "little") + len(text).to_bytes(8, "little"), 0)
        return writer


@breaks("open() closes the storage when it raises")
class LeavesTheStorageOpen(Box):
    def open(self, storage: Storage, /, **more: Any) -> Any:
        if not storage.pread(8, 0).startswith(MAGIC):
            changed(storage, close=lambda _: None)
        return super().open(storage, **more)


@breaks("a damaged image gives right bytes or ImageError")
class TripsOverDamage(Box):
    def open(self, storage: Storage, /, **more: Any) -> Any:
        try:
            return super().open(storage, **more)
        except CorruptImageError:
            if not storage.pread(8, 0).startswith(MAGIC):
                raise
            raise IndexError("list index out of range") from None


@breaks("a damaged image gives right bytes or ImageError")
class ClaimsChecksums(Box):
    """A box has none, so that a changed byte of the volume is read as it is."""

    features = frozenset({"holes", "metadata", "checksums"})


class Snap(VsnapFormat):
    """Our own format, with readers that a fault can be put into."""

    def open(self, storage: Storage, /, **more: Any) -> Any:
        return self.read(super().open(storage, **more))

    def read(self, reader: ImageReader) -> ImageReader:
        return reader


@breaks("what is neither stored nor marked is in a child as in the parent")
class HidesTheParent(Snap):
    def create(self, storage: Storage, size: int, /, **more: Any) -> Any:
        writer = super().create(storage, size, **more)
        if more.get("parent") is not None:
            writer.mark(Extent(0, writer.unit, ExtentKind.ZERO))
        return writer


@breaks("verify() reports damage and never raises it")
class RaisesFindings(Snap):
    def read(self, reader: ImageReader) -> ImageReader:
        def verify(right: Any, depth: Depth, progress: Callable[[int], None]) -> Iterator[Finding]:
            for found in right(depth, progress):
                raise CorruptImageError(found.message)
            return iter(())

        return changed(reader, verify=verify)


@breaks("verify() yields Finding objects")
class FindsStrings(Snap):
    def read(self, reader: ImageReader) -> ImageReader:
        return changed(reader, verify=lambda right, *args: (str(found) for found in right(*args)))


@breaks("verify() at STORED finds damage that reading shows")
class FindsNothing(Snap):
    def read(self, reader: ImageReader) -> ImageReader:
        return changed(reader, verify=lambda *_: iter(()))


@breaks("after a power cut an image is refused, recognised as incomplete, or whole")
class MarkBeforeContent(Box):
    """Writes the header with everything else, without a flush between."""

    def wrote(self, writer: ImageWriter) -> ImageWriter:
        def finish(right: Any, metadata: ImageMetadata) -> None:
            assert isinstance(writer, BoxWriter)
            storage = writer._storage
            flush, storage.flush = storage.flush, lambda: None  # type: ignore[method-assign]  # the fault
            right(metadata)
            storage.flush = flush  # type: ignore[method-assign]  # as it was
            flush()

        return changed(writer, finish=finish)


@pytest.mark.parametrize(("clause", "fmt"), BROKEN, ids=[fmt.__name__ for _, fmt in BROKEN])
def test_broken_format_is_found(clause: str, fmt: type[ImageFormat]) -> None:
    with pytest.raises(AssertionError) as caught:
        check_format(fmt(), sizes=SIZES, damage=12)
    assert str(caught.value).startswith(f"{fmt.__name__}: {clause}")


@pytest.mark.parametrize("fmt", [Box, Snap, RawFormat])
def test_right_format_is_left_alone(fmt: type[ImageFormat]) -> None:
    check_format(fmt(), sizes=SIZES, damage=4)


def test_what_is_no_format_is_said_so() -> None:
    class Other:
        api, name = 1, "other"

    with pytest.raises(AssertionError, match="Other: a format is an ImageFormat"):
        check_format(Other())  # type: ignore[arg-type]  # that is the test


def test_broken_reader_of_a_format_is_found() -> None:
    class Unlocked(Box):
        def read(self, reader: ImageReader) -> ImageReader:
            return changed(reader, seek=lambda right, *args: right(*args) + 1)

    with pytest.raises(AssertionError, match="BoxReader: seek gives the position"):
        check_format(Unlocked(), sizes=SIZES)


def test_storage_that_fails_is_no_fault_of_the_format() -> None:
    class FullDisk(Box):
        def create(self, storage: Storage, size: int, /, **more: Any) -> Any:
            raise TargetError("no space left", path=storage.name)

    with pytest.raises(AssertionError, match="nothing is raised but what the contract says"):
        check_format(FullDisk())
