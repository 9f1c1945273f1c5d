"""What the writer leaves: after a power cut, for other programs, and of huge and long volumes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from checkout import TOP
from requirements import require_program
from vsnap_images import FORMAT, documents, findings, noise, opened, resolver, write
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import CorruptImageError, DeviceReadError
from vsssnap.formats import MemoryStorage
from vsssnap.formats.base import Depth
from vsssnap.formats.vsnap import VsnapOptions
from vsssnap.imaging.saving import save_image
from vsssnap.testing.powercut import PowerCut

CHUNK = 1 << 16
CELL = 4096
MIB = 1 << 20
TIB = 1 << 40


# Power cuts.


def recorded(base: bytes | None) -> tuple[PowerCut, bytes, list[bytes]]:
    """A recorder with every write of an image, its content, and the files below it."""
    data = bytearray(bytes(range(256)) * 1024 + bytes(CHUNK) + b"tail" * 3000)
    marks = [Extent(4 * CHUNK, CHUNK, ExtentKind.HOLE)]
    chosen = VsnapOptions(level=1, chunk_size=CHUNK, cell_size=CELL)
    recorder = PowerCut()
    if base is None:
        write(recorder, data, marks, options=chosen, metadata=documents())
        return recorder, bytes(data), []
    data[CHUNK : CHUNK + 100] = bytes(100)
    data[5 * CHUNK : 5 * CHUNK + 9] = b"different"
    with opened(base) as parent:
        parent.path = "0.vsnap"
        write(recorder, data, options=None, parent=parent, only=[1, 5], metadata=documents())
    return recorder, bytes(data), [base]


@pytest.mark.parametrize("which", ["full", "child"])
def test_a_power_cut_at_any_write_leaves_the_complete_image_or_one_that_says_it_is_not(which: str) -> None:
    base = recorded(None)[0].content() if which == "child" else None
    recorder, data, parents = recorded(base)
    final = recorder.content()
    resolve = resolver(parents) if parents else None
    whole = refused = recovered = 0
    for cut in recorder.cuts(subsets=4, torn=True):
        file = bytes(cut.storage.data)
        try:
            reader = FORMAT.open(cut.storage, resolve_parent=resolve)
        except CorruptImageError as exc:
            refused += 1
            assert file != final, cut.description
            assert "incomplete" in exc.message, cut.description  # noqa: PT017 - some cuts are refused, not all
            if (
                file[:224] == final[:224]
            ):  # else nothing says what it is: not even the header came to the disk
                recovered += 1
                check_recovered(file, data, parents, cut.description)
            continue
        with reader:
            whole += 1
            # One of the two footers may be torn; that is seen, and everything is there.
            assert reader.pread(len(data), 0) == data, cut.description
            found = {finding.structure for finding in findings(reader, Depth.CONTENT)}
            assert found <= (set() if file == final else {"footer", "frame"}), cut.description
    # Complete is what comes after the last write, and what a cut leaves with one footer.
    assert whole >= 2
    assert refused > recovered > recorder.operations


def check_recovered(file: bytes, data: bytes, parents: list[bytes], why: str) -> None:
    """What is left of an incomplete image is right or unreadable."""
    with opened(file, recover=True, parents=parents) as reader:
        for extent in reader.extents():
            if extent.kind is not ExtentKind.UNREADABLE:
                assert reader.pread(extent.length, extent.offset) == data[extent.offset : extent.end], why
            else:
                with pytest.raises(DeviceReadError):
                    reader.pread(1, extent.offset)


# Debian's zstd.


def test_the_zstd_program_gives_the_stored_cells_of_a_large_image(tmp_path: Path) -> None:
    """With the default sizes; frames of raw and of compressed blocks in one chunk and one file."""
    program = require_program("zstd")
    dice = random.Random(1)
    parts = [
        dice.randbytes(MIB),
        b"compressible " * 100_000,
        bytes(3 * MIB),
        dice.randbytes(300_000) + b"text" * 150_000,
        bytes(65536) + b"x",
        dice.randbytes(7 * MIB + 13),
    ]
    data = b"".join(parts)
    path = tmp_path / "a.vsnap"
    save_image(Bytes(data), path, options=VsnapOptions(level=3), metadata=documents())
    cells = [data[at : at + 65536] for at in range(0, len(data), 65536)]
    wanted = b"".join(cell for cell in cells if any(cell))
    subprocess.run([program, "-t", str(path)], check=True, capture_output=True, timeout=60)
    out = tmp_path / "out"
    subprocess.run([program, "-d", str(path), "-o", str(out)], check=True, capture_output=True, timeout=60)
    assert out.read_bytes() == wanted
    with opened(path.read_bytes()) as reader:
        assert reader.footer is not None
        body = reader.footer.body
        assert body.plain_bytes == len(wanted)
        assert 8 * MIB < body.outer_bytes < 9 * MIB, "one of the two kinds of blocks is missing"


class Bytes:
    """A source that says nothing of its extents."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def pread(self, length: int, offset: int, /) -> bytes:
        return self.data[offset : offset + length]


# Giants.


class Giant:
    """A sparse volume with a few bytes here and there; counts its reads."""

    def __init__(self, size: int, places: Sequence[int]) -> None:
        self.size = size
        self.places = sorted(place - place % CELL for place in places)
        self.reads = 0

    def pread(self, length: int, offset: int, /) -> bytes:
        self.reads += 1
        data = bytearray(min(length, self.size - offset))
        for place in self.places:
            if offset <= place < offset + len(data):
                data[place - offset] = 7
        return bytes(data)

    def extents(self, offset: int = 0, length: int | None = None) -> Iterator[Extent]:
        at = 0
        for place in self.places:
            if place > at:
                yield Extent(at, place - at, ExtentKind.HOLE)
            end = min(place + CELL, self.size)
            yield Extent(place, end - place)
            at = end
        if at < self.size:
            yield Extent(at, self.size - at, ExtentKind.HOLE)


class CountingStorage(MemoryStorage):
    """Counts reads and appends."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = self.appends = 0

    def pread(self, length: int, offset: int, /) -> bytes:
        self.reads += 1
        return super().pread(length, offset)

    def append(self, parts: Sequence[bytes | bytearray | memoryview], /) -> int:
        self.appends += 1
        return super().append(parts)


@pytest.mark.parametrize("size", [8 * TIB, 64 * TIB, 64 * TIB + 511])
def test_a_giant_costs_what_it_holds(size: int) -> None:
    """Kilobytes, and reads and writes by the handful: that is what makes it a matter of a second."""
    places = [0, size // 3, size // 2, size - 1]
    source, storage = Giant(size, places), CountingStorage()
    report = save_image(source, storage, format="vsnap")
    assert report.size == size
    assert source.reads <= 2 * len(places)
    # For each place a data frame and a page of each level; header, states, metadata, footers.
    assert storage.appends <= 4 * len(places) + 8
    assert storage.size < 160_000
    storage.reads = 0
    with FORMAT.open(storage) as reader:
        for place in source.places:
            assert reader.pread(3, place)[:1] == b"\7"
        assert storage.reads <= 4 + 5 * len(places)
        data = [extent for extent in reader.extents() if extent.kind is ExtentKind.DATA]
        assert [extent.offset for extent in data] == [place - place % 65536 for place in source.places]
        assert findings(reader, Depth.CONTENT) == []


def test_an_increment_of_a_giant_costs_what_changed() -> None:
    size = 64 * TIB
    base, child = MemoryStorage(), CountingStorage()
    save_image(Giant(size, [5, size // 2]), base, format="vsnap")
    with opened(bytes(base.data)) as parent:
        parent.path = "0.vsnap"
        source = Giant(size, [5, size // 2, size // 4 * 3])
        save_image(source, child, format="vsnap", parent=parent)
    assert child.size < 80_000
    assert child.appends <= 12
    with opened(bytes(child.data), parents=[bytes(base.data)]) as reader:
        for place in source.places:
            assert reader.pread(1, place) == b"\7"
        assert findings(reader, Depth.CONTENT) == []


@pytest.mark.parametrize("size", [0, 1, 511, 512, 4095, 4097])
@pytest.mark.parametrize(
    "options",
    [
        VsnapOptions(),
        VsnapOptions(chunk_size=CHUNK, cell_size=CELL),
        VsnapOptions(chunk_size=CHUNK, cell_size=CHUNK),
    ],
    ids=["default", "small", "one-cell"],
)
def test_tiny_volumes_go_through_the_pipeline(size: int, options: VsnapOptions) -> None:
    data, storage = noise(3, size), MemoryStorage()
    save_image(Bytes(data), storage, format="vsnap", options=options)
    with opened(bytes(storage.data)) as reader:
        assert reader.pread(size + 1, 0) == data
        assert findings(reader, Depth.CONTENT) == []
    with opened(bytes(storage.data), recover=True) as reader:
        assert reader.pread(size + 1, 0) == data


# Memory.

PEAKS = """
import json, os, random, sys
sys.path[:0] = {paths!r}
import vsssnap
from vsssnap.formats.vsnap import VsnapOptions

MIB = 1 << 20
words = random.Random(1).randbytes(200)

class Source:
    def __init__(self, size):
        self.size = size
    def pread(self, length, offset):
        # A block of its own each time, half of it compressible: nothing here is shared or kept.
        head = offset.to_bytes(8, "little")
        return (head + words * (length // 200 + 1))[:length]

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

def forget():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")

folder = sys.argv[1]
result = {{}}
# How full all buffers are at once is up to chance, so the small one is saved several times.
for name, size in (*[("small", 256 * MIB)] * 6, ("large", {large} * MIB)):
    forget()
    path = os.path.join(folder, name + ".vsnap")
    vsssnap.save_image(Source(size), path, copy=vsssnap.CopyOptions(workers=2), replace=True)
    result[name] = max(peak(), result.get(name, 0))
forget()
assert vsssnap.verify_image(path, depth=vsssnap.Depth.CONTENT).ok
result["verify"] = peak()
forget()
with vsssnap.open_image(path) as reader:
    dice = random.Random(2)
    for offset in range(0, reader.size, 8 * MIB):
        reader.pread(MIB, offset)
        reader.pread(4096, dice.randrange(reader.size))
result["read"] = peak()
print(json.dumps(result))
"""


def peaks(folder: Path, large: int) -> dict[str, int]:
    """Peaks of resident memory, each since the one before: saves of 256 MiB, of ``large`` MiB ..."""
    text = PEAKS.format(paths=[str(TOP / "src")], large=large)
    done = subprocess.run(
        [sys.executable, "-c", text, str(folder)], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


def check_peaks(found: dict[str, int]) -> None:
    assert found["large"] < found["small"] + 12 * MIB, found
    # What stays bounded by the reader's cache and one chunk, however large the image.
    assert found["verify"] < found["large"] + 80 * MIB, found
    assert found["read"] < found["large"] + 80 * MIB, found


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="peaks are told by /proc")
def test_memory_is_flat_as_the_volume_grows(tmp_path: Path) -> None:
    check_peaks(peaks(tmp_path, 1024))


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="peaks are told by /proc")
def test_memory_is_flat_for_a_large_volume(tmp_path: Path) -> None:
    check_peaks(peaks(tmp_path, 4096))
