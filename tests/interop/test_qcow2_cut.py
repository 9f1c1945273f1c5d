"""Images that were cut short."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

import oracles
from requirements import require_program
from sources import BytesReader
from vsssnap import ExtentKind, OnReadError, open_image, restore_image, save_image, verify_image
from vsssnap.errors import CorruptImageError, DeviceReadError
from vsssnap.formats.qcow2 import Qcow2Options

MIB = 1 << 20
CONTENT = random.Random(5).randbytes(2 * MIB) + bytes(MIB)
OPTIONS = {
    "plain": Qcow2Options(),
    "packed": Qcow2Options(compression="zstd", cluster_size=65536),
}


@pytest.fixture(params=OPTIONS)
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "a.qcow2"
    save_image(BytesReader(CONTENT), path, options=OPTIONS[request.param])
    return path


def cut(path: Path, by: int) -> Path:
    """A copy without its end."""
    shorter = path.with_name("cut.qcow2")
    shutil.copy(path, shorter)
    with open(shorter, "r+b") as file:
        file.truncate(path.stat().st_size - by)
    return shorter


def test_a_whole_image_is_complete(image: Path) -> None:
    with open_image(image) as reader:
        assert reader.info()["complete"] is True
        assert all(extent.kind is not ExtentKind.UNREADABLE for extent in reader.extents())
    with open_image(image, recover=True) as reader:
        assert reader.readall() == CONTENT


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_what_lies_behind_the_end_is_lost_and_the_rest_is_not(tmp_path: Path, options: Qcow2Options) -> None:
    # qemu lays tables before the data, so a cut at the end takes data alone.
    (tmp_path / "a.raw").write_bytes(CONTENT)
    packed = ["-c", "-o", "compression_type=zstd"] if options.compression != "none" else []
    command = [require_program("qemu-img"), "convert", "-f", "raw", "-O", "qcow2", *packed]
    oracles.run([*command, tmp_path / "a.raw", tmp_path / "a.qcow2"])
    short = cut(tmp_path / "a.qcow2", 300_000)
    with open_image(short) as reader:
        assert reader.info()["complete"] is False
        with pytest.raises(CorruptImageError):
            reader.readall()
    with open_image(short, recover=True) as reader:
        lost = [extent for extent in reader.extents() if extent.kind is ExtentKind.UNREADABLE]
        assert 250_000 < sum(extent.length for extent in lost) < 500_000
        for extent in lost:
            with pytest.raises(DeviceReadError, match="lie behind the file's end"):
                reader.pread(512, extent.offset)
        expected = bytearray(CONTENT)
        for extent in lost:
            expected[extent.offset : extent.end] = bytes(extent.length)
        report = restore_image(reader, tmp_path / "rest.raw", on_read_error=OnReadError.MARK)
    assert (tmp_path / "rest.raw").read_bytes() == bytes(expected)
    assert report.unreadable == tuple(lost)
    messages = [finding.message for finding in verify_image(short).findings]
    assert (
        any(f"reach to {tmp_path.joinpath('a.qcow2').stat().st_size}" in text for text in messages) or packed
    )
    assert any(f"behind its end at {short.stat().st_size}" in text for text in messages)
