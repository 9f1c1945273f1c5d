"""Saving and copying: complete or absent, and every kind of range where it belongs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources import BytesReader, Plain, mixed, noise
from vsssnap._units import MIB
from vsssnap.blocks.extent import Extent, ExtentKind, coalesce
from vsssnap.errors import (
    DeviceReadError,
    SnapshotLostError,
    TargetRefusedError,
    UnknownFormatError,
    UsageError,
)
from vsssnap.formats.storage import MemoryStorage
from vsssnap.formats.vsnap import VsnapOptions
from vsssnap.imaging.copying import copy_blocks
from vsssnap.imaging.opening import create_image, open_device, open_image
from vsssnap.imaging.reports import CopyOptions, OnReadError, Progress
from vsssnap.imaging.saving import save_image
from vsssnap.metadata import ImageMetadata

DATA, ZERO, HOLE = ExtentKind.DATA, ExtentKind.ZERO, ExtentKind.HOLE
EXCLUDED, UNREADABLE = ExtentKind.EXCLUDED, ExtentKind.UNREADABLE


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("size", [0, 1, 511, 512, 4097, MIB - 1, MIB, MIB + 1, 3 * MIB + 5])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_saved_image_holds_the_source(tmp_path: Path, size: int, workers: int) -> None:
    data = mixed(size, seed=size)
    report = save_image(Plain(data), tmp_path / "a.raw", copy=CopyOptions(workers=workers))
    assert (tmp_path / "a.raw").read_bytes() == data
    assert report.size == size
    assert report.data == size
    assert report.stored == size


@pytest.mark.posix("files are sparse there only on request")
def test_zeros_become_holes_in_the_file(tmp_path: Path) -> None:
    save_image(Plain(noise(MIB) + bytes(30 * MIB) + noise(MIB)), tmp_path / "a.raw")
    assert (tmp_path / "a.raw").stat().st_blocks * 512 < 3 * MIB


def test_only_data_is_read(tmp_path: Path) -> None:
    size = 1 << 40
    extents = [
        Extent(0, 100, DATA),
        Extent(100, size - 300, HOLE),
        Extent(size - 200, 100, EXCLUDED),
        Extent(size - 100, 100, DATA),
    ]
    source = _Sparse(size, extents)
    report = save_image(source, tmp_path / "a.raw")
    assert sorted(source.reads) == [(0, 100), (size - 100, 100)]
    assert (report.data, report.hole, report.excluded, report.zero) == (200, size - 300, 100, 0)


class _Sparse(BytesReader):
    """A huge reader without the bytes."""

    def __init__(self, size: int, extents: list[Extent]) -> None:
        super().__init__(b"", extents=extents)
        self.size = size

    def _read(self, length: int, offset: int) -> bytes:
        self.reads.append((offset, length))
        return b"d" * length


def test_the_report_counts_every_byte_once() -> None:
    extents = [
        Extent(0, 10, DATA),
        Extent(10, 20, ZERO),
        Extent(30, 5, HOLE),
        Extent(35, 65, DATA),
        Extent(100, 3 * MIB, EXCLUDED),
    ]
    size = extents[-1].end
    report = copy_blocks(BytesReader(noise(size), extents=extents), _Target(size))
    assert (report.data, report.zero, report.hole, report.excluded) == (75, 20, 5, 3 * MIB)


class _Target:
    """The least that is a target; zeros must arrive too."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.data = bytearray(b"\xee" * size)
        self.offsets: list[int] = []

    def pwrite(self, data: memoryview, offset: int, /) -> int:
        self.offsets.append(offset)
        self.data[offset : offset + len(data)] = data
        return len(data)


def test_a_plain_target_gets_every_byte_in_order() -> None:
    extents = [Extent(0, 3 * MIB, ZERO), Extent(3 * MIB, 2 * MIB, DATA), Extent(5 * MIB, 77, HOLE)]
    data = noise(5 * MIB + 77)
    target = _Target(len(data))
    copy_blocks(BytesReader(data, extents=extents), target, copy=CopyOptions(workers=3))
    assert target.data == bytes(3 * MIB) + data[3 * MIB : 5 * MIB] + bytes(77)
    assert target.offsets == sorted(target.offsets)


def test_a_target_that_writes_short_is_refused() -> None:
    class Short(_Target):
        def pwrite(self, data: memoryview, offset: int, /) -> int:
            return len(data) - 1

    with pytest.raises(UsageError, match=r"Short.pwrite wrote 9 of 10 bytes at 0"):
        copy_blocks(Plain(noise(10)), Short(10))


def test_a_target_of_another_size_is_refused() -> None:
    with pytest.raises(UsageError, match="the source has 10 bytes, the writer takes 11"):
        copy_blocks(Plain(noise(10)), _Target(11))


@pytest.mark.parametrize("thing", [object(), 3, "text"])
def test_what_is_no_source_or_target_is_refused(thing: object) -> None:
    with pytest.raises(UsageError):
        copy_blocks(thing, _Target(1))  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises((UsageError, AttributeError)):
        copy_blocks(Plain(b"x"), thing)  # type: ignore[arg-type]  # wrong on purpose


def test_a_lost_snapshot_leaves_no_image(tmp_path: Path) -> None:
    source = BytesReader(noise(3 * MIB), lost_after=0)
    with pytest.raises(SnapshotLostError):
        save_image(source, tmp_path / "a.raw")
    assert listing(tmp_path) == []


def test_every_copy_ends_with_one_confirm(tmp_path: Path) -> None:
    source = BytesReader(noise(1000))
    save_image(source, tmp_path / "a.raw")
    assert source.confirmed == 1
    copy_blocks(source, _Target(1000))
    assert source.confirmed == 2


def test_a_failing_source_leaves_no_image_and_names_the_place(tmp_path: Path) -> None:
    source = BytesReader(noise(3 * MIB), bad=[(MIB + 1024, 512)])
    with pytest.raises(DeviceReadError) as caught:
        save_image(source, tmp_path / "a.raw")
    assert caught.value.offset == MIB + 1024
    assert listing(tmp_path) == []


def test_failing_sectors_are_marked_and_all_others_kept(tmp_path: Path) -> None:
    data = noise(3 * MIB)
    bad = [(MIB + 1024, 512), (MIB + 1536, 512), (2 * MIB - 512, 1024)]
    source = BytesReader(data, bad=bad)
    report = save_image(source, tmp_path / "a.raw", on_read_error=OnReadError.MARK)
    assert list(coalesce(report.unreadable)) == [
        Extent(MIB + 1024, 1024, UNREADABLE),
        Extent(2 * MIB - 512, 1024, UNREADABLE),
    ]
    wanted = bytearray(data)
    for offset, length in bad:
        wanted[offset : offset + length] = bytes(length)
    assert (tmp_path / "a.raw").read_bytes() == wanted
    assert report.data == len(data) - 2048
    with open_image(tmp_path / "a.raw") as image, pytest.raises(DeviceReadError):
        image.pread(1, MIB + 1024)


def test_a_range_the_source_calls_unreadable_is_an_error_or_a_mark(tmp_path: Path) -> None:
    extents = [Extent(0, 512, DATA), Extent(512, 512, UNREADABLE), Extent(1024, 512, DATA)]
    data = noise(1536)
    with pytest.raises(DeviceReadError, match="512 to 1024"):
        save_image(BytesReader(data, extents=extents, bad=[(512, 512)]), tmp_path / "a.raw")
    report = save_image(
        BytesReader(data, extents=extents, bad=[(512, 512)]),
        tmp_path / "a.raw",
        on_read_error=OnReadError.MARK,
    )
    assert report.unreadable == (Extent(512, 512, UNREADABLE),)
    assert (tmp_path / "a.raw").read_bytes() == data[:512] + bytes(512) + data[1024:]


def test_a_target_that_cannot_mark_refuses_to_be_asked_for_marks() -> None:
    with pytest.raises(UsageError, match="cannot mark unreadable"):
        copy_blocks(Plain(b"x"), _Target(1), on_read_error=OnReadError.MARK)


def test_progress_rises_to_the_end(tmp_path: Path) -> None:
    seen: list[Progress] = []
    save_image(Plain(noise(5 * MIB)), tmp_path / "a.raw", progress=seen.append)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].done == seen[-1].total == 5 * MIB
    assert seen[-1].state == "done"


def test_what_progress_raises_ends_the_save_and_leaves_nothing(tmp_path: Path) -> None:
    def stop(_: Progress) -> None:
        raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        save_image(Plain(noise(5 * MIB)), tmp_path / "a.raw", progress=stop)
    assert listing(tmp_path) == []


def test_the_sources_own_exception_passes_unchanged(tmp_path: Path) -> None:
    class Own(Exception):
        pass

    class Broken(Plain):
        def pread(self, length: int, offset: int, /) -> bytes:
            raise Own

    with pytest.raises(Own):
        save_image(Broken(noise(10)), tmp_path / "a.raw")
    assert listing(tmp_path) == []


def test_metadata_is_the_sources_or_the_callers(tmp_path: Path) -> None:
    source = BytesReader(noise(10), metadata=ImageMetadata(volume="/srv", filesystem="ext4"))
    save_image(source, tmp_path / "a.raw")
    with open_image(tmp_path / "a.raw") as image:
        assert image.metadata.volume == "/srv"
    own = ImageMetadata(user={"job": 7})
    save_image(source, tmp_path / "a.raw", metadata=own, replace=True)
    with open_image(tmp_path / "a.raw") as image:
        assert image.metadata == own


def test_the_image_is_not_the_sources_own_file(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(noise(100))
    source = BytesReader(noise(100), origins=(str(path),))
    for replace in (False, True):
        with pytest.raises(TargetRefusedError):
            save_image(source, path, replace=replace)
    assert path.read_bytes() == noise(100)


def test_an_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownFormatError, match=r"a.xyz: no image format has this suffix.*\.raw"):
        save_image(Plain(b""), tmp_path / "a.xyz")


def test_an_image_can_be_written_to_any_storage() -> None:
    storage = MemoryStorage()
    save_image(Plain(b"hello"), storage, format="raw")
    assert storage.data == b"hello"
    with pytest.raises(UsageError, match="needs format="):
        save_image(Plain(b"hello"), MemoryStorage())


@pytest.mark.posix("modes")
def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    save_image(Plain(b"secret"), tmp_path / "a.raw")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


@given(
    data=st.binary(max_size=3000),
    cuts=st.lists(st.tuples(st.integers(0, 3000), st.sampled_from([DATA, ZERO, HOLE, EXCLUDED])), max_size=8),
    workers=st.integers(1, 3),
)
@settings(max_examples=40)
def test_any_map_gives_the_same_bytes(data: bytes, cuts: list[tuple[int, ExtentKind]], workers: int) -> None:
    points = sorted({0, len(data), *(cut for cut, _ in cuts if cut < len(data))})
    kinds = [kind for _, kind in cuts] + [DATA] * len(points)
    extents = [Extent(a, b - a, k) for a, b, k in zip(points, points[1:], kinds, strict=False)]
    wanted = bytearray(data)
    for extent in extents:
        if extent.kind is not DATA:
            wanted[extent.offset : extent.end] = bytes(extent.length)
    storage = MemoryStorage()
    source = BytesReader(bytes(wanted), extents=extents)
    save_image(source, storage, format="raw", copy=CopyOptions(workers=workers))
    assert storage.data == wanted


def test_a_writer_by_hand_is_absent_until_it_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    writer = create_image(path, 10)
    writer.pwrite(memoryview(b"0123456789"), 0)
    assert not path.exists()
    writer.finish()
    assert path.read_bytes() == b"0123456789"
    assert listing(tmp_path) == ["a.raw", "a.raw.vsssnap"]


def test_a_writer_that_is_closed_leaves_nothing(tmp_path: Path) -> None:
    writer = create_image(tmp_path / "a.raw", 10)
    writer.close()
    writer.close()
    assert listing(tmp_path) == []


@pytest.mark.posix("rusage")
def test_memory_does_not_grow_with_the_volume(tmp_path: Path) -> None:
    """Peak memory of saving 1 GiB of data and of saving 64 MiB are alike."""
    script = (
        "import resource, sys\n"
        "from vsssnap import save_image\n"
        "class Source:\n"
        "    size = int(sys.argv[1]) << 20\n"
        "    def pread(self, length, offset): return (b'%016x' % offset) * (length // 16)\n"
        "class Target:\n"
        "    size = Source.size\n"
        "    def pwrite(self, data, offset): return len(data)\n"
        "from vsssnap import copy_blocks\n"
        "copy_blocks(Source(), Target())\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peaks = [
        int(subprocess.run([sys.executable, "-c", script, size], check=True, capture_output=True).stdout)
        for size in ("64", "1024")
    ]
    assert peaks[1] - peaks[0] < 8 << 10, peaks  # KiB


@pytest.mark.posix("signals")
@pytest.mark.parametrize("number", [signal.SIGINT, getattr(signal, "SIGKILL", None)])
def test_an_interrupted_save_leaves_nothing_under_the_final_name(tmp_path: Path, number: int) -> None:
    script = (
        "import sys, time\n"
        "from vsssnap import save_image\n"
        "class Slow:\n"
        "    size = 1 << 30\n"
        "    def pread(self, length, offset):\n"
        "        if offset > 5 << 20: print('half way', flush=True); time.sleep(0.2)\n"
        "        return b'x' * length\n"
        "save_image(Slow(), sys.argv[1])\n"
    )
    target = tmp_path / "a.raw"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        process.wait(30)
    assert process.returncode != 0
    assert not target.exists()
    if number == signal.SIGINT:
        assert listing(tmp_path) == []
        return
    # What a killed save left does not stop the next one.
    with pytest.raises(TargetRefusedError, match="was killed before it was complete"):
        save_image(Plain(b"next"), target)
    save_image(Plain(b"next"), target, replace=True)
    assert listing(tmp_path) == ["a.raw", "a.raw.vsssnap"]
    assert target.read_bytes() == b"next"


def test_two_saves_to_one_name_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "a.raw"
    begun, go = threading.Event(), threading.Event()

    def wait(_: int) -> None:
        begun.set()
        assert go.wait(30)

    first = threading.Thread(
        target=lambda: save_image(BytesReader(b"first", before_read=wait), target, replace=True)
    )
    first.start()
    assert begun.wait(30)
    with pytest.raises(TargetRefusedError, match="being written by another process"):
        save_image(Plain(b"second"), target, replace=True)
    go.set()
    first.join()
    assert target.read_bytes() == b"first"


@pytest.mark.posix("a limit of a file's size")
def test_a_full_disk_is_a_target_error_and_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys\n"
        "from vsssnap import save_image\n"
        "from vsssnap.errors import TargetError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))\n"
        "class Source:\n"
        "    size = 64 << 20\n"
        "    def pread(self, length, offset): return b'x' * length\n"
        "try:\n"
        "    save_image(Source(), sys.argv[1])\n"
        "except TargetError as exc:\n"
        "    print(type(exc).__name__, exc.path, exc.code, exc.hint)\n"
    )
    target = tmp_path / "a.raw"
    shown = subprocess.run(
        [sys.executable, "-c", script, str(target)], check=True, capture_output=True, text=True
    ).stdout
    assert shown == f"TargetError {target} 27 make room or choose another target\n"
    assert listing(tmp_path) == []


def test_no_thread_outlives_a_save(tmp_path: Path) -> None:
    save_image(Plain(noise(3 * MIB)), tmp_path / "a.raw")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vsssnap-")]


@pytest.mark.posix("/proc")
def test_no_descriptor_outlives_a_save(tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    for n in range(20):
        save_image(Plain(noise(1000)), tmp_path / f"{n}.raw")
        with pytest.raises(SnapshotLostError):
            save_image(BytesReader(noise(1000), lost_after=0), tmp_path / f"lost{n}.raw")
    assert count() == before


def refused(wrong: str, disk: Path, folder: Path) -> None:
    with open_device(disk) as source, open_image(disk) as parent, contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises((TargetRefusedError, UsageError)))
        if wrong == "target is the source":
            save_image(source, disk, replace=True)
        elif wrong == "options":
            save_image(source, folder / "a.raw", options=VsnapOptions())
        else:
            save_image(source, folder / "a.raw", parent=parent)


@pytest.mark.posix("/proc")
@pytest.mark.parametrize("wrong", ["target is the source", "options", "parent"])
def test_no_descriptor_outlives_a_save_that_was_refused(tmp_path: Path, wrong: str) -> None:
    """A raw image has a side-car, whose file is there before the image's is refused."""
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"x" * 1000)
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        refused(wrong, disk, tmp_path)
    assert set(os.listdir("/proc/self/fd")) == before
    assert listing(tmp_path) == ["disk.raw"]
