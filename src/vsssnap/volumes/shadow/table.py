"""The block list of a store, brought into a form in which a block is found quickly.

A store lists what happened to blocks since its shadow copy was taken, in the order in which it
happened: copied before they were overwritten, moved by the file system (*forwarded*), or written in
the shadow copy itself (*overlaid*).  Later descriptors correct earlier ones; a block that was
forwarded and is then copied at its new place counts under its first one.

Copies are held in two sorted arrays, 16 bytes each; they are gathered in parts of the volume, so
that no part needs a large dictionary while it is sorted.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Final

from vsssnap.errors import CorruptImageError
from vsssnap.volumes.shadow.nodes import walk
from vsssnap.volumes.shadow.structs import (
    BLOCK,
    BLOCK_BITS,
    DESCRIPTOR,
    FORWARDER,
    NODE_SIZE,
    NOT_USED,
    OVERLAY,
    RecordType,
)

if TYPE_CHECKING:
    from vsssnap.blocks.reader import BlockReader

# Where the bytes of a block lie: an offset, which is a multiple of BLOCK, plus one of these.
VOLUME: Final = 0  # on the volume itself
OWN: Final = 1  # in shadow storage on the volume itself
OTHER: Final = 2  # in shadow storage on another volume
UNUSED: Final = 3  # nowhere: the block was not protected; the offset is its own
LOST: Final = 4  # nowhere that can be read; the offset is its own
OVERLAID: Final = 8  # added to the others: some of its sectors lie elsewhere
KIND: Final = BLOCK - 1  # mask of all of these

NOWHERE: Final = (1 << 64) - 1  # offset of a copy that lies outside of the storage
_DROPPED: Final = (1 << 64) - 2

_WORDS: Final = struct.Struct(f"<{(BLOCK - NODE_SIZE) // 8}Q")  # a block of descriptors, four words each

_PART_BITS: Final = 16  # a part of the volume is at least 2**16 blocks, 1 GiB ...
_MOST_PARTS: Final = 4096  # ... and there are at most so many
_DUPLICATES: Final = 1 << 18  # copies in one part before duplicates are removed


@dataclass(frozen=True, slots=True)
class Table:
    """What a store knows of blocks; blocks are numbers in units of 16 KiB.

    Attributes:
        blocks: Those that were copied, ascending.
        sources: Offset of each copy plus OWN or OTHER; or LOST.
        forwards: Where blocks were moved to, None if nowhere on the volume.
        overlays: Offset of the sectors that were written in the shadow copy (None if nowhere in the
            storage), and which ones, a bit each.
        moved: All blocks that ever were an end of a move.
    """

    blocks: array[int]
    sources: array[int]
    forwards: dict[int, int | None]
    overlays: dict[int, tuple[int | None, int]]
    moved: array[int]

    def range(self, first: int, last: int) -> tuple[int, int]:
        """The part of the arrays that is about blocks from ``first`` up to ``last``."""
        low = bisect_left(self.blocks, first)
        return low, bisect_left(self.blocks, last, low)

    def copy_of(self, block: int) -> int | None:
        """The source of a block's copy; None if it was not copied."""
        at = bisect_left(self.blocks, block)
        return self.sources[at] if at < len(self.blocks) and self.blocks[at] == block else None


def read_table(storage: BlockReader, first: int, kind: int, limit: int) -> Table:
    """Read and normalise a block list.

    Args:
        storage: The volume that holds it and the copies.
        first: Offset of its first block, 0 if there is none.
        kind: OWN or OTHER.
        limit: Bytes of the volume at its largest; no block lies behind.

    Raises:
        CorruptImageError: the chain is broken, a descriptor makes no sense, or there are more than
            the storage has blocks.
        DeviceReadError: it cannot be read.
    """
    building = _Building(storage, kind, limit)
    for offset, block in walk(storage, first, RecordType.BLOCK_LIST):
        payload = block[NODE_SIZE:]
        if building.add_plain(payload):
            continue
        for slot, descriptor in enumerate(DESCRIPTOR.iter_unpack(payload)):
            problem = building.add(*descriptor)
            if problem:
                raise CorruptImageError(
                    f"block list block at {offset}, descriptor {slot}: {problem}",
                    structure="block list",
                    offset=offset,
                )
    return building.finish(first)


class _Building:
    """The state of the walk through the descriptors."""

    def __init__(self, storage: BlockReader, kind: int, limit: int) -> None:
        self._most = storage.size // BLOCK
        self._last_place = storage.size - BLOCK
        self._kind = kind
        self._limit = limit
        self._copies = _Copies(limit >> BLOCK_BITS)
        self._forwards: dict[int, int | None] = {}
        self._pending: dict[int, int] = {}  # target of a move -> where it came from
        self._overlays: dict[int, tuple[int | None, int]] = {}
        self._moved: set[int] = set()

    def add_plain(self, payload: memoryview) -> bool:
        """Take in a whole block of descriptors at once, if all are of copies and nothing is moved.

        Nearly all blocks are such; one descriptor at a time takes several times as long.

        Returns:
            False if there is anything to look at in it; then nothing was taken in.
        """
        if self._forwards or self._pending:
            return False
        words = _WORDS.unpack(payload)
        originals, places, flags = words[::4], words[2::4], words[3::4]  # the bitmap is above the flags
        if any(flags) and reduce(or_, flags) & (FORWARDER | OVERLAY | NOT_USED):
            return False
        count = places.index(0) if 0 in places else len(places)  # the last block of a list is not full
        if any(words[4 * count :]):
            return False
        originals, places = originals[:count], places[:count]
        if not count:
            return True
        if reduce(or_, originals) % BLOCK or reduce(or_, places) % BLOCK:
            return False
        if max(originals) >= self._limit or min(places) < BLOCK or max(places) > self._last_place:
            return False
        kind = self._kind
        self._copies.put_all([each >> BLOCK_BITS for each in originals], [each | kind for each in places])
        return True

    def add(self, original: int, relative: int, place: int, flags: int, bits: int) -> str:
        """Take in a descriptor; what is wrong with it, or ""."""
        if flags & NOT_USED or not (original or relative or place or flags or bits):
            return ""
        if original % BLOCK or original >= self._limit:
            return f"it is about offset {original} of a volume of {self._limit} bytes"
        block = original >> BLOCK_BITS
        if flags & OVERLAY:
            if flags & FORWARDER:
                return f"its flags are 0x{flags:x}, forwarder and overlay at once"
            known = self._overlays.get(block)
            self._overlays[block] = (known[0], known[1] | bits) if known else (self._checked(place), bits)
            return self._counted(self._overlays)
        if self._pending:
            block = self._pending.pop(block, block)
        if flags & FORWARDER:
            self._forward(block, relative)
            return self._counted(self._moved)
        self._drop_forward(block)
        found = self._checked(place)
        self._copies.put(block, NOWHERE if found is None else found | self._kind)
        return ""

    def _forward(self, block: int, offset: int) -> None:
        known = offset % BLOCK == 0 and offset < self._limit
        target = offset >> BLOCK_BITS if known else None
        self._drop_forward(block)
        if target == block:  # moved back to where it was
            self._moved.add(block)
            return
        self._forwards[block] = target
        self._copies.put(block, _DROPPED)
        self._moved.add(block)
        if target is not None:
            self._pending[target] = block
            self._moved.add(target)

    def _drop_forward(self, block: int) -> None:
        if block in self._forwards:
            target = self._forwards.pop(block)
            if target is not None and self._pending.get(target) == block:
                del self._pending[target]

    def _checked(self, place: int) -> int | None:
        return place if place % BLOCK == 0 and BLOCK <= place <= self._last_place else None

    def _counted(self, table: dict[int, tuple[int | None, int]] | set[int]) -> str:
        # Every overlay has a block of the storage; moves, which are rare, are held to the same bound.
        return f"there are more than {self._most} of its kind" if len(table) > 2 * self._most else ""

    def finish(self, first: int) -> Table:
        blocks, sources = self._copies.finish()
        if len(blocks) > self._most:
            raise CorruptImageError(
                f"block list at {first}: {len(blocks)} copies cannot lie in {self._most} blocks of storage",
                structure="block list",
                offset=first,
            )
        moved = array("Q", sorted(self._moved))
        return Table(blocks, sources, self._forwards, self._overlays, moved)


class _Copies:
    """Pairs of block and source in any order; the last one of a block counts."""

    def __init__(self, blocks: int) -> None:
        self._bits = max(_PART_BITS, (blocks // _MOST_PARTS).bit_length())
        self._parts: dict[int, tuple[array[int], array[int]]] = {}
        self._bounds: dict[int, int] = {}

    def put(self, block: int, source: int) -> None:
        number = block >> self._bits
        part = self._parts.get(number)
        if part is None:
            part = self._parts[number] = (array("Q"), array("Q"))
        part[0].append(block)
        part[1].append(source)
        if len(part[0]) > self._bounds.get(number, _DUPLICATES):
            latest = dict(zip(*part, strict=True))
            self._parts[number] = (array("Q", latest), array("Q", latest.values()))
            self._bounds[number] = max(_DUPLICATES, 2 * len(latest))

    def put_all(self, blocks: list[int], sources: list[int]) -> None:
        first = min(blocks) >> self._bits
        if first != max(blocks) >> self._bits:
            for block, source in zip(blocks, sources, strict=True):
                self.put(block, source)
            return
        self.put(blocks[0], sources[0])  # makes the part, and looks at its length
        part = self._parts[first]
        part[0].extend(blocks[1:])
        part[1].extend(sources[1:])

    def finish(self) -> tuple[array[int], array[int]]:
        blocks, sources = array("Q"), array("Q")
        for number in sorted(self._parts):
            latest = dict(zip(*self._parts.pop(number), strict=True))
            found = sorted(latest)
            if max(latest.values()) < _DROPPED:
                blocks.extend(found)
                sources.extend(map(latest.__getitem__, found))
                continue
            for block in found:
                source = latest[block]
                if source != _DROPPED:
                    blocks.append(block)
                    sources.append(block << BLOCK_BITS | LOST if source == NOWHERE else source)
        return blocks, sources
