"""Sources that nobody writes: what is watched, and that a change leaves no image."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from loops import loop_device, make_file_system, mounted, sparse_file
from requirements import require_lab
from vsssnap import Consistency, Snapshot, save_image
from vsssnap._deadline import Deadline
from vsssnap.errors import (
    ConsistencyError,
    ProviderUnavailableError,
    SnapshotBusyError,
    SnapshotLostError,
    SourceChangedError,
)
from vsssnap.providers.base import SnapshotRequest, SnapshotVolume
from vsssnap.providers.static import StaticProvider
from vsssnap.testing import CheckedVolume, check_provider

MIB = 1 << 20

SOON = 30.0  # seconds; generous


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(MIB))
    return path


@pytest.fixture
def loop(path: Path) -> Iterator[str]:
    require_lab("losetup")
    with loop_device(path) as name:
        yield name


def request(*volumes: object, persistent: bool = False) -> SnapshotRequest:
    return SnapshotRequest(volumes=volumes, require=Consistency.CRASH, persistent=persistent)


class Watched:
    """A provider that has taken; released at the end."""

    def __init__(self, *volumes: object) -> None:
        self.provider = StaticProvider()
        try:
            self.provider.prepare(request(*volumes), Deadline(SOON))
            self.taken = self.provider.take(Deadline(SOON))
        except BaseException:
            self.provider.release(Deadline(SOON))
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.provider.release(Deadline(SOON))


def why_not(*volumes: object, persistent: bool = False) -> str:
    """The reason with which the provider says no."""
    offer = StaticProvider().probe(request(*volumes, persistent=persistent))
    assert offer.level is None
    return offer.reason


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


# What it offers.


def test_still_file_is_offered_as_crash_consistent(path: Path) -> None:
    assert StaticProvider().probe(request(str(path))).level is Consistency.CRASH


def test_probe_leaves_nothing_open(path: Path) -> None:
    before = open_descriptors()
    StaticProvider().probe(request(str(path)))
    assert open_descriptors() == before


def test_file_that_is_being_written_is_not_offered(path: Path) -> None:
    with path.open("r+b"):
        assert "is open for writing" in why_not(str(path))


def test_missing_path_is_not_offered(tmp_path: Path) -> None:
    assert why_not(str(tmp_path / "nothing")) == f"there is no {tmp_path / 'nothing'}"


def test_folder_is_not_offered(tmp_path: Path) -> None:
    assert "neither a block device nor a regular file" in why_not(str(tmp_path))


def test_object_that_is_no_path_is_not_offered() -> None:
    assert why_not(object()) == "object is no path of a block device or a file"


def test_persistent_snapshot_is_not_offered(path: Path) -> None:
    assert "cannot outlive this process" in why_not(str(path), persistent=True)


def test_more_than_crash_consistency_is_refused_with_the_reason(path: Path) -> None:
    with pytest.raises(ConsistencyError, match="static: offers CRASH: it watches a source"):
        Snapshot(str(path), provider="static", require=Consistency.FILESYSTEM).create()


@pytest.mark.lab
def test_mounted_device_is_not_offered(loop: str, tmp_path: Path) -> None:
    require_lab("mkfs.ext4")
    make_file_system("ext4", loop)
    with mounted(loop, tmp_path / "here"):
        assert why_not(loop) == f"{loop} is mounted at {tmp_path / 'here'}"


@pytest.mark.lab
def test_device_whose_writes_are_not_counted_is_not_offered(loop: str) -> None:
    switch = Path("/sys/block") / Path(loop).name / "queue" / "iostats"
    switch.write_text("0")
    try:
        assert "is not counted by the kernel" in why_not(loop)
        with pytest.raises(ProviderUnavailableError, match="has no counters"):
            Watched(loop)
    finally:
        switch.write_text("1")


# What it holds.


def test_still_file_stays_alive(path: Path) -> None:
    with Watched(str(path)) as watched:
        watched.provider.alive()


def test_reader_gives_the_file(path: Path) -> None:
    with Watched(str(path)) as watched, watched.provider.open(watched.taken.volumes[0]) as reader:
        assert reader.pread(2 * MIB, 0) == path.read_bytes()


def test_two_spellings_are_one_device(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    with Watched(str(path), str(tmp_path / "link")) as watched:
        first, second = watched.taken.volumes
    assert (first.device, second.device) == (str(path), str(path))
    assert (first.name, second.name) == (str(path), str(tmp_path / "link"))


@pytest.mark.lab
def test_two_spellings_of_a_device_are_one_device(loop: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(loop)
    with Watched(loop, str(tmp_path / "link")) as watched:
        assert {volume.device for volume in watched.taken.volumes} == {loop}


@pytest.mark.lab
def test_device_is_held_exclusively_while_it_is_watched(loop: str) -> None:
    with Watched(loop), pytest.raises(SnapshotBusyError, match="held by the system or another program"):
        Watched(loop)


def test_release_gives_everything_back(path: Path) -> None:
    before = open_descriptors()
    with Watched(str(path)):
        pass
    assert open_descriptors() == before


def test_release_after_a_failed_prepare_gives_everything_back(path: Path, tmp_path: Path) -> None:
    busy = tmp_path / "busy"
    before = open_descriptors()
    with busy.open("wb"), pytest.raises(SnapshotBusyError, match="busy is open for writing"):
        Watched(str(path), str(busy))
    assert open_descriptors() == before


def test_nothing_is_alive_before_take() -> None:
    with pytest.raises(SnapshotLostError, match="nothing is watched"):
        StaticProvider().alive()


def test_nothing_is_alive_after_release(path: Path) -> None:
    with Watched(str(path)) as watched:
        pass
    with pytest.raises(SnapshotLostError, match="nothing is watched"):
        watched.provider.alive()


# What it detects.


def changed(watched: Watched) -> str:
    with pytest.raises(SourceChangedError) as caught:
        watched.provider.alive()
    return str(caught.value)


def test_opening_for_writing_is_a_change(path: Path) -> None:
    with Watched(str(path)) as watched:
        path.open("r+b").close()
        assert f"{path} was opened for writing while it was read" in changed(watched)


def test_change_by_another_process_is_detected_and_the_writer_goes_on(path: Path) -> None:
    with Watched(str(path)) as watched:
        program = "import sys; open(sys.argv[1], 'r+b').write(b'written')"
        subprocess.run([sys.executable, "-c", program, path], check=True, timeout=SOON)
        assert str(path) in changed(watched)
    assert path.read_bytes().startswith(b"written")


def test_cut_file_says_both_sizes(path: Path) -> None:
    with Watched(str(path)) as watched:
        os.truncate(path, 100)
        assert f"it had {MIB} bytes and has 100" in changed(watched)


def test_other_time_of_modification_is_a_change(path: Path) -> None:
    with Watched(str(path)) as watched:
        os.utime(path, ns=(1, 1))
        assert "time of modification" in changed(watched)


def test_other_time_of_status_change_is_a_change(path: Path) -> None:
    found = path.stat()
    with Watched(str(path)) as watched:
        path.chmod(0o600)
        path.chmod(0o644)
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))  # hides all but the status change
        assert "time of status change" in changed(watched)


def test_change_is_remembered(path: Path) -> None:
    with Watched(str(path)) as watched:
        path.open("r+b").close()
        assert changed(watched) == changed(watched)


def test_nothing_is_opened_after_a_change(path: Path) -> None:
    with Watched(str(path)) as watched:
        path.open("r+b").close()
        with pytest.raises(SourceChangedError):
            watched.provider.open(SnapshotVolume(name=str(path), device=str(path), size=MIB))


def write_sector(device: str) -> int:
    """Write past the exclusive open, into the cache only; gives the descriptor."""
    fd = os.open(device, os.O_WRONLY)
    os.pwrite(fd, b"x" * 512, 4096)
    return fd


@pytest.mark.lab
def test_write_to_a_device_is_a_change(loop: str) -> None:
    with Watched(loop) as watched:
        os.close(write_sector(loop))
        assert f"{loop} was written while it was read" in changed(watched)


@pytest.mark.lab
def test_write_that_is_still_in_the_cache_is_a_change(loop: str) -> None:
    with Watched(loop) as watched:
        fd = write_sector(loop)
        try:
            assert "bytes were written" in changed(watched)
        finally:
            os.close(fd)


@pytest.mark.lab
def test_write_from_before_the_instant_is_no_change(loop: str) -> None:
    fd = write_sector(loop)
    try:
        with Watched(loop) as watched:
            watched.provider.alive()
    finally:
        os.close(fd)


@pytest.mark.lab
def test_discard_is_a_change(loop: str) -> None:
    require_lab("blkdiscard")
    with Watched(loop) as watched:
        subprocess.run(["blkdiscard", "--force", "--offset", "0", "--length", "65536", loop], check=True)
        assert f"{loop} was written while it was read" in changed(watched)


# End to end.


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_still_file_becomes_an_image(path: Path, tmp_path: Path) -> None:
    with Snapshot(path, provider="static") as snapshot:
        save_image(snapshot.open(), tmp_path / "image.raw")
    assert (tmp_path / "image.raw").read_bytes() == path.read_bytes()


def test_changed_file_leaves_no_image(path: Path, tmp_path: Path) -> None:
    before = listing(tmp_path)
    with Snapshot(path, provider="static") as snapshot, snapshot.open() as reader:
        path.open("r+b").close()
        with pytest.raises(SourceChangedError, match="was opened for writing"):
            save_image(reader, tmp_path / "image.raw")
    assert listing(tmp_path) == before


@pytest.mark.lab
def test_changed_device_leaves_no_image(loop: str, tmp_path: Path) -> None:
    before = listing(tmp_path)
    with Snapshot(loop, provider="static") as snapshot, snapshot.open() as reader:
        os.close(write_sector(loop))
        with pytest.raises(SourceChangedError, match="was written while it was read"):
            save_image(reader, tmp_path / "image.raw")
    assert listing(tmp_path) == before


@pytest.mark.lab
def test_file_and_device_are_of_one_instant(loop: str, tmp_path: Path) -> None:
    other = sparse_file(tmp_path / "other.img", MIB)
    with Snapshot(loop, other, provider="static") as snapshot:
        assert list(snapshot.volumes) == [loop, str(other)]
        other.open("r+b").close()
        with pytest.raises(SourceChangedError):
            snapshot.open(loop)  # which was not touched, but is no longer of that instant


@pytest.mark.lab
def test_it_keeps_the_contract_on_a_device(loop: str, path: Path) -> None:
    def write(data: bytes, offset: int) -> None:
        fd = os.open(loop, os.O_WRONLY)
        os.pwrite(fd, data, offset)
        os.close(fd)

    @contextlib.contextmanager
    def held() -> Iterator[None]:
        fd = os.open(loop, os.O_RDONLY | os.O_EXCL)
        try:
            yield
        finally:
            os.close(fd)

    one = CheckedVolume(volume=loop, write=write, read=lambda: Path(loop).read_bytes())
    check_provider(StaticProvider, [one], still=True, busy=held, left=lambda: sorted(os.listdir(path.parent)))
