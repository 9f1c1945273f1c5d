"""Verification reports damage, says how deep it looked, and raises only for wrong calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from sources import Plain, mixed
from vsssnap.blocks.extent import ExtentKind
from vsssnap.errors import (
    CorruptImageError,
    DeviceReadError,
    ImageNotFoundError,
    UnknownFormatError,
    UsageError,
)
from vsssnap.formats.base import Depth
from vsssnap.formats.raw import RawOptions
from vsssnap.imaging.opening import open_image
from vsssnap.imaging.reports import OnReadError, Progress
from vsssnap.imaging.restoring import restore_image
from vsssnap.imaging.saving import save_image
from vsssnap.imaging.verifying import verify_image

SIZE = 3 * (1 << 20) + 77


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.raw"
    save_image(Plain(mixed(SIZE)), path)
    return path


def same(one: bytes, other: bytes | bytearray) -> bool:
    """Whether they are equal; pytest would show the difference, for minutes."""
    return one == other


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_an_intact_image_is_ok_down_to_its_content(image: Path) -> None:
    report = verify_image(image)
    assert report.ok
    assert report.depth is Depth.CONTENT
    assert report.sidecar
    assert report.size == SIZE
    assert report.checked >= SIZE // 2


@pytest.mark.parametrize("offset", [0, 1 << 20, SIZE - 1])
def test_one_flipped_bit_is_found_where_it_is(image: Path, offset: int) -> None:
    flip(image, offset)
    report = verify_image(image)
    assert not report.ok
    assert report.count == 1
    extent = report.findings[0].extent
    assert extent is not None
    assert extent.offset <= offset < extent.end


def test_a_file_that_was_cut_is_reported(image: Path) -> None:
    with image.open("r+b") as file:
        file.truncate(SIZE - 1)
    report = verify_image(image)
    assert not report.ok
    assert str(SIZE - 1) in report.findings[0].message


def test_of_a_file_that_was_cut_the_rest_is_still_held_against_its_side_car(
    image: Path, tmp_path: Path
) -> None:
    """Its volume is as long as it was; what was zero is zero, all else behind the cut is lost."""
    whole = image.read_bytes()
    cut = 1 << 20
    with image.open("r+b") as file:
        file.truncate(cut + 3)
    with pytest.raises(CorruptImageError, match="was cut short: read what is left with recover=True"):
        open_image(image)
    report = verify_image(image, recover=True)
    assert (report.sidecar, report.size) == (True, SIZE)
    assert report.count > 1
    assert all(each.extent is None or each.extent.end > cut for each in report.findings)
    with open_image(image, recover=True) as rest:
        assert rest.size == SIZE
        assert rest.sidecar is not None
        assert same(rest.pread(cut, 0), whole[:cut])
        lost = [extent for extent in rest.extents() if extent.kind is ExtentKind.UNREADABLE]
        assert lost
        with pytest.raises(CorruptImageError, match="not what was saved"):
            rest.pread(1, lost[0].offset)
        with pytest.raises((CorruptImageError, DeviceReadError)):
            restore_image(rest, tmp_path / "no.raw")
        copy = restore_image(rest, tmp_path / "rest.raw", on_read_error=OnReadError.MARK, verify=True)
    kept = bytearray(whole)
    for extent in copy.unreadable:
        assert extent.end > cut
        assert any(whole[extent.offset : extent.end])
        kept[extent.offset : extent.end] = bytes(extent.length)
    assert same((tmp_path / "rest.raw").read_bytes(), kept)


def test_the_rest_of_a_file_that_was_cut_to_nothing_is_lost(image: Path) -> None:
    image.write_bytes(b"")
    with open_image(image, recover=True) as rest:
        assert rest.size == SIZE
        assert {extent.kind for extent in rest.extents()} <= {ExtentKind.UNREADABLE, ExtentKind.ZERO}


def test_a_damaged_side_car_is_reported(image: Path) -> None:
    flip(Path(f"{image}.vsssnap"), 3)
    report = verify_image(image)
    assert not report.ok


def test_without_checksums_the_report_claims_the_structure_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    save_image(Plain(mixed(SIZE)), path, options=RawOptions(sidecar=False))
    report = verify_image(path)
    assert report.ok
    assert report.depth is Depth.STRUCTURE
    assert not report.sidecar
    with pytest.raises(UsageError, match=r"depth CONTENT cannot be had.*saved with the option sidecar=True"):
        verify_image(path, depth=Depth.CONTENT)


def test_a_named_depth_is_the_one_that_is_reached(image: Path) -> None:
    flip(image, 5)
    report = verify_image(image, depth=Depth.STRUCTURE)
    assert report.ok
    assert report.depth is Depth.STRUCTURE
    with pytest.raises(UsageError, match="depth STORED cannot be had"):
        verify_image(image, depth=Depth.STORED)


class Constant:
    """Many bytes of one value."""

    size = 2020 << 18

    def pread(self, length: int, offset: int, /) -> bytes:
        return b"x" * length


def test_findings_are_bounded_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    save_image(Constant(), path)
    with path.open("r+b") as file:
        for block in range(0, 2020, 2):
            file.seek(block << 18)
            file.write(b"y")
    report = verify_image(path)
    assert report.count == 1010
    assert len(report.findings) == 1000
    path.unlink()


def test_what_is_not_there_or_no_image_raises(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFoundError, match="there is no image"):
        verify_image(tmp_path / "a.raw")
    (tmp_path / "a.xyz").write_text("text")
    with pytest.raises(UnknownFormatError, match=r"a\.xyz: no image format recognises it"):
        verify_image(tmp_path / "a.xyz")


def test_progress_is_told(image: Path) -> None:
    seen: list[Progress] = []
    verify_image(image, progress=seen.append)
    assert {p.state for p in seen} == {"verify", "done"}
