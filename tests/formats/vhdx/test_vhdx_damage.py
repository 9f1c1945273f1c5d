"""Damaged VHDX files: the right bytes or an error of the library, in bounded time and memory.

Everything that is not payload is changed: each field of each structure, bit by bit, with the
checksum as it was and with one that fits; tables get random entries, and files are cut.  All of
it runs in one process of its own under a memory limit.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from vhdx_images import HEADERS, LOG_GUID, MIB, REGION_TABLES, Data, log_entry, map_of, seal, with_log, write
from vhdx_images import opened as open_one
from vsssnap.errors import ImageError, VssSnapError
from vsssnap.formats.base import Depth
from vsssnap.formats.vhdx import VhdxOptions

MEMORY = 1 << 30  # bytes of address space; a gentle read of these images needs a tenth
SLOWEST = 10.0  # seconds of work that one image may take; what waits for ever is ended with the process
SIZE = 3 * MIB

Case = tuple[str, bytearray, bool]  # name, file, whether other bytes than the right ones are a fault


def samples() -> tuple[bytes, bytes, bytes, bytes]:
    """A disk, an image of it, a child of that with the same disk but one sector, and a dirty one."""
    disk = random.Random(8).randbytes(SIZE)
    base = write(disk, VhdxOptions(block_size=MIB))
    with open_one(base) as parent:
        child = write(disk[:5] + b"!" + disk[6:], VhdxOptions(block_size=MIB), parent)
    where = map_of(base)
    entry = log_entry(1, 0, [Data(where.bat, base[where.bat : where.bat + 4096])], flushed=len(base))
    stale = bytearray(base)
    stale[where.bat : where.bat + 4096] = bytes(4096)
    return disk, base, child, bytes(with_log(bytes(stale), [(0, entry)]))


def fields(data: bytes) -> Iterator[tuple[str, int, int, int]]:
    """Name, first and last byte of what is changed, and where its sealed structure begins, or -1."""
    yield "identifier", 0, 8, -1
    for at in HEADERS:
        yield "header", at, at + 80, at
    for at in REGION_TABLES:
        yield "region table", at, at + 80, at
    where = map_of(data)
    yield "metadata table", where.metadata, where.metadata + 32 * (1 + len(where.items)), -1
    for guid, (at, length) in where.items.items():
        yield f"item {guid}", at, at + length, -1
    yield "BAT", where.bat, where.bat + 8 * 4, -1
    yield "bitmap entry", where.bitmap_entry(0), where.bitmap_entry(0) + 8, -1
    if any(data[MIB : MIB + 64]):
        yield "log entry", MIB, MIB + 96, MIB
        yield "log sector", MIB + 4096, MIB + 4096 + 16, MIB


def cases(dice: random.Random, share: float) -> Iterator[tuple[int, Case]]:
    """Which of the samples, and what became of it."""
    images = samples()[1:]
    sizes = {HEADERS[0]: 4096, HEADERS[1]: 4096, REGION_TABLES[0]: 65536, REGION_TABLES[1]: 65536, MIB: 8192}
    for number, data in enumerate(images):
        for name, first, last, start in fields(data):
            for place in range(first, last):
                if dice.random() > share:
                    continue
                for sealed in (False, True) if start >= 0 else (False,):
                    changed = bytearray(data)
                    changed[place] = dice.choice((changed[place] ^ 1 << dice.randrange(8), 0, 255))
                    if sealed:
                        seal(changed, start, sizes[start])
                    checked = start >= 0 and not sealed
                    yield number, (f"{name} byte {place - first} of {number}", changed, checked)
        for _ in range(int(40 * share) + 4):
            changed = bytearray(data)
            where = map_of(data)
            for block in range(4):
                entry = dice.choice((dice.getrandbits(64), dice.randrange(16) << 20 | dice.randrange(8)))
                at = dice.choice((where.entry(block), where.bitmap_entry(0)))
                changed[at : at + 8] = entry.to_bytes(8, "little")
            yield number, (f"random BAT of {number}", changed, False)
        for _ in range(int(40 * share) + 4):
            length = dice.choice(
                (dice.randrange(len(data)), dice.randrange(10) * MIB, dice.randrange(5 << 16))
            )
            yield number, (f"{number} cut to {length}", bytearray(data[:length]), True)
        for place in (*HEADERS, *REGION_TABLES, map_of(data).metadata, map_of(data).bat):
            yield number, (f"{number} noise at {place}", noisy(data, place, dice), False)


def noisy(data: bytes, place: int, dice: random.Random) -> bytearray:
    """A structure that is noise behind its signature, with a fitting checksum where there is one."""
    changed = bytearray(data)
    changed[place + 8 : place + 4096] = dice.randbytes(4088)
    if place in HEADERS:
        changed[place + 48 : place + 64] = LOG_GUID.bytes_le
        seal(changed, place, 4096)
    elif place in REGION_TABLES:
        seal(changed, place, 65536)
    return changed


def examine(number: int, case: Case) -> str:
    """Open, read and verify; gives what is wrong with that, or ""."""
    name, data, checked = case
    disk, base, _, _ = SAMPLES
    wanted = disk[:5] + b"!" + disk[6:] if number == 1 else disk
    for recover in (False, True):
        try:
            reader = open_one(data, *([base] if number == 1 else []), recover=recover)
        except ImageError:
            continue
        except Exception as exc:
            return f"{name}: opening raised {exc!r}"
        with reader:
            try:
                for extent in reader.extents(0, 2 * SIZE):
                    assert extent.length
                seen = reader.pread(2 * SIZE, 0)
                if checked and not recover and seen != wanted:
                    return f"{name}: other bytes"
            except VssSnapError:
                pass
            except Exception as exc:
                return f"{name}: reading raised {exc!r}"
            try:
                for _ in zip(range(1000), reader.verify(Depth.STRUCTURE, lambda _: None), strict=False):
                    pass
            except Exception as exc:
                return f"{name}: verifying raised {exc!r}"
    return ""


SAMPLES: tuple[bytes, bytes, bytes, bytes]


def main(share: float) -> None:
    """In the process of its own: print what is wrong, and at the end how many cases there were."""
    global SAMPLES
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    SAMPLES = samples()
    count = 0
    for number, case in cases(random.Random(1), share):
        count += 1
        started = time.process_time()
        wrong = examine(number, case)
        if not wrong and time.process_time() - started > SLOWEST:
            wrong = f"{case[0]}: {time.process_time() - started:.1f} s"
        if wrong:
            print(wrong)  # noqa: T201 - read by the test
    print(count)  # noqa: T201


def run(share: float, timeout: float) -> list[str]:
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}; "
        f"import runpy; runpy.run_path({__file__!r})['main']({share})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert not done.returncode, done.stderr[-3000:]
    return done.stdout.splitlines()


def test_damage_gives_right_bytes_or_an_error() -> None:
    *wrong, count = run(0.04, 200)
    assert not wrong
    assert int(count) > 100


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_damage_anywhere_gives_right_bytes_or_an_error() -> None:
    *wrong, count = run(1.0, 1700)
    assert not wrong
    assert int(count) > 1000
