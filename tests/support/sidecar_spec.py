"""A reader of side-cars written from docs/formats/sidecar.md alone: struct, json and xxhash only.

Slow and strict: it checks everything the page says and raises AssertionError otherwise.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

import xxhash

PAGE = 4096


@dataclass
class Sidecar:
    """All that a side-car says."""

    volume_size: int
    block_size: int
    identity: bytes
    format: str
    entries: list[bytes]  # of all blocks
    states: list[tuple[int, int, int]]  # offset, length, kind
    metadata: dict[str, Any]


def read(data: bytes) -> Sidecar:
    """Decode a complete side-car."""
    magic, version, block_size, incompatible, compatible, volume_size, identity, name = struct.unpack_from(
        "<8sIIQQQ16s32s", data
    )
    assert magic == bytes.fromhex("56 53 53 53 49 44 45 1A")
    assert (version, incompatible, compatible) == (1, 0, 0)
    assert block_size in [1 << power for power in range(12, 25)]
    assert volume_size < 1 << 63
    base = int.from_bytes(identity[:8], "little")

    def check(part: bytes, offset: int) -> bytes:
        return xxhash.xxh3_128(part, seed=(base + offset) % (1 << 64)).digest()

    def sealed(offset: int) -> bytes:
        page = data[offset : offset + PAGE]
        assert page[4080:] == check(page[:4080], offset)
        return page[:4080]

    assert not any(sealed(0)[88:])
    blocks = (volume_size + block_size - 1) // block_size
    pages = (blocks + 254) // 255

    end = len(data) - PAGE
    footer = sealed(end)
    fields = struct.unpack_from("<8s16sQQQQ16s16s16s", footer)
    again, length, page_count, state_count, metadata_length = fields[1:6]
    assert fields[0] == bytes.fromhex("56 53 53 53 45 4E 44 1A")
    assert not any(footer[104:])
    assert (again, length) == (identity, len(data))
    states_at = PAGE * (1 + pages)
    metadata_at = states_at + 24 * state_count
    assert metadata_at + metadata_length == end

    entries: list[bytes] = []
    stored = total = 0
    for number in range(pages):
        at = PAGE * (1 + number)
        page = data[at : at + PAGE]
        if any(page):
            assert page[4080:] == check(page[:4080], at)
            assert any(page[:4080])
            stored += 1
            total += int.from_bytes(page[4080:], "big")
        entries += [page[place : place + 16] for place in range(0, 4080, 16)]
    assert not any(map(any, entries[blocks:]))
    assert (stored, total % (1 << 128)) == (page_count, int.from_bytes(fields[6], "big"))

    part = data[states_at:metadata_at]
    assert check(part, states_at) == fields[7]
    states = list(struct.iter_unpack("<QQQ", part))
    at = 0
    for offset, length, kind in states:
        assert at <= offset < offset + length <= volume_size
        assert kind <= 2
        at = offset + length

    text = data[metadata_at:end]
    assert check(text, metadata_at) == fields[8]
    return Sidecar(
        volume_size,
        block_size,
        identity,
        name.rstrip(b"\0").decode("utf-8"),
        entries[:blocks],
        states,
        json.loads(text),
    )


def entries_of(volume: bytes, block_size: int) -> list[bytes]:
    """The entries that a volume must have."""
    found = []
    for at in range(0, len(volume), block_size):
        block = volume[at : at + block_size]
        found.append(xxhash.xxh3_128(block).digest() if any(block) else bytes(16))
    return found
