"""Shadow copies on a volume, through the program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import vsssnap
from loops import loop_device
from requirements import require_lab
from volsnap_model import BLOCK, Copy, Disk, model_of, without_header
from vsssnap import open_image


def written(path: Path, blocks: dict[int, bytes], size: int) -> Path:
    with path.open("xb") as file:
        for number, block in blocks.items():
            file.seek(number * BLOCK)
            file.write(block)
        file.truncate(size)
    return path


@pytest.fixture(scope="module")
def disk() -> Disk:
    return model_of(1, copies=3).export()


@pytest.fixture(scope="module")
def volume(disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("volume") / "volume.raw", disk.volume, disk.size)


def check_image(image: Path, copy: Copy) -> None:
    with open_image(image) as reader:
        assert reader.size == copy.size
        assert reader.metadata.snapshot_id == str(copy.copy_id)
        for block in copy.truth:
            data = reader.pread(min(BLOCK, copy.size - block * BLOCK), block * BLOCK)
            assert without_header(block, data) == Disk.expected(copy, block)


def test_info_lists_the_shadow_copies(disk: Disk, volume: Path) -> None:
    shown = vsssnap("info", volume).stdout
    assert "3 shadow copies:" in shown
    found = json.loads(vsssnap("info", volume, "--json").stdout)["shadow_copies"]
    assert [each["copy_id"] for each in found] == [str(copy.copy_id) for copy in disk.model.copies]
    for number, (each, copy) in enumerate(zip(found, disk.model.copies, strict=True), 1):
        assert (each["number"], each["size"], each["readable"], each["reasons"]) == (
            number,
            copy.size,
            True,
            [],
        )
        assert str(copy.copy_id) in shown
        assert each["created"].endswith("+00:00")


def test_a_shadow_copy_is_saved_by_number_or_id(disk: Disk, volume: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.vsnap", tmp_path / "two.vsnap"
    vsssnap("save", volume, one, "--shadow", "2")
    vsssnap("save", volume, two, "--shadow", str(disk.model.copies[1].store_id))
    vsssnap("compare", one, two)
    check_image(one, disk.model.copies[1])
    # What was not in use is not in it; the image of a shadow copy has none of its own.
    info = json.loads(vsssnap("info", one, "--json").stdout)
    assert info["states"]["hole"] > 0
    assert info["shadow_copies"] == []
    assert "warnings" not in info


def test_an_image_of_a_volume_is_a_volume(disk: Disk, volume: Path, tmp_path: Path) -> None:
    whole, image = tmp_path / "whole.vsnap", tmp_path / "three.vsnap"
    vsssnap("save", volume, whole, "--live")
    assert "3 shadow copies:" in vsssnap("info", whole).stdout
    vsssnap("save", whole, image, "--shadow", "3")
    check_image(image, disk.model.copies[2])
    strange = tmp_path / "volume.bin"
    strange.symlink_to(volume)
    vsssnap("save", strange, tmp_path / "also.vsnap", "--shadow", "3")
    vsssnap("compare", image, tmp_path / "also.vsnap")


def test_redirected_storage_is_named(tmp_path: Path) -> None:
    disk = model_of(2, copies=2, redirected=True).export()
    assert disk.storage is not None
    volume = written(tmp_path / "volume.raw", disk.volume, disk.size)
    storage = written(tmp_path / "storage.raw", disk.storage, disk.model.storage_size)
    shown = vsssnap("info", volume).stdout
    assert "unreadable" in shown
    assert str(disk.model.storage_id) in shown
    said = vsssnap("save", volume, tmp_path / "a.vsnap", "--shadow", "1", status=2).stderr
    assert "pass that volume as storage" in said
    vsssnap("save", volume, tmp_path / "a.vsnap", "--shadow", "1", "--shadow-storage", storage)
    check_image(tmp_path / "a.vsnap", disk.model.copies[0])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--shadow", "4"), "no shadow copy 4, but the numbers 1 to 3"),
        (("--shadow", "first"), "no shadow copy first"),
        (("--shadow", "1", "--live"), "does not go with --live"),
        (("--shadow", "1", "--stop-service", "x"), "does not go with --stop-service"),
        (("--shadow", "1", "--require", "application"), "does not go with --require"),
        (("--shadow-unused", "windows"), "--shadow-unused without --shadow"),
        (("--shadow-storage", "x"), "--shadow-storage without --shadow"),
    ],
)
def test_wrong_usage_is_said(volume: Path, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    assert says in vsssnap("save", volume, tmp_path / "a.vsnap", *arguments, status=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_the_format_of_the_source_counts(disk: Disk, volume: Path, tmp_path: Path) -> None:
    done = vsssnap(
        "save", volume, tmp_path / "a.vsnap", "--shadow", "1", "--input-format", "qcow2", status=21
    )
    assert "QCOW2" in done.stderr.upper()
    vsssnap("save", volume, tmp_path / "a.vsnap", "--shadow", "1", "--input-format", "raw")
    check_image(tmp_path / "a.vsnap", disk.model.copies[0])


def test_policies_for_unused_blocks(volume: Path, tmp_path: Path) -> None:
    images = {}
    for policy in ("zero", "windows", "current"):
        images[policy] = tmp_path / f"{policy}.vsnap"
        vsssnap("save", volume, images[policy], "--shadow", "1", "--shadow-unused", policy)
    vsssnap("compare", images["windows"], images["current"])  # the oldest one
    vsssnap("compare", images["zero"], images["current"], status=1)
    vsssnap("save", volume, tmp_path / "a.vsnap", "--shadow", "1", "--shadow-unused", "error", status=15)
    marked = ("--shadow-unused", "error", "--on-read-error", "mark")
    vsssnap("save", volume, tmp_path / "a.vsnap", "--shadow", "1", *marked, status=1)


def test_what_is_damaged_is_said_and_the_rest_served(disk: Disk, tmp_path: Path) -> None:
    blocks = dict(disk.volume)
    (place,) = disk.metadata["block list 2"]
    blocks[place] = bytes(BLOCK)
    volume = written(tmp_path / "volume.raw", blocks, disk.size)
    shown = vsssnap("info", volume).stdout
    assert "there is no metadata block" in shown
    found = json.loads(vsssnap("info", volume, "--json").stdout)["shadow_copies"]
    assert [each["readable"] for each in found] == [False, False, True]
    said = vsssnap("save", volume, tmp_path / "a.vsnap", "--shadow", "1", status=21).stderr
    assert "depends on shadow copy 2" in said
    vsssnap("save", volume, tmp_path / "a.vsnap", "--shadow", "3")
    check_image(tmp_path / "a.vsnap", disk.model.copies[2])


@pytest.mark.lab
def test_a_block_device_is_a_volume(disk: Disk, tmp_path: Path) -> None:
    require_lab("losetup")
    # A loop device is as long as whole sectors of its file.
    volume = written(tmp_path / "volume.img", disk.volume, disk.size)
    with loop_device(volume, readonly=True) as device:
        shown = vsssnap("info", device).stdout
        assert "block device" in shown
        assert "3 shadow copies:" in shown
        assert len(json.loads(vsssnap("info", device, "--json").stdout)["shadow_copies"]) == 3
        vsssnap("save", device, tmp_path / "a.vsnap", "--shadow", "2")
    check_image(tmp_path / "a.vsnap", disk.model.copies[1])
