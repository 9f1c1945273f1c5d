"""One worker and sixteen give the same: images, reports, findings and errors; and both end when told to."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from sources import BytesReader, mixed, noise
from vsssnap.blocks import pipeline
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import CorruptImageError, DeviceReadError, TargetError
from vsssnap.formats import MemoryStorage
from vsssnap.formats.base import Depth
from vsssnap.formats.vsnap import VsnapOptions
from vsssnap.imaging.comparing import compare_blocks
from vsssnap.imaging.copying import copy_blocks
from vsssnap.imaging.opening import open_image
from vsssnap.imaging.reports import CopyOptions, CopyReport, OnReadError, Progress
from vsssnap.imaging.restoring import restore_image
from vsssnap.imaging.saving import save_image
from vsssnap.imaging.verifying import verify_image
from waiting import until

MIB = 1 << 20
SIZE = 24 * MIB + 512
DATA = mixed(SIZE, seed=10, piece=300_000)
MAP = [
    Extent(0, 5 * MIB + 4096),
    Extent(5 * MIB + 4096, MIB, ExtentKind.HOLE),
    Extent(6 * MIB + 4096, 12 * MIB),
    Extent(18 * MIB + 4096, 512, ExtentKind.EXCLUDED),
    Extent(18 * MIB + 4608, SIZE - 18 * MIB - 4608),
]
TRUTH = bytearray(DATA)
for _gap in MAP[1], MAP[3]:
    TRUTH[_gap.offset : _gap.end] = bytes(_gap.length)
BAD = [(2 * MIB + 512, 1024), (9 * MIB, 512), (17 * MIB, 3 * 512)]
WORKERS = (1, 16)


def source(**more: Any) -> BytesReader:  # noqa: ANN401 - what BytesReader takes
    return BytesReader(DATA, extents=MAP, **more)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def facts(report: CopyReport) -> CopyReport:
    """A report without what differs from run to run."""
    return dataclasses.replace(report, seconds=0.0, path="", stored=None)


def both(call: Callable[[int], Any]) -> list[Any]:
    return [call(workers) for workers in WORKERS]


@pytest.fixture
def all_workers(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """How many there are where no option says it."""
    return lambda count: monkeypatch.setattr(pipeline, "default_workers", lambda: count)


def unchanged_threads() -> Callable[[], bool]:
    """Whether as many threads run as now; those that end get a moment for it."""
    before = threading.active_count()

    return lambda: until(lambda: threading.active_count() <= before)


@pytest.mark.parametrize("format", ["vsnap", "raw", "qcow2", "vhdx", "vhd", "vmdk"])
def test_saving_restoring_and_converting_give_the_same(format: str, tmp_path: Path) -> None:
    def save(workers: int) -> CopyReport:
        path = tmp_path / f"{workers}.{format}"
        return facts(save_image(source(), path, copy=CopyOptions(workers=workers), wrap=False))

    def back(workers: int) -> tuple[CopyReport, str]:
        # Written by the one number, read by the other.
        path = tmp_path / f"back-{workers}.raw"
        copy = CopyOptions(workers=workers)
        report = restore_image(tmp_path / f"{17 - workers}.{format}", path, copy=copy, verify=True)
        return facts(report), digest(path)

    def convert(workers: int) -> tuple[CopyReport, str]:
        path = tmp_path / f"converted-{workers}.vsnap"
        with open_image(tmp_path / f"{workers}.{format}") as image:
            options = VsnapOptions(image_id=UUID(int=1))
            report = save_image(image, path, options=options, copy=CopyOptions(workers=workers), wrap=False)
        return facts(report), digest(path)

    one, sixteen = both(save)
    assert one == sixteen
    one, sixteen = both(back)
    assert one == sixteen
    assert one[1] == hashlib.sha256(TRUTH).hexdigest()
    one, sixteen = both(convert)
    assert one == sixteen, "what is written in order does not depend on who was faster"


def test_a_target_gets_every_byte_by_rising_offset() -> None:
    class Target:
        size = SIZE

        def __init__(self) -> None:
            self.calls: list[tuple[int, int]] = []
            self.hash = hashlib.sha256()

        def pwrite(self, data: memoryview, offset: int, /) -> int:
            self.calls.append((offset, len(data)))
            self.hash.update(data)
            return len(data)

    for workers in WORKERS:
        target = Target()
        copy_blocks(source(), target, copy=CopyOptions(workers=workers))
        ends = [offset + length for offset, length in target.calls]
        assert [offset for offset, _ in target.calls] == [0, *ends[:-1]]
        assert target.hash.digest() == hashlib.sha256(TRUTH).digest()


def test_the_first_failing_range_is_the_error(tmp_path: Path) -> None:
    """Whichever is met first: those that lie before it are slower here."""

    def slower(offset: int) -> None:
        time.sleep(0.1 if offset < 3 * MIB else 0.0)

    for workers in WORKERS:
        with pytest.raises(DeviceReadError, match=f"bad at {BAD[0][0]}") as caught:
            save_image(
                source(bad=BAD, before_read=slower), tmp_path / "a.vsnap", copy=CopyOptions(workers=workers)
            )
        assert caught.value.offset == BAD[0][0]
        assert os.listdir(tmp_path) == []


def test_the_same_ranges_are_unreadable(tmp_path: Path) -> None:
    def save(workers: int) -> CopyReport:
        path, copy = tmp_path / f"{workers}.vsnap", CopyOptions(workers=workers)
        return facts(save_image(source(bad=BAD), path, on_read_error=OnReadError.MARK, copy=copy))

    one, sixteen = both(save)
    assert one == sixteen
    assert [(extent.offset, extent.length) for extent in one.unreadable] == BAD


def test_a_full_target_is_the_error(tmp_path: Path) -> None:
    class Full(MemoryStorage):
        def append(self, parts: Any, /) -> int:  # noqa: ANN401 - as Storage
            if self.size > 4 * MIB:
                raise TargetError("no space left", path="here", code=28)
            return super().append(parts)

    for workers in WORKERS:
        threads = unchanged_threads()
        with pytest.raises(TargetError, match="no space left"):
            save_image(source(), Full(), format="vsnap", copy=CopyOptions(workers=workers))
        assert threads()


def test_verifying_and_comparing_find_the_same(tmp_path: Path, all_workers: Callable[[int], None]) -> None:
    for name in ("a.vsnap", "a.raw"):
        save_image(source(), tmp_path / name)
    data = bytearray((tmp_path / "a.vsnap").read_bytes())
    for at in range(MIB, len(data) - MIB, 3 * MIB):
        data[at] ^= 1
    (tmp_path / "b.vsnap").write_bytes(data)

    def look(workers: int) -> list[Any]:
        all_workers(workers)
        found: list[Any] = []
        for name in ("a.vsnap", "a.raw", "b.vsnap"):
            for depth in (None, Depth.CONTENT):
                report = verify_image(tmp_path / name, depth=depth)
                found.append((name, report.ok, report.count, report.findings, report.checked))
        other = bytearray(TRUTH)
        for at in (0, 7 * MIB, SIZE - 1):
            other[at] ^= 1
        with open_image(tmp_path / "a.raw") as image:
            found.append(list(compare_blocks(image, BytesReader(bytes(other)))))
        return found

    one, sixteen = both(look)
    assert one == sixteen
    assert [each[1] for each in one[:-1]] == [True, True, True, True, False, False]
    assert [extent.offset for extent in one[-1]] == [0, 7 * MIB, SIZE // 512 * 512 - 512]


def test_damage_ends_a_restore_where_it_begins(tmp_path: Path) -> None:
    save_image(source(), tmp_path / "a.raw")
    with (tmp_path / "a.raw").open("r+b") as file:
        for at in (15 * MIB, 4 * MIB + 10):
            file.seek(at)
            file.write(noise(16, seed=at))
    said = []
    for workers in WORKERS:
        with pytest.raises(CorruptImageError) as caught:
            restore_image(tmp_path / "a.raw", tmp_path / "out.raw", copy=CopyOptions(workers=workers))
        said.append(str(caught.value))
        assert sorted(os.listdir(tmp_path)) == ["a.raw", "a.raw.vsssnap"]
    assert said[0] == said[1]
    assert f"bytes {4 * MIB} to" in said[0]


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("work", ["save", "restore", "convert", "verify", "compare"])
def test_ctrl_c_ends_it_and_leaves_nothing(
    work: str, workers: int, tmp_path: Path, all_workers: Callable[[int], None]
) -> None:
    all_workers(workers)
    image = tmp_path / "a.vsnap"
    save_image(source(), image)
    begun = threading.Event()
    threads, files = unchanged_threads(), set(os.listdir("/proc/self/fd"))

    def slowly(offset: int) -> None:
        begun.set()
        time.sleep(0.05)

    def ctrl_c(seen: Progress) -> None:
        if seen.done or begun.is_set():
            raise KeyboardInterrupt

    def go() -> None:
        options, slow = CopyOptions(workers=workers), source(before_read=slowly)
        if work == "save":
            save_image(slow, tmp_path / "b.vsnap", copy=options, progress=ctrl_c)
        elif work == "restore":
            restore_image(slow, tmp_path / "b.raw", copy=options, progress=ctrl_c)
        elif work == "convert":
            with open_image(image) as reader:
                save_image(reader, tmp_path / "b.qcow2", copy=options, progress=ctrl_c)
        elif work == "verify":
            verify_image(image, depth=Depth.CONTENT, progress=ctrl_c)
        else:
            with open_image(image) as reader:
                list(compare_blocks(slow, reader, progress=ctrl_c))

    with pytest.raises(KeyboardInterrupt):
        go()
    assert threads(), "a worker goes on"
    assert os.listdir(tmp_path) == ["a.vsnap"]
    assert set(os.listdir("/proc/self/fd")) == files
