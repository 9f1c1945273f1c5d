"""`check_reader` finds every way in which a reader can break its contract: one broken reader a clause."""

from __future__ import annotations

import copyreg
import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import ClosedError, DeviceReadError, UsageError
from vsssnap.testing import MemoryReader, check_reader

DATA = bytes(range(1, 256)) * 40 + bytes(12_288) + b"end" * 700
ZEROS = 255 * 40
BAD = 5000  # first of 700 UNREADABLE bytes, in those tests that have some
MAP = [Extent(0, ZEROS), Extent(ZEROS, 12_288, ExtentKind.ZERO), Extent(ZEROS + 12_288, 2100)]
MAP_WITH_BAD = [
    Extent(0, BAD),
    Extent(BAD, 700, ExtentKind.UNREADABLE),
    Extent(BAD + 700, len(DATA) - BAD - 700),
]

BROKEN: list[tuple[str, type[MemoryReader], bool]] = []


def breaks(clause: str, *, bad: bool = False) -> Callable[[type[MemoryReader]], type[MemoryReader]]:
    """Have a class checked: ``clause`` must be what is said of it."""

    def note(reader: type[MemoryReader]) -> type[MemoryReader]:
        BROKEN.append((clause, reader, bad))
        return reader

    return note


class Changed(MemoryReader):
    """A reader that is right but for one fact."""

    def __init__(self, content: bytes, extents: list[Extent]) -> None:
        super().__init__(content, extents)
        self.change()

    def change(self) -> None:
        """Make it wrong."""


@breaks("size is that of the volume")
class WrongSize(Changed):
    def change(self) -> None:
        self.size -= 1


@breaks("sector_size is a power of two")
class OddSector(Changed):
    def change(self) -> None:
        self.sector_size = 520


@breaks("metadata is an ImageMetadata")
class NoMetadata(Changed):
    def change(self) -> None:
        self.metadata = {}  # type: ignore[assignment]  # that is the fault


@breaks("origins is a tuple of paths")
class ListOfOrigins(Changed):
    @property
    def origins(self) -> Any:
        return ["/dev/sda"]


@breaks("it reads and seeks")
class Unseekable(Changed):
    def seekable(self) -> bool:
        return False


@breaks("a new reader is open")
class BornClosed(Changed):
    @property
    def closed(self) -> bool:
        return True


class Mapped(Changed):
    """A reader whose map is another."""

    def _extents(self, offset: int, length: int) -> Iterator[Any]:
        yield from self.other(offset, length)

    def other(self, offset: int, length: int) -> list[Any]:
        raise NotImplementedError


@breaks("kinds are ExtentKind")
class KindInWords(Mapped):
    def other(self, offset: int, length: int) -> list[Any]:
        found = Extent(offset, length)
        object.__setattr__(found, "kind", "date")
        return [found]


@breaks("an extent has at least one byte")
class EmptyExtent(Mapped):
    def other(self, offset: int, length: int) -> list[Any]:
        empty = Extent(offset, 1)
        object.__setattr__(empty, "length", 0)
        return [empty, Extent(offset, length)]


@breaks("extents are ascending and gap-free")
class Gap(Mapped):
    def other(self, offset: int, length: int) -> list[Any]:
        return [Extent(offset + 1, length - 1)] if length > 1 else [Extent(offset, length)]


@breaks("extents are clipped to the range")
class Unclipped(Mapped):
    def other(self, offset: int, length: int) -> list[Any]:
        return [Extent(offset, self.size + 1)]


@breaks("extents cover the range")
class Short(Mapped):
    def other(self, offset: int, length: int) -> list[Any]:
        return [Extent(offset, length - 1)] if length > 1 else [Extent(offset, length)]


@breaks("a range that holds data is never HOLE")
class HoleOverData(Mapped):
    def other(self, offset: int, length: int) -> list[Any]:
        return [Extent(offset, length, ExtentKind.HOLE)]


@breaks("a range is UNREADABLE however it is asked for", bad=True)
class UnreadableOnlyFromTheStart(Mapped):
    def other(self, offset: int, length: int) -> list[Any]:
        return list(super()._extents(offset, length)) if not offset else [Extent(offset, length)]

    def _extents(self, offset: int, length: int) -> Iterator[Any]:
        if not offset:
            return MemoryReader._extents(self, offset, length)
        return iter([Extent(offset, length)])


@breaks("a read of an UNREADABLE range raises DeviceReadError", bad=True)
class ZerosForUnreadable(Changed):
    def _read(self, length: int, offset: int) -> bytes:
        return self._content[offset : offset + length]


@breaks("a read that touches an UNREADABLE range raises DeviceReadError", bad=True)
class UnreadableByTheByteAlone(Changed):
    def _read(self, length: int, offset: int) -> bytes:
        return super()._read(length, offset) if length == 1 else self._content[offset : offset + length]


@breaks("pread gives bytes")
class GivesBytearray(Changed):
    def _read(self, length: int, offset: int) -> Any:
        return bytearray(super()._read(length, offset))


@breaks("a read is exact, shorter only at the end")
class ShortRead(Changed):
    def _read(self, length: int, offset: int) -> bytes:
        return super()._read(length, offset)[: 4096 if length != 4096 else None]

    def _read_into(self, view: memoryview, offset: int) -> None:
        view[:] = self._content[offset : offset + len(view)]


@breaks("a read is exact, shorter only at the end")
class OneByteOff(Changed):
    def _read(self, length: int, offset: int) -> bytes:
        data = super()._read(length, offset)
        return data if offset != 513 else data[:-1] + b"?"


@breaks("preadinto gives the bytes it wrote")
class ForgetsTheCount(Changed):
    def preadinto(self, buffer: Any, offset: int, /) -> int:
        return min(super().preadinto(buffer, offset), 4096)


@breaks("preadinto reads what pread does")
class OtherInto(Changed):
    def _read_into(self, view: memoryview, offset: int) -> None:
        view[:] = bytes(len(view))


@breaks("preadinto leaves the rest of the buffer alone")
class ClearsTheBuffer(Changed):
    def preadinto(self, buffer: Any, offset: int, /) -> int:
        memoryview(buffer).cast("B")[:] = bytes(memoryview(buffer).nbytes)
        return super().preadinto(buffer, offset)


@breaks("a read is clipped at the end")
class RefusesMuch(Changed):
    def pread(self, length: int, offset: int, /) -> bytes:
        return super().pread(length, offset) if length <= 1 << 20 else b""


@breaks("preadinto fills a buffer of any item size")
class CountsItems(Changed):
    def preadinto(self, buffer: Any, offset: int, /) -> int:
        return super().preadinto(buffer, offset) // memoryview(buffer).itemsize


@breaks("a wrong argument raises UsageError")
class PlainValueError(Changed):
    def window(self, offset: int, length: int) -> BlockReader:
        if offset < 0:
            raise ValueError("negative")
        return super().window(offset, length)


@breaks("a wrong argument raises UsageError")
class ReadsBeforeTheBeginning(Changed):
    def pread(self, length: int, offset: int, /) -> bytes:
        return super().pread(length, max(offset, 0))


class Blocky(Changed):
    """A reader with other blocks."""

    def blocks(self, block_size: int, *, only_data: bool = True) -> Iterator[Any]:
        if block_size < 1:
            raise UsageError("block_size")
        self.confirm()
        return self.other(block_size, only_data)

    def other(self, unit: int, only_data: bool) -> Iterator[Any]:
        return super().blocks(unit, only_data=only_data)


@breaks("blocks() gives memoryviews")
class BlocksAsBytes(Blocky):
    def other(self, unit: int, only_data: bool) -> Iterator[Any]:
        return ((at, bytes(view)) for at, view in super().other(unit, only_data))


@breaks("blocks() gives aligned blocks, ascending, each once")
class BlocksTwice(Blocky):
    def other(self, unit: int, only_data: bool) -> Iterator[Any]:
        for block in super().other(unit, only_data):
            yield block
            yield block


@breaks("blocks() leaves out nothing but zeros")
class LeavesOutTheFirst(Blocky):
    def other(self, unit: int, only_data: bool) -> Iterator[Any]:
        found = list(super().other(unit, only_data))
        return iter(found[1:] if len(found) > 1 else found)


@breaks("a block stays valid and unchanged as long as it is referenced")
class OneBuffer(Blocky):
    def other(self, unit: int, only_data: bool) -> Iterator[Any]:
        buffer = memoryview(bytearray(min(unit, self.size)))
        for at in range(0, self.size, unit):
            count = self.preadinto(buffer, at)
            yield at, buffer[:count]


@breaks("blocks() goes to the end")
class StopsEarly(Blocky):
    def other(self, unit: int, only_data: bool) -> Iterator[Any]:
        return iter(list(super().other(unit, only_data))[:-1])


@breaks("only_data=False gives everything")
class OnlyDataAlways(Blocky):
    def other(self, unit: int, only_data: bool) -> Iterator[Any]:
        return super().other(unit, True)


@breaks("blocks() raises DeviceReadError at an UNREADABLE range", bad=True)
class BlocksOverUnreadable(Blocky):
    def other(self, unit: int, only_data: bool) -> Iterator[Any]:
        return ((0, memoryview(b"")) for _ in range(1))


class Part(MemoryReader):
    """A window that does not hang on its source."""


@breaks("a window has the size asked for")
class WindowTooLong(Changed):
    def window(self, offset: int, length: int) -> BlockReader:
        return super().window(offset, length if length != self.size // 2 - 1 else length - 1)


@breaks("a window reads its part of the volume")
class WindowElsewhere(Changed):
    def window(self, offset: int, length: int) -> BlockReader:
        return super().window(offset - 1 if offset == self.size // 2 and length else offset, length)


@breaks("closing a window leaves the reader open")
class WindowOwns(Changed):
    def window(self, offset: int, length: int) -> BlockReader:
        whole, super_window = self, super().window(offset, length)

        class Owning(MemoryReader):
            def _release(self) -> None:
                whole.close()

        with super_window:
            return Owning(super_window.readall())


@breaks("seek gives the position")
class SeekSaysNothing(Changed):
    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return super().seek(offset, whence) + 1


@breaks("read gives what is at the cursor")
class ReadFromTheEnd(Changed):
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size)[::-1]


@breaks("read moves the cursor")
class CursorStays(Changed):
    def read(self, size: int | None = -1, /) -> bytes:
        data, self._position = super().read(size), 0
        return data


@breaks("readinto goes on from the cursor")
class ReadintoFromZero(Changed):
    def readinto(self, buffer: Any, /) -> int:
        return self.preadinto(buffer, 0)


@breaks("seek from the end")
class SeekEndIsStart(Changed):
    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return (
            super().seek(max(0, offset), io.SEEK_SET)
            if whence == io.SEEK_END
            else super().seek(offset, whence)
        )


@breaks("read() gives the rest")
class RestIsShort(Changed):
    def readall(self) -> bytes:
        return super().readall()[:-1]


@breaks("at the end read gives nothing")
class NeverEnds(Changed):
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size) or b"\0"


@breaks("seeking behind the end is allowed")
class SeekStopsAtTheEnd(Changed):
    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        place = super().seek(offset, whence)
        return super().seek(min(place, self.size)) if whence == io.SEEK_CUR else place


@breaks("behind the end there is nothing, for readall too")
class ReadallWrapsAround(Changed):
    def readall(self) -> bytes:
        return super().readall() if self._position < self.size else b"more"

    def read(self, size: int | None = -1, /) -> bytes:
        return b"" if self._position >= self.size else super().read(size)


@breaks("io.BufferedReader works over it")
class BadForBuffers(Changed):
    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        if len(buffer) > 1000:
            buffer[:5] = b"wrong"
        return count


@breaks("closing what is built on it closes it")
class NeverClosed(Changed):
    @property
    def closed(self) -> bool:
        return False


@breaks("a reader refuses pickle and copy with UsageError")
class Pickles(Changed):
    def __reduce_ex__(self, protocol: Any, /) -> Any:
        return copyreg.__newobj__, (object,)  # type: ignore[attr-defined]  # a helper of pickle's


@breaks("reads in several threads at once are right")
class SharedBuffer(Changed):
    """Remembers the range of whoever came last: the other one reads that too."""

    def change(self) -> None:
        self._at = 0
        self._meet = threading.Barrier(2)

    def _read(self, length: int, offset: int) -> bytes:
        self._at = offset
        if threading.current_thread() is not threading.main_thread():
            try:
                self._meet.wait(0.05)
            except threading.BrokenBarrierError:
                self._meet.reset()
        return super()._read(length, self._at)[:length].ljust(length, b"\0")


@breaks("a read that runs while the reader is closed finishes right")
class ForgetsWhenClosed(Changed):
    """Gives zeros once it is being closed, as one whose descriptor went to another file may."""

    gone = False

    def close(self) -> None:
        self.gone = True
        for _ in range(1000):
            if self.seen.wait(0.001):
                break
        super().close()

    def change(self) -> None:
        self.seen = threading.Event()

    def _read(self, length: int, offset: int) -> bytes:
        if self.gone:
            self.seen.set()
        return bytes(length) if self.gone and not self.closed else super()._read(length, offset)


@breaks("close() under running reads ends them with ClosedError alone")
class OtherErrorWhenClosed(Changed):
    def pread(self, length: int, offset: int, /) -> bytes:
        try:
            return super().pread(length, offset)
        except ClosedError:
            raise DeviceReadError("bad file descriptor", offset=offset, length=length) from None


@breaks("a closed reader raises ClosedError")
class TellsWhenClosed(Changed):
    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return 0 if self.closed else super().seek(offset, whence)


@breaks("a closed reader raises ClosedError")
class ConfirmsWhenClosed(Changed):
    def confirm(self) -> None:
        """Says yes for ever."""


@pytest.mark.parametrize(
    ("clause", "reader", "bad"), BROKEN, ids=[reader.__name__ for _, reader, _ in BROKEN]
)
def test_broken_reader_is_found(clause: str, reader: type[Changed], bad: bool) -> None:
    extents = MAP_WITH_BAD if bad else MAP
    with pytest.raises(AssertionError) as caught:
        check_reader(lambda: reader(DATA, extents), DATA, timeout=20)
    assert str(caught.value).startswith(f"{reader.__name__}: {clause}")


@pytest.mark.parametrize("extents", [MAP, MAP_WITH_BAD])
def test_right_reader_is_left_alone(extents: list[Extent]) -> None:
    check_reader(lambda: Changed(DATA, extents), DATA)


def test_what_is_no_reader_is_said_so() -> None:
    class Other(io.BytesIO):
        size, sector_size = len(DATA), 512

    with pytest.raises(AssertionError, match="Other: a reader is a BlockReader"):
        check_reader(lambda: Other(DATA), DATA)  # type: ignore[arg-type,return-value]  # that is the test


def test_error_that_nobody_expects_names_the_reader() -> None:
    class Failing(Changed):
        def _read(self, length: int, offset: int) -> bytes:
            raise OSError(5, "a bug")

    with pytest.raises(AssertionError, match=r"Failing: nothing is raised .* OSError: .* a bug"):
        check_reader(lambda: Failing(DATA, MAP), DATA)


def test_hanging_read_is_given_up() -> None:
    go = threading.Event()

    class Hanging(Changed):
        def _read(self, length: int, offset: int) -> bytes:
            if threading.current_thread() is not threading.main_thread():
                go.wait(60)
            return super()._read(length, offset)

    try:
        with pytest.raises(AssertionError, match=r"a call has not ended after 0\.2 s"):
            check_reader(lambda: Hanging(DATA, MAP), DATA, timeout=0.2)
    finally:
        go.set()


def test_message_tells_the_place_and_never_the_bytes() -> None:
    with pytest.raises(AssertionError) as caught:
        check_reader(lambda: OneByteOff(b"secret" * 1000, [Extent(0, 6000)]), b"secret" * 1000)
    assert "pread(1, 513) differs first at byte 0 of 1" in str(caught.value)
    assert "secret" not in str(caught.value)
