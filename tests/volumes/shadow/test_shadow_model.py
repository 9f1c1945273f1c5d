"""Volumes with known truth: what every protected block of every shadow copy held."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from volsnap_model import BLOCK, Copy, Disk, model_of, without_header
from vsssnap.blocks.reader import BlockReader
from vsssnap.volumes import BlockSource, ShadowVolume, UnusedBlocks

OTHERS = pytest.mark.posix("the readers of others are built for Linux")


def wrong(reader: BlockReader, copy: Copy, disk: Disk) -> list[int]:
    """Protected blocks that a reader of a shadow copy gives wrongly."""
    return [
        block
        for block in copy.truth
        if without_header(block, reader.pread(min(BLOCK, copy.size - block * BLOCK), block * BLOCK))
        != disk.expected(copy, block)
    ]


def check(disk: Disk) -> int:
    """Hold all shadow copies to the truth; how many blocks were looked at."""
    volume = ShadowVolume(disk.reader(), disk.storage_reader())
    assert [store.store_id for store in volume.stores] == [copy.store_id for copy in disk.model.copies]
    assert not volume.problems
    for store, copy in zip(volume.stores, disk.model.copies, strict=True):
        assert store.health.reasons == ()
        assert (store.copy_id, store.set_id, store.size) == (copy.copy_id, copy.set_id, copy.size)
        assert store.created_filetime == copy.created
        for policy in (UnusedBlocks.ZERO, UnusedBlocks.ERROR):
            with store.open(policy) as reader:
                assert not wrong(reader, copy, disk), (store, policy)
    return sum(len(copy.truth) for copy in disk.model.copies)


def check_foreign(disk: Disk) -> int:
    """Hold libvshadow to the same truth: it tells whether the volume is one of the kind it says it is."""
    library: Any = importlib.import_module("pyvshadow")
    volume = library.volume()
    volume.open_file_object(disk.reader())
    assert volume.number_of_stores == len(disk.model.copies)
    count = 0
    for number, copy in enumerate(disk.model.copies):
        store = volume.get_store(number)
        for block in copy.truth:
            store.seek(block * BLOCK)
            data = without_header(block, store.read(min(BLOCK, copy.size - block * BLOCK)))
            assert data == disk.expected(copy, block), (number, block)
            count += 1
    return count


def copied(disk: Disk) -> list[list[int]]:
    """Of each shadow copy, the protected blocks that were copied to a store, and what dissect reads right.

    Blocks that nobody overwrote it gives as zeros, where it takes the bitmap the other way round; moves
    and sectors written in the copy it mistakes.
    """
    found = []
    for number, copy in enumerate(disk.model.copies):
        kept: set[int] = set()
        moved: set[int] = set()
        for newer in disk.model.copies[number:]:
            for original, target, _, flags, _ in newer.descriptors:
                if not flags & 0x7:
                    kept.add(original // BLOCK)
                elif flags & 0x1:
                    moved |= {original // BLOCK, target // BLOCK}
        # Block 0 shows the volume header of the present.
        found.append(sorted((kept & set(copy.truth)) - moved - set(copy.overlays) - {0}))
    return found


@contextlib.contextmanager
def dissect(folder: Path) -> Iterator[Callable[[Disk], int]]:
    """Hold dissect to the truth: it shares no line, and no author, with us or with libvshadow."""
    worker = [sys.executable, "-I", str(Path(__file__).with_name("dissect_worker.py"))]
    path = folder / "volume.raw"
    with subprocess.Popen(worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asked:
        assert asked.stdin is not None
        assert asked.stdout is not None

        def check(disk: Disk) -> int:
            path.write_bytes(disk.reader().readall())
            blocks = copied(disk)
            print(json.dumps([str(path), blocks]), file=asked.stdin, flush=True)
            told = json.loads(asked.stdout.readline())  # type: ignore[union-attr]  # asserted above
            for copy, numbers, digests in zip(disk.model.copies, blocks, told, strict=True):
                expected = [hashlib.sha256(disk.expected(copy, block)).hexdigest() for block in numbers]
                assert digests == expected, copy
            return sum(map(len, blocks))

        yield check
        asked.stdin.close()
        assert asked.wait(60) == 0


def test_blocks_are_right_through_a_stack_of_copies() -> None:
    total = sum(check(model_of(seed, copies=2 + seed % 5).export()) for seed in range(12))
    assert total > 3000


@OTHERS
def test_libvshadow_reads_the_same_volumes() -> None:
    total = sum(check_foreign(model_of(seed, copies=2 + seed % 4).export()) for seed in range(8))
    assert total > 1500


@OTHERS
def test_dissect_reads_the_copied_blocks_of_the_same_volumes(tmp_path: Path) -> None:
    with dissect(tmp_path) as check:
        total = sum(check(model_of(seed, copies=2 + seed % 4).export()) for seed in range(8))
    assert total > 500


def test_blocks_may_move_away_and_back() -> None:
    for seed in range(8):
        check(model_of(seed, copies=3, back=True).export())


def test_the_catalog_may_be_in_any_order_over_several_blocks() -> None:
    for seed in range(6):
        disk = model_of(seed, copies=5).export(shuffled=True, priority=7)
        assert len(disk.metadata["catalog"]) == 3
        check(disk)


@OTHERS
def test_a_block_list_may_have_many_blocks() -> None:
    disk = model_of(3, copies=4, descriptors_apart=True).export()
    assert len(disk.metadata["block list 2"]) > 5
    check(disk)
    check_foreign(disk)


@OTHERS
def test_a_bitmap_may_have_several_blocks() -> None:
    disk = model_of(5, copies=3, far=2 * 130_048 + 77).export()
    assert len(disk.metadata["bitmap 1"]) == 3
    check(disk)
    check_foreign(disk)


def test_the_storage_may_lie_on_another_volume() -> None:
    for seed in range(8):
        disk = model_of(seed, copies=4, redirected=True).export(shuffled=seed % 2 == 1)
        check(disk)


def test_the_volume_may_be_resized_between_copies() -> None:
    for seed in range(6):
        model = model_of(seed, copies=2, redirected=True)
        for blocks in (110, 190, 75):
            model.resize(blocks)
            model.live(40)
            model.snapshot()
        model.live(40)
        disk = model.export()
        assert len({copy.size for copy in model.copies}) == 4
        volume = ShadowVolume(disk.reader(), disk.storage_reader())
        for store, copy in zip(volume.stores, model.copies, strict=True):
            assert store.size == copy.size
            with store.open() as reader:
                assert not wrong(reader, copy, disk)


def test_an_offline_copy_is_listed_and_read_for_the_older_ones() -> None:
    model = model_of(1, copies=4)
    model.copies[2].flags |= 0x100
    disk = model.export()
    assert [store.offline for store in ShadowVolume(disk.reader()).stores] == [False, False, True, False]
    check(disk)


def test_copies_of_one_moment_are_ordered_by_their_position() -> None:
    model = model_of(2, copies=4)
    for copy, created in zip(model.copies, (9, 9, 5, 0), strict=True):
        copy.created = created * 10_000_000
    check(model.export(shuffled=True))


def test_what_a_scoped_copy_left_out_is_a_hole_and_said() -> None:
    model = model_of(4, copies=1)
    model.live(30)
    copy = model.snapshot(scoped=0.4)
    used = sorted(model.used)
    model.live(60)
    disk = model.export()
    store = ShadowVolume(disk.reader()).stores[-1]
    assert store.scoped
    left_out = [block for block in used if copy.unprotected(block) and block not in copy.overlays]
    assert left_out
    for policy in (UnusedBlocks.ZERO, UnusedBlocks.WINDOWS):
        with store.open(policy) as reader:
            assert not wrong(reader, copy, disk)
            assert any("scoped" in note for note in reader.metadata.notes)
            assert all(not any(reader.pread(BLOCK, block * BLOCK)) for block in left_out)
            assert {next(reader.extents(block * BLOCK, 1)).kind for block in left_out} == {"hole"}


def test_sources_are_exact_about_every_block() -> None:
    disk = model_of(6, copies=3).export()
    volume = disk.reader()
    store, copy = ShadowVolume(volume).stores[0], disk.model.copies[0]
    seen = set()
    with store.open(UnusedBlocks.CURRENT) as reader:
        at = 0
        for part in reader.sources():
            assert part.offset == at
            at = part.end
            seen.add(part.source)
            assert part.source_offset is not None
            assert reader.pread(part.length, part.offset) == volume.pread(part.length, part.source_offset)
        assert at == reader.size
        for block, (_, bits) in copy.overlays.items():
            found = [part for part in reader.sources(block * BLOCK, BLOCK) if part.source == "overlay"]
            assert sum(part.length for part in found) == bits.bit_count() * 512
    assert seen == set(BlockSource) - {BlockSource.LOST}


@pytest.mark.long
def test_no_block_of_a_hundred_thousand_is_wrong(tmp_path: Path) -> None:
    total = foreign = third = moved = 0
    with dissect(tmp_path) as check_dissect:
        for seed in range(1000, 1400):
            redirected = seed % 5 == 4
            disk = model_of(
                seed,
                copies=2 + seed % 6,
                back=seed % 3 == 0,
                redirected=redirected,
                descriptors_apart=seed % 7 == 0,
                storage_blocks=1500,
            ).export(shuffled=seed % 2 == 1)
            total += check(disk)
            moved += sum(descriptor[3] == 1 for copy in disk.model.copies for descriptor in copy.descriptors)
            if not redirected and seed % 2 == 0 and seed % 3:
                foreign += check_foreign(disk)
                if not disk.model.apart:  # lists of many blocks that are not full it gets wrong
                    third += check_dissect(disk)
    assert total >= 100_000
    assert foreign >= 20_000
    assert third >= 10_000
    assert moved >= 2_000
