"""A model of how Windows keeps shadow copies, and a writer of volumes with known truth.

`Volsnap` is a volume of 16 KiB blocks, a file system that uses some of them, and a stack of shadow
copies.  Writing a block that the newest shadow copy protects and has not kept yet copies it into
shadow storage first; what the blocks held at each instant is remembered, so that every reader can be
held to it.  `Volsnap.export` lays it all out as it lies on a disk.

It is written from the description of the format, and shares nothing with the reader under test.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from vsssnap.blocks.extent import Extent, ExtentKind, coalesce, fill
from vsssnap.blocks.reader import BlockReader

BLOCK = 16384
HEADER = 0x1E00  # offset of the volume header, which is 512 bytes long
IDENTIFIER = UUID("3808876b-c176-4e48-b7ae-04046e6cc752").bytes_le
CLIENT_ACCESSIBLE = UUID("e5de7d45-49f2-40a4-817c-7dc82b72587f")
FIRST_TIME = 132_600_000_000_000_000  # FILETIME
_FIRST_PLACE = 4  # blocks before it are for the boot file and the catalog of a redirected volume
PER_BITMAP = (BLOCK - 128) * 8


class SparseVolume(BlockReader):
    """Blocks by number; what is not there is zeros."""

    def __init__(self, blocks: dict[int, bytes], size: int) -> None:
        super().__init__(size)
        self.content = blocks

    def _read_into(self, view: memoryview, offset: int) -> None:
        at, end = offset, offset + len(view)
        while at < end:
            number, inside = divmod(at, BLOCK)
            count = min(BLOCK - inside, end - at)
            block = self.content.get(number)
            view[at - offset : at - offset + count] = (
                bytes(count) if block is None else block[inside : inside + count]
            )
            at += count

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        end = offset + length
        first, last = offset // BLOCK, -(-end // BLOCK)
        known = range(first, last) if last - first < len(self.content) else sorted(self.content)
        data = (
            Extent(number * BLOCK, BLOCK)
            for number in known
            if number in self.content and first <= number < last
        )
        return coalesce(fill(data, offset, length, ExtentKind.ZERO))


@dataclass
class Copy:
    """One shadow copy of the model."""

    store_id: UUID
    copy_id: UUID
    set_id: UUID
    position: int
    created: int
    size: int
    truth: dict[int, bytes]  # what the protected blocks held; those have a 0 in the current bitmap
    older_needs: set[int] | None  # places with a 0 in the previous bitmap; None: there is none
    flags: int = 0x40
    descriptors: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    overlays: dict[int, list[int]] = field(default_factory=dict)  # block -> place of the data, bits
    waiting: set[int] = field(default_factory=set)  # places with content that is still to be kept
    origins: dict[int, int] = field(default_factory=dict)  # place -> where its content was then

    def unprotected(self, block: int) -> bool:
        return block not in self.truth and block not in (self.older_needs or ())


class Volsnap:
    """A volume with shadow copies.

    Attributes:
        blocks: What is on the volume now.
        used: Blocks that files use.
        copies: Oldest first.
        storage: Blocks of the volume that holds the shadow storage; ``blocks`` itself unless redirected.
    """

    def __init__(
        self,
        seed: int,
        *,
        blocks: int = 160,
        storage_blocks: int = 160,
        redirected: bool = False,
        far: int = 0,
        descriptors_apart: bool = False,
    ) -> None:
        """Make a volume.

        Args:
            seed: Of everything that is chosen.
            blocks: For files; the last one is 3072 bytes long.
            storage_blocks: For shadow storage.
            redirected: Whether that lies on another volume.
            far: Blocks, never used, between files and storage: makes a bitmap of several blocks.
            descriptors_apart: Whether a store writes a block list block for every descriptor.
        """
        self.dice = random.Random(seed)
        self.redirected = redirected
        self.apart = descriptors_apart
        self.volume_id, self.storage_id = self.guid(), self.guid()
        if not redirected:
            self.storage_id = self.volume_id
        self.blocks: dict[int, bytes] = {}
        self.size = 0
        first_pool = 8 if redirected else blocks + far
        self.places = list(range(_FIRST_PLACE, blocks - 1))  # of files, without the last block
        self.pool = list(range(first_pool, first_pool + storage_blocks))
        self.storage: dict[int, bytes] = {} if redirected else self.blocks
        self.storage_blocks = first_pool + storage_blocks + 1
        self.last = blocks - 1 if redirected else first_pool + storage_blocks
        self.used = {0, self.last}
        self.copies: list[Copy] = []
        self.catalog_first = 1
        self.size = self.last * BLOCK + 3072
        self.boot = self._boot(self.size)
        content = self.content()
        self.blocks[0] = self.boot + content[512:HEADER] + bytes(512) + content[HEADER + 512 :]
        self.blocks[self.last] = self.content()[:2560] + self.boot + bytes(BLOCK - 3072)
        for block in self.dice.sample(self.places, len(self.places) // 2):
            self.write(block)
        if redirected:
            self.storage_size = self.storage_blocks * BLOCK
            self.storage[0] = self._boot(self.storage_size) + bytes(BLOCK - 512)

    @classmethod
    def over(cls, content: Mapping[int, bytes], count: int, *, storage_blocks: int) -> Volsnap:
        """A volume of ``count`` whole blocks that a real file system wrote; its storage is another one.

        What is all zeros counts as unused.  The catalog lies behind the file system.
        """
        model = cls(0, blocks=16, storage_blocks=storage_blocks, redirected=True)
        model.blocks.clear()
        model.blocks.update(content)
        model.last, model.size, model.catalog_first = count - 1, count * BLOCK, count
        model.used = set(content)
        return model

    def become(self, content: Mapping[int, bytes]) -> None:
        """Write what is different in a later state of the file system."""
        for block in sorted(set(content) | set(self.blocks)):
            new = content.get(block, bytes(BLOCK))
            if new != self.blocks.get(block, bytes(BLOCK)):
                self.write(block, new)

    def guid(self) -> UUID:
        return UUID(int=self.dice.getrandbits(128))

    def content(self) -> bytes:
        return self.dice.randbytes(BLOCK)

    @staticmethod
    def _boot(size: int) -> bytes:
        sector = bytearray(512)
        sector[0:11] = b"\xebR\x90NTFS    "
        struct.pack_into("<HB", sector, 11, 512, 8)
        struct.pack_into("<QQQ", sector, 40, size // 512 - 1, 4, 8)
        sector[64], sector[68] = 0xF6, 1
        struct.pack_into("<Q", sector, 72, 0x1234_5678_9ABC_DEF0)
        sector[510:512] = b"\x55\xaa"
        return bytes(sector)

    # What happens to the volume.

    def write(self, block: int, content: bytes | None = None) -> None:
        """A file writes a block, which it uses from now on."""
        self._keep(block)
        self.used.add(block)
        self.blocks[block] = self.content() if content is None else content

    def free(self, block: int) -> None:
        """Its file is deleted; the block keeps its content."""
        self.used.discard(block)

    def move(self, block: int, target: int) -> None:
        """The file system moves a block to a free place; the store notes the move instead of a copy."""
        newest = self.copies[-1] if self.copies else None
        if newest is None or block not in newest.waiting or target in newest.waiting:
            self.write(target, self.blocks[block])
        else:
            newest.descriptors.append((block * BLOCK, target * BLOCK, 0, 0x1, 0))
            newest.waiting.remove(block)
            newest.waiting.add(target)
            newest.origins[target] = newest.origins.pop(block, block)
            self.used.add(target)
            self.blocks[target] = self.blocks[block]
        self.free(block)

    def returns(self, block: int, target: int) -> bool:
        """Whether a move brings a block back to where it was when the newest shadow copy was taken."""
        return bool(self.copies) and self.copies[-1].origins.get(block) == target

    def precopy(self, block: int) -> None:
        """A store keeps a block that is expected to change soon."""
        if self.copies and block in self.copies[-1].waiting:
            self._keep(block, flags=0x88)

    def _keep(self, place: int, flags: int = 0) -> None:
        if self.copies and place in self.copies[-1].waiting:
            self.copies[-1].waiting.remove(place)
            self.copies[-1].origins.pop(place, None)
            kept = self._stored(self.blocks.get(place, bytes(BLOCK)))
            # The offset in the file of the store; readers have no use for it.
            self.copies[-1].descriptors.append((place * BLOCK, kept * BLOCK, kept * BLOCK, flags, 0))

    def _stored(self, content: bytes) -> int:
        place = self.pool.pop(self.dice.randrange(len(self.pool)))
        self.storage[place] = content
        return place

    def overlay(self, copy: Copy, block: int, sectors: int) -> None:
        """Something writes sectors (a bit each) of a block in a shadow copy itself."""
        sectors &= 0xFFFF_FFFF
        if block == self.last or block == 0 or not sectors:
            return
        new = self.content()
        known = copy.overlays.get(block)
        if known is None:
            place = self._stored(self.content())
            copy.overlays[block] = [place, sectors]
            copy.descriptors.append((block * BLOCK, place * BLOCK, place * BLOCK, 0x2, sectors))
        else:
            place = known[0]
            known[1] |= sectors
            copy.descriptors.append((block * BLOCK, 1, place * BLOCK, 0x2, sectors))
        for changed in (self.storage, copy.truth):
            at = place if changed is self.storage else block
            if at not in changed:
                continue  # of an unprotected block nothing but the written sectors is known
            whole = bytearray(changed[at])
            for bit in range(32):
                if sectors >> bit & 1:
                    whole[bit * 512 : bit * 512 + 512] = new[bit * 512 : bit * 512 + 512]
            changed[at] = bytes(whole)

    def not_used(self) -> None:
        """A store holds a descriptor that means nothing."""
        if self.copies:
            numbers = [self.dice.randrange(1 << 40) for _ in range(3)]
            self.copies[-1].descriptors.append((numbers[0], numbers[1], numbers[2], 0x4, 0))

    def resize(self, blocks: int) -> None:
        """Make the volume of a redirected one larger or smaller; what lies behind is moved first."""
        assert self.redirected
        last = blocks - 1
        inside = [place for place in self.places if place < last]
        while len(self.used) > len(inside):  # some files are deleted until the rest fits
            self.free(self.dice.choice(sorted(self.used - {0, self.last})))
        for block in sorted(self.used - {self.last}):
            if block >= last:
                self.move(block, self.dice.choice([place for place in inside if place not in self.used]))
        for block in range(min(last, self.last), max(last, self.last) + 1):
            self._keep(block)
        self.used -= set(range(last, self.last + 1))
        self.last = last
        self.size = last * BLOCK + 3072
        self.boot = self._boot(self.size)
        self.write(0, self.boot + self.blocks[0][512:])
        self.write(last, self.content()[:2560] + self.boot + bytes(BLOCK - 3072))
        self.places = list(range(_FIRST_PLACE, last))

    def snapshot(self, *, scoped: float = 0.0) -> Copy:
        """Take a shadow copy.

        Args:
            scoped: Which part of the used blocks it does not protect all the same.
        """
        left_out = {block for block in sorted(self.used - {0, self.last}) if self.dice.random() < scoped}
        protected = self.used - left_out
        older = self.copies[-1] if self.copies else None
        needs = set(older.waiting) if older is not None else None
        copy = Copy(
            self.guid(),
            self.guid(),
            self.guid(),
            len(self.copies) + 1,
            FIRST_TIME + len(self.copies) * 600_000_000,
            self.size,
            {block: self.blocks.get(block, bytes(BLOCK)) for block in sorted(protected)},
            needs,
            flags=0x440 if scoped else 0x40,
        )
        copy.waiting = protected | (needs or set())
        if older is not None:
            older.waiting = set()
        self.copies.append(copy)
        return copy

    def live(self, steps: int, *, moves: bool = True, overlays: bool = True, back: bool = False) -> None:
        """Let the volume be used for a while; ``back``: a block may move to where it came from."""
        for _ in range(steps):
            choice = self.dice.random()
            block = self.dice.choice(self.places)
            if choice < 0.4:
                self.write(block)
            elif choice < 0.62:
                self.free(block)
            elif choice < 0.75 and moves:
                free = [place for place in self.places if place not in self.used]
                target = self.dice.choice(free) if free else block
                if block in self.used and target != block and (back or not self.returns(block, target)):
                    self.move(block, target)
            elif choice < 0.85:
                self.precopy(block)
            elif choice < 0.95 and overlays and self.copies:
                bits = self.dice.choice([1, 1 << 31, 0xFFFF_FFFF, self.dice.getrandbits(32)])
                self.overlay(self.dice.choice(self.copies), block, bits)
            elif choice > 0.97:
                self.not_used()

    # How it lies on a disk.

    def export(self, *, shuffled: bool = False, priority: int = 0) -> Disk:
        """Write catalog, stores and header.

        Args:
            shuffled: Catalog entries in any order, with free slots, over several catalog blocks.
            priority: Of every shadow copy, a byte that some readers do not expect.
        """
        return _Export(self, shuffled=shuffled, priority=priority).disk


@dataclass
class Disk:
    """An exported volume.

    Attributes:
        volume: Its blocks.
        storage: Those of the volume with its shadow storage, if that is another.
        model: Where it comes from.
        metadata: Places of all metadata blocks, by what they are, on the storage volume (the catalog
            of a redirected volume on the volume itself).
    """

    volume: dict[int, bytes]
    storage: dict[int, bytes] | None
    model: Volsnap
    metadata: dict[str, list[int]]

    @property
    def size(self) -> int:
        return self.model.size

    def reader(self, size: int | None = None) -> SparseVolume:
        return SparseVolume(self.volume, self.size if size is None else size)

    def storage_reader(self) -> SparseVolume | None:
        return None if self.storage is None else SparseVolume(self.storage, self.model.storage_size)

    @staticmethod
    def expected(copy: Copy, block: int) -> bytes:
        """What a protected block of a shadow copy holds, clipped at its end, without the volume header."""
        content = copy.truth[block]
        return content[: copy.size - block * BLOCK]


class _Export:
    """One layout of a model; the model stays as it is."""

    def __init__(self, model: Volsnap, *, shuffled: bool, priority: int) -> None:
        self.model = model
        self.dice = random.Random(len(model.copies))
        self.volume = dict(model.blocks)
        self.storage = dict(model.storage) if model.redirected else self.volume
        self.pool = list(model.pool)
        self.metadata: dict[str, list[int]] = {}
        entries = []
        locations = []
        for copy in model.copies:
            location = self._store(copy)
            entry = bytearray(128)
            struct.pack_into(
                "<IIQ16sQQQ",
                entry,
                0,
                2,
                priority,
                copy.size,
                copy.store_id.bytes_le,
                copy.position,
                copy.flags,
                copy.created,
            )
            if model.redirected:
                entries.append(bytes(entry))
                locations.append(location)
            else:
                entries += [bytes(entry), location]
        if shuffled:
            for listed in (entries, locations):
                listed += [struct.pack("<Q", 1) + bytes(120)] * 3
                self.dice.shuffle(listed)
        catalog = self._catalog("catalog", self.volume, entries, spread=shuffled)
        self._header(self.volume, catalog, model.volume_id, model.storage_id)
        if model.redirected:
            catalog = self._catalog("storage catalog", self.storage, locations, spread=shuffled)
            self._header(self.storage, catalog, model.storage_id, model.storage_id)
        self.disk = Disk(self.volume, self.storage if model.redirected else None, model, self.metadata)

    def _place(self, name: str) -> int:
        place = self.pool.pop(self.dice.randrange(len(self.pool)))
        self.metadata.setdefault(name, []).append(place)
        return place

    def _node(self, kind: int, own: int, following: int, relative: int = 0) -> bytearray:
        block = bytearray(BLOCK)
        struct.pack_into(
            "<16sIIQQQ", block, 0, IDENTIFIER, 1, kind, relative * BLOCK, own * BLOCK, following * BLOCK
        )
        return block

    def _chain(self, name: str, kind: int, payloads: list[bytes]) -> int:
        places = [self._place(name) for _ in payloads]
        for number, (place, payload) in enumerate(zip(places, payloads, strict=True)):
            block = self._node(kind, place, places[number + 1] if number + 1 < len(places) else 0, number)
            block[128 : 128 + len(payload)] = payload
            self.storage[place] = bytes(block)
        return places[0]

    def _store(self, copy: Copy) -> bytes:
        packed = [struct.pack("<QQQII", *descriptor) for descriptor in copy.descriptors]
        step = 3 if self.model.apart else 508
        lists = [b"".join(packed[at : at + step]) for at in range(0, len(packed), step)] or [b""]
        name = f"{copy.position}"
        first_list = self._chain(f"block list {name}", 3, lists)
        information = b"".join(value.bytes_le for value in (CLIENT_ACCESSIBLE, copy.copy_id, copy.set_id))
        information += struct.pack("<IIII", 0x1D, 1, 0x2001D, 0)
        machine = "MODEL".encode("utf-16-le")
        information += (struct.pack("<H", len(machine)) + machine) * 2
        place = self._place(f"store header {name}")
        block = self._node(4, place, 0)
        struct.pack_into("<Q", block, 48, len(information))
        block[128 : 128 + len(information)] = information
        self.storage[place] = bytes(block)
        ranges = self._chain(f"range list {name}", 5, [struct.pack("<QQQ", 1 << 20, 0, 1 << 20)])
        count = -(-copy.size // BLOCK)
        bitmap = self._chain(f"bitmap {name}", 6, _bitmap(set(copy.truth), count))
        previous = 0
        if copy.older_needs is not None:
            previous = self._chain(f"previous bitmap {name}", 6, _bitmap(copy.older_needs, count))
        entry = bytearray(128)
        struct.pack_into(
            "<QQ16sQQQQQQ",
            entry,
            0,
            3,
            first_list * BLOCK,
            copy.store_id.bytes_le,
            place * BLOCK,
            ranges * BLOCK,
            bitmap * BLOCK,
            1 << 48 | 40 + copy.position,
            0,
            previous * BLOCK,
        )
        return bytes(entry)

    def _catalog(self, name: str, blocks: dict[int, bytes], entries: list[bytes], *, spread: bool) -> int:
        per = max(1, -(-len(entries) // 3)) if spread else 127
        groups = [entries[at : at + per] for at in range(0, len(entries), per)] or [[]]
        if blocks is self.volume and self.model.redirected:
            places = list(range(self.model.catalog_first, self.model.catalog_first + len(groups)))
            self.metadata[name] = places
        else:
            places = [self._place(name) for _ in groups]
        for number, (place, group) in enumerate(zip(places, groups, strict=True)):
            block = self._node(2, place, places[number + 1] if number + 1 < len(places) else 0, number)
            for slot, entry in enumerate(group):
                block[128 + slot * 128 : 256 + slot * 128] = entry
            blocks[place] = bytes(block)
        return places[0]

    def _header(self, blocks: dict[int, bytes], catalog: int, volume_id: UUID, storage_id: UUID) -> None:
        header = bytearray(512)
        struct.pack_into("<16sIIQQQ", header, 0, IDENTIFIER, 1, 1, 0x1E00, 0x1E00, 0)
        struct.pack_into("<QQ16s16s", header, 48, catalog * BLOCK, 0, volume_id.bytes_le, storage_id.bytes_le)
        blocks[0] = blocks[0][:0x1E00] + bytes(header) + blocks[0][0x2000:]


def _bitmap(zeros: set[int], count: int) -> list[bytes]:
    """A bit for each of ``count`` blocks, 1 but for ``zeros``."""
    nodes = []
    for first in range(0, count, PER_BITMAP):
        bits = (1 << min(PER_BITMAP, count - first)) - 1
        for block in zeros:
            if first <= block < min(first + PER_BITMAP, count):
                bits &= ~(1 << (block - first))
        nodes.append(bits.to_bytes(BLOCK - 128, "little"))
    return nodes


def without_header(block: int, content: bytes) -> bytes:
    """A block of a volume as `Disk.expected` has it."""
    if block:
        return content
    return content[:HEADER] + bytes(512) + content[HEADER + 512 :]


def model_of(
    seed: int,
    *,
    copies: int,
    steps: int = 60,
    back: bool = False,
    blocks: int = 160,
    storage_blocks: int = 900,
    redirected: bool = False,
    far: int = 0,
    descriptors_apart: bool = False,
) -> Volsnap:
    """A volume that was used, and snapshotted in between; for arguments see `Volsnap` and `Volsnap.live`."""
    model = Volsnap(
        seed,
        blocks=blocks,
        storage_blocks=storage_blocks,
        redirected=redirected,
        far=far,
        descriptors_apart=descriptors_apart,
    )
    for _ in range(copies):
        model.live(steps, back=back)
        copy = model.snapshot()
        for _ in range(seed % 4):  # what is written in a shadow copy right after it was taken
            model.overlay(copy, model.dice.choice(model.places), model.dice.getrandbits(32))
    model.live(steps, back=back)
    return model
