"""Damaged metadata: an error of ours or the right blocks, in bounded time, and never for newer copies."""

from __future__ import annotations

import random
import struct
import time

import pytest

from volsnap_model import BLOCK, HEADER, Disk, model_of, without_header
from vsssnap.errors import DeviceReadError, VssSnapError
from vsssnap.volumes import ShadowVolume, UnusedBlocks

_NUMBERS = (0, 1, 0x4000, 0x3FFF, 1 << 31, 1 << 40, (1 << 53) - 0x4000, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


def damaged(block: bytes, dice: random.Random, end: int = BLOCK) -> bytes:
    """A block with one thing wrong."""
    changed = bytearray(block)
    kind = dice.randrange(5)
    # Most of what matters stands in the header and the first entries.
    at = dice.choice([dice.randrange(0, 128), dice.randrange(128, 512), dice.randrange(end)])
    if kind == 0:
        changed[at] ^= 1 << dice.randrange(8)
    elif kind == 1:
        struct.pack_into("<Q", changed, at & ~7, dice.choice(_NUMBERS))
    elif kind == 2:
        struct.pack_into("<Q", changed, at & ~7, dice.randrange(0, 2000) * BLOCK)
    elif kind == 3:
        changed[at:end] = bytes(end - at)
    else:
        changed[at:end] = dice.randbytes(end - at)
    return bytes(changed)


def probe(disk: Disk, intact_from: int) -> None:
    """Open and read all there is; copies from this number on must be as if nothing had happened."""
    copies = disk.model.copies
    try:
        volume = ShadowVolume(disk.reader(), disk.storage_reader())
    except VssSnapError:
        assert intact_from > len(copies)
        return
    for store in volume.stores:
        assert isinstance(store.health.reasons, tuple)
        for policy in UnusedBlocks:
            try:
                reader = store.open(policy)
            except VssSnapError:
                continue
            with reader:
                for number, extent in enumerate(reader.extents()):
                    if number > 300:
                        break
                    try:
                        reader.pread(min(extent.length, BLOCK), extent.offset)
                    except DeviceReadError:
                        assert extent.kind == "unreadable"
                list(zip(range(300), reader.sources(), strict=False))
    for older in volume.stores:
        try:
            list(zip(range(300), volume.changed_extents(older, exact=True), strict=False))
        except VssSnapError:
            continue
    for copy in copies[intact_from - 1 :]:
        store = volume.stores[copy.position - 1]
        assert store.store_id == copy.store_id
        with store.open() as reader:
            for block in copy.truth:
                data = reader.pread(min(BLOCK, copy.size - block * BLOCK), block * BLOCK)
                assert without_header(block, data) == disk.expected(copy, block)


def rounds(seed: int, count: int) -> None:
    """Damage every metadata block of a volume some times."""
    dice = random.Random(seed)
    disk = model_of(seed, copies=3, steps=40, storage_blocks=300, redirected=seed % 3 == 2).export(
        shuffled=seed % 2 == 1
    )
    for name, places in disk.metadata.items():
        number = int(name.split()[-1]) if name[-1].isdigit() else len(disk.model.copies)
        blocks = disk.volume if name == "catalog" or disk.storage is None else disk.storage
        for place in places:
            good = blocks[place]
            for _ in range(count):
                blocks[place] = damaged(good, dice)
                started = time.process_time()
                probe(disk, number + 1)
                assert time.process_time() - started < 30
            blocks[place] = good
    probe(disk, 1)
    good = disk.volume[0]
    for _ in range(4 * count):
        header = damaged(good[HEADER : HEADER + 512], dice, 512)
        disk.volume[0] = good[:HEADER] + header + good[HEADER + 512 :]
        probe(disk, len(disk.model.copies) + 1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_metadata_block_may_be_damaged(seed: int) -> None:
    rounds(seed, 2)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10, 22))
def test_every_metadata_block_may_be_damaged_in_many_ways(seed: int) -> None:
    rounds(seed, 12)


def test_noise_in_place_of_a_volume_is_no_volume_or_an_error() -> None:
    dice = random.Random(1)
    disk = model_of(1, copies=2, steps=20).export()
    for place in list(disk.volume):
        disk.volume[place] = dice.randbytes(BLOCK)
    assert ShadowVolume(disk.reader()).stores == ()
