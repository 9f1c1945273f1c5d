"""What progress and reports say: rates are of what was read, and an increment tells how much it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sources import BytesReader
from vsssnap.imaging.comparing import compare_blocks
from vsssnap.imaging.opening import open_image
from vsssnap.imaging.reports import CopyOptions, Meter, Progress
from vsssnap.imaging.restoring import restore_image
from vsssnap.imaging.saving import save_image

MIB = 1 << 20


def test_the_rate_is_of_what_was_read_and_the_time_left_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 102.0, 104.0, 104.0])
    monkeypatch.setattr("vsssnap.imaging.reports.time.monotonic", lambda: next(clock))
    seen: list[Progress] = []
    meter = Meter(seen.append, 4000, "copy")
    meter.add(1900, read=0)
    meter.add(100, read=60)
    meter.tick()
    assert seen[-1] == Progress(2000, 4000, rate=30.0, state="copy", read=60, left=2.0)
    meter.add(2000, read=2000)
    meter.tick()  # of the last three seconds at most, but of two reports at least
    assert (seen[-1].rate, seen[-1].left) == (1000.0, 0.0)


def test_nothing_settled_is_no_time_left() -> None:
    seen: list[Progress] = []
    Meter(seen.append, 4000, "copy").tick()
    assert (seen[-1].rate, seen[-1].left) == (0.0, None)


def sparse(path: Path) -> Path:
    with path.open("xb") as file:
        file.write(os.urandom(2 * MIB))
        file.truncate(1 << 40)
    return path


@pytest.mark.posix("files are sparse there only on request")
def test_holes_that_are_passed_over_are_not_read(tmp_path: Path) -> None:
    path, image = sparse(tmp_path / "a.raw"), tmp_path / "a.vsnap"
    seen: list[Progress] = []
    with open_image(path) as reader:
        save_image(reader, image, progress=seen.append)
        assert (seen[-1].done, seen[-1].total, seen[-1].read) == (1 << 40, 1 << 40, 2 * MIB)
        with open_image(image) as other:
            assert not list(compare_blocks(reader, other, progress=seen.append))
    assert (seen[-1].done, seen[-1].total, seen[-1].read) == (1 << 40, 1 << 40, 2 * MIB)
    restore_image(image, tmp_path / "b.raw", verify=True, progress=seen.append)
    assert (seen[-1].done, seen[-1].total, seen[-1].read) == (1 << 40, 1 << 40, 2 * MIB)
    back = [each for each in seen if each.state == "read back"]
    assert back[-1].read == 2 * MIB


@pytest.mark.parametrize(
    ("format", "step", "zeros"),
    [("vsnap", 64 << 10, 0), ("qcow2", 64 << 10, 0), ("vhdx", 512, 0), ("vhd", 4096, MIB)],
)
@pytest.mark.parametrize("workers", [1, 4])
def test_an_increment_tells_how_much_changed(
    format: str, step: int, zeros: int, workers: int, tmp_path: Path
) -> None:
    """Two places that nothing else lies near; the format's own step is what it compares by."""
    old = bytearray(os.urandom(8 * MIB))
    report = save_image(BytesReader(bytes(old)), tmp_path / f"a.{format}", wrap=False)
    assert report.changed is None, "it is no increment"
    new = bytearray(old)
    new[MIB] ^= 1
    new[5 * MIB + 100] ^= 1
    new[7 * MIB : 8 * MIB] = bytes(MIB)  # a VHD has no other way to say it than to store them
    with open_image(tmp_path / f"a.{format}") as parent:
        report = save_image(
            BytesReader(bytes(new)),
            tmp_path / f"b.{format}",
            parent=parent,
            wrap=False,
            copy=CopyOptions(workers=workers),
        )
        same = save_image(BytesReader(bytes(old)), tmp_path / f"c.{format}", parent=parent, wrap=False)
    assert report.data == 8 * MIB
    assert report.changed is not None
    assert 2 * 512 <= report.changed - zeros <= 2 * step
    assert same.changed == 0
