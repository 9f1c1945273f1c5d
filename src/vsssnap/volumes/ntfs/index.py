"""Directories: the index ``$I30`` of a record, a tree of names."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vsssnap._units import is_power_of_two
from vsssnap.volumes.ntfs.geometry import Geometry, bad, fixed
from vsssnap.volumes.ntfs.stream import Stream
from vsssnap.volumes.ntfs.structs import (
    INDEX_ALLOCATION,
    INDEX_ROOT,
    STRIDE,
    IndexBlock,
    IndexEntry,
    IndexHeader,
    IndexRoot,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.volumes.ntfs.records import FileEntry, MasterFileTable

_MAX_BLOCKS = 1 << 10  # index blocks that are read to list one directory: some 40,000 names
_MAX_DEPTH = 32
_NAME_AT = 66  # in the key, a $FILE_NAME
_BELOW, _LAST = 1, 2


class _Entry(NamedTuple):
    name: str | None  # None in the last entry of a node
    reference: int
    below: int | None  # VCN of the block with the names before this one


class Directory:
    """The names in one directory."""

    def __init__(self, table: MasterFileTable, geometry: Geometry, entry: FileEntry) -> None:
        """Read the root of the index.

        Raises:
            CorruptImageError: there is none.
        """
        root = table.stream(entry, INDEX_ROOT, "$I30")
        if not isinstance(root, bytes):
            raise bad(f"record {entry.number} is no directory", "$I30", None)
        head = IndexRoot.unpack(root)
        if not (STRIDE <= head.index_size <= 1 << 16 and is_power_of_two(head.index_size)):
            raise bad(f"index blocks of {head.index_size} bytes", "$I30", None)
        self._size = head.index_size
        # A VCN counts clusters, or strides where an index block is smaller than a cluster.
        self._unit = geometry.cluster_size if head.index_size >= geometry.cluster_size else STRIDE
        self._root = tuple(_entries(root[IndexRoot.SIZE :]))
        blocks = table.stream(entry, INDEX_ALLOCATION, "$I30")
        self._blocks = blocks if isinstance(blocks, Stream) else None

    def _block(self, vcn: int) -> tuple[_Entry, ...]:
        at = vcn * self._unit
        if self._blocks is None or at + self._size > min(self._blocks.size, self._blocks.initialized):
            raise bad(f"there is no block {vcn}", "$I30", None)
        data = self._blocks.read(at, self._size)
        head = IndexBlock.unpack(data)
        data = fixed(data, b"INDX", head.usa_offset, head.usa_count, at)
        if head.vcn != vcn:
            raise bad(f"block {vcn} says that it is {head.vcn}", "$I30", None)
        return tuple(_entries(data[IndexBlock.SIZE :]))

    def find(self, name: str) -> int | None:
        """The file reference of a name in ASCII, whatever its case; None if there is none.

        Raises:
            CorruptImageError: a block of the index is damaged.
        """
        wanted = _key(name)
        node, depth = self._root, 0
        while True:
            down: int | None = None
            for entry in node:
                if entry.name is None or _key(entry.name) >= wanted:
                    if entry.name is not None and _key(entry.name) == wanted:
                        return entry.reference
                    down = entry.below
                    break
            depth += 1
            if down is None:
                return None
            if depth > _MAX_DEPTH:
                raise bad(f"it is deeper than {_MAX_DEPTH}", "$I30", None)
            node = self._block(down)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """All names and file references, in no order; short names of the same files among them.

        Raises:
            CorruptImageError: a block of the index is damaged, or there are too many.
        """
        waiting, seen = [self._root], set[int]()
        while waiting:
            for entry in waiting.pop():
                if entry.name is not None:
                    yield entry.name, entry.reference
                if entry.below is not None:
                    if entry.below in seen or len(seen) >= _MAX_BLOCKS:
                        raise bad(f"it comes back to block {entry.below} or is too large", "$I30", None)
                    seen.add(entry.below)
                    waiting.append(self._block(entry.below))


def _key(name: str) -> str:
    """What names are sorted by, as far as ASCII goes: other characters come after it either way."""
    return "".join(c.upper() if c.isascii() else c for c in name)


def _entries(data: bytes) -> Iterator[_Entry]:
    """The entries of a node; offsets count from its `IndexHeader`, which is first in ``data``."""
    head = IndexHeader.unpack(data)
    at, end = head.entries_offset, min(head.index_length, len(data))
    while at + IndexEntry.SIZE <= end:
        entry = IndexEntry.unpack(data, at)
        below: int | None = None
        if entry.length < IndexEntry.SIZE or entry.length % 8 or at + entry.length > end:
            break
        if entry.flags & _BELOW:
            below = int.from_bytes(data[at + entry.length - 8 : at + entry.length], "little")
        if entry.flags & _LAST:
            yield _Entry(None, 0, below)
            return
        key = data[at + IndexEntry.SIZE : at + IndexEntry.SIZE + entry.key_length]
        if len(key) < _NAME_AT or len(key) < _NAME_AT + 2 * key[64]:
            break
        name = key[_NAME_AT : _NAME_AT + 2 * key[64]].decode("utf-16-le", "replace")
        yield _Entry(name, entry.reference, below)
        at += entry.length
    raise bad(f"its entries leave the node at byte {at}", "$I30", None)
