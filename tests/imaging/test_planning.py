"""What `check_save` refuses, and that it touches nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sources import BytesReader
from vsssnap import check_save, create_image, open_image, save_image
from vsssnap.errors import TargetError, TargetRefusedError, UnknownFormatError, UsageError
from vsssnap.formats.qcow2.options import Qcow2Options
from vsssnap.formats.raw import RawOptions
from vsssnap.formats.vsnap.options import VsnapOptions

if sys.platform != "win32":
    import fcntl

MIB = 1 << 20


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("suffix", ["raw", "vsnap", "qcow2", "vhd", "vhdx", "vmdk"])
def test_a_good_plan_leaves_nothing_behind(folder: Path, suffix: str) -> None:
    check_save(f"a.{suffix}", 64 * MIB)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "size", "options", "said"),
    [
        ("a.vsnap", MIB, VsnapOptions(level=99), "level is 99"),
        ("a.vsnap", MIB, VsnapOptions(chunk_size=1), "chunk_size is 1"),
        ("a.vsnap", MIB, VsnapOptions(digest="md5"), "digest is 'md5'"),
        ("a.qcow2", MIB, Qcow2Options(cluster_size=1000), "cluster_size is 1000"),
        ("a.qcow2", MIB, VsnapOptions(), "VsnapOptions"),
        ("a.vhd", 511, None, "cannot hold 511 bytes"),
        ("a.vhd", 8 << 40, None, "cannot hold 8796093022208 bytes"),
        ("a.vsnap", -1, None, "size is -1"),
    ],
)
def test_what_a_format_cannot_do_is_told(
    folder: Path, name: str, size: int, options: object, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        check_save(name, size, options=options)
    assert list(folder.iterdir()) == []


def test_a_parent_of_another_format_or_size_is_refused() -> None:
    save_image(BytesReader(bytes(MIB)), "a.vsnap")
    with open_image("a.vsnap") as parent:
        with pytest.raises(UsageError, match="the parent has 1048576"):
            check_save("b.vsnap", 2 * MIB, parent=parent)
        with pytest.raises(UsageError, match="cannot be the parent"):
            check_save("b.vhd", MIB, parent=parent)
        with pytest.raises(TargetRefusedError, match="is what is being read"):
            check_save("a.vsnap", MIB, parent=parent, replace=True)
        check_save("b.vsnap", MIB, parent=parent)
        assert parent.pread(4, 0) == bytes(4)  # it stays open


def test_names_that_cannot_be_written_are_refused(folder: Path) -> None:
    (folder / "a.vsnap").write_bytes(b"precious")
    with pytest.raises(TargetRefusedError, match="exists"):
        check_save("a.vsnap", MIB)
    check_save("a.vsnap", MIB, replace=True)
    with pytest.raises(TargetError, match=r"missing/a\.vsnap"):
        check_save("missing/a.vsnap", MIB)
    with pytest.raises(UnknownFormatError, match="no image format"):
        check_save("a.zap", MIB)


def test_a_side_car_in_the_way_is_seen(folder: Path) -> None:
    (folder / "a.raw.vsssnap").write_bytes(b"")
    with pytest.raises(TargetRefusedError, match=r"a\.raw\.vsssnap exists"):
        check_save("a.raw", MIB)


def test_what_a_killed_save_left_is_seen_and_stays(folder: Path) -> None:
    (folder / "a.vsnap.partial").write_bytes(b"left")
    with pytest.raises(TargetRefusedError, match="was killed before it was complete"):
        check_save("a.vsnap", MIB)
    check_save("a.vsnap", MIB, replace=True)
    assert (folder / "a.vsnap.partial").read_bytes() == b"left"


def test_an_image_that_is_being_written_is_left_alone() -> None:
    writer = create_image("a.vsnap", MIB)
    try:
        for replace in (False, True):
            with pytest.raises(TargetRefusedError, match="is being written by another process"):
                check_save("a.vsnap", MIB, replace=replace)
        if sys.platform != "win32":
            fd = os.open("a.vsnap.partial", os.O_RDWR)
            with pytest.raises(BlockingIOError):  # the writer still has its lock
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(fd)
    finally:
        writer.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there a name may be as long as the file system takes")
def test_a_name_that_is_too_long_with_what_is_added_is_refused(folder: Path) -> None:
    for most, suffix, options in ((247, ".vsnap", None), (239, ".raw", RawOptions(sidecar=True))):
        name = "b" * (most - len(suffix)) + suffix
        with pytest.raises(TargetRefusedError, match=f"a name of {most + 1} bytes; {most} are the most"):
            check_save("b" + name, MIB, options=options)
        with pytest.raises(TargetRefusedError, match=f"a name of {most + 1} bytes; {most} are the most"):
            save_image(BytesReader(bytes(MIB)), "b" + name, options=options)
        assert not list(folder.glob("b*"))
        check_save(name, MIB, options=options)
        save_image(BytesReader(bytes(MIB)), name, options=options)
        (folder / name).unlink()
        for beside in folder.glob("*.vsssnap"):
            beside.unlink()


@pytest.mark.skipif(sys.platform == "win32", reason="there rights are known only when the file is made")
@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_that_cannot_be_written_is_refused(folder: Path, replace: bool) -> None:
    if replace:
        (folder / "a.vsnap").write_bytes(b"old")
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:  # who may write everywhere
        os.seteuid(65534)
    try:
        with pytest.raises(TargetError, match=r"a\.vsnap(\.vsssnap)?\.partial cannot be created: Permission"):
            check_save("a.vsnap", MIB, replace=replace)
    finally:
        os.seteuid(user)
        folder.chmod(0o755)
