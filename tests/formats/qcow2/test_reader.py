from __future__ import annotations

import random
import struct
import threading
from collections.abc import Callable

import pytest

import qcow2_images as images
from vsssnap import OnReadError, save_image
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import (
    ClosedError,
    CorruptImageError,
    DeviceReadError,
    ImageError,
    ParentMismatchError,
    UnsupportedFeatureError,
)
from vsssnap.formats import MemoryStorage
from vsssnap.formats.base import Probe
from vsssnap.formats.qcow2 import Qcow2Format, Qcow2Options
from vsssnap.testing.readers import check_reader

KIB = 1 << 10
MIB = 1 << 20
VOLUME = random.Random(1).randbytes(300 * KIB) + bytes(500 * KIB) + b"text" * (20 * KIB)
SMALL = Qcow2Options(cluster_size=4096)
PACKED = Qcow2Options(cluster_size=4096, compression="zlib")


def plain() -> bytearray:
    return images.write(VOLUME, SMALL)


@pytest.mark.parametrize("options", [SMALL, PACKED, Qcow2Options(compression="zstd")])
def test_reader_keeps_the_contract(options: Qcow2Options) -> None:
    data = images.write(VOLUME, options)
    check_reader(lambda: images.opened(data), VOLUME)


@pytest.mark.parametrize(
    ("head", "name", "score"),
    [
        (b"QFI\xfb\0\0\0\3", "", 100),
        (b"QFI\xfb\0\0\0\2", "", 100),
        (b"QFI\xfb\0\0\0\1", "", 60),
        (b"QFI", "x.qcow2", 10),
        (b"", "X.QCOW2", 10),
        (b"", "x.img", 0),
    ],
)
def test_it_is_recognised_by_magic_and_version(head: bytes, name: str, score: int) -> None:
    assert Qcow2Format().probe(Probe(head, b"", name, len(head))) == score


# The header.


@pytest.mark.parametrize(
    ("offset", "code", "value", "error", "match"),
    [
        (0, ">I", 0, CorruptImageError, "begins with"),
        (images.VERSION, ">I", 1, UnsupportedFeatureError, "version 1 of QCOW"),
        (images.VERSION, ">I", 4, UnsupportedFeatureError, "version 4 of QCOW"),
        (images.CLUSTER_BITS, ">I", 8, CorruptImageError, "cluster_bits is 8"),
        (images.CLUSTER_BITS, ">I", 22, UnsupportedFeatureError, "above 2 MiB"),
        (images.CLUSTER_BITS, ">I", 1 << 31, CorruptImageError, "cluster_bits"),
        (images.SIZE, ">Q", 1 << 63, CorruptImageError, "virtual disk of 9223372036854775808 bytes"),
        (images.SIZE, ">Q", 1 << 40, CorruptImageError, "an L1 table of 1 entries for 1099511627776 bytes"),
        (images.CRYPT, ">I", 1, UnsupportedFeatureError, r"encrypted \(AES\)"),
        (images.CRYPT, ">I", 2, UnsupportedFeatureError, r"encrypted \(LUKS\)"),
        (images.CRYPT, ">I", 3, CorruptImageError, "crypt_method is 3"),
        (images.L1_SIZE, ">I", 0xFFFF_FFFF, CorruptImageError, "above 4194304"),
        (images.L1_SIZE, ">I", 1 << 22, CorruptImageError, "in a file of"),
        (images.L1_OFFSET, ">Q", 4097, CorruptImageError, "at 4097 in a file of"),
        (images.L1_OFFSET, ">Q", 1 << 62, CorruptImageError, "in a file of"),
        (images.INCOMPATIBLE, ">Q", 2, CorruptImageError, "marked corrupt"),
        (images.INCOMPATIBLE, ">Q", 8, CorruptImageError, "compression type 0, and its feature bit says 1"),
        (images.INCOMPATIBLE, ">Q", 16, CorruptImageError, "extended L2 entries with clusters of 4096"),
        (images.INCOMPATIBLE, ">Q", 4, UnsupportedFeatureError, "its data file has no name"),
        (images.INCOMPATIBLE, ">Q", 1 << 40, UnsupportedFeatureError, "feature bit 40"),
        (images.COMPRESSION, ">B", 1, CorruptImageError, "compression type 1, and its feature bit says 0"),
        (images.REFCOUNT_ORDER, ">I", 7, CorruptImageError, "refcount_order is 7"),
        (images.HEADER_LENGTH, ">I", 100, CorruptImageError, "header_length is 100"),
        (images.HEADER_LENGTH, ">I", 8192, CorruptImageError, "header_length is 8192"),
        (images.BACKING_OFFSET, ">Q", 1 << 40, CorruptImageError, "a backing file's name of 0 bytes"),
    ],
)
def test_header_that_breaks_a_rule_is_refused(
    offset: int, code: str, value: int, error: type[ImageError], match: str
) -> None:
    storage = MemoryStorage(images.changed(plain(), offset, value, code), "image")
    with pytest.raises(error, match=match) as caught:
        Qcow2Format().open(storage)
    assert caught.value.path == "image"


def test_unknown_compression_type_is_named() -> None:
    data = images.changed(images.changed(plain(), images.INCOMPATIBLE, 8), images.COMPRESSION, 2, ">B")
    with pytest.raises(UnsupportedFeatureError, match="compression type 2 is unknown"):
        images.opened(data)


def test_unknown_feature_is_refused_by_its_name() -> None:
    names = b"\0\x28" + b"time travel".ljust(46, b"\0") + b"\1\x29" + b"something else".ljust(46, b"\0")
    data = images.with_extension(plain(), 0x6803F857, names)
    data = images.changed(data, images.INCOMPATIBLE, 1 << 40 | 1 << 41)
    with pytest.raises(UnsupportedFeatureError, match=r"feature 'time travel' \(bit 40\), bit 41") as caught:
        images.opened(data)
    assert caught.value.feature == "'time travel' (bit 40)"
    with pytest.raises(UnsupportedFeatureError):
        images.opened(data, recover=True)


def test_unknown_compatible_features_and_extensions_are_passed_over() -> None:
    data = images.with_extension(plain(), 0x12345678, b"anything")
    data = images.changed(data, images.COMPATIBLE, 1 << 63)
    data = images.changed(data, images.AUTOCLEAR, 1 << 62)
    with images.opened(data) as reader:
        assert reader.readall() == VOLUME
        assert reader.info()["features"] == ["compatible bit 63", "autoclear bit 62"]


def test_extension_that_is_too_long_is_refused_unless_recovered() -> None:
    data = images.changed(images.with_extension(plain(), 0x12345678, b"x"), 116, 1 << 30, ">I")
    with pytest.raises(CorruptImageError, match=r"header extension 0x12345678 of 1073741824 bytes"):
        images.opened(data)
    with images.opened(data, recover=True) as reader:
        assert reader.readall() == VOLUME


def test_dirty_image_is_read_and_one_marked_corrupt_only_on_request() -> None:
    with images.opened(images.changed(plain(), images.INCOMPATIBLE, 1)) as reader:
        assert reader.readall() == VOLUME
        assert reader.info()["complete"]
    with images.opened(images.changed(plain(), images.INCOMPATIBLE, 2), recover=True) as reader:
        assert reader.readall() == VOLUME
        assert not reader.info()["complete"]


def test_file_without_its_header_is_incomplete() -> None:
    data = plain()
    data[:4096] = bytes(4096)
    with pytest.raises(CorruptImageError, match="there is no header: it is incomplete"):
        images.opened(data)


# Tables.


def entry(change: Callable[[int], int]) -> bytearray:
    """An image whose first L2 entry is another."""
    data = plain()
    at = images.l2_entry_at(data, 0)
    return images.changed(data, at, change(images.get(data, at)))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (entry(lambda e: e + 512), "L2 entry of bytes 0 to 4096 of the disk is .*: no multiple of 4096"),
        (entry(lambda e: e & ~0x00FF_FFFF_FFFF_FE00 | 1 << 50), "ends at byte"),
        (entry(lambda e: 1 << 62 | 1 << 50), "compressed cluster at 1125899906842624 lies behind the end"),
        (entry(lambda e: 1 << 62 | 4096), "compressed cluster at 4096 cannot be decoded"),
    ],
)
def test_bad_entry_fails_its_cluster_alone(data: bytearray, match: str) -> None:
    with images.opened(data) as reader:
        with pytest.raises(CorruptImageError, match=match):
            reader.pread(1, 0)
        assert reader.pread(len(VOLUME), 4096) == VOLUME[4096:]


def test_bad_l1_entry_is_an_error() -> None:
    data = plain()
    for value, match in ((4608, "L1 entry 0 is 0x1200, no multiple of 4096"), (1 << 50, "ends at byte")):
        bad = images.changed(data, images.get(data, images.L1_OFFSET), value)
        with images.opened(bad) as reader, pytest.raises(CorruptImageError, match=match):
            reader.pread(1, 0)


def test_zero_flag_is_zero_and_wrong_in_version_2() -> None:
    data = entry(lambda e: e | 1)
    with images.opened(data) as reader:
        assert reader.pread(8192, 0) == bytes(4096) + VOLUME[4096:8192]
        assert next(reader.extents()) == Extent(0, 4096, ExtentKind.ZERO)
    data = images.changed(data, images.VERSION, 2, ">I")
    data[72:112] = bytes(40)  # no extensions
    with images.opened(data) as reader, pytest.raises(CorruptImageError, match="zero flag in an image of v"):
        reader.pread(1, 0)


def extended(states: int, host: bool = True) -> bytearray:
    """An image with 16-byte entries; the second word of the first entry is given."""
    size = 16 * KIB
    data = images.write(b"\1" * size, Qcow2Options(cluster_size=size))
    data = images.changed(data, images.INCOMPATIBLE, 16)
    at = images.l2_entry_at(data, 0)
    if not host:
        data = images.changed(data, at, 0)
    return images.changed(data, at + 8, states)


def test_subclusters_are_stored_zero_or_absent() -> None:
    with images.opened(extended(0b0101 | 0b1000 << 32)) as reader:
        assert reader.pread(2048, 0) == b"\1" * 512 + bytes(512) + b"\1" * 512 + bytes(512)
        assert list(reader.extents()) == [
            Extent(0, 512),
            Extent(512, 512, ExtentKind.ZERO),
            Extent(1024, 512),
            Extent(1536, 16 * KIB - 1536, ExtentKind.ZERO),
        ]
    for states, byte in ((0xFFFF_FFFF, 1), (0xFFFF_FFFF << 32, 0), (0, 0)):
        with images.opened(extended(states)) as reader:
            assert reader.readall() == bytes([byte]) * 16 * KIB


def test_subclusters_outside_of_a_range_are_left_out() -> None:
    stored, zero = 0x0F0F_3355, 0xF000_0088
    model = b"".join(bytes([stored >> n & 1]) * 512 for n in range(32))
    kinds = [ExtentKind.DATA if stored >> n & 1 else ExtentKind.ZERO for n in range(32)]
    with images.opened(extended(stored | zero << 32)) as reader:
        assert reader.readall() == model
        for at in range(0, 16 * KIB, 700):
            for length in (1, 500, 512, 3000, 9000):
                end = min(at + length, 16 * KIB)
                assert reader.pread(length, at) == model[at:end]
                buffer = bytearray(b"?" * length)
                assert reader.preadinto(buffer, at) == end - at
                assert buffer[: end - at] == model[at:end]
                found = list(reader.extents(at, length))
                assert (found[0].offset, found[-1].end) == (at, end)
                for extent in found:
                    assert extent.length > 0
                    places = range(extent.offset // 512, (extent.end - 1) // 512 + 1)
                    assert {kinds[n] for n in places} == {extent.kind}


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (extended(1 | 1 << 32), "subclusters 0x1 are both stored and zero"),
        (extended(6, host=False), "subclusters 0x6 are stored nowhere"),
    ],
)
def test_subclusters_that_contradict_are_an_error(data: bytearray, match: str) -> None:
    with images.opened(data) as reader, pytest.raises(CorruptImageError, match=match):
        reader.readall()


def test_compressed_cluster_with_more_in_its_sectors_is_read() -> None:
    """What follows the stream is another cluster's, or nothing."""
    for options in (PACKED, Qcow2Options(cluster_size=4096, compression="zstd")):
        data = images.write(b"abc!" * KIB, options)
        at = images.l2_entry_at(data, 0)
        value = images.get(data, at)
        data = images.changed(data, at, value | 1 << 58)  # cluster_bits 12: the sectors begin at bit 58
        with images.opened(data) as reader:
            assert reader.readall() == b"abc!" * KIB


def test_zstd_frame_that_claims_too_much_is_refused() -> None:
    import zstandard

    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 28))
    data = images.write(b"abc!" * KIB, Qcow2Options(cluster_size=4096, compression="zstd"))
    place = images.get(data, images.l2_entry_at(data, 0)) & (1 << 58) - 1
    data[place : place + 512] = bomb[:512].ljust(512, b"\0")
    with images.opened(data) as reader, pytest.raises(CorruptImageError, match="a frame of 268435456 bytes"):
        reader.readall()


def test_many_threads_read_compressed_clusters() -> None:
    volume = b"".join(bytes([n]) * 4096 for n in range(256)) * 2
    failed = []
    with images.opened(images.write(volume, PACKED)) as reader:

        def work(seed: int) -> None:
            dice = random.Random(seed)
            for _ in range(200):
                at, length = dice.randrange(len(volume)), dice.randrange(50000)
                if reader.pread(length, at) != volume[at : at + length]:
                    failed.append((at, length))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed


# Other files.


def child() -> tuple[bytearray, images.Folder]:
    folder = images.Folder({"base": plain()})
    return images.write(VOLUME[::-1], SMALL, parent=folder.open("base")), folder


def test_image_with_a_parent_needs_a_way_to_open_it() -> None:
    data, _ = child()
    with pytest.raises(ParentMismatchError, match="refers to other files and there is no way to open them"):
        images.opened(data)


def test_closing_closes_the_parent() -> None:
    data, folder = child()
    reader = images.opened(data, folder)
    parent = reader.parent
    assert parent is not None
    reader.close()
    with pytest.raises(ClosedError):
        parent.pread(1, 0)
    with pytest.raises(ClosedError):
        reader.open_snapshot("1")


def test_format_of_the_parent_is_handed_on() -> None:
    data, folder = child()
    folder.asked.clear()
    images.opened(data, folder).close()
    assert folder.asked == [(("base",), "qcow2")]


def test_raw_data_file_and_backing_file_exclude_each_other() -> None:
    data, folder = child()
    data = images.changed(images.changed(data, images.INCOMPATIBLE, 4), images.AUTOCLEAR, 2)
    with pytest.raises(CorruptImageError, match="exclude each other"):
        images.opened(data, folder)


def test_data_file_holds_every_cluster_at_its_own_offset() -> None:
    data = images.with_extension(plain(), 0x44415441, b"data")
    data = images.changed(data, images.INCOMPATIBLE, 4)
    folder = images.Folder({"data": bytes(MIB)})
    with images.opened(data, folder) as reader, pytest.raises(CorruptImageError, match="at its own offset"):
        reader.pread(1, 0)
    assert folder.asked == [(("data",), "raw")]


def test_snapshot_table_that_breaks_a_rule_is_an_error() -> None:
    for count, offset, match in (
        (1, len(plain()), "behind the end of the file"),
        (1, 5, "not aligned"),
        (65537, 4096, "65537 snapshots, above 65536"),
    ):
        data = images.changed(plain(), images.SNAPSHOTS, count, ">I")
        with images.opened(images.changed(data, images.SNAPSHOTS_OFFSET, offset)) as reader:
            with pytest.raises(CorruptImageError, match=match):
                _ = reader.snapshots
            assert match in reader.info()["problem"]
            assert reader.readall() == VOLUME


def test_bitmaps_without_their_feature_bit_are_not_trusted() -> None:
    data = plain()
    at = len(data)
    head = (0).to_bytes(8, "big") + (0).to_bytes(4, "big") + bytes(4) + bytes([1, 16, 0, 4]) + bytes(4)
    data = images.with_extension(
        data, 0x23852875, b"\0\0\0\1" + bytes(4) + (32).to_bytes(8, "big") + at.to_bytes(8, "big")
    )
    data += (head + b"name" + bytes(4)).ljust(4096, b"\0")
    with images.opened(data) as reader:
        (found,) = reader.bitmaps
        assert (found.name, found.problem) == (
            "name",
            "a program that knows no bitmaps has written to the image",
        )
    with images.opened(images.changed(data, images.AUTOCLEAR, 1)) as reader:
        (found,) = reader.bitmaps
        assert "its table has 0 entries" in found.problem
    reader = images.opened(images.changed(plain(), images.AUTOCLEAR, 1))
    with pytest.raises(CorruptImageError, match="there is no bitmaps extension"):
        _ = reader.bitmaps


# Images that were cut short.


def kept_of(data: bytes, cut: int, cluster: int) -> set[int]:
    """Clusters of the disk whose L2 table and bytes lie before a cut, by the tables of the whole image."""
    (l1_size, l1_at) = struct.unpack_from(">IQ", data, 36)
    kept, each = set(), cluster // 8
    for index, entry in enumerate(struct.unpack_from(f">{l1_size}Q", data, l1_at)):
        table = entry & 0x00FF_FFFF_FFFF_FE00
        if not table or table + cluster > cut:
            continue
        for number, place in enumerate(struct.unpack_from(f">{each}Q", data, table), index * each):
            host = place & 0x00FF_FFFF_FFFF_FE00
            if host and host + cluster <= cut:
                kept.add(number)
    return kept


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("cluster", [4096, 65536])
def test_what_is_left_of_a_cut_image_is_read_though_tables_are_lost(cluster: int, share: float) -> None:
    volume = random.Random(2).randbytes(7 * MIB)
    data = images.write(volume, Qcow2Options(cluster_size=cluster))
    cut = int(len(data) * share)
    kept = kept_of(bytes(data), cut, cluster)
    with images.opened(data[:cut], recover=True) as reader:
        found = set()
        for extent in reader.extents():
            if extent.kind is ExtentKind.UNREADABLE:
                with pytest.raises(DeviceReadError, match="are lost"):
                    reader.pread(extent.length, extent.offset)
            else:
                assert reader.pread(extent.length, extent.offset) == volume[extent.offset : extent.end]
                found |= set(range(-(-extent.offset // cluster), extent.end // cluster))
        assert found == kept
        sink = MemoryStorage()
        report = save_image(reader, sink, format="raw", on_read_error=OnReadError.MARK)
    lost = sum(extent.length for extent in report.unreadable)
    assert len(volume) - lost - len(kept) * cluster < cluster  # of the one that the cut goes through
