from __future__ import annotations

import itertools
import random

import pytest

from sources import BytesReader, mixed
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import UsageError
from vsssnap.testing import MemoryReader, check_reader
from vsssnap.volumes import Exclusion, UnusedPolicy
from vsssnap.volumes._runs import Runs, of_bits, of_bytes
from vsssnap.volumes.base import FileSystem
from vsssnap.volumes.view import FileSystemView

UNIT = 512


class Made(FileSystem):
    """A file system with a map of a test's choice."""

    name = "made"
    block_size = UNIT
    _page_blocks = 64

    def __init__(self, volume: MemoryReader | BytesReader, bitmap: bytes, base: int) -> None:
        super().__init__(volume)
        self._base = base
        self._bitmap = bitmap
        self._blocks = len(bitmap) * 8
        self.size = base + self._blocks * UNIT
        self.out: list[Extent] = []
        self.blanks: list[tuple[Extent, str]] = []

    def _page(self, first: int, count: int) -> Runs:
        return of_bits(self._bitmap[first // 8 :], count)

    def excluded(self, exclude: object, /) -> list[tuple[Exclusion, str, list[Extent]]]:
        return [(Exclusion.PAGE_FILE, "\\pagefile.sys", self.out)] if exclude else []

    def blanked(self, exclude: object, /) -> list[tuple[Extent, str]]:
        return self.blanks


def truth(bitmap: bytes, base: int, size: int, out: list[Extent]) -> list[ExtentKind]:
    """The kind of every sector, in the plainest way."""
    kinds = [ExtentKind.DATA] * (size // UNIT)
    for block in range(len(bitmap) * 8):
        if not bitmap[block // 8] >> block % 8 & 1:
            kinds[base // UNIT + block] = ExtentKind.HOLE
    for extent in out:
        for sector in range(extent.offset // UNIT, extent.end // UNIT):
            kinds[sector] = ExtentKind.EXCLUDED
    return kinds


@pytest.mark.parametrize("seed", range(8))
def test_a_view_is_what_map_and_exclusions_say_of_every_sector(seed: int) -> None:
    rng = random.Random(seed)
    size, base = 700 * UNIT, 5 * UNIT
    content = rng.randbytes(size)
    bitmap = bytes(rng.choice((0, 0, 255, 255, rng.randrange(256))) for _ in range(80))
    fs = Made(MemoryReader(content), bitmap, base)
    at = rng.randrange(100)
    for _ in range(4):
        length = rng.randrange(1, 60)
        fs.out.append(Extent(at * UNIT, length * UNIT))
        at += length + rng.randrange(60)
    kinds = truth(bitmap, base, size, fs.out)
    view = fs.view()
    expected = b"".join(
        content[sector * UNIT : (sector + 1) * UNIT] if kind is ExtentKind.DATA else bytes(UNIT)
        for sector, kind in enumerate(kinds)
    )
    for _ in range(100):
        offset, length = rng.randrange(size), rng.randrange(1, 100 * UNIT)
        assert view.pread(length, offset) == expected[offset : offset + length]
        end = min(offset + length, size)
        seen: list[ExtentKind] = []
        here = offset
        for each in view.extents(offset, length):
            assert each.offset == here
            here = each.end
            seen += [each.kind] * ((each.end - 1) // UNIT - each.offset // UNIT + 1)
        assert here == end
    found = [each.kind for each in view.extents() for _ in range(each.length // UNIT)]
    assert found == kinds
    check_reader(lambda: fs.view(), expected)


def test_what_the_volume_knows_stays() -> None:
    size = 80 * UNIT
    given = [
        Extent(0, 16 * UNIT, ExtentKind.ZERO),
        Extent(16 * UNIT, 16 * UNIT, ExtentKind.UNREADABLE),
        Extent(32 * UNIT, 48 * UNIT),
    ]
    fs = Made(MemoryReader(bytes(size), given), b"\x0f\xf0" * 4, 0)
    kinds = [each.kind.name for each in fs.view().extents() for _ in range(each.length // UNIT // 4)]
    assert kinds[:8] == ["ZERO"] * 4 + ["UNREADABLE", "HOLE", "HOLE", "UNREADABLE"]
    assert kinds[8:] == ["DATA", "HOLE", "HOLE", "DATA"] * 2 + ["DATA"] * 4


def test_what_is_left_out_is_never_read() -> None:
    source = BytesReader(mixed(256 * UNIT), bad=[(8 * UNIT, 8 * UNIT)])
    fs = Made(source, b"\xff\x00" + b"\xff" * 30, 0)
    view = fs.view()
    assert view.pread(8 * UNIT, 8 * UNIT) == bytes(8 * UNIT)
    assert len(view.pread(256 * UNIT, 0)) == 256 * UNIT


def test_blanked_bytes_are_zero_in_every_read() -> None:
    content = b"\xaa" * (16 * UNIT)
    fs = Made(MemoryReader(content), b"\xff\xff", 0)
    fs.blanks = [(Extent(1000, 8), "eight bytes are zeroed")]
    view = fs.view(exclude=())
    expected = content[:1000] + bytes(8) + content[1008:]
    assert view.metadata.notes[0] == "eight bytes are zeroed"
    for offset in range(990, 1012):
        for length in range(1, 20):
            assert view.pread(length, offset) == expected[offset : offset + length]


def test_the_view_goes_with_what_it_owns() -> None:
    source = BytesReader(bytes(16 * UNIT), origins=("/dev/x",))
    fs = Made(source, b"\xff\xff", 0)
    view = FileSystemView(source, fs, owned=True)
    assert view.origins == ("/dev/x",)
    view.confirm()
    assert source.confirmed == 1
    view.close()
    assert source.closed
    other = BytesReader(bytes(16 * UNIT))
    Made(other, b"\xff\xff", 0).view().close()
    assert not other.closed


def test_arguments_are_checked() -> None:
    fs = Made(MemoryReader(bytes(16 * UNIT)), b"\xff\xff", 0)
    with pytest.raises(UsageError, match="unused is 'none'"):
        fs.view(unused="none")  # type: ignore[arg-type]  # that is the test
    with pytest.raises(UsageError, match="exclude is"):
        fs.view(exclude=["x"])  # type: ignore[list-item]  # that is the test
    assert fs.view(unused="read").metadata.notes  # type: ignore[arg-type]  # its value will do
    with pytest.raises(UsageError):
        fs.allocation(-1)
    assert list(fs.allocation(1 << 40)) == []
    assert UnusedPolicy("zero") is UnusedPolicy.ZERO


@pytest.mark.parametrize("seed", range(20))
def test_runs_of_bits_and_bytes_are_the_bits_and_bytes(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randrange(1, 700)
    bitmap = bytes(rng.choice((0, 255, rng.randrange(256))) for _ in range(-(-count // 8)))
    bits = [bool(bitmap[at // 8] >> at % 8 & 1) for at in range(count)]
    marks = bytes(rng.randrange(1, 256) if bit else 0 for bit in bits)
    for runs in (of_bits(bitmap + b"\x5a", count), of_bytes(marks, count)):
        start, stop = sorted(rng.randrange(count + 1) for _ in range(2))
        listed = list(runs.between(start, stop))
        assert [used for first, last, used in listed for _ in range(first, last)] == bits[start:stop]
        assert all(a[2] != b[2] and a[1] == b[0] for a, b in itertools.pairwise(listed))
