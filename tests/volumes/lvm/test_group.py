"""Volume groups are read from their physical volumes; what is wrong with them is told."""

from __future__ import annotations

from pathlib import Path

import pytest

import lvm_images as lvm
from lvm_images import EXTENT, START, physical_volume, segment, volume
from sources import BytesReader
from vsssnap import ExtentKind
from vsssnap.blocks.plain import PlainReader
from vsssnap.errors import (
    CorruptImageError,
    DeviceReadError,
    ImageError,
    UnknownFormatError,
    UnsupportedFeatureError,
    UsageError,
    VssSnapError,
)
from vsssnap.testing import check_reader
from vsssnap.volumes import VolumeGroup

PLAIN = volume("root", segment(1, 0, 3, [("pv0", 4)]), segment(2, 3, 2, [("pv0", 1)])) + volume(
    "swap", segment(1, 0, 1, [("pv0", 0)])
)
TEXT = lvm.group(PLAIN)


def reader(image: bytes | bytearray, size: int | None = None) -> PlainReader:
    return PlainReader(bytes(image), len(image) if size is None else size)


def extents(image: bytes | bytearray, first: int, count: int) -> bytes:
    """Extents of a physical volume."""
    return bytes(image[START + first * EXTENT : START + (first + count) * EXTENT])


def test_volumes_of_several_segments_are_put_together() -> None:
    image = physical_volume(TEXT)
    group = VolumeGroup(reader(image))
    assert (group.name, group.id, group.seqno, group.extent_size) == ("vg", lvm.VG_ID, 7, EXTENT)
    assert [each.name for each in group] == ["root", "swap"]
    assert not group.notes
    root = group["root"]
    assert (root.size, root.types, root.visible) == (5 * EXTENT, ("linear",), True)
    assert [(each.offset, each.stripes) for each in root.segments] == [
        (0, (("pv0", START + 4 * EXTENT),)),
        (3 * EXTENT, (("pv0", START + EXTENT),)),
    ]
    with root.open() as opened:
        assert opened.pread(opened.size, 0) == extents(image, 4, 3) + extents(image, 1, 2)
    place = group.physical["pv0"]
    assert (place.id, place.device, place.start, place.extents) == (lvm.pv_id(0), "/dev/sda1", START, 32)


def test_stripes_take_turns() -> None:
    text = lvm.group(volume("fast", segment(1, 0, 6, [("pv0", 2), ("pv1", 5), ("pv2", 0)], stripe=16)), pvs=3)
    images = [physical_volume(text, number) for number in range(3)]
    group = VolumeGroup(reader(images[1]), reader(images[2]), reader(images[0]))
    parts = [extents(images[0], 2, 2), extents(images[1], 5, 2), extents(images[2], 0, 2)]
    step = 16 * 512
    expected = b"".join(part[at : at + step] for at in range(0, 2 * EXTENT, step) for part in parts)
    assert group["fast"].types == ("striped",)
    check_reader(lambda: group["fast"].open(), expected)


def test_what_is_known_of_the_physical_volumes_is_known_of_the_logical_ones() -> None:
    text = lvm.group(
        volume("a", segment(1, 0, 2, [("pv0", 0), ("pv1", 0)], stripe=64))
        + volume("b", segment(1, 0, 1, [("pv0", 3)])),
        pvs=2,
    )
    first, second = (physical_volume(text, number)[: START + EXTENT] for number in range(2))
    group = VolumeGroup(reader(first, START + 32 * EXTENT), reader(second, START + 32 * EXTENT))
    assert [each.kind for each in group["b"].open().extents()] == [ExtentKind.ZERO]
    assert [(each.length, each.kind) for each in group["a"].open().extents()] == [
        (2 * EXTENT, ExtentKind.DATA)
    ]


@pytest.mark.parametrize("at", [512, 4096, lvm.AREA_SIZE - 1, lvm.AREA_SIZE - 512])
def test_a_text_that_goes_round_the_end_of_its_area_is_read(at: int) -> None:
    assert "root" in VolumeGroup(reader(physical_volume(TEXT, at=at)))


def test_one_good_copy_of_two_is_enough() -> None:
    image = physical_volume(TEXT, copies=2)
    damaged = image
    for offset in (lvm.AREA + 100, lvm.AREA + 700):  # the header, the text
        damaged = bytearray(image)
        damaged[offset] ^= 1
        group = VolumeGroup(reader(damaged))
        assert "root" in group
        assert [str(lvm.AREA) in note for note in group.notes] == [True]
    damaged[-lvm.AREA_SIZE + 700] ^= 1
    with pytest.raises(CorruptImageError, match="checksum"):
        VolumeGroup(reader(damaged))


def test_one_good_copy_on_another_physical_volume_is_enough() -> None:
    text = lvm.group(volume("root", segment(1, 0, 2, [("pv0", 0)]), segment(2, 2, 1, [("pv1", 5)])), pvs=2)
    good, damaged = physical_volume(text, 0), physical_volume(text, 1)
    expected = extents(good, 0, 2) + extents(damaged, 5, 1)
    unread = BytesReader(bytes(damaged), bad=[(lvm.AREA + 512, 512)])
    damaged[lvm.AREA + 700] ^= 1
    nonsense = lvm.rewritten(damaged, b"vg {")  # of which the checksum is right
    for other in (reader(damaged), reader(nonsense), unread):
        with pytest.raises((CorruptImageError, DeviceReadError)):
            VolumeGroup(other)
        for order in ((reader(good), other), (other, reader(good))):
            group = VolumeGroup(*order)
            with group["root"].open() as opened:
                assert opened.pread(opened.size, 0) == expected
            assert [note.startswith(f"the physical volume {lvm.pv_id(1)}: ") for note in group.notes] == [
                True
            ]


def test_words_of_any_coding_may_be_in_the_description() -> None:
    text = TEXT.replace(b'vgcreate \\"vg\\"', "lvcreate --addtag größe".encode("latin-1"))
    assert text != TEXT
    assert [each.name for each in VolumeGroup(reader(physical_volume(text)))] == ["root", "swap"]


def test_any_id_that_lvm_takes_is_read() -> None:
    strange = lvm.pv_id(0).replace("p", "#").replace("0", "!")
    image = physical_volume(TEXT.replace(lvm.pv_id(0).encode(), strange.encode()))
    sector = bytearray(image[512:1024])
    sector[32:64] = strange.replace("-", "").encode()
    sector[16:20] = lvm.crc(bytes(sector[20:])).to_bytes(4, "little")
    image[512:1024] = sector
    assert VolumeGroup(reader(image)).physical["pv0"].id == strange


def test_what_was_missing_is_told() -> None:
    image = physical_volume(
        TEXT.replace(b'"ALLOCATABLE"]\nflags = []', b'"ALLOCATABLE"]\nflags = ["MISSING"]')
    )
    (note,) = VolumeGroup(reader(image)).notes
    assert note.startswith(f"the physical volume {lvm.pv_id(0)} was missing when")


@pytest.mark.parametrize(
    ("line", "shared"),
    [
        ('lock_type = "sanlock"', True),
        ('lock_type = "dlm"', True),
        ('lock_type = "none"', False),
        ('system_id = "host"', False),
        ("", False),
    ],
)
def test_it_is_known_whether_hosts_share_a_group(line: str, shared: bool) -> None:
    text = TEXT.replace(b"seqno = 7\n", f"seqno = 7\n{line}\n".encode())
    assert VolumeGroup(reader(physical_volume(text))).shared is shared
    if not line:
        text = TEXT.replace(b'"RESIZEABLE", ', b'"RESIZEABLE", "CLUSTERED", ')
        assert VolumeGroup(reader(physical_volume(text))).shared


def test_the_newest_description_counts() -> None:
    old, new = (
        lvm.group(PLAIN, pvs=2, seqno=3),
        lvm.group(volume("other", segment(1, 0, 1, [("pv1", 0)])), pvs=2, seqno=12),
    )
    images = physical_volume(old, 0), physical_volume(new, 1)
    for order in (images, images[::-1]):
        group = VolumeGroup(*map(reader, order))
        assert [each.name for each in group] == ["other"]
        assert any("older than its change 12" in note for note in group.notes)


def test_a_physical_volume_without_metadata_needs_another_one() -> None:
    text = lvm.group(volume("root", segment(1, 0, 2, [("pv1", 0)])), pvs=2)
    images = physical_volume(text, 0), physical_volume(text, 1, copies=0)
    with pytest.raises(UnknownFormatError, match="does not say what group"):
        VolumeGroup(reader(images[1]))
    with VolumeGroup(*map(reader, images))["root"].open() as opened:
        assert opened.pread(EXTENT, 0) == extents(images[1], 0, 1)
    with pytest.raises(UsageError, match="/dev/sdb1, which is not here"):
        VolumeGroup(reader(images[0]))["root"].open()


def test_what_cannot_be_put_together_is_refused() -> None:
    image = physical_volume(TEXT)
    other = lvm.group(PLAIN, name="else").replace(lvm.VG_ID.encode(), lvm.VG_ID[::-1].encode())
    for given, error, said, remedy in (
        ((image, image), UsageError, "two of the volumes are", "once"),
        ((image, physical_volume(other, 1)), UsageError, "different groups, vg .* and else", "of each"),
        (
            (image, physical_volume(TEXT, 3)),
            UsageError,
            f"{lvm.pv_id(3)} is none of the group vg",
            "leave it",
        ),
        ((bytes(1 << 20),), UnknownFormatError, "no label", "Partitions"),
    ):
        with pytest.raises(error, match=said) as caught:
            VolumeGroup(*map(reader, given))
        assert isinstance(caught.value, VssSnapError)
        assert remedy in caught.value.hint
    with pytest.raises(UsageError, match="no logical volume 'home'") as missing:
        VolumeGroup(reader(image))["home"]
    assert "root, swap" in missing.value.hint


def typed(kind: str, more: str = "") -> str:
    return f'segment1 {{\nstart_extent = 0\nextent_count = 2\ntype = "{kind}"\n{more}\n}}\n'


@pytest.mark.parametrize(
    ("volumes", "feature"),
    [
        (volume("root", typed("thin", 'thin_pool = "pool"\ndevice_id = 1')), "LVM thin"),
        (volume("root", typed("raid1", 'raids = ["root_rmeta_0", "root_rimage_0"]')), "LVM raid1"),
        (volume("root", typed("mirror", 'mirrors = ["root_mimage_0", 0]')), "LVM mirror"),
        (volume("root", typed("cache", 'origin = "root_corig"')), "LVM cache"),
        (volume("root", segment(1, 0, 2, [("pvmove0", 0)])), "LVM striped over pvmove0"),
        (
            volume("root", segment(1, 0, 2, [("pv0", 0)]))
            + volume("snapshot0", typed("snapshot", 'origin = "base"\ncow_store = "root"'), status='"READ"'),
            "LVM snapshot",
        ),
        (
            volume("root", segment(1, 0, 2, [("pv0", 0)]))
            + volume("snapshot0", typed("snapshot", 'origin = "root"\nmerging_store = "s"'), status='"READ"'),
            "LVM snapshot",
        ),
    ],
)
def test_types_that_are_not_read_are_refused_by_name(volumes: str, feature: str) -> None:
    group = VolumeGroup(reader(physical_volume(lvm.group(volumes))))
    assert [each.name for each in group] == ["root"]
    with pytest.raises(UnsupportedFeatureError, match="the logical volume root") as caught:
        group["root"].open()
    assert caught.value.feature == feature


def test_an_image_that_is_cut_short_gives_what_it_has() -> None:
    image = physical_volume(TEXT)[: START + 2 * EXTENT]
    group = VolumeGroup(reader(image))
    assert group["swap"].open().size == EXTENT
    with pytest.raises(CorruptImageError, match="the logical volume root ends at byte"):
        group["root"].open()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"extent_count = 3", b"extent_count = 4", "begins at extent 3, not at 4"),
        (b"extent_count = 3", b"extent_count = 0", "0 extents"),
        (b"extent_count = 3", b"extent_count = 99999999999999999999", "has the extent_count 9999"),
        (b"extent_count = 3", b"extent_count = -3", "has the extent_count -3"),
        (b"extent_size = 128", b"extent_size = 0", "has the extent_size 0"),
        (b"extent_size = 128", b"extent_size = 9000000000000000", "is larger than any disk"),
        (b"pe_start = 2048", b'pe_start = "x"', "has the pe_start x"),
        (b'"pv0", 4', b'"pv0", 30', "outside of the physical volume pv0"),
        (b'"pv0", 4', b'"pv0", -1', "outside of the physical volume pv0"),
        (b'"pv0", 4', b'"pv0"', "does not say where its 1 stripes are"),
        (b'"pv0", 4', b'4, "pv0"', "does not say where its 1 stripes are"),
        (b"stripe_count = 1", b"stripe_count = 2147483647", "does not say where its 2147483647 stripes"),
        (b"segment_count = 2", b"segment_count = 900000000", "has 2 segments, not 900000000"),
        (b"segment2", b"segment7", "has 2 segments"),
        (b'format = "lvm2"', b'format = "lvm9"', "is of format 'lvm9'"),
        (b"logical_volumes {", b"logical_volumes {\nseqno = 4", "logical_volumes is no list of sections"),
        (b'contents = "Text', b'more {\n}\ncontents = "Text', "is about 2 groups"),
        (b'type = "striped"', b"", "has the type None"),
        (b"seqno = 7", b"seqno = 7\nseqno = 8", "seqno twice"),
        (b"seqno = 7", b"seqno = 7 }", "behind|too many"),
        (b"seqno = 7", b"seqno 7", "behind seqno"),
        (b"seqno = 7", b"seqno = [ 7", "in a list"),
        (b"seqno = 7", b"seqno = {", "where a value should be"),
        (b"seqno = 7", b'seqno = "7', "behind lvm2"),
        (b"seqno = 7", b"a { " * 20 + b"seqno = 7" + b"}" * 20, "too many sections in one another"),
        (b"seqno = 7", b"seqno = 7\n\xff", "what is no word of it"),
        (b"creation_time = 1700000000\n\n", b"creation {", "a section without an end"),
        (b"", b"", "is about 0 groups"),
    ],
)  # fmt: skip
def test_a_description_that_contradicts_itself_is_refused(old: bytes, new: bytes, said: str) -> None:
    text = TEXT.replace(old, new, 1) if old else b"# nothing\n"
    assert text != TEXT
    with pytest.raises((CorruptImageError, UnsupportedFeatureError), match=said) as caught:
        VolumeGroup(reader(physical_volume(text)))
    assert isinstance(caught.value, VssSnapError)
    assert "vgc" in caught.value.hint


def outcome(image: bytes | bytearray) -> str:
    try:
        group = VolumeGroup(reader(image))
        for each in group.volumes.values():
            each.open()
    except (ImageError, UsageError) as exc:
        return type(exc).__name__
    return "read"


def test_every_damaged_byte_of_label_and_header_is_found_or_does_not_matter() -> None:
    image = physical_volume(TEXT)
    for first, length in ((512, 512), (lvm.AREA, 512)):
        for at in range(first, first + length):
            damaged = bytearray(image)
            damaged[at] ^= 0x41
            assert outcome(damaged) in {"CorruptImageError", "UnknownFormatError"}, at


def test_every_word_of_the_text_may_be_missing_or_another() -> None:
    words = TEXT.split(b" ")
    seen = set()
    for number in range(len(words)):
        for other in (b"", b"-1", b"}"):
            text = b" ".join((*words[:number], other, *words[number + 1 :]))
            seen.add(outcome(lvm.rewritten(physical_head(), text)))
    assert seen <= {
        "read",
        "CorruptImageError",
        "UnsupportedFeatureError",
        "UsageError",
        "UnknownFormatError",
    }
    assert {"read", "CorruptImageError"} <= seen


_HEAD: list[bytearray] = []


def physical_head() -> bytearray:
    """A physical volume that is made once."""
    if not _HEAD:
        _HEAD.append(physical_volume(TEXT))
    return _HEAD[0]


def test_a_physical_volume_that_is_cut_anywhere_is_an_error_or_whole() -> None:
    image = physical_head()
    for size in (0, 1, 511, 512, 600, 1023, 1024, 4096, 4200, lvm.AREA + 512, lvm.AREA + 900, START - 1):
        assert outcome(image[:size]) in {"CorruptImageError", "UnknownFormatError"}, size
    assert outcome(image) == "read"


def test_a_slot_out_of_the_area_is_refused_before_it_is_read(tmp_path: Path) -> None:
    import struct

    for at, length in ((0, 100), (512, 1 << 62), (lvm.AREA_SIZE, 10), (1 << 63, 10), (512, lvm.AREA_SIZE)):
        image = bytearray(physical_head())
        body = b" LVM2 x[5A%r0N*>" + struct.pack("<I2Q", 1, lvm.AREA, lvm.AREA_SIZE)
        body = (body + struct.pack("<2Q2I", at, length, 0, 0)).ljust(508, b"\0")
        image[lvm.AREA : lvm.AREA + 512] = struct.pack("<I", lvm.crc(body)) + body
        with pytest.raises((CorruptImageError, UnknownFormatError)):
            VolumeGroup(reader(image))
