"""Readers that take turns: bytes and kinds lie where the stripes are."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from sources import BytesReader, noise
from vsssnap import Extent, ExtentKind
from vsssnap.blocks.plain import PlainReader
from vsssnap.volumes.lvm.stripes import StripedReader

STRIPE = 1 << 10
ROWS = 40


def part(number: int, unit: int) -> BytesReader:
    """Data and holes by turns, of so many bytes or a few of them."""
    dice, at, extents = random.Random(number), 0, []
    while at < ROWS * STRIPE:
        length = min(unit * dice.randrange(1, 5), ROWS * STRIPE - at)
        kind = ExtentKind.DATA if number == 0 or dice.random() < 0.5 else ExtentKind.ZERO
        extents.append(Extent(at, length, kind))
        at += length
    content = bytearray(noise(ROWS * STRIPE, seed=number))
    for each in extents:
        if each.kind is ExtentKind.ZERO:
            content[each.offset : each.end] = bytes(each.length)
    return BytesReader(bytes(content), extents=extents)


@pytest.mark.parametrize("unit", [512, STRIPE, 3 * STRIPE, 20 * STRIPE])
@pytest.mark.parametrize("count", [2, 3])
def test_kinds_lie_where_their_bytes_do(count: int, unit: int) -> None:
    parts = [part(number, unit) for number in range(count)]
    kinds = [[each.kind for each in one.extents() for _ in range(each.length // 256)] for one in parts]
    expected = [
        kind
        for row in range(ROWS)
        for one in kinds
        for kind in one[row * STRIPE // 256 : (row + 1) * STRIPE // 256]
    ]
    whole = StripedReader(parts, STRIPE)
    dice = random.Random(unit)
    for first, last in [
        (0, len(expected)),
        *(sorted(dice.sample(range(len(expected)), 2)) for _ in range(20)),
    ]:
        found = list(whole.extents(first * 256, (last - first) * 256))
        assert [each.kind for each in found for _ in range(each.length // 256)] == expected[first:last]
        assert sum(each.length for each in found) == (last - first) * 256


def test_a_large_volume_is_not_asked_for_stripe_by_stripe() -> None:
    asked = 0

    class Counted(PlainReader):
        def _extents(self, offset: int, length: int) -> Iterator[Extent]:
            nonlocal asked
            asked += 1
            return super()._extents(offset, length)

    parts = [Counted(b"", 1 << 40, kind=ExtentKind.DATA) for _ in range(3)]
    whole = StripedReader(parts, 1 << 16)
    assert list(whole.extents()) == [Extent(0, 3 << 40)]
    assert asked == 3
