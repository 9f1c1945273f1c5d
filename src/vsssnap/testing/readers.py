"""The contract of `BlockReader`, as a check."""

from __future__ import annotations

import array
import copy
import io
import pickle
from typing import TYPE_CHECKING

from vsssnap._units import MAX_SIZE, is_power_of_two
from vsssnap.blocks.extent import Extent, ExtentKind, clip
from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import DeviceReadError, UsageError
from vsssnap.metadata import ImageMetadata
from vsssnap.testing._reader_case import MANY, SPAN, ReaderCase

if TYPE_CHECKING:
    from collections.abc import Callable

    from vsssnap.blocks.reader import SupportsPread

_FEW = 200  # extents of a large volume whose content is looked at
_WHOLE = 1 << 26  # bytes: a volume up to this size is read from end to end


def check_reader(
    make_reader: Callable[[], BlockReader],
    content: bytes | SupportsPread,
    *,
    threads: int = 4,
    seed: int = 0,
    timeout: float = 60.0,
) -> None:
    """Hold a reader to the contract of `BlockReader`.

    Ranges that the reader's extents call UNREADABLE must raise; everything else must be as in
    ``content``.  Up to 64 MiB everything is read, of a larger volume a choice.

    Args:
        make_reader: Opens a new reader over the same content; called some times, and what it
            gives is closed.
        content: What the volume holds: bytes, or a source that knows in another way.
        threads: How many read at once.
        seed: Of the choice of ranges.
        timeout: Seconds for anything that runs in threads.

    Raises:
        AssertionError: a clause is broken; the message says which and where.
    """
    with make_reader() as reader:
        check = _ReaderCheck(reader, content, seed)
        with check.clauses.during("reading"):
            check.facts()
            check.map()
            check.reads()
            check.arguments()
            check.blocks()
            check.windows()
            check.file_interface()
            check.copies()
            check.together(threads, timeout)
    with make_reader() as reader:
        check = _ReaderCheck(reader, content, seed)
        with check.clauses.during("io.BufferedReader"):
            check.buffered()
    reader = make_reader()
    try:
        check = _ReaderCheck(reader, content, seed)
        with check.clauses.during("closing"):
            check.map()
            check.closing(threads, timeout)
    finally:
        reader.close()


class _ReaderCheck(ReaderCase):
    """The clauses, one method each."""

    def facts(self) -> None:
        reader, require = self.reader, self.clauses.require
        require(isinstance(reader, BlockReader), "a reader is a BlockReader")
        require(reader.size == self.size, "size is that of the volume", f"{reader.size}, not {self.size}")
        sector = reader.sector_size
        require(is_power_of_two(sector), "sector_size is a power of two", str(sector))
        require(isinstance(reader.metadata, ImageMetadata), "metadata is an ImageMetadata")
        origins: object = reader.origins
        texts = isinstance(origins, tuple) and all(isinstance(path, str) for path in origins)
        require(texts, "origins is a tuple of paths", repr(origins))
        require(reader.readable() and reader.seekable() and not reader.writable(), "it reads and seeks")
        require(not reader.closed, "a new reader is open")
        reader.confirm()

    def map(self) -> None:
        """Extents of the whole; learns what is UNREADABLE."""
        found = self.extents(0, None)
        self.bad = [extent for extent in found if extent.kind is ExtentKind.UNREADABLE]
        few = self.size > _WHOLE and len(found) > _FEW
        for extent in self.dice.sample(found, _FEW) if few else found:
            if extent.reads_as_zero:
                self.zeros(extent)
            elif extent.kind is ExtentKind.UNREADABLE:
                for offset in {extent.offset, extent.end - 1}:
                    self.clauses.raises(
                        DeviceReadError,
                        lambda at=offset: self.reader.pread(1, at),  # type: ignore[misc] # bound per turn
                        "a read of an UNREADABLE range raises DeviceReadError",
                        f"pread(1, {offset})",
                    )
        for length, offset in self.chosen():
            for extent in self.extents(offset, length):
                bad = any(True for _ in clip(self.bad, extent.offset, extent.length))
                self.clauses.require(
                    bad == (extent.kind is ExtentKind.UNREADABLE) or len(found) == MANY,
                    "a range is UNREADABLE however it is asked for",
                    f"{extent.offset}+{extent.length} in extents({offset}, {length})",
                )

    def zeros(self, extent: Extent) -> None:
        """What reads as zeros is zeros in the content."""
        offsets = [extent.offset, max(extent.offset, extent.end - SPAN)]
        if self.size <= _WHOLE:
            offsets = list(range(extent.offset, extent.end, SPAN))
        for offset in offsets:
            data = self.expected(min(SPAN, extent.end - offset), offset)
            self.clauses.require(
                not any(data),
                f"a range that holds data is never {extent.kind.name}",
                f"{extent.offset}+{extent.length} has data in it",
            )

    def read(self, length: int, offset: int) -> None:
        """One read, in both ways."""
        wanted = self.expected(length, offset)
        where = f"pread({length}, {offset})"
        if self.unreadable(len(wanted), offset):
            clause = "a read that touches an UNREADABLE range raises DeviceReadError"
            self.clauses.raises(DeviceReadError, lambda: self.reader.pread(length, offset), clause, where)
            return
        data: object = self.reader.pread(length, offset)
        if not isinstance(data, bytes):
            self.clauses.broken("pread gives bytes", f"{where} gave {type(data).__name__}")
        self.clauses.same(data, wanted, "a read is exact, shorter only at the end", where)
        buffer = bytearray(b"\xa5" * (length + 16))
        count = self.reader.preadinto(memoryview(buffer)[8 : 8 + length], offset)
        where = f"preadinto of {length} bytes at {offset}"
        self.clauses.require(count == len(wanted), "preadinto gives the bytes it wrote", f"{where}: {count}")
        self.clauses.same(memoryview(buffer)[8 : 8 + count], wanted, "preadinto reads what pread does", where)
        rest = buffer[:8] + buffer[8 + count :]
        self.clauses.require(not rest.strip(b"\xa5"), "preadinto leaves the rest of the buffer alone", where)

    def reads(self) -> None:
        for length, offset in self.chosen():
            self.read(length, offset)
        if self.size <= _WHOLE:
            for offset in range(0, self.size, SPAN):
                self.read(min(SPAN, self.size - offset), offset)
        for offset in {max(0, self.size - 3), self.size}:
            # Far more than there is: clipped before anything is allocated.
            if not self.unreadable(3, offset):
                data = self.reader.pread(MAX_SIZE, offset)
                self.clauses.same(
                    data, self.expected(3, offset), "a read is clipped at the end", "a huge pread"
                )
        if self.size >= 8 and not self.unreadable(8, 0):
            words = array.array("H", [0] * 4)
            count = self.reader.preadinto(words, 0)
            self.clauses.require(
                count == 8, "preadinto fills a buffer of any item size", f"{count} of 8 bytes"
            )
            self.clauses.same(words.tobytes(), self.expected(8, 0), "preadinto fills words", "at 0")

    def arguments(self) -> None:
        reader = self.reader
        calls: dict[str, Callable[[], object]] = {
            "pread(-1, 0)": lambda: reader.pread(-1, 0),
            "pread(1, -1)": lambda: reader.pread(1, -1),
            "pread(1.5, 0)": lambda: reader.pread(1.5, 0),  # type: ignore[arg-type] # that is the test
            "preadinto at -1": lambda: reader.preadinto(bytearray(1), -1),
            "preadinto of bytes": lambda: reader.preadinto(b"x", 0),
            "preadinto of every other byte": lambda: reader.preadinto(memoryview(bytearray(4))[::2], 0),
            "extents(-1)": lambda: reader.extents(-1),
            "extents(0, -1)": lambda: reader.extents(0, -1),
            "blocks(0)": lambda: reader.blocks(0),
            "window(-1, 0)": lambda: reader.window(-1, 0),
            "a window longer than the volume": lambda: reader.window(0, self.size + 1),
            "a window that ends behind the volume": lambda: reader.window(self.size, 1),
            "a window behind the end": lambda: reader.window(self.size + 1, 0),
            "seek(-1)": lambda: reader.seek(-1),
            "seek(0, 9)": lambda: reader.seek(0, 9),
        }
        for where, call in calls.items():
            self.clauses.raises(UsageError, call, "a wrong argument raises UsageError", where)

    def blocks(self) -> None:
        if self.size > _WHOLE:
            return
        units = (
            {512, 4096, 65536, self.size + 1, MAX_SIZE, 3} if self.size <= 4096 else {4096, 99_991, MAX_SIZE}
        )
        for unit in units:
            if self.bad:
                clause = "blocks() raises DeviceReadError at an UNREADABLE range"
                where = f"blocks({unit})"
                self.clauses.raises(
                    DeviceReadError,
                    lambda unit=unit: list(self.reader.blocks(unit)),  # type: ignore[misc] # bound per turn
                    clause,
                    where,
                )
            else:
                self.passes(unit, only_data=True)
                self.passes(unit, only_data=False)

    def passes(self, unit: int, *, only_data: bool) -> None:
        where = f"blocks({unit}, only_data={only_data})"
        # All views first, then the comparison: each must have memory of its own.
        views = list(self.reader.blocks(unit, only_data=only_data))
        at = 0
        for offset, view in views:
            self.clauses.require(isinstance(view, memoryview), "blocks() gives memoryviews", where)
            clause = "blocks() gives aligned blocks, ascending, each once"
            self.clauses.require(offset % unit == 0 and offset >= at, clause, f"{where}: {offset} after {at}")
            skipped = self.expected(offset - at, at)
            self.clauses.require(
                not any(skipped), "blocks() leaves out nothing but zeros", f"{where} at {at}"
            )
            clause = "a block stays valid and unchanged as long as it is referenced"
            wanted = self.expected(min(unit, self.size - offset), offset)
            self.clauses.same(view, wanted, clause, f"{where}, block {offset}")
            at = offset + len(view)
        self.clauses.require(not any(self.expected(self.size - at, at)), "blocks() goes to the end", where)
        if not only_data:
            total = sum(len(view) for _, view in views)
            self.clauses.require(total == self.size, "only_data=False gives everything", where)

    def windows(self) -> None:
        half = self.size // 2
        for offset, length in (
            (0, self.size),
            (half, self.size - half),
            (half, 0),
            (self.size, 0),
            (1, half - 1),
        ):
            if length < 0:
                continue
            with self.reader.window(offset, length) as window:
                where = f"window({offset}, {length})"
                self.clauses.require(window.size == length, "a window has the size asked for", where)
                count = min(length, SPAN)
                for first in {0, length - count}:
                    if not self.unreadable(count, offset + first):
                        data = window.pread(count, first)
                        wanted = self.expected(count, offset + first)
                        self.clauses.same(data, wanted, "a window reads its part of the volume", where)
                window.confirm()
            self.clauses.require(not self.reader.closed, "closing a window leaves the reader open")
            self.reader.pread(0, 0)

    def file_interface(self) -> None:
        reader = self.reader
        if self.unreadable(64, 0) or self.unreadable(10, max(0, self.size - 10)):
            return
        where = "seek, tell, read"
        require = self.clauses.require
        require(reader.seek(0) == 0 and reader.tell() == 0, "seek gives the position", where)
        self.clauses.same(reader.read(5), self.expected(5, 0), "read gives what is at the cursor", where)
        require(reader.tell() == min(5, self.size), "read moves the cursor", where)
        buffer = bytearray(7)
        count = reader.readinto(buffer)
        wanted = self.expected(7, min(5, self.size))
        self.clauses.same(bytes(buffer[:count]), wanted, "readinto goes on from the cursor", where)
        back = min(10, self.size)
        require(reader.seek(-back, io.SEEK_END) == self.size - back, "seek from the end", where)
        wanted = self.expected(back, self.size - back)
        self.clauses.same(reader.read(), wanted, "read() gives the rest", where)
        require(reader.read(1) == b"", "at the end read gives nothing", where)
        beyond = min(5, MAX_SIZE - self.size)
        require(
            reader.seek(beyond, io.SEEK_CUR) == self.size + beyond, "seeking behind the end is allowed", where
        )
        require(reader.read(MAX_SIZE) == b"", "behind the end there is nothing", where)
        require(reader.readall() == b"", "behind the end there is nothing, for readall too", where)
        reader.seek(0)

    def buffered(self) -> None:
        if any(True for extent in self.reader.extents() if extent.kind is ExtentKind.UNREADABLE):
            return
        # Closes the reader when it goes: that is io's own rule.
        with io.BufferedReader(self.reader) as file:
            offset = self.size // 3
            file.seek(offset)
            data = file.read(3000)
            wanted = self.expected(3000, offset)
            self.clauses.same(data, wanted, "io.BufferedReader works over it", f"at {offset}")
        self.clauses.require(self.reader.closed, "closing what is built on it closes it")

    def copies(self) -> None:
        clause = "a reader refuses pickle and copy with UsageError"
        self.clauses.raises(UsageError, lambda: pickle.dumps(self.reader), clause, "pickle")
        self.clauses.raises(UsageError, lambda: copy.copy(self.reader), clause, "copy")
