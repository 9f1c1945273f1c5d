"""Volumes imaged by their used blocks alone come back clean, with every file as it was."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foreign import dumpe2fs_free, free_of, free_ranges, mkntfs, ntfs_bitmap, ntfs_runs, run_quietly
from loops import fused, loop_device, mounted, sparse_file
from requirements import require_lab
from vsssnap import ExtentKind, open_device, open_image, restore_image, save_image
from vsssnap.volumes import DEFAULT_EXCLUSIONS, filesystem

pytestmark = pytest.mark.lab

MIB = 1 << 20
STORE = "{11111111-2222-3333-4444-555555555555}{3808876b-c176-4e48-b7ae-04046e6cc752}"
CATALOG = "{3808876b-c176-4e48-b7ae-04046e6cc752}"


def fill(folder: Path, seed: int, *, files: int, most: int) -> None:
    """Files of many sizes in folders, of which every third is removed again, and others grown."""
    rng = random.Random(seed)
    for index in range(files):
        place = folder / f"folder {index % 7}"
        place.mkdir(exist_ok=True)
        (place / f"file {index}").write_bytes(rng.randbytes(rng.randrange(most)))
    for index in range(0, files, 3):
        (folder / f"folder {index % 7}" / f"file {index}").unlink()
    for index in range(1, files, 3):
        with (folder / f"folder {index % 7}" / f"file {index}").open("ab") as file:
            file.write(rng.randbytes(rng.randrange(most // 2)))


def digests(folder: Path) -> dict[str, str]:
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            if path.is_file() and not path.is_symlink():
                found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def imaged(volume: Path, folder: Path) -> Path:
    """The volume saved by its used blocks, and restored; free blocks held noise before."""
    image, copy = folder / "image.vsnap", folder / "copy.img"
    with open_device(volume) as reader:
        fs = filesystem(reader)
        assert fs is not None
        assert fs.doubt == ""
        report = save_image(fs.view(), image)
    assert report.hole > 0
    with open_image(image) as saved:
        restore_image(saved, copy, verify=True)
    image.unlink()
    return copy


def soiled(path: Path) -> Path:
    """A file of noise for a volume: a free block that is taken for a used one can then be seen."""
    noise = random.Random(9).randbytes(MIB)
    with path.open("r+b") as file:
        for offset in range(0, path.stat().st_size, MIB):
            file.seek(offset)
            file.write(noise)
    return path


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vsssnap-volumes-") as name:
        yield Path(name)


@pytest.mark.parametrize(("sector", "cluster"), [(512, 4096), (512, 65536), (4096, 4096)])
def test_an_ntfs_volume_comes_back_without_what_windows_makes_anew(
    sector: int, cluster: int, folder: Path
) -> None:
    require_lab("mkntfs", "ntfs-3g", "ntfsfix", file_systems=("fuseblk",))
    volume = mkntfs(folder / "volume", 96 * MIB, "-s", str(sector), "-c", str(cluster))
    hidden = {
        "pagefile.sys": b"page" * 500_000,
        "swapfile.sys": b"swap" * 200_000,
        "hiberfil.sys": bytes(4096) + b"hibe" * 300_000,
        f"System Volume Information/{STORE}": b"diff" * 400_000,
        f"System Volume Information/{CATALOG}": b"cata" * 16_384,
    }
    with fused("ntfs-3g", volume, folder / "mount") as mount:
        fill(mount, 1, files=300, most=200_000)
        (mount / "System Volume Information").mkdir()
        for name, content in hidden.items():
            (mount / name).write_bytes(content)
        (mount / "System Volume Information" / "tracking.log").write_bytes(b"kept" * 5000)
        before = digests(mount)
    with open_device(volume) as reader:
        fs = filesystem(reader)
        assert fs is not None
        found = {path: extents for _, path, extents in fs.excluded(DEFAULT_EXCLUSIONS)}
        assert set(found) == {"\\" + name.replace("/", "\\") for name in hidden}
        for path, extents in found.items():
            runs = sorted(ntfs_runs(volume, path.replace("\\", "/")))
            assert [(each.offset // cluster, each.length // cluster) for each in extents] == runs
        assert free_of(volume) == free_ranges(ntfs_bitmap(volume), fs.size // cluster, cluster)

    copy = imaged(volume, folder)
    run_quietly("ntfsfix", "--no-action", copy)
    with fused("ntfs-3g", copy, folder / "again") as mount:
        after = digests(mount)
        for name, content in hidden.items():
            assert (mount / name).read_bytes() == bytes(len(content))
            del before[name], after[name]
    assert after == before
    assert len(before) == 201
    # The backup boot sector is the last one of the volume.
    for each in (volume, copy):
        content = each.read_bytes()
        assert content[-sector:][:84] == content[:84]


def test_an_ntfs_file_table_in_pieces_is_read_by_its_attribute_list(folder: Path) -> None:
    """Hundreds of fragments of $MFT, a page file and $Bitmap's neighbours: lists of attributes."""
    require_lab("mkntfs", "ntfs-3g", file_systems=("fuseblk",))
    volume = mkntfs(folder / "volume", 48 * MIB, "-c", "512", "-z", "1")
    with fused("ntfs-3g", volume, folder / "mount") as mount:
        # Fill the volume and free every other file, so that all that comes later is in pieces.
        names = [mount / f"fill {index}" for index in range(12000)]
        with contextlib.suppress(OSError):
            for name in names:
                name.write_bytes(b"x" * 4000)
        assert not names[-1].exists(), "the volume was not filled"
        for name in names[::2]:
            name.unlink(missing_ok=True)
        (mount / "pagefile.sys").write_bytes(b"p" * 16_000_000)
        for index in range(2000):
            (mount / f"small {index}").write_bytes(b"s" * 40)
        before = digests(mount)
    with open_device(volume) as reader:
        fs = filesystem(reader)
        assert fs is not None
        assert fs.doubt == ""
        ((_, _, extents),) = fs.excluded(DEFAULT_EXCLUSIONS)
        runs = ntfs_runs(volume, "pagefile.sys")
        assert "0x20" in run_quietly("ntfscluster", "--filename", "pagefile.sys", volume), len(runs)
        assert [(each.offset // 512, each.length // 512) for each in extents] == sorted(runs)
        assert len(ntfs_runs(volume, "$MFT")) > 20
        assert free_of(volume) == free_ranges(ntfs_bitmap(volume), fs.size // 512, 512)
    copy = imaged(volume, folder)
    run_quietly("ntfsfix", "--no-action", copy)
    with fused("ntfs-3g", copy, folder / "again") as mount:
        after = digests(mount)
    assert after.pop("pagefile.sys") != before.pop("pagefile.sys")
    assert after == before


@pytest.mark.parametrize(
    "options",
    ["-t ext2", "-t ext3", "-t ext4", "-t ext4 -O bigalloc", "-t ext4 -b 1024 -O meta_bg,^resize_inode"],
)
def test_an_ext_volume_comes_back_clean(options: str, folder: Path) -> None:
    require_lab("mke2fs", "e2fsck", file_systems=("ext4",))
    volume = soiled(sparse_file(folder / "volume", 80 * MIB))
    run_quietly("mke2fs", "-F", "-q", "-E", "nodiscard", *options.split(), volume)
    with loop_device(volume) as device, mounted(device, folder / "mount") as mount:
        fill(mount, 2, files=300, most=200_000)
        before = digests(mount)
    size = 16 * 1024 if "bigalloc" in options else 1024
    assert free_of(volume) == dumpe2fs_free(volume, size)
    copy = imaged(volume, folder)
    run_quietly("e2fsck", "-f", "-n", copy)
    with loop_device(copy) as device, mounted(device, folder / "mount") as mount:
        assert digests(mount) == before
    assert len(before) == 200


def test_an_ext4_volume_in_use_has_a_doubt_and_frozen_has_none(folder: Path) -> None:
    require_lab("mke2fs", "e2fsck", "fsfreeze", file_systems=("ext4",))
    volume = sparse_file(folder / "volume", 64 * MIB)
    run_quietly("mke2fs", "-F", "-q", "-t", "ext4", volume)
    with loop_device(volume) as device, mounted(device, folder / "mount") as mount:
        fill(mount, 3, files=60, most=100_000)
        os.sync()
        with open_device(volume) as reader:
            fs = filesystem(reader)
            assert fs is not None
            assert "journal needs recovery" in fs.doubt
        run_quietly("fsfreeze", "--freeze", mount)
        try:
            copy = imaged(volume, folder)
        finally:
            run_quietly("fsfreeze", "--unfreeze", mount)
        before = digests(mount)
    run_quietly("e2fsck", "-f", "-n", copy)
    with loop_device(copy) as device, mounted(device, folder / "mount") as mount:
        assert digests(mount) == before


def on_fat(volume: Path, work: Callable[[Path], None], folder: Path) -> None:
    """Copy a folder's files into a FAT volume."""
    content = folder / "content"
    content.mkdir()
    work(content)
    run_quietly("mcopy", "-i", volume, "-s", *sorted(content.iterdir()), "::")


@pytest.mark.parametrize(("size", "options"), [(4, "-F 12"), (48, "-F 16"), (80, "-F 32 -s 1")])
def test_a_fat_volume_comes_back_clean(size: int, options: str, folder: Path) -> None:
    require_lab("mkfs.fat", "fsck.fat", "mcopy", root=False)
    volume = soiled(sparse_file(folder / "volume", size * MIB))
    run_quietly("mkfs.fat", *options.split(), volume)
    on_fat(volume, lambda place: fill(place, 4, files=60, most=size * MIB // 80), folder)
    run_quietly("mdel", "-i", volume, "::folder 1/file 1", "::folder 2/file 2")
    copy = imaged(volume, folder)
    run_quietly("fsck.fat", "-n", copy)
    for source, name in ((volume, "out"), (copy, "again")):
        (folder / name).mkdir()
        run_quietly("mcopy", "-i", source, "-s", "::*", folder / name)
    assert digests(folder / "again") == digests(folder / "out")
    assert len(digests(folder / "out")) == 38


def test_an_exfat_volume_comes_back_clean(folder: Path) -> None:
    require_lab("mkfs.exfat", "fsck.exfat", "mount.exfat-fuse", file_systems=("fuseblk",))
    volume = soiled(sparse_file(folder / "volume", 80 * MIB))
    run_quietly("mkfs.exfat", volume)
    with fused("mount.exfat-fuse", volume, folder / "mount") as mount:
        fill(mount, 5, files=100, most=300_000)
        before = digests(mount)
    copy = imaged(volume, folder)
    run_quietly("fsck.exfat", "-n", copy)
    with fused("mount.exfat-fuse", copy, folder / "again") as mount:
        assert digests(mount) == before
    with open_device(volume) as reader:
        fs = filesystem(reader)
        assert fs is not None
        kept = sum(each.length for each in fs.view().extents() if each.kind is ExtentKind.DATA)
    assert kept < 30 * MIB
