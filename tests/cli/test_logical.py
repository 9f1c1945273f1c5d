"""Logical volumes on the command line: drawn by ``info``, taken out by ``save --volume``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lvm_images as lvm
from command_line import said as vsssnap
from lvm_images import EXTENT, START, on_disk, physical_volume, segment, volume
from vsssnap import open_image

THIN = 'segment1 {\nstart_extent = 0\nextent_count = 2\ntype = "thin"\nthin_pool = "pool"\n}\n'
VOLUMES = (
    volume("root", segment(1, 0, 3, [("pv0", 4)]), segment(2, 3, 2, [("pv1", 1)]))
    + volume("thin", THIN)
    + volume("pool_tmeta", segment(1, 0, 1, [("pv0", 0)]), status='"READ"')
)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk of two physical volumes of one group, and a third one that is damaged."""
    folder = tmp_path_factory.mktemp("lvm")
    parts = []
    for number in range(3):
        image = physical_volume(lvm.group(VOLUMES, pvs=2), number)
        if number == 2:
            image[512 + 40] ^= 1
        parts.append(folder / f"pv{number}")
        parts[-1].write_bytes(image)
    return on_disk(parts, folder / "disk.raw")


def test_a_group_is_drawn(disk: Path) -> None:
    shown = vsssnap("info", disk, "--format", "raw")
    assert "│  └─ LVM physical volume of the group vg\n" in shown
    assert "│     └─ logical volume root, 320 KiB\n" in shown
    assert "│     └─ logical volume thin, 128 KiB, thin\n" in shown
    assert "│        └─ the logical volume thin has a segment of type thin" in shown
    assert "│  └─ LVM physical volume of the group vg, whose logical volumes are shown above\n" in shown
    assert (
        "   └─ LVM physical volume: the label of the LVM physical volume, in sector 1, has another" in shown
    )
    assert "pool_tmeta" not in shown
    parts = json.loads(vsssnap("info", disk, "--format", "raw", "--json"))["contents"]["partitions"]
    told = [part["physical_volume"] for part in parts]
    assert [each.get("id") for each in told] == [lvm.pv_id(0), lvm.pv_id(1), ""]
    assert [each["name"] for each in told[0]["volumes"]] == ["root", "thin"]
    assert "volumes" not in told[1]
    assert "checksum" in told[2]["error"]


def test_a_volume_of_several_partitions_is_taken_out(disk: Path, tmp_path: Path) -> None:
    target = tmp_path / "root.vsnap"
    vsssnap("save", disk, target, "--volume", "vg/root")
    first, second = (physical_volume(b"", number) for number in range(2))
    expected = first[START + 4 * EXTENT : START + 7 * EXTENT] + second[START + EXTENT : START + 3 * EXTENT]
    with open_image(target) as image:
        assert image.pread(image.size, 0) == bytes(expected)
        assert f"it is logical volume vg/root of {disk}" in image.metadata.notes


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--volume", "other/root"), 2, "no logical volume 'other/root': there is vg/root, vg/thin"),
        (("--volume", "thin"), 20, "a segment of type thin"),
        (("--volume", "root", "--partition", "3"), 21, "has another checksum"),
    ],
)
def test_what_cannot_be_taken_is_refused(
    options: tuple[str, ...], status: int, said: str, disk: Path, tmp_path: Path
) -> None:
    told = vsssnap("save", disk, tmp_path / "a.vsnap", *options, status=status)
    assert said in told
    assert not list(tmp_path.iterdir())
