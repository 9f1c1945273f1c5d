"""Clones of files and of what lies behind loop devices, on real file systems."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from loops import file_system, loop_device, make_file_system, mounted, run, sparse_file
from requirements import require_lab
from vsssnap import Consistency, Snapshot
from vsssnap._posix import mounts
from vsssnap.errors import ConsistencyError, ProviderUnavailableError, SnapshotError
from vsssnap.providers import by_name, reflink
from vsssnap.providers.base import SnapshotRequest
from vsssnap.quiesce import claiming
from vsssnap.testing import CheckedVolume, check_provider
from waiting import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(170)]

MIB = 1 << 20


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """XFS with reflinks."""
    require_lab("mkfs.xfs", "mkfs.ext4", "e2fsck", file_systems=("xfs", "ext4"))
    with file_system("xfs", tmp_path_factory.mktemp("pool"), 600 * MIB) as (point, _):
        yield point


@pytest.fixture
def file(pool: Path) -> Iterator[Path]:
    path = pool / "file"
    path.write_bytes(b"before" * 10_000)
    yield path
    path.unlink()


@pytest.fixture
def volume(pool: Path, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A mounted ext4 on a loop device over a file of the pool: mount point and device."""
    backing = sparse_file(pool / "volume.img", 64 * MIB)
    with loop_device(backing) as device:
        make_file_system("ext4", device)
        with mounted(device, tmp_path / "volume") as point:
            yield point, device
    backing.unlink()


def used(pool: Path) -> int:
    """Blocks in use, after everything that was freed is so on the disk."""
    run("sync", "-f", pool)
    found = os.statvfs(pool)
    return found.f_blocks - found.f_bfree


def settled(pool: Path) -> int:
    """Blocks in use after everything that XFS frees by itself some time, in the background, is free.

    It is so when it is mounted read-only, which is refused while a file is open for writing.
    """

    def mounts(options: str) -> bool:
        command = ("mount", "-o", options, str(pool))
        return not subprocess.run(command, capture_output=True, check=False).returncode

    assert until(lambda: mounts("remount,ro"))
    run("mount", "-o", "remount,rw", pool)
    return used(pool)


def why(*volumes: object, **options: object) -> str:
    with pytest.raises((ProviderUnavailableError, ConsistencyError)) as caught:
        Snapshot(*volumes, provider="reflink", **options).create()  # type: ignore[arg-type]  # as given
    error = caught.value
    assert isinstance(error, ProviderUnavailableError | ConsistencyError)
    return error.reasons["reflink"]


# What can be taken.


def test_a_file_is_read_as_it_was(file: Path) -> None:
    with Snapshot(file, provider="reflink") as s, s.open() as disk:
        assert s.consistency is Consistency.CRASH
        file.write_bytes(b"after")
        assert disk.readall() == b"before" * 10_000


def test_a_mounted_file_system_is_flushed_and_frozen(volume: tuple[Path, str]) -> None:
    point, device = volume
    (point / "note").write_text("not synced")
    with Snapshot(point, require=Consistency.FILESYSTEM) as s:
        assert (s.provider, s.volumes[str(point)].filesystem) == ("reflink", "ext4")
        assert s.volumes[str(point)].device == device
        (point / "note").write_text("later")
        copy = point.parent / "copy.img"
        with s.open() as disk, copy.open("xb") as out:
            for offset, block in disk.blocks(MIB):
                out.seek(offset)
                out.write(block)
            out.truncate(disk.size)
    run("e2fsck", "-f", "-n", copy)
    with (
        loop_device(copy, readonly=True) as again,
        mounted(again, point.parent / "again", options="ro") as at,
    ):
        assert (at / "note").read_text() == "not synced"


def test_two_spellings_of_one_volume_share_one_clone(volume: tuple[Path, str]) -> None:
    point, device = volume
    with Snapshot(device, point) as s:
        assert list(s.volumes) == [device, str(point)]
        assert s.volumes[device].size == s.volumes[str(point)].size == 64 * MIB
        with s.open(device) as a, s.open(point) as b, s.open() as c:
            assert a.pread(4096, 1024) == b.pread(4096, 1024) == c.pread(4096, 1024)
            assert a.pread(2, 1080) == b"\x53\xef", "the magic of ext4"


def test_what_is_written_to_a_device_before_the_instant_is_in_the_clone(pool: Path) -> None:
    backing = sparse_file(pool / "bare.img", 8 * MIB)
    with loop_device(backing) as device, contextlib.ExitStack() as stack:
        fd = os.open(device, os.O_RDWR)
        stack.callback(os.close, fd)

        @contextlib.contextmanager
        def quiet() -> Iterator[None]:
            os.pwrite(fd, b"flushed by the application", 4096)  # into the device's cache
            yield

        manager = claiming(quiet(), claims=Consistency.APPLICATION)
        with Snapshot(device, quiesce=[manager], require=Consistency.APPLICATION) as s, s.open() as disk:
            assert disk.pread(26, 4096) == b"flushed by the application"
    backing.unlink()


def test_offset_and_partition_are_respected(pool: Path) -> None:
    backing = sparse_file(pool / "disk.img", 16 * MIB)
    with backing.open("r+b") as out:
        out.seek(4 * MIB)
        out.write(b"here")
    device = run(
        "losetup", "--find", "--show", "--offset", str(4 * MIB), "--sizelimit", str(MIB), backing
    ).strip()
    try:
        with Snapshot(device, provider="reflink") as s, s.open() as disk:
            assert (disk.size, disk.pread(4, 0)) == (MIB, b"here")
    finally:
        run("losetup", "--detach", device)
        backing.unlink()


def test_holes_are_zero_extents(pool: Path) -> None:
    path = sparse_file(pool / "sparse", 1 << 40)
    with Snapshot(path, provider="reflink") as s, s.open() as disk:
        assert [extent.kind.value for extent in disk.extents()] == ["zero"]
    path.unlink()


def test_one_file_and_a_frozen_volume_are_one_instant(file: Path, volume: tuple[Path, str]) -> None:
    with Snapshot(file, volume[0], provider="reflink") as s:
        assert s.open(file).pread(6, 0) == b"before"
        assert s.open(volume[0]).size == 64 * MIB


# What cannot, and why.


def test_two_plain_files_are_not_one_instant(file: Path, pool: Path) -> None:
    other = pool / "other"
    other.write_text("x")
    assert "not one instant" in why(file, other)
    other.unlink()


def test_a_file_system_without_clones_is_named(tmp_path: Path) -> None:
    with file_system("ext4", tmp_path, 16 * MIB) as (point, _):
        (point / "file").write_text("x")
        reason = why(point / "file")
    assert "ext4" in reason
    assert "cannot clone" in reason


def test_xfs_without_reflinks_is_named(tmp_path: Path) -> None:
    require_lab("mkfs.xfs")
    with loop_device(sparse_file(tmp_path / "old.img", 600 * MIB)) as device:
        run("mkfs.xfs", "-q", "-m", "reflink=0", device)
        with mounted(device, tmp_path / "old") as point:
            (point / "file").write_text("x")
            assert "reflink=1" in why(point / "file")


@pytest.mark.parametrize("name", ["no-such-thing", "."])
def test_what_is_no_volume_is_named(pool: Path, name: str) -> None:
    folder = pool / "folder"
    folder.mkdir(exist_ok=True)
    assert str(folder) in why(folder / name)


def test_a_snapshot_that_outlives_the_process_is_not_offered(file: Path) -> None:
    assert "end with the process" in why(file, persistent=True)


def test_more_consistency_than_there_is_is_refused(file: Path) -> None:
    assert "offers CRASH" in why(file, require=Consistency.FILESYSTEM)


def test_the_working_folders_file_system_is_never_frozen(volume: tuple[Path, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"from vsssnap import Snapshot; Snapshot({str(volume[0])!r}).create()"],
        cwd=volume[0],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "the working folder is on it" in done.stderr


def test_a_log_on_the_volume_stops_the_freeze(volume: tuple[Path, str]) -> None:
    with (volume[0] / "log").open("w") as log:
        done = subprocess.run(
            [sys.executable, "-c", f"from vsssnap import Snapshot; Snapshot({str(volume[0])!r}).create()"],
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert "the output or log of this process is on it" in done.stderr


def test_a_frozen_file_system_never_holds_what_is_cloned(pool: Path, tmp_path: Path) -> None:
    """The inner volume's file lies on the outer volume: freezing that would stop the clone for ever."""
    backing = sparse_file(pool / "outer.img", 320 * MIB)
    with loop_device(backing) as outer_device:
        make_file_system("xfs", outer_device)
        with (
            mounted(outer_device, tmp_path / "outer") as outer,
            loop_device(sparse_file(outer / "inner.img", 16 * MIB)) as device,
        ):
            make_file_system("ext4", device)
            with mounted(device, tmp_path / "inner") as inner:
                assert "to be cloned, is on it" in why(inner, outer)
                assert "to be cloned, is on it" in why(outer, inner)
    backing.unlink()


def test_a_mount_that_hides_the_file_system_is_never_frozen_in_its_place(
    volume: tuple[Path, str], tmp_path: Path
) -> None:
    point, device = volume
    with file_system("ext4", tmp_path, 16 * MIB, name="other") as (_, other):
        run("mount", other, point)
        try:
            with pytest.raises(SnapshotError, match="another file system"):
                Snapshot(device, provider="reflink").create()
        finally:
            run("umount", point)


# What stays behind: nothing.


def test_a_file_that_is_replaced_meanwhile_is_not_cloned(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opening = reflink._open

    def replaced(source: reflink._Source, path: str, flags: int) -> int:
        other = file.with_name("other")
        other.write_bytes(b"another")
        other.replace(file)
        return opening(source, path, flags)

    monkeypatch.setattr(reflink, "_open", replaced)
    with pytest.raises(SnapshotError, match=r"file was replaced by another file meanwhile: try again"):
        Snapshot(file, provider="reflink").create()


def test_a_killed_process_leaves_no_clone(file: Path, pool: Path) -> None:
    file.write_bytes(os.urandom(8 * MIB))
    before = settled(pool)
    script = (
        "import os, sys, time\n"
        "from vsssnap import Snapshot\n"
        "s = Snapshot(sys.argv[1], provider='reflink')\n"
        "s.create()\n"
        "print('taken', flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(file)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"taken\n"
        file.write_bytes(os.urandom(8 * MIB))
        assert used(pool) > before, "the clone holds the old blocks"
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    # Its helper, which has the clone open, ends by itself.
    assert until(lambda: settled(pool) <= before + 64), "the clone is still there"
    assert sorted(path.name for path in pool.iterdir() if path.name != "folder") == ["file"]


def test_nothing_is_left_of_many_snapshots(volume: tuple[Path, str]) -> None:
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(20):
        with Snapshot(volume[0], provider="reflink") as s:
            s.open().pread(1, 0)
    assert len(os.listdir("/proc/self/fd")) == files
    assert until(lambda: threading.active_count() <= threads)


def test_every_clone_of_a_busy_file_system_is_clean(volume: tuple[Path, str], tmp_path: Path) -> None:
    point, _ = volume
    stop = threading.Event()

    def work() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            path = point / f"{n % 50}"
            path.write_bytes(os.urandom(n % 40_000))
            if n % 3 == 0:
                path.unlink()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for n in range(20):
            copy = tmp_path / f"{n}.img"
            with Snapshot(point, provider="reflink") as s, s.open() as disk, copy.open("xb") as out:
                for offset, block in disk.blocks(MIB):
                    out.seek(offset)
                    out.write(block)
                out.truncate(disk.size)
            run("e2fsck", "-f", "-n", copy)
            copy.unlink()
    finally:
        stop.set()
        worker.join()


def test_file_system_without_a_device_is_named() -> None:
    assert why("/proc") == "/proc is proc on proc, which is no block device"


# The contract.


def backed_by(folder: Path) -> list[str]:
    """Loop devices over files of a folder, and what the folder holds."""
    loops = [path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    return sorted([name for name in loops if name.startswith(str(folder))] + os.listdir(folder))


def test_it_keeps_the_contract_on_files(pool: Path) -> None:
    one, two = pool / "one", pool / "two"
    checked = []
    with contextlib.ExitStack() as stack:
        for path in (one, two):
            path.write_bytes(os.urandom(200_000))
            stack.callback(path.unlink)
            fd = os.open(path, os.O_RDWR)
            stack.callback(os.close, fd)
            checked.append(
                CheckedVolume(volume=str(path), write=partial(os.pwrite, fd), read=path.read_bytes)
            )
        check_provider(lambda: by_name("reflink"), checked, left=lambda: backed_by(pool))


def test_it_keeps_the_contract_on_a_device_without_a_file_system(pool: Path) -> None:
    backing = sparse_file(pool / "bare.img", MIB)
    with contextlib.ExitStack() as stack:
        stack.callback(backing.unlink)
        device = stack.enter_context(loop_device(backing))
        # As after a power cut, the order of writes is that in which they were flushed.
        fd = os.open(device, os.O_RDWR | os.O_DSYNC)
        stack.callback(os.close, fd)
        one = CheckedVolume(
            volume=device, write=partial(os.pwrite, fd), read=lambda: Path(device).read_bytes()
        )
        check_provider(lambda: by_name("reflink"), [one], left=lambda: backed_by(pool))


def test_it_keeps_the_contract_on_two_mounted_file_systems(pool: Path, tmp_path: Path) -> None:
    checked = []
    with contextlib.ExitStack() as stack:
        for name in ("one", "two"):
            backing = sparse_file(pool / f"{name}.img", 16 * MIB)
            stack.callback(backing.unlink)
            device = stack.enter_context(loop_device(backing))
            make_file_system("ext4", device)
            point = stack.enter_context(mounted(device, tmp_path / name))
            fd = os.open(point / "file", os.O_RDWR | os.O_CREAT)
            stack.callback(os.close, fd)
            checked.append(CheckedVolume(volume=str(point), write=partial(os.pwrite, fd)))
        check_provider(lambda: by_name("reflink"), checked, left=lambda: backed_by(pool))


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (SnapshotError("/proc/self/mountinfo: No such file or directory"), "/proc/self/mountinfo: No such"),
        (PermissionError(13, "Permission denied", "/srv/db"), "/srv/db: Permission denied"),
    ],
)
def test_mounts_that_cannot_be_looked_at_are_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, reason: str
) -> None:
    """Another provider may do: what one cannot see must not end the choice."""

    def fails(path: str | int) -> None:
        raise failure

    (tmp_path / "volume").write_bytes(b"x" * 4096)
    monkeypatch.setattr(mounts, "containing", fails)
    request = SnapshotRequest(volumes=(str(tmp_path / "volume"),), require=Consistency.CRASH)
    offer = by_name("reflink").probe(request)
    assert offer.level is None
    assert offer.reason.startswith(reason)
