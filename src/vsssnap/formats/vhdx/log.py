"""The log: find the active sequence and replay it in memory.

Source: [MS-VHDX] 2.3.  The log is a ring of 4 KiB sectors.  An entry counts when every field of
its header, its descriptors, its data sectors and its checksum agree; entries whose sequence
numbers rise by one make a sequence, which is complete when it holds the entry that the tail of
its last one points to.  The complete sequence with the highest number is replayed, from that
tail on.  Torn and stale entries fail one of these tests.

Bounds: each place of the ring is looked at once, the checksums of all entries together cover at
most the log four times over (entries of a sound log never overlap), and a log longer than
`MAX_LOG` is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vsssnap._crc32c import crc32c
from vsssnap._units import MIB
from vsssnap.errors import CorruptImageError, UnsupportedFeatureError
from vsssnap.formats.vhdx.overlay import OverlayStorage, Patches
from vsssnap.formats.vhdx.structs import (
    CHECKSUM_AT,
    DATA_MAGIC,
    FIRST_DESCRIPTORS,
    LOG_ENTRY_MAGIC,
    LOG_SECTOR,
    MAX_FILE,
    MORE_DESCRIPTORS,
    SECTOR_MAGIC,
    ZERO_MAGIC,
    Descriptor,
    Header,
    LogEntryHeader,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.formats.storage import Storage

MAX_LOG: Final = 64 * MIB
"""Bytes of a log that is replayed; known images of Windows have 1 MiB."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A valid entry: where it begins in the log, its header, and all its bytes in order."""

    start: int
    header: LogEntryHeader
    data: memoryview


def is_dirty(header: Header) -> bool:
    """Whether there is something to replay."""
    return any(header.log_guid)


def replay(storage: Storage, header: Header) -> OverlayStorage:
    """The file as it is after its log was replayed; owns ``storage``, which is only read.

    Raises:
        CorruptImageError: the log has no valid sequence, or the file was truncated.
        UnsupportedFeatureError: the log is of another version, or longer than `MAX_LOG`.
    """
    name = storage.name
    if header.log_version:
        raise UnsupportedFeatureError(
            f"{name}: its log is of version {header.log_version}, only 0 is known and it must be replayed",
            path=name,
            feature=f"log version {header.log_version}",
        )
    if header.log_length > MAX_LOG:
        raise UnsupportedFeatureError(
            f"{name}: its log has {header.log_length} bytes to replay, at most {MAX_LOG} are",
            path=name,
            feature="log length",
            hint="attach it once where it was made, which empties the log",
        )
    if not header.log_length or header.log_length % MIB or header.log_offset % MIB:
        raise _corrupt(
            storage, header, f"the log has {header.log_length} bytes, which is no multiple of 1 MiB"
        )
    ring = _Ring(storage, header)
    active = ring.active()
    if not active:
        raise _corrupt(storage, header, "the log is not empty and holds no valid sequence of entries")
    head = active[-1].header
    if storage.size < head.flushed_file_offset:
        raise CorruptImageError(
            f"{name} was truncated: it has {storage.size} bytes, and had {head.flushed_file_offset}",
            path=name,
            structure="file",
            offset=storage.size,
        )
    patches = Patches()
    for entry in active:
        _apply(entry, patches)
    if max(patches.end, head.last_file_offset) > MAX_FILE:
        raise _corrupt(storage, header, f"the log writes behind byte {MAX_FILE}")
    return OverlayStorage(storage, patches, head.last_file_offset)


def _apply(entry: _Entry, patches: Patches) -> None:
    sector = _descriptor_sectors(entry.header.descriptors) * LOG_SECTOR
    for descriptor in _descriptors(entry.data, entry.header.descriptors):
        if descriptor.signature == ZERO_MAGIC:
            patches.zero(int.from_bytes(descriptor.leading, "little"), descriptor.offset)
            continue
        body = entry.data[sector + 8 : sector + LOG_SECTOR - 4]
        patches.write(b"".join((descriptor.leading, body, descriptor.trailing)), descriptor.offset)
        sector += LOG_SECTOR


def _descriptor_sectors(count: int) -> int:
    return 1 + -(-max(0, count - FIRST_DESCRIPTORS) // MORE_DESCRIPTORS)


def _descriptors(data: memoryview, count: int) -> Iterator[Descriptor]:
    # Behind the header's 64 bytes they follow one another without a gap, over sector borders too.
    for at in range(LogEntryHeader.SIZE, LogEntryHeader.SIZE + count * Descriptor.SIZE, Descriptor.SIZE):
        yield Descriptor.unpack(data, at)


class _Ring:
    """The log's bytes, and its entries by place."""

    def __init__(self, storage: Storage, header: Header) -> None:
        self._length = header.log_length
        self._guid = header.log_guid
        self._data = memoryview(storage.pread(self._length, header.log_offset))
        self._budget = 4 * self._length
        self._known: dict[int, _Entry | None] = {}

    def active(self) -> list[_Entry]:
        """The newest complete sequence, from its tail on; empty if there is none."""
        best: list[_Entry] = []
        at = 0
        while at < self._length:
            sequence = self._sequence(at)
            if not sequence:
                at += LOG_SECTOR
                continue
            # Whatever begins inside of this sequence ends in the same entry, so it is no better.
            at += sum(entry.header.length for entry in sequence)
            head = sequence[-1].header
            starts = [entry.start for entry in sequence]
            if head.tail in starts and (not best or head.sequence > best[-1].header.sequence):
                best = sequence[starts.index(head.tail) :]
        return best

    def _sequence(self, at: int) -> list[_Entry]:
        found: list[_Entry] = []
        total = 0
        while True:
            entry = self._entry((at + total) % self._length)
            if entry is None or total + entry.header.length > self._length:
                return found
            if found and entry.header.sequence != found[-1].header.sequence + 1:
                return found
            found.append(entry)
            total += entry.header.length

    def _entry(self, start: int) -> _Entry | None:
        if start not in self._known:
            self._known[start] = self._parse(start)
        return self._known[start]

    def _parse(self, start: int) -> _Entry | None:
        header = LogEntryHeader.unpack(self._data, start)
        sectors = _descriptor_sectors(header.descriptors)
        if (
            header.signature != LOG_ENTRY_MAGIC
            or header.log_guid != self._guid
            or not header.sequence
            or header.length % LOG_SECTOR
            or not sectors * LOG_SECTOR <= header.length <= self._length
            or header.tail % LOG_SECTOR
            or header.tail >= self._length
        ):
            return None
        data = self._data[start : start + header.length]
        if len(data) < header.length:  # it goes on at the ring's begin
            data = memoryview(b"".join((data, self._data[: header.length - len(data)])))
        if not self._is_whole(data, header, sectors) or not self._is_checked(data, header):
            return None
        return _Entry(start, header, data)

    @staticmethod
    def _is_whole(data: memoryview, header: LogEntryHeader, sectors: int) -> bool:
        """Whether descriptors and data sectors carry the entry's number and lie on sectors."""
        at = sectors * LOG_SECTOR
        number = header.sequence.to_bytes(8, "little")
        for descriptor in _descriptors(data, header.descriptors):
            if descriptor.sequence != header.sequence or descriptor.offset % LOG_SECTOR:
                return False
            if descriptor.signature == ZERO_MAGIC:
                if int.from_bytes(descriptor.leading, "little") % LOG_SECTOR:
                    return False
            elif descriptor.signature == DATA_MAGIC:
                sector = data[at : at + LOG_SECTOR]
                if sector[:8] != SECTOR_MAGIC + number[4:] or sector[-4:] != number[:4]:
                    return False
                at += LOG_SECTOR
            else:
                return False
        return True  # bytes behind the last data sector are the writer's alignment

    def _is_checked(self, data: memoryview, header: LogEntryHeader) -> bool:
        self._budget -= len(data)
        if self._budget < 0:  # entries overlap many times: made to take long, not by a log's writer
            return False
        value = crc32c(data[:CHECKSUM_AT])
        value = crc32c(bytes(4), value)
        return crc32c(data[CHECKSUM_AT + 4 :], value) == header.checksum


def _corrupt(storage: Storage, header: Header, message: str) -> CorruptImageError:
    return CorruptImageError(
        f"{storage.name}: {message}",
        path=storage.name,
        structure="log",
        offset=header.log_offset,
        hint="pass recover=True to read it as it is without the log",
    )
