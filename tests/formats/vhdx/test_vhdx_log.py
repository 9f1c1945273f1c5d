"""The log of a VHDX: which entries count, and that they are replayed in memory alone.

The images are fixed ones, whose disk begins right behind the BAT; entries write into the disk
itself, so what must be read is known without knowing any table.
"""

from __future__ import annotations

import random
import struct
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vhdx_images import (
    FORMAT,
    HEADERS,
    LOG_GUID,
    MIB,
    SECTOR,
    Data,
    Zero,
    content,
    log_entry,
    map_of,
    opened,
    seal,
    set_header,
    with_log,
    write,
)
from vsssnap.errors import CorruptImageError, UnsupportedFeatureError
from vsssnap.formats import MemoryStorage
from vsssnap.formats.base import Depth
from vsssnap.formats.vhdx import VhdxOptions, log
from vsssnap.formats.vhdx.overlay import OverlayStorage, Patches

DISK = random.Random(5).randbytes(2 * MIB)
IMAGE = write(DISK, VhdxOptions(fixed=True, block_size=MIB))
START = map_of(IMAGE).payload(IMAGE, 0)[1]  # in the file
A, B, C = (bytes([value]) * SECTOR for value in b"abc")


def patched(*writes: tuple[int, bytes]) -> bytes:
    """The disk after some writes, in order; offsets are the disk's."""
    result = bytearray(DISK)
    for at, data in writes:
        result[at : at + len(data)] = data
    return bytes(result)


def entry(
    sequence: int, tail: int, *writes: Zero | Data, flushed: int = 0, last: int = 0, padding: int = 0
) -> bytes:
    """An entry that writes into the disk."""
    moved = [
        Zero(one.offset + START, one.length)
        if isinstance(one, Zero)
        else Data(one.offset + START, one.sector)
        for one in writes
    ]
    return log_entry(sequence, tail, moved, flushed=flushed, last=last, padding=padding)


def test_data_and_zeros_are_replayed_and_the_file_is_not_written() -> None:
    image = with_log(IMAGE, [(0, entry(7, 0, Data(0, A), Zero(3 * SECTOR, 5 * SECTOR)))])
    storage = MemoryStorage(bytes(image))

    with FORMAT.open(storage) as reader:
        seen = reader.pread(reader.size, 0)
        assert reader.info()["log"] == "replayed"

    assert seen == patched((0, A), (3 * SECTOR, bytes(5 * SECTOR)))
    assert storage.data == image


def test_reads_across_the_edges_of_patches_are_right() -> None:
    image = with_log(IMAGE, [(0, entry(1, 0, Data(SECTOR, A), Zero(2 * SECTOR, SECTOR)))])
    wanted = patched((SECTOR, A), (2 * SECTOR, bytes(SECTOR)))

    with opened(image) as reader:
        for at in (0, 1, SECTOR - 1, SECTOR, 2 * SECTOR - 1, 2 * SECTOR, 3 * SECTOR - 1, 3 * SECTOR):
            for length in (1, 2, SECTOR, 3 * SECTOR):
                assert reader.pread(length, at) == wanted[at : at + length]


def test_later_writes_win_within_an_entry_and_across_entries() -> None:
    first = entry(1, 0, Data(0, A), Data(SECTOR, A), Zero(4 * SECTOR, 4 * SECTOR))
    second = entry(2, 0, Zero(0, SECTOR), Data(SECTOR, B), Data(5 * SECTOR, C), Data(5 * SECTOR, B))
    image = with_log(IMAGE, [(0, first), (len(first), second)])

    assert content(image) == patched(
        (0, bytes(SECTOR)), (SECTOR, B), (4 * SECTOR, bytes(4 * SECTOR)), (5 * SECTOR, B)
    )


def test_entries_before_the_tail_are_not_replayed() -> None:
    first = entry(1, 0, Data(0, A), Data(SECTOR, A))
    second = entry(2, len(first), Data(0, B))
    image = with_log(IMAGE, [(0, first), (len(first), second)])

    assert content(image) == patched((0, B))


def test_a_torn_last_entry_is_left_out() -> None:
    first, second = entry(1, 0, Data(0, A)), entry(2, 0, Data(0, B), Data(SECTOR, B))
    image = with_log(IMAGE, [(0, first), (len(first), second[:-SECTOR])])

    assert content(image) == patched((0, A))


def test_the_newest_of_two_sequences_is_active() -> None:
    old, new = entry(5, 0, Data(0, A)), entry(9, 64 * SECTOR, Data(0, B))
    assert content(with_log(IMAGE, [(0, old), (64 * SECTOR, new)])) == patched((0, B))

    old, new = entry(9, 0, Data(0, A)), entry(5, 64 * SECTOR, Data(0, B))
    assert content(with_log(IMAGE, [(0, old), (64 * SECTOR, new)])) == patched((0, A))


def test_a_gap_in_the_numbers_ends_a_sequence() -> None:
    first, second = entry(1, 0, Data(0, A)), entry(3, 0, Data(SECTOR, B))
    image = with_log(IMAGE, [(0, first), (len(first), second)])

    assert content(image) == patched((0, A))  # the second points to a tail outside of itself


def test_entries_of_another_log_do_not_count() -> None:
    other = UUID("00000000-0000-0000-0000-000000000001")
    stale = log_entry(99, 0, [Data(START, B)], guid=other)
    own = entry(3, 64 * SECTOR, Data(0, A))

    assert content(with_log(IMAGE, [(0, stale), (64 * SECTOR, own)])) == patched((0, A))


@pytest.mark.parametrize("start", [MIB - SECTOR, MIB - 2 * SECTOR, MIB - 3 * SECTOR])
def test_a_sequence_may_go_on_at_the_begin_of_the_ring(start: int) -> None:
    """With the starts given, an entry's header, descriptors or data are on the two sides."""
    first = entry(1, start, Data(0, A), Data(SECTOR, A))
    second = entry(2, start, Data(SECTOR, B), Zero(2 * SECTOR, SECTOR))
    image = with_log(IMAGE, [(start, first), ((start + len(first)) % MIB, second)])

    assert content(image) == patched((0, A), (SECTOR, B), (2 * SECTOR, bytes(SECTOR)))


def test_a_full_ring_ends() -> None:
    """Entries lie all around, each of two sectors, the last one before the first."""
    count = MIB // (2 * SECTOR)
    start = 10 * SECTOR
    image = with_log(
        IMAGE,
        (
            (
                (start + number * 2 * SECTOR) % MIB,
                entry(number + 1, start, Data(number % 256 * SECTOR, bytes([number % 256]) * SECTOR)),
            )
            for number in range(count)
        ),
    )

    assert content(image) == patched(*((n % 256 * SECTOR, bytes([n % 256]) * SECTOR) for n in range(count)))


def test_descriptors_go_on_in_further_sectors() -> None:
    places = random.Random(1).sample(range(512), 126 + 128 + 3)
    writes: list[Zero | Data] = [Zero(at * SECTOR, SECTOR) for at in places]
    writes[125] = Data(places[125] * SECTOR, A)
    writes[-1] = Data(0, C)
    image = with_log(IMAGE, [(0, entry(1, 0, *writes))])

    zeroed = [(at * SECTOR, bytes(SECTOR)) for at in places[:-1]]
    assert content(image) == patched(*zeroed, (places[125] * SECTOR, A), (0, C))


def test_sectors_behind_the_data_are_the_writers_alignment() -> None:
    first, second = entry(1, 0, Data(0, A), padding=14), entry(2, 0, Data(SECTOR, B), padding=14)
    image = with_log(IMAGE, [(0, first), (len(first), second)])

    assert content(image) == patched((0, A), (SECTOR, B))


def test_an_entry_without_descriptors_counts() -> None:
    first, second = entry(1, 0, Data(0, A)), entry(2, SECTOR * 2)
    assert content(with_log(IMAGE, [(0, first), (len(first), second)])) == DISK


def test_every_flipped_sector_of_an_entry_is_noticed() -> None:
    whole = entry(1 << 40 | 5, 0, Data(0, A), Zero(SECTOR, SECTOR), Data(2 * SECTOR, B))
    dice = random.Random(2)
    places = [*range(0, 64 + 96, 3), *(dice.randrange(len(whole)) for _ in range(40))]
    for at in places:
        changed = bytearray(whole)
        changed[at] ^= 1 << dice.randrange(8)
        with pytest.raises(CorruptImageError, match="holds no valid sequence"):
            opened(with_log(IMAGE, [(0, bytes(changed))]))


@pytest.mark.parametrize(
    ("layout", "at", "value"),
    [
        ("<I", 8, 0),  # EntryLength
        ("<I", 8, 12288 + 512),
        ("<I", 8, 2 * MIB),
        ("<I", 12, 512),  # Tail
        ("<I", 12, MIB),
        ("<Q", 16, 0),  # SequenceNumber
        ("<I", 24, 3),  # DescriptorCount
        ("<I", 24, 0xFFFF_FFFF),
        ("<Q", 64 + 16, 100),  # FileOffset of the first descriptor
        ("<Q", 64 + 24, 2),  # its SequenceNumber
        ("<Q", 96 + 8, 100),  # ZeroLength of the second
        ("<4s", 64, b"daten"[:4]),
        ("<I", 4096 + 4, 1),  # SequenceHigh of the data sector
        ("<I", 8192 - 4, 2),  # SequenceLow
    ],
)
def test_a_wrong_field_makes_an_entry_invalid_though_its_checksum_is_right(
    layout: str, at: int, value: object
) -> None:
    whole = bytearray(entry(1, 0, Data(0, A), Zero(SECTOR, SECTOR)))
    struct.pack_into(layout, whole, at, value)
    (length,) = struct.unpack_from("<I", whole, 8)
    if length <= len(whole):
        seal(whole, 0, length or len(whole))
    with pytest.raises(CorruptImageError, match="holds no valid sequence"):
        opened(with_log(IMAGE, [(0, bytes(whole))]))


def test_a_truncated_file_is_refused() -> None:
    image = with_log(IMAGE, [(0, entry(1, 0, Data(0, A), flushed=len(IMAGE) + MIB))])
    with pytest.raises(CorruptImageError, match=f"truncated: it has {len(IMAGE)} bytes, and had"):
        opened(image)
    assert content(with_log(IMAGE, [(0, entry(1, 0, Data(0, A), flushed=len(IMAGE)))])) == patched((0, A))


def test_the_file_is_expanded_to_the_last_offset() -> None:
    """The block's place is in the BAT, but the file was not yet made longer when the power failed."""
    cut = IMAGE[: START + MIB]
    image = with_log(cut, [(0, entry(1, 0, Data(0, A), last=START + 2 * MIB))])
    assert content(image) == patched((0, A), (MIB, bytes(MIB)))

    image = with_log(cut, [(0, entry(1, 0, Data(MIB + SECTOR, B), last=START + 2 * MIB))])
    assert content(image) == patched((MIB, bytes(MIB)), (MIB + SECTOR, B))


def test_a_table_is_read_through_the_log() -> None:
    image = bytearray(IMAGE)
    bat = map_of(IMAGE).bat
    right = bytes(image[bat : bat + SECTOR])
    image[bat : bat + SECTOR] = bytes(SECTOR)
    assert content(image) == bytes(len(DISK))  # NOT_PRESENT
    assert content(with_log(bytes(image), [(0, log_entry(1, 0, [Data(bat, right)]))])) == DISK


def test_a_damaged_region_table_is_mended_by_the_log() -> None:
    image = bytearray(IMAGE)
    right = bytes(image[192 << 10 : (192 << 10) + SECTOR])
    for at in (192 << 10, 256 << 10):
        image[at : at + SECTOR] = bytes(SECTOR)
    with pytest.raises(CorruptImageError, match="region table"):
        opened(image)
    mended = with_log(bytes(image), [(0, log_entry(1, 0, [Data(192 << 10, right)]))])
    assert content(mended) == DISK


def test_an_empty_log_is_not_looked_at() -> None:
    image = with_log(IMAGE, [(0, entry(1, 0, Data(0, A)))], guid=None)
    with opened(image) as reader:
        assert reader.info()["log"] == "empty"
        assert reader.pread(reader.size, 0) == DISK


def test_a_log_without_a_valid_sequence_is_refused_and_passed_over_when_recovering() -> None:
    image = with_log(IMAGE, [])
    with pytest.raises(CorruptImageError, match="holds no valid sequence") as caught:
        opened(image)
    assert (caught.value.structure, caught.value.offset) == ("log", MIB)
    with opened(image, recover=True) as reader:
        assert reader.info()["log"] == "ignored"
        assert reader.pread(reader.size, 0) == DISK
        found = [finding.structure for finding in reader.verify(Depth.STRUCTURE, lambda _: None)]
    assert found == ["log"]


def test_a_log_of_another_version_is_refused_only_when_it_must_be_replayed() -> None:
    image = with_log(IMAGE, [(0, entry(1, 0, Data(0, A)))])
    set_header(image, "<H", 64, 1)
    with pytest.raises(UnsupportedFeatureError, match="log is of version 1"):
        opened(image)
    image = bytearray(IMAGE)
    set_header(image, "<H", 64, 1)
    assert content(image) == DISK


def test_a_log_that_takes_too_long_is_refused() -> None:
    image = with_log(IMAGE, [(0, entry(1, 0, Data(0, A)))])
    set_header(image, "<I", 68, 128 * MIB)
    with pytest.raises(UnsupportedFeatureError, match="its log has 134217728 bytes to replay"):
        opened(image)


@pytest.mark.parametrize("length", [0, MIB + SECTOR])
def test_a_log_that_is_not_whole_mib_is_refused(length: int) -> None:
    image = with_log(IMAGE, [(0, entry(1, 0, Data(0, A)))])
    set_header(image, "<I", 68, length)
    with pytest.raises(CorruptImageError, match="no multiple of 1 MiB"):
        opened(image)


def test_a_log_of_overlapping_entries_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sector claims to begin an entry as long as the ring; the checksums would cover 256 MiB."""
    summed = 0

    def counted(data: bytes | memoryview, value: int = 0) -> int:
        nonlocal summed
        summed += len(data)
        return value ^ 1

    monkeypatch.setattr(log, "crc32c", counted)
    head = struct.pack("<4sIIIQII16sQQ", b"loge", 0, MIB, 0, 1, 0, 0, LOG_GUID.bytes_le, 0, 0)
    image = with_log(IMAGE, [(at, head.ljust(SECTOR, b"\0")) for at in range(0, MIB, SECTOR)])
    with pytest.raises(CorruptImageError, match="holds no valid sequence"):
        opened(image)
    assert summed <= 4 * MIB


def test_a_write_far_behind_the_end_is_refused() -> None:
    image = with_log(IMAGE, [(0, log_entry(1, 0, [Data(1 << 60, A)]))])
    with pytest.raises(CorruptImageError, match="the log writes behind byte"):
        opened(image)


def test_the_header_is_the_files_own_though_the_log_writes_there() -> None:
    image = with_log(IMAGE, [(0, log_entry(1, 0, [Zero(HEADERS[0], 2 * 65536), Data(START, A)]))])
    with opened(image) as reader:
        assert reader.pread(SECTOR, 0) == A
        assert reader.data_write_id.int


writes = st.one_of(
    st.tuples(st.just("data"), st.integers(0, 15), st.integers(1, 255)),
    st.tuples(st.just("zero"), st.integers(0, 15), st.integers(0, 8)),
)


@given(st.lists(writes, max_size=30), st.integers(0, 12 * SECTOR), st.integers(0, 26))
def test_overlay_is_the_file_after_all_writes(
    steps: list[tuple[str, int, int]], length: int, size: int
) -> None:
    base = random.Random(length).randbytes(length)
    model = bytearray(base)
    patches = Patches()
    for step, place, value in steps:
        at = place * SECTOR
        data = bytes([value]) * SECTOR if step == "data" else bytes(value * SECTOR)
        model.extend(bytes(max(0, at + len(data) - len(model))))
        model[at : at + len(data)] = data
        if step == "data":
            patches.write(data, at)
        else:
            patches.zero(len(data), at)
    model.extend(bytes(max(0, size * SECTOR - len(model))))

    storage = OverlayStorage(MemoryStorage(base), patches, size * SECTOR)

    assert storage.size == len(model)
    assert storage.pread(len(model), 0) == model
    for at in range(0, len(model), 3000):
        count = min(5000, len(model) - at)
        assert storage.pread(count, at) == model[at : at + count]
        found = list(storage.extents(at, count)) if count else []
        assert sum(extent.length for extent in found) == count
