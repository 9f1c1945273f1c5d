"""What a VHDX file looks like, what is refused, and the contract of a format."""

from __future__ import annotations

import os
import random
import struct
import threading
from collections import Counter
from pathlib import Path
from uuid import UUID

import pytest

from vhdx_images import (
    DISK_ID,
    DISK_SIZE,
    FILE_PARAMETERS,
    FORMAT,
    HEADERS,
    LOGICAL_SECTOR,
    MIB,
    PHYSICAL_SECTOR,
    REGION_TABLES,
    content,
    crc32c,
    map_of,
    opened,
    seal,
    set_header,
    write,
)
from vsssnap import create_image, open_image, save_image, verify_image
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import CorruptImageError, ImageError, TargetError, UnsupportedFeatureError, UsageError
from vsssnap.formats import FileStorage, MemoryStorage, Probe, WriteOrder
from vsssnap.formats.base import Depth
from vsssnap.formats.raw import RawFormat
from vsssnap.formats.vhdx import VhdxOptions
from vsssnap.metadata import ImageMetadata
from vsssnap.testing import check_format
from vsssnap.testing.powercut import PowerCut

DISK = random.Random(1).randbytes(3 * MIB + 512)
SMALL = VhdxOptions(block_size=MIB)
NOTHING = ImageMetadata()


def test_contract() -> None:
    check_format(
        FORMAT,
        options=(SMALL, VhdxOptions(fixed=True, block_size=MIB), VhdxOptions(logical_sector_size=4096)),
        sizes=(4096, MIB - 4096, 2 * MIB + 4096),
    )


# The file, field by field.


def test_head_is_what_the_specification_says() -> None:
    data = write(DISK, SMALL)
    assert data[:8] == b"vhdxfile"
    assert data[8:24].decode("utf-16-le") == "vsssnap\0"
    guids = set()
    for number, at in zip((3, 2), HEADERS, strict=True):  # 1 was in the place of 3
        signature, checksum, sequence = struct.unpack_from("<4sIQ", data, at)
        assert (signature, sequence) == (b"head", number)
        assert checksum == crc32c(data[at : at + 4] + bytes(4) + data[at + 8 : at + 4096])
        guids.add(data[at + 16 : at + 48])
        log_guid, log_version, version, log_length, log_offset = struct.unpack_from("<16sHHIQ", data, at + 48)
        assert (log_guid, log_version, version) == (bytes(16), 0, 1)
        assert (log_length, log_offset) == (MIB, MIB)
        assert not any(data[at + 80 : at + 65536])
    assert len(guids) == 1
    tables = [data[at : at + 65536] for at in REGION_TABLES]
    assert tables[0] == tables[1]
    signature, checksum, count, reserved = struct.unpack_from("<4sIII", data, REGION_TABLES[0])
    assert (signature, count, reserved) == (b"regi", 2, 0)
    table = tables[0]
    assert checksum == crc32c(table[:4] + bytes(4) + table[8:])
    regions = [struct.unpack_from("<16sQII", table, 16 + 32 * n)[1:] for n in range(2)]
    assert regions == [(3 * MIB, MIB, 1), (2 * MIB, MIB, 1)]


@pytest.mark.parametrize(("fixed", "flags"), [(False, 0), (True, 1)])
def test_metadata_is_what_was_asked_for(fixed: bool, flags: int) -> None:
    options = VhdxOptions(fixed=fixed, block_size=4 * MIB, physical_sector_size=512)
    data = write(DISK, options)
    items = map_of(data).items
    assert struct.unpack_from("<II", data, items[FILE_PARAMETERS][0]) == (4 * MIB, flags)
    assert struct.unpack_from("<Q", data, items[DISK_SIZE][0]) == (len(DISK),)
    assert struct.unpack_from("<I", data, items[LOGICAL_SECTOR][0]) == (512,)
    assert struct.unpack_from("<I", data, items[PHYSICAL_SECTOR][0]) == (512,)
    table = data[2 * MIB : 2 * MIB + 65536]
    assert struct.unpack_from("<8sHH", table) == (b"metadata", 0, 5)
    stored = {struct.unpack_from("<16sIIII", table, 32 + 32 * n)[3] for n in range(5)}
    assert stored == {4, 6}
    with opened(data) as reader:
        assert reader.info()["type"] == ("fixed" if fixed else "dynamic")
        assert reader.info()["disk_id"] == str(UUID(bytes_le=data[items[DISK_ID][0] :][:16]))


@pytest.mark.parametrize(
    ("options", "logical", "physical"),
    [
        (VhdxOptions(), 512, 4096),  # 512e
        (VhdxOptions(logical_sector_size=4096), 4096, 4096),  # 4Kn
        (VhdxOptions(physical_sector_size=512), 512, 512),
    ],
)
def test_a_disk_is_512e_unless_that_is_chosen(options: VhdxOptions, logical: int, physical: int) -> None:
    disk = DISK[: 3 * MIB]
    data = write(disk, options)
    items = map_of(data).items
    assert struct.unpack_from("<I", data, items[LOGICAL_SECTOR][0]) == (logical,)
    assert struct.unpack_from("<I", data, items[PHYSICAL_SECTOR][0]) == (physical,)
    with opened(data) as reader:
        assert reader.sector_size == logical
        assert reader.info()["physical_sector_size"] == physical
        assert reader.pread(reader.size, 0) == disk


def test_blocks_lie_on_whole_mib_behind_one_another() -> None:
    disk = bytearray(8 * MIB)
    disk[0] = disk[5 * MIB] = 1
    data = write(disk, VhdxOptions(block_size=2 * MIB))
    where = map_of(data)
    assert [where.payload(data, n) for n in range(4)] == [(6, 4 * MIB), (2, 0), (6, 6 * MIB), (2, 0)]
    assert len(data) == 8 * MIB


def test_a_fixed_disk_has_all_its_blocks() -> None:
    data = write(bytes(3 * MIB), VhdxOptions(fixed=True, block_size=MIB))
    where = map_of(data)
    assert [where.payload(data, n) for n in range(3)] == [(6, (4 + n) * MIB) for n in range(3)]
    assert len(data) == 7 * MIB


@pytest.mark.parametrize(
    ("size", "block"),
    [(512, 2 * MIB), (1 << 41, 2 * MIB), ((1 << 41) + 512, 4 * MIB), (64 << 40, 64 * MIB)],
)
def test_default_blocks_keep_the_bat_small(size: int, block: int) -> None:
    storage = MemoryStorage()
    writer = FORMAT.create(storage, size)
    writer.finish(NOTHING)
    where = map_of(storage.data)
    assert (where.block_size, where.size) == (block, size)
    assert len(storage.data) <= (3 + 8 + 1) * MIB


def test_the_interleaved_entries_of_sector_bitmaps_are_left_empty() -> None:
    """Blocks of 256 MiB: the sixteen of a chunk are followed by its sector bitmap's entry."""
    size = 35 * 256 * MIB
    storage = MemoryStorage()
    writer = FORMAT.create(storage, size, options=VhdxOptions(block_size=256 * MIB))
    writer.finish(NOTHING)
    where = map_of(storage.data)
    assert where.ratio == 16
    entries = struct.unpack_from("<38Q", storage.data, where.bat)
    assert entries == ((2,) * 16 + (0,)) * 2 + (2,) * 3 + (0,)


def test_same_options_and_identity_make_the_same_bytes() -> None:
    options = VhdxOptions(identity=UUID(int=7))
    assert write(DISK, options) == write(DISK, options)
    assert write(DISK) != write(DISK)


def test_threads_write_at_once() -> None:
    disk = random.Random(2).randbytes(12 * MIB)
    storage = MemoryStorage()
    writer = FORMAT.create(storage, len(disk))
    assert writer.write_order is WriteOrder.ANY

    def put(number: int) -> None:
        for at in range(number * MIB, len(disk), 4 * MIB):
            writer.pwrite(memoryview(disk)[at : at + MIB], at)

    threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.finish(NOTHING)
    assert content(storage.data) == disk


@pytest.mark.parametrize("fixed", [False, True])
def test_preallocation_of_a_full_disk_fails_at_once(fixed: bool) -> None:
    class Full(MemoryStorage):
        def allocate(self, size: int, /) -> None:
            raise TargetError(f"no room for {size} bytes")

    options = VhdxOptions(fixed=fixed, preallocate=True)
    error, match = (TargetError, "no room for 10485760 bytes") if fixed else (UsageError, "only a fixed")
    with pytest.raises(error, match=match):
        FORMAT.create(Full(), 5 * MIB, options=options)


def test_holes_of_whole_blocks_are_kept_and_others_counted() -> None:
    storage = MemoryStorage()
    writer = FORMAT.create(storage, 8 * MIB + 512, options=VhdxOptions(block_size=2 * MIB))
    writer.mark(Extent(MIB, 4 * MIB, ExtentKind.HOLE))
    writer.mark(Extent(6 * MIB, 2 * MIB, ExtentKind.EXCLUDED))
    writer.mark(Extent(8 * MIB, 512, ExtentKind.HOLE))
    writer.finish(NOTHING)
    assert writer.flattened() == {"hole": 2 * MIB, "excluded": 2 * MIB}
    where = map_of(storage.data)
    assert [where.payload(storage.data, n)[0] for n in range(5)] == [2, 3, 2, 2, 3]
    with opened(storage.data) as reader:
        kinds = [(extent.length, extent.kind) for extent in reader.extents()]
    zero, hole = ExtentKind.ZERO, ExtentKind.HOLE
    assert kinds == [(2 * MIB, zero), (2 * MIB, hole), (4 * MIB, zero), (512, hole)]


@pytest.mark.skipif(not hasattr(os, "SEEK_DATA"), reason="no holes in files here")
def test_holes_of_the_file_are_zero(tmp_path: Path) -> None:
    path = tmp_path / "a.vhdx"
    writer = create_image(path, 32 * MIB, options=VhdxOptions(block_size=32 * MIB))
    writer.pwrite(memoryview(b"\1" * MIB), 16 * MIB)
    writer.finish()
    with open_image(path) as reader:
        data = [extent for extent in reader.extents() if extent.kind is ExtentKind.DATA]
    assert data == [Extent(16 * MIB, MIB)]


# Reading what others may write.


@pytest.mark.parametrize(
    ("state", "kind"),
    [(0, ExtentKind.ZERO), (1, ExtentKind.HOLE), (2, ExtentKind.ZERO), (3, ExtentKind.HOLE)],
)
def test_states_without_content_read_as_zeros_wherever_they_point(state: int, kind: ExtentKind) -> None:
    data = bytearray(write(DISK[: 3 * MIB], SMALL))
    where = map_of(data)
    data[where.entry(1)] = data[where.entry(1)] & 0xF8 | state
    with opened(data) as reader:
        assert reader.pread(3 * MIB, 0) == DISK[:MIB] + bytes(MIB) + DISK[2 * MIB : 3 * MIB]
        assert [e.kind for e in reader.extents()] == [ExtentKind.DATA, kind, ExtentKind.DATA]
        assert not list(reader.verify(Depth.STRUCTURE, lambda _: None))


@pytest.mark.parametrize("state", [4, 5, 7])
def test_states_that_a_dynamic_disk_cannot_have_are_refused(state: int) -> None:
    data = bytearray(write(DISK, SMALL))
    where = map_of(data)
    data[where.entry(1)] = data[where.entry(1)] & 0xF8 | state
    with opened(data) as reader:
        assert reader.pread(MIB, 0) == DISK[:MIB]
        with pytest.raises(CorruptImageError, match=f"payload block 1: the state {state} is not"):
            reader.pread(1, MIB)
        with pytest.raises(CorruptImageError):
            list(reader.extents())
        found = list(reader.verify(Depth.STRUCTURE, lambda _: None))
    assert [(f.structure, f.offset, f.extent) for f in found] == [
        ("BAT entry", where.entry(1), Extent(MIB, MIB))
    ]


def test_the_header_with_the_greater_sequence_is_current() -> None:
    data = bytearray(write(DISK, SMALL))
    one, two = UUID(int=1), UUID(int=2)
    set_header(data, "<16s", 32, one.bytes_le, only=(0,))
    set_header(data, "<16s", 32, two.bytes_le, only=(1,))
    assert opened(data).data_write_id == one
    set_header(data, "<Q", 8, 99, only=(1,))
    assert opened(data).data_write_id == two
    data[HEADERS[1] + 100] ^= 1  # the checksum covers all of the 4 KiB
    assert opened(data).data_write_id == one


def test_one_damaged_copy_is_enough_and_is_reported() -> None:
    for at, name in ((HEADERS[0], "header"), (HEADERS[1], "header"), (REGION_TABLES[0], "region table")):
        data = bytearray(write(DISK, SMALL))
        data[at + 9] ^= 1
        assert content(data) == DISK
        with opened(data) as reader:
            found = [(f.structure, f.offset) for f in reader.verify(Depth.STRUCTURE, lambda _: None)]
        assert found == [(name, at)]


def test_two_damaged_copies_are_refused_and_read_when_recovering() -> None:
    for places in (HEADERS, REGION_TABLES):
        data = bytearray(write(DISK, SMALL))
        for at in places:
            data[at + 6] ^= 1
        with pytest.raises(CorruptImageError, match="neither of the two"):
            opened(data)
        with opened(data, recover=True) as reader:
            assert reader.pread(reader.size, 0) == DISK
            assert reader.info()["complete"] is False


def test_unknown_parts_are_passed_over_unless_they_are_required() -> None:
    for required in (0, 1):
        data = bytearray(write(DISK, SMALL))
        for at in REGION_TABLES:
            struct.pack_into("<I", data, at + 8, 3)
            struct.pack_into("<16sQII", data, at + 16 + 64, UUID(int=5).bytes_le, len(data), MIB, required)
            seal(data, at, 65536)
        data += bytes(MIB)
        if required:
            with pytest.raises(UnsupportedFeatureError, match="unknown region") as caught:
                opened(data)
            assert caught.value.feature == f"region {UUID(int=5)}"
        else:
            assert content(data) == DISK


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 4, 5, 6, 7])
def test_unknown_metadata_is_passed_over_unless_it_is_required(flags: int) -> None:
    data = bytearray(write(DISK, SMALL))
    where = map_of(data)
    struct.pack_into("<H", data, where.metadata + 10, 6)
    # The GUID of a known item, as a user's: that is another item.
    guid = DISK_SIZE if flags & 1 else UUID(int=5)
    struct.pack_into("<16sIIII", data, where.metadata + 32 + 5 * 32, guid.bytes_le, 128 * 1024, 100, flags, 0)
    if flags & 4:
        with pytest.raises(UnsupportedFeatureError, match="unknown metadata item"):
            opened(data)
    else:
        assert content(data) == DISK


def test_versions_that_are_not_known_are_refused() -> None:
    data = bytearray(write(DISK, SMALL))
    set_header(data, "<H", 66, 2)
    with pytest.raises(UnsupportedFeatureError, match="version 2"):
        opened(data)


@pytest.mark.parametrize(
    ("item", "layout", "value"),
    [
        (FILE_PARAMETERS, "<I", MIB // 2),
        (FILE_PARAMETERS, "<I", 512 * MIB),
        (FILE_PARAMETERS, "<I", 3 * MIB),
        (FILE_PARAMETERS, "<II", (MIB, 2)),  # a parent, and no locator
        (DISK_SIZE, "<Q", (64 << 40) + 512),
        (DISK_SIZE, "<Q", 513),
        (DISK_SIZE, "<Q", 1 << 40),  # more than the BAT holds
        (LOGICAL_SECTOR, "<I", 1024),
        (PHYSICAL_SECTOR, "<I", 0),
    ],
)
def test_impossible_geometries_are_refused(item: UUID, layout: str, value: object) -> None:
    data = bytearray(write(DISK, SMALL))
    values = value if isinstance(value, tuple) else (value,)
    struct.pack_into(layout, data, map_of(data).items[item][0], *values)
    with pytest.raises(CorruptImageError):
        opened(data)


def test_blocks_that_lie_wrong_are_refused_and_reported() -> None:
    good = write(DISK[: 3 * MIB], SMALL)
    where = map_of(good)
    for place, words in (
        (0, "header section"),
        (1 * MIB, "overlaps the log"),
        (2 * MIB, "overlaps the metadata region"),
        (3 * MIB, "overlaps the BAT"),
        (7 * MIB, "behind the end of the file"),
        (1 << 62, "behind the end of the file"),
    ):
        data = bytearray(good)
        struct.pack_into("<Q", data, where.entry(1), place | 6)
        with opened(data) as reader:
            assert reader.pread(MIB, 2 * MIB) == DISK[2 * MIB : 3 * MIB]
            with pytest.raises(CorruptImageError, match=words):
                reader.pread(1, MIB)
            found = list(reader.verify(Depth.STRUCTURE, lambda _: None))
        assert [f.extent for f in found] == [Extent(MIB, MIB)]
    data = bytearray(good)
    struct.pack_into("<Q", data, where.entry(1), where.payload(data, 0)[1] | 6)
    with opened(data) as reader:
        found = list(reader.verify(Depth.STRUCTURE, lambda _: None))
    assert [(f.offset, f.message) for f in found] == [(where.entry(1), "byte 4194304 is another block's too")]


def test_verify_finds_reserved_bits_and_foreign_bitmaps() -> None:
    size = 17 * 256 * MIB
    storage = MemoryStorage()
    writer = FORMAT.create(storage, size, options=VhdxOptions(block_size=256 * MIB))
    writer.finish(NOTHING)
    where = map_of(storage.data)
    struct.pack_into("<Q", storage.data, where.entry(0), 8 | 2)
    struct.pack_into("<Q", storage.data, where.bitmap_entry(0), 3 * MIB | 6)
    struct.pack_into("<I", storage.data, where.metadata + 32 + 24, 4 | 8)
    with opened(storage.data) as reader:
        found = [(f.structure, f.offset) for f in reader.verify(Depth.STRUCTURE, lambda _: None)]
    assert ("metadata entry", where.metadata + 32) in found
    assert ("BAT entry", where.entry(0)) in found
    assert ("BAT entry", where.bitmap_entry(0)) in found


# Refusals.


@pytest.mark.parametrize(
    ("size", "options", "words"),
    [
        (0, VhdxOptions(), "0 bytes is no disk"),
        (513, VhdxOptions(), "no whole number of sectors of 512 bytes"),
        (512, VhdxOptions(logical_sector_size=4096), "no whole number of sectors of 4096 bytes"),
        ((64 << 40) + 512, VhdxOptions(), f"outside 0..{64 << 40}"),
        (512, VhdxOptions(block_size=MIB // 2), "block_size"),
        (512, VhdxOptions(block_size=512 * MIB), "block_size"),
        (512, VhdxOptions(block_size=3 * MIB), "no power of two"),
        (512, VhdxOptions(logical_sector_size=2048), "logical_sector_size is 2048"),
        (512, VhdxOptions(physical_sector_size=1), "physical_sector_size is 1"),
    ],
)
def test_what_a_vhdx_cannot_be_is_refused(size: int, options: VhdxOptions, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        FORMAT.create(MemoryStorage(), size, options=options)


def test_other_refusals() -> None:
    with pytest.raises(UsageError, match="is not empty: it has 3 bytes"):
        FORMAT.create(MemoryStorage(b"abc"), MIB)
    with (
        RawFormat().open(MemoryStorage(bytes(MIB))) as raw,
        pytest.raises(UsageError, match="raw image cannot"),
    ):
        FORMAT.create(MemoryStorage(), MIB, parent=raw)

    class Pipe(MemoryStorage):
        seekable = False

    with pytest.raises(UsageError, match="cannot seek"):
        FORMAT.create(Pipe(), MIB)
    writer = FORMAT.create(MemoryStorage(), MIB)
    for at, length in ((-512, 512), (MIB, 512)):
        with pytest.raises(UsageError, match="not inside a volume"):
            writer.pwrite(memoryview(bytes(length)), at)


@pytest.mark.parametrize(
    ("head", "name", "score"),
    [(b"vhdxfile", "", 100), (b"conectix", "x.vhdx", 10), (b"", "X.AVHDX", 10), (b"vhdxfil", "x.vhd", 0)],
)
def test_it_is_recognised(head: bytes, name: str, score: int) -> None:
    assert FORMAT.probe(Probe(head, b"", name, len(head))) == score


# Complete or not.


def test_every_power_cut_leaves_nothing_or_all() -> None:
    disk = bytes(MIB) + DISK[:MIB] + bytes(MIB)
    recorder = PowerCut()
    writer = FORMAT.create(recorder, len(disk), options=SMALL)
    for at in range(0, len(disk), MIB):
        writer.pwrite(memoryview(disk)[at : at + MIB], at)
    writer.finish(NOTHING)
    logs = Counter[str]()
    for cut in recorder.cuts(subsets=4, torn=True, seed=3):
        try:
            reader = FORMAT.open(cut.storage)
        except ImageError:
            continue
        with reader:
            assert reader.pread(reader.size, 0) == disk, cut.description
            # Of two headers one may be torn or old.
            found = {finding.structure for finding in reader.verify(Depth.STRUCTURE, lambda _: None)}
            assert found <= ({"header"} if cut.after < recorder.operations else set())
            logs[reader.info()["log"]] += 1
    assert logs.keys() == {"replayed", "empty"}
    assert min(logs.values()) > 4


def committed(recorder: PowerCut) -> bytearray:
    """A new file when its first header was just written, so that only the log has its BAT."""
    for cut in recorder.cuts():
        data = cut.storage.data
        if data[HEADERS[0] : HEADERS[0] + 4] == b"head":
            return data
    raise AssertionError("no header was ever written")


@pytest.mark.parametrize("blocks", [3, 130_000])
def test_the_log_of_a_new_image_is_what_the_specification_says(blocks: int) -> None:
    """Of the larger disk's BAT the last two sectors are too many for the log."""
    recorder = PowerCut()
    writer = FORMAT.create(recorder, blocks * MIB, options=SMALL)
    for block in (0, blocks - 1):
        writer.pwrite(memoryview(DISK)[:MIB], block * MIB)
    writer.finish(NOTHING)
    data = committed(recorder)

    whole = bytes(recorder.content())
    bat = map_of(whole).bat
    log_guid = struct.unpack_from("<16s", data, HEADERS[0] + 48)[0]
    assert any(log_guid)
    places = []
    at, sequence = MIB, 1
    while data[at : at + 4] == b"loge":
        length = struct.unpack_from("<I", data, at + 8)[0]
        entry = data[at : at + length]
        found = struct.unpack_from("<4sIIIQII16sQQ", entry)
        count = found[5]
        assert 0 < count <= 126
        wanted = (
            b"loge",
            found[1],
            4096 * (1 + count),
            0,
            sequence,
            count,
            0,
            log_guid,
            len(whole),
            len(whole),
        )
        assert found == wanted
        assert found[1] == crc32c(entry[:4] + bytes(4) + entry[8:])
        for number in range(count):
            magic, tail, lead, place, seen = struct.unpack_from("<4s4s8sQQ", entry, 64 + 32 * number)
            sector = bytes(entry[4096 * (1 + number) : 4096 * (2 + number)])
            assert (magic, seen, sector[:4]) == (b"desc", sequence, b"data")
            assert struct.unpack("<II", sector[4:8] + sector[-4:]) == (0, sequence)
            assert lead + sector[8:-4] + tail == whole[place : place + 4096]
            places.append(place)
        at, sequence = at + length, sequence + 1
    assert at < 2 * MIB
    sectors = -(-(blocks + (blocks - 1) // 4096) * 8 // 4096)
    assert places == [bat + 4096 * number for number in range(min(sectors, 252))]
    assert not any(data[bat : bat + 252 * 4096])
    assert data[bat + 252 * 4096 : bat + MIB] == whole[bat + 252 * 4096 : bat + MIB]


def test_save_verify_and_sidecar(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(DISK)
    with open_image(tmp_path / "a.raw") as raw:
        report = save_image(raw, tmp_path / "a.vhdx", options=VhdxOptions(sidecar=True))
    assert report.format == "vhdx"
    verified = verify_image(tmp_path / "a.vhdx")
    assert (verified.ok, verified.depth, verified.sidecar) == (True, Depth.CONTENT, True)
    with open(tmp_path / "a.vhdx", "r+b") as file:
        file.seek(4 * MIB + 1000)
        file.write(b"\0")
    verified = verify_image(tmp_path / "a.vhdx")
    assert [f.extent for f in verified.findings] == [Extent(0, 256 << 10)]


def test_storage_is_closed_when_opening_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.vhdx"
    path.write_bytes(b"vhdxfile".ljust(MIB, b"\0"))
    storage = FileStorage(os.open(path, os.O_RDONLY), str(path))
    with pytest.raises(CorruptImageError, match="neither of the two is valid"):
        FORMAT.open(storage)
    with pytest.raises(ValueError, match="closed"):
        storage.pread(1, 0)
