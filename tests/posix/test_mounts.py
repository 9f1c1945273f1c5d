"""Mounts, swap and holders, from their documented text and from the kernel itself."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given

from loops import file_system, loop_device, make_file_system, mounted, run, sparse_file
from requirements import require_lab, require_program
from vsssnap._posix import mounts
from vsssnap._posix.mounts import Mount, Swap
from vsssnap.errors import SnapshotError
from vsssnap.testing.strategies import mutations

MIB = 1 << 20

# proc(5)'s own example, and lines as kernels write them.
EXAMPLE = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"
OTHERS = (
    b"21 27 0:19 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw\n"
    b"40 27 8:1 / /mnt/with\\040space rw,relatime shared:1 master:2 - xfs /dev/sda1 rw,attr2\n"
    b"41 27 0:50 /sub\\134vol /srv/a\\012b ro - btrfs /dev/sdb ro,subvol=/sub\\134vol\n"
    b"42 27 0:51 / /none rw - tmpfs  rw,size=1k\n"
)


def test_line_of_the_manual_is_read_as_the_manual_says() -> None:
    assert mounts.parse(EXAMPLE) == (
        Mount(
            36,
            35,
            (98, 0),
            "/mnt1",
            "/mnt2",
            "ext3",
            "/dev/root",
            ("rw", "noatime"),
            ("rw", "errors=continue"),
        ),
    )


def test_device_number_is_in_the_form_of_stat() -> None:
    (mount,) = mounts.parse(EXAMPLE)
    assert (os.major(mount.rdev), os.minor(mount.rdev)) == (98, 0)


def test_optional_fields_and_escapes_are_understood() -> None:
    sysfs, space, newline, empty = mounts.parse(OTHERS)
    assert (sysfs.filesystem, sysfs.source) == ("sysfs", "sysfs")
    assert space.mount_point == "/mnt/with space"
    assert (newline.root, newline.mount_point) == ("/sub\\vol", "/srv/a\nb")
    assert (empty.source, empty.super_options) == ("", ("rw", "size=1k"))


def test_name_in_no_encoding_comes_back_as_it_was() -> None:
    (mount,) = mounts.parse(EXAMPLE.replace(b"/mnt2", b"/mnt\xff"))
    assert os.fsencode(mount.mount_point) == b"/mnt\xff"


@pytest.mark.parametrize(
    "line", [b"36 35 98:0 /mnt1", b"x 35 98:0 / / rw - ext3 a rw", b"36 35 98 / / rw - ext3 a rw", b"36"]
)
def test_line_of_another_form_is_an_error_that_names_it(line: bytes) -> None:
    with pytest.raises(SnapshotError, match="mountinfo line 2 is not in the form of proc") as caught:
        mounts.parse(EXAMPLE + line)
    assert repr(line) in str(caught.value)


@given(mutations(EXAMPLE + OTHERS))
def test_any_text_is_read_or_refused(text: bytes) -> None:
    with contextlib.suppress(SnapshotError):
        mounts.parse(text)


def test_own_mounts_are_those_that_findmnt_sees() -> None:
    require_program("findmnt")
    listed = run("findmnt", "--raw", "--noheadings", "--output", "ID,TARGET,FSTYPE").splitlines()
    seen = {(int(line.split()[0]), line.split()[-1]) for line in listed}
    found = {(mount.mount_id, mount.filesystem) for mount in mounts.read()}
    assert seen <= found


def test_path_is_in_the_mount_that_the_kernel_says(tmp_path: Path) -> None:
    assert mounts.containing("/proc").filesystem == "proc"
    assert mounts.containing("/proc/self/status").mount_point == "/proc"
    link = tmp_path / "link"
    link.symlink_to("/proc")
    assert mounts.containing(str(link)).filesystem == "proc"
    fd = os.open("/proc", os.O_RDONLY)
    try:
        assert mounts.containing(fd) == mounts.containing("/proc")
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("path", "said"), [("/no/such/path", "No such file"), ("", "No such file"), ("a\0b", "is no path")]
)
def test_path_that_is_nowhere_is_an_error(path: str, said: str) -> None:
    with pytest.raises(SnapshotError, match=said) as caught:
        mounts.containing(path)
    assert "name something that exists" in str(caught.value)


def test_mount_that_is_not_in_the_list_is_an_error() -> None:
    with pytest.raises(SnapshotError, match="is not among this process's mounts"):
        mounts.containing("/proc", ())


def test_descriptor_that_is_not_open_is_an_error() -> None:
    with pytest.raises(SnapshotError, match="fdinfo/99999"):
        mounts.mount_id(99_999)


def test_swap_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = tmp_path / "swaps"
    table.write_text(
        "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
        "/dev/sda2                               partition\t8388604\t\t0\t\t-2\n"
        "/swap\\040file\\040(deleted)             file\t\t1024\t\t0\t\t-3\n"
    )
    monkeypatch.setattr(mounts, "_SWAPS", str(table))
    assert mounts.swap_devices() == (Swap("/dev/sda2", "partition"), Swap("/swap file (deleted)", "file"))


def test_missing_proc_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "_MOUNTINFO", "/no/proc/mountinfo")
    with pytest.raises(SnapshotError, match=r"/no/proc/mountinfo: No such file.*mount /proc"):
        mounts.read()


def test_device_without_sysfs_has_no_holders() -> None:
    assert mounts.holders(os.makedev(4000, 5)) == ()


# Labs.


@pytest.mark.lab
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_mounts_of_a_device_are_found_however_they_are_numbered(kind: str, tmp_path: Path) -> None:
    require_lab("losetup", f"mkfs.{kind}", file_systems=(kind,))
    with file_system(kind, tmp_path, 320 * MIB) as (point, device):
        (mount,) = mounts.of_device(os.stat(device).st_rdev)
        assert (mount.mount_point, mount.filesystem) == (str(point), kind)
        assert mounts.containing(str(point / ".")).mount_id == mount.mount_id
        inside = point / "folder"
        inside.mkdir()
        run("mount", "--bind", inside, tmp_path / "volume" / "folder")
        try:
            both = mounts.of_device(os.stat(device).st_rdev)
            assert {mount.mount_point for mount in both} == {str(point), str(inside)}
        finally:
            run("umount", inside)
    assert all(mount.mount_point != str(point) for mount in mounts.read())


@pytest.mark.lab
def test_btrfs_is_found_by_each_of_its_devices(tmp_path: Path) -> None:
    require_lab("losetup", "mkfs.btrfs", file_systems=("btrfs",))
    files = [sparse_file(tmp_path / name, 160 * MIB) for name in ("a", "b")]
    with loop_device(files[0]) as one, loop_device(files[1]) as two:
        run("mkfs.btrfs", "-q", "-f", one, two)
        with mounted(one, tmp_path / "here") as point:
            for device in (one, two):
                assert [m.mount_point for m in mounts.of_device(os.stat(device).st_rdev)] == [str(point)]


@pytest.mark.lab
def test_mount_in_another_namespace_is_not_seen(tmp_path: Path) -> None:
    require_lab("losetup", "mkfs.ext4", "unshare", file_systems=("ext4",))
    with loop_device(sparse_file(tmp_path / "disk", 16 * MIB)) as device:
        make_file_system("ext4", device)
        (tmp_path / "here").mkdir()
        program = (
            "import os, sys; from vsssnap._posix import mounts;"
            "print([m.mount_point for m in mounts.of_device(os.stat(sys.argv[1]).st_rdev)])"
        )
        script = f'mount "{device}" "{tmp_path}/here" && exec "{sys.executable}" -c "$1" "{device}"'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", program],
            capture_output=True,
            text=True,
            check=True,
        )
        assert str(tmp_path / "here") in done.stdout
        assert mounts.of_device(os.stat(device).st_rdev) == ()
