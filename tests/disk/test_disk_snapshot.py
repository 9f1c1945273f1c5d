"""What a disk's volumes are is lent: files stand for the disk and for partitions that nobody uses."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import lvm_images as lvm
from foreign import sfdisk
from loops import sparse_file
from vsssnap import DiskSnapshot, Snapshot, Uncovered, UnusedPolicy
from vsssnap._placed import PlacedVolume
from vsssnap.disk import logical, snapshot
from vsssnap.errors import CancelledError, SnapshotError, SnapshotTimeoutError, UsageError

pytestmark = pytest.mark.posix("the provider of the partitions is static")

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk of two partitions that nobody uses."""
    path = sparse_file(tmp_path / "disk", 4 * MIB)
    sfdisk(path, "label: gpt\nstart=2048,size=2048\nstart=4096,size=2048\n")
    placed = [
        PlacedVolume(
            offset=number * MIB,
            length=MIB,
            name=str(sparse_file(tmp_path / f"partition{number}", MIB)),
            idle=True,
        )
        for number in (1, 2)
    ]
    monkeypatch.setattr(snapshot, "volumes_on", lambda _: placed)
    return path


def test_a_disk_under_lvm_of_which_nothing_is_active_is_one_that_nobody_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "volumes_on", lambda _: [])
    path = tmp_path / "disk"
    text = lvm.group(lvm.volume("root", lvm.segment(1, 0, 3, [("pv0", 4)])))
    path.write_bytes(lvm.physical_volume(text))
    with DiskSnapshot(path) as s, s.open(unused=UnusedPolicy.READ) as whole, s.open() as reader:
        assert dict(s.volumes) == {0: str(path)}
        assert whole.pread(whole.size, 0) == path.read_bytes()
        used = lvm.START + 4 * lvm.EXTENT
        assert reader.pread(3 * lvm.EXTENT, used) == path.read_bytes()[used : used + 3 * lvm.EXTENT]
        assert reader.pread(lvm.EXTENT, lvm.START) == bytes(lvm.EXTENT)  # no volume has it
        assert any(note.startswith("the disk: ") for note in reader.metadata.notes)
        reader.confirm()
    path.write_bytes(lvm.physical_volume(text.replace(b"seqno = 7\n", b'seqno = 7\nsystem_id = "they"\n')))
    with pytest.raises(UsageError, match="the disk is of the volume group vg, which the host they owns"):
        DiskSnapshot(path).create()


def bare(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is under LVM itself, and LVM's metadata on it are damaged."""
    placed = [PlacedVolume(offset=0, length=4 * MIB, name=str(path), logical=True)]
    monkeypatch.setattr(snapshot, "volumes_on", lambda _: placed)
    monkeypatch.setattr(logical, "_mapped", dict)


@pytest.mark.parametrize("before", [True, False])
def test_it_is_cancelled_though_nothing_is_mounted(
    before: bool, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = DiskSnapshot(disk)
    if before:
        s.cancel()
    else:
        create: Callable[[Snapshot], None] = Snapshot.create

        def cancelled(one: Snapshot) -> None:
            s.cancel()
            create(one)

        monkeypatch.setattr(Snapshot, "create", cancelled)
    with pytest.raises(CancelledError):
        s.create()
    with pytest.raises(ValueError, match="not taken"):
        s.open()


@pytest.mark.parametrize("error", [SnapshotError("no more"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_what_was_held_is_let_go_when_a_later_one_fails(
    error: BaseException, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create: Callable[[Snapshot], None] = Snapshot.create
    held: list[Snapshot] = []

    def failing(one: Snapshot) -> None:
        if held:
            raise error
        create(one)
        held.append(one)

    monkeypatch.setattr(Snapshot, "create", failing)
    s = DiskSnapshot(disk)
    with pytest.raises(type(error)):
        s.create()
    assert [repr(one).endswith("closed>") for one in held] == [True]
    with pytest.raises(ValueError, match="not taken"):
        s.open()
    # And it can be tried again.
    monkeypatch.setattr(Snapshot, "create", create)
    with s:
        assert list(s.volumes) == [1, 2]


def test_its_readers_close_with_it(disk: Path) -> None:
    def held() -> list[str]:
        found = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
        return [
            name for each in found if each.is_symlink() and (name := os.readlink(each)).startswith(str(disk))
        ]

    with DiskSnapshot(disk) as s:
        readers = s.open(), s.open()
        assert readers[0].pread(8, 512) == b"EFI PART"
        readers[1].close()
        assert held()
    for each in readers:
        with pytest.raises(ValueError, match="closed"):
            each.pread(8, 512)
    assert not held()


def test_its_time_is_that_of_all_partitions(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(_: Snapshot) -> None:
        time.sleep(0.2)

    monkeypatch.setattr(Snapshot, "create", slow)
    with pytest.raises(SnapshotTimeoutError, match=r"not done within 0\.1 s"):
        DiskSnapshot(disk, timeout=0.1).create()
    with pytest.raises(UsageError, match="not positive"):
        DiskSnapshot(disk, timeout=0)


def test_a_disk_of_which_nothing_is_known_is_read_as_it_is_or_refused(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sparse_file(tmp_path / "bare", 4 * MIB)
    with path.open("r+b") as file:
        file.write(b"as it is")
    bare(path, monkeypatch)
    with pytest.raises(UsageError, match="no snapshot can stand for all of it: the disk is under LVM"):
        DiskSnapshot(path).create()
    with pytest.raises(UsageError, match="nothing would be left of it: it is under LVM") as caught:
        DiskSnapshot(path, uncovered=Uncovered.LEAVE_OUT).create()
    assert "Uncovered.READ" in caught.value.hint
    with DiskSnapshot(path, uncovered=Uncovered.READ) as s, s.open() as reader:
        assert reader.pread(reader.size, 0) == path.read_bytes()
        assert any(note.startswith("the disk was read as it is") for note in reader.metadata.notes)
