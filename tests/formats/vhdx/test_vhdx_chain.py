"""Differencing VHDX images: what is stored, what shows through, and which parent is the right one."""

from __future__ import annotations

import ntpath
import random
import shutil
import struct
import threading
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest

from vhdx_images import (
    DISK_ID,
    DISK_SIZE,
    FORMAT,
    LOGICAL_SECTOR,
    MIB,
    PARENT_LOCATOR,
    content,
    map_of,
    opened,
    set_header,
    write,
)
from vsssnap import create_image, open_image, save_image
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import (
    CorruptImageError,
    ImageError,
    ImageNotFoundError,
    ParentMismatchError,
    UnsupportedFeatureError,
    UsageError,
)
from vsssnap.formats import MemoryStorage
from vsssnap.formats.base import Depth
from vsssnap.formats.vhdx import VhdxOptions
from vsssnap.formats.vhdx import locator as locator_module
from vsssnap.formats.vhdx.locator import parse, paths_to
from vsssnap.metadata import ImageMetadata
from vsssnap.testing import check_reader
from vsssnap.testing.powercut import PowerCut

DISK = random.Random(9).randbytes(6 * MIB)
SMALL = VhdxOptions(block_size=2 * MIB)
NOTHING = ImageMetadata()
BASE = write(DISK, SMALL)


def child_of(parent: bytes, disk: bytes | bytearray, options: VhdxOptions = SMALL) -> bytes:
    with opened(parent) as reader:
        return write(disk, options, reader)


def states(data: bytes | bytearray) -> list[int]:
    where = map_of(data)
    return [where.payload(data, n)[0] for n in range(-(-where.size // where.block_size))]


def bits(data: bytes | bytearray, block: int) -> set[int]:
    """The sectors of a block that are in the file, by 2.4: bit 0 of byte 0 is the first sector."""
    where = map_of(data)
    (entry,) = struct.unpack_from("<Q", data, where.bitmap_entry(block))
    assert entry & 0xFFFFF == 6
    count = where.block_size // where.sector
    start = (entry >> 20 << 20) + block % where.ratio * count // 8
    return {n for n in range(count) if data[start + n // 8] >> n % 8 & 1}


def test_only_sectors_that_differ_are_stored() -> None:
    disk = bytearray(DISK)
    for sector in (0, 5, 6, 4095, 4096 + 17):
        disk[sector * 512 + 100] ^= 1
    child = child_of(BASE, disk)

    assert states(child) == [7, 7, 0]
    assert bits(child, 0) == {0, 5, 6, 4095}
    assert bits(child, 1) == {17}
    assert content(child, BASE) == disk


def test_a_block_of_which_all_differs_needs_no_bitmap() -> None:
    disk = bytes(byte ^ 1 for byte in DISK[: 2 * MIB]) + DISK[2 * MIB :]
    child = child_of(BASE, disk)

    assert states(child) == [6, 0, 0]
    assert content(child, BASE) == disk


def test_zeros_over_data_are_told_by_the_state_or_by_bits() -> None:
    disk = bytearray(DISK)
    disk[: 2 * MIB] = bytes(2 * MIB)
    disk[3 * MIB : 3 * MIB + 1024] = bytes(1024)
    child = child_of(BASE, disk)

    assert states(child) == [2, 7, 0]
    assert bits(child, 1) == {2048, 2049}
    assert content(child, BASE) == disk


def test_what_is_neither_stored_nor_marked_is_as_in_the_parent() -> None:
    changed = bytes(byte ^ 1 for byte in DISK)
    for skip in ((0,), (1, 2, 3), (0, 1, 2, 3, 4, 5)):
        with opened(BASE) as parent:
            child = write(changed, SMALL, parent, skip=skip)
        wanted = bytearray(changed)
        for number in skip:
            wanted[number * MIB : (number + 1) * MIB] = DISK[number * MIB : (number + 1) * MIB]
        assert content(child, BASE) == wanted
        with opened(child, BASE) as reader:
            assert not list(reader.verify(Depth.STRUCTURE, lambda _: None))


@pytest.mark.parametrize("kind", [kind for kind in ExtentKind if kind is not ExtentKind.DATA])
def test_what_is_marked_hides_the_parent(kind: ExtentKind) -> None:
    storage = MemoryStorage(name="test.vhdx")
    with opened(BASE) as parent:
        writer = FORMAT.create(storage, len(DISK), options=SMALL, parent=parent)
        writer.mark(Extent(MIB + 100, 3 * MIB, kind))  # neither units nor sectors
        writer.finish(NOTHING)
    wanted = DISK[: MIB + 100] + bytes(3 * MIB) + DISK[4 * MIB + 100 :]
    assert content(storage.data, BASE) == wanted
    hole = kind is ExtentKind.HOLE
    assert states(storage.data) == [7, 3 if hole else 2, 7]
    assert writer.flattened().get("hole", 0) == (MIB if hole else 0)


def test_an_unreadable_parent_is_stored_over(tmp_path: Path) -> None:
    """A side-car says of the parent that a range could not be read."""
    path = tmp_path / "base.vhdx"
    writer = create_image(path, len(DISK), options=VhdxOptions(block_size=2 * MIB, sidecar=True))
    writer.mark(Extent(0, MIB, ExtentKind.UNREADABLE))
    writer.pwrite(memoryview(DISK)[MIB : 2 * MIB], MIB)
    writer.finish()
    (tmp_path / "new.raw").write_bytes(DISK)
    with open_image(path) as parent, open_image(tmp_path / "new.raw") as source:
        save_image(source, tmp_path / "child.vhdx", parent=parent)
    with open_image(tmp_path / "child.vhdx") as reader:
        assert reader.pread(len(DISK), 0) == DISK


def test_extents_of_the_parent_show_through() -> None:
    disk = bytes(2 * MIB) + DISK[: 2 * MIB] + bytes(2 * MIB)
    base = write(disk, VhdxOptions(block_size=MIB))
    changed = bytearray(disk)
    changed[5 * MIB + 512] = 1
    child = child_of(base, changed)

    with opened(child, base) as reader:
        kinds = [(e.offset, e.length) for e in reader.extents() if e.kind is ExtentKind.DATA]
        assert kinds == [(2 * MIB, 2 * MIB), (5 * MIB + 512, 512)]
        assert list(reader.extents(5 * MIB, 600)) == [
            Extent(5 * MIB, 512, ExtentKind.ZERO),
            Extent(5 * MIB + 512, 88),
        ]


@pytest.mark.parametrize("state", [1, 2, 3])
def test_the_parent_does_not_show_through_other_states(state: int) -> None:
    child = bytearray(child_of(BASE, DISK))
    child[map_of(child).entry(1)] = state
    assert content(child, BASE) == DISK[: 2 * MIB] + bytes(2 * MIB) + DISK[4 * MIB :]


def test_bitmap_is_not_looked_at_for_a_fully_present_block() -> None:
    child = bytearray(child_of(BASE, bytes(byte ^ 1 for byte in DISK[:MIB]) + DISK[MIB:]))
    assert states(child)[0] == 7
    child[map_of(child).entry(0)] += 6 - 7
    payload = map_of(child).payload(child, 0)[1]
    assert content(child, BASE)[: 2 * MIB] == child[payload : payload + 2 * MIB]


def test_partial_blocks_without_a_bitmap_are_damage() -> None:
    child = bytearray(child_of(BASE, b"\1" + DISK[1:]))
    where = map_of(child)
    struct.pack_into("<Q", child, where.bitmap_entry(0), 0)
    with opened(child, BASE) as reader:
        with pytest.raises(CorruptImageError, match="without a sector bitmap"):
            reader.pread(1, 0)
        assert reader.pread(10, 4 * MIB) == DISK[4 * MIB : 4 * MIB + 10]
        found = [f.message for f in reader.verify(Depth.STRUCTURE, lambda _: None)]
    assert found == ["partially present blocks have no sector bitmap"]


def test_a_child_knows_its_parent_by_the_data_write_guid() -> None:
    child = child_of(BASE, DISK)
    offset, length = map_of(child).items[PARENT_LOCATOR]
    item = child[offset : offset + length]
    kind, reserved, count = struct.unpack_from("<16sHH", item)
    assert (UUID(bytes_le=kind), reserved) == (UUID("B04AEFB7-D19E-4A81-B789-25B8E9445913"), 0)
    texts = {}
    for number in range(count):
        key, value, key_length, value_length = struct.unpack_from("<IIHH", item, 20 + 12 * number)
        name = item[key : key + key_length].decode("utf-16-le")
        texts[name] = item[value : value + value_length].decode("utf-16-le")
    data_write = UUID(bytes_le=BASE[65536 + 32 : 65536 + 48])
    assert texts["parent_linkage"] == f"{{{data_write}}}"
    assert texts["relative_path"] == ".\\test.vhdx"
    # The disk is the same, so its id is.
    places = [map_of(data).items[DISK_ID][0] for data in (child, BASE)]
    assert child[places[0] : places[0] + 16] == BASE[places[1] : places[1] + 16]


def test_items_of_the_disk_are_taken_over() -> None:
    base = bytearray(BASE)
    where = map_of(base)
    struct.pack_into("<H", base, where.metadata + 10, 7)
    own, files = UUID(int=5), UUID(int=6)
    for number, (guid, flags) in enumerate(((own, 3), (files, 1)), 5):
        at = where.metadata + 32 + number * 32
        struct.pack_into("<16sIIII", base, at, guid.bytes_le, 128 * 1024 + number, 1, flags, 0)
        base[where.metadata + 128 * 1024 + number] = number
    child = child_of(bytes(base), DISK)
    items = map_of(child).items
    assert files not in items
    assert (child[items[own][0]], items[own][1]) == (5, 1)


def test_another_parent_is_refused() -> None:
    child = child_of(BASE, DISK)
    other = write(DISK, SMALL)
    with pytest.raises(ParentMismatchError, match="was made against") as caught:
        opened(child, other)
    assert str(UUID(bytes_le=BASE[65536 + 32 : 65536 + 48])) in str(caught.value)
    with pytest.raises(ParentMismatchError, match="no way to open it"):
        opened(child)


def test_parent_linkage2_is_as_good_and_zeros_are_not() -> None:
    linkage, other = UUID(int=1), UUID(int=2)
    for second, allowed in ((other, {linkage, other}), (UUID(int=0), {linkage})):
        texts = ("parent_linkage", f"{{{linkage}}}", "parent_linkage2", f"{{{second}}}".upper())
        assert parse(locator(*texts)).linkage == allowed


def locator(*texts: str) -> bytes:
    """A parent locator item, by 2.6.2.6."""
    encoded = [text.encode("utf-16-le", "surrogatepass") for text in texts]
    count = len(texts) // 2
    at = 20 + 12 * count
    table, body = b"", b""
    for key, value in zip(encoded[::2], encoded[1::2], strict=True):
        table += struct.pack("<IIHH", at, at + len(key), len(key), len(value))
        body += key + value
        at += len(key) + len(value)
    kind = UUID("B04AEFB7-D19E-4A81-B789-25B8E9445913").bytes_le
    return struct.pack("<16sHH", kind, 0, count) + table + body


def test_bad_locators_are_refused() -> None:
    good = locator("parent_linkage", f"{{{UUID(int=1)}}}", "relative_path", ".\\a.vhdx")
    parse(good)
    for length in range(len(good)):
        with pytest.raises(CorruptImageError):
            parse(good[:length])
    for texts in (
        (),
        ("relative_path", "a.vhdx"),
        ("parent_linkage", "{1}"),
        ("parent_linkage", f"{{{UUID(int=0)}}}"),
        ("parent_linkage", f"{{{UUID(int=1)}}}", "parent_linkage", f"{{{UUID(int=1)}}}"),
    ):
        with pytest.raises(CorruptImageError, match="parent locator"):
            parse(locator(*texts))
    with pytest.raises(UnsupportedFeatureError, match="unknown type"):
        parse(b"\1" + good[1:])


@pytest.mark.posix("about paths away from Windows")
def test_paths_are_tried_in_the_order_of_the_specification() -> None:
    texts = {
        "absolute_win32_path": "\\\\?\\D:\\images\\one.vhdx",
        "volume_path": "\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\images\\two.vhdx",
        "relative_path": "..\\up\\three.vhdx",
        "parent_linkage": f"{{{UUID(int=1)}}}",
    }
    pairs = [text for pair in texts.items() for text in pair]
    assert parse(locator(*pairs)).candidates() == ("../up/three.vhdx", "three.vhdx", "two.vhdx", "one.vhdx")


@pytest.mark.posix("about paths away from Windows")
def test_relative_path_goes_from_the_childs_folder(tmp_path: Path) -> None:
    for parent, child, path in (
        ("a.vhdx", "b.vhdx", ".\\a.vhdx"),
        ("x/a.vhdx", "b.vhdx", ".\\x\\a.vhdx"),
        ("a.vhdx", "x/y/b.vhdx", "..\\..\\a.vhdx"),
        ("..a.vhdx", "b.vhdx", ".\\..a.vhdx"),
    ):
        found = paths_to(str(tmp_path / parent), str(tmp_path / child))
        assert found == {"relative_path": path}


@pytest.fixture
def on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The locator module as it is on Windows."""
    system = SimpleNamespace(path=ntpath, pardir="..", curdir=".", sep="\\")
    monkeypatch.setattr(locator_module, "os", system)
    monkeypatch.setattr(locator_module, "sys", SimpleNamespace(platform="win32"))


@pytest.mark.usefixtures("on_windows")
@pytest.mark.parametrize(
    ("parent", "child", "relative", "absolute"),
    [
        (r"D:\a\base.vhdx", r"D:\a\b\child.vhdx", r"..\base.vhdx", r"\\?\D:\a\base.vhdx"),
        (r"D:\a\base.vhdx", r"D:\a\child.vhdx", r".\base.vhdx", r"\\?\D:\a\base.vhdx"),
        (r"D:\a\base.vhdx", r"E:\child.vhdx", None, r"\\?\D:\a\base.vhdx"),
        (r"\\host\share\base.vhdx", r"E:\child.vhdx", None, r"\\?\UNC\host\share\base.vhdx"),
    ],
)
def test_paths_on_windows(parent: str, child: str, relative: str | None, absolute: str) -> None:
    found = paths_to(parent, child)
    assert (found.get("relative_path"), found["absolute_win32_path"]) == (relative, absolute)


@pytest.mark.usefixtures("on_windows")
def test_paths_are_taken_as_they_are_on_windows() -> None:
    texts = {
        "absolute_win32_path": r"\\?\D:\images\one.vhdx",
        "relative_path": r"..\up\one.vhdx",
        "parent_linkage": f"{{{UUID(int=1)}}}",
    }
    pairs = [text for pair in texts.items() for text in pair]
    found = parse(locator(*pairs)).candidates()
    assert found == (texts["relative_path"], texts["absolute_win32_path"], "one.vhdx")


def save(path: Path, disk: bytes | bytearray, parent: Path | None = None) -> None:
    """Save as users do."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(disk)
    with open_image(raw) as source:
        if parent is None:
            save_image(source, path, options=SMALL)
        else:
            with open_image(parent) as below:
                save_image(source, path, options=SMALL, parent=below)
    raw.unlink()


def test_chain_of_files_follows_names_and_moves(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    one, two = bytearray(DISK), bytearray(DISK)
    one[100] ^= 1
    two[100] ^= 1
    two[5 * MIB] ^= 1
    save(tmp_path / "base.vhdx", DISK)
    save(tmp_path / "sub" / "one.vhdx", one, tmp_path / "base.vhdx")
    save(tmp_path / "two.avhdx", two, tmp_path / "sub" / "one.vhdx")

    with open_image(tmp_path / "two.avhdx") as reader:
        assert reader.pread(reader.size, 0) == two
        assert len(reader.origins) == 3

    # A parent beside its child is found by its name alone, and told by its GUID.
    shutil.move(tmp_path / "base.vhdx", tmp_path / "sub" / "base.vhdx")
    with open_image(tmp_path / "two.avhdx") as reader:
        assert reader.pread(reader.size, 0) == two

    # A wrong one where the path leads does not hide the right one beside.
    save(tmp_path / "base.vhdx", DISK)
    with open_image(tmp_path / "two.avhdx") as reader:
        assert reader.pread(reader.size, 0) == two
    (tmp_path / "sub" / "base.vhdx").unlink()
    with pytest.raises(ParentMismatchError, match="must not be written since"):
        open_image(tmp_path / "two.avhdx")
    (tmp_path / "base.vhdx").unlink()
    with pytest.raises(ImageNotFoundError, match=r"one\.vhdx: its parent is not there"):
        open_image(tmp_path / "two.avhdx")


def test_an_image_that_is_its_own_parent_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "base.vhdx", DISK)
    save(tmp_path / "child.vhdx", DISK, tmp_path / "base.vhdx")
    shutil.copy(tmp_path / "child.vhdx", tmp_path / "base.vhdx")
    with pytest.raises(ParentMismatchError, match="must not be written since"):
        open_image(tmp_path / "child.vhdx")
    (tmp_path / "child.vhdx").replace(tmp_path / "base.vhdx")
    with pytest.raises(CorruptImageError, match="its own descendant"):
        open_image(tmp_path / "base.vhdx")


def test_sector_sizes_of_a_chain_are_the_same() -> None:
    base = write(DISK, VhdxOptions(logical_sector_size=4096, block_size=2 * MIB))
    disk = bytearray(DISK)
    disk[4097] ^= 1
    child = child_of(base, disk)
    assert map_of(child).sector == 4096
    assert bits(child, 0) == {1}
    assert content(child, base) == disk
    with opened(BASE) as parent, pytest.raises(UsageError, match="sectors of 512 bytes, not 4096"):
        FORMAT.create(
            MemoryStorage(), len(DISK), options=VhdxOptions(logical_sector_size=4096), parent=parent
        )


def test_a_child_may_be_longer_or_shorter_than_its_parent_when_read() -> None:
    """As Hyper-V makes them when a disk with checkpoints is resized."""
    child = bytearray(child_of(BASE, DISK))
    place = map_of(child).items[DISK_SIZE][0]
    struct.pack_into("<Q", child, place, 9 * MIB)
    assert content(child, BASE) == DISK + bytes(3 * MIB)
    with opened(child, BASE) as reader:
        assert list(reader.extents(5 * MIB)) == [
            Extent(5 * MIB, MIB),
            Extent(6 * MIB, 3 * MIB, ExtentKind.ZERO),
        ]
    struct.pack_into("<Q", child, place, 3 * MIB)
    assert content(child, BASE) == DISK[: 3 * MIB]


def test_what_a_child_cannot_be_is_refused() -> None:
    with opened(BASE) as parent:
        for size, options, words in (
            (len(DISK) + 512, SMALL, "the parent has 6291456 bytes"),
            (len(DISK), VhdxOptions(fixed=True), "a fixed VHDX has no parent"),
        ):
            with pytest.raises(UsageError, match=words):
                FORMAT.create(MemoryStorage(), size, options=options, parent=parent)
        writer = FORMAT.create(MemoryStorage(), len(DISK), parent=parent)
        with pytest.raises(UsageError, match="no whole sectors of 512 bytes"):
            writer.pwrite(memoryview(bytes(100)), 0)
    damaged = bytearray(BASE)
    for at in (65536, 131072):
        damaged[at : at + 4096] = bytes(4096)
    with opened(damaged, recover=True) as parent, pytest.raises(UsageError, match="is damaged"):
        FORMAT.create(MemoryStorage(), len(DISK), parent=parent)


def test_a_parent_of_other_sectors_is_refused() -> None:
    child = bytearray(child_of(BASE, DISK))
    struct.pack_into("<I", child, map_of(child).items[LOGICAL_SECTOR][0], 4096)
    # The chunk is longer then, and the BAT has room for it.
    with pytest.raises((ParentMismatchError, CorruptImageError)):
        opened(child, BASE)


def test_a_changed_parent_is_noticed() -> None:
    child = child_of(BASE, DISK)
    base = bytearray(BASE)
    set_header(base, "<16s", 32, UUID(int=77).bytes_le)
    with pytest.raises(ParentMismatchError):
        opened(child, base)


def test_threads_write_a_child_at_once() -> None:
    """Blocks of 32 MiB: all units share a block and a sector bitmap."""
    disk = bytearray(DISK)
    dice = random.Random(4)
    for _ in range(300):
        at = dice.randrange(len(disk))
        disk[at] ^= 1
    storage = MemoryStorage(name="test.vhdx")
    with opened(BASE) as parent:
        writer = FORMAT.create(storage, len(disk), options=VhdxOptions(block_size=32 * MIB), parent=parent)

        def put(number: int) -> None:
            for at in range(number * MIB, len(disk), 3 * MIB):
                writer.pwrite(memoryview(disk)[at : at + MIB], at)

        threads = [threading.Thread(target=put, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.finish(NOTHING)
    assert content(storage.data, BASE) == disk


def test_a_child_is_a_reader_like_any_other() -> None:
    """Many threads, odd ranges: sectors of the child and of the parent alternate."""
    disk = bytearray(DISK[:MIB])
    for at in range(0, MIB, 1536):
        disk[at] ^= 1
    base = write(DISK[:MIB], SMALL)
    child = child_of(base, disk)
    check_reader(lambda: opened(child, base), bytes(disk))


def test_every_power_cut_of_a_child_leaves_nothing_or_all() -> None:
    disk = bytearray(DISK)
    disk[2 * MIB + 5] ^= 1
    disk[4 * MIB :] = bytes(2 * MIB)
    recorder = PowerCut(name="test.vhdx")
    with opened(BASE) as parent:
        writer = FORMAT.create(recorder, len(disk), options=SMALL, parent=parent)
        for at in range(0, len(disk), MIB):
            writer.pwrite(memoryview(disk)[at : at + MIB], at)
        writer.finish(NOTHING)
    whole = 0
    for cut in recorder.cuts(subsets=4, torn=True, seed=5):
        try:
            seen = content(cut.storage.data, BASE)
        except ImageError:
            continue
        assert seen == disk, cut.description
        whole += 1
    assert whole


def test_a_list_of_changes_is_believed(tmp_path: Path) -> None:
    save(tmp_path / "base.vhdx", DISK)
    disk = bytearray(DISK)
    disk[3 * MIB + 700] ^= 1
    disk[5 * MIB] ^= 1  # not named
    (tmp_path / "new.raw").write_bytes(disk)
    with open_image(tmp_path / "base.vhdx") as parent, open_image(tmp_path / "new.raw") as source:
        save_image(
            source, tmp_path / "child.vhdx", options=SMALL, parent=parent, changes=[Extent(3 * MIB, 512 * 3)]
        )
    disk[5 * MIB] ^= 1
    with open_image(tmp_path / "child.vhdx") as reader:
        assert reader.pread(len(disk), 0) == disk
    data = (tmp_path / "child.vhdx").read_bytes()
    assert (states(data), bits(data, 1)) == ([0, 7, 0], {2048 + 1})


def test_a_part_of_a_sector_is_marked_in_a_block_that_was_never_written() -> None:
    """Its zeros hide the parent's data; nothing of it is in the file yet."""
    disk = b"\1" * 4 * MIB
    base = write(disk, SMALL)
    storage = MemoryStorage(name="test.vhdx")
    with opened(base) as parent:
        writer = FORMAT.create(storage, len(disk), options=SMALL, parent=parent)
        for at in (0, 2 * MIB):  # the bitmap lies between their blocks
            writer.pwrite(memoryview(bytes(512)), at)
        writer.mark(Extent(2 * MIB + 100, 50, ExtentKind.ZERO))
        writer.finish(NOTHING)
    wanted = bytes(512) + disk[512 : 2 * MIB] + bytes(512) + disk[2 * MIB + 512 :]
    assert content(storage.data, base) == wanted
