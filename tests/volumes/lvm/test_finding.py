"""Physical volumes on one disk are put together, those that tell an old story apart."""

from __future__ import annotations

from pathlib import Path

import pytest

import lvm_images as lvm
from foreign import sfdisk
from lvm_images import on_disk, physical_volume, segment, volume
from vsssnap import open_device
from vsssnap.blocks.plain import PlainReader
from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import CorruptImageError, UsageError
from vsssnap.volumes.lvm.finding import find_volume, grouped, physical_volumes

OLD = lvm.group(volume("root", segment(1, 0, 1, [("pv1", 0)])), pvs=2, seqno=3)
NEW = lvm.group(volume("root", segment(1, 0, 2, [("pv0", 4)])), seqno=9)


def reader(image: bytes | bytearray) -> BlockReader:
    return PlainReader(bytes(image), len(image))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_volume_that_was_taken_out_while_it_was_away_changes_nothing(
    order: tuple[int, int], tmp_path: Path
) -> None:
    images = physical_volume(NEW, 0), physical_volume(OLD, 1)
    found = grouped({number: reader(images[each]) for number, each in enumerate(order, 1)})
    kept, outdated = (found[order.index(each) + 1] for each in (0, 1))
    assert kept.group is not None
    assert (kept.group.seqno, [each.name for each in kept.group]) == (9, ["root"])
    assert outdated.group is None
    assert isinstance(outdated.problem, UsageError)
    assert f"{lvm.pv_id(1)} is no longer in the group vg" in outdated.problem.message
    assert "vgck" in outdated.problem.hint
    files = []
    for each in order:
        files.append(tmp_path / f"pv{each}")
        files[-1].write_bytes(images[each])
    with open_device(on_disk(files, tmp_path / "disk")) as disk, find_volume(disk, "root").open() as root:
        assert root.pread(root.size, 0) == bytes(images[0][lvm.START + 4 * lvm.EXTENT :][: 2 * lvm.EXTENT])


def test_one_without_a_good_description_is_known_by_the_others() -> None:
    text = lvm.group(volume("root", segment(1, 0, 1, [("pv1", 3)])), pvs=3)
    damaged = physical_volume(text, 1)
    damaged[lvm.AREA + 700] ^= 1
    none = physical_volume(text, 2, copies=0)
    for order in ((1, 2, 3), (3, 2, 1), (2, 1, 3)):
        images = dict(zip(order, (physical_volume(text, 0), damaged, none), strict=True))
        found = grouped({number: reader(images[number]) for number in (1, 2, 3)})
        assert [each.group.name for each in found.values() if each.group] == ["vg"] * 3
        group = found[1].group
        assert group is not None
        with group["root"].open() as root:
            assert root.pread(8, 0) == bytes(damaged[lvm.START + 3 * lvm.EXTENT :][:8])


def test_a_copy_of_a_physical_volume_beside_it_is_refused() -> None:
    found = grouped({1: reader(physical_volume(NEW, 0)), 2: reader(physical_volume(NEW, 0))})
    assert [each.group for each in found.values()] == [None, None]
    assert all("two of the volumes are" in str(each.problem) for each in found.values())


def test_what_cannot_be_read_is_told_with_what_is_not_found(tmp_path: Path) -> None:
    damaged = physical_volume(NEW, 1)
    damaged[lvm.AREA + 700] ^= 1
    paths = [tmp_path / "good", tmp_path / "damaged"]
    paths[0].write_bytes(physical_volume(NEW, 0))
    paths[1].write_bytes(damaged)
    with open_device(on_disk(paths, tmp_path / "disk")) as disk:
        with pytest.raises(UsageError, match="no logical volume 'home'") as caught:
            find_volume(disk, "home")
        assert "there is vg/root; and of another physical volume: the text in" in caught.value.hint
        with pytest.raises(CorruptImageError, match="another checksum"):
            find_volume(disk, "home", 2)


def test_logical_partitions_of_an_mbr_are_looked_at(tmp_path: Path) -> None:
    image = physical_volume(NEW, 0)
    path = tmp_path / "disk"
    path.write_bytes(bytes(8 << 20))
    sfdisk(path, "label: dos\nstart=2048,size=2048\nstart=4096,type=extended\nstart=6144,type=8e\n")
    with path.open("r+b") as file:
        file.seek(6144 * 512)
        file.write(image)
    with open_device(path) as disk:
        assert [(number, bool(each.group)) for number, each in physical_volumes(disk).items()] == [(5, True)]
        with find_volume(disk, "vg/root", 5).open() as root:
            assert root.pread(8, 0) == bytes(image[lvm.START + 4 * lvm.EXTENT :][:8])
