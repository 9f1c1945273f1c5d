"""VHDX images that were cut short."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from sources import BytesReader
from vsssnap import ExtentKind, OnReadError, open_image, restore_image, save_image
from vsssnap.errors import CorruptImageError, DeviceReadError
from vsssnap.formats.vhdx import VhdxOptions

MIB = 1 << 20
CONTENT = random.Random(7).randbytes(6 * MIB)


@pytest.mark.parametrize("by", [MIB // 2, 5 * MIB // 2])
def test_what_lies_behind_the_end_is_lost_and_the_rest_is_not(tmp_path: Path, by: int) -> None:
    path = tmp_path / "a.vhdx"
    save_image(BytesReader(CONTENT), path, options=VhdxOptions(block_size=MIB), wrap=False)
    os.truncate(path, path.stat().st_size - by)
    with open_image(path) as reader, pytest.raises(CorruptImageError, match="recover=True"):
        reader.readall()
    with open_image(path, recover=True) as reader:
        lost = [extent for extent in reader.extents() if extent.kind is ExtentKind.UNREADABLE]
        assert sum(extent.length for extent in lost) == by
        with pytest.raises(DeviceReadError, match="lie behind the file's end"):
            reader.pread(512, lost[0].offset)
        with pytest.raises(DeviceReadError, match="lie behind the file's end"):
            reader.readinto(bytearray(6 * MIB))
        report = restore_image(reader, tmp_path / "rest.raw", on_read_error=OnReadError.MARK)
    expected = bytearray(CONTENT)
    for extent in lost:
        expected[extent.offset : extent.end] = bytes(extent.length)
    assert (tmp_path / "rest.raw").read_bytes() == bytes(expected)
    assert sum(extent.length for extent in report.unreadable) == by
