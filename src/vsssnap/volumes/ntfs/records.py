"""The master file table: records, and attributes that are spread over several of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsssnap.blocks.extent import Extent
from vsssnap.errors import CorruptImageError
from vsssnap.volumes.ntfs.geometry import Geometry, bad, fixed
from vsssnap.volumes.ntfs.stream import Stream
from vsssnap.volumes.ntfs.structs import (
    ATTRIBUTE_LIST,
    DATA,
    END,
    MFT,
    Attribute,
    FileRecord,
    ListEntry,
    NonResident,
    Resident,
)

if TYPE_CHECKING:
    from vsssnap.blocks.reader import BlockReader

_MAX_LIST = 256 << 10  # bytes of an attribute list: Windows makes none longer
_IN_USE = 1


def number_of(reference: int) -> int:
    """The record number in a file reference; its sequence number is above."""
    return reference & 0xFFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True)
class Piece:
    """An attribute as one record has it: a value, or one fragment of runs."""

    type: int
    name: str
    flags: int
    value: bytes | None
    fragment: NonResident | None
    runs: bytes


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One record with its fix-ups undone."""

    number: int
    header: FileRecord
    data: bytes

    def pieces(self) -> Iterator[Piece]:
        """Its attributes, in order.

        Raises:
            CorruptImageError: one leaves the record.
        """
        at, end = self.header.first_attribute, min(self.header.bytes_in_use, len(self.data))
        while at + 4 <= end:
            kind = int.from_bytes(self.data[at : at + 4], "little")
            if kind == END:
                return
            length = int.from_bytes(self.data[at + 4 : at + 8], "little")
            if length < Attribute.SIZE + Resident.SIZE or length % 8 or at + length > end:
                break
            yield self._piece(self.data[at : at + length])
            at += length
        raise bad(f"the attributes of record {self.number} leave it at byte {at}", "FILE record", None)

    def _piece(self, data: bytes) -> Piece:
        head = Attribute.unpack(data)
        name = data[head.name_offset : head.name_offset + 2 * head.name_length]
        text = name.decode("utf-16-le", "replace")
        if head.non_resident:
            fragment = NonResident.unpack(data, Attribute.SIZE)
            return Piece(head.type, text, head.flags, None, fragment, data[fragment.runs_offset :])
        value = Resident.unpack(data, Attribute.SIZE)
        end = value.value_offset + value.value_length
        if end > len(data):
            raise bad(f"a value of record {self.number} ends at {end} of {len(data)}", "FILE record", None)
        return Piece(head.type, text, head.flags, data[value.value_offset : end], None, b"")

    def value(self, kind: int) -> bytes | None:
        """The value of the first resident attribute of a type in this very record."""
        return next((p.value for p in self.pieces() if p.type == kind and p.value is not None), None)


class MasterFileTable:
    """Records by number."""

    def __init__(self, volume: BlockReader, geometry: Geometry) -> None:
        """Find the table itself.

        Raises:
            CorruptImageError: it is not there, nor its mirror.
        """
        self._volume = volume
        self._geometry = geometry
        self._stream: Stream | None = None
        try:
            base = self._at(geometry.mft_lcn * geometry.cluster_size, MFT)
        except CorruptImageError as exc:
            if geometry.mirror_lcn >= geometry.clusters:
                raise
            try:
                base = self._at(geometry.mirror_lcn * geometry.cluster_size, MFT)
            except CorruptImageError:
                raise exc from None
        # Its list may name records that only its first fragment leads to.
        own = [piece for piece in base.pieces() if piece.type == DATA and not piece.name]
        if not own or own[0].fragment is None:
            raise bad("record 0 has no data", "$MFT", None)
        self._stream = self._begun(own[0])
        for piece in self._listed(base, DATA, "", after=self._stream.clusters):
            self._append(self._stream, piece)

    def record(self, number: int, *, sequence: int | None = None) -> FileEntry:
        """A record that is in use.

        Args:
            number: Its number.
            sequence: What its sequence number must be; None for any.

        Raises:
            CorruptImageError: it is not there, or another file's by now.
        """
        size, stream = self._geometry.record_size, self._stream
        if stream is None or (number + 1) * size > min(stream.size, stream.initialized):
            raise bad(f"there is no record {number}", "$MFT", None)
        entry = self._parsed(stream.read(number * size, size), number, None)
        if sequence is not None and entry.header.sequence != sequence:
            raise bad(
                f"record {number} is number {entry.header.sequence} of it, not {sequence}", "$MFT", None
            )
        return entry

    def extents(self) -> list[Extent]:
        """Where the table lies."""
        size = self._geometry.cluster_size
        runs = self._stream.runs() if self._stream is not None else ()
        return [Extent(lcn * size, count * size) for lcn, count in runs]

    def _at(self, place: int, number: int) -> FileEntry:
        return self._parsed(self._volume.pread(self._geometry.record_size, place), number, place)

    def _parsed(self, block: bytes, number: int, place: int | None) -> FileEntry:
        head = FileRecord.unpack(block)
        where = place if place is not None else 0
        data = fixed(block, b"FILE", head.usa_offset, head.usa_count, where)
        head = FileRecord.unpack(data)
        if not head.flags & _IN_USE:
            raise bad(f"record {number} is not in use", "FILE record", place)
        return FileEntry(number, head, data)

    def stream(self, entry: FileEntry, kind: int, name: str = "") -> Stream | bytes | None:
        """A whole attribute: its value if that is in the record, its stream else; None if it has none.

        Raises:
            CorruptImageError: its parts do not fit together.
        """
        found = [piece for piece in entry.pieces() if (piece.type, piece.name) == (kind, name)]
        if found and found[0].value is not None:
            return found[0].value
        stream: Stream | None = None
        if found and found[0].fragment is not None and found[0].fragment.first_vcn == 0:
            stream = self._begun(found[0])
        for piece in self._listed(entry, kind, name, after=stream.clusters if stream else 0):
            if piece.value is not None:
                return piece.value
            if stream is None:
                stream = self._begun(piece)
            else:
                self._append(stream, piece)
        return stream

    def _begun(self, piece: Piece) -> Stream:
        fragment = piece.fragment
        if fragment is None or fragment.initialized_size > fragment.data_size:
            raise bad(f"attribute 0x{piece.type:x} has sizes that cannot be", "FILE record", None)
        stream = Stream(
            self._volume,
            self._geometry,
            size=fragment.data_size,
            initialized=fragment.initialized_size,
            flags=piece.flags,
        )
        self._append(stream, piece)
        return stream

    def _append(self, stream: Stream, piece: Piece) -> None:
        if piece.fragment is None:
            raise bad(f"attribute 0x{piece.type:x} is in the record and in clusters", "FILE record", None)
        # An empty attribute has -1 for its last cluster.
        last = piece.fragment.last_vcn
        stream.extend(piece.runs, piece.fragment.first_vcn, -1 if last == 2**64 - 1 else last)

    def _listed(self, entry: FileEntry, kind: int, name: str, *, after: int) -> Iterator[Piece]:
        """The fragments of an attribute from cluster ``after`` on that the attribute list names."""
        wanted: list[tuple[int, int, int]] = []
        for first_vcn, reference, identity in self._list(entry, kind, name):
            if first_vcn >= after:
                wanted.append((first_vcn, reference, identity))
        for first_vcn, reference, _ in sorted(wanted):
            other = entry
            if number_of(reference) != entry.number:
                other = self.record(number_of(reference), sequence=reference >> 48)
                if number_of(other.header.base_record) != entry.number:
                    raise bad(f"record {other.number} is no part of {entry.number}", "attribute list", None)
            piece = next(
                (
                    p
                    for p in other.pieces()
                    if (p.type, p.name) == (kind, name)
                    and (p.fragment is None or p.fragment.first_vcn == first_vcn)
                ),
                None,
            )
            if piece is None:
                raise bad(f"record {other.number} lacks what it is named for", "attribute list", None)
            yield piece

    def _list(self, entry: FileEntry, kind: int, name: str) -> Iterator[tuple[int, int, int]]:
        """First cluster, file reference and id of the fragments of an attribute."""
        holder = next((piece for piece in entry.pieces() if piece.type == ATTRIBUTE_LIST), None)
        if holder is None:
            return
        data = holder.value
        if data is None:
            stream = self._begun(holder)
            if stream.size > _MAX_LIST:
                raise bad(f"{stream.size} bytes", "attribute list", None)
            data = stream.read(0, stream.size)
        at = 0
        while at + ListEntry.SIZE <= len(data):
            item = ListEntry.unpack(data, at)
            if item.length < ListEntry.SIZE or at + item.length > len(data):
                raise bad(f"an entry of {item.length} bytes at {at}", "attribute list", None)
            text = data[at + item.name_offset : at + item.name_offset + 2 * item.name_length]
            if item.type == kind and text.decode("utf-16-le", "replace") == name:
                yield item.first_vcn, item.reference, item.id
            at += item.length
