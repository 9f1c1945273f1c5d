"""A disk with LVM is viewed through the file systems in its logical volumes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import lvm_images as lvm
from foreign import run_quietly
from lvm_images import EXTENT, START, on_disk, physical_volume, segment, volume
from sources import BytesReader
from vsssnap import ExtentKind, UnusedPolicy, open_device
from vsssnap.volumes import Partitions, view_of

PLACES = [(62, 40), (2, 60)]  # first extent and count of the parts of the volume "root"
TEXT = lvm.group(
    volume("root", segment(1, 0, 40, [("pv0", 62)]), segment(2, 40, 60, [("pv0", 2)]))
    + volume("raw", segment(1, 0, 3, [("pv0", 110)])),
    extents=128,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A physical volume with ext4 in a volume of two parts."""
    folder = tmp_path_factory.mktemp("server")
    root = folder / "root"
    root.write_bytes(bytes(100 * EXTENT))
    files = folder / "files"
    files.mkdir()
    (files / "kept").write_bytes(b"kept" * 50_000)
    run_quietly("mkfs.ext4", "-q", "-F", "-L", "ROOT", "-d", files, root)
    image = physical_volume(TEXT, extents=128)
    content, at = root.read_bytes(), 0
    for first, count in PLACES:
        size = count * EXTENT
        image[START + first * EXTENT : START + first * EXTENT + size] = content[at : at + size]
        at += size
    path = folder / "pv"
    path.write_bytes(image)
    return path


def root_of(image: bytes) -> bytes:
    return b"".join(
        image[START + first * EXTENT : START + (first + count) * EXTENT] for first, count in PLACES
    )


@pytest.mark.parametrize("whole", [False, True])
def test_only_what_a_file_of_a_volume_uses_is_kept(whole: bool, server: Path, tmp_path: Path) -> None:
    disk = server if whole else on_disk([server], tmp_path / "disk")
    with open_device(disk) as source, view_of(source) as view:
        place = 0 if whole else Partitions(source)[1].offset
        size = server.stat().st_size
        image, original = view.pread(size, place), source.pread(size, place)
        data = sum(each.length for each in view.extents() if each.kind is ExtentKind.DATA)
        holes = sum(each.length for each in view.extents() if each.kind is ExtentKind.HOLE)
        notes = [note for note in view.metadata.notes if "every block is kept" in note]
    assert [note.split(":")[0] for note in notes] == ["logical volume vg/raw"]
    assert image[:START] == original[:START]
    raw = slice(START + 110 * EXTENT, START + 113 * EXTENT)
    assert image[raw] == original[raw]
    assert image[START : START + 2 * EXTENT] == bytes(2 * EXTENT)  # no volume has it
    assert holes > 25 * EXTENT + 3 * (1 << 20)
    assert data < 4 * (1 << 20)
    volume = tmp_path / "volume"
    volume.write_bytes(root_of(image))
    run_quietly("e2fsck", "-fn", volume)
    read = subprocess.run(["debugfs", "-R", "cat kept", str(volume)], capture_output=True, check=True)
    assert read.stdout == b"kept" * 50_000


def test_everything_is_kept_on_request(server: Path, tmp_path: Path) -> None:
    with open_device(server) as source, view_of(source, unused=UnusedPolicy.READ, exclude=()) as view:
        assert view.pread(view.size, 0) == server.read_bytes()
        assert {each.kind for each in view.extents()} == {ExtentKind.DATA}


def test_a_label_that_was_left_behind_decides_nothing(server: Path, tmp_path: Path) -> None:
    stale, image = tmp_path / "stale", server.read_bytes()
    stale.write_bytes(bytes(len(image)))
    run_quietly("mkfs.ext4", "-q", "-F", stale)
    mixed = bytearray(stale.read_bytes())
    mixed[512:1024] = image[512:1024]  # ext4 leaves the sectors before its super block alone
    mixed[lvm.AREA : lvm.AREA + lvm.AREA_SIZE] = image[lvm.AREA : lvm.AREA + lvm.AREA_SIZE]
    stale.write_bytes(mixed)
    with open_device(on_disk([stale], tmp_path / "disk")) as source, view_of(source) as view:
        assert any("LVM too" in note for note in view.metadata.notes)
        start = Partitions(source)[1].offset
        assert {each.kind for each in view.extents(start, len(mixed))} == {ExtentKind.DATA}


def test_what_a_snapshot_is_read_through_is_kept(server: Path, tmp_path: Path) -> None:
    """A file that was deleted since lies in blocks that are free now."""
    shot = 'type = "snapshot"\nchunk_size = 8\norigin = "root"\ncow_store = "before"\n'
    text = lvm.group(
        volume("root", segment(1, 0, 40, [("pv0", 62)]), segment(2, 40, 60, [("pv0", 2)]))
        + volume("before", segment(1, 0, 3, [("pv0", 110)]))
        + volume(
            "snapshot0",
            f"segment1 {{\nstart_extent = 0\nextent_count = 100\n{shot}}}\n",
            status='"READ", "WRITE"',
        ),
        extents=128,
    )
    path = tmp_path / "pv"
    path.write_bytes(lvm.rewritten(bytearray(server.read_bytes()), text))
    with open_device(path) as source, view_of(source) as view:
        image, original = view.pread(view.size, 0), path.read_bytes()
        assert root_of(image) == root_of(original)
        raw = slice(START + 110 * EXTENT, START + 113 * EXTENT)
        assert image[raw] == original[raw]
        assert image[START : START + 2 * EXTENT] == bytes(2 * EXTENT)  # no volume has it
        assert [note for note in view.metadata.notes if "vg/root: every block is kept, as snap" in note]


def test_a_partition_that_fails_is_kept_and_the_others_are_viewed(server: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(8 << 20))
    run_quietly("mkfs.ext4", "-q", "-F", other)
    disk = on_disk([server, other], tmp_path / "disk")
    with open_device(disk) as source:
        first, second = (Partitions(source)[number].offset for number in (1, 2))
    # LVM has no use for these bytes, but nobody can tell what else may be there.
    failing = BytesReader(disk.read_bytes(), bad=[(first + 66 * 1024, 512)])
    with view_of(failing) as view:
        kinds = {each.kind for each in view.extents(first, server.stat().st_size)}
        assert kinds == {ExtentKind.DATA}
        assert ExtentKind.HOLE in {each.kind for each in view.extents(second, 8 << 20)}
        assert any(note.startswith("partition 1: ") for note in view.metadata.notes)


def test_a_damaged_description_keeps_everything(server: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    content = bytearray(server.read_bytes())
    content[lvm.AREA + 600] ^= 1
    damaged.write_bytes(content)
    with open_device(damaged) as source, view_of(source) as view:
        assert view.pread(view.size, 0) == bytes(content)
