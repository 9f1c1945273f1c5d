"""Shadow copies that Windows made, held to what independent readers and Windows itself gave."""

from __future__ import annotations

import csv
import hashlib
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import shadow_corpus
from corpus_images import image
from foreign import ntfs_bitmap
from requirements import require_corpus
from vsssnap import Extent, open_image, restore_image
from vsssnap.blocks.reader import BlockReader
from vsssnap.volumes import BlockSource, ShadowStore, ShadowVolume, UnusedBlocks

BLOCK = 16384
STEP = 1 << 20

# Named here, so that collection needs no corpus; a test holds the list to golden.json.
STORES = [
    ("plaso_vsstest", 1),
    ("plaso_vsstest", 2),
    ("vss_2_stor(local)", 1),
    ("vss_1_vol+vss_2_stor", 1),
    ("vss_1_vol+vss_2_stor", 2),
]
HASHES = [
    ("plaso_vsstest", 1, "windows"),
    ("plaso_vsstest", 1, "zero"),
    ("plaso_vsstest", 2, "windows"),
    ("plaso_vsstest", 2, "current"),
    ("vss_2_stor(local)", 1, "windows"),
    ("vss_2_stor(local)", 1, "current"),
    ("vss_1_vol+vss_2_stor", 1, "windows"),
    ("vss_1_vol+vss_2_stor", 1, "zero"),
    ("vss_1_vol+vss_2_stor", 2, "windows"),
    ("vss_1_vol+vss_2_stor", 2, "current"),
]


def volume_of(name: str) -> ShadowVolume:
    golden = shadow_corpus.golden()[name]
    volume = shadow_corpus.opened(golden["file"], golden["volume_offset"], golden["volume_size"])
    storage = shadow_corpus.opened(*golden["storage"]) if golden["storage"] else None
    return ShadowVolume(volume, storage)


def store_of(name: str, number: int) -> tuple[ShadowStore, dict[str, Any]]:
    return volume_of(name).stores[number - 1], shadow_corpus.golden()[name]["stores"][number - 1]


def sha256(reader: BlockReader) -> str:
    state, buffer = hashlib.sha256(), memoryview(bytearray(STEP))
    for offset in range(0, reader.size, STEP):
        state.update(buffer[: reader.preadinto(buffer[: min(STEP, reader.size - offset)], offset)])
    return state.hexdigest()


def sparse_digest(reader: BlockReader) -> str:
    """As golden.json has it: the number and content of every block that is not all zero, then the size."""
    state = hashlib.sha256()
    for offset, block in reader.blocks(BLOCK):
        if any(block):
            state.update(struct.pack("<Q", offset // BLOCK))
            state.update(block)
    state.update(struct.pack("<Q", reader.size))
    return state.hexdigest()


def test_every_store_of_the_corpus_is_here() -> None:
    golden = shadow_corpus.golden()
    assert [(name, store["index"]) for name in golden for store in golden[name]["stores"]] == STORES
    hashes = {
        (name, store["index"], policy)
        for name in golden
        for store in golden[name]["stores"]
        for policy in store["sha256"]
    }
    assert hashes == set(HASHES)


@pytest.mark.parametrize(("name", "number"), STORES)
def test_metadata_is_what_the_catalog_holds(name: str, number: int) -> None:
    store, expected = store_of(name, number)
    assert store.position == expected["stack_position"]
    assert str(store.store_id) == expected["store_id"]
    assert str(store.copy_id) == expected["copy_id"]
    assert str(store.set_id) == expected["set_id"]
    assert str(store.kind) == expected["appinfo_guid"]
    assert store.created_filetime == expected["created_filetime"]
    text, ticks = expected["created"].rsplit(".", 1)
    moment = datetime.fromisoformat(text).replace(tzinfo=UTC) + timedelta(microseconds=int(ticks) // 10)
    assert store.created == moment
    assert store.size == expected["volume_size"]
    assert (store.flags, store.attributes, store.context) == (
        expected["store_flags"],
        expected["attr"],
        expected["context"],
    )
    assert (store.machine, store.snapshot_count) == (expected["machine"], 1)
    assert not store.offline
    assert not store.scoped
    assert (store.health.readable, store.health.reasons) == (True, ())


@pytest.mark.parametrize(("name", "number"), STORES)
def test_tables_have_as_many_blocks_as_the_oracles_count(name: str, number: int) -> None:
    store, expected = store_of(name, number)
    table = store._level.table()
    assert len(table.blocks) == expected["regular"]
    assert len(table.overlays) == expected["overlays"]
    assert len(table.forwards) == expected["forwarders"] == 0


@pytest.mark.parametrize(("name", "number"), STORES)
def test_every_block_has_the_golden_content(name: str, number: int) -> None:
    store, expected = store_of(name, number)
    for policy in ("zero", "current"):
        with store.open(UnusedBlocks(policy)) as reader:
            assert sparse_digest(reader) == expected[f"sparse_digest_{policy}"], policy


@pytest.mark.parametrize(("name", "number"), STORES)
def test_spot_blocks_lie_where_they_should(name: str, number: int) -> None:
    store, expected = store_of(name, number)
    names = {"vol": BlockSource.VOLUME, "unused": BlockSource.UNUSED, "store": BlockSource.STORE}
    with store.open(UnusedBlocks.CURRENT) as reader:
        for spot in expected["spots"]:
            data = reader.pread(BLOCK, spot["offset"])
            assert hashlib.sha256(data).hexdigest() == spot["sha256"], spot
            found = {part.source for part in reader.sources(spot["offset"], BLOCK)}
            assert names[spot["location"]] in found or found == {BlockSource.OVERLAY}, spot
            if "overlay" in spot["kind"]:
                assert BlockSource.OVERLAY in found, spot


@pytest.mark.parametrize("number", [1, 2])
def test_spot_blocks_are_read_from_an_image_of_another_format(number: int) -> None:
    expected = shadow_corpus.golden()["plaso_vsstest"]["stores"][number - 1]
    with (
        open_image(image("plaso/vsstest.qcow2")) as volume,
        ShadowVolume(volume).stores[number - 1].open(UnusedBlocks.CURRENT) as reader,
    ):
        for spot in expected["spots"]:
            assert hashlib.sha256(reader.pread(BLOCK, spot["offset"])).hexdigest() == spot["sha256"], spot


@pytest.mark.parametrize(("name", "number"), STORES)
def test_unprotected_blocks_are_as_many_as_the_bitmaps_say(name: str, number: int) -> None:
    store, expected = store_of(name, number)
    view, segment = store._level.view(store._level.bitmaps()), 8128 * BLOCK
    segments = range(-(-store.size // segment))
    assert sum(view.unused_bits(at).bit_count() for at in segments) == expected["unprotected_blocks"]


@pytest.mark.parametrize(
    ("name", "number", "policy"),
    [pytest.param(*case, marks=() if case[0] == "plaso_vsstest" else pytest.mark.long) for case in HASHES],
)
def test_whole_shadow_copies_have_the_golden_digest(name: str, number: int, policy: str) -> None:
    store, expected = store_of(name, number)
    with store.open(UnusedBlocks(policy)) as reader:
        assert sha256(reader) == expected["sha256"][policy]


@pytest.mark.parametrize("number", [1, 2])
def test_copies_of_a_small_volume_are_as_libvshadow_reads_them(number: int) -> None:
    with open(require_corpus() / "vss" / "EXPECTED-VSS.tsv", encoding="utf-8", newline="") as file:
        rows = {row["store(1=oldest)"]: row for row in csv.DictReader(file, delimiter="\t")}
    expected = rows[str(number)]
    store = ShadowVolume(shadow_corpus.opened("dfvfs/vss.raw")).stores[number - 1]
    assert store.created is not None
    assert store.created.isoformat(sep=" ").removesuffix("+00:00") == expected["creation_utc"]
    assert store.size == int(expected["volume_size"])
    with store.open(UnusedBlocks.WINDOWS) as reader:
        assert sha256(reader) == expected["sha256_full"]


@pytest.mark.parametrize("name", ["plaso_vsstest", "vss_2_stor(local)", "vss_1_vol+vss_2_stor"])
def test_changed_blocks_hold_all_that_differ(name: str) -> None:
    volume = volume_of(name)
    for change in shadow_corpus.golden()[name]["cbt"]:
        newer = None if change["to"] == "current" else change["to"]
        differing = set(change["read_diff_blocks"])
        # Of the present volume all, whatever its file system says.
        used = [Extent(0, volume.stores[0].size)] if newer is None else None
        listed = _numbers(volume, change["frm"], newer, exact=False, allocated=used)
        exact = _numbers(volume, change["frm"], newer, exact=True, allocated=used)
        assert differing <= exact <= listed
        # Beyond the truth there is only what was not protected, so that nobody knows what it held.
        level = volume.stores[change["frm"] - 1]._level
        view = level.view(level.bitmaps())
        for block in exact - differing - {0}:
            assert view.unused_bits(block // 8128) >> block % 8128 & 1, block
        if newer is not None:
            # Every descriptor in between, as far as it is about blocks that are in use.
            assert len(listed) <= change["descriptor_blocks"] + 10


@pytest.mark.parametrize("name", ["plaso_vsstest", "vss_2_stor(local)", "vss_1_vol+vss_2_stor"])
def test_the_present_files_tell_which_changes_matter(name: str, tmp_path: Path) -> None:
    volume = volume_of(name)
    raw = tmp_path / "volume.img"
    restore_image(volume._reader, raw)
    bitmap, unit = ntfs_bitmap(raw), _cluster(raw)
    raw.unlink()
    for change in shadow_corpus.golden()[name]["cbt"]:
        if change["to"] != "current":
            continue
        found = _numbers(volume, change["frm"], None, exact=False)
        # What differs and was left out is free by the bitmap, as ntfscat reads it.
        for block in set(change["read_diff_blocks"]) - found:
            clusters = range(block * BLOCK // unit, max(1, BLOCK // unit) + block * BLOCK // unit)
            assert not any(bitmap[each // 8] >> each % 8 & 1 for each in clusters), block
        # Without what nobody protected and nobody uses now: free space, page files, the storage itself.
        assert len(found) <= change["descriptor_blocks"] + 10


def _cluster(volume: Path) -> int:
    """Bytes of a cluster, by the boot sector."""
    with volume.open("rb") as file:
        head = file.read(16)
    return int.from_bytes(head[11:13], "little") * head[13]


def _numbers(
    volume: ShadowVolume,
    older: int,
    newer: int | None,
    *,
    exact: bool,
    allocated: Sequence[Extent] | None = None,
) -> set[int]:
    return {
        block
        for extent in volume.changed_extents(older, newer, exact=exact, allocated=allocated)
        if extent.kind == "data"
        for block in range(extent.offset // BLOCK, -(-extent.end // BLOCK))
    }


def test_a_storage_volume_alone_lists_its_own_copy_only() -> None:
    # libvshadow gives this store the location of another volume's, and wrong data without an error.
    volume = volume_of("vss_2_stor(local)")
    assert [str(store.copy_id) for store in volume.stores] == ["e8e75155-2d2d-45bc-b67e-123e6f20b97d"]


def test_half_of_a_redirected_pair_says_what_is_missing() -> None:
    golden = shadow_corpus.golden()["vss_1_vol+vss_2_stor"]
    whole = volume_of("vss_1_vol+vss_2_stor")
    half = ShadowVolume(shadow_corpus.opened(golden["file"], golden["volume_offset"], golden["volume_size"]))
    assert half.redirected
    assert [store.created for store in half.stores] == [store.created for store in whole.stores]
    for store in half.stores:
        assert not store.health.readable
        assert str(half.storage_id) in store.health.reasons[0]
