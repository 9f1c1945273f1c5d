"""What goes wrong on real machines: full disks, missing rights, devices that change under the copy."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loops import file_system, loop_device, mounted, run, sparse_file
from requirements import require_lab
from sources import noise
from vsssnap import (
    CowVolume,
    Snapshot,
    WhenFull,
    open_device,
    restore_image,
    save_image,
    verify_image,
)
from vsssnap.errors import (
    InsufficientStorageError,
    SnapshotLostError,
    TargetError,
    TargetRefusedError,
    VssSnapError,
)
from vsssnap.testing import MemoryReader, MemoryVolume

pytestmark = [pytest.mark.lab, pytest.mark.timeout(170)]

MIB = 1 << 20
NOBODY = 65_534


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with 1 MiB of room."""
    require_lab("mount")
    with mounted("none", tmp_path / "small", options="size=1m", kind="tmpfs") as point:
        yield point


# A full disk.


@pytest.mark.parametrize("name", ["a.raw", "a.vsnap"])
@pytest.mark.parametrize("preallocate", [False, True])
def test_full_target_leaves_nothing_and_says_so(small: Path, name: str, preallocate: bool) -> None:
    from vsssnap.formats.raw import RawOptions

    options = RawOptions(preallocate=True) if preallocate and name == "a.raw" else None
    with pytest.raises(TargetError) as caught:
        save_image(MemoryReader(noise(4 * MIB)), small / name, options=options)
    error = caught.value
    assert error.code == error.errno == errno.ENOSPC
    assert error.path == str(small / name)
    assert f"{small / name}: " in str(error)
    assert "No space left on device" in str(error)
    assert "error 28" in str(error)
    assert str(error).endswith("make room or choose another target")
    assert list(small.iterdir()) == []
    assert os.statvfs(small).f_bfree == os.statvfs(small).f_blocks, "its space is given back"


def test_full_target_keeps_what_was_to_be_replaced(small: Path) -> None:
    save_image(MemoryReader(noise(MIB // 4)), small / "a.vsnap")
    before = (small / "a.vsnap").read_bytes()
    with pytest.raises(TargetError, match="No space left"):
        save_image(MemoryReader(noise(4 * MIB)), small / "a.vsnap", replace=True)
    assert [path.name for path in small.iterdir()] == ["a.vsnap"]
    assert (small / "a.vsnap").read_bytes() == before
    assert verify_image(small / "a.vsnap").ok


def test_full_target_of_a_restore_leaves_nothing(small: Path, tmp_path: Path) -> None:
    save_image(MemoryReader(noise(4 * MIB)), tmp_path / "a.vsnap")
    with pytest.raises(TargetError, match=r"No space left.*make room"):
        restore_image(tmp_path / "a.vsnap", small / "back")
    assert list(small.iterdir()) == []


def overwrite(volume: CowVolume) -> None:
    for offset in range(0, volume.size, 4096):
        volume.pwrite(b"new", offset)


def test_full_shadow_storage_loses_the_snapshot_and_not_the_writer(small: Path) -> None:
    backing = MemoryVolume(noise(4 * MIB))
    with CowVolume(backing, shadow_folder=small, block_size=4096) as volume:
        with volume.snapshot() as snapshot:
            overwrite(volume)
            with pytest.raises(SnapshotLostError) as caught:
                snapshot.confirm()
        assert "No space left" in str(caught.value) or "full" in str(caught.value)
        assert volume.pread(3, 4 * MIB - 4096) == b"new"


def test_full_shadow_storage_fails_the_write_by_option(small: Path) -> None:
    backing = MemoryVolume(noise(4 * MIB))
    with CowVolume(
        backing, shadow_folder=small, block_size=4096, when_full=WhenFull.FAIL_WRITE
    ) as volume, volume.snapshot() as snapshot:  # fmt: skip
        with pytest.raises(InsufficientStorageError) as caught:
            overwrite(volume)
        assert caught.value.hint
        with snapshot.open() as reader:
            assert reader.readall() == noise(4 * MIB)


# No rights.

UNPRIVILEGED = """
import json, os, sys
from vsssnap import Snapshot, open_device, open_image, restore_image, save_image
from vsssnap.providers import by_name, SnapshotRequest
from vsssnap.consistency import Consistency
from vsssnap.testing import MemoryReader
import vsssnap.cli.app, vsssnap.blocks.device, vsssnap._posix.devices, vsssnap.providers.static
import vsssnap.providers.reflink, vsssnap.providers.cow, vsssnap.formats.vsnap, rich.progress
os.setgroups([])
os.setresgid({nobody}, {nobody}, {nobody})
os.setresuid({nobody}, {nobody}, {nobody})
path, device, open_to_all, locked = {path!r}, {device!r}, {open_to_all!r}, {locked!r}
calls = {{
    "open file": lambda: open_device(path),
    "open device": lambda: open_device(device),
    "write device": lambda: open_device(device, writable=True),
    "open image": lambda: open_image(path),
    "snapshot": lambda: Snapshot(path).create(),
    "save into a folder": lambda: save_image(MemoryReader(b"x" * 1000), locked + "/a.raw"),
    "save over another's": lambda: save_image(MemoryReader(b"x"), path, format="raw", replace=True),
    "restore to a device": lambda: restore_image(MemoryReader(b"x" * 512), device),
    "save": lambda: save_image(MemoryReader(b"x" * 1000), open_to_all + "/a.vsnap"),
}}
for name, call in calls.items():
    try:
        call()
        said = ["", None, ""]
    except BaseException as exc:
        said = [type(exc).__name__, getattr(exc, "code", None), str(exc)]
    print(json.dumps([name, *said]), flush=True)
"""


@pytest.fixture
def refused(tmp_path: Path) -> Iterator[dict[str, tuple[str, int | None, str]]]:
    """What a user without rights is told, by what was tried; the paths are ``tmp_path``'s."""
    require_lab("losetup")
    tmp_path.chmod(0o755)
    for folder in list(tmp_path.parents)[:-1]:
        if folder.stat().st_uid == os.geteuid() and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o011)
    path, open_to_all, locked = tmp_path / "disk", tmp_path / "open", tmp_path / "locked"
    path.write_bytes(noise(MIB))
    path.chmod(0o600)
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    locked.mkdir(mode=0o755)
    with loop_device(sparse_file(tmp_path / "backing", MIB)) as device:
        os.chmod(device, 0o600)
        program = UNPRIVILEGED.format(
            nobody=NOBODY, path=str(path), device=device, open_to_all=str(open_to_all), locked=str(locked)
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100
        )
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        yield {name: (kind, code, text) for name, kind, code, text in rows}
        assert path.read_bytes() == noise(MIB)
        assert list(locked.iterdir()) == []


def test_user_without_rights_is_told_what_is_missing(
    refused: dict[str, tuple[str, int | None, str]], tmp_path: Path
) -> None:
    path, locked = tmp_path / "disk", tmp_path / "locked"
    for name, kind, code, parts in (
        ("open file", "SnapshotPermissionError", errno.EACCES, (str(path), "may not")),
        ("open device", "SnapshotPermissionError", errno.EACCES, ("/dev/loop", "may not", "group")),
        ("write device", "SnapshotPermissionError", errno.EACCES, ("/dev/loop", "may not")),
        ("open image", "SnapshotPermissionError", errno.EACCES, (str(path), "may not be read by this user")),
        ("save into a folder", "TargetError", errno.EACCES, (str(locked), "Permission denied", "writable")),
        ("restore to a device", "SnapshotPermissionError", errno.EACCES, ("/dev/loop", "may not")),
    ):
        found_kind, found_code, text = refused[name]
        assert (found_kind, found_code) == (kind, code), (name, text)
        for part in (*parts, f"error {code}"):
            assert part in text, (name, text)
    kind, _, text = refused["snapshot"]
    assert kind == "SnapshotPermissionError"
    assert "reflink: " in text
    assert f"static: {path}" in text
    assert "may not" in text
    assert refused["save over another's"][0] in ("TargetError", "TargetRefusedError")


def test_user_without_rights_saves_where_that_is_allowed(
    refused: dict[str, tuple[str, int | None, str]], tmp_path: Path
) -> None:
    assert refused["save"] == ("", None, "")
    image = tmp_path / "open" / "a.vsnap"
    assert (image.stat().st_uid, image.stat().st_mode & 0o777) == (NOBODY, 0o600)
    assert verify_image(image).ok


# Devices.


def test_volume_that_is_no_multiple_of_a_sector_is_restored_to_a_device(tmp_path: Path) -> None:
    require_lab("losetup")
    data = noise(3 * MIB + 77)
    save_image(MemoryReader(data), tmp_path / "a.vsnap")
    for sector_size in (512, 4096):
        backing = sparse_file(tmp_path / f"disk{sector_size}", 8 * MIB)
        with loop_device(backing, sector_size=sector_size) as device:
            restore_image(tmp_path / "a.vsnap", device, verify=True)
            with open_device(device) as disk:
                assert disk.pread(len(data), 0) == data
                assert disk.sector_size == sector_size


def test_device_that_is_too_small_says_both_sizes(tmp_path: Path) -> None:
    require_lab("losetup")
    save_image(MemoryReader(noise(2 * MIB)), tmp_path / "a.vsnap")
    with loop_device(sparse_file(tmp_path / "disk", MIB)) as device:
        with pytest.raises(TargetRefusedError) as caught:
            restore_image(tmp_path / "a.vsnap", device)
        assert device in str(caught.value)
        assert str(MIB) in str(caught.value)
        assert str(2 * MIB) in str(caught.value)
        with open_device(device) as disk:
            assert not any(disk.readall())


def test_empty_volume_is_restored_to_a_device_untouched(tmp_path: Path) -> None:
    require_lab("losetup")
    save_image(MemoryReader(b""), tmp_path / "empty.vsnap")
    backing = tmp_path / "disk"
    backing.write_bytes(noise(MIB))
    with loop_device(backing) as device:
        restore_image(tmp_path / "empty.vsnap", device)
        with open_device(device) as disk:
            assert disk.readall() == noise(MIB)


def test_device_that_shrinks_while_it_is_read_leaves_no_image(tmp_path: Path) -> None:
    require_lab("losetup")
    backing = tmp_path / "disk"
    backing.write_bytes(noise(8 * MIB))
    with loop_device(backing) as device, open_device(device) as disk:
        os.truncate(backing, 2 * MIB)
        run("losetup", "--set-capacity", device)
        with pytest.raises(VssSnapError) as caught:
            save_image(disk, tmp_path / "a.raw")
        assert device in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk"]


def test_volume_that_is_unmounted_before_the_instant(tmp_path: Path) -> None:
    require_lab("mkfs.xfs", "mkfs.ext4", file_systems=("xfs", "ext4"))
    with file_system("xfs", tmp_path, 320 * MIB, name="pool") as (pool, _):
        (pool / "sub").mkdir()
        with file_system("ext4", pool / "sub", 32 * MIB) as (point, device):

            def leave(event: object) -> None:
                if getattr(event, "step", "") == "prepare":
                    run("umount", point)

            try:
                with pytest.raises(VssSnapError) as caught:
                    Snapshot(point, provider="reflink", on_event=leave).create()
                assert str(point) in str(caught.value)
            finally:
                run("mount", device, point)
