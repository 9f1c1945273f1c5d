"""Images that were cut short: they say so, and tell each loss once."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from sources import BytesReader
from vmdk_images import descriptor
from vsssnap import CopyOptions, Extent, create_image, open_image, save_image, verify_image
from vsssnap.errors import CorruptImageError
from vsssnap.formats import Depth, Finding
from vsssnap.formats._findings import joined
from vsssnap.formats.vhd import VhdOptions
from vsssnap.formats.vhdx import VhdxOptions
from vsssnap.formats.vmdk import VmdkOptions

MIB = 1 << 20
SIZE = 12 * MIB
CONTENT = random.Random(8).randbytes(SIZE)
OPTIONS = {
    "vhd": VhdOptions(kind="dynamic"),
    "vhdx": VhdxOptions(block_size=MIB),
    "fixed.vhdx": VhdxOptions(block_size=MIB, fixed=True),
    "vmdk": VmdkOptions(),
    "stream.vmdk": VmdkOptions(kind="streamOptimized"),
}


def save(content: bytes, path: Path, options: object = None) -> None:
    """In order: of several threads nobody knows what of the volume lies at the end of the file."""
    save_image(BytesReader(content), path, options=options, wrap=False, copy=CopyOptions(workers=1))


@pytest.mark.parametrize("kind", OPTIONS)
def test_an_image_that_was_cut_short_is_not_complete(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    save(CONTENT, path, OPTIONS[kind])
    for recover in (False, True):
        with open_image(path, recover=recover) as reader:
            assert reader.info()["complete"] is True
    os.truncate(path, path.stat().st_size - 9 * MIB // 2)
    with open_image(path, recover=True) as reader:
        assert reader.info()["complete"] is False
        lost = [extent for extent in reader.extents() if extent.kind == "unreadable"]
    assert 4 * MIB < sum(extent.length for extent in lost) < 5 * MIB
    # One finding for the range that is lost, whatever else is wrong because of it.
    found = verify_image(path, recover=True).findings
    assert found
    assert sum(finding.extent is not None for finding in found) <= 1


def test_what_is_left_of_a_fixed_vhd_is_read_as_raw(tmp_path: Path) -> None:
    """All that tells of it lies at its end."""
    path = tmp_path / "a.vhd"
    save_image(BytesReader(CONTENT[:MIB]), path, options=VhdOptions(kind="fixed"), wrap=False)
    os.truncate(path, MIB // 2)
    with pytest.raises(CorruptImageError, match="open it with recover=True"):
        open_image(path, format="vhd")
    with pytest.raises(CorruptImageError, match='with format="raw"'):
        open_image(path, format="vhd", recover=True)
    with open_image(path, format="raw") as reader:
        assert reader.readall() == CONTENT[: MIB // 2]


def test_the_file_of_a_complete_image_may_be_larger_or_smaller(tmp_path: Path) -> None:
    """What the disk does not need of its last block may be missing, and more may be there."""
    path = tmp_path / "a.vhdx"
    save(CONTENT[: MIB * 5], path, VhdxOptions(block_size=2 * MIB))
    size = path.stat().st_size
    for wanted, complete in ((size + MIB, True), (size - MIB, True), (size - MIB - 1, False)):
        os.truncate(path, wanted)
        with open_image(path) as reader:
            assert reader.info()["complete"] is complete


def test_a_child_is_complete_as_far_as_its_own_sectors_go(tmp_path: Path) -> None:
    below, path = tmp_path / "0.vhdx", tmp_path / "1.vhdx"
    save_image(BytesReader(CONTENT), below, options=VhdxOptions(block_size=MIB), wrap=False)
    changed = bytearray(CONTENT)
    changed[5 * MIB + 512 : 5 * MIB + 1024] = bytes(512)
    with open_image(below) as parent:
        writer = create_image(path, SIZE, parent=parent)
        writer.pwrite(memoryview(changed)[5 * MIB : 6 * MIB], 5 * MIB)
        writer.finish()
    with open_image(path) as reader:
        assert reader.info()["complete"] is True
    # The sector bitmap lies last; of it the first six blocks need 256 bytes each.
    bitmap = path.stat().st_size - MIB
    os.truncate(path, bitmap + 6 * 256)
    with open_image(path) as reader:
        assert reader.pread(SIZE, 0) == changed
        assert reader.info()["complete"] is True
    os.truncate(path, bitmap + 6 * 256 - 1)
    with open_image(path) as reader:
        assert reader.info()["complete"] is False


def test_a_loss_in_a_part_of_a_disk_is_told_where_it_is_in_the_disk(tmp_path: Path) -> None:
    """The second of two sparse extents, and the third, which is flat, were cut short."""
    for name in ("1", "2"):
        save(CONTENT[: 4 * MIB], tmp_path / f"{name}.vmdk")
    (tmp_path / "3.bin").write_bytes(CONTENT[: 3 * MIB])
    path = tmp_path / "disk.vmdk"
    lines = ['RW 8192 SPARSE "1.vmdk"', 'RW 8192 SPARSE "2.vmdk"', 'RW 8192 FLAT "3.bin" 0']
    path.write_bytes(descriptor(lines))
    second = tmp_path / "2.vmdk"
    os.truncate(second, second.stat().st_size - MIB)
    with open_image(path, recover=True) as reader:
        assert reader.info()["complete"] is False
        found = list(reader.verify(Depth.STRUCTURE, lambda _: None))
    assert [finding.extent for finding in found] == [Extent(7 * MIB, MIB), Extent(11 * MIB, MIB)]
    assert "so with 15 more, up to byte 4194304 of the volume" in found[0].message


def test_findings_are_joined_where_they_are_of_one_trouble_and_touch() -> None:
    def found(at: int, message: str, structure: str = "table") -> Finding:
        return Finding(structure, at, message, Extent(at, 10))

    alone = Finding("header", 0, "entry 1 is 0x2")
    assert list(joined([])) == []
    assert list(joined([alone, alone])) == [alone, alone]
    assert list(
        joined([found(0, "entry 1 is 0x2"), found(10, "entry 11 is 0xab"), found(20, "entry 3 is 7")])
    ) == [Finding("table", 0, "entry 1 is 0x2; so with 2 more, up to byte 30 of the volume", Extent(0, 30))]
    for other in (found(11, "entry 1"), found(10, "entries 1"), found(10, "entry 1", "header"), alone):
        assert list(joined([found(0, "entry 1"), other])) == [found(0, "entry 1"), other]
