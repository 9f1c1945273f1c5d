"""The block allocation table, over the ends of its pages."""

from __future__ import annotations

import random
import struct

import pytest

from vsssnap.formats import MemoryStorage
from vsssnap.formats.vhd.structs import UNUSED
from vsssnap.formats.vhd.table import Table

COUNT = 5000  # four pages and a part


@pytest.mark.parametrize(
    "used", [[], [0], [COUNT - 1], [1023, 1024, 3071, 3072], range(1024, 2048), range(COUNT)]
)
def test_entries_are_those_of_the_file(used: list[int]) -> None:
    entries = [UNUSED] * COUNT
    for block in used:
        entries[block] = 7 + block * 3
    storage = MemoryStorage(b"head" + struct.pack(f">{COUNT}I", *entries) + b"tail")
    table = Table(storage, 4, COUNT)
    assert len(table) == COUNT
    assert list(table.used()) == [(block, 7 + block * 3) for block in used]
    dice = random.Random(1)
    bounds = [(0, COUNT), (0, 1), (COUNT - 1, COUNT), (1023, 1025), (5, 5)]
    for first, end in [*bounds, *(sorted(dice.choices(range(COUNT), k=2)) for _ in range(50))]:
        found: list[int] = []
        for low, high, entry in table.runs(first, end):
            assert low == first + len(found)
            assert high == low + 1 or entry == UNUSED
            found += [entry] * (high - low)
        assert found == entries[first:end]
    assert table.cache.used <= 4 * COUNT + 5 * 128
