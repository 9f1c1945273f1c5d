"""VMDK images that the tests build by hand, from the documents."""

from __future__ import annotations

import struct

SECTOR = 512
GRAIN = 4096


def descriptor(
    lines: list[str], *, cid: str = "0000abcd", parent: str = "ffffffff", more: str = "", kind: str = "custom"
) -> bytes:
    """A descriptor of some extent lines."""
    text = f'# Disk DescriptorFile\nversion=1\nCID={cid}\nparentCID={parent}\ncreateType="{kind}"\n{more}\n'
    return (text + "\n".join(lines) + "\n").encode()


def space_efficient(grains: dict[int, bytes], *, size: int, zero: tuple[int, ...] = ()) -> bytes:
    """A space-efficient sparse extent: one directory, one table for each 16 MiB that has a grain."""
    directory_size = 1
    numbers = sorted({grain // 4096 for grain in (*grains, *zero)})
    places = {
        "volatile": (1, 1),
        "journal_header": (2, 1),
        "journal": (3, 1),
        "directory": (4, directory_size),
        "tables": (8, 64 * max(1, len(numbers))),
        "bitmap": (5, 1),
        "back_map": (6, 1),
        "grains": (8 + 64 * max(1, len(numbers)), 8 * len(grains)),
    }
    header = struct.pack("<10Q", 0xCAFEBABE, 0x2_0000_0001, size // SECTOR, 8, 64, 0, 0, 0, 0, 0)
    header += b"".join(struct.pack("<QQ", *place) for place in places.values())
    volatile = struct.pack("<QQQQ", 0xCAFECAFE, len(numbers), 1, 0)
    directory = [0] * (SECTOR // 8)
    tables = bytearray(32768 * max(1, len(numbers)))
    data = b""
    for index, number in enumerate(numbers):
        directory[number] = 0x1000_0000_0000_0000 | index
    for index, (grain, content) in enumerate(sorted(grains.items())):
        entry = 3 << 60 | (index & 0xFFF) << 48 | index >> 12
        at = 32768 * numbers.index(grain // 4096) + grain % 4096 * 8
        tables[at : at + 8] = struct.pack("<Q", entry)
        data += content.ljust(GRAIN, b"\0")
    for grain in zero:
        at = 32768 * numbers.index(grain // 4096) + grain % 4096 * 8
        tables[at : at + 8] = struct.pack("<Q", 2 << 60)
    image = bytearray(SECTOR * places["grains"][0])
    image[: len(header)] = header
    image[SECTOR : SECTOR + len(volatile)] = volatile
    image[4 * SECTOR : 5 * SECTOR] = struct.pack("<64Q", *directory)
    image[8 * SECTOR : 8 * SECTOR + len(tables)] = tables
    return bytes(image) + data
