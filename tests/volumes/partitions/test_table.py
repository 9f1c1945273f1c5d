from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from foreign import corpus_file, mmls_ranges, run_quietly, sfdisk, sfdisk_table
from loops import loop_device, sparse_file
from requirements import require_lab
from sources import Patched
from vsssnap import open_device
from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import CorruptImageError, UnknownFormatError, UsageError, VssSnapError
from vsssnap.testing import MemoryReader
from vsssnap.volumes import Partitions, Scheme

MIB = 1 << 20

GPT = """label: gpt
label-id: 11111111-2222-3333-4444-555555555555
first-lba: 2048
start=2048, size=4096, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=AAAAAAAA-0000-0000-0000-000000000001
start=6144, size=10240, name="Daten \u00fc\u20ac", attrs="GUID:63", type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7
7: start=20480, size=2048, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, attrs="LegacyBIOSBootable"
"""
MBR = """label: dos
label-id: 0xcafe1234
1: start=2048, size=2048, type=7, bootable
2: start=4096, size=20480, type=5
3: start=26624, size=2048, type=83
5: start=6144, size=2048, type=83
6: start=10240, size=2048, type=82
7: start=14336, size=4096, type=b
"""


def gpt_disk(folder: Path) -> Path:
    disk = sparse_file(folder / "gpt.img", 16 * MIB)
    sfdisk(disk, GPT)
    return disk


def mbr_disk(folder: Path) -> Path:
    disk = sparse_file(folder / "mbr.img", 16 * MIB)
    sfdisk(disk, MBR)
    return disk


def assert_as_sfdisk(table: Partitions, disk: Path | str) -> None:
    """Every number, range, type, name and id."""
    said = sfdisk_table(disk)
    assert (str(table.scheme), table.sector_size) == (
        {"gpt": "gpt", "dos": "mbr"}[said["label"]],
        said["sectorsize"],
    )
    if table.scheme is Scheme.GPT:
        assert table.disk_id == UUID(said["id"])
    else:
        assert table.disk_id == int(said["id"], 16)
    found = [
        {
            "start": each.offset // table.sector_size,
            "size": each.length // table.sector_size,
            "number": each.number,
            "type": each.type,
            "name": each.name,
            "id": each.id,
        }
        for each in table
    ]
    prefix = f"{disk}p" if str(disk)[-1].isdigit() else str(disk)
    expected = [
        {
            "start": entry["start"],
            "size": entry["size"],
            "number": int(entry["node"].removeprefix(prefix)),
            "type": UUID(entry["type"]) if table.scheme is Scheme.GPT else int(entry["type"], 16),
            "name": entry.get("name", ""),
            "id": UUID(entry["uuid"]) if "uuid" in entry else None,
        }
        for entry in said.get("partitions", [])
    ]
    assert found == sorted(expected, key=lambda entry: entry["number"])


def assert_as_mmls(table: Partitions, disk: Path | str) -> None:
    size = table.sector_size
    mine = {(each.offset // size, each.end // size - 1) for each in table if not each.extended}
    assert mine == mmls_ranges(disk, size)


@pytest.mark.parametrize("name", ["mbr", "gpt", "gpt_non_sequential", "gpt_empty_with_mbr"])
def test_tables_of_the_corpus_are_what_sfdisk_and_mmls_say(name: str, tmp_path: Path) -> None:
    disk = corpus_file(f"dfvfs/{name}.raw", tmp_path)
    with open_device(disk) as reader:
        table = Partitions(reader)
        assert_as_sfdisk(table, disk)
        assert_as_mmls(table, disk)
        assert table.notes == ()


@pytest.mark.parametrize("make", [gpt_disk, mbr_disk])
def test_tables_of_sfdisk_are_what_sfdisk_and_mmls_say(make: object, tmp_path: Path) -> None:
    disk = make(tmp_path)  # type: ignore[operator]  # one of the two above
    with open_device(disk) as reader:
        table = Partitions(reader)
        assert_as_sfdisk(table, disk)
        assert_as_mmls(table, disk)
        assert table.notes == ()


@pytest.mark.lab
@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize(
    "script",
    [
        "label: gpt\nfirst-lba: 256\nstart=256, size=512\nstart=1024, size=256, name=b\n",
        "label: dos\nstart=256, size=512, type=7\nstart=1024, size=2048, type=f\nstart=1280, size=256\n",
    ],
)
def test_tables_on_devices_of_both_sector_sizes(script: str, sector_size: int, tmp_path: Path) -> None:
    require_lab("losetup", "sfdisk", "mmls")
    image = sparse_file(tmp_path / "disk.img", 32 * MIB)
    with loop_device(image, sector_size=sector_size) as device:
        sfdisk(device, script)
        with open_device(device) as reader:
            table = Partitions(reader)
            assert len(table) >= 2
            assert_as_sfdisk(table, device)
            assert_as_mmls(table, device)
    with open_device(image) as plain:
        again = Partitions(plain, sector_size=sector_size)
        assert list(again) == list(table)
        if table.scheme is Scheme.GPT:  # its header tells the sector size, though a file has 512
            assert Partitions(plain).sector_size == sector_size


def test_names_attributes_and_numbers(tmp_path: Path) -> None:
    with open_device(gpt_disk(tmp_path)) as reader:
        table = Partitions(reader)
        assert [each.number for each in table] == [1, 2, 7]
        assert (2 in table, 3 in table, len(table)) == (True, False, 3)
        assert table[2].name == "Daten \u00fc\u20ac"
        assert table[2].attributes == 1 << 63
        assert table[7].attributes == 1 << 2
        assert [each.type_name for each in table] == [
            "EFI system",
            "Microsoft basic data",
            "Linux file system",
        ]
        with pytest.raises(UsageError, match="it has 1, 2, 7"):
            table[3]


def test_a_partition_opens_as_its_bytes(tmp_path: Path) -> None:
    path = gpt_disk(tmp_path)
    with path.open("r+b") as file:
        file.seek(6144 * 512)
        file.write(b"first")
        file.seek(16384 * 512 - 4)
        file.write(b"last")
    with open_device(path) as reader:
        part = Partitions(reader)[2].open()
        assert part.size == 10240 * 512
        assert part.pread(5, 0) == b"first"
        assert part.pread(4, part.size - 4) == b"last"
        part.close()
        assert reader.pread(1, 0) == b"\0"


def test_a_partition_behind_the_end_hides_only_itself(tmp_path: Path) -> None:
    path = mbr_disk(tmp_path)
    with path.open("r+b") as file:
        file.truncate(26624 * 512)
    with open_device(path) as reader:
        table = Partitions(reader)
        assert table[1].open().size == MIB
        with pytest.raises(
            CorruptImageError, match="partition 3 ends at byte 14680064, the disk at 13631488"
        ):
            table[3].open()


def facts(table: Partitions) -> list[tuple[object, ...]]:
    return [(p.number, p.offset, p.length, p.type, p.name, p.id, p.attributes) for p in table]


def small_gpt(folder: Path) -> bytes:
    """A small disk, so that every mutation is cheap."""
    disk = sparse_file(folder / "small.img", MIB)
    sfdisk(disk, "label: gpt\nfirst-lba: 64\nstart=64, size=64, name=one\nstart=128, size=128, name=two\n")
    return disk.read_bytes()


def test_any_damage_to_one_copy_of_a_gpt_leaves_the_right_table(tmp_path: Path) -> None:
    good = small_gpt(tmp_path)
    truth = facts(Partitions(MemoryReader(good)))
    assert [fact[4] for fact in truth] == ["one", "two"]
    end = len(good)
    entries = len(good) - 33 * 512
    places = [*range(512, 512 + 92), *range(1024, 1024 + 2 * 128), *range(end - 512, end - 420)]
    places += range(entries, entries + 256)
    for place in places:
        table = Partitions(Patched(good, place, 1 << place % 8))
        assert facts(table) == truth, f"byte {place}"
        assert len(table.notes) == 1, (place, table.notes)


def test_the_guard_of_a_gpt_may_be_damaged_in_every_byte(tmp_path: Path) -> None:
    good = small_gpt(tmp_path)
    truth = facts(Partitions(MemoryReader(good)))
    for place in range(440, 512):
        for flip in (0x01, 0x80, 0xFF):
            try:
                table = Partitions(Patched(good, place, flip))
            except VssSnapError:
                continue
            if table.scheme is Scheme.GPT:
                assert facts(table) == truth
            else:  # the type 0xEE is gone: then it is an MBR, as sfdisk has it too
                assert place == 450


def test_a_gpt_with_both_copies_damaged_is_an_error(tmp_path: Path) -> None:
    bad = bytearray(small_gpt(tmp_path))
    bad[512 + 60] ^= 1
    bad[-512 + 60] ^= 1
    with pytest.raises(CorruptImageError, match="no good GPT header at byte 512: the header fails") as caught:
        Partitions(MemoryReader(bytes(bad)))
    assert caught.value.offset == 512


def test_the_guard_alone_is_an_error(tmp_path: Path) -> None:
    bad = bytearray(small_gpt(tmp_path))
    bad[512:] = bytes(len(bad) - 512)
    with pytest.raises(CorruptImageError, match="neither copy"):
        Partitions(MemoryReader(bytes(bad)))


def test_a_disk_that_has_grown_or_shrunk_is_read_and_noted(tmp_path: Path) -> None:
    good = small_gpt(tmp_path)
    truth = facts(Partitions(MemoryReader(good)))
    for content, said in ((good + bytes(MIB), "has grown"), (good[: MIB // 2], "cut short")):
        table = Partitions(MemoryReader(content))
        assert facts(table) == truth
        assert said in " ".join(table.notes)


def test_the_copy_at_the_end_alone_is_no_table(tmp_path: Path) -> None:
    """A file system made on a whole disk leaves it behind."""
    content = bytes(4096) + small_gpt(tmp_path)[4096:]
    with pytest.raises(UnknownFormatError):
        Partitions(MemoryReader(content))


def test_a_hybrid_mbr_is_a_gpt_and_says_what_is_beside_it(tmp_path: Path) -> None:
    """As sgdisk makes it, and sfdisk reads both of its tables."""
    disk = gpt_disk(tmp_path)
    run_quietly("sgdisk", "--hybrid", "2:7", disk)
    with open_device(disk) as reader:
        table = Partitions(reader)
        assert_as_sfdisk(table, disk)
        beside = [(each.number, each.offset // 512, each.length // 512, each.type) for each in table.hybrid]
        assert table.notes == ()
    expected = [
        (int(entry["node"].removeprefix(str(disk))), entry["start"], entry["size"], int(entry["type"], 16))
        for entry in sfdisk_table(disk, nested="dos")["partitions"]
    ]
    assert expected[0][3] == 0xEE
    assert beside == expected[1:]
    assert len(beside) == 2


def test_every_mutation_of_an_mbr_is_a_table_or_one_of_our_errors(tmp_path: Path) -> None:
    disk = sparse_file(tmp_path / "m.img", MIB)
    sfdisk(
        disk,
        "label: dos\n1: start=64,size=64,type=7\n2: start=128,size=1024,type=5\n5: start=192,size=64\n"
        "6: start=320,size=64\n7: start=448,size=64\n",
    )
    good = disk.read_bytes()
    truth = Partitions(MemoryReader(good))
    assert [each.number for each in truth] == [1, 2, 5, 6, 7]
    starts = [0, *(s * 512 for s in range(128, 448) if good[s * 512 + 510 : s * 512 + 512] == b"\x55\xaa")]
    assert len(starts) == 4
    for start in starts:
        for place in range(start + 440, start + 512):
            for value in (0, 1, 5, 0x7F, 0x80, 0xEE, 0xFF):
                try:
                    table = Partitions(Patched(good, place, good[place] ^ value))
                except VssSnapError:
                    continue
                assert len(table) <= 260
                for each in table:
                    assert each.length > 0
                    assert each.offset >= 0


def ring(content: bytearray, sector: int, next_lba: int) -> None:
    """An extended boot record with one logical partition and a link."""
    at = sector * 512
    content[at + 446 : at + 462] = b"\0\0\0\0\x83\0\0\0" + (1).to_bytes(4, "little") + b"\1\0\0\0"
    content[at + 462 : at + 478] = b"\0\0\0\0\x05\0\0\0" + next_lba.to_bytes(4, "little") + b"\1\0\0\0"
    content[at + 510 : at + 512] = b"\x55\xaa"


def test_extended_records_in_a_circle_end() -> None:
    content = bytearray(64 * 512)
    content[446:462] = b"\0\0\0\0\x05\0\0\0" + (8).to_bytes(4, "little") + (48).to_bytes(4, "little")
    content[510:512] = b"\x55\xaa"
    ring(content, 8, 4)
    ring(content, 12, 0)
    table = Partitions(MemoryReader(bytes(content)))
    assert [each.number for each in table] == [1, 5, 6]
    assert "circle at sector 8" in " ".join(table.notes)


def test_a_very_long_chain_is_bounded() -> None:
    count = 600
    content = bytearray((8 + 2 * count) * 512)
    content[446:462] = b"\0\0\0\0\x05\0\0\0" + (8).to_bytes(4, "little") + (2 * count).to_bytes(4, "little")
    content[510:512] = b"\x55\xaa"
    for index in range(count):
        ring(content, 8 + 2 * index, 2 * index + 2)
    table = Partitions(MemoryReader(bytes(content)))
    assert len(table) == 1 + 256
    assert "more than 256" in " ".join(table.notes)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (80, 0xFFFF_FFFF, "entries of 128 bytes"),
        (84, 129, "entries of 129 bytes"),
        (72, 1 << 30, "disk ends"),
    ],
)
def test_absurd_numbers_of_a_gpt_are_refused_before_anything_is_read(
    place: int, value: int, said: str, tmp_path: Path
) -> None:
    """With right checksums, so that nothing but the bounds can refuse them."""
    import zlib

    content = bytearray(small_gpt(tmp_path))
    for at in (512, len(content) - 512):
        content[at + place : at + place + 4] = value.to_bytes(4, "little")
        content[at + 16 : at + 20] = bytes(4)
        content[at + 16 : at + 20] = zlib.crc32(content[at : at + 92]).to_bytes(4, "little")
    with pytest.raises(CorruptImageError, match=said):
        Partitions(MemoryReader(bytes(content)))


@pytest.mark.parametrize("size", [0, 1, 511, 512, 1000])
def test_a_disk_too_small_for_a_table_has_none(size: int) -> None:
    with pytest.raises(UnknownFormatError):
        Partitions(MemoryReader(bytes(size)))


@pytest.mark.parametrize("name", ["ntfs", "fat12", "ext4"])
def test_a_bare_volume_has_no_table(name: str, tmp_path: Path) -> None:
    with (
        open_device(corpus_file(f"dfvfs/{name}.raw", tmp_path)) as reader,
        pytest.raises(UnknownFormatError, match="no partition table"),
    ):
        Partitions(reader)


def test_overlapping_partitions_are_noted() -> None:
    content = bytearray(64 * 512)
    for slot, (start, count) in enumerate(((8, 16), (16, 16))):
        content[446 + 16 * slot : 462 + 16 * slot] = (
            b"\0\0\0\0\x83\0\0\0" + start.to_bytes(4, "little") + count.to_bytes(4, "little")
        )
    content[510:512] = b"\x55\xaa"
    assert Partitions(MemoryReader(bytes(content))).notes == ("partitions 1 and 2 overlap",)


def test_any_source_of_blocks_will_do(tmp_path: Path) -> None:
    class Plain:
        def __init__(self, data: bytes) -> None:
            self.data, self.size = data, len(data)

        def pread(self, length: int, offset: int, /) -> bytes:
            return self.data[offset : offset + length]

    part = Partitions(Plain(small_gpt(tmp_path)))[1].open()
    assert isinstance(part, BlockReader)
    assert part.size == 64 * 512
