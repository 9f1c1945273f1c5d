"""A disk that is written while it is read, and how to tell a torn image of it.

The first sector is a header that counts what the body holds.  A commit writes some records
to the body, each to its own sector, and then the header: so at every instant, also between
two of its writes, the disk is one that a power cut could have left.  A copy that takes the
header at one time and the body at another is not: it holds records that no header counts
and that no single interrupted commit explains.
"""

from __future__ import annotations

import struct
import threading
import zlib
from typing import TYPE_CHECKING

from vsssnap._units import whole
from vsssnap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vsssnap.blocks.reader import SupportsPread
    from vsssnap.formats.base import SupportsWrite

SECTOR = 512
BODY = 4096
"""Where the records begin, bytes."""

_MAGIC = b"live dsk"
_HEADER = struct.Struct("<8sQQQQI")  # magic, seed, records a commit, slots, records so far, XOR of their CRCs
_RECORD = struct.Struct("<8sQ")  # magic, number; noise follows up to the CRC in the last four bytes
_RECORD_MAGIC = b"record\0\0"


class LiveDisk:
    """A volume with an application on it: each `commit` adds records and then counts them.

    By default it lives in memory and is itself a source (``size`` and ``pread``) and a target
    (``pwrite``).  With ``target`` the application writes there instead: to a `CowVolume`, or
    to a file through an object with ``size`` and ``pwrite(data, offset)``.

    Records wrap around, so it can be committed to for ever.  The records of one commit lie side
    by side.  Thread-safe: commits and reads run at the same time, one write being the smallest step.
    """

    def __init__(
        self,
        size: int = 1 << 20,
        *,
        seed: int = 0,
        records_per_commit: int = 4,
        target: SupportsWrite | None = None,
    ) -> None:
        """Format the volume: an empty body and a header that counts nothing.

        Args:
            size: Bytes; with ``target``, its size is taken instead.
            seed: 0 to 2**64 - 1; the same seed, the same records.
            records_per_commit: Sectors written to the body by each commit.
            target: Where the application writes; it must read as zeros.

        Raises:
            UsageError: the body has no room for two commits.
        """
        self.size = whole(size if target is None else target.size, "size")
        self._memory = bytearray(self.size if target is None else 0)
        self._target = target
        self.seed = whole(seed, "seed", most=(1 << 64) - 1)
        self._step = whole(records_per_commit, "records_per_commit", least=1)
        # Whole commits only: a commit never overwrites its own records.
        self._slots = max(0, self.size - BODY) // SECTOR // self._step * self._step
        if self._slots < 2 * self._step:
            raise UsageError(
                f"{self.size} bytes have no room for two commits of {self._step} records",
                hint=f"take at least {BODY + 2 * self._step * SECTOR} bytes",
            )
        self._commit_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._count = 0
        self._sum = 0
        self._write(self._header(), 0)

    @property
    def commits(self) -> int:
        """Commits so far."""
        return self._count // self._step

    @property
    def body_end(self) -> int:
        """First byte behind the last record's place."""
        return BODY + self._slots * SECTOR

    def pread(self, length: int, offset: int, /) -> bytes:
        """What the disk holds at this moment; for a disk in memory."""
        self._in_memory("pread")
        with self._write_lock:
            return bytes(self._memory[whole(offset, "offset") : offset + whole(length, "length")])

    def pwrite(self, data: bytes | memoryview, offset: int, /) -> int:
        """Write past the application, to damage the disk; for a disk in memory."""
        self._in_memory("pwrite")
        if whole(offset, "offset") + len(data) > self.size:
            raise UsageError(f"{len(data)} bytes at {offset} are behind the end, {self.size}")
        self._write(bytes(data), offset)
        return len(data)

    def commit(self, count: int = 1) -> None:
        """Run ``count`` commits, one after the other."""
        for _ in range(count):
            for _ in self.writes():
                pass

    def writes(self) -> Iterator[int]:
        """One commit, stopping after each of its writes; gives how many writes are done.

        The last one is the header.  An iterator that is not run to its end leaves the commit
        unfinished, as a power cut does; the next commit writes the same records again.
        """
        with self._commit_lock:
            total = self._sum
            for done in range(self._step):
                number = self._count + done
                record = make_record(self.seed, number)
                if number >= self._slots:
                    total ^= zlib.crc32(make_record(self.seed, number - self._slots))
                total ^= zlib.crc32(record)
                self._write(record, BODY + number % self._slots * SECTOR)
                yield done + 1
            self._count, self._sum = self._count + self._step, total
            self._write(self._header(), 0)
            yield self._step + 1

    def _header(self) -> bytes:
        fields = _HEADER.pack(_MAGIC, self.seed, self._step, self._slots, self._count, self._sum)
        return (fields + zlib.crc32(fields).to_bytes(4, "little")).ljust(SECTOR, b"\0")

    def _write(self, data: bytes, offset: int) -> None:
        if self._target is not None:
            self._target.pwrite(memoryview(data), offset)
            return
        with self._write_lock:
            self._memory[offset : offset + len(data)] = data

    def _in_memory(self, call: str) -> None:
        if self._target is not None:
            raise UsageError(f"{call}: this disk writes to a target", hint="read the target itself")


def make_record(seed: int, number: int) -> bytes:
    """The sector that holds a record: its number, noise made from it, a CRC-32."""
    head = _RECORD.pack(_RECORD_MAGIC, number)
    noise = struct.pack("<Q", (seed * 0x9E37_79B9_7F4A_7C15 + number * 0xBF58_476D_1CE4_E5B9) % (1 << 64))
    body = (head + noise * (SECTOR // 8))[: SECTOR - 4]
    return body + zlib.crc32(body).to_bytes(4, "little")


def torn(content: bytes | bytearray | memoryview | SupportsPread) -> str | None:
    """Why an image of a `LiveDisk` is torn; None if it is as the disk was at one instant.

    Args:
        content: The image: its bytes, or a reader of it.  It may be longer than the disk.
    """
    read = _reading(content)
    header = read(SECTOR, 0)
    fields = header[: _HEADER.size]
    if len(header) < SECTOR or not header.startswith(_MAGIC):
        return "there is no header"
    if header[_HEADER.size : _HEADER.size + 4] != zlib.crc32(fields).to_bytes(4, "little"):
        return "the header fails its checksum"
    _, seed, step, slots, count, total = _HEADER.unpack(fields)
    found = 0
    under_way = [False] * step  # which records of the next commit are there
    for slot in range(slots):
        sector = read(SECTOR, BODY + slot * SECTOR)
        ahead = (slot - count) % slots
        number = count - slots + ahead  # the record that the header counts here; negative: none
        counted = make_record(seed, number) if number >= 0 else bytes(SECTOR)
        if number >= 0:
            found ^= zlib.crc32(counted)
        if sector == counted:
            continue
        why = _odd(sector, seed, slot, slots, count, step)
        if why is not None:
            return why
        under_way[ahead] = True
    if found != total:
        return f"the header's sum over its {count} records is wrong"
    written = under_way.index(False) if False in under_way else step
    if any(under_way[written:]):
        late = count + under_way.index(True, written)
        return f"record {late} is there and record {count + written}, written before it, is not"
    return None


def _odd(sector: bytes, seed: int, slot: int, slots: int, count: int, step: int) -> str | None:
    """What is wrong with a sector that is not what the header counts there."""
    if len(sector) < SECTOR:
        return f"the image ends inside the body, in slot {slot}"
    magic, number = _RECORD.unpack_from(sector)
    if magic != _RECORD_MAGIC or sector != make_record(seed, number) or number % slots != slot:
        return f"slot {slot} of the body holds no whole record, and the header counts {count} records"
    if count <= number < count + step:
        return None  # of the one commit that was under way at that instant
    return f"the header counts {count} records, and the body holds record {number}" + (
        ", of a later commit" if number >= count else ", of an earlier time"
    )


def naive_copy(
    source: SupportsPread, *, stop_at: int, between: Callable[[], object], piece: int = 1 << 16
) -> bytes:
    """Copy a live disk from the first byte to the last, as ``dd`` does, with a pause in it.

    Args:
        source: The disk.
        stop_at: Bytes after which the copier stops for a moment.
        between: What happens at that moment.  Two commits that write behind ``stop_at`` make the
            copy torn by construction; one alone looks like a commit that was under way.
        piece: Bytes a read.
    """
    result = bytearray()
    stopped = False
    while len(result) < source.size:
        if not stopped and len(result) >= stop_at:
            between()
            stopped = True
        end = source.size if stopped else min(stop_at, source.size)
        result += source.pread(min(piece, end - len(result)), len(result))
    if not stopped:
        between()
    return bytes(result)


def _reading(content: bytes | bytearray | memoryview | SupportsPread) -> Callable[[int, int], bytes]:
    if isinstance(content, (bytes, bytearray, memoryview)):
        view = memoryview(content).cast("B")
        return lambda length, offset: bytes(view[offset : offset + length])
    return content.pread
