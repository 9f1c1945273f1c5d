from __future__ import annotations

import random

import pytest

import qcow2_images as images
from vsssnap.blocks.extent import Extent
from vsssnap.formats.base import Depth, Finding
from vsssnap.formats.qcow2 import Qcow2Options, refcounts

KIB = 1 << 10
CLUSTER = 4096
VOLUME = random.Random(1).randbytes(64 * KIB) + bytes(64 * KIB) + b"text" * (4 * KIB)
COPIED = 1 << 63


def check(data: bytes | bytearray, *, recover: bool = False) -> list[Finding]:
    counts: list[int] = []
    with images.opened(data, recover=recover) as reader:
        found = list(reader.verify(Depth.STRUCTURE, counts.append))
    assert all(count >= 0 for count in counts)
    return found


def messages(data: bytes | bytearray) -> list[str]:
    return [found.message for found in check(data)]


def sound(options: Qcow2Options | None = None) -> bytearray:
    return images.write(VOLUME, options or Qcow2Options(cluster_size=CLUSTER))


def host(data: bytearray, cluster: int) -> int:
    return images.get(data, images.l2_entry_at(data, cluster)) & 0x00FF_FFFF_FFFF_FE00


@pytest.mark.parametrize("compression", ["none", "zlib", "zstd"])
@pytest.mark.parametrize("cluster_size", [512, 4096, 64 * KIB])
def test_sound_image_has_no_findings(compression: str, cluster_size: int) -> None:
    options = Qcow2Options(cluster_size=cluster_size, compression=compression)  # type: ignore[arg-type]
    assert check(sound(options)) == []


@pytest.mark.parametrize("window", [1, 7, 16])
def test_file_is_counted_in_windows(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from vsssnap.formats.qcow2 import verify

    monkeypatch.setattr(refcounts, "WINDOW", window)
    monkeypatch.setattr(verify, "WINDOW", window)
    data = sound(Qcow2Options(cluster_size=CLUSTER, compression="zlib"))
    assert check(data) == []
    leak = images.changed(data, images.refcount_at(data, 2), 5, ">H")
    assert [found.offset for found in check(leak)] == [2 * CLUSTER, images.get(data, images.L1_OFFSET)]


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (0, "its refcount is 0, 1 references were found"),
        (2, "its refcount is 2, 1 references were found: a leak"),
    ],
)
def test_wrong_refcount_is_found(count: int, message: str) -> None:
    data = sound()
    cluster = host(data, 3) // CLUSTER
    bad = images.changed(data, images.refcount_at(data, cluster), count, ">H")
    first, second = check(bad)
    assert (first.structure, first.offset) == ("refcount block", cluster * CLUSTER)
    assert first.message == f"cluster {cluster}: {message}"
    assert second.message == f"the COPIED flag is wrong: the cluster's refcount is {count}"


def test_leak_of_several_clusters_is_one_finding() -> None:
    data = sound()
    end = len(data) // CLUSTER
    for cluster in range(end, end + 5):
        data = images.changed(data, images.refcount_at(data, cluster), 1, ">H")
    data += bytes(5 * CLUSTER)
    (found,) = check(data)
    assert found.message == (
        f"clusters {end} to {end + 4}: its refcount is 1, 0 references were found: a leak"
    )


def test_two_guest_clusters_in_one_host_cluster_are_found() -> None:
    data = sound()
    bad = images.changed(data, images.l2_entry_at(data, 3), host(data, 5) | COPIED)
    assert (
        f"cluster {host(data, 3) // CLUSTER}: its refcount is 1, 0 references were found: a leak"
        in messages(bad)
    )
    assert f"cluster {host(data, 5) // CLUSTER}: its refcount is 1, 2 references were found" in messages(bad)


def test_guest_cluster_over_the_header_is_found_whatever_its_refcount_says() -> None:
    data = images.changed(sound(), images.refcount_at(sound(), 1), 2, ">H")  # the L1 table's cluster
    bad = images.changed(data, images.l2_entry_at(data, 3), CLUSTER)
    assert "cluster 1: it is used 2 times, as metadata and guest data" in messages(bad)


def test_entries_that_cannot_be_are_found_with_what_is_lost() -> None:
    data = sound()
    for cluster, value in ((3, 1 << 50 | COPIED), (9, 5 * CLUSTER + 512), (10, 1 << 62 | 1 << 40)):
        data = images.changed(data, images.l2_entry_at(data, cluster), value)
    lost = [found.extent for found in check(data) if found.extent]
    assert lost == [Extent(n * CLUSTER, CLUSTER) for n in (3, 9, 10)]


def test_table_behind_the_end_loses_all_it_maps() -> None:
    data = sound()
    bad = images.changed(data, images.get(data, images.L1_OFFSET), 1 << 40 | COPIED)
    assert Extent(0, len(VOLUME)) in [found.extent for found in check(bad)]


def test_table_of_two_entries_is_walked_once() -> None:
    size = 4 * CLUSTER // 8 * CLUSTER  # four L2 tables
    data = images.write(VOLUME.ljust(size, b"\1"), Qcow2Options(cluster_size=CLUSTER))
    l1 = images.get(data, images.L1_OFFSET)
    bad = images.changed(data, l1 + 16, images.get(data, l1))
    found = [item for item in check(bad) if item.structure == "L1 table" and item.extent]
    assert [(item.message, item.extent) for item in found] == [
        ("entry 2 has the L2 table of another entry", Extent(size // 2, size // 4))
    ]


def test_wrong_copied_flag_of_a_table_is_found() -> None:
    data = sound()
    l1 = images.get(data, images.L1_OFFSET)
    bad = images.changed(data, l1, images.get(data, l1) & ~COPIED)
    (found,) = check(bad)
    assert (found.structure, found.offset) == ("L1 table", l1)
    assert found.message == "the COPIED flag is wrong: the cluster's refcount is 1"


@pytest.mark.parametrize(
    ("compression", "bits", "message"),
    [
        ("none", 1 << 60, "reserved bits are set: 0x1000000000000000"),
        ("none", 2, "reserved bits are set: 0x2"),
        ("zlib", COPIED, "the COPIED flag of a compressed cluster is set"),
    ],
)
def test_bits_that_must_not_be_set_are_found(compression: str, bits: int, message: str) -> None:
    data = sound(Qcow2Options(cluster_size=CLUSTER, compression=compression))  # type: ignore[arg-type]
    at = images.l2_entry_at(data, 35)  # text
    (found,) = check(images.changed(data, at, images.get(data, at) | bits))
    assert (found.structure, found.offset, found.message) == ("L2 table", at, message)


def test_refcount_table_that_is_misplaced_is_found_and_the_disk_is_read() -> None:
    data = sound()
    for offset, value in ((images.TABLE_OFFSET, 1 << 50), (images.TABLE_OFFSET, 5)):
        bad = images.changed(data, offset, value)
        (found,) = check(bad)
        assert found.structure == "refcount table"
        with images.opened(bad) as reader:
            assert reader.readall() == VOLUME
    bad = images.changed(data, images.get(data, images.TABLE_OFFSET), 1 << 50)
    assert "entry 0 is 0x4000000000000: not aligned or not in the file" in messages(bad)


def test_dirty_image_says_so_and_its_refcounts_are_not_compared() -> None:
    data = images.changed(sound(), images.INCOMPATIBLE, 1)
    bad = images.changed(data, images.refcount_at(data, 2), 9, ">H")
    assert [message[:17] for message in messages(bad)] == ["the dirty bit is "]


def test_image_marked_corrupt_says_so() -> None:
    found = check(images.changed(sound(), images.INCOMPATIBLE, 2), recover=True)
    assert [item.message for item in found] == ["it is marked corrupt"]


def test_payload_is_not_checked() -> None:
    """QCOW2 has no checksum of it: that takes a side-car."""
    data = sound()
    data[host(data, 3) + 5] ^= 1
    assert check(data) == []


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
def test_refcounts_of_every_width_are_unpacked(bits: int) -> None:
    # Big-endian from a byte on; below, bit 0 of a byte is the first one's.
    values = [n % 2 ** min(bits, 20) for n in range(1, 65)]
    if bits >= 8:
        data = b"".join(value.to_bytes(bits // 8, "big") for value in values)
    else:
        each = 8 // bits
        data = bytes(
            sum(value << n * bits for n, value in enumerate(values[at : at + each]))
            for at in range(0, len(values), each)
        )
    assert list(refcounts.unpack_counts(data, bits)) == values


@pytest.mark.parametrize("cluster", [0, 1, 5, 6, 7, 8, 63])
@pytest.mark.parametrize("order", range(7))
def test_the_last_cluster_that_is_counted_is_told_at_every_width(order: int, cluster: int) -> None:
    """QEMU, docs/interop/qcow2.txt, "Refcount block": big-endian; below a byte, from its lowest bits on."""
    bits = 1 << order
    for count in (1, 1 << (bits - 1)):
        data = images.changed(sound(), images.REFCOUNT_ORDER, order, ">I")
        at = images.get(data, images.get(data, images.TABLE_OFFSET))
        block = bytearray(CLUSTER)
        for each in (0, cluster):
            if bits < 8:
                block[each * bits // 8] |= count << each * bits % 8
            else:
                block[each * bits // 8 : (each + 1) * bits // 8] = count.to_bytes(bits // 8, "big")
        data[at : at + CLUSTER] = block
        with images.opened(data) as reader:
            files = reader._files
            assert refcounts.Refcounts(files.storage, files.layout, files.tables).last() == cluster
