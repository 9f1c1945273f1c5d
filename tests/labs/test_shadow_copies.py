"""Shadow copies of a real NTFS volume: what is saved of them mounts, and holds the files of the instant."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from loops import fused, run, sparse_file
from requirements import require_lab
from volsnap_model import BLOCK, Volsnap
from vsssnap import ExtentKind, open_device, open_image, restore_image, save_image
from vsssnap.volumes import ShadowVolume

pytestmark = pytest.mark.lab

COUNT = 2560  # blocks: 40 MiB


def blocks_of(image: Path) -> dict[int, bytes]:
    """Blocks that are not all zeros."""
    with image.open("rb") as file:
        content = {number: file.read(BLOCK) for number in range(COUNT)}
    return {number: block for number, block in content.items() if any(block)}


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def use(folder: Path, dice: random.Random) -> dict[str, bytes]:
    """Write, append to, overwrite and delete files; what is there afterwards."""
    for path in [path for path in sorted(folder.glob("*.bin")) if dice.random() < 0.4]:
        if dice.random() < 0.4:
            path.unlink()
            continue
        with path.open("r+b") as file:
            file.seek(dice.randrange(path.stat().st_size + 1))
            file.write(dice.randbytes(dice.randrange(40_000)))
    for _ in range(12):
        (folder / f"{dice.getrandbits(32):08x}.bin").write_bytes(dice.randbytes(dice.randrange(1, 400_000)))
    return tree(folder)


def written(path: Path, blocks: dict[int, bytes], count: int) -> Path:
    with sparse_file(path, count * BLOCK).open("r+b") as file:
        for number, block in blocks.items():
            file.seek(number * BLOCK)
            file.write(block)
    return path


def test_saved_shadow_copies_mount_with_the_files_of_their_instant(tmp_path: Path) -> None:
    require_lab("mkntfs", "ntfs-3g", "ntfsfix", "losetup", file_systems=("fuseblk",))
    dice, image, mount = random.Random(7), sparse_file(tmp_path / "ntfs.img", COUNT * BLOCK), tmp_path / "mnt"
    run("mkntfs", "-F", "-Q", "-q", image)
    trees = []
    model: Volsnap | None = None
    for _ in range(4):  # three shadow copies, and the present
        with fused("ntfs-3g", image, mount):
            trees.append(use(mount, dice))
        if model is None:
            model = Volsnap.over(blocks_of(image), COUNT, storage_blocks=12_000)
        else:
            model.become(blocks_of(image))
        if len(trees) < 4:
            model.snapshot()
    assert model is not None
    disk = model.export()
    assert disk.storage is not None
    volume = written(tmp_path / "volume.raw", disk.volume, COUNT + 4)
    storage = written(tmp_path / "storage.raw", disk.storage, model.storage_blocks)

    with open_device(volume) as present, open_device(storage) as other:
        shadow = ShadowVolume(present, other)
        saved = [tmp_path / f"{store.number}.vsnap" for store in shadow.stores]
        with shadow.stores[0].open() as reader:
            assert any(extent.kind is ExtentKind.HOLE for extent in reader.extents())
            save_image(reader, saved[0])
        for number in (1, 2):  # increments, told by the stores what to read
            with open_image(saved[number - 1]) as parent, shadow.stores[number].open() as reader:
                report = save_image(
                    reader, saved[number], parent=parent, changes=shadow.changed_extents(number, number + 1)
                )
                assert report.unchanged > 0
    for number, expected in enumerate(trees[:3]):
        restored = tmp_path / f"{number}.raw"
        with open_image(saved[number]) as reader:
            restore_image(reader, restored)
        checked = subprocess.run(["ntfsfix", "-n", restored], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        with fused("ntfs-3g", restored, mount, "-o", "ro"):
            assert tree(mount) == expected, number
