"""Damages `.vsnap` images in every way and watches what the library makes of them.

Run as a program, so that the limits of the process hold for the library and not for the test run::

    python vsnap_damage.py FOLDER IMAGE WAY [BITS]

It prints JSON: how many damages there were, what came of them, and every one that went wrong.  What
an image holds is written down here, never asked of the reader that is being tested.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from vsnap_images import FORMAT, documents, frame_bounds, noise, seal_box
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import CorruptImageError, DeviceReadError, ImageError
from vsssnap.formats import MemoryStorage
from vsssnap.formats.base import Depth
from vsssnap.formats.vsnap import VsnapOptions, frames, structs
from vsssnap.formats.vsnap.reader import VsnapReader
from vsssnap.formats.vsnap.writer import VsnapWriter
from vsssnap.imaging.opening import open_image
from vsssnap.imaging.verifying import verify_image

UNIT = 1 << 16
CELL = 4096
FAR = structs.FAN_OUT**2 * UNIT  # the first chunk of a tree with three levels
MEMORY = 64 << 20  # bytes that a damaged image of some kilobytes may cost
PATIENCE = 5.0  # seconds of the processor for one damage
EXTENTS = 10_000
SHOWN = 20


@dataclass
class Truth:
    """What an image holds.

    Attributes:
        size: Of the volume.
        extents: Of the whole volume.
        parts: Bytes by their offset; everything else is zero.
    """

    size: int
    extents: list[Extent]
    parts: dict[int, bytes] = field(repr=False)

    def bytes_at(self, offset: int, length: int) -> bytes:
        """Content of a range, which lies in one part or in none."""
        for start, part in self.parts.items():
            if start <= offset < start + len(part):
                return part[offset - start : offset - start + length].ljust(length, b"\0")
        return bytes(length)


class Tally:
    """What came of the damages."""

    def __init__(self) -> None:
        self.damages = self.noticed = self.right = self.refused = self.failed = 0
        self.failures: list[str] = []
        self.now = "no damage"

    def fail(self, what: str) -> None:
        self.failed += 1
        if len(self.failures) < SHOWN:
            self.failures.append(f"{self.now}: {what}")


# The small images.


def _text() -> bytes:
    return b"some words " * 372 + b"...."


def write_full(path: Path) -> Truth:
    """Every frame type of the format, raw and compressed segments, every state, three levels of pages."""
    size = FAR + 2 * UNIT + 700
    storage = MemoryStorage()
    chosen = VsnapOptions(level=3, chunk_size=UNIT, cell_size=CELL)
    writer = FORMAT.create(storage, size, options=chosen)
    assert isinstance(writer, VsnapWriter)
    writer.mark(Extent(0, FAR, ExtentKind.HOLE))
    writer.mark(Extent(FAR + 2 * CELL, CELL, ExtentKind.EXCLUDED))
    writer.mark(Extent(FAR + 3 * CELL + 100, 50, ExtentKind.UNREADABLE))
    writer.store(writer.encode(memoryview(_text() + bytes(UNIT - CELL)), FAR))
    # Data frames of other writers and later versions: optional ones are skipped.
    for kind in (structs.CHECKPOINT, structs.PARITY, 77):
        storage.append(frames.build(kind, storage.size, writer._image_id, [b"later"], critical=False))
    tail = noise(5, 300)
    writer.store(writer.encode(memoryview(tail + bytes(400)), FAR + 2 * UNIT))
    writer.finish(documents())
    writer.close()
    path.write_bytes(storage.data)
    bad = FAR + 3 * CELL + 100
    return Truth(
        size,
        [
            Extent(0, FAR, ExtentKind.HOLE),
            Extent(FAR, CELL, ExtentKind.DATA),
            Extent(FAR + CELL, CELL, ExtentKind.ZERO),
            Extent(FAR + 2 * CELL, CELL, ExtentKind.EXCLUDED),
            Extent(FAR + 3 * CELL, 100, ExtentKind.ZERO),
            Extent(bad, 50, ExtentKind.UNREADABLE),
            Extent(bad + 50, FAR + 2 * UNIT - bad - 50, ExtentKind.ZERO),
            Extent(FAR + 2 * UNIT, 700, ExtentKind.DATA),
        ],
        {FAR: _text(), FAR + 2 * UNIT: tail},
    )


def write_child(path: Path, parent: Path, below: Truth) -> Truth:
    """A child of `write_full`: cells of its own, marks, and PARENT cells in the same chunk and in others."""
    storage = MemoryStorage(name=str(path))
    own = noise(6, 200)
    with open_image(parent) as base:
        writer = FORMAT.create(storage, below.size, options=VsnapOptions(level=3), parent=base)
        unit = _text() + bytes(8 * CELL) + own
        writer.mark(Extent(FAR + 2 * CELL, CELL, ExtentKind.EXCLUDED))
        writer.store(writer.encode(memoryview(unit.ljust(UNIT, b"\0")), FAR))
        writer.mark(Extent(FAR + UNIT, UNIT, ExtentKind.HOLE))
        writer.finish(documents())
        writer.close()
    path.write_bytes(storage.data)
    last = FAR + 2 * UNIT
    return Truth(
        below.size,
        [
            Extent(0, FAR, ExtentKind.HOLE),
            Extent(FAR, CELL, ExtentKind.DATA),
            Extent(FAR + CELL, CELL, ExtentKind.ZERO),
            Extent(FAR + 2 * CELL, CELL, ExtentKind.EXCLUDED),
            Extent(FAR + 3 * CELL, 6 * CELL, ExtentKind.ZERO),
            Extent(FAR + 9 * CELL, CELL, ExtentKind.DATA),
            Extent(FAR + 10 * CELL, 6 * CELL, ExtentKind.ZERO),
            Extent(FAR + UNIT, UNIT, ExtentKind.HOLE),
            Extent(last, 700, ExtentKind.DATA),
        ],
        {FAR: unit, last: below.parts[last]},
    )


# A larger one.


def write_large(path: Path, seed: int = 0) -> Truth:
    """About half a megabyte: every state, raw and compressed frames, pages of two levels."""
    dice = random.Random(seed)
    first = structs.FAN_OUT * UNIT
    size = first + 24 * UNIT + 4000
    storage = MemoryStorage()
    chosen = VsnapOptions(level=1, chunk_size=UNIT, cell_size=CELL)
    writer = FORMAT.create(storage, size, options=chosen)
    at, extents, parts = 0, list[Extent](), dict[int, bytes]()

    def mark(length: int, kind: ExtentKind) -> None:
        nonlocal at
        writer.mark(Extent(at, length, kind))
        extents.append(Extent(at, length, kind))
        at += length

    def store(data: bytes) -> None:
        nonlocal at
        writer.store(writer.encode(memoryview(data), at))
        extents.append(Extent(at, len(data), ExtentKind.DATA))
        parts[at] = data
        at += len(data)

    mark(first - 2 * UNIT, ExtentKind.HOLE)
    mark(UNIT, ExtentKind.EXCLUDED)
    mark(UNIT, ExtentKind.UNREADABLE)
    for number in range(24):
        if number in (5, 17):
            mark(UNIT, (ExtentKind.HOLE, ExtentKind.ZERO)[number == 17])
        elif number % 3:
            store(dice.randbytes(600) * (UNIT // 600) + dice.randbytes(UNIT % 600))
        else:
            store(dice.randbytes(UNIT))
    store(dice.randbytes(4000))
    writer.finish(documents())
    writer.close()
    path.write_bytes(storage.data)
    merged: list[Extent] = []
    for extent in extents:
        if merged and merged[-1].kind is extent.kind:
            extent = Extent(merged[-1].offset, extent.end - merged.pop().offset, extent.kind)
        merged.append(extent)
    return Truth(size, merged, parts)


# What must hold.


def read_strictly(path: str, truth: Truth, tally: Tally) -> None:
    """The right states and bytes, or CorruptImageError."""
    refused = False
    try:
        with open_image(path, format="vsnap") as reader:
            try:
                if list(reader.extents()) != truth.extents:
                    tally.fail("wrong states")
            except CorruptImageError:
                refused = True
            for offset, length in _reads(truth):
                try:
                    if reader.pread(length, offset) != truth.bytes_at(offset, length):
                        tally.fail(f"wrong bytes at {offset}")
                except CorruptImageError:
                    refused = True
    except CorruptImageError:
        refused = True
    if refused:
        tally.refused += 1
    else:
        tally.right += 1


def _reads(truth: Truth) -> Iterator[tuple[int, int]]:
    """Ranges that are read: all data, and the edges of everything else that can be read."""
    for extent in truth.extents:
        if extent.kind is ExtentKind.DATA:
            for offset in range(extent.offset, extent.end, UNIT):
                yield offset, min(UNIT, extent.end - offset)
        elif extent.kind is not ExtentKind.UNREADABLE:
            yield extent.offset, 1
            yield extent.end - 1, 1


def read_recovering(path: str, truth: Truth, tally: Tally) -> None:
    """Every byte is right or unreadable, every state right or UNREADABLE."""
    try:
        reader = open_image(path, format="vsnap", recover=True)
    except CorruptImageError:
        tally.refused += 1
        return
    assert isinstance(reader, VsnapReader)
    with reader:
        if reader.size != truth.size:
            tally.fail(f"size {reader.size}")
            return
        whole = True
        wanted = iter(truth.extents)
        right = next(wanted)
        end = 0
        for extent in reader.extents():
            if extent.offset != end:
                tally.fail(f"states are not gap-free at {end}")
            at, end = extent.offset, extent.end
            while at < extent.end:
                if at >= right.end:
                    right = next(wanted)
                if extent.kind is not right.kind:
                    whole = False
                    if extent.kind is not ExtentKind.UNREADABLE:
                        tally.fail(f"{extent.kind} at {at}, not {right.kind}")
                at = min(extent.end, right.end)
        if end != truth.size:
            tally.fail(f"states end at {end}")
        for offset, length in _reads(truth):
            try:
                if reader.pread(length, offset) != truth.bytes_at(offset, length):
                    tally.fail(f"wrong bytes at {offset} in recover mode")
            except DeviceReadError:
                whole = False
            except CorruptImageError:
                tally.fail(f"bytes at {offset} were not found to be lost when the image was opened")
        if whole:
            tally.right += 1
        else:
            tally.refused += 1


def use(path: str, tally: Tally) -> None:
    """Everything that can be done with an image ends well or with an error of the library, and soon."""
    allowed = (ImageError, DeviceReadError)
    with contextlib.suppress(*allowed):
        verify_image(path, format="vsnap", depth=Depth.CONTENT)
    for recover in (False, True):
        with contextlib.suppress(*allowed), open_image(path, format="vsnap", recover=recover) as reader:
            with contextlib.suppress(*allowed):
                reader.info()
            places = [0, FAR, FAR + UNIT, FAR + 2 * UNIT, max(0, reader.size - 5)]
            with contextlib.suppress(*allowed):
                found = list(itertools.islice(reader.extents(), EXTENTS))
                places += [extent.offset for extent in found[:10]]
                if len(found) == EXTENTS:
                    tally.fail("extents without end")
            for place in places:
                with contextlib.suppress(*allowed):
                    reader.pread(UNIT, place)


# Damages: each leaves the file damaged until the next is asked for.


def flips(path: Path, data: bytes, bits: int) -> Iterator[str]:
    """Every byte, one bit at a time: all eight, or with fewer ``bits`` some that differ from byte to byte."""
    yield from _flips(path, data, bits, range(len(data)))


def fields(path: Path, data: bytes, bits: int) -> Iterator[str]:
    """`flips` without most of the zeros with which the two footers are filled up.

    With no ``bits`` one bit of every third byte.
    """
    filled = [range(last - 4000 + 300, last - 64) for last in (len(data) - 4096, len(data))]
    places = [at for at in range(len(data)) if not at % 64 or not any(at in each for each in filled)]
    yield from _flips(path, data, bits or 1, places if bits else places[::3])


def _flips(path: Path, data: bytes, bits: int, places: Iterable[int]) -> Iterator[str]:
    fd = os.open(path, os.O_WRONLY)
    try:
        for offset in places:
            byte = data[offset]
            for turn in range(bits):
                bit = turn if bits == 8 else (offset * 5 + turn) % 8
                os.pwrite(fd, bytes([byte ^ 1 << bit]), offset)
                yield f"bit {bit} of byte {offset}"
            os.pwrite(fd, bytes([byte]), offset)
    finally:
        os.close(fd)


def cuts(path: Path, data: bytes, bits: int) -> Iterator[str]:
    """Every length below the whole."""
    for length in reversed(range(len(data))):
        os.truncate(path, length)
        yield f"cut to {length} bytes"
    path.write_bytes(data)


def accidents(path: Path, data: bytes, count: int) -> Iterator[str]:
    """Random damage of many bytes at once, the same in every run."""
    dice = random.Random(1)
    bounds = frame_bounds(data)
    other = path.with_name("other.vsnap")
    write_large(other, seed=9)
    strange = other.read_bytes()
    number = 0
    while number < count:
        what, damaged = _accident(dice, data, bounds, strange)
        # What ends whole as another image is that one, damaged: it may be read as such in recover mode,
        # and if nothing of the first header is left.
        if damaged != data and not (what.startswith("another") and damaged.endswith(strange[-8300:])):
            path.write_bytes(damaged)
            yield f"{number}: {what}"
            number += 1
    path.write_bytes(data)


def _accident(
    dice: random.Random, data: bytes, bounds: list[tuple[int, int]], strange: bytes
) -> tuple[str, bytes]:
    at = dice.randrange(len(data))
    length = min(dice.choice([2, 8, 64, 512, 4096, 100_000]), len(data) - at)
    (a, b), (c, d) = sorted(dice.sample(bounds, 2))
    garbage = dice.randbytes(length)
    ways: dict[str, Callable[[], bytes]] = {
        "overwritten": lambda: data[:at] + garbage + data[at + length :],
        "zeroed": lambda: data[:at] + bytes(length) + data[at + length :],
        "ones": lambda: data[:at] + b"\xff" * length + data[at + length :],
        "cut out": lambda: data[:at] + data[at + length :],
        "put in": lambda: data[:at] + garbage + data[at:],
        "zeros put in": lambda: data[:at] + bytes(length) + data[at:],
        "frames exchanged": lambda: data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:],
        "frame twice": lambda: data[:b] + data[a:b] + data[b:],
        "frame over another": lambda: data[:c] + data[a:b] + data[c + b - a :],
        "frame gone": lambda: data[:a] + data[b:],
        "another image's bytes": lambda: data[:at] + strange[at : at + length] + data[at + length :],
        "another image's end": lambda: data[:at] + strange[at:],
        "end moved": lambda: data[:at] + data[-8192:],
        "garbage behind": lambda: data + garbage,
        "file twice": lambda: data + data,
    }
    what = dice.choice(list(ways))
    return f"{what}, {length} bytes at {at}, frames at {a} and {c}", ways[what]()


def forgeries(path: Path, data: bytes, bits: int) -> Iterator[str]:
    """What no accident does: fields are changed and the checks made to agree again.

    Every byte that a check covers, with single bits and with extreme numbers, in both footers alike; with
    no ``bits`` one number at every fourth byte.
    """
    bounds = frame_bounds(data)
    footers = [start for start, _ in bounds[-2:]]
    for start, end in bounds[:-1]:
        box = 8 + int.from_bytes(data[start + 4 : start + 8], "little")
        last = end if start not in footers else start + 500
        for offset in range(start, last):
            if start + structs.CHECK_AT <= offset < start + structs.HEAD or (not bits and offset % 4):
                continue
            for what, change in _changes(offset, data[offset], bits):
                forged = bytearray(data)
                forged[offset : offset + len(change)] = change[: end - offset]
                if start in footers:
                    away = footers[1] - footers[0]
                    forged[offset + away : offset + away + len(change)] = change[: end - offset]
                if offset >= start + box:
                    _seal_segments(forged, start, box)
                for each in footers if start in footers else [start]:
                    seal_box(forged, each)
                if forged != data:
                    path.write_bytes(forged)
                    yield f"{what} at {offset}, {offset - start} in the frame at {start}"
    path.write_bytes(data)


def _changes(offset: int, byte: int, bits: int) -> Iterator[tuple[str, bytes]]:
    for turn in range(bits):
        bit = turn if bits == 8 else (offset * 5 + turn) % 8
        yield f"bit {bit}", bytes([byte ^ 1 << bit])
    yield "ones", b"\xff" * 4
    if bits == 8:
        yield from (("many ones", b"\xff" * 8), ("zeros", bytes(4)), ("large", b"\xff\xff\xff\x0f"))


def _seal_segments(file: bytearray, start: int, box: int) -> None:
    """The check of the one segment of a small data frame, at the end of its box."""
    outer = int.from_bytes(file[start + 20 : start + 24], "little")
    stored = bytes(file[start + box : start + box + outer])
    file[start + box - 16 : start + box] = xxhash.xxh3_128_digest(stored)


WAYS = {"forgeries": forgeries, "flips": flips, "fields": fields, "cuts": cuts, "accidents": accidents}


# The program.


class TooLongError(BaseException):
    """Not an Exception, so that no handler of the library can swallow it."""


def _too_long(number: int, frame: object) -> None:
    raise TooLongError


def limit() -> None:
    """From here on memory may grow by `MEMORY` only."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    signal.signal(signal.SIGPROF, _too_long)


def run(folder: Path, image: str, way: str, amount: int, *, mode: str) -> dict[str, int | str | list[str]]:
    """Damage an image and watch.

    Args:
        folder: For the files.
        image: ``full``, ``child`` (the child is damaged), ``parent`` (its parent is) or ``large``.
        way: One of `WAYS`.
        amount: Bits of each byte, or the number of accidents.
        mode: ``strict``; ``content``: verify to that depth, and do not read; ``recover``: read in recover
            mode, and do not verify.
    """
    below, above = folder / "parent.vsnap", folder / "child.vsnap"
    truth = write_large(below) if image == "large" else write_full(below)
    damaged = looked_at = below
    if image in ("child", "parent"):
        truth = write_child(above, below, truth)
        looked_at = above
        damaged = above if image == "child" else below
    data = damaged.read_bytes()
    tally = Tally()
    sound = Tally()
    if not verify_image(looked_at).ok:
        sound.fail("the image is damaged from the start")
    read_strictly(str(looked_at), truth, sound)
    read_recovering(str(looked_at), truth, sound)
    if sound.failures or sound.refused:
        return {"damages": 0, "failures": [*sound.failures, f"{sound.refused} refused before any damage"]}
    limit()
    for what in WAYS[way](damaged, data, amount):
        tally.damages += 1
        tally.now = what
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)
        try:
            if way == "forgeries":
                use(str(looked_at), tally)
            elif mode == "recover":
                read_recovering(str(looked_at), truth, tally)
            else:
                depth = Depth.CONTENT if mode == "content" else None
                report = verify_image(looked_at, format="vsnap", depth=depth)
                tally.noticed += not report.ok
                if report.ok:
                    tally.fail("not noticed")
                if mode != "content":
                    read_strictly(str(looked_at), truth, tally)
        except (Exception, TooLongError) as exc:
            tally.fail(f"{type(exc).__name__}: {exc}")
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    with contextlib.suppress(OSError):
        damaged.write_bytes(data)
    return {"bytes": len(data), **vars(tally)}


def main(arguments: list[str]) -> None:
    """See the module."""
    folder, image, way, amount, mode = arguments
    print(json.dumps(run(Path(folder), image, way, int(amount), mode=mode)))  # noqa: T201 - its answer


if __name__ == "__main__":
    main(sys.argv[1:])
