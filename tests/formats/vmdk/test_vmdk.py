"""VMDK images: descriptors, extents, tables, parents, streams."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from vmdk_images import descriptor, space_efficient
from vsssnap import Depth, Extent, ExtentKind, ImageMetadata, open_image, save_image, verify_image
from vsssnap.errors import (
    CorruptImageError,
    DeviceReadError,
    ImageNotFoundError,
    ParentMismatchError,
    UnsupportedFeatureError,
    UsageError,
)
from vsssnap.formats import ImageReader, MemoryStorage, Probe
from vsssnap.formats.base import WriteOrder
from vsssnap.formats.raw import RawFormat
from vsssnap.formats.vmdk import VmdkFormat, VmdkOptions
from vsssnap.formats.vmdk.descriptor import parse
from vsssnap.formats.vmdk.reader import VmdkReader
from vsssnap.testing import check_format

MIB = 1 << 20
GRAIN = 64 << 10
FORMAT = VmdkFormat()
NOTHING = ImageMetadata()
linux = pytest.mark.posix("it looks at what Linux tells of files")
STREAM = VmdkOptions(kind="streamOptimized")


@pytest.mark.parametrize("options", [VmdkOptions(grain_size=8192), STREAM], ids=["small grains", "stream"])
def test_contract_is_kept(options: VmdkOptions) -> None:
    check_format(FORMAT, options=[options])


def image_of(data: bytes, options: VmdkOptions | None = None, *, name: str = "memory") -> bytearray:
    storage = MemoryStorage(name=name)
    writer = FORMAT.create(storage, len(data), options=options)
    for at in range(0, len(data), writer.unit):
        writer.pwrite(memoryview(data)[at : at + writer.unit], at)
    writer.finish(NOTHING)
    writer.close()
    return storage.data


def resolver(files: dict[str, bytes | bytearray]) -> object:
    def resolve(names: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        for name in map(os.path.basename, names):
            if name in files:
                storage = MemoryStorage(bytearray(files[name]), name)
                if format == "raw":
                    raw = RawFormat().open(storage)
                    raw.path = name
                    return raw
                assert format == "vmdk"
                return FORMAT.open(storage, resolve_parent=resolver(files))  # type: ignore[arg-type]
        raise ImageNotFoundError(f"{names} is not there")

    return resolve


def opened(files: dict[str, bytes | bytearray], name: str, *, recover: bool = False) -> VmdkReader:
    storage = MemoryStorage(bytearray(files[name]), name)
    return FORMAT.open(storage, resolve_parent=resolver(files), recover=recover)  # type: ignore[arg-type]


# Descriptors.


def test_descriptor_is_read_in_the_ways_it_is_written() -> None:
    text = (
        b'# Disk DescriptorFile\r\n version = 3 \r\nencoding="windows-1252"\r\nCID=fffffffe\r\n'
        b'parentCID=12ABcd\r\nisNativeSnapshot="no"\r\ncreateType="twoGbMaxExtentSparse"\r\n'
        b'parentFileNameHint="C:\\vm\\M\xfcller.vmdk"\r\n\r\n# Extent description\r\n'
        b'RW 4192256 SPARSE "a disk-s001.vmdk"\r\nRDONLY 100 FLAT "x" 63\r\nRW\t7 ZERO\r\n'
        b'#DDB\r\nddb.adapterType = "lsilogic"\r\n\0\0\0garbage'
    )
    found = parse(text, "x.vmdk", 0)
    assert (found.cid, found.parent_cid, found.kind) == (0xFFFFFFFE, 0x12ABCD, "twoGbMaxExtentSparse")
    assert found.hint == "C:\\vm\\Müller.vmdk"
    assert [(e.access, e.sectors, e.kind, e.name, e.offset) for e in found.extents] == [
        ("RW", 4192256, "SPARSE", "a disk-s001.vmdk", 0),
        ("RDONLY", 100, "FLAT", "x", 63),
        ("RW", 7, "ZERO", "", 0),
    ]
    assert found.sectors == 4192363
    assert found.database == {"ddb.adapterType": "lsilogic"}


GOOD = descriptor(['RW 8 FLAT "x" 0'])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"# Disk Desc", b"# Dsk Desc"),
        (b"CID=0000abcd", b"CID=0000abcd0"),
        (b"CID=0000abcd", b"CID=xyz"),
        (b"CID=0000abcd\n", b""),
        (b"CID=0000abcd", b"CID=1\nCID=1"),
        (b'RW 8 FLAT "x" 0', b""),
        (b'RW 8 FLAT "x" 0', b'RW 0 FLAT "x" 0'),
        (b'RW 8 FLAT "x" 0', b"RW 8 FLAT"),
        (b'RW 8 FLAT "x" 0', b'RW 8 ZERO "x"'),
        (b'RW 8 FLAT "x" 0', b'RW 8 SPARSE "x" 0 more'),
        (b'RW 8 FLAT "x" 0', b'RW -8 FLAT "x" 0'),
        (b'RW 8 FLAT "x" 0', b'RW 99999999999999999999 FLAT "x" 0'),
        (b'RW 8 FLAT "x" 0', b'RW 9999999999999999999 FLAT "x" 0'),
        (b'RW 8 FLAT "x" 0', b'RW 8 FLAT "x 0'),
        (b"createType", b"an odd line\ncreateType"),
    ],
)
def test_bad_descriptor_is_refused(old: bytes, new: bytes) -> None:
    parse(GOOD, "x.vmdk", 0)
    assert old in GOOD
    with pytest.raises(CorruptImageError) as caught:
        parse(GOOD.replace(old, new), "x.vmdk", 512)
    assert (caught.value.structure, caught.value.offset) == ("descriptor", 512)


@pytest.mark.parametrize("encoding", [b"punycode", b"zlib", b"utf-7", b"idna", b"no-such", b"unicode_escape"])
def test_odd_encodings_are_not_asked_for(encoding: bytes) -> None:
    text = GOOD.replace(b"CID=", b'encoding="%s"\nCID=' % encoding, 1)
    assert parse(text, "x", 0).extents[0].name == "x"


def test_number_of_extents_is_bounded() -> None:
    with pytest.raises(CorruptImageError, match="65537 extents"):
        parse(descriptor(["RW 1 ZERO"] * 65537), "x", 0)


@pytest.mark.parametrize(
    ("head", "score"),
    [
        (b"KDMV\1\0\0\0", 100),
        (b"KDMV\x09\0\0\0", 60),
        (b"# Disk DescriptorFile\nversion=1", 95),
        (b"\n  # disk descriptorfile\n", 95),
        (b"\xbe\xba\xfe\xca\0\0\0\0\1", 90),
        (b"\xca\xfe\xba\xbe\0\0\0\0", 0),  # a Java class
        (b"COWD\1\0\0\0", 60),
        (b"", 0),
    ],
)
def test_probe_knows_the_four_kinds(head: bytes, score: int) -> None:
    assert FORMAT.probe(Probe(head, b"", "x", 512)) == score
    assert FORMAT.probe(Probe(head, b"", "x.vmdk", 512)) == max(score, 10)


# Extents.


def test_disk_of_many_extents() -> None:
    dice = random.Random(1)
    flat, part = dice.randbytes(20 * 512), dice.randbytes(GRAIN)
    files: dict[str, bytes | bytearray] = {
        "disk.vmdk": descriptor(
            ["RW 3 ZERO", 'RW 10 FLAT "a flat" 5', 'RW 128 SPARSE "s.vmdk"', 'RDONLY 5 VMFS "a flat"']
        ),
        "a flat": flat,
        "s.vmdk": image_of(part),
    }
    wanted = bytes(3 * 512) + flat[5 * 512 : 15 * 512] + part + flat[: 5 * 512]
    with opened(files, "disk.vmdk") as image:
        assert image.size == len(wanted) == 146 * 512
        assert image.pread(image.size, 0) == wanted
        for _ in range(50):
            first = dice.randrange(len(wanted))
            length = dice.randrange(len(wanted) - first) + 1
            assert image.pread(length, first) == wanted[first : first + length]
        assert [extent.kind for extent in image.extents()] == [ExtentKind.ZERO, ExtentKind.DATA]
        assert image.origins == ("disk.vmdk", "a flat", "s.vmdk")
        assert list(image.verify(Depth.STRUCTURE, lambda _: None)) == []
        assert image.info()["stored_size"] == len(files["disk.vmdk"]) + 2 * len(flat) + len(files["s.vmdk"])


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "sub/x", "sub\\x", "C:\\x", "..", "."])
def test_extent_outside_the_folder_is_refused(name: str) -> None:
    def resolve(names: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        raise AssertionError(f"{names} was asked for")

    storage = MemoryStorage(descriptor([f'RW 1 FLAT "{name}" 0']))
    with pytest.raises(UnsupportedFeatureError, match="no plain file name") as caught:
        FORMAT.open(storage, resolve_parent=resolve)
    assert caught.value.feature == "extent in another folder"


@pytest.mark.parametrize("line", ['NOACCESS 1 FLAT "x" 0', 'RW 1 VMFSSPARSE "x"', 'RW 1 VMFSRDM "x"'])
def test_extents_of_other_kinds_are_unsupported(line: str) -> None:
    with pytest.raises(UnsupportedFeatureError):
        opened({"disk": descriptor([line]), "x": bytes(512)}, "disk")


def test_old_sparse_extent_is_unsupported() -> None:
    with pytest.raises(UnsupportedFeatureError, match="COWD"):
        FORMAT.open(MemoryStorage(b"COWD" + bytes(2044)))


def test_missing_and_short_extents_are_named() -> None:
    text = descriptor(['RW 4 FLAT "x" 2'])
    with pytest.raises(ImageNotFoundError):
        opened({"disk": text}, "disk")
    with pytest.raises(ParentMismatchError, match="names its extent 'x'"):
        FORMAT.open(MemoryStorage(text, "disk"))
    files: dict[str, bytes | bytearray] = {"disk": text, "x": b"\1" * 5 * 512}
    with pytest.raises(CorruptImageError, match="it has 2560 bytes, the descriptor wants 2048 at 1024"):
        opened(files, "disk")
    with opened(files, "disk", recover=True) as image:
        assert image.pread(3 * 512, 0) == b"\1" * 3 * 512
        assert list(image.extents())[1:] == [Extent(3 * 512, 512, ExtentKind.UNREADABLE)]
        assert image.info()["complete"] is False
        assert list(image.verify(Depth.STRUCTURE, lambda _: None))
        with pytest.raises(DeviceReadError):
            image.pread(512, 3 * 512)


def test_part_of_a_disk_is_no_disk() -> None:
    image = image_of(b"\1" * MIB)
    struct.pack_into("<QQ", image, 28, 0, 0)  # no descriptor
    with pytest.raises(CorruptImageError, match="a part of a disk: it has no descriptor"):
        FORMAT.open(MemoryStorage(image))
    with FORMAT.open(MemoryStorage(image), recover=True) as reader:
        assert reader.pread(MIB, 0) == b"\1" * MIB
        assert reader.info()["complete"] is False


def test_size_of_extent_and_descriptor_must_agree() -> None:
    image = image_of(b"\1" * (MIB + 512))
    struct.pack_into("<Q", image, 12, (MIB + GRAIN) // 512)  # the rest of the grain may be left out
    with FORMAT.open(MemoryStorage(image)) as reader:
        assert reader.size == MIB + 512
    for sectors in (MIB // 512, (MIB + GRAIN) // 512 + 1):
        struct.pack_into("<Q", image, 12, sectors)
        with pytest.raises(CorruptImageError, match="the descriptor says 1049088"):
            FORMAT.open(MemoryStorage(image))


# Space-efficient extents.


def test_space_efficient_extent_is_read() -> None:
    dice = random.Random(3)
    size = 40 * MIB
    grains = {n: dice.randbytes(4096) for n in (0, 1, 4095, 4096, 10239)}
    files: dict[str, bytes | bytearray] = {
        "disk.vmdk": descriptor([f'RW {size // 512} SESPARSE "s"']),
        "s": space_efficient(grains, size=size, zero=(5,)),
    }
    wanted = bytearray(size)
    for number, data in grains.items():
        wanted[number * 4096 : number * 4096 + 4096] = data
    with opened(files, "disk.vmdk") as image:
        assert image.pread(size, 0) == wanted
        kept = [extent for extent in image.extents() if extent.kind is ExtentKind.DATA]
        assert kept == [Extent(0, 8192), Extent(4095 * 4096, 8192), Extent(10239 * 4096, 4096)]


def test_zero_grain_of_a_space_efficient_child_hides_the_parent() -> None:
    files: dict[str, bytes | bytearray] = {
        "parent.vmdk": image_of(b"\1" * MIB, VmdkOptions(cid=0x77)),
        "child.vmdk": descriptor(
            ['RW 2048 SESPARSE "s"'], parent="00000077", more='parentFileNameHint="parent.vmdk"'
        ),
        "s": space_efficient({3: b"\2" * 4096}, size=MIB, zero=(1,)),
    }
    with opened(files, "child.vmdk") as image:
        assert image.pread(5 * 4096, 0) == b"".join(bytes([n]) * 4096 for n in (1, 0, 1, 2, 1))
        assert [e.length for e in image.extents(0, 4 * 4096) if e.kind is ExtentKind.ZERO] == [4096]


def test_space_efficient_extent_with_a_journal_is_refused() -> None:
    data = bytearray(space_efficient({0: b"\1"}, size=MIB))
    struct.pack_into("<Q", data, 512 + 24, 1)
    files: dict[str, bytes | bytearray] = {"disk": descriptor(['RW 2048 SESPARSE "s"']), "s": data}
    with pytest.raises(UnsupportedFeatureError, match="journal"):
        opened(files, "disk")
    with opened(files, "disk", recover=True) as image:
        assert image.pread(1, 0) == b"\1"
        assert "journal" in image.info()["damage"][0]


# Tables.


def places(image: bytes | bytearray) -> tuple[int, int, int, int]:
    """Bytes of the redundant directory, its first table, the directory, its first table."""
    redundant, directory = (struct.unpack_from("<Q", image, at)[0] * 512 for at in (48, 56))
    first, second = (struct.unpack_from("<I", image, at)[0] * 512 for at in (redundant, directory))
    return redundant, first, directory, second


def test_tables_that_differ_are_damage() -> None:
    image = image_of(random.Random(4).randbytes(MIB))
    _, first, _, second = places(image)
    grain = struct.unpack_from("<I", image, second)[0]
    for table in (first, second):
        changed = bytearray(image)
        struct.pack_into("<I", changed, table, grain + 128)  # another grain's place
        with FORMAT.open(MemoryStorage(changed)) as reader:
            with pytest.raises(CorruptImageError, match=r"its redundant copy at .* differ"):
                reader.pread(1, 0)
            assert list(reader.verify(Depth.STRUCTURE, lambda _: None))


@pytest.mark.parametrize("which", ["directory", "redundant directory", "table", "redundant table"])
def test_sound_copy_is_taken(which: str) -> None:
    data = random.Random(5).randbytes(MIB)
    image = image_of(data)
    redundant, first, directory, second = places(image)
    at = {"directory": directory, "redundant directory": redundant, "table": second, "redundant table": first}
    struct.pack_into("<I", image, at[which], 0x7FFFFFFF)
    with FORMAT.open(MemoryStorage(image)) as reader:
        assert reader.pread(MIB, 0) == data
        assert bool(reader.info()["damage"]) == (which in ("directory", "redundant directory"))


def test_grain_in_two_places_is_found() -> None:
    image = image_of(random.Random(6).randbytes(MIB))
    _, first, _, second = places(image)
    for table in (first, second):
        image[table + 4 : table + 8] = image[table : table + 4]
    with FORMAT.open(MemoryStorage(image)) as reader:
        (finding,) = reader.verify(Depth.STRUCTURE, lambda _: None)
    assert "another grain" in finding.message
    assert finding.extent == Extent(GRAIN, GRAIN)


def test_text_transfer_is_noticed() -> None:
    image = image_of(bytes(MIB))
    image[73:77] = b"\n \n\n"
    with pytest.raises(CorruptImageError, match="transferred as text"):
        FORMAT.open(MemoryStorage(image))


def test_part_of_an_absurd_size_is_refused_at_once() -> None:
    for options in (None, STREAM):
        image = image_of(bytes(MIB), options)
        struct.pack_into("<Q", image, 12, 1 << 52)
        struct.pack_into("<QQ", image, 28, 0, 0)  # no descriptor to hold it against
        for cut in (len(image), len(image) - 512):
            with pytest.raises(CorruptImageError):
                FORMAT.open(MemoryStorage(image[:cut]), recover=True)


def test_extent_in_use_is_reported() -> None:
    image = image_of(b"\1" * MIB)
    image[72] = 1
    with FORMAT.open(MemoryStorage(image)) as reader:
        assert reader.pread(1, 0) == b"\1"
        assert "was not closed" in reader.info()["damage"][0]


@pytest.mark.parametrize(("at", "value"), [(4, 4), (8, 0x80003), (77, 2)])
def test_unknown_versions_flags_and_compressions_are_unsupported(at: int, value: int) -> None:
    image = image_of(bytes(MIB))
    struct.pack_into("<H" if at == 77 else "<I", image, at, value)
    with pytest.raises(UnsupportedFeatureError):
        FORMAT.open(MemoryStorage(image))


# Streams.


def test_stream_that_was_cut_off_is_refused_and_recovered() -> None:
    data = random.Random(7).randbytes(4 * MIB)
    image = image_of(data, STREAM)
    for length in (len(image) - 512, len(image) - 1536, len(image) // 2):
        with pytest.raises(CorruptImageError) as caught:
            FORMAT.open(MemoryStorage(image[:length]))
        assert caught.value.structure == "footer"
    with FORMAT.open(MemoryStorage(image[: len(image) // 2]), recover=True) as reader:
        kept, lost = reader.extents()
        assert (kept.kind, lost.kind) == (ExtentKind.DATA, ExtentKind.UNREADABLE)
        assert 3 * MIB // 2 < kept.length < 5 * MIB // 2
        assert reader.pread(kept.length, 0) == data[: kept.length]
        assert reader.info()["complete"] is False
        with pytest.raises(DeviceReadError):
            reader.pread(1, lost.offset)


def test_grain_of_another_place_is_not_taken() -> None:
    """The tables of a stream are held against the markers of the grains."""
    image = image_of(random.Random(8).randbytes(2 * MIB), STREAM)
    with FORMAT.open(MemoryStorage(image)) as reader:
        directory = reader.disk.backings[0].tables.directories[0]  # type: ignore[attr-defined]
        table = directory[0] * 512
    one, other = image[table : table + 4], image[table + 4 : table + 8]
    image[table : table + 8] = other + one
    with FORMAT.open(MemoryStorage(image)) as reader:
        with pytest.raises(CorruptImageError, match="it is of sector 128, not 0"):
            reader.pread(1, 0)
        assert len(list(reader.verify(Depth.CONTENT, lambda _: None))) == 2


@pytest.mark.parametrize("what", ["dropped", "flipped"])
def test_damage_of_a_stream_is_found_by_its_content(what: str) -> None:
    image = image_of(random.Random(9).randbytes(2 * MIB), STREAM)
    with FORMAT.open(MemoryStorage(image)) as reader:
        table = reader.disk.backings[0].tables.directories[0][0] * 512  # type: ignore[attr-defined]
    if what == "dropped":
        struct.pack_into("<I", image, table + 20, 0)
    else:
        image[MIB] ^= 1
    with FORMAT.open(MemoryStorage(image)) as reader:
        assert list(reader.verify(Depth.STRUCTURE, lambda _: None)) == []
        assert list(reader.verify(Depth.CONTENT, lambda _: None))


def test_header_and_footer_must_agree() -> None:
    image = image_of(bytes(2 * MIB), STREAM)
    struct.pack_into("<Q", image, len(image) - 1024 + 12, MIB // 512)
    with pytest.raises(CorruptImageError, match="capacity is 2048, the header says 4096"):
        FORMAT.open(MemoryStorage(image))


def test_stream_has_markers_tables_and_footer_where_the_note_says() -> None:
    """Read by hand from "Virtual Disk Format 5.0"."""
    image = image_of(b"\1" * 100_000 + bytes(33 * MIB - 100_000 - 512) + b"\2" * 512, STREAM)
    assert image[:4] == b"KDMV"
    assert struct.unpack_from("<II", image, 4) == (3, 0x30001)
    assert struct.unpack_from("<QQQQI", image, 12) == (33 * 2048, 128, 1, 20, 512)
    assert struct.unpack_from("<QQQ", image, 48) == (0, (1 << 64) - 1, 128)
    at, seen = 128 * 512, []
    while at < len(image):
        value, size, kind = struct.unpack_from("<QII", image, at)
        if size:
            seen.append(("grain", value))
            at += -(-(12 + size) // 512) * 512
        else:
            seen.append((("end", "table", "directory", "footer")[kind], value))
            at += 512 + value * 512
    assert seen == [
        ("grain", 0),
        ("grain", 128),
        ("table", 4),
        ("grain", 33 * 2048 - 128),
        ("table", 4),
        ("directory", 1),
        ("footer", 1),
        ("end", 0),
    ]
    footer = image[-1024:-512]
    directory = struct.unpack_from("<Q", footer, 56)[0]
    assert footer[:56] + footer[64:] == image[:56] + image[64:512]
    first, second = struct.unpack_from("<II", image, directory * 512)
    assert struct.unpack_from("<3I", image, first * 512)[0] == 128
    assert struct.unpack_from("<16I", image, second * 512)[15] > first


def test_stream_is_written_by_rising_offset() -> None:
    writer = FORMAT.create(MemoryStorage(), 4 * MIB, options=STREAM)
    assert writer.write_order is WriteOrder.ASCENDING
    writer.pwrite(memoryview(bytes(MIB)), MIB)
    with pytest.raises(UsageError, match="write a stream by rising offset"):
        writer.pwrite(memoryview(bytes(MIB)), 0)
    with pytest.raises(UsageError, match="no whole grains of 65536 bytes"):
        writer.pwrite(memoryview(bytes(512)), 2 * MIB)


# Parents.


def child_of(parent: Path, folder: Path, hint: str, cid: str) -> Path:
    path = folder / "child.vmdk"
    extent = bytearray(image_of(bytes(MIB)))
    struct.pack_into("<QQ", extent, 28, 0, 0)
    (folder / "child-s001.vmdk").write_bytes(extent)
    more = f'parentFileNameHint="{hint}"'
    path.write_bytes(descriptor(['RW 2048 SPARSE "child-s001.vmdk"'], parent=cid, more=more))
    return path


def test_parent_is_known_by_its_content_id(tmp_path: Path) -> None:
    parent = tmp_path / "parent.vmdk"
    source = RawFormat().open(MemoryStorage(b"\5" * MIB))
    save_image(source, parent, options=VmdkOptions(cid=0xABC))
    for hint in ("parent.vmdk", str(parent), "C:\\vms\\parent.vmdk", "..\\elsewhere\\parent.vmdk"):
        child = child_of(parent, tmp_path, hint, "00000abc")
        with open_image(child) as image:
            assert image.pread(MIB, 0) == b"\5" * MIB
            assert image.info()["parents"] == [
                {"identity": "00000abc", "name": hint, "path": image.parent.path}  # type: ignore[attr-defined]
            ]
        assert verify_image(child).ok
    child = child_of(parent, tmp_path, "parent.vmdk", "00000abd")
    with pytest.raises(ParentMismatchError, match="the content 00000abd"):
        open_image(child)
    parent.unlink()
    with pytest.raises(ImageNotFoundError):
        open_image(child)


def test_child_without_a_hint_is_refused(tmp_path: Path) -> None:
    files: dict[str, bytes | bytearray] = {"c": descriptor(["RW 8 ZERO"], parent="00000001")}
    with pytest.raises(ParentMismatchError, match="does not say where that is"):
        opened(files, "c")


def test_descriptor_that_is_its_own_parent_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.vmdk"
    more = 'parentFileNameHint="x.vmdk"'
    path.write_bytes(descriptor(["RW 8 ZERO"], cid="00000001", parent="00000001", more=more))
    with pytest.raises(CorruptImageError, match="its own descendant"):
        open_image(path)
    path.write_bytes(descriptor(['RW 8 FLAT "x.vmdk" 0']))
    with pytest.raises(CorruptImageError, match="its own descendant"):
        open_image(path)


@linux
def test_closing_closes_everything(tmp_path: Path) -> None:
    parent = tmp_path / "parent.vmdk"
    save_image(RawFormat().open(MemoryStorage(b"\5" * MIB)), parent, options=VmdkOptions(cid=0xABC))
    child = child_of(parent, tmp_path, "parent.vmdk", "00000abc")
    before = len(os.listdir("/proc/self/fd"))
    with open_image(child) as image:
        assert image.pread(1, 0) == b"\5"
        assert len(os.listdir("/proc/self/fd")) == before + 3
    assert len(os.listdir("/proc/self/fd")) == before
    parent.unlink()
    with pytest.raises(ImageNotFoundError):
        open_image(child)
    assert len(os.listdir("/proc/self/fd")) == before


# Options.


@pytest.mark.parametrize("kind", ["monolithicSparse", "streamOptimized"])
@pytest.mark.parametrize("size", [0, 1, 513, 1 << 62])
def test_size_that_a_vmdk_cannot_hold_is_refused(kind: str, size: int) -> None:
    with pytest.raises(UsageError, match=f"cannot hold {size} bytes"):
        FORMAT.create(MemoryStorage(), size, options=VmdkOptions(kind=kind))  # type: ignore[arg-type]  # one of two


def test_options_out_of_range_are_refused() -> None:
    for options in (
        VmdkOptions(kind="flat"),  # type: ignore[arg-type]  # on purpose
        VmdkOptions(level=10),
        VmdkOptions(grain_size=4096),
        VmdkOptions(grain_size=96 << 10),
        VmdkOptions(adapter="nvme"),
        VmdkOptions(cid=0xFFFFFFFF),
    ):
        with pytest.raises(UsageError):
            FORMAT.create(MemoryStorage(), MIB, options=options)
    with pytest.raises(UsageError, match="are read, not written"):
        FORMAT.create(MemoryStorage(), MIB, parent=RawFormat().open(MemoryStorage(bytes(MIB))))


@pytest.mark.parametrize("kind", ["monolithicSparse", "streamOptimized"])
def test_same_options_make_the_same_file(kind: str) -> None:
    options = VmdkOptions(kind=kind, cid=1)  # type: ignore[arg-type]  # one of two
    data = random.Random(1).randbytes(3 * MIB)
    assert image_of(data, options) == image_of(data, options)


def test_name_that_a_descriptor_cannot_hold_is_replaced() -> None:
    image = image_of(bytes(MIB), name='/x/a "quoted"\nname.vmdk')
    with FORMAT.open(MemoryStorage(image)) as reader:
        assert reader.disk.descriptor is not None
        assert reader.disk.descriptor.extents[0].name == "disk.vmdk"


def test_tables_leave_memory_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """More tables than are kept: each is written out and read again."""
    monkeypatch.setattr("vsssnap.formats.vmdk.sparse._KEPT", 2)
    size = 6 * 4 * MIB  # a table speaks of 4 MiB
    storage = MemoryStorage()
    writer = FORMAT.create(storage, size, options=VmdkOptions(grain_size=8192))
    model = bytearray(size)
    dice = random.Random(2)
    for _ in range(60):
        at = dice.randrange(size // 4096) * 4096
        data = dice.randbytes(dice.choice([100, 4096, 20000]))[: size - at]
        writer.pwrite(memoryview(data), at)
        model[at : at + len(data)] = data
    writer.mark(Extent(MIB, 9 * MIB, ExtentKind.HOLE))
    model[MIB : 10 * MIB] = bytes(9 * MIB)
    writer.finish(NOTHING)
    with FORMAT.open(storage) as reader:
        assert reader.pread(size, 0) == model
        assert list(reader.verify(Depth.STRUCTURE, lambda _: None)) == []


def test_sidecar_is_written_by_option(tmp_path: Path) -> None:
    source = RawFormat().open(MemoryStorage(random.Random(1).randbytes(MIB)))
    save_image(source, tmp_path / "x.vmdk", options=VmdkOptions(sidecar=True))
    report = verify_image(tmp_path / "x.vmdk")
    assert report.ok
    assert (report.sidecar, report.depth) == (True, Depth.CONTENT)
    with open(tmp_path / "x.vmdk", "r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"12345")
    assert not verify_image(tmp_path / "x.vmdk").ok
