"""VHD images: sizes, footers, options, parents."""

from __future__ import annotations

import os
import random
import struct
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vsssnap import Extent, ExtentKind, ImageMetadata, create_image, open_image, save_image, verify_image
from vsssnap.errors import (
    CorruptImageError,
    ImageNotFoundError,
    ParentMismatchError,
    UnsupportedFeatureError,
    UsageError,
)
from vsssnap.formats import FileStorage, ImageReader, MemoryStorage, Probe
from vsssnap.formats._parents import spellings
from vsssnap.formats.base import WriteOrder
from vsssnap.formats.raw import RawFormat
from vsssnap.formats.vhd import VhdFormat, VhdOptions
from vsssnap.formats.vhd.geometry import geometry_of
from vsssnap.formats.vhd.reader import VhdReader
from vsssnap.testing import check_format

MIB = 1 << 20
FORMAT = VhdFormat()
NOTHING = ImageMetadata()
linux = pytest.mark.posix("it looks at what Linux tells of files")
FIXED_TIME = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def checksum(data: bytes | bytearray, at: int) -> bytes:
    """By the specification's words: the ones' complement of the sum of all bytes but the field's."""
    total = sum(byte for place, byte in enumerate(data) if not at <= place < at + 4)
    return struct.pack(">I", ~total & 0xFFFFFFFF)


def image_of(
    data: bytes, options: VhdOptions | None = None, *, parent: ImageReader | None = None, name: str = "memory"
) -> bytearray:
    storage = MemoryStorage(name=name)
    writer = FORMAT.create(storage, len(data), options=options, parent=parent)
    for at in range(0, len(data), writer.unit):
        writer.pwrite(memoryview(data)[at : at + writer.unit], at)
    writer.finish(NOTHING)
    writer.close()
    return storage.data


def with_footer(image: bytearray, at: int, **fields: bytes) -> None:
    """Change fields of a footer and make its checksum right again."""
    places = {"creator": 28, "original": 40, "current": 48, "geometry": 56, "type": 60, "version": 12}
    for name, value in fields.items():
        image[at + places[name] : at + places[name] + len(value)] = value
    image[at + 64 : at + 68] = checksum(image[at : at + 512], 64)


@pytest.mark.parametrize(
    "options", [VhdOptions(kind="fixed"), VhdOptions(block_size=512 << 10)], ids=["fixed", "small"]
)
def test_contract_is_kept(options: VhdOptions) -> None:
    check_format(FORMAT, options=[options])


# Sizes.


@pytest.mark.parametrize("size", [0, 1, 511, 513, (2040 << 30) + 512, 1 << 62])
def test_size_that_a_vhd_cannot_hold_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"cannot hold {size} bytes: it takes 512 to 2190433320960"):
        FORMAT.create(MemoryStorage(), size)


@pytest.mark.parametrize(
    ("size", "geometry"),
    [
        # By hand from the appendix of the specification, and as Hyper-V and QEMU wrote them.
        (104_448, (3, 4, 17)),
        (4 << 20, (120, 4, 17)),
        (10 << 20, (301, 4, 17)),
        (3 << 30, (6241, 16, 63)),
        (127 << 30, (65278, 16, 255)),
        (2040 << 30, (65535, 16, 255)),
    ],
)
def test_geometry_is_that_of_the_specification(size: int, geometry: tuple[int, int, int]) -> None:
    assert geometry_of(size) == geometry


CHS = struct.pack(">HBB", 300, 4, 17)  # 20400 sectors


@pytest.mark.parametrize(
    ("creator", "geometry", "sectors"),
    [
        (b"vpc ", CHS, 20400),
        (b"qemu", CHS, 20400),
        (b"win ", CHS, 20480),
        (b"qem2", CHS, 20480),
        (b"d2v ", CHS, 20480),
        (b"tap\0", CHS, 20480),
        (b"abcd", CHS, 20480),
        (b"vpc ", struct.pack(">HBB", 65535, 16, 255), 20480),  # the largest geometry says nothing
        (b"vpc ", struct.pack(">HBB", 400, 4, 17), 20480),  # more than there is
        (b"vpc ", bytes(4), 20480),
    ],
)
@pytest.mark.parametrize("kind", ["fixed", "dynamic"])
def test_creator_decides_which_size_counts(kind: str, creator: bytes, geometry: bytes, sectors: int) -> None:
    image = image_of(bytes(10 * MIB), VhdOptions(kind=kind))  # type: ignore[arg-type]  # one of the two
    with_footer(image, len(image) - 512, creator=creator, geometry=geometry)
    with FORMAT.open(MemoryStorage(image)) as reader:
        assert reader.size == sectors * 512


# Footers.


def test_footer_is_that_of_the_specification() -> None:
    identity = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
    image = image_of(bytes(3 * MIB), VhdOptions(identity=identity, created=FIXED_TIME))
    footer = image[-512:]
    seconds = int((FIXED_TIME - datetime(2000, 1, 1, tzinfo=UTC)).total_seconds())
    assert footer == image[:512]
    assert footer[:24] == b"conectix" + struct.pack(">IIQ", 2, 0x10000, 512)
    assert footer[24:28] == struct.pack(">I", seconds)
    assert footer[40:56] == struct.pack(">QQ", 3 * MIB, 3 * MIB)
    assert footer[60:64] == struct.pack(">I", 3)
    assert footer[64:68] == checksum(footer, 64)
    assert footer[68:84] == identity.bytes
    assert footer[84:] == bytes(428)
    header = image[512:1536]
    assert header[:36] == b"cxsparse" + struct.pack(">QQIII", (1 << 64) - 1, 1536, 0x10000, 2, 2 * MIB)
    assert header[36:40] == checksum(header, 36)


def test_same_options_make_the_same_file() -> None:
    options = VhdOptions(identity=uuid.UUID(int=7), created=FIXED_TIME)
    data = random.Random(1).randbytes(3 * MIB)
    assert image_of(data, options) == image_of(data, options)


@pytest.mark.parametrize("place", [0, 28, 64, 100, 511])
def test_copy_is_used_where_the_footer_is_damaged(place: int) -> None:
    data = random.Random(2).randbytes(MIB)
    image = image_of(data)
    image[len(image) - 512 + place] ^= 1
    with FORMAT.open(MemoryStorage(image)) as reader:
        assert reader.pread(MIB, 0) == data
        (damage,) = reader.info()["damage"]
        assert "its copy at 0 is used" in damage
        assert reader.info()["complete"] is True
        assert [finding.offset for finding in reader.verify(reader.depths()[0], lambda _: None)] == [
            len(image) - 512
        ]


def test_damaged_copy_is_reported() -> None:
    image = image_of(bytes(MIB))
    image[100] ^= 1
    with FORMAT.open(MemoryStorage(image)) as reader:
        findings = list(reader.verify(reader.depths()[0], lambda _: None))
    assert [(finding.structure, finding.offset) for finding in findings] == [("footer", 0)]


def test_fixed_image_has_no_copy() -> None:
    image = image_of(b"\1" * MIB, VhdOptions(kind="fixed"))
    image[-400] ^= 1
    with pytest.raises(CorruptImageError, match="the checksum is wrong") as caught:
        FORMAT.open(MemoryStorage(image))
    assert (caught.value.structure, caught.value.offset) == ("footer", MIB)
    with FORMAT.open(MemoryStorage(image), recover=True) as reader:
        assert reader.pread(MIB, 0) == b"\1" * MIB


def test_footer_of_511_bytes_is_read() -> None:
    """Virtual PC before 2004 wrote those."""
    data = random.Random(3).randbytes(MIB)
    for kind in ("fixed", "dynamic"):
        image = image_of(data, VhdOptions(kind=kind))
        with FORMAT.open(MemoryStorage(image[:-1])) as reader:
            assert reader.pread(MIB, 0) == data
            assert reader.info()["damage"] == []
        assert FORMAT.probe(Probe(bytes(image[:512]), bytes(image[-1000:-1]), "x", len(image) - 1)) >= 90


def test_wrong_checksum_of_the_header_is_refused_and_recovered() -> None:
    image = image_of(b"\1" * MIB)
    image[512 + 36] ^= 1
    with pytest.raises(CorruptImageError, match="dynamic disk header: the checksum is wrong"):
        FORMAT.open(MemoryStorage(image))
    with FORMAT.open(MemoryStorage(image), recover=True) as reader:
        assert reader.pread(MIB, 0) == b"\1" * MIB


@pytest.mark.parametrize(
    ("field", "value"), [("type", struct.pack(">I", 5)), ("version", struct.pack(">I", 0x20000))]
)
def test_unknown_kind_is_unsupported(field: str, value: bytes) -> None:
    image = image_of(bytes(MIB), VhdOptions(kind="fixed"))
    with_footer(image, MIB, **{field: value})
    with pytest.raises(UnsupportedFeatureError):
        FORMAT.open(MemoryStorage(image))


def test_incomplete_image_of_a_disk_that_ends_in_a_footer_is_refused() -> None:
    """The volume's last sector may be the footer of a VHD that was copied to it whole."""
    inner = image_of(random.Random(4).randbytes(MIB), VhdOptions(kind="fixed"))
    for kind in ("fixed", "dynamic"):
        storage = MemoryStorage()
        writer = FORMAT.create(storage, len(inner), options=VhdOptions(kind=kind))
        writer.pwrite(memoryview(bytes(inner)), 0)
        writer.close()
        with pytest.raises(CorruptImageError):
            FORMAT.open(storage)


# The table.


def entries(image: bytes | bytearray, count: int) -> list[int]:
    return list(struct.unpack_from(f">{count}I", image, 1536))


@pytest.mark.parametrize(
    "entry", [0, 1, 3, 0x7FFFFFFF, 0xFFFFFFFE], ids=["footer", "header", "table", "far", "farthest"]
)
def test_block_outside_its_place_is_refused(entry: int) -> None:
    image = image_of(b"\1" * 5 * MIB)
    struct.pack_into(">I", image, 1536 + 4, entry)
    with pytest.raises(CorruptImageError):
        FORMAT.open(MemoryStorage(image))


def test_blocks_over_one_another_are_refused() -> None:
    image = image_of(b"\1" * 5 * MIB)
    first, second, _ = entries(image, 3)
    for wrong in (first, first + 1, first + 2000, second - 8):
        struct.pack_into(">I", image, 1536 + 4, wrong)
        if wrong == second - 8:  # bytes between blocks are no block's
            continue
        with pytest.raises(CorruptImageError, match="lie over one another"):
            FORMAT.open(MemoryStorage(image))


def test_truncated_image_is_recovered_up_to_its_end() -> None:
    data = random.Random(5).randbytes(6 * MIB)
    image = image_of(data)
    cut = entries(image, 3)[2] * 512 + 512 + MIB  # in the middle of the last block
    with pytest.raises(CorruptImageError):
        FORMAT.open(MemoryStorage(image[:cut]))
    with FORMAT.open(MemoryStorage(image[:cut]), recover=True) as reader:
        assert list(reader.extents()) == [
            Extent(0, 5 * MIB),
            Extent(5 * MIB, MIB, ExtentKind.UNREADABLE),
        ]
        assert reader.pread(5 * MIB, 0) == data[: 5 * MIB]
        assert reader.info()["complete"] is False
        assert [finding.extent for finding in reader.verify(reader.depths()[0], lambda _: None)][1:] == [
            Extent(4 * MIB, 2 * MIB)
        ]


def test_sector_without_its_bit_is_zero() -> None:
    image = image_of(b"\1" * MIB)
    place = entries(image, 1)[0] * 512
    image[place + 3] = 0b1011_1111
    with FORMAT.open(MemoryStorage(image)) as reader:
        sector = 3 * 8 + 1
        wanted = b"\1" * sector * 512 + bytes(512) + b"\1" * (MIB - (sector + 1) * 512)
        assert reader.pread(MIB, 0) == wanted
        assert list(reader.extents(sector * 512 - 5, 520)) == [
            Extent(sector * 512 - 5, 5),
            Extent(sector * 512, 512, ExtentKind.ZERO),
            Extent(sector * 512 + 512, 3),
        ]


def test_full_disk_of_small_blocks_fits_below_the_last_sector() -> None:
    """4 194 304 blocks, each with its bitmap, end before sector 2**32."""
    writer = FORMAT.create(MemoryStorage(), 2040 << 30, options=VhdOptions(block_size=512 << 10))
    count = (2040 << 30) // (512 << 10)
    assert writer._next + count * writer._stride <= 512 << 32  # type: ignore[attr-defined]
    writer.close()


# Options.


def test_options_that_do_not_go_together_are_refused() -> None:
    for options, match in (
        (VhdOptions(kind="sparse"), "kind is 'sparse'"),  # type: ignore[arg-type]  # on purpose
        (VhdOptions(block_size=MIB), "a VHD has 512 KiB or 2 MiB"),
        (VhdOptions(preallocate=True), "only a fixed VHD"),
        (VhdOptions(created=datetime(2024, 1, 1)), "no time zone"),
    ):
        with pytest.raises(UsageError, match=match):
            FORMAT.create(MemoryStorage(), MIB, options=options)


@linux
def test_fixed_image_can_be_preallocated(tmp_path: Path) -> None:
    path = tmp_path / "x.vhd"
    create_image(path, MIB, options=VhdOptions(kind="fixed", preallocate=True)).finish()
    assert path.stat().st_blocks * 512 >= MIB


class Stream(MemoryStorage):
    """Takes bytes in order only."""

    seekable = False


def test_pipe_gets_a_fixed_image() -> None:
    storage = Stream()
    writer = FORMAT.create(storage, MIB)
    assert writer.write_order is WriteOrder.ASCENDING
    writer.pwrite(memoryview(b"\1" * 65536), 65536)
    writer.finish(NOTHING)
    assert storage.data[:-512] == bytes(65536) + b"\1" * 65536 + bytes(MIB - 131072)
    with pytest.raises(UsageError, match="cannot go to a pipe"):
        FORMAT.create(Stream(), MIB, options=VhdOptions(kind="dynamic"))


def test_sidecar_is_written_by_option(tmp_path: Path) -> None:
    source = RawFormat().open(MemoryStorage(b"\1" * MIB))
    save_image(source, tmp_path / "x.vhd", options=VhdOptions(sidecar=True))
    report = verify_image(tmp_path / "x.vhd")
    assert report.ok
    assert report.sidecar
    with open(tmp_path / "x.vhd", "r+b") as file:
        file.seek(9000)
        file.write(b"\2")
    assert not verify_image(tmp_path / "x.vhd").ok


def test_data_that_is_no_whole_sectors_is_refused() -> None:
    writer = FORMAT.create(MemoryStorage(), MIB)
    with pytest.raises(UsageError, match="5 bytes at 512 are no whole sectors"):
        writer.pwrite(memoryview(b"12345"), 512)


# Parents.


def resolver(files: dict[str, bytearray]) -> object:
    def resolve(names: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        assert format == "vhd"
        for name in names:
            bare = os.path.basename(name)
            if bare in files:
                storage = MemoryStorage(files[bare], bare)
                return FORMAT.open(storage, resolve_parent=resolver(files))  # type: ignore[arg-type]
        raise ImageNotFoundError("not there")

    return resolve


def test_child_keeps_only_what_differs() -> None:
    data = bytearray(random.Random(6).randbytes(8 * MIB))
    files = {"parent.vhd": image_of(bytes(data))}
    with FORMAT.open(MemoryStorage(files["parent.vhd"], "parent.vhd")) as parent:
        data[5 * MIB : 5 * MIB + 100] = b"\7" * 100
        data[6 * MIB : 7 * MIB] = bytes(MIB)
        child = image_of(bytes(data), parent=parent, name="child.vhd")
        identity = parent.identity.hex()
    assert len(child) < 5 * MIB
    with FORMAT.open(MemoryStorage(child), resolve_parent=resolver(files)) as reader:  # type: ignore[arg-type]
        assert reader.pread(8 * MIB, 0) == data
        assert reader.info()["kind"] == "differencing"
        (parents,) = reader.info()["parents"]
        assert (parents["identity"], parents["relative"]) == (identity, ".\\parent.vhd")
        assert reader.info()["stored_blocks"] == 2
        assert reader.origins[1:] == ("parent.vhd",)
        with pytest.raises(ParentMismatchError, match="there is no way to open it"):
            FORMAT.open(MemoryStorage(child))


def test_what_is_neither_stored_nor_marked_is_as_in_the_parent() -> None:
    files = {"parent.vhd": image_of(b"\1" * 5 * MIB)}
    child = MemoryStorage(name="child.vhd")
    with FORMAT.open(MemoryStorage(files["parent.vhd"], "parent.vhd")) as parent:
        writer = FORMAT.create(child, 5 * MIB, parent=parent)
        writer.pwrite(memoryview(b"\1" * MIB), MIB)  # as the parent has it
        writer.mark(Extent(3 * MIB + 100, 1000, ExtentKind.HOLE))
        writer.finish(NOTHING)
    with FORMAT.open(child, resolve_parent=resolver(files)) as reader:  # type: ignore[arg-type]
        wanted = bytearray(b"\1" * 5 * MIB)
        wanted[3 * MIB + 100 : 3 * MIB + 1100] = bytes(1000)
        assert reader.pread(5 * MIB, 0) == wanted
        assert reader.info()["stored_blocks"] == 1


def test_a_list_of_changes_is_believed(tmp_path: Path) -> None:
    """What it does not name is as in the parent, whatever the source has there."""
    data = bytearray(random.Random(4).randbytes(6 * MIB))
    (tmp_path / "old.raw").write_bytes(data)
    with open_image(tmp_path / "old.raw") as source:
        save_image(source, tmp_path / "base.vhd")
    data[3 * MIB + 700] ^= 1
    (tmp_path / "new.raw").write_bytes(data)
    with open_image(tmp_path / "base.vhd") as parent, open_image(tmp_path / "new.raw") as source:
        changes = [Extent(3 * MIB + 512, 512)]
        save_image(source, tmp_path / "child.vhd", parent=parent, changes=changes)
    with open_image(tmp_path / "child.vhd") as reader:
        assert reader.pread(len(data), 0) == data


def make_chain(folder: Path) -> tuple[Path, Path]:
    parent, child = folder / "parent.vhd", folder / "child.vhd"
    save_image(RawFormat().open(MemoryStorage(b"\1" * MIB)), parent)
    with open_image(parent) as below:
        save_image(RawFormat().open(MemoryStorage(b"\2" * MIB)), child, parent=below)
    return parent, child


def test_parent_is_found_relative_to_the_child(tmp_path: Path) -> None:
    (tmp_path / "one" / "deep").mkdir(parents=True)
    (tmp_path / "two").mkdir()
    below, above = tmp_path / "one" / "deep" / "p.vhd", tmp_path / "two" / "c.vhd"
    save_image(RawFormat().open(MemoryStorage(b"\1" * MIB)), below)
    with open_image(below) as parent:
        save_image(RawFormat().open(MemoryStorage(b"\1" * MIB)), above, parent=parent)
    moved = tmp_path / "moved"
    moved.mkdir()
    (tmp_path / "one").rename(moved / "one")
    (tmp_path / "two").rename(moved / "two")
    with open_image(moved / "two" / "c.vhd") as reader:
        assert reader.pread(4, 0) == b"\1" * 4
        assert isinstance(reader, VhdReader)
        assert reader.parent is not None
        assert os.path.realpath(reader.parent.path) == str(moved / "one" / "deep" / "p.vhd")


def test_parent_is_found_by_its_absolute_path(tmp_path: Path) -> None:
    _, child = make_chain(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    child = child.rename(tmp_path / "elsewhere" / "child.vhd")
    with open_image(child) as reader:
        assert reader.pread(4, 0) == b"\2" * 4


def test_another_image_of_the_parents_name_is_no_parent(tmp_path: Path) -> None:
    parent, child = make_chain(tmp_path)
    save_image(RawFormat().open(MemoryStorage(b"\1" * MIB)), parent, replace=True)
    with pytest.raises(ParentMismatchError):
        open_image(child)


def test_right_parent_is_taken_though_another_has_the_likelier_name(tmp_path: Path) -> None:
    parent, child = make_chain(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    child = child.rename(tmp_path / "elsewhere" / "child.vhd")
    save_image(RawFormat().open(MemoryStorage(b"\1" * MIB)), tmp_path / "elsewhere" / "parent.vhd")
    with open_image(child) as reader:
        assert isinstance(reader, VhdReader)
        assert reader.parent is not None
        assert reader.parent.path == str(parent)


def test_missing_parent_is_named(tmp_path: Path) -> None:
    parent, child = make_chain(tmp_path)
    parent.unlink()
    with pytest.raises(ImageNotFoundError, match=r"parent\.vhd"):
        open_image(child)


def test_image_that_is_its_own_parent_is_refused(tmp_path: Path) -> None:
    parent, child = make_chain(tmp_path)
    data = bytearray(child.read_bytes())
    data[512 + 40 : 512 + 56] = data[68:84]  # its own identity
    data[512 + 36 : 512 + 40] = checksum(data[512:1536], 36)
    child.write_bytes(data)
    parent.unlink()
    child.rename(parent)
    with pytest.raises(CorruptImageError, match="its own descendant"):
        open_image(parent)


def test_paths_are_tried_as_this_system_spells_them() -> None:
    found = spellings(".\\sub\\p.vhd", "C:\\vm\\p.vhd", "C:\\vm\\p.vhd")
    if os.sep == "/":
        assert found == ["sub/p.vhd", ".\\sub\\p.vhd", "C:\\vm\\p.vhd", "p.vhd"]
    else:
        assert found == ["sub\\p.vhd", "C:\\vm\\p.vhd", "p.vhd"]


def test_parent_of_another_format_or_size_is_refused() -> None:
    with pytest.raises(UsageError, match="a raw image cannot be the parent"):
        FORMAT.create(MemoryStorage(), MIB, parent=RawFormat().open(MemoryStorage(bytes(MIB))))
    with FORMAT.open(MemoryStorage(image_of(bytes(2 * MIB)))) as parent:
        with pytest.raises(UsageError, match="the volume has 1048576 bytes, the parent 2097152"):
            FORMAT.create(MemoryStorage(), MIB, parent=parent)
        with pytest.raises(UsageError, match="is differencing, not fixed"):
            FORMAT.create(MemoryStorage(), 2 * MIB, parent=parent, options=VhdOptions(kind="fixed"))


@linux
def test_closing_closes_the_parent(tmp_path: Path) -> None:
    _, child = make_chain(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    with open_image(child) as reader:
        assert reader.pread(1, 0) == b"\2"
        assert len(os.listdir("/proc/self/fd")) == before + 2
    assert len(os.listdir("/proc/self/fd")) == before
    storage = FileStorage(os.open(child, os.O_RDONLY))
    with pytest.raises(ParentMismatchError):
        FORMAT.open(storage)
    assert len(os.listdir("/proc/self/fd")) == before


def test_fixed_image_is_known_whatever_its_volume_looks_like(tmp_path: Path) -> None:
    """Its first sector may be written by whoever may write the volume."""
    for head in (b"KDMV\1\0\0\0", b"# Disk DescriptorFile\nversion=1\n", b"QFI\xfb\0\0\0\3", b"vhdxfile"):
        data = head.ljust(MIB, b"\0")
        path = tmp_path / "disk.vhd"
        source = RawFormat().open(MemoryStorage(data))
        save_image(source, path, options=VhdOptions(kind="fixed"), replace=True)
        with open_image(path) as image:
            assert (image.format, image.pread(MIB, 0)) == ("vhd", data)
