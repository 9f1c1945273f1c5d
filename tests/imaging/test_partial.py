"""Targets that must not be written, each with its own sentence."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from loops import loop_device, sparse_file
from requirements import require_lab
from sources import BytesReader
from vsssnap.errors import TargetError, TargetRefusedError
from vsssnap.imaging.files import flush_folder
from vsssnap.imaging.partial import PartialFile
from vsssnap.imaging.saving import save_image

if sys.platform != "win32":
    import fcntl


def refuse(path: Path, match: str, *, replace: bool = False) -> TargetRefusedError:
    with pytest.raises(TargetRefusedError, match=match) as caught:
        PartialFile(str(path), replace=replace)
    assert caught.value.path.startswith(str(path))
    assert caught.value.hint
    return caught.value


def test_an_existing_name_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_text("old")
    refuse(path, "a.raw exists")
    assert [p.name for p in tmp_path.iterdir()] == ["a.raw"]


def test_replace_keeps_the_old_file_until_commit(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_text("old")
    file = PartialFile(str(path), replace=True)
    fd = file.take()
    os.write(fd, b"new")
    os.close(fd)
    assert path.read_text() == "old"
    file.commit()
    assert path.read_text() == "new"


@pytest.mark.parametrize("replace", [False, True])
def test_a_symbolic_link_is_refused_also_a_dangling_one(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "real").write_text("precious")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    refuse(tmp_path / "link", "is a symbolic link to real", replace=replace)
    refuse(tmp_path / "dangling", "is a symbolic link to nowhere", replace=replace)
    assert (tmp_path / "real").read_text() == "precious"


def test_a_link_in_place_of_the_partial_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("precious")
    (tmp_path / "a.raw.partial").symlink_to("real")
    refuse(tmp_path / "a.raw", "a.raw.partial is in the way", replace=True)
    assert (tmp_path / "real").read_text() == "precious"


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_and_a_device_are_refused(tmp_path: Path, replace: bool) -> None:
    refuse(tmp_path, "is a folder", replace=replace)
    refuse(Path("/dev/null"), "is no regular file", replace=replace)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="cannot be created: No such file") as caught:
        PartialFile(str(tmp_path / "no" / "a.raw"), replace=False)
    assert caught.value.code == 2
    assert caught.value.errno == 2
    assert "folder must exist" in str(caught.value)


def test_a_name_that_came_into_being_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    file = PartialFile(str(path), replace=False)
    path.write_text("somebody else's")
    with pytest.raises(TargetRefusedError, match="came into being"):
        file.commit()
    file.discard()
    assert path.read_text() == "somebody else's"
    assert [p.name for p in tmp_path.iterdir()] == ["a.raw"]


def test_a_stale_partial_file_goes_only_with_replace(tmp_path: Path) -> None:
    (tmp_path / "a.raw.partial").write_text("left behind")
    refuse(tmp_path / "a.raw", "was killed before it was complete")
    file = PartialFile(str(tmp_path / "a.raw"), replace=True)
    file.discard()
    file.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_partial_file_that_is_being_written_is_never_removed(tmp_path: Path) -> None:
    file = PartialFile(str(tmp_path / "a.raw"), replace=False)
    refuse(tmp_path / "a.raw", "being written by another process", replace=True)
    file.commit()
    assert (tmp_path / "a.raw").exists()


def test_a_refused_image_leaves_no_descriptor_and_no_file(tmp_path: Path) -> None:
    # The side-car's file is made before the image's is refused.
    (tmp_path / "a.raw").write_text("here already")
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(TargetRefusedError, match="exists"):
        save_image(BytesReader(b"x" * 4096), tmp_path / "a.raw")
    assert set(os.listdir("/proc/self/fd")) == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.raw"]


@pytest.mark.posix("there an open file cannot be replaced")
def test_file_that_somebody_writes_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(b"live")
    with open(path, "r+b"), pytest.raises(TargetRefusedError, match=r"disk\.img is open for writing: .*lsof"):
        PartialFile(str(path), replace=True)
    assert path.read_bytes() == b"live"
    with open(path, "rb") as reader:  # who reads the old file goes on doing so
        file = PartialFile(str(path), replace=True)
        file.commit()
        assert reader.read() == b"live"


@pytest.mark.lab
def test_file_behind_a_loop_device_is_not_replaced(tmp_path: Path) -> None:
    require_lab("losetup")
    path = sparse_file(tmp_path / "disk.img", 1 << 20)
    with loop_device(path), pytest.raises(TargetRefusedError, match="loop device"):
        PartialFile(str(path), replace=True)
    assert os.listdir(tmp_path) == ["disk.img"]


@pytest.mark.posix("there an open file cannot be removed")
def test_a_partial_file_of_a_save_that_began_meanwhile_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, stale = tmp_path / "a.raw", tmp_path / "a.raw.partial"
    stale.write_bytes(b"left behind")
    others: list[PartialFile] = []
    flock = fcntl.flock

    def first(fd: int, how: int) -> None:  # another save removes it after we opened it
        monkeypatch.setattr(fcntl, "flock", flock)
        others.append(PartialFile(str(path), replace=True))
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", first)
    refuse(path, "being written by another process", replace=True)
    os.write(others[0].take(), b"its own")
    others[0].commit()
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"its own", ["a.raw"])


@pytest.mark.posix("there an open file cannot be removed")
def test_a_partial_file_that_is_taken_for_a_stale_one_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.raw"
    held: list[int] = []
    dup = os.dup

    def late(fd: int) -> int:  # another save found the file between its creation and its lock
        monkeypatch.setattr(os, "dup", dup)
        held.append(os.open(tmp_path / "a.raw.partial", os.O_RDWR))
        fcntl.flock(held[0], fcntl.LOCK_EX)
        return dup(fd)

    monkeypatch.setattr(os, "dup", late)
    before = len(os.listdir("/proc/self/fd"))
    refuse(path, "being written by another process")
    os.close(held[0])
    assert (len(os.listdir("/proc/self/fd")), os.listdir(tmp_path)) == (before, [])


@pytest.mark.posix("there an open file cannot be removed")
def test_what_was_put_in_place_of_the_partial_file_never_gets_the_name(tmp_path: Path) -> None:
    path, partial = tmp_path / "a.raw", tmp_path / "a.raw.partial"
    file = PartialFile(str(path), replace=True)
    partial.unlink()
    partial.write_bytes(b"half of another image")
    with pytest.raises(TargetError, match=r"a\.raw\.partial was removed or replaced while it was written"):
        file.commit()
    file.discard()
    assert partial.read_bytes() == b"half of another image"
    assert os.listdir(tmp_path) == ["a.raw.partial"]


def test_what_cannot_be_removed_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = PartialFile(str(tmp_path / "a.raw"), replace=False)

    def refused(path: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "unlink", refused)
    file.discard()
    assert "a.raw.partial is left behind, it cannot be removed: [Errno 30]" in caplog.text


@pytest.mark.posix("folders are not flushed there")
def test_a_folder_that_cannot_be_opened_or_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TargetError, match="its folder cannot be written out: No such file"):
        flush_folder(str(tmp_path / "gone" / "a.raw"))

    def unknown(fd: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", unknown)
    flush_folder(str(tmp_path / "a.raw"))  # a file system that cannot do it, such as old CIFS
