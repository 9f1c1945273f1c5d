"""A volume with three shadow copies, laid out as Windows lays them out: `write`.

Half of it is in use.  After each shadow copy 4 % of the blocks were overwritten, in runs: files are written
from end to end, and so are the old blocks kept.  ``longest=1`` makes every block a run, the worst there is.
"""

from __future__ import annotations

import random
import struct
import uuid
from pathlib import Path

BLOCK = 16 << 10
_MIB = 1 << 20
_COPIES = 3
_IDENTIFIER = uuid.UUID("3808876b-c176-4e48-b7ae-04046e6cc752").bytes_le
_PER_LIST = 508
_BITS = BLOCK - 128  # bytes of bitmap in a block
_PER_BITMAP = _BITS * 8
_TIME = 132_600_000_000_000_000  # FILETIME


class _Writer:
    def __init__(self, path: Path, size: int, seed: int) -> None:
        self.file = path.open("wb")
        self.source = random.Random(seed)
        self.count = size // BLOCK
        self.next = self.count - self.count // 4  # the last quarter is shadow storage
        self.storage = range(self.next, self.count)

    def take(self, count: int = 1) -> int:
        """Blocks of shadow storage."""
        first, self.next = self.next, self.next + count
        return first

    def node(self, place: int, kind: int, following: int, payload: bytes, extra: bytes = b"") -> None:
        header = struct.pack("<16sIIQQQ", _IDENTIFIER, 1, kind, 0, place * BLOCK, following * BLOCK)
        self.put(place * BLOCK, (header + extra).ljust(128, b"\0") + payload.ljust(BLOCK - 128, b"\0"))

    def put(self, offset: int, data: bytes) -> None:
        self.file.seek(offset)
        self.file.write(data)

    def random(self, first: int, count: int) -> None:
        for at in range(first, first + count, 64):
            self.put(at * BLOCK, self.source.randbytes(min(64, first + count - at) * BLOCK))

    def chain(self, kind: int, payloads: list[bytes]) -> int:
        places = [self.take() for _ in payloads]
        for at, payload in enumerate(payloads):
            self.node(places[at], kind, places[at + 1] if at + 1 < len(places) else 0, payload)
        return places[0]

    def changed(self, longest: int) -> list[tuple[int, int]]:
        """Runs of blocks of files that are overwritten, 4 % of all, in any order."""
        wanted = self.count // 25
        runs: list[tuple[int, int]] = []
        seen: set[int] = set()
        while wanted > 0:
            first = self.source.randrange(64, self.storage[0] - longest)
            length = self.source.randint(1, longest)
            if seen.isdisjoint(range(first, first + length)):
                seen.update(range(first, first + length))
                runs.append((first, length))
                wanted -= length
        return runs


def write(path: Path, size: int, longest: int, seed: int = 1) -> None:
    """Make the volume.

    Args:
        path: The file.
        size: Its bytes, a multiple of 16 KiB.
        longest: Blocks of the longest run that is overwritten at once.
        seed: Of the choice of blocks and of their content.
    """
    out = _Writer(path, size, seed)
    used = bytearray(out.count)
    for first in range(0, out.storage[0], 256):  # files of 2 MiB, and as much between them
        out.random(first, 128)
        used[first : first + 128] = b"\1" * 128
    # What was not protected, and what older ones do not need.
    free = [bytearray(-(-out.count // _PER_BITMAP) * _PER_BITMAP // 8) for _ in range(2)]
    for block in range(out.count):
        if not used[block]:
            free[0][block // 8] |= 1 << block % 8
    free[1][:] = b"\xff" * len(free[1])
    bitmaps = [
        [bytes(bits[at : at + BLOCK - 128]) for at in range(0, len(bits), BLOCK - 128)] for bits in free
    ]
    entries = []
    for number in range(_COPIES):
        descriptors = []
        for first, length in out.changed(longest):
            for block in range(first, first + length):
                if used[block]:
                    kept = out.take()
                    out.random(kept, 1)
                    descriptors.append(struct.pack("<QQQII", block * BLOCK, 0, kept * BLOCK, 0, 0))
        lists = [b"".join(descriptors[at : at + _PER_LIST]) for at in range(0, len(descriptors), _PER_LIST)]
        store = uuid.UUID(int=number + 1)
        header = out.take()
        information = store.bytes_le * 3 + struct.pack("<IIIIHH", 0x1D, 1, 0x2001D, 0, 0, 0)
        out.node(header, 4, 0, information, struct.pack("<Q", len(information)))
        entries.append(struct.pack("<QQ16sQQQ", 2, size, store.bytes_le, number + 1, 0x40, _TIME + number))
        first_list, bitmap = out.chain(3, lists), out.chain(6, bitmaps[0])
        previous = out.chain(6, bitmaps[1]) if number else 0
        places = header * BLOCK, 0, bitmap * BLOCK
        entries.append(
            struct.pack(
                "<QQ16sQQQQQQ", 3, first_list * BLOCK, store.bytes_le, *places, 0, 0, previous * BLOCK
            )
        )
    catalog = out.take()
    out.node(catalog, 2, 0, b"".join(entry.ljust(128, b"\0") for entry in entries))
    boot = bytearray(512)
    boot[3:11] = b"NTFS    "
    struct.pack_into("<HB", boot, 11, 512, 8)
    struct.pack_into("<QQQ", boot, 40, size // 512 - 1, 4, 8)
    boot[64], boot[68], boot[510:512] = 0xF6, 1, b"\x55\xaa"
    volume = uuid.UUID(int=99).bytes_le
    out.put(0, bytes(boot))
    header_block = struct.pack("<16sIIQQQ", _IDENTIFIER, 1, 1, 0x1E00, 0x1E00, 0)
    out.put(0x1E00, (header_block + struct.pack("<QQ", catalog * BLOCK, 0) + volume * 2).ljust(512, b"\0"))
    out.put(size - 512, bytes(boot))
    out.file.truncate(size)
    out.file.close()
