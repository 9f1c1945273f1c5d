"""Volumes that are larger than any test machine: what is written of them is held, the rest is zeros."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self, SupportsIndex, cast

import pytest

from vsssnap import Extent, ExtentKind, Snapshot, open_image, save_image, verify_image
from vsssnap.testing.fake_vss import FakeVolume, FakeVss

TIB = 1 << 40


class Sparse:
    """The bytes of a volume."""

    def __init__(self, size: int, pieces: dict[int, bytes]) -> None:
        self.size, self.pieces = size, pieces

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: slice) -> bytes:
        start, end, _ = key.indices(self.size)
        found = bytearray(end - start)
        for at, piece in self.pieces.items():
            begin, stop = max(at, start), min(at + len(piece), end)
            if begin < stop:
                found[begin - start : stop - start] = piece[begin - at : stop - at]
        return bytes(found)

    def __bytes__(self) -> bytes:
        return Frozen(self)


class Frozen(bytes):
    """What a shadow copy has of it: only its length and slices are true."""

    def __new__(cls, of: Sparse) -> Self:
        self = super().__new__(cls)
        self.of = of
        return self

    of: Sparse

    def __len__(self) -> int:
        return self.of.size

    def __getitem__(self, key: SupportsIndex | slice) -> bytes:  # type: ignore[override]
        assert isinstance(key, slice)
        return self.of[key]


def add(fake_vss: FakeVss, size: int, cluster: int, used: dict[int, int], **facts: Any) -> FakeVolume:  # noqa: ANN401 - fields of FakeVolume
    """A volume of which only some clusters are in use: first and count; each begins with its offset."""
    volume = fake_vss.add_volume("C:\\", cluster_size=cluster, **facts)
    volume.data = cast("bytearray", Sparse(size, {at * cluster: str(at * cluster).encode() for at in used}))
    ends = [0, *(at + count for at, count in used.items())]
    starts = [*used, volume.clusters]
    volume.free = tuple((end, start - end) for end, start in zip(ends, starts, strict=True) if start > end)
    return volume


def data_of(extents: Iterable[Extent]) -> list[tuple[int, int]]:
    return [(e.offset, e.length) for e in extents if e.kind is ExtentKind.DATA]


def test_a_volume_of_five_tebibytes_is_saved_by_its_used_clusters(fake_vss: FakeVss, tmp_path: Path) -> None:
    size = 5 * TIB + 512  # a sector for the backup boot sector
    used = {0: 2, (2 * TIB >> 12) - 1: 2, (4 * TIB >> 12) + 5: 1, (5 * TIB >> 12) - 1: 1}
    volume = add(fake_vss, size, 4096, used)
    expected = [(at << 12, count << 12) for at, count in used.items()]
    expected[-1] = (expected[-1][0], 4096 + 512)
    with Snapshot("C:") as s, s.open() as disk:
        assert (disk.size, data_of(disk.extents())) == (size, expected)
        save_image(disk, tmp_path / "large.vsnap")
    assert verify_image(tmp_path / "large.vsnap").ok
    with open_image(tmp_path / "large.vsnap") as image:
        for offset, length in expected:
            assert image.pread(length, offset) == volume.data[offset : offset + length] != bytes(length)
        assert image.pread(4096, 3 * TIB) == bytes(4096)
    assert (tmp_path / "large.vsnap").stat().st_size < 8 << 20


@pytest.mark.parametrize("cluster", [512, 65536, 2 << 20])
def test_clusters_beyond_any_number_of_32_bits_are_found(fake_vss: FakeVss, cluster: int) -> None:
    edge = 1 << 32
    used = {edge - 8: 8, edge + 3: 1, edge + (1 << 20): 70}
    volume = add(fake_vss, (edge + (2 << 20)) * cluster + 512, cluster, used)
    with Snapshot("C:") as s, s.open() as disk:
        begin, end = (edge - (1 << 20)) * cluster, disk.size
        expected = [(at * cluster, count * cluster) for at, count in used.items()]
        assert data_of(disk.extents(begin, end - begin)) == [*expected, (disk.size - 512, 512)]
        for offset, _ in expected:
            assert disk.pread(700, offset - 100) == volume.data[offset - 100 : offset + 600]


def test_cluster_sizes_from_one_sector_to_two_mebibytes(fake_vss: FakeVss) -> None:
    for shift in range(9, 22):
        cluster = 1 << shift
        with contextlib.ExitStack() as stack:
            volume = add(fake_vss, 64 * cluster + 512, cluster, {3: 1, 9: 2})
            stack.callback(fake_vss.volumes.remove, volume)
            s = stack.enter_context(Snapshot("C:"))
            disk = stack.enter_context(s.open())
            expected = [(3 * cluster, cluster), (9 * cluster, 2 * cluster), (64 * cluster, 512)]
            assert data_of(disk.extents()) == expected
